//! Runbooks are rehearsed against everything that can go wrong.

use std::{collections::BTreeMap, sync::Arc};

use contraflow_runtime::{
    Beginning,
    event::{Envelope, Event, Mode},
    rehearsal::{Answer, End, Explore, Findings, InitialStateFile, Scenario},
};

use crate::lab::Lab;

fn rehearse(script: &str) -> Findings {
    rehearse_with(script, Explore::default())
}

fn rehearse_with(script: &str, explore: Explore) -> Findings {
    rehearse_from(script, Beginning { look: true, ..Beginning::default() }, explore)
}

fn rehearse_from(script: &str, beginning: Beginning, explore: Explore) -> Findings {
    let lab = Lab::new();
    let (bundle, none) = (Lab::bundle(script), BTreeMap::new());
    let _on = lab.tokio.enter();
    let rehearsal = lab.runtime().rehearsal(&bundle, &none, &beginning).unwrap();
    let found = lab.tokio.block_on(rehearsal.explore(explore)).unwrap();
    assert!(lab.log().is_empty(), "a rehearsal changes nothing: {:?}", lab.log());
    assert!(lab.lamps.board().rings.is_empty());
    found
}

/// How scenarios ended, by name.
fn ends(findings: &Findings) -> BTreeMap<String, End> {
    findings.tried.iter().map(|tried| (tried.scenario.to_string(), tried.end)).collect()
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
    assert_eq!(findings.violations(), Vec::<String>::new());
    let ends = ends(&findings);
    for (scenario, end) in [
        ("as-planned", End::Succeeded),
        ("branches-backwards", End::Succeeded),
        ("look/1:lab.look=fails", End::Failed),
        ("one/1:lab.set=unreachable", End::Failed),
        ("one/1:lab.set=refused", End::Failed),
        ("one/1:lab.set=lost-answer", End::Succeeded),
        ("one/1:lab.set=never-settles", End::RolledBack),
        ("one/1:lab.set=killed", End::Succeeded),
        ("one/2:lab.ring=lost-answer", End::RolledBack),
        ("2:par[1]/bell/1:lab.ring=times-out", End::RolledBack),
        ("3:guard/1:sleep=breach(3:guard)", End::RolledBack),
        ("3:guard/2:lab.set=breach(3:guard)", End::RolledBack),
        ("4:approve=denied", End::RolledBack),
        ("4:approve=no-answer", End::RolledBack),
        ("5:lab.set=never-settles+rollback/5:lab.set=refused", End::RollbackIncomplete),
        ("5:lab.set=never-settles+rollback/5:lab.set=lost-answer", End::RolledBack),
        ("5:lab.set=never-settles+rollback/5:lab.set=killed", End::RolledBack),
    ] {
        assert_eq!(ends.get(scenario), Some(&end), "{scenario}");
    }
    // A death at each record, on the way there and on the longest way back.
    let deaths = |of: &str| ends.keys().filter(|name| name.starts_with(of)).count();
    assert_eq!(deaths("crash@"), findings.records - 1);
    assert!(deaths("5:lab.set=never-settles+crash@") > 8);
}

#[test]
fn the_same_rehearsal_comes_to_the_same_findings_to_the_byte() {
    let text = || serde_json::to_string(&rehearse_with(STORY, Explore { pairs: true, ..Explore::default() }));
    assert_eq!(text().unwrap(), text().unwrap());
}

#[test]
fn two_faults_at_once_are_tried_on_demand() {
    let one = rehearse(STORY);
    let two = rehearse_with(STORY, Explore { pairs: true, ..Explore::default() });
    assert_eq!(two.violations(), Vec::<String>::new());
    assert!(two.tried.len() > 4 * one.tried.len(), "{} and {}", one.tried.len(), two.tried.len());
    assert!(ends(&two).contains_key("one/1:lab.set=lost-answer+2:par[0]/1:lab.set=refused"));
}

