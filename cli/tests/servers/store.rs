//! Runs kept in a real PostgreSQL database, by the real binary.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::lab::{
    cutover::{BLUE_GREEN, Cutover, Done},
    database::Database,
    eventually,
};

/// The binary in a folder of its own, with its runs in this database.
fn cutover(database: &Database) -> (tempfile::TempDir, Cutover) {
    let folder = tempfile::tempdir().expect("a folder");
    let cutover =
        Cutover::new(folder.path()).set("CUTOVER_STORE", database.url()).set("CUTOVER_ENV", "sandbox");
    (folder, cutover)
}

fn one(done: &Done) -> Value {
    serde_json::from_str(done.out.trim()).unwrap_or_else(|e| panic!("{e}: {}", done.text()))
}

#[test]
fn a_run_is_kept_in_a_database_and_shown_verified_and_removed_from_there() {
    let Some(database) = Database::create() else { return };
    let (_folder, cutover) = cutover(&database);
    cutover.run(&["runs"]).exits(0).says(&["no runs yet"]);
    assert_eq!(database.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'cutover'"), "0");
    let made = one(&cutover.run(&["store", "migrate", "--output", "json"]).exits(0));
    assert_eq!(made["created"], true);
    assert!(made["store"].as_str().is_some_and(|store| store.ends_with(&database.name)), "{made}");
    cutover.run(&["store", "migrate"]).exits(0).says(&["is of this version"]);

    let done = cutover.start_blue_green("1s").end().exits(0);
    let run = done.events()[0]["run"].as_str().expect("an id").to_owned();
    assert_eq!(database.ask("SELECT id || ' ' || status FROM cutover.runs"), format!("{run} succeeded"));
    assert_eq!(database.ask("SELECT count(*) FROM cutover.locks"), "0");
    assert!(!cutover.folder.join("state").exists(), "nothing is kept beside it");

    cutover.run(&["runs"]).exits(0).says(&[&run, "blue-green", "succeeded"]);
    cutover.run(&["show", "last"]).exits(0).says(&[&run, "blue 0, green 100"]);
    cutover.run(&["show", &run, "--records"]).exits(0).says(&["traffic.shift"]);
    cutover.run(&["verify", &run]).exits(0).says(&["unaltered"]);
    cutover.run(&["show", "nosuch"]).exits(1).says(&["there is no run \"nosuch\" in postgres://127.0.0.1:"]);
    let checked = one(&cutover.run(&["store", "check", "--output", "json"]).exits(0));
    assert_eq!((&checked["ok"], &checked["runs"]), (&true.into(), &1.into()));

    let backup = cutover.folder.join("runs.dump");
    database.dump("cutover", &backup);
    let restored = database.another();
    restored.restore(&backup);

    database.ask("UPDATE cutover.records SET body = body || ' ' WHERE seq = 9");
    cutover.run(&["verify", &run]).exits(1).says(&["record 9: its hash does not match"]);
    cutover.run(&["store", "check"]).exits(1).says(&["damaged: ", "record 9: its hash does not match"]);
    cutover.run(&["show", "last"]).exits(0);
    cutover.run(&["verify", "last", "--store", &restored.url()]).exits(0);
    cutover.run(&["store", "check", "--store", &restored.url()]).exits(0).says(&["(1 run, "]);

    thread::sleep(Duration::from_millis(1100));
    cutover
        .run(&["store", "prune", "--older-than", "1s", "--dry-run"])
        .exits(0)
        .says(&["1 run would be removed"]);
    cutover
        .run(&["store", "prune", "--older-than", "1s"])
        .exits(0)
        .says(&["ok: 1 run removed from postgres://"]);
    assert_eq!(database.ask("SELECT count(*) FROM cutover.records"), "0");
    cutover.run(&["runs"]).exits(0).says(&["no runs yet"]);
}

#[test]
fn a_run_that_fails_is_rolled_back_and_its_journal_in_the_database_says_so() {
    let Some(database) = Database::create() else { return };
    let (_folder, cutover) = cutover(&database);
    let arguments = ["run", BLUE_GREEN, "--param", "hold=1s", "--fault", "green.error_rate=20%@weight>=25"];
    cutover.run(&arguments).exits(3);
    assert_eq!(database.ask("SELECT status FROM cutover.runs"), "rolled_back");
    cutover.run(&["show", "last"]).exits(0).says(&["rolled back", "error_rate was"]);
    cutover.run(&["verify", "last"]).exits(0);
}

#[test]
fn several_runners_share_a_database() {
    let Some(database) = Database::create() else { return };
    let (_folder, cutover) = cutover(&database);
    let running: Vec<_> = (0..3).map(|_| cutover.start_blue_green("1s")).collect();
    for run in running {
        run.end().exits(0);
    }
    assert_eq!(database.ask("SELECT count(*) FROM cutover.runs WHERE status = 'succeeded'"), "3");
    cutover.run(&["store", "check"]).exits(0).says(&["3 runs"]);
}

#[test]
fn a_run_goes_on_when_the_server_has_ended_its_connections() {
    let Some(database) = Database::create() else { return };
    let (_folder, cutover) = cutover(&database);
    cutover.write(
        "slow.rhai",
        "const RUNBOOK = #{ name: \"slow\" };\nfor i in 1..20 { traffic::shift(\"web\", \"green\", i); sleep(\"100ms\"); }\n",
    );
    let mut running = cutover.start(&["run", "slow.rhai", "--output", "json"]);
    running.wait_for("a change", |event| event["event"] == "effect_ended");
    let mut ended = 0;
    eventually("connections to end", Duration::from_secs(20), || {
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'cutover' AND datname = current_database()";
        ended += database.ask(all).parse::<u32>().expect("a number");
        (ended >= 4).then_some(())
    });
    assert!(running.is_running());
    running.end().exits(0);
    cutover.run(&["verify", "last"]).exits(0);
}
