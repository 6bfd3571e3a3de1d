//! Runs kept in a real PostgreSQL database, by the real binary.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::lab::{
    contraflow::{BLUE_GREEN, Contraflow, Done},
    database::Database,
    eventually,
};

/// The binary in a folder of its own, with its runs in this database.
fn contraflow(database: &Database) -> (tempfile::TempDir, Contraflow) {
    let folder = tempfile::tempdir().expect("a folder");
    let contraflow = Contraflow::new(folder.path())
        .set("CONTRAFLOW_STORE", database.url())
        .set("CONTRAFLOW_ENV", "sandbox");
    (folder, contraflow)
}

fn one(done: &Done) -> Value {
    serde_json::from_str(done.out.trim()).unwrap_or_else(|e| panic!("{e}: {}", done.text()))
}

#[test]
fn a_run_is_kept_in_a_database_and_shown_verified_and_removed_from_there() {
    let Some(database) = Database::create() else { return };
    let (_folder, contraflow) = contraflow(&database);
    contraflow.run(&["runs"]).exits(0).says(&["no runs yet"]);
    assert_eq!(database.ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'contraflow'"), "0");
    let made = one(&contraflow.run(&["store", "migrate", "--output", "json"]).exits(0));
    assert_eq!(made["created"], true);
    assert!(made["store"].as_str().is_some_and(|store| store.ends_with(&database.name)), "{made}");
    contraflow.run(&["store", "migrate"]).exits(0).says(&["is up to date"]);

    let done = contraflow.start_blue_green("1s").end().exits(0);
    let run = done.events()[0]["run"].as_str().expect("an id").to_owned();
    assert_eq!(database.ask("SELECT id || ' ' || status FROM contraflow.runs"), format!("{run} succeeded"));
    assert_eq!(database.ask("SELECT count(*) FROM contraflow.locks"), "0");
    assert!(!contraflow.folder.join("state").exists(), "nothing is kept beside it");

    contraflow.run(&["runs"]).exits(0).says(&[&run, "blue-green", "succeeded"]);
    contraflow.run(&["show", "last"]).exits(0).says(&[&run, "blue 0, green 100"]);
    contraflow.run(&["show", &run, "--records"]).exits(0).says(&["traffic.shift"]);
    contraflow.run(&["verify", &run]).exits(0).says(&["unaltered"]);
    contraflow.run(&["show", "nosuch"]).exits(1).says(&["no run \"nosuch\" in postgres://127.0.0.1:"]);
    let checked = one(&contraflow.run(&["store", "check", "--output", "json"]).exits(0));
    assert_eq!((&checked["ok"], &checked["runs"]), (&true.into(), &1.into()));

    let backup = contraflow.folder.join("runs.dump");
    database.dump("contraflow", &backup);
    let restored = database.another();
    restored.restore(&backup);

    database.ask("UPDATE contraflow.records SET body = body || ' ' WHERE seq = 9");
    contraflow.run(&["verify", &run]).exits(1).says(&["record 9: its hash does not match"]);
    contraflow.run(&["store", "check"]).exits(1).says(&["damaged: ", "record 9: its hash does not match"]);
    contraflow.run(&["show", "last"]).exits(0);
    contraflow.run(&["verify", "last", "--store", &restored.url()]).exits(0);
    contraflow.run(&["store", "check", "--store", &restored.url()]).exits(0).says(&["(1 run, "]);

    thread::sleep(Duration::from_millis(1100));
    contraflow
        .run(&["store", "prune", "--older-than", "1s", "--dry-run"])
        .exits(0)
        .says(&["1 run would be removed"]);
    contraflow
        .run(&["store", "prune", "--older-than", "1s"])
        .exits(0)
        .says(&["ok: 1 run removed from postgres://"]);
    assert_eq!(database.ask("SELECT count(*) FROM contraflow.records"), "0");
    contraflow.run(&["runs"]).exits(0).says(&["no runs yet"]);
}

#[test]
fn a_run_that_fails_is_rolled_back_and_its_journal_in_the_database_says_so() {
    let Some(database) = Database::create() else { return };
    let (_folder, contraflow) = contraflow(&database);
    let arguments = ["run", BLUE_GREEN, "--param", "hold=1s", "--fault", "green.error_rate=20%@weight>=25"];
    contraflow.run(&arguments).exits(3);
    assert_eq!(database.ask("SELECT status FROM contraflow.runs"), "rolled_back");
    contraflow.run(&["show", "last"]).exits(0).says(&["rolled back", "error_rate was"]);
    contraflow.run(&["verify", "last"]).exits(0);
}

#[test]
fn several_runners_share_a_database() {
    let Some(database) = Database::create() else { return };
    let (_folder, contraflow) = contraflow(&database);
    let running: Vec<_> = (0..3).map(|_| contraflow.start_blue_green("1s")).collect();
    for run in running {
        run.end().exits(0);
    }
    assert_eq!(database.ask("SELECT count(*) FROM contraflow.runs WHERE status = 'succeeded'"), "3");
    contraflow.run(&["store", "check"]).exits(0).says(&["3 runs"]);
}

#[test]
fn a_run_goes_on_when_the_server_has_ended_its_connections() {
    let Some(database) = Database::create() else { return };
    let (_folder, contraflow) = contraflow(&database);
    contraflow.write(
        "slow.rhai",
        "const RUNBOOK = #{ name: \"slow\" };\nfor i in 1..20 { traffic::shift(\"web\", \"green\", i); sleep(\"100ms\"); }\n",
    );
    let mut running = contraflow.start(&["run", "slow.rhai", "--output", "json"]);
    running.wait_for("a change", |event| event["event"] == "effect_ended");
    let mut ended = 0;
    eventually("connections to end", Duration::from_secs(20), || {
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'contraflow' AND datname = current_database()";
        ended += database.ask(all).parse::<u32>().expect("a number");
        (ended >= 4).then_some(())
    });
    assert!(running.is_running());
    running.end().exits(0);
    contraflow.run(&["verify", "last"]).exits(0);
}

#[test]
fn a_run_that_died_on_one_machine_goes_on_and_is_approved_on_another() {
    let Some(database) = Database::create() else { return };
    let ((_here, here), (_there, there)) = (contraflow(&database), contraflow(&database));
    here.write(
        "web.rhai",
        "const RUNBOOK = #{ name: \"web\" };\ntraffic::shift(\"web\", \"green\", 5);\nsleep(\"2s\");\n\
         traffic::shift(\"web\", \"green\", 50);\napprove(\"all of it?\");\ntraffic::shift(\"web\", \"green\", 100);\n",
    );
    let mut running = here.start(&["run", "web.rhai", "--output", "json"]);
    running.wait_for("the sleep", |event| event["event"] == "effect_started" && event["effect"] == "sleep");
    there.run(&["runs"]).exits(0).says(&["running"]);
    running.kill();

    // The scripts come from the store: there is no file of that name there.
    let mut resumed = there.start(&["resume", "last", "--output", "json"]);
    eventually("the question", Duration::from_secs(30), || {
        (database.ask("SELECT count(*) FROM contraflow.questions") == "1").then_some(())
    });
    database.ask(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = 'contraflow' AND datname = current_database()",
    );
    here.run(&["approve", "last"]).exits(0).says(&["yes to \"all of it?\""]);
    resumed.wait_for("the end", |event| event["event"] == "run_ended");
    resumed.end().exits(0);
    here.run(&["show", "last"]).exits(0).says(&["blue 50, green 50 -> blue 0, green 100"]);
    here.run(&["verify", "last"]).exits(0);
    assert_eq!(database.ask("SELECT epoch || ' ' || status FROM contraflow.runs"), "2 succeeded");
}
