//! Ctrl-C, and the signals that mean the same.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Lab, Running};

/// A run that has moved traffic and then waits for long.
fn waiting(lab: &Lab) -> Running {
    let running = lab.start(&mut lab.command(&["run", "run.rhai", "--output", "json"]));
    running.wait_for("\"effect\":\"sleep\"");
    running
}

const HOLD: &str = r#"
    step("shift", || traffic::shift("web", "green", 5));
    step("hold", || sleep("10m"));
"#;

#[test]
fn one_signal_undoes_what_was_done_within_two_seconds() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = Lab::with(HOLD);
        let running = waiting(&lab);
        let sent = Instant::now();
        running.signal(signal);
        let ended = running.wait().exits_with(3).complains("cancelled");
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
        assert_eq!(ended.changes()[1..], ["traffic.shift blue 95, green 5 -> blue 100, green 0"]);
        ended.says("stopping at the next safe point");
        assert_eq!(lab.runs()[0]["state"], "rolled_back");
        assert!(lab.leftovers().is_empty());
    }
}

#[test]
fn a_busy_script_is_stopped_as_well() {
    let lab = Lab::with("note(\"begin\"); let n = 0; loop { try { n += 1; } catch { } }");
    let running = lab.start(&mut lab.command(&["run", "run.rhai", "--output", "json"]));
    running.wait_for("begin");
    let sent = Instant::now();
    running.signal(Signal::SIGINT);
    running.wait().exits_with(6).complains("cancelled");
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    assert_eq!(lab.runs()[0]["state"], "aborted");
}

#[test]
fn a_question_at_the_terminal_does_not_hold_up_a_signal() {
    let lab = Lab::with("confirm(\"go on?\");");
    let mut command = lab.command(&["run", "run.rhai", "--output", "json"]);
    let pty = nix::pty::openpty(None, None).expect("a terminal");
    command.stdin(pty.slave.try_clone().expect("a copy"));
    // Standard error is no terminal, so nobody is asked; standard input alone must not be waited for.
    lab.end(&mut command).exits_with(1).complains("no-answer");
}

/// A run whose rollback waits for long.
const SLOW_UNDO: &str = r#"
    step("shift", || traffic::shift("web", "green", 5));
    on_rollback(|| { note("undoing"); sleep("10m"); });
    step("hold", || sleep("10m"));
"#;

#[test]
fn a_second_signal_stops_undoing_and_says_what_is_left() {
    let lab = Lab::with(SLOW_UNDO);
    let running = waiting(&lab);
    running.signal(Signal::SIGINT);
    running.wait_for("undoing");
    let sent = Instant::now();
    running.signal(Signal::SIGINT);
    let ended = running.wait().exits_with(4).says("stopping now");
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    let left = &ended.events("rollback_ended")[0]["left"];
    assert_eq!(left.as_array().expect("a list").len(), 2, "{left}");
    assert!(left.to_string().contains("blue 95, green 5"), "{left}");
    assert_eq!(ended.events("run_ended")[0]["outcome"], "rollback_incomplete");
    assert_eq!(lab.runs()[0]["state"], "rollback_incomplete");
    let shown = lab.cutover(&["show", "last"]).succeeded().stdout;
    assert!(shown.contains("blue 95, green 5") && shown.contains("blue 100, green 0"), "{shown}");
}

#[test]
fn a_third_signal_ends_the_process() {
    let lab = Lab::with(SLOW_UNDO);
    let running = waiting(&lab);
    running.signal(Signal::SIGINT);
    running.wait_for("undoing");
    // The second and the third at the same moment: there is no time to end in an orderly way in between.
    for signal in [Signal::SIGSTOP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGCONT] {
        running.signal(signal);
    }
    let ended = running.wait().exits_with(130);
    assert!(ended.events("run_ended").is_empty(), "{ended}");
    lab.cutover(&["verify", "last"]).succeeded();
    assert_eq!(lab.runs()[0]["state"], "running");
}
