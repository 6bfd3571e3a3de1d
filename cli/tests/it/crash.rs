//! A process that ends without a word.

use nix::sys::signal::Signal;

use crate::harness::Lab;

#[test]
fn a_killed_run_leaves_a_journal_that_verifies_and_says_what_was_in_progress() {
    let lab = Lab::with(
        r#"
        step("shift", || traffic::shift("web", "green", 5));
        step("hold", || sleep("10m"));
        "#,
    );
    lab.asleep().dies();
    lab.contraflow(&["verify", "last"]).succeeded();
    assert_eq!(lab.runs()[0]["state"], "running");
    assert_eq!(lab.runs()[0]["elapsed_ms"], serde_json::Value::Null);
    insta::assert_snapshot!(lab.contraflow(&["show", "last"]), @"
    exit 0
    ----- stdout
    test-[ID]  test 0  sandbox  by tester@[HOST]  [WHEN]
    ▶ test 0 in sandbox, run test-[ID]
    ▸ shift
      ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
    ✓ shift
    ▸ hold
      … sleep 10m

    its process died at or after [WHEN]
    resume: contraflow resume test-[ID]; undo: contraflow rollback test-[ID]; close: contraflow abandon test-[ID]
    ");
    // The next run is not held up by it.
    lab.runbook("note(\"next\");");
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    assert_eq!(lab.runs().len(), 2);
}

#[test]
fn a_run_killed_at_any_moment_has_a_journal_that_verifies() {
    let lab =
        Lab::with(r#"for i in 0..100000 { traffic::shift("web", "green", i % 100 + 1); note("n" + i); }"#);
    for pause in [0, 7, 40, 110, 230] {
        let running = lab.begin();
        running.wait_for("effect_ended");
        std::thread::sleep(std::time::Duration::from_millis(pause));
        running.signal(Signal::SIGKILL);
        let ended = running.wait().exits_with(128 + 9);
        lab.contraflow(&["verify", "last"]).succeeded();
        // An intent is durable before its change is applied: the journal never knows less than was begun.
        let shown = lab.contraflow(&["show", "last", "--events"]).succeeded();
        let (applied, known) = (ended.events("applying").len(), shown.events("effect_started").len());
        assert!(known >= applied, "{known} < {applied}");
    }
}
