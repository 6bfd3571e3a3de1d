//! The runbook that ships, in the sandbox.

use std::time::Duration;

use crate::harness::{Ended, Lab, Running};

const BLUE_GREEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/blue-green.rhai");

fn begun(more: &[&str]) -> (Lab, Running) {
    let lab = Lab::new();
    let args = [&["run", BLUE_GREEN, "--output", "json", "--param", "hold=1s"], more].concat();
    let running = lab.start(&mut lab.command(&args));
    (lab, running)
}

fn blue_green(more: &[&str]) -> (Lab, Ended) {
    let (lab, running) = begun(&[&["--yes"], more].concat());
    (lab, running.wait())
}

#[test]
fn all_traffic_moves_and_the_old_pool_is_retired() {
    let (lab, ended) = blue_green(&[]);
    let ended = ended.succeeded();
    assert!(ended.took < Duration::from_secs(40));
    assert_eq!(
        ended.changes(),
        [
            "db.migrate no migrations -> 0001, 0002, 0003",
            "traffic.shift blue 100, green 0 -> blue 95, green 5",
            "traffic.shift blue 95, green 5 -> blue 75, green 25",
            "traffic.shift blue 75, green 25 -> blue 50, green 50",
            "traffic.shift blue 50, green 50 -> blue 0, green 100",
            "deploy.scale 3 replicas -> 0 replicas",
        ]
    );
    assert_eq!(ended.events("replied")[0]["reply"]["yes"], true);
    assert!(lab.leftovers().is_empty());
}

#[test]
fn errors_at_half_of_the_traffic_bring_traffic_and_schema_back() {
    let (lab, ended) = blue_green(&["--fault", "green.error_rate=30%@weight>=50"]);
    let ended = ended.exits_with(3).complains("gate-failed").says("web: error_rate was ");
    assert_eq!(
        ended.changes()[4..],
        [
            "traffic.shift blue 50, green 50 -> blue 75, green 25",
            "traffic.shift blue 75, green 25 -> blue 95, green 5",
            "traffic.shift blue 95, green 5 -> blue 100, green 0",
            "db.migrate 0001, 0002, 0003 -> no migrations",
        ]
    );
    let started = &ended.events("rollback_started")[0];
    assert_eq!((&started["entries"], &started["error"]["code"]), (&4.into(), &"gate-failed".into()));
    let frames = &started["error"]["frames"];
    assert_eq!(
        (&frames[0]["what"], &frames[1]["what"]),
        (&"metrics::hold".into(), &"step \"50% to green\"".into())
    );
    assert_eq!(ended.events("rollback_ended")[0]["left"], serde_json::json!([]));
    assert_eq!(ended.events("run_ended")[0]["outcome"], "rolled_back");
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(
        shown.contains("rolled back after")
            && shown.contains("4 undone")
            && shown.contains("s: error_rate was "),
        "{shown}"
    );
    assert_eq!(lab.runs()[0]["state"], "rolled_back");
    lab.contraflow(&["verify", "last"]).succeeded();
}

#[test]
fn without_a_terminal_it_waits_until_somebody_agrees_to_retire_the_old_pool() {
    let (lab, running) = begun(&[]);
    running.wait_for("\"event\":\"asked\"");
    lab.contraflow(&["approve", "last", "--as", "ana"]).succeeded();
    let ended = running.wait().succeeded();
    assert_eq!(ended.changes().last().expect("one"), "deploy.scale 3 replicas -> 0 replicas");
}

#[test]
fn errors_while_it_waits_for_the_answer_bring_traffic_and_schema_back() {
    let (_lab, running) = begun(&["--fault", "green.error_rate=30%@9s"]);
    let ended = running.wait().exits_with(3).complains("guard-breached");
    assert_eq!(ended.changes().len(), 5 + 5, "{ended}");
    assert_eq!(ended.changes().last().expect("one"), "db.migrate 0001, 0002, 0003 -> no migrations");
}

#[test]
fn the_rollback_runbook_takes_traffic_back() {
    let lab = Lab::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/rollback.rhai");
    lab.contraflow(&["check", file]).succeeded();
    lab.contraflow(&["plan", file]).succeeded();
    lab.contraflow(&["run", file, "--yes"]).succeeded();
}
