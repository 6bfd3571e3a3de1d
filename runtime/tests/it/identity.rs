//! Ids of effects: never two alike, and the same each time.

use std::collections::BTreeSet;

use contraflow_runtime::{
    effect::EffectId,
    event::{Event, RunOutcome},
};

use crate::lab::Lab;

fn kept(lab: &Lab, run: &str) -> contraflow_runtime::journal::Run {
    lab.tokio.block_on(lab.store.find(run)).unwrap().remove(0)
}

#[test]
fn a_step_cannot_take_the_ids_of_a_rollback_or_of_the_run() {
    for name in ["rollback", "Rollback", " rollback!", "run", "1:lab.set", "2:par[0]", ""] {
        let lab = Lab::new();
        let report = lab.run(&format!(
            r#"lab::set("a", 1); step("{name}", || {{ lab::set("b", 2); lab::ring("x", #{{ undoable: true }}); }});
            step("{name}", || lab::set("c", 3)); fail("enough");"#
        ));
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{name}");
        let events = lab.events.lock().unwrap();
        let ids: Vec<&EffectId> = events
            .iter()
            .filter_map(|e| if let Event::EffectEnded { id, .. } = &e.event { Some(id) } else { None })
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{name}: {ids:?}");
        drop(events);
        let again = lab.tokio.block_on(lab.runtime().replay(&kept(&lab, &report.run))).unwrap();
        assert_eq!((again.outcome, again.error), (report.outcome, report.error), "{name}");
    }
}

#[test]
fn ids_are_the_same_each_time_through_nested_branches_steps_and_closures() {
    let script = r#"
        fn deep(n) { if n == 0 { lab::look("a") } else { step(`level ${n}`, || deep(n - 1)) } }
        let visit = |lamp| { lab::look(lamp); parallel([|| lab::look(lamp), || step("in", || lab::look(lamp))]) };
        parallel([
            || step("left", || { visit.call("a"); visit.call("b"); [3, 1, 2].sort(|x, y| { lab::look("c"); x - y }); }),
            || step("left", || parallel(#{ z: || deep(3), y: || visit.call("c"), x: || { sleep("1ms"); deep(1) } })),
            || ["a", "b"].map(|l| step(l, || lab::look(l))),
        ]);
        step("Ünïcode ✓ näme", || deep(2));
        step("a name that is a good deal longer than the sixty characters that an id keeps of it: 1", || deep(0));
        step("a name that is a good deal longer than the sixty characters that an id keeps of it: 2", || deep(0));
    "#;
    let mut seen: Option<BTreeSet<String>> = None;
    for _ in 0..15 {
        let lab = Lab::new();
        let report = lab.run(script);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        let lines = lab.lines();
        let ids: BTreeSet<String> = lines.iter().cloned().collect();
        assert_eq!(ids.len(), lines.len(), "{lines:#?}");
        assert!(seen.as_ref().is_none_or(|seen| *seen == ids), "{seen:#?} {ids:#?}");
        seen = Some(ids);
    }
}

#[test]
fn rollback_closures_have_ids_of_their_own_with_steps_and_branches_inside() {
    let lab = Lab::new();
    let report = lab.run(
        r#"lab::set("a", 1);
        on_rollback(|| {
            step("back", || { lab::set("b", 1); parallel([|| lab::set("b", 2), || lab::set("c", 3)]); });
            step("back", || lab::set("b", 4));
            on_rollback(|| lab::set("a", 99));
        });
        step("rollback", || { on_rollback(|| { step("x", || lab::ring("y")); return; lab::set("a", 98); }); });
        fail("enough");"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    assert_eq!((lab.level("a"), lab.level("b"), lab.level("c")), (0, 4, 3));
    let again = lab.tokio.block_on(lab.runtime().replay(&kept(&lab, &report.run))).unwrap();
    assert_eq!((again.outcome, again.error, again.left), (report.outcome, report.error, report.left));
    assert_eq!(again.changes, report.changes);
}
