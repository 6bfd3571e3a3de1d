//! `contraflow check`: warnings, how they are shown, what makes them count, what silences them.

use insta::assert_snapshot;

use crate::harness::Lab;

/// A runbook with two of the defects that warnings are about.
const CARELESS: &str = r#"const RUNBOOK = #{ name: "careless", version: "1.0.0" };

import "lib/pools" as pools;

traffic::shift("web", "green", 95);
pools::retire("web", "blue");

for attempt in 0..10 {
    try {
        probe::http("web/green", #{ path: "/health" });
        break;
    } catch (error) {
        sleep("10s");
    }
}
"#;

const POOLS: &str = "fn retire(service, pool) {\n    deploy::scale(`${service}/${pool}`, 0);\n}\n";

fn careless() -> Lab {
    let lab = Lab::new();
    lab.write("careless.rhai", CARELESS);
    lab.write("lib/pools.rhai", POOLS);
    lab
}

#[test]
fn warnings_say_what_where_why_and_what_to_do() {
    let lab = careless();
    assert_snapshot!(lab.contraflow(&["check", "careless.rhai"]), @r#"
    exit 0
    ----- stdout
    ok: careless.rhai (careless 1.0.0), 2 warnings
    ----- stderr
    warning[health-loop-cannot-fail]: this loop cannot fail: if `probe::http` never passes, the run continues as if it had
      at careless.rhai:8:1
       8 | for attempt in 0..10 {
         | ^^^
      why: the next steps act on something unhealthy, and the run reports success
      help: record whether it was found, and fail("…") after the loop if not; `probe::http` retries by itself, and fails in the end, with #{ attempts: 10, interval: "10s" }

    warning[retire-without-evidence]: web/blue is scaled to zero, but may still have traffic: after line 5, green gets 95%
      at lib/pools.rhai:2:5
       2 |     deploy::scale(`${service}/${pool}`, 0);
         |     ^^^^^^^^^^^^^
      in pools::retire at careless.rhai:6:1
      why: requests that still go there fail at once, and starting a pool takes longer than stopping it
      help: take its traffic away first: send everything to another pool with traffic::shift("web", …, 100), which waits until no connection is left
    "#);
    assert!(!lab.path("state").exists());
}

#[test]
fn errors_come_before_warnings() {
    let lab = Lab::with("deploy::scale(\"web/blue\", 0);\ntrafic::shift(\"web\", \"green\", 1);");
    assert_snapshot!(lab.contraflow(&["check", "run.rhai"]), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: no module named `trafic`
      at run.rhai:3:1
       3 | trafic::shift("web", "green", 1);
         | ^^^^^^^^^^^^^
      help: did you mean `traffic`?

    warning[retire-without-evidence]: web/blue is scaled to zero without evidence that it has no traffic
      at run.rhai:2:1
       2 | deploy::scale("web/blue", 0);
         | ^^^^^^^^^^^^^
      why: requests that still go there fail at once, and starting a pool takes longer than stopping it
      help: check first: if traffic::weights("web").blue > 0 { fail("web/blue still has traffic"); }
      help: or wait until its request rate is zero: metrics::hold(…, #{ requests: "< 1" }, "1m")
    "#);
}

#[test]
fn programs_get_each_warning_as_an_object() {
    let lab = careless();
    let ended = lab.contraflow(&["check", "careless.rhai", "--output", "json"]).succeeded();
    let told = ended.json().remove(0);
    assert_eq!((&told["ok"], &told["warnings"]), (&serde_json::json!(true), &serde_json::json!(2)));
    assert_snapshot!(ended.stderr, @r#"
    {"warning":{"code":"health-loop-cannot-fail","column":1,"file":"careless.rhai","help":["record whether it was found, and fail(\"…\") after the loop if not; `probe::http` retries by itself, and fails in the end, with #{ attempts: 10, interval: \"10s\" }"],"line":8,"message":"this loop cannot fail: if `probe::http` never passes, the run continues as if it had","severity":"warning","why":"the next steps act on something unhealthy, and the run reports success"}}
    {"warning":{"called_from":[{"column":1,"line":6,"source":"careless.rhai","what":"pools::retire"}],"code":"retire-without-evidence","column":5,"file":"lib/pools.rhai","help":["take its traffic away first: send everything to another pool with traffic::shift(\"web\", …, 100), which waits until no connection is left"],"line":2,"message":"web/blue is scaled to zero, but may still have traffic: after line 5, green gets 95%","severity":"warning","why":"requests that still go there fail at once, and starting a pool takes longer than stopping it"}}
    "#);
}

#[test]
fn strict_makes_warnings_count_as_errors() {
    let lab = careless();
    lab.contraflow(&["check", "careless.rhai"]).exits_with(0);
    for form in ["human", "json"] {
        let strict = lab.contraflow(&["check", "careless.rhai", "--strict", "--output", form]).exits_with(2);
        assert_eq!(strict.stdout, "", "{form}");
        assert!(strict.stderr.contains("retire-without-evidence"), "{strict}");
    }
    let well = Lab::with("traffic::shift(\"web\", \"green\", 100);");
    well.contraflow(&["check", "run.rhai", "--strict"]).succeeded();
    let both = lab.write("well.rhai", "const RUNBOOK = #{ name: \"well\" };\nnote(\"well\");\n");
    let both = both.to_string_lossy().into_owned();
    lab.contraflow(&["check", "careless.rhai", &both, "--strict"]).exits_with(2);
    lab.contraflow(&["check", &both, "careless.rhai", "--strict"]).exits_with(2);
}

#[test]
fn a_comment_with_a_reason_silences_a_warning_and_an_idle_one_is_told() {
    let lab = Lab::with(
        "// contraflow: allow(retire-without-evidence) because these are workers: they take no traffic\n\
         deploy::scale(\"jobs/old\", 0);",
    );
    lab.contraflow(&["check", "run.rhai", "--strict"]).succeeded();
    let lab = Lab::with("// contraflow: allow(retire-without-evidence) because of nothing\nnote(\"x\");");
    assert_snapshot!(lab.contraflow(&["check", "run.rhai"]), @"
    exit 0
    ----- stdout
    ok: run.rhai (test 0), 1 warning
    ----- stderr
    warning[allow]: there is no warning retire-without-evidence here to silence
      at run.rhai:2:1
       2 | // contraflow: allow(retire-without-evidence) because of nothing
         | ^
      why: it would hide a later warning
      help: remove the comment, or move it to the line before the warning
    ");
    lab.contraflow(&["check", "run.rhai", "--strict"]).exits_with(2);
}

#[test]
fn plans_and_rehearsals_do_not_mention_warnings() {
    let lab = careless();
    for command in ["plan", "rehearse"] {
        let ended = lab.contraflow(&[command, "careless.rhai"]);
        assert!(!ended.to_string().contains("warning["), "{ended}");
    }
}

#[test]
fn errors_and_warnings_name_the_path_that_was_given() {
    let lab = Lab::new();
    lab.write(
        "a/web.rhai",
        "const RUNBOOK = #{ name: \"a\" };\nstep(\"shift\", traffic::shift(\"web\", \"green\", 5));",
    );
    lab.write("b/web.rhai", "const RUNBOOK = #{ name: \"b\" };\nif true {\n");
    for output in ["human", "json"] {
        let ended = lab.contraflow(&["check", "a/web.rhai", "b/web.rhai", "--output", output]).exits_with(2);
        for path in ["a/web.rhai", "b/web.rhai"] {
            assert!(ended.stderr.contains(path), "{}", ended.stderr);
        }
    }
    lab.write("c/web.rhai", "const RUNBOOK = #{ name: \"c\" };\nfail(\"no\");");
    let ended = lab.contraflow(&["run", "c/web.rhai"]).exits_with(1);
    assert!(ended.stderr.contains("at c/web.rhai:2:1"), "{}", ended.stderr);
}
