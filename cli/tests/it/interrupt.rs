//! Ctrl-C, and the signals that end processes.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Lab, Running};

/// Moves traffic and then waits for long.
const HOLD: &str = r#"
    step("shift", || traffic::shift("web", "green", 5));
    step("hold", || sleep("10m"));
    traffic::shift("web", "green", 10);
"#;

#[test]
fn one_signal_without_a_terminal_pauses_within_two_seconds_and_undoes_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let lab = Lab::with(HOLD);
        let running = lab.asleep();
        let sent = Instant::now();
        running.signal(signal);
        let ended = running.wait().exits_with(5).complains("paused");
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
        assert_eq!(ended.changes().len(), 1);
        ended.says("pausing at the next safe point");
        assert_eq!(lab.runs()[0]["state"], "paused");
        assert!(lab.leftovers().is_empty());
        let back = lab.contraflow(&["rollback", "last", "--output", "json"]).succeeded();
        assert_eq!(back.changes()[1..], ["traffic.shift blue 95, green 5 -> blue 100, green 0"]);
        assert_eq!(lab.runs()[0]["state"], "rolled_back");
    }
}

#[test]
fn ctrl_c_at_a_terminal_asks_and_does_what_the_person_decides() {
    for (typed, code, state) in [("r\n", 3, "rolled_back"), ("p\n", 5, "paused"), ("what?\np\n", 5, "paused")]
    {
        let lab = Lab::with(HOLD);
        let mut seat = lab.sit_down(&["run", "run.rhai"]);
        seat.sees("sleep");
        seat.signal(Signal::SIGINT);
        seat.sees("[r/p/c]");
        seat.types(typed);
        seat.leave().exits_with(code);
        assert_eq!(lab.runs()[0]["state"], state);
    }
}

#[test]
fn nothing_is_drawn_over_the_question_after_ctrl_c() {
    let lab = Lab::with(HOLD);
    let mut seat = lab.sit_down(&["run", "run.rhai"]);
    seat.sees("sleep");
    seat.signal(Signal::SIGINT);
    seat.sees("[r/p/c] ");
    // Some frames of what is drawn over and over.
    std::thread::sleep(Duration::from_millis(500));
    seat.types("what?\n");
    std::thread::sleep(Duration::from_millis(500));
    seat.types("p\n");
    let ended = seat.leave().exits_with(5);
    let asked: Vec<&str> = ended.stdout.split("[r/p/c] ").collect();
    assert_eq!(asked.len(), 3, "asks again after a word that it does not know: {}", ended.stdout);
    assert!(!asked[1].contains('\u{1b}'), "{:?}", asked[1]);
    assert!(asked[2].starts_with('p'), "{:?}", asked[2]);
}

#[test]
fn a_branch_that_ends_meanwhile_is_told_once_the_question_is_answered() {
    let lab =
        Lab::with(r#"parallel([|| confirm("go on?"), || { sleep("300ms"); note("the other branch"); }]);"#);
    let mut seat = lab.sit_down(&["run", "run.rhai"]);
    seat.sees("[y/N] ");
    std::thread::sleep(Duration::from_millis(800));
    seat.types("y\n");
    let ended = seat.leave().succeeded();
    let (_, behind) = ended.stdout.split_once("[y/N] ").expect("asks");
    assert!(behind.starts_with('y') && behind.contains("the other branch"), "{behind:?}");
}

#[test]
fn after_ctrl_c_a_run_waits_at_its_next_safe_point_and_can_go_on() {
    let lab = Lab::with(r#"note("begin"); sleep("300ms"); traffic::shift("web", "green", 5); note("done");"#);
    let mut seat = lab.sit_down(&["run", "run.rhai"]);
    seat.sees("begin");
    seat.signal(Signal::SIGINT);
    seat.sees("[r/p/c]");
    std::thread::sleep(Duration::from_millis(600));
    seat.types("c\n");
    let ended = seat.leave().succeeded();
    let (asked, shifted) = (ended.stdout.find("[r/p/c]"), ended.stdout.find("traffic.shift"));
    assert!(asked < shifted, "{}", ended.stdout);
}

#[test]
fn a_second_ctrl_c_pauses_at_once() {
    let lab = Lab::with(HOLD);
    let seat = lab.sit_down(&["run", "run.rhai"]);
    seat.sees("sleep");
    seat.signal(Signal::SIGINT);
    seat.sees("[r/p/c]");
    seat.signal(Signal::SIGINT);
    let ended = seat.leave().exits_with(5);
    assert!(ended.stdout.contains("stopping now"), "{}", ended.stdout);
    assert_eq!(lab.runs()[0]["state"], "paused");
}

#[test]
fn a_busy_script_is_stopped_as_well() {
    let lab = Lab::with("note(\"begin\"); let n = 0; loop { try { n += 1; } catch { } }");
    let running = lab.begin();
    running.wait_for("begin");
    let sent = Instant::now();
    running.signal(Signal::SIGINT);
    running.wait().exits_with(5).complains("paused");
    assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    assert_eq!(lab.runs()[0]["state"], "paused");
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
    fail("enough");
"#;

fn undoing(lab: &Lab) -> Running {
    let running = lab.begin();
    running.wait_for("undoing");
    running
}

#[test]
fn a_rollback_is_paused_by_two_signals_and_goes_on_later() {
    let lab = Lab::with(&SLOW_UNDO.replace("10m", "2s"));
    let running = undoing(&lab);
    running.signal(Signal::SIGINT);
    running.signal(Signal::SIGTERM);
    let ended = running.wait();
    assert!([4, 5].contains(&ended.code), "{ended}");
    assert!(["paused", "rollback_incomplete"].contains(&lab.runs()[0]["state"].as_str().expect("a state")));
    let back = lab.contraflow(&["rollback", "last", "--output", "json"]).succeeded();
    assert_eq!(back.changes().last().expect("one"), "traffic.shift blue 95, green 5 -> blue 100, green 0");
    assert_eq!(lab.runs()[0]["state"], "rolled_back");
}

#[test]
fn a_third_signal_ends_the_process_and_the_run_can_be_taken_up() {
    let lab = Lab::with(SLOW_UNDO);
    let running = undoing(&lab);
    // All at the same moment: there is no time to end in an orderly way in between.
    for signal in [Signal::SIGSTOP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCONT] {
        running.signal(signal);
    }
    let ended = running.wait().exits_with(130);
    assert!(ended.events("run_ended").is_empty(), "{ended}");
    lab.contraflow(&["verify", "last"]).succeeded();
    assert_eq!(lab.runs()[0]["state"], "running");
    assert_eq!(lab.runs()[0]["alive"], false);
}
