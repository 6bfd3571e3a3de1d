//! What is undone, in which order, and what is said when it cannot be.

use contraflow_runtime::event::RunOutcome;

use crate::lab::{Fault, Lab};

#[test]
fn what_was_done_is_undone_in_reverse_and_nothing_else_is() {
    let lab = Lab::new();
    let report = lab.run(
        r#"lab::set("a", 1);
        lab::set("a", 1);
        step("two", || { lab::set("b", 2); lab::set("a", 3); });
        lab::ring("done", #{ undoable: true });
        fail("enough");"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(
        lab.log(),
        ["a 0 -> 1", "b 0 -> 2", "a 1 -> 3", "unring 1", "a 3 -> 1", "b 2 -> 0", "a 1 -> 0"]
    );
    assert_eq!((lab.level("a"), lab.level("b")), (0, 0));
    let ids: Vec<String> = lab
        .lines()
        .iter()
        .filter(|l| l.starts_with("rollback/"))
        .map(|l| l.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        ids,
        ["rollback/3:lab.ring", "rollback/two/2:lab.set", "rollback/two/1:lab.set", "rollback/1:lab.set"]
    );
}

#[test]
fn a_failure_before_anything_was_done_is_just_a_failure() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::look("a"); lab::expect("a", 1); lab::set("a", 1);"#);
    assert_eq!((report.outcome, report.changes), (RunOutcome::Failed, 0));
    assert_eq!(report.error.unwrap().message, "expected 1, got 0");
}

#[test]
fn closures_run_on_rollback_in_turn_with_what_they_captured() {
    let lab = Lab::new();
    let report = lab.run(
        r#"for n in [1, 2] {
            let n = n;
            lab::set("a", n);
            on_rollback(|| lab::set("b", n * 10));
        }
        lab::set("c", 1);
        fail("enough");"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    assert_eq!(
        lab.log(),
        ["a 0 -> 1", "a 1 -> 2", "c 0 -> 1", "c 1 -> 0", "b 0 -> 20", "a 2 -> 1", "b 20 -> 10", "a 1 -> 0"]
    );
}

#[test]
fn a_caught_error_rolls_nothing_back() {
    let lab = Lab::new();
    let report =
        lab.run(r#"try { step("x", || { lab::set("a", 1); fail("no"); }) } catch { lab::set("b", 1); }"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded);
    assert_eq!((lab.level("a"), lab.level("b")), (1, 1));
}

#[test]
fn half_done_work_is_undone_as_well() {
    let lab = Lab::new();
    lab.fault("a", [Fault::HalfDone(3)]);
    let report = lab.run(r#"lab::set("b", 1); lab::set("a", 5);"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(lab.log(), ["b 0 -> 1", "a 0 -> 5", "a 3 -> 0", "b 1 -> 0"]);
}

#[test]
fn a_change_that_stopped_on_its_way_is_undone_from_where_it_is() {
    let lab = Lab::new();
    lab.fault("a", [Fault::HalfDone(3)]);
    // From 666 there would be no way back; it did not come that far.
    let report = lab.run(r#"lab::set("b", 1); lab::set("a", 666);"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    assert_eq!(lab.log(), ["b 0 -> 1", "a 0 -> 666", "a 3 -> 0", "b 1 -> 0"]);
}

#[test]
fn what_may_be_half_done_is_never_called_undone_although_the_target_is_where_it_was() {
    let lab = Lab::new();
    lab.lamps.board().lamps.insert("lava".into(), 0);
    lab.fault("lava", [Fault::Terminal]);
    let report = lab.run(r#"lab::set("b", 1); lab::set("lava", 5);"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    let left: Vec<String> =
        report.left.iter().map(|l| format!("{} | {} | {}", l.id, l.by_hand, l.why)).collect();
    assert_eq!(
        left,
        [
            "2:lab.set | look at what is done of it, and undo that by hand in lab/lava | lab/lava is \"level 0\", but \
             part of a change may be done",
            "1:lab.set | set lab/b back to \"level 0\" | it comes before 2:lab.set, which is not undone",
        ]
    );
    assert_eq!(lab.log(), ["b 0 -> 1", "lava 0 -> 5"]);
}

#[test]
fn a_failing_undo_is_tried_again_and_then_names_what_is_left() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); lab::set("b", 1); lab::set("c", 1); fail("enough");"#;
    // The first apply is the change itself; what follows are the tries to undo it.
    lab.lamps.board().faults.insert("c".into(), [Fault::LostAnswer, Fault::Retryable].into());
    assert_eq!(lab.run(script).outcome, RunOutcome::RolledBack);

    let lab = Lab::new();
    lab.fault("b", [Fault::LostAnswer, Fault::Terminal, Fault::Terminal, Fault::Terminal]);
    let report = lab.run(script);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    let left: Vec<String> =
        report.left.iter().map(|l| format!("{} | {} | {} | {}", l.id, l.what, l.by_hand, l.why)).collect();
    assert_eq!(
        left,
        [
            "2:lab.set | lab.set lab/b: level 0 -> level 1 | set lab/b back to \"level 0\" | the fuse is blown",
            "1:lab.set | lab.set lab/a: level 0 -> level 1 | set lab/a back to \"level 0\" | it comes \
             before 2:lab.set, which is not undone",
        ]
    );
    assert_eq!((lab.level("a"), lab.level("b"), lab.level("c")), (1, 1, 0));
}

#[test]
fn what_cannot_be_undone_stops_the_rollback_there() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::set("a", 1); lab::set("b", 666); lab::set("c", 1); fail("enough");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    assert_eq!(report.left[0].why, "the lamp has melted");
    assert_eq!((lab.level("a"), lab.level("b"), lab.level("c")), (1, 666, 0));
}

#[test]
fn a_failing_closure_leaves_the_rest_and_says_so() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::set("a", 1); on_rollback(|| fail("cannot")); fail("enough");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    assert_eq!(report.left[0].why, "cannot");
    assert!(report.left[0].what.starts_with("on_rollback at lab.rhai:2"), "{:?}", report.left);
}
