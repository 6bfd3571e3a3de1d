//! The shipped blue/green runbook, to its end.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::lab::{contraflow::BLUE_GREEN, eventually, world::World};

/// Whether an event is the end of a shift to this weight.
fn shifted(weight: u32) -> impl Fn(&Value) -> bool {
    let id = format!("2:guard/{weight}-to-green/1:traffic.shift");
    move |event| event["event"] == "effect_ended" && event["id"] == id.as_str()
}

#[test]
fn a_cutover_moves_traffic_and_schema_keeps_a_backup_and_tells_people_once() {
    let Some(world) = World::start() else { return };
    let checked = world.contraflow.run(&["targets", "--check"]).exits(0);
    checked.says(&["traffic", "PostgreSQL", "Prometheus", "HAProxy 2", "takes connections"]);
    let (_, failed_before) = world.users.counts();

    let done = world.contraflow.start_blue_green("1s").end().exits(0);

    let weights: Vec<String> = done
        .events()
        .iter()
        .filter(|event| event["event"] == "effect_ended" && event["effect"] == "traffic.shift")
        .map(|event| event["to_text"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(weights, ["blue 95, green 5", "blue 75, green 25", "blue 50, green 50", "blue 0, green 100"]);
    assert_eq!(world.haproxy.green(), 100, "{:?}", world.haproxy.weights());
    assert_eq!(world.database.tables(), "_contraflow_migrations customers orders");
    assert_eq!(
        world.database.ask("SELECT string_agg(name, ' ' ORDER BY version) FROM _contraflow_migrations"),
        "0001_orders 0002_email"
    );
    let (served, failed) = world.users.counts();
    assert_eq!(failed, failed_before, "of {served} requests during the cutover some failed");

    let backups: Vec<_> =
        std::fs::read_dir(world.contraflow.folder.join("backups")).expect("backups").flatten().collect();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let restored = world.database.another();
    restored.restore(&backups[0].path());
    assert_eq!(restored.tables(), "customers", "the backup was made before the migrations");
    assert_eq!(restored.ask("SELECT count(*), max(name) FROM customers"), "500|customer 99");

    let messages = world.receiver.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(messages[0]["text"], "web: cutover to green done");
    assert_eq!(messages[0]["environment"], "staging");
    assert_eq!(world.receiver.requests(), 2, "the answer to the first was lost, so it was sent again");

    world.contraflow.run(&["verify", "last"]).exits(0).says(&["unaltered"]);
    world.contraflow.run(&["plan", BLUE_GREEN, "--detailed-exitcode"]).exits(0);
}

#[test]
fn a_plan_against_real_servers_changes_nothing_on_any_of_them() {
    let Some(world) = World::start() else { return };
    let before = (world.haproxy.weights(), world.database.schema(), world.database.tables());
    let plan = world.contraflow.run(&["plan", BLUE_GREEN, "--detailed-exitcode"]).exits(2);
    plan.says(&[
        "blue 100, green 0 -> blue 95, green 5",
        "blue 50, green 50 -> blue 0, green 100",
        "2 migrations apply cleanly in a transaction that was rolled back",
    ]);
    let after = (world.haproxy.weights(), world.database.schema(), world.database.tables());
    assert_eq!(after, before);
    assert_eq!(world.receiver.requests(), 0);
    assert!(!world.contraflow.folder.join("backups").exists());
    assert_eq!(
        world.contraflow.run(&["runs"]).exits(0).out.matches("blue-green").count(),
        0,
        "a plan is no run"
    );
}

#[test]
fn errors_at_half_the_traffic_bring_everything_back() {
    let Some(world) = World::start() else { return };
    let before = (world.haproxy.green(), world.database.schema());
    assert_eq!(before.0, 0);

    let mut running = world.contraflow.start_blue_green("3s");
    running.wait_for("half the traffic", shifted(50));
    world.green.fail();
    let done = running.end().exits(3);

    done.says(&["gate-failed", "error_rate was"]);
    let failed = done.events().into_iter().find(|event| event["result"] == "failed").expect("a failed gate");
    assert_eq!(failed["id"], "2:guard/50-to-green/2:metrics.hold");
    assert_eq!((world.haproxy.green(), world.database.schema()), before);
    assert_eq!(world.database.ask("SELECT count(*) FROM _contraflow_migrations"), "0");
    assert_eq!(world.receiver.messages(), Vec::<Value>::new());
    let backups = std::fs::read_dir(world.contraflow.folder.join("backups")).expect("backups");
    assert_eq!(backups.count(), 1, "a backup is kept, whatever comes");
    world.contraflow.run(&["verify", "last"]).exits(0);
    let shown = world.contraflow.run(&["show", "last"]).exits(0);
    shown.says(&["rolled back", "error_rate was"]);
}

#[test]
fn a_run_waits_until_the_last_connection_of_the_old_pool_is_closed() {
    let Some(world) = World::start() else { return };
    let mut running = world.contraflow.start_blue_green("2s");
    running.wait_for("half the traffic", shifted(50));
    let front = world.haproxy.front;
    // Every second one goes to blue.
    let open = || thread::spawn(move || crate::lab::http::get(front, "/held"));
    let held: Vec<_> = (0..4).map(|_| open()).collect();
    eventually("requests in both pools", Duration::from_secs(10), || {
        (world.blue.held() + world.green.held() == 4).then_some(())
    });
    let on_blue = world.blue.held();
    assert!(on_blue > 0, "none of four went to blue");

    let id = "2:guard/100-to-green/1:traffic.shift";
    let s = if on_blue == 1 { "" } else { "s" };
    let message = format!("{on_blue} connection{s} still on blue");
    running.wait_for("the wait for connections", |event| {
        event["event"] == "progress" && event["id"] == id && event["message"] == message.as_str()
    });
    assert_eq!(world.haproxy.green(), 100, "new requests go to green already");
    thread::sleep(Duration::from_secs(2));
    assert!(running.is_running());
    assert!(!running.events().iter().any(shifted(100)), "it did not wait: {}", running.text());

    world.blue.release();
    world.green.release();
    let done = running.end().exits(0);
    let shift = done.events().into_iter().find(shifted(100)).expect("the shift ended");
    assert!(shift["elapsed_ms"].as_u64().is_some_and(|ms| ms >= 2000), "{shift}");
    for answer in held {
        assert_eq!(answer.join().expect("a thread").map(|(status, _)| status), Some(200), "it was cut off");
    }
}
