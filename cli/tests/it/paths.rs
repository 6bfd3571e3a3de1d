//! `contraflow plan --all-paths`: where a run can lead, in the sandbox.

use insta::assert_snapshot;
use nix::sys::signal::Signal;
use regex::Regex;

use crate::harness::{Ended, Lab, names};

/// A gate that is made up for, a guard that is not, and a person; a fallback that has a check and a question of its own.
const STORY: &str = r#"
traffic::shift("web", "green", 25);
try {
    metrics::hold("web", #{ error_rate: "< 1%" }, "10s");
} catch (error) {
    notify::send("ops", "green is not well");
    traffic::shift("web", "green", 5);
    probe::http("web/green", #{ path: "/health" });
    confirm("go on with 5%?");
}
guard(#{ metric: "web.error_rate", above: "1%", sustained: "5s" }, || {
    traffic::shift("web", "green", 100);
    try {
        approve("retire blue?", #{ timeout: "5m" });
        deploy::scale("web/blue", 0);
    } catch (error) {
        if error.code != "denied" { throw error; }
        note("blue stays");
    }
});
"#;

fn all_paths(lab: &Lab, more: &[&str]) -> Ended {
    lab.contraflow(&[&["plan", "run.rhai", "--all-paths"], more].concat())
}

#[test]
fn the_tree_tells_every_decision_and_where_each_leads() {
    let lab = Lab::with(STORY);
    assert_snapshot!(all_paths(&lab, &[]), @"
    exit 0
    ----- stdout
    All paths of test 0 in sandbox

    ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    … metrics.hold web: error_rate < 1% for 10s (at least 10s)
      └ if it does not pass: ✓ succeeds on another path
          > notify.send ops: green is not well
          ~ traffic.shift web: blue 75, green 25 -> blue 95, green 5
          ✓ probe.http GET web/green /health: 200 in [TIME]
          ? confirm go on with 5%?
            ├ if it is denied: ↩ rolled back; 2 undone: traffic.shift web (2 times)
            └ if nobody answers: ↩ rolled back: the run took longer than 24h; 2 undone: traffic.shift web (2 times)
    ▸ guard web: error_rate <= 1% (a breach counts after [TIME])
      └ if it is breached, at any of 3 effects: ↩ rolled back; 2 to 3 undone: deploy.scale web/blue and traffic.shift web (2 times)
    ~ traffic.shift web: blue 75, green 25 -> blue 0, green 100
    ? approve retire blue? (within 5m)
      └ if it is denied or nobody answers: ✓ succeeds, without deploy.scale web/blue
    ~ deploy.scale web/blue: 3 replicas -> 0 replicas

    As assumed: ✓ succeeded; 3 changes; at least 10s.
    Otherwise: 4 decisions, 5 other paths: 2 succeed, 3 are rolled back.
    ");
    assert!(!lab.state().exists(), "no run is kept");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

/// What the guide shows behind a command: the lines, apart from those that are left out.
fn guide(command: &str) -> Vec<String> {
    let text = include_str!("../../../docs/src/guide/plan.md");
    let block = text.split(&format!("```text\n$ {command}\n")).nth(1).expect("a transcript");
    let lines = block.split("```").next().expect("its end").lines();
    lines.filter(|line| *line != "…").map(str::to_owned).collect()
}

/// Whether all those lines are there, in that order.
fn shows(text: &str, lines: &[String]) {
    let mut rest = text.lines();
    for line in lines {
        assert!(rest.any(|there| there == line), "{line:?} is missing or out of order in\n{text}");
    }
}

#[test]
fn the_transcripts_of_the_guide_are_what_is_shown() {
    let lab = Lab::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/blue-green.rhai");
    let ended = lab.contraflow(&["plan", file, "--all-paths"]).succeeded();
    assert_eq!(ended.stderr, "");
    shows(&ended.stdout, &guide("contraflow plan runbooks/blue-green.rhai --all-paths"));
    let text = include_str!("../../../docs/src/guide/plan.md");
    let script = text.split("```rhai,no_run\n").nth(1).and_then(|rest| rest.split("```").next());
    lab.write("fallback.rhai", script.expect("a script"));
    let ended = lab.contraflow(&["plan", "fallback.rhai", "--all-paths"]).succeeded();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), guide("contraflow plan fallback.rhai --all-paths"));
}

#[test]
fn a_way_that_needs_a_person_tells_what_is_left() {
    let lab = Lab::with(
        r#"
traffic::shift("web", "green", 25);
point_of_no_return("customers were told");
deploy::scale("web/blue", 1);
guard(#{ metric: "web.error_rate", above: "1%", sustained: "5s" }, || {
    try { probe::http("web/blue", #{ path: "/health" }); } catch (error) { exec::run(["date"]); }
    traffic::shift("web", "green", 100);
});
"#,
    );
    assert_snapshot!(all_paths(&lab, &[]), @"
    exit 0
    ----- stdout
    All paths of test 0 in sandbox

    ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    ! point of no return: customers were told
    ~ deploy.scale web/blue: 3 replicas -> 1 replica
    ▸ guard web: error_rate <= 1% (a breach counts after [TIME])
      └ if it is breached, at any of 2 effects: ! needs a person: 2 left, 1 to 2 undone: traffic.shift web and deploy.scale web/blue
          ! left: point of no return (customers were told)
          ! left: traffic.shift traffic/web: blue 100, green 0 -> blue 75, green 25 (it comes before 2:point_of_no_return, which is not undone)
    · probe.http GET web/blue /health
      └ if it fails: ✓ succeeds on another path
          > exec.run date
    ~ traffic.shift web: blue 75, green 25 -> blue 0, green 100

    As assumed: ✓ succeeded; 3 changes.
    Otherwise: 2 decisions, 2 other paths: 1 succeeds, 1 needs a person.
    ");
}

#[test]
fn a_guard_that_leads_elsewhere_later_on_says_where_it_is_breached() {
    let lab = Lab::with(
        r#"
guard(#{ metric: "web.error_rate", above: "1%", sustained: "5s" }, || {
    traffic::shift("web", "green", 25);
    point_of_no_return("customers were told");
    for weight in [50, 60, 70, 80, 100] { traffic::shift("web", "green", weight); }
});
"#,
    );
    assert_snapshot!(all_paths(&lab, &[]), @"
    exit 0
    ----- stdout
    All paths of test 0 in sandbox

    ▸ guard web: error_rate <= 1% (a breach counts after [TIME])
      ├ if it is breached at 1:guard/1:traffic.shift: ↩ rolled back; 1 undone: traffic.shift web
      └ if it is breached at 1:guard/3:traffic.shift, 1:guard/4:traffic.shift, 1:guard/5:traffic.shift or 2 more: ! needs a person: 2 left, 1 to 5 undone: traffic.shift web (5 times)
          ! left: point of no return (customers were told)
          ! left: traffic.shift traffic/web: blue 100, green 0 -> blue 75, green 25 (it comes before 1:guard/2:point_of_no_return, which is not undone)
    ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    ! point of no return: customers were told
    ~ traffic.shift web: blue 75, green 25 -> blue 50, green 50
    ~ traffic.shift web: blue 50, green 50 -> blue 40, green 60
    ~ traffic.shift web: blue 40, green 60 -> blue 30, green 70
    ~ traffic.shift web: blue 30, green 70 -> blue 20, green 80
    ~ traffic.shift web: blue 20, green 80 -> blue 0, green 100

    As assumed: ✓ succeeded; 6 changes.
    Otherwise: 1 decision, 2 other paths: 1 is rolled back, 1 needs a person.
    ");
}

#[test]
fn answers_that_lead_elsewhere_have_lines_of_their_own() {
    let lab = Lab::with(
        r#"
traffic::shift("web", "green", 25);
try {
    metrics::hold("web", #{ error_rate: "< 1%" }, "10s");
} catch (error) {
    if error.code == "gate-failed" { throw error; }
    traffic::shift("web", "green", 0);
    fail("no verdict");
}
approve("go on?", #{ timeout: "1h", on_timeout: "approve" });
"#,
    );
    assert_snapshot!(all_paths(&lab, &[]), @"
    exit 0
    ----- stdout
    All paths of test 0 in sandbox

    ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    … metrics.hold web: error_rate < 1% for 10s (at least 10s)
      ├ if it fails: ↩ rolled back; 1 undone: traffic.shift web
      └ if it is inconclusive, has no data or does not pass in time: ↩ rolled back: no verdict; 2 undone: traffic.shift web (2 times)
          ~ traffic.shift web: blue 75, green 25 -> blue 100, green 0
    ? approve go on? (within 1h)
      ├ if it is denied: ↩ rolled back; 1 undone: traffic.shift web
      └ if nobody answers: ✓ succeeds: it makes no difference

    As assumed: ✓ succeeded; 1 change; at least 10s.
    Otherwise: 2 decisions, 4 other paths: 1 succeeds, 3 are rolled back.
    ");
}

#[test]
fn an_answer_that_makes_no_difference_and_a_loop_that_tries_again_are_told_in_short() {
    let lab = Lab::with(
        r#"
deploy::scale("web/green", 4);
for attempt in range(0, 5) {
    try { probe::http("web/green", #{ path: "/health" }); break; } catch (error) { sleep("10s"); }
}
for weight in [25, 100] {
    traffic::shift("web", "green", weight);
    try { metrics::hold("web", #{ error_rate: "< 1%" }, "5m"); } catch (error) { note("never mind"); }
}
"#,
    );
    assert_snapshot!(all_paths(&lab, &[]), @"
    exit 0
    ----- stdout
    All paths of test 0 in sandbox

    ~ deploy.scale web/green: 3 replicas -> 4 replicas
    · probe.http GET web/green /health
      └ if it fails: ✓ succeeds: it makes no difference
          … sleep 10s (at least 10s) (5 times)
          ✗ probe.http GET web/green /health: rehearsed: it does not pass (4 times)
    ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    … metrics.hold web: error_rate < 1% for 5m (at least 5m)
      └ if it does not pass: ✓ succeeds: it makes no difference
    ~ traffic.shift web: blue 75, green 25 -> blue 0, green 100
    … metrics.hold web: error_rate < 1% for 5m (at least 5m)
      └ if it does not pass: ✓ succeeds: it makes no difference

    As assumed: ✓ succeeded; 3 changes; at least 10m.
    Otherwise: 3 decisions, 3 other paths: 3 succeed.
    ");
}

#[test]
fn a_protected_environment_is_looked_at_and_not_touched() {
    let lab = Lab::with(r#"db::migrate("main"); db::status("main"); confirm("keep it?");"#);
    lab.write(
        "contraflow.toml",
        "[env.live]\nprotected = true\n[env.live.db.main]\nprovider = \"sqlite\"\npath = \"live.db\"\nmigrations = \"migrations\"\n",
    );
    lab.write("migrations/0001_users.up.sql", "CREATE TABLE users (id INTEGER PRIMARY KEY);\n");
    lab.write("migrations/0001_users.down.sql", "DROP TABLE users;\n");
    let before = names(&lab.path("."));
    let ended = all_paths(&lab, &["--env", "live"]);
    assert_snapshot!(ended, @"
    exit 0
    ----- stdout
    All paths of test 0 in live

    ✓ db.migrations main: 1 file, latest 0001_users
    ~ db.migrate main: no migrations -> 0001
    · db.status main: 1 applied, 0 pending
      · its value is only assumed; other values are not explored
    ? confirm keep it?
      ├ if it is denied: ↩ rolled back; 1 undone: db.migrate main
      └ if nobody answers: ↩ rolled back: the run took longer than 24h; 1 undone: db.migrate main

    As assumed: ✓ succeeded; 1 change.
    Otherwise: 1 decision, 2 other paths: 2 are rolled back.
    ");
    assert_eq!(names(&lab.path(".")), before, "nothing was written");
}

#[test]
fn programs_get_one_document_that_names_each_way() {
    let lab = Lab::with(STORY);
    let ended = all_paths(&lab, &["--output", "json"]).succeeded();
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).expect("one document");
    assert_eq!((&document["v"], &document["runbook"]), (&1.into(), &"test".into()));
    assert_eq!((&document["not_played"], &document["too_deep"]), (&0.into(), &0.into()));
    let latency = Regex::new("200 in [0-9.]+(ms|µs)").expect("a pattern");
    let first = serde_json::to_string_pretty(&document["decisions"][0]).expect("JSON");
    assert_snapshot!(latency.replace_all(&first, "200 in [TIME]"), @r#"
    {
      "asks": "gate",
      "branches": [
        {
          "answers": [
            "fails",
            "inconclusive",
            "no-data",
            "times-out"
          ],
          "decisions": [
            {
              "asks": "question",
              "branches": [
                {
                  "answers": [
                    "denied"
                  ],
                  "elapsed_ms": 5000,
                  "end": "rolled_back",
                  "scenarios": [
                    "2:metrics.hold=fails+6:confirm=denied"
                  ],
                  "undone": [
                    {
                      "effect": "traffic.shift",
                      "id": "rollback/4:traffic.shift",
                      "kind": "change",
                      "text": "blue 95, green 5 -> blue 75, green 25",
                      "what": "traffic/web"
                    },
                    {
                      "effect": "traffic.shift",
                      "id": "rollback/1:traffic.shift",
                      "kind": "change",
                      "text": "blue 75, green 25 -> blue 100, green 0",
                      "what": "traffic/web"
                    }
                  ]
                },
                {
                  "answers": [
                    "no-answer"
                  ],
                  "elapsed_ms": 86400000,
                  "end": "rolled_back",
                  "scenarios": [
                    "2:metrics.hold=fails+6:confirm=no-answer"
                  ],
                  "undone": [
                    {
                      "effect": "traffic.shift",
                      "id": "rollback/4:traffic.shift",
                      "kind": "change",
                      "text": "blue 95, green 5 -> blue 75, green 25",
                      "what": "traffic/web"
                    },
                    {
                      "effect": "traffic.shift",
                      "id": "rollback/1:traffic.shift",
                      "kind": "change",
                      "text": "blue 75, green 25 -> blue 100, green 0",
                      "what": "traffic/web"
                    }
                  ],
                  "why": "the run took longer than 24h"
                }
              ],
              "effect": "confirm",
              "id": "6:confirm",
              "what": "go on with 5%?"
            }
          ],
          "does": [
            {
              "effect": "notify.send",
              "id": "3:notify.send",
              "kind": "action",
              "what": "ops: green is not well"
            },
            {
              "effect": "traffic.shift",
              "id": "4:traffic.shift",
              "kind": "change",
              "text": "blue 75, green 25 -> blue 95, green 5",
              "what": "traffic/web"
            },
            {
              "effect": "probe.http",
              "id": "5:probe.http",
              "kind": "read",
              "text": "200 in [TIME]",
              "what": "GET web/green /health"
            },
            {
              "effect": "confirm",
              "id": "6:confirm",
              "kind": "wait",
              "what": "go on with 5%?"
            }
          ],
          "elapsed_ms": 5000,
          "end": "succeeded",
          "scenarios": [
            "2:metrics.hold=fails",
            "2:metrics.hold=inconclusive",
            "2:metrics.hold=no-data",
            "2:metrics.hold=times-out"
          ]
        }
      ],
      "effect": "metrics.hold",
      "id": "2:metrics.hold",
      "what": "web: error_rate < 1% for 10s"
    }
    "#);
    // Each way is a scenario of a rehearsal.
    let scenario = document["decisions"][0]["branches"][0]["scenarios"][0].as_str().expect("a name");
    let played = lab.contraflow(&["rehearse", "run.rhai", "--only", scenario]);
    assert!(played.stdout.contains(": succeeded"), "{played}");
}

#[test]
fn ctrl_c_ends_it_with_what_was_found_so_far() {
    let lab = Lab::with(
        r#"for n in range(0, 400) { let n = n; step(`step ${n}`, || { traffic::shift("web", "green", n % 2 + 1); confirm("on?"); }); }"#,
    );
    let seat = lab.sit_down(&["plan", "run.rhai", "--all-paths", "--paths", "100000"]);
    seat.sees("exploring: ");
    seat.signal(Signal::SIGINT);
    let ended = seat.leave().succeeded();
    assert!(ended.stdout.contains("stopping with the results so far"), "{ended}");
    assert!(ended.stdout.contains("Not explored: "), "{ended}");
}

#[test]
fn no_more_ways_are_played_than_allowed() {
    let lab = Lab::with(STORY);
    let ended = all_paths(&lab, &["--paths", "2"]).succeeded();
    assert!(ended.stdout.contains("Not explored: "), "{ended}");
    let json = all_paths(&lab, &["--paths", "2", "--output", "json"]).succeeded();
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
    assert_eq!(document["played"], 2);
    assert!(document["not_played"].as_u64() > Some(0), "{json}");
    all_paths(&lab, &["--paths", "0"]).exits_with(2).says("--paths");
    lab.contraflow(&["plan", "run.rhai", "--paths", "5"]).exits_with(2).says("--all-paths");
}

#[test]
fn a_plan_that_stops_is_shown_as_a_plan_with_what_is_wrong() {
    let lab = Lab::with(
        r#"let out = exec::run(["date"]); if out.stdout != "" { traffic::shift("web", "green", 25); }"#,
    );
    lab.write("contraflow.toml", "[env.test.exec]\nallow = [\"date\"]\n");
    let plain = lab.contraflow(&["plan", "run.rhai", "--env", "test"]);
    let ended = all_paths(&lab, &["--env", "test"]).exits_with(plain.code);
    assert_eq!(ended.stdout, plain.stdout);
    let ended = ended.says("paths are shown only for a complete plan");
    assert!(ended.stderr.contains("unknown-in-plan"), "{ended}");
}

#[test]
fn a_scenario_file_next_to_the_runbook_says_nothing_about_what_is_there() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 25); confirm("go on?");"#);
    let before = all_paths(&lab, &[]).succeeded();
    lab.write("run.scenario.toml", "[states]\n\"traffic/web\" = { blue = 1, green = 99 }\n");
    assert_eq!(all_paths(&lab, &[]).succeeded().stdout, before.stdout);
    assert!(before.stdout.contains("blue 100, green 0 -> blue 75, green 25"), "{before}");
}

#[test]
fn parameters_and_exit_codes_are_those_of_a_plan() {
    let lab = Lab::new();
    lab.write(
        "run.rhai",
        r#"const RUNBOOK = #{ name: "test", params: #{ weight: #{ type: "int", "default": 0 } } };
        traffic::shift("web", "green", params.weight);
        confirm("go on?");"#,
    );
    let to_25 = ["--param", "weight=25"];
    assert!(all_paths(&lab, &to_25).succeeded().stdout.contains("weight = 25"));
    all_paths(&lab, &[&to_25[..], &["--detailed-exitcode"]].concat()).exits_with(2);
    all_paths(&lab, &["--detailed-exitcode"]).exits_with(0);
    all_paths(&lab, &["--param", "weigth=25"]).exits_with(2).says("did you mean");
}
