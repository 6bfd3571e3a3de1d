//! How effects are performed in the live world.

use std::{sync::Arc, time::Duration};

use contraflow_runtime::{
    error::NextStep,
    event::{Event, RunOutcome},
    kernel::{Policy, Request},
    world::YesToAll,
};

use crate::lab::{Fault, Lab};

#[test]
fn a_change_is_applied_once_and_an_unchanged_target_is_left_alone() {
    let lab = Lab::new();
    let report = lab.run(r#"let level = lab::set("a", 5); lab::set("a", 5); if level != 5 { fail("no") }"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(lab.log(), ["a 0 -> 5"]);
    assert_eq!(
        lab.lines(),
        ["1:lab.set observed: level 0 -> level 5", "2:lab.set observed: level 5 unchanged"]
    );
    assert_eq!(report.changes, 1);
}

#[test]
fn retryable_errors_are_tried_again_and_terminal_ones_are_not() {
    let lab = Lab::new();
    lab.fault("a", [Fault::Retryable, Fault::Retryable]);
    assert_eq!(lab.run(r#"lab::set("a", 5);"#).outcome, RunOutcome::Succeeded);
    assert_eq!(lab.log().len(), 3);

    let lab = Lab::new();
    lab.fault("a", [Fault::Terminal]);
    let report = lab.run(r#"lab::set("a", 5);"#);
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(lab.log().len(), 1);
    let error = report.error.unwrap();
    assert_eq!((error.message.as_str(), error.hints[0].as_str()), ("the fuse is blown", "replace it"));
}

#[test]
fn tries_are_limited_and_counted_in_the_error() {
    let lab = Lab::new();
    lab.fault("a", vec![Fault::Retryable; 9]);
    let report = lab.run(r#"lab::set("a", 5);"#);
    assert_eq!(report.error.unwrap().message, "the switch does not answer (tried 3 times)");
    assert_eq!(lab.log().len(), 3);
}

#[test]
fn a_wait_that_the_receiver_asks_for_is_kept() {
    let lab = Lab::new();
    lab.fault("a", [Fault::After(Duration::from_millis(120))]);
    let report = lab.run(r#"lab::set("a", 5);"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded);
    let waits: Vec<u64> = lab
        .events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::Retrying { wait_ms, .. } = e.event { Some(wait_ms) } else { None })
        .collect();
    assert_eq!(waits, [120]);
    assert!(report.elapsed_ms >= 120);
}

#[test]
fn a_request_that_never_ends_is_broken_off_at_its_deadline() {
    let lab = Lab::new();
    lab.fault("a", [Fault::Hangs]);
    let report = lab.run(r#"lab::set("a", 5);"#);
    let error = report.error.unwrap();
    assert_eq!((error.code.as_str(), error.message.as_str()), ("timeout", "lab.set did not end within 1s"));
}

#[test]
fn a_lost_answer_is_found_out_by_looking_again() {
    let lab = Lab::new();
    lab.fault("a", [Fault::LostAnswer]);
    let report = lab.run(r#"lab::set("a", 5);"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(lab.log(), ["a 0 -> 5"]);
}

#[test]
fn a_change_that_does_not_come_into_effect_fails_and_is_undone() {
    let lab = Lab::new();
    lab.fault("a", [Fault::NeverSettles]);
    let lamps = lab.lamps.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // It recovers by the time it is undone.
            while lamps.board().log.len() < 2 {
                std::thread::sleep(Duration::from_millis(1));
            }
            lamps.board().unsettled = false;
        });
        let report = lab.run(r#"lab::set("a", 5);"#);
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
        let error = report.error.unwrap();
        assert_eq!(error.code.as_str(), "not-settled");
        assert!(error.message.contains("still warming up"), "{error}");
    });
    assert_eq!(lab.level("a"), 0);
}

#[test]
fn an_action_gets_a_key_of_its_own() {
    let lab = Lab::new();
    assert_eq!(
        lab.run(r#"step("tell", || { lab::ring("x"); lab::ring("x"); });"#).outcome,
        RunOutcome::Succeeded
    );
    assert_eq!(lab.lamps.board().rings, ["x [tell/1:lab.ring]", "x [tell/2:lab.ring]"]);
}

#[test]
fn a_script_can_catch_an_error_and_see_what_it_was() {
    let lab = Lab::new();
    let report = lab.run(
        r#"let code = "";
        try { lab::set("nowhere", 1); } catch (e) { code = e.code + ": " + e.message + " / " + e.hints[0]; }
        note(code);"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let events = lab.events.lock().unwrap();
    let note = events
        .iter()
        .find_map(|e| if let Event::Note { text, .. } = &e.event { Some(text.clone()) } else { None });
    assert_eq!(note.as_deref(), Some("unknown-target: no lamp named \"nowhere\" / buy one"));
}

#[test]
fn an_error_names_its_place_and_the_steps_around_it() {
    let lab = Lab::new();
    let report =
        lab.run("step(\"outer\", || {\n  step(\"inner\", || {\n    lab::set(\"nowhere\", 1);\n  });\n});");
    let error = report.error.unwrap();
    let frames: Vec<String> =
        error.frames.iter().map(|f| format!("{} {}:{}:{}", f.what, f.source, f.line, f.column)).collect();
    assert_eq!(
        frames,
        ["lab::set lab.rhai:4:5", "step \"inner\" lab.rhai:3:3", "step \"outer\" lab.rhai:2:1"]
    );
    assert_eq!(error.effect.as_deref(), Some("outer/inner/1:lab.set"));

    let report = lab.run("step(\"outer\", || {\n  let n = 1 + [];\n});");
    let error = report.error.unwrap();
    assert_eq!(error.message, "`+` cannot take (number, array)");
    assert_eq!(
        (error.frames[0].line, error.frames[1].what.as_str()),
        (3, "step \"outer\""),
        "{:?}",
        error.frames
    );
}

#[test]
fn options_are_checked_with_the_closest_name() {
    let lab = Lab::new();
    let error = lab.run(r#"lab::ring("x", #{ undoble: true });"#).error.unwrap();
    assert_eq!(error.code.as_str(), "argument");
    assert!(error.message.starts_with("unknown option `undoble`"), "{error}");
    assert_eq!(error.hints, ["did you mean `undoable`?"]);
}

#[test]
fn a_polled_wait_ends_when_its_condition_holds_or_at_its_deadline() {
    let lab = Lab::new();
    assert_eq!(lab.run(r#"lab::set("a", 3); lab::wait_for("a", 3);"#).outcome, RunOutcome::Succeeded);
    let report = lab.run(r#"lab::wait_for("a", 4);"#);
    assert_eq!(report.error.unwrap().code.as_str(), "timeout");
}

struct OnlyA;

impl Policy for OnlyA {
    fn allow(&self, request: &Request<'_>) -> Result<(), String> {
        match request.target {
            Some(target) if target.name() != "a" => Err(format!("{target} is frozen")),
            _ => Ok(()),
        }
    }
}

#[test]
fn a_policy_can_refuse_an_effect_before_it_happens() {
    let lab = Lab { policy: Some(Arc::new(OnlyA)), ..Lab::new() };
    let report = lab.run(r#"lab::set("a", 1); lab::set("b", 1);"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(report.error.unwrap().message, "refused by policy: lab/b is frozen");
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0"]);
}

#[test]
fn a_question_without_anybody_to_answer_fails_with_a_hint() {
    let lab = Lab::new();
    let error = lab.run(r#"confirm("go on?");"#).error.unwrap();
    assert_eq!(error.code.as_str(), "no-answer");
    assert_eq!(error.next, [NextStep::LetOthersAnswer]);

    let lab = Lab { people: Some(Arc::new(YesToAll { by: "ci".into() })), ..Lab::new() };
    let report =
        lab.run(r#"if !confirm("go on?") { fail("no") } if manual("turn it").by != "ci" { fail("who") }"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn parallel_branches_keep_their_ids_and_cannot_see_each_other() {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let lab = Lab::new();
        let report = lab.run(
            r#"let total = 1;
            let got = parallel([
                || { total += 1; lab::set("a", total); total },
                || { step("x", || lab::set("b", 7)); total += 10; total },
                || lab::look("c"),
            ]);
            if got != [2, 11, 0] || total != 1 { fail(`${got} ${total}`) }
            lab::set("c", 1);"#,
        );
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        let mut lines = lab.lines();
        lines.sort();
        seen.push(lines);
    }
    assert_eq!(
        seen[0],
        [
            "1:par[0]/1:lab.set observed: level 0 -> level 2",
            "1:par[1]/x/1:lab.set observed: level 0 -> level 7",
            "1:par[2]/1:lab.look observed: c: 0",
            "2:lab.set observed: level 0 -> level 1",
        ]
    );
    assert!(seen.iter().all(|lines| *lines == seen[0]));
}

#[test]
fn parallel_takes_a_map_and_can_let_all_branches_end_before_it_throws() {
    let lab = Lab::new();
    let report = lab.run(
        r#"let got = parallel(#{ one: || 1, two: || 2 });
        if got != #{ one: 1, two: 2 } { fail("no") }
        parallel([|| { sleep("20ms"); lab::set("a", 1) }, || lab::set("nowhere", 1), || fail("later")],
            #{ on_failure: "finish" });"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(report.error.unwrap().message, "no lamp named \"nowhere\"");
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0"]);
}

#[test]
fn changes_of_one_target_are_ordered_between_branches() {
    let lab = Lab::new();
    let report = lab.run(r#"parallel([1, 2, 3, 4, 5, 6, 7, 8].map(|n| { || lab::set("a", n) }));"#);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    // Each begins where another ended.
    let log = lab.log();
    assert_eq!(log.len(), 8);
    for pair in log.windows(2) {
        assert_eq!(pair[0].rsplit(' ').next(), pair[1].split(' ').nth(1), "{log:?}");
    }
}

#[test]
fn a_run_that_is_told_to_stop_stops_within_a_sleep_and_is_rolled_back() {
    let lab = Lab::new();
    let stop = lab.stop.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            stop.cancel();
        });
        let report = lab.run(r#"lab::set("a", 1); try { sleep("1h"); } catch (e) { lab::set("b", 1); }"#);
        assert_eq!(report.outcome, RunOutcome::RolledBack);
        assert_eq!(report.error.unwrap().code.as_str(), "cancelled");
        assert!(report.elapsed_ms < 5000);
    });
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0"]);
}

#[test]
fn a_panic_in_a_primitive_ends_the_run_in_order() {
    let lab = Lab::new();
    lab.fault("b", [Fault::Panics]);
    let report = lab.run(r#"lab::set("a", 1); lab::set("b", 1);"#);
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    let error = report.error.unwrap();
    assert_eq!(error.code.as_str(), "internal");
    assert!(error.message.contains("lamp exploded"));
    assert_eq!(lab.level("a"), 0);
}
