//! What happens when something dies in the middle of the shipped runbook.

use serde_json::Value;

use crate::lab::{haproxy::Gate, world::World};

fn ended(id: &str) -> impl Fn(&Value) -> bool {
    move |event| event["event"] == "effect_ended" && event["id"] == id
}

#[test]
fn without_haproxy_a_run_says_exactly_what_is_left_and_how_to_undo_it() {
    let Some(mut world) = World::start() else { return };
    let before = world.database.schema();
    let mut running = world.contraflow.start_blue_green("2s");
    running.wait_for("a quarter of the traffic", ended("2:guard/25-to-green/1:traffic.shift"));
    world.haproxy.kill();
    let done = running.end().exits(4);

    // The gate must not pass on what was measured before; then nothing can be put back.
    done.says(&[
        "gate-inconclusive",
        "error_rate had no data",
        "unreachable",
        "HAProxy at unix:",
        "connection refused",
    ]);
    let events = done.events();
    let left = events.iter().find(|event| event["event"] == "rollback_ended").expect("a rollback");
    let left: Vec<[&str; 2]> = left["left"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| ["what", "by_hand"].map(|key| item[key].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        left,
        [
            [
                "traffic.shift traffic/web: blue 95, green 5 -> blue 75, green 25",
                "set traffic/web back to \"blue 95, green 5\""
            ],
            [
                "traffic.shift traffic/web: blue 100, green 0 -> blue 95, green 5",
                "set traffic/web back to \"blue 100, green 0\""
            ],
            ["db.migrate db/main: no migrations -> 0001, 0002", "set db/main back to \"no migrations\""],
        ]
    );
    world.contraflow.run(&["verify", "last"]).exits(0);

    // What it says is so: the schema is still the new one, and traffic may be anywhere.
    assert_eq!(world.database.tables(), "_contraflow_migrations customers orders");
    world.haproxy.restart();
    // What it says to do can be done, in that order, and brings back what was; once the run is given up, which has the targets.
    world.contraflow.run(&["abandon", "last"]).exits(0);
    world.contraflow.write(
        "by-hand.rhai",
        "const RUNBOOK = #{ name: \"by-hand\" };\n\
         traffic::set(\"web\", #{ blue: 95, green: 5 });\n\
         traffic::set(\"web\", #{ blue: 100, green: 0 });\n\
         db::migrate(\"main\", #{ to: 0 });\n",
    );
    world.contraflow.run(&["run", "by-hand.rhai"]).exits(0);
    assert_eq!((world.haproxy.green(), world.database.schema()), (0, before));
}

/// The last weights that `contraflow show` says were reached, and the id of a change that began and of which no end is known.
fn shown(world: &World) -> (Option<String>, Option<String>) {
    let events = world.contraflow.run(&["show", "last", "--output", "json"]).exits(0).events();
    let last = |kind: &str| {
        let wanted = |event: &&Value| event["event"] == kind && event["effect"] == "traffic.shift";
        events.iter().rfind(wanted)
    };
    let (begun, ended) = (last("effect_started"), last("effect_ended"));
    let text =
        |event: Option<&Value>, key: &str| event.and_then(|event| event[key].as_str()).map(str::to_owned);
    let open = begun.filter(|begun| ended.is_none_or(|ended| ended["id"] != begun["id"]));
    (text(ended, "to_text"), text(open, "id"))
}

fn weights(green: u64) -> String {
    format!("blue {}, green {green}", 100 - green)
}

#[test]
fn after_kill_9_between_changes_the_journal_is_whole_and_says_what_haproxy_says() {
    let Some(mut world) = World::start() else { return };
    for weight in [5, 50, 100] {
        let mut running = world.contraflow.start_blue_green("500ms");
        // The outcome of a change is in the journal when the next effect begins.
        let id = format!("2:guard/{weight}-to-green/2:metrics.hold");
        running.wait_for("the gate", |event| event["event"] == "progress" && event["id"] == id.as_str());
        running.kill();

        world.contraflow.run(&["verify", "last"]).exits(0).says(&["unaltered"]);
        assert_eq!(world.haproxy.green(), weight);
        assert_eq!(shown(&world), (Some(weights(weight)), None));
        world.contraflow.run(&["abandon", "last"]).exits(0);
        world.back();
    }
}

#[test]
fn after_kill_9_in_a_change_the_journal_says_that_it_had_begun_and_not_that_it_ended() {
    let Some(mut world) = World::start() else { return };
    let gate = Gate::start(world.haproxy.socket());
    world.contraflow = world
        .contraflow
        .set("CONTRAFLOW__ENV__STAGING__TRAFFIC__WEB__SOCKET", format!("unix:{}", gate.path.display()));
    // Before the first of four weights is set, and after two.
    for done in [0, 2] {
        let mut running = world.contraflow.start_blue_green("500ms");
        running.wait_for("the first shift", ended("2:guard/5-to-green/1:traffic.shift"));
        let before = world.haproxy.weights();
        gate.stop_after(done);
        gate.is_stuck();
        running.kill();
        gate.open();

        world.contraflow.run(&["verify", "last"]).exits(0).says(&["unaltered"]);
        assert_eq!(shown(&world), (Some(weights(5)), Some("2:guard/25-to-green/1:traffic.shift".to_owned())));
        assert_eq!(world.haproxy.weights() == before, done == 0, "{before:?} {:?}", world.haproxy.weights());
        // The next thing a person asks.
        world.contraflow.run(&["show", "last"]).exits(0).says(&[
            "its process died",
            "! traffic.shift web: blue 95, green 5 -> blue 75, green 25 (started at",
            "locked by this run: db/main, traffic/web",
        ]);
        world.contraflow.run(&["abandon", "last"]).exits(0);
        world.back();
    }
}