#[test]
fn what_the_budget_did_not_allow_for_is_counted() {
    let all = rehearse(STORY);
    let some = rehearse_with(STORY, Explore { scenarios: Some(20), ..Explore::default() });
    assert!(some.tried.len() <= 20, "{}", some.tried.len());
    assert!(some.not_tried > 20, "{}", some.not_tried);
    assert_eq!((all.not_tried, some.tried[0].scenario.to_string()), (0, "as-planned".to_owned()));
}

#[test]
fn what_only_a_real_run_can_tell_is_said_and_not_guessed() {
    let findings = rehearse(r#"let n = lab::ring("how many?"); if n > 3 { lab::set("a", 1); }"#);
    assert_eq!(findings.tried[0].end, End::Unknown);
    let why = findings.tried[0].why.clone().unwrap();
    assert!(why.contains("lab.ring"), "{why}");
    let told = InitialStateFile {
        answers: vec![Answer {
            effect: "lab.ring".into(),
            of: "how many".into(),
            value: Some(5.into()),
            ..Answer::default()
        }],
        ..InitialStateFile::default()
    };
    let by_input = Answer {
        of: String::new(),
        input: Some(r#"{"text":"how many?","undoable":false}"#.into()),
        ..told.answers[0].clone()
    };
    let by_input = InitialStateFile { answers: vec![by_input], ..InitialStateFile::default() };
    for file in [told, by_input] {
        let findings = rehearse_from(
            r#"let n = lab::ring("how many?"); if n > 3 { lab::set("a", 1); }"#,
            Beginning { file, look: true },
            Explore::default(),
        );
        assert_eq!(findings.tried[0].end, End::Succeeded);
        assert!(findings.effects.iter().any(|row| row.effect == "lab.set"));
    }
}

#[test]
fn a_scenario_says_how_things_stand_and_what_is_answered_while_they_do() {
    let file: InitialStateFile = serde_json::from_value(serde_json::json!({
        "states": { "lab/a": 7, "lab/b": 1 },
        "answers": [{ "effect": "lab.look", "of": "b", "passes_while": "world.lab.a == 7" }],
    }))
    .unwrap();
    let script = r#"lab::expect("b", 1); lab::set("a", 8); lab::expect("b", 1);"#;
    let findings = rehearse_from(script, Beginning { file, look: false }, Explore::default());
    let planned = &findings.tried[0];
    assert_eq!(planned.end, End::RolledBack);
    assert!(planned.why.as_ref().unwrap().ends_with("not while world.lab.a == 7"), "{planned:?}");
    let nothing = rehearse_from(script, Beginning::default(), Explore::default());
    assert!(
        nothing.tried[0].why.as_ref().unwrap().contains("the scenario file has no initial state for lab/a")
    );
}

#[test]
fn what_a_runbook_says_must_hold_is_asked_after_every_change() {
    let script = |limit: i64| {
        format!(
            r#"invariant("a stays small", |world| world.lab.a <= {limit});
               lab::set("a", 1); lab::set("a", 3); lab::set("a", 2);"#
        )
    };
    assert_eq!(rehearse(&script(3)).violations(), Vec::<String>::new());
    let broken = rehearse(&script(2));
    let first = &broken.tried[0].violations[0];
    assert_eq!((first.invariant.as_str(), first.after.as_deref()), ("a stays small", Some("3:lab.set")));
    for (body, why) in [
        ("|world| 42", "it returned a number, not true or false"),
        ("|world| world.lab.nothing", "there is no known state of `nothing`"),
        ("|world| lab::look(\"a\") == 0", "an invariant may only read its world"),
    ] {
        let findings = rehearse(&format!(r#"invariant("odd", {body}); lab::set("a", 1);"#));
        let told = &findings.tried[0].violations[0].why;
        assert!(told.contains(why), "{body}: {told}");
    }
    // Nobody asks in a run.
    let lab = Lab::new();
    assert_eq!(lab.run(&script(0)).outcome, contraflow_runtime::event::RunOutcome::Succeeded);
}

#[test]
fn a_scenario_is_played_again_by_its_name_with_all_that_happens() {
    let lab = Lab::new();
    let heard = Arc::clone(&lab.events);
    let sink = Arc::new(move |event: &Envelope| heard.lock().unwrap().push(event.clone()));
    let beginning = Beginning { look: true, ..Beginning::default() };
    let scenario: Scenario = "5:lab.set=never-settles+crash@33".parse().unwrap();
    let bundle = Lab::bundle(STORY);
    let none = BTreeMap::new();
    let _on = lab.tokio.enter();
    let rehearsal = lab.runtime().rehearsal(&bundle, &none, &beginning).unwrap();
    let tried = lab.tokio.block_on(rehearsal.play(scenario.clone(), vec![sink])).unwrap();
    assert_eq!((tried.end, tried.scenario), (End::RolledBack, scenario));
    let events = lab.events.lock().unwrap();
    let has = |found: &dyn Fn(&Event) -> bool| events.iter().any(|envelope| found(&envelope.event));
    assert!(has(&|event| matches!(event, Event::RunStarted { mode: Mode::Rehearsal, .. })));
    assert!(has(&|event| matches!(event, Event::Resumed { .. })));
    assert!(has(&|event| matches!(event, Event::RunEnded { .. })));
}

#[test]
fn what_was_looked_at_is_enough_to_rehearse_the_same_without_looking() {
    let script = r#"
        let before = lab::look("a");
        try { lab::expect("c", 5); } catch (error) { note(error.message); }
        lab::set("a", before + 1);
        lab::expect("b", 0);
        lab::set("b", 2);
    "#;
    let lab = Lab::new();
    let rehearse = |beginning: &Beginning| {
        let (bundle, params) = (Lab::bundle(script), BTreeMap::new());
        let _on = lab.tokio.enter();
        let rehearsal = lab.runtime().rehearsal(&bundle, &params, beginning).unwrap();
        let found = lab.tokio.block_on(rehearsal.explore(Explore::default())).unwrap();
        (found, rehearsal.snapshot(BTreeMap::new()))
    };
    let (looked, snapshot) = rehearse(&Beginning { look: true, ..Beginning::default() });
    assert_eq!(looked.tried[0].end, End::Succeeded, "{:?}", looked.tried[0]);
    let failed: Vec<_> = snapshot.answers.iter().filter_map(|answer| answer.fails.as_deref()).collect();
    assert_eq!(failed.len(), 1, "{snapshot:?}");
    let (told, again) = rehearse(&Beginning { file: snapshot.clone(), look: false });
    assert_eq!(told, looked);
    assert_eq!(again, snapshot);
}

#[test]
fn nothing_of_a_run_is_kept_once_it_is_over() {
    let script = r#"
        invariant("a stays small", |world| world.lab.a < 9);
        on_rollback(|| note("undone"));
        lab::guard("c", 3, || { lab::set("a", 1); lab::expect("b", 0); });
    "#;
    let lab = Lab::new();
    let bundle = Lab::bundle(script);
    let heard = || Arc::new(|_: &Envelope| {});
    // What hears a run is held by whatever is left of it.
    let (real, played) = (heard(), heard());
    let runtime = lab.builder(lab.store.clone()).sink(real.clone()).build();
    let report = lab.tokio.block_on(runtime.run(&bundle, &BTreeMap::new())).unwrap();
    assert_eq!(report.outcome, contraflow_runtime::event::RunOutcome::Succeeded, "{:?}", report.error);
    drop(runtime);
    // What watched is told that it is over, and ends a moment later.
    for _ in 0..200 {
        if Arc::strong_count(&real) > 1 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    assert_eq!(Arc::strong_count(&real), 1);

    let _on = lab.tokio.enter();
    let beginning = Beginning { look: true, ..Beginning::default() };
    let rehearsal = lab.runtime().rehearsal(&bundle, &BTreeMap::new(), &beginning).unwrap();
    for name in ["as-planned", "crash@3", "crash@9"] {
        let sink = played.clone();
        lab.tokio.block_on(rehearsal.play(name.parse().unwrap(), vec![sink])).unwrap();
        assert_eq!(Arc::strong_count(&played), 1, "{name}");
    }
}
