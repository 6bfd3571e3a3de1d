//! Parts of a script that are stopped: by a guard, a deadline, a branch that failed.

use std::{thread, time::Duration};

use contraflow_runtime::{
    Stop, Takeover,
    event::{Event, RunOutcome},
};

use crate::lab::{Fault, Lab};

/// Runs a script while a lamp is made too bright after a while by somebody else.
fn disturbed(lab: &Lab, script: &str, after: Duration) -> contraflow_runtime::Report {
    let lamps = lab.lamps.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(after);
            lamps.board().lamps.insert("c".into(), 9);
        });
        lab.run(script)
    })
}

fn replays_the_same(lab: &Lab, report: &contraflow_runtime::Report) {
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    let before = lab.log();
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    assert_eq!(again.outcome, report.outcome, "{:?}", again.error);
    assert_eq!(again.error.map(|e| e.message), report.error.as_ref().map(|e| e.message.clone()));
    assert_eq!(lab.log(), before);
}

#[test]
fn a_breach_ends_a_sleep_a_wait_or_a_question_and_rolls_back_within_100_ms() {
    for inside in
        [r#"sleep("1m")"#, r#"lab::wait_for("b", 7)"#, r#"step("deep", || step("er", || sleep("1m")))"#]
    {
        let lab = Lab::new();
        let script =
            format!(r#"lab::set("a", 1); lab::guard("c", 3, || {{ lab::set("b", 1); {inside}; }});"#);
        let report = disturbed(&lab, &script, Duration::from_millis(30));
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
        let error = report.error.clone().unwrap();
        if inside.contains("wait_for") && error.code.as_str() != "guard-breached" {
            // The wait's own deadline of 50 ms may come first on a busy machine.
            continue;
        }
        assert_eq!((error.code.as_str(), &*error.message), ("guard-breached", "c is 9"));
        let (breached, reacted) = {
            let board = lab.lamps.board();
            (board.breached.unwrap(), board.reacted.unwrap())
        };
        assert!(reacted - breached < Duration::from_millis(100), "{:?}", reacted - breached);
        assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [0, 0]);
        replays_the_same(&lab, &report);
    }
}

#[test]
fn a_breach_cannot_be_caught_within_and_can_outside() {
    let lab = Lab::new();
    let script = r#"
        let seen = "";
        try {
            lab::guard("c", 3, || {
                for i in 0..1000 { try { sleep("20ms"); } catch { lab::ring("wrong"); } }
                lab::ring("wrong");
            });
        } catch (e) { seen = e.code; }
        lab::set("a", 1);
        if seen != "guard-breached" { fail(`${seen}`) }
    "#;
    let report = disturbed(&lab, script, Duration::from_millis(50));
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert!(lab.lamps.board().rings.is_empty());
    lab.lamps.board().lamps.insert("c".into(), 0);
    replays_the_same(&lab, &report);
}

#[test]
fn how_far_a_guarded_part_came_changes_no_id_behind_it() {
    for inside in
        ["", r#"lab::look("b");"#, r#"lab::look("b"); step("deep", || lab::look("b")); lab::look("b");"#]
    {
        let lab = Lab::new();
        lab.fault("a", [Fault::Terminal]);
        let report = lab.run(&format!(r#"lab::guard("c", 3, || {{ {inside} }}); lab::set("a", 1);"#));
        assert_eq!(report.error.unwrap().effect.as_deref(), Some("2:lab.set"), "{inside}");
    }
}

#[test]
fn a_guard_ends_with_its_body_and_an_inner_one_does_not_hide_an_outer_one() {
    let lab = Lab::new();
    let report = lab.run(
        r#"let v = lab::guard("c", 3, || 42); lab::set("c", 5); sleep("20ms"); if v != 42 { fail("no") }"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let lab = Lab::new();
    let script = r#"lab::guard("c", 3, || { try { lab::guard("b", 3, || sleep("1m")); } catch { lab::ring("wrong"); } });"#;
    let report = disturbed(&lab, script, Duration::from_millis(30));
    assert_eq!(report.error.unwrap().message, "c is 9");
    assert!(lab.lamps.board().rings.is_empty());
}

#[test]
fn a_plan_looks_once_at_what_a_guard_watches() {
    let lab = Lab::new();
    lab.lamps.board().lamps.insert("c".into(), 9);
    let report = lab.plan(r#"lab::guard("c", 3, || lab::set("a", 1));"#);
    assert_eq!(report.error.unwrap().message, "c is 9");
    let lab = Lab::new();
    let report = lab.plan(r#"lab::guard("c", 3, || lab::set("a", 1));"#);
    assert_eq!((report.outcome, report.changes), (RunOutcome::Succeeded, 1));
    let watched =
        lab.events.lock().unwrap().iter().any(
            |e| matches!(&e.event, Event::GuardStarted { watching, .. } if watching == &["c not above 3"]),
        );
    assert!(watched);
}

#[test]
fn a_step_ends_at_its_deadline_and_what_it_did_is_undone() {
    let lab = Lab::new();
    let report = lab.run(r#"step("soak", #{ timeout: "30ms" }, || { lab::set("a", 1); sleep("1m"); });"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    let error = report.error.clone().unwrap();
    assert_eq!((error.code.as_str(), &*error.message), ("timeout", "step \"soak\" did not end within 30ms"));
    assert_eq!(lab.level("a"), 0);
    replays_the_same(&lab, &report);
}

#[test]
fn the_other_branches_stop_at_their_next_safe_point_when_one_fails() {
    let lab = Lab::new();
    let report = lab.run(
        r#"parallel([
            || { lab::set("a", 1); sleep("1m"); lab::ring("wrong"); },
            || { sleep("20ms"); fail("enough"); },
            || { for i in 0..100000 { lab::look("b"); } },
        ]);"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(report.error.clone().unwrap().message, "enough");
    assert_eq!(lab.level("a"), 0);
    assert!(lab.lamps.board().rings.is_empty());
    replays_the_same(&lab, &report);
}

#[test]
fn a_paused_run_goes_on_with_what_was_left_of_a_sleep() {
    let lab = Lab::new();
    let stop = lab.stop.clone();
    let report = thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(150));
            stop.pause("ana");
        });
        lab.run(r#"lab::set("a", 1); sleep("400ms"); lab::set("b", 1);"#)
    });
    assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
    assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [1, 0], "nothing is undone");
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    let begun = std::time::Instant::now();
    let report =
        lab.tokio.block_on(lab.runtime().resume(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert!(begun.elapsed() < Duration::from_millis(390), "{:?}", begun.elapsed());
    assert_eq!(lab.log(), ["a 0 -> 1", "b 0 -> 1"]);
}

#[test]
fn two_runs_cannot_move_one_target_until_the_first_is_over_or_abandoned() {
    let lab = Lab::new();
    let stop = lab.stop.clone();
    stop.pause("ana");
    let first = thread::scope(|scope| {
        let lab = &lab;
        scope
            .spawn(move || {
                let fresh = Stop::default();
                let stopper = fresh.clone();
                let bundle = Lab::bundle(r#"lab::set("a", 1); sleep("1m");"#);
                let waiter = lab.lamps.clone();
                thread::spawn(move || {
                    while waiter.board().lamps["a"] != 1 {
                        thread::yield_now();
                    }
                    stopper.pause("ana");
                });
                lab.tokio
                    .block_on(lab.runtime().run_until(&bundle, &std::collections::BTreeMap::new(), &fresh))
                    .unwrap()
            })
            .join()
            .unwrap()
    });
    assert_eq!(first.outcome, RunOutcome::Paused);
    let other = Lab { stop: Stop::default(), ..lab };
    let report = other.run(r#"lab::set("b", 1); lab::set("a", 2);"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    let error = report.error.unwrap();
    assert_eq!(error.code.as_str(), "locked");
    assert!(error.message.contains(&first.run) && error.message.contains("since"), "{error}");
    let run = other.tokio.block_on(other.store.find(&first.run)).unwrap().remove(0);
    other
        .tokio
        .block_on(contraflow_runtime::journal::abandon(&*other.store, &run, "ana", jiff::Timestamp::now()))
        .unwrap();
    let report = other.run(r#"lab::set("a", 2);"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn a_run_ends_at_the_deadline_of_its_header_and_is_undone() {
    let lab = Lab::new();
    let bundle = contraflow_runtime::Bundle::single(
        "lab.rhai",
        r#"const RUNBOOK = #{ name: "lab", deadline: "50ms" }; lab::set("a", 1); sleep("1m");"#,
    );
    let report = lab.tokio.block_on(lab.runtime().run(&bundle, &std::collections::BTreeMap::new())).unwrap();
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
    let error = report.error.unwrap();
    assert_eq!((error.code.as_str(), &*error.message), ("limit", "the run took longer than 50ms"));
    assert!(error.hints[0].contains("deadline"), "{error:?}");
    assert_eq!(lab.level("a"), 0);
}

#[test]
fn time_in_which_nobody_worked_on_a_run_does_not_count_for_its_steps() {
    let lab = Lab::new();
    let stop = lab.stop.clone();
    let script = r#"step("soak", #{ timeout: "400ms" }, || { lab::set("a", 1); lab::look("b"); sleep("250ms"); lab::set("b", 1); });"#;
    let report = thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(100));
            stop.pause("ana");
        });
        lab.run(script)
    });
    assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
    thread::sleep(Duration::from_millis(500));
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    let report =
        lab.tokio.block_on(lab.runtime().resume(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn a_clock_that_was_set_back_or_forth_makes_nothing_happen_twice_and_no_wait_shorter_than_it_is() {
    for (off, at_least) in [(-3600, 300), (3600, 0)] {
        let lab = Lab::new();
        let stop = lab.stop.clone();
        let script =
            r#"lab::set("a", 1); step("soak", #{ timeout: "10s" }, || sleep("300ms")); lab::set("b", 1);"#;
        let report = thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(150));
                stop.pause("ana");
            });
            lab.run(script)
        });
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        lab.off.store(off, std::sync::atomic::Ordering::Relaxed);
        let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
        let begun = std::time::Instant::now();
        let report =
            lab.tokio.block_on(lab.runtime().resume(&run, Takeover::default(), &Stop::default())).unwrap();
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{off}: {:?}", report.error);
        assert!(begun.elapsed() >= Duration::from_millis(at_least), "{off}: {:?}", begun.elapsed());
        assert_eq!(lab.log(), ["a 0 -> 1", "b 0 -> 1"]);
        let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
        contraflow_runtime::journal::record::verify(&records).unwrap();
    }
}
