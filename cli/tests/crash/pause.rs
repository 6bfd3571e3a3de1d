//! Runs that are told to pause, and a runner that sleeps while another takes its run over.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    lab::{
        contraflow::{Contraflow, Running},
        eventually, http,
    },
    person::Approver,
    world::{Store, World},
};

fn is(event: &Value, kind: &str, id: &str) -> bool {
    event["event"] == kind && event["id"] == id
}

/// A run of this script, begun.
fn begun(world: &World, script: &str) -> Running {
    world.contraflow.write("wait.rhai", &format!("const RUNBOOK = #{{ name: \"wait\" }};\n{script}"));
    world.contraflow.start(&["run", "wait.rhai", "--output", "json"])
}

/// SIGTERM pauses it.
fn paused(running: Running) {
    running.signal(Signal::SIGTERM);
    running.end().exits(5).says(&["paused"]);
}

/// The weights of green that were set at `web`, in order of size.
fn green(world: &World) -> Vec<u32> {
    let sets = world.balancer.sets();
    let green = sets.iter().filter_map(|set| set.strip_prefix("web/green weight "));
    let mut green: Vec<u32> = green.map(|weight| weight.parse().expect("a weight")).collect();
    green.sort_unstable();
    green
}

fn resume(contraflow: &Contraflow) {
    contraflow.run(&["resume", "last"]).exits(0);
    contraflow.run(&["verify", "last"]).exits(0);
}

#[test]
fn a_run_paused_in_a_sleep_sleeps_only_for_the_rest() {
    let Some(world) = World::start(Store::Sqlite) else { return };
    let script =
        r#"traffic::shift("web", "green", 10); sleep("1500ms"); traffic::shift("web", "green", 20);"#;
    let mut running = begun(&world, script);
    running.wait_for("the sleep", |event| is(event, "effect_started", "2:sleep"));
    paused(running);
    assert_eq!(green(&world), [20], "of 200");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let begun = std::time::Instant::now();
    resume(&world.contraflow);
    assert!(begun.elapsed() < std::time::Duration::from_millis(1200), "it slept for {:?}", begun.elapsed());
    assert_eq!(green(&world), [20, 40]);
}

#[test]
fn a_run_paused_while_connections_are_drained_goes_on_to_drain_them() {
    let Some(world) = World::start(Store::Sqlite) else { return };
    let front = world.balancer.web;
    let held = std::thread::spawn(move || http::get(front, "/held"));
    eventually("a request on blue", std::time::Duration::from_secs(10), || {
        (world.pool.held() == 1).then_some(())
    });
    let mut running =
        begun(&world, r#"traffic::shift("web", "green", 100); notify::send("ops", "drained");"#);
    running.wait_for("the drain", |event| is(event, "progress", "1:traffic.shift"));
    paused(running);
    // Still the same connection.
    world.contraflow.run(&["show", "last"]).exits(0);
    let mut again = world.contraflow.start(&["resume", "last", "--output", "json"]);
    again.wait_for("the drain", |event| is(event, "progress", "1:traffic.shift"));
    assert!(world.messages.once().is_empty());
    world.pool.release();
    again.end().exits(0);
    assert_eq!(held.join().expect("a thread").map(|(status, _)| status), Some(200), "it was cut off");
    assert_eq!(green(&world), [200], "set once");
    assert_eq!(world.messages.once().len(), 1);
}

#[test]
fn a_run_paused_in_an_approval_takes_an_answer_that_came_while_nobody_worked_on_it() {
    let Some(world) = World::start(Store::Sqlite) else { return };
    let mut running = begun(&world, r#"approve("go on?"); traffic::shift("web", "green", 10);"#);
    running.wait_for("the question", |event| event["event"] == "asked");
    paused(running);
    assert!(green(&world).is_empty());
    let mut bob = Approver::default();
    bob.look(&world);
    assert!(bob.approved);
    resume(&world.contraflow);
    assert_eq!(green(&world), [20]);
    let answers = world.records();
    let by = |record: &&Value| record["entry"]["replied"]["reply"]["by"] == "bob";
    assert_eq!(answers.iter().filter(by).count(), 1);
}

#[test]
fn a_runner_that_was_stopped_and_overtaken_can_neither_write_nor_apply() {
    let Some(world) = World::start(Store::Sqlite) else { return };
    let script = r#"
        traffic::shift("web", "green", 10);
        sleep("2s");
        traffic::shift("web", "green", 20);
        notify::send("ops", "twenty");
    "#;
    let mut running = begun(&world, script);
    running.wait_for("the sleep", |event| is(event, "effect_started", "2:sleep"));
    // It is stopped while it sleeps, not while it writes: then it would hold the lock on the file that the others need.
    let asleep = |record: &Value| record["id"] == "2:sleep";
    eventually("the record of the sleep", std::time::Duration::from_secs(10), || {
        world.records().iter().any(asleep).then_some(())
    });
    running.signal(Signal::SIGSTOP);
    world.contraflow.run(&["resume", "last"]).exits(1).says(&["is running", "--take-over"]);
    world.contraflow.run(&["resume", "last", "--take-over"]).exits(0);
    let (records, weights) = (world.records(), world.balancer.weights());
    running.signal(Signal::SIGCONT);
    running.end().exits(6).says(&["\"code\":\"lost\""]);
    assert_eq!(world.records(), records);
    assert_eq!(world.balancer.weights(), weights);
    assert_eq!(green(&world), [20, 40]);
    assert_eq!(world.messages.once().len(), 1);
    world.contraflow.run(&["verify", "last"]).exits(0);
}

#[test]
fn a_run_paused_in_a_command_breaks_it_off_and_runs_it_again() {
    let Some(world) = World::start(Store::Sqlite) else { return };
    let script = r#"
        exec::run(["touch", "begun"], #{ undo: ["rm", "-f", "begun"] });
        exec::run(["sleep", "2"], #{ idempotent: true });
        notify::send("ops", "slept");
    "#;
    let mut running = begun(&world, script);
    running.wait_for("the command", |event| is(event, "applying", "2:exec.run"));
    paused(running);
    assert!(world.files().contains_key("begun"), "a pause undoes nothing");
    assert!(world.messages.once().is_empty());
    resume(&world.contraflow);
    assert_eq!(world.messages.once().len(), 1);
}
