//! Runbooks are rehearsed against everything that can go wrong.

use std::collections::BTreeMap;

use cutover_runtime::{
    Beginning,
    rehearsal::{End, Explore, Findings, Scenario},
};

use crate::lab::Lab;

fn rehearse(script: &str) -> Findings {
    rehearse_with(script, Explore::default())
}

fn rehearse_with(script: &str, explore: Explore) -> Findings {
    let lab = Lab::new();
    let beginning = Beginning { look: true, ..Beginning::default() };
    let found = lab.tokio.block_on(lab.runtime().rehearse(
        &Lab::bundle(script),
        &BTreeMap::new(),
        &beginning,
        explore,
    ));
    assert!(lab.log().is_empty(), "a rehearsal changes nothing: {:?}", lab.log());
    assert!(lab.lamps.board().rings.is_empty());
    found.unwrap().0
}

/// How scenarios ended, by name.
fn ends(findings: &Findings) -> BTreeMap<String, End> {
    findings.tried.iter().map(|tried| (tried.scenario.to_string(), tried.end)).collect()
}

fn violations(findings: &Findings) -> Vec<String> {
    let told = |tried: &cutover_runtime::rehearsal::Tried| {
        let scenario = tried.scenario.to_string();
        tried
            .violations
            .iter()
            .map(move |v| format!("{scenario}: {}: {}", v.invariant, v.why))
            .collect::<Vec<_>>()
    };
    findings.violated().flat_map(told).collect()
}

const STORY: &str = r#"
step("look", || lab::expect("a", 0));
step("one", || { lab::set("a", 1); lab::ring("first"); });
on_rollback(|| lab::ring("undo"));
parallel([
    || lab::set("b", 2),
    || step("bell", || { lab::ring("second", #{ undoable: true }); lab::look("a") }),
]);
lab::guard("c", 3, || { sleep("15m"); lab::set("a", 2); });
approve("go on?", #{ timeout: "1h" });
lab::set("c", 4);
"#;

#[test]
fn every_effect_is_tried_with_every_way_in_which_it_can_go_wrong() {
    let findings = rehearse(STORY);
    for (name, end) in ends(&findings) {
        println!("{name}: {end:?}");
    }
    assert_eq!(violations(&findings), Vec::<String>::new());
    let ends = ends(&findings);
    let _ = (&ends, Scenario::default());
}
