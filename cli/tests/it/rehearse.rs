//! Rehearsals: a runbook against everything that can go wrong, from a scenario file or the sandbox.

use std::{fs, path::Path};

use insta::assert_snapshot;
use nix::sys::signal::Signal;

use crate::harness::{Lab, names};

/// Stands all that can go wrong.
const GOOD: &str = r#"
step("shift", || {
    traffic::shift("web", "green", 25);
    metrics::hold("web", #{ error_rate: "< 1%" }, "10s");
});
"#;

/// Sends traffic to a pool that it has just emptied.
const BAD: &str = r#"
step("shift", || traffic::shift("web", "green", 25));
step("retire", || deploy::scale("web/green", 0));
"#;

const SCENARIO: &str = r#"
[states]
"traffic/web" = { blue = 100, green = 0 }
"deploy/web/green" = 3
"#;

fn lab(body: &str) -> Lab {
    let lab = Lab::with(body);
    lab.write("run.scenario.toml", SCENARIO);
    lab
}

#[test]
fn a_runbook_that_stands_everything_ends_with_0_and_changes_nothing() {
    let lab = lab(GOOD);
    let ended = lab.contraflow(&["rehearse", "run.rhai", "--no-look"]).succeeded();
    assert_eq!(ended.stderr, "");
    assert!(ended.stdout.starts_with("Rehearsal of test 0 in sandbox\n  from run.scenario.toml"), "{ended}");
    for part in ["as planned: ✓ succeeded (10s", "shift/1:traffic.shift", "rollback\n", "no violations\n"] {
        assert!(ended.stdout.contains(part), "{part}: {ended}");
    }
    assert!(!lab.state().exists(), "no run is kept");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn the_same_rehearsal_is_the_same_bytes_in_every_form() {
    let lab = lab(BAD);
    let mut seen = Vec::new();
    for n in ["1", "2"] {
        let (xml, page) = (format!("{n}.xml"), format!("{n}.html"));
        let args = ["rehearse", "run.rhai", "--no-look", "--junit", &xml, "--html", &page];
        let human = lab.contraflow(&args).exits_with(1);
        let json = lab.contraflow(&["rehearse", "run.rhai", "--no-look", "--output", "json"]).exits_with(1);
        let read = |name: &str| fs::read_to_string(lab.path(name)).expect("a report");
        seen.push((human.stdout, json.stdout, read(&xml), read(&page)));
    }
    assert!(seen[0] == seen[1]);
    let names: Vec<String> =
        names(Path::new(&lab.path("."))).into_iter().filter(|n| n.starts_with('.')).collect();
    assert_eq!(names, Vec::<String>::new(), "reports are renamed into their place");
}

#[test]
fn a_violation_ends_with_1_and_is_played_again_by_the_command_that_is_shown() {
    let lab = lab(BAD);
    let ended = lab.contraflow(&["rehearse", "run.rhai", "--no-look"]).exits_with(1);
    assert!(ended.stdout.contains("✗ traffic only goes to pools with capacity\n"), "{ended}");
    let replay =
        ended.stdout.lines().find_map(|line| line.strip_prefix("  $ contraflow ")).expect("a command");
    assert_eq!(replay, "rehearse run.rhai --no-look --only 'as-planned' --trace");
    let args: Vec<&str> = replay.split(' ').map(|word| word.trim_matches('\'')).collect();
    assert_snapshot!(lab.contraflow(&args), @"
    exit 1
    ----- stdout
    Rehearsal of test 0 in sandbox
      from run.scenario.toml; everything else is unknown

          0s   ▸ shift
          0s     ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
          0s   ✓ shift
          0s   ▸ retire
          0s     ~ deploy.scale web/green: 3 replicas -> 0 replicas
          0s   ✓ retire
          0s   succeeded in [TIME]: 2 changes

    ✗ as-planned: succeeded
      ✗ traffic only goes to pools with capacity: web/green gets 25% of the traffic but has no replicas (after retire/1:deploy.scale)
    ");
}

#[test]
fn one_scenario_is_played_by_its_name() {
    let lab = lab(GOOD);
    let only = |name: &str| lab.contraflow(&["rehearse", "run.rhai", "--no-look", "--only", name]);
    let ended = only("shift/1:traffic.shift=lost-answer").succeeded();
    assert!(ended.stdout.contains("✓ shift/1:traffic.shift=lost-answer: succeeded"), "{ended}");
    let ended = only("shift/2:metrics.hold=fails").succeeded();
    assert!(ended.stdout.contains("↩ shift/2:metrics.hold=fails: rolled back: "), "{ended}");
    only("crash@2").succeeded();
    only("shift/1:traffic.shft=refused")
        .exits_with(2)
        .says("never reaches")
        .says("did you mean \"shift/1:traffic.shift=refused\"?");
    only("crash@900").exits_with(2).says("never reaches the scenario \"crash@900\"");
    only("refused").exits_with(2).says("expected an effect and a fault");
}

#[test]
fn what_a_rehearsal_cannot_know_is_told_and_ends_with_1() {
    let lab = Lab::with(GOOD);
    let ended = lab.contraflow(&["rehearse", "run.rhai", "--no-look"]).exits_with(1);
    for part in [
        "has no initial state for traffic/web",
        "help: add it under [states]: \"traffic/web\" = …",
        "cannot be rehearsed to its end",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {ended}");
    }
    lab.contraflow(&["rehearse", "run.rhai", "--no-look", "--only", "as-planned"]).exits_with(1);
}

#[test]
fn what_was_not_tried_is_said() {
    let lab = lab(GOOD);
    let ended = lab.contraflow(&["rehearse", "run.rhai", "--no-look", "--budget", "5"]).succeeded();
    assert!(ended.stdout.contains("5 scenarios of "), "{ended}");
    assert!(ended.stdout.contains(" not tried: ") && ended.stdout.contains("_ not tried"), "{ended}");
    assert!(ended.stdout.ends_with("no violations in the scenarios tried\n"), "{ended}");
    let json = lab
        .contraflow(&["rehearse", "run.rhai", "--no-look", "--budget", "5", "--output", "json"])
        .succeeded();
    let document: serde_json::Value = serde_json::from_str(&json.stdout).expect("one document");
    assert!(document["not_tried"].as_u64() > Some(0) && document["v"] == 1, "{json}");
}

#[test]
fn a_scenario_file_that_cannot_be_used_is_shown_with_the_place() {
    let lab = Lab::with(GOOD);
    let refused = |text: &str| {
        lab.write("run.scenario.toml", text);
        lab.contraflow(&["rehearse", "run.rhai"]).exits_with(2)
    };
    refused("[state]\n").says("run.scenario.toml:1:2").says("did you mean `states`?");
    refused("[states\n").says("run.scenario.toml:1:");
    refused("[[answers]]\neffect = \"probe.*\"\nfail = \"x\"\n").says("did you mean `fails`?");
    refused("[[answers]]\neffect = \"a.b\"\nvalue = 1\n\n[[answers]]\neffect = \"a.b\"\n")
        .says("run.scenario.toml:5")
        .says("expected one of `value`, `json`, `fails` and `passes_while`");
    refused("[params]\nnope = 1\n").says("nope");
    lab.contraflow(&["rehearse", "run.rhai", "--scenario", "none.toml"]).exits_with(2).says("none.toml");
}

#[test]
fn a_snapshot_is_enough_to_rehearse_the_same_without_looking() {
    let lab = Lab::new();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/blue-green.rhai");
    let taken = ["snapshot", file, "-p", "hold=1s", "-o", "taken.toml"];
    let ended = lab.contraflow(&taken).succeeded();
    assert!(ended.stdout.starts_with("wrote taken.toml\n"), "{ended}");
    let text = fs::read_to_string(lab.path("taken.toml")).expect("a snapshot");
    assert!(text.starts_with("# Initial state for a rehearsal of blue-green 1.0.0 in sandbox.\n"), "{text}");
    lab.contraflow(&taken).exits_with(1).says("taken.toml already exists").says("--force");
    assert_eq!(fs::read_to_string(lab.path("taken.toml")).expect("still there"), text);

    let body = |text: &str| text.lines().skip(2).map(|line| format!("{line}\n")).collect::<String>();
    let looked = lab.contraflow(&["rehearse", file, "-p", "hold=1s"]).succeeded();
    let told = lab.contraflow(&["rehearse", file, "--scenario", "taken.toml", "--no-look"]).succeeded();
    assert_eq!(body(&looked.stdout), body(&told.stdout));
    lab.contraflow(&[&taken[..], &["--force"]].concat()).succeeded();
    assert!(lab.contraflow(&["snapshot", file]).succeeded().stdout.contains("[states]"));
}

#[test]
fn a_rehearsal_at_a_terminal_says_how_far_it_is_and_leaves_that_out_of_the_result() {
    let lab = lab(GOOD);
    let ended = lab.at_terminal(&["rehearse", "run.rhai", "--no-look"], "").succeeded();
    assert!(ended.stdout.contains("rehearsed in "), "{ended}");
    assert!(ended.stdout.contains("no violations"), "{ended}");
}

#[test]
fn ctrl_c_ends_it_with_what_was_found_so_far() {
    let lab = lab(
        r#"for n in range(0, 60) { let n = n; step(`step ${n}`, || traffic::shift("web", "green", n % 2 + 1)); }"#,
    );
    let seat = lab.sit_down(&["rehearse", "run.rhai", "--no-look", "--pairs"]);
    // The run as planned has come to its end; without that nothing would have been found.
    seat.sees("rehearsing: 1");
    seat.signal(Signal::SIGINT);
    let ended = seat.leave().succeeded();
    assert!(ended.stdout.contains("stopping with the results so far"), "{ended}");
    assert!(ended.stdout.contains("not tried: the rehearsal was stopped early"), "{ended}");
}

#[test]
fn what_follows_from_a_change_and_has_to_be_looked_for_is_in_the_snapshot_too() {
    let lab = Lab::with(
        r#"
step("migrate", || db::migrate("main"));
step("look", || { if db::status("main").pending.len() > 0 { fail("not all is applied"); } });
"#,
    );
    lab.contraflow(&["snapshot", "run.rhai", "-o", "run.scenario.toml"]).succeeded();
    let text = fs::read_to_string(lab.path("run.scenario.toml")).expect("a snapshot");
    assert!(text.contains("\nstate = "), "{text}");
    let told = lab.contraflow(&["rehearse", "run.rhai", "--no-look"]).succeeded();
    let looked = lab.contraflow(&[
        "rehearse",
        "run.rhai",
        "--scenario",
        &lab.write("empty.toml", "").display().to_string(),
    ]);
    let body = |text: &str| text.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(body(&told.stdout), body(&looked.stdout));
}

#[test]
fn the_budget_breaks_off_a_run_that_never_ends() {
    let lab = Lab::with(r#"loop { let w = traffic::weights("web"); if w.green > 50 { break; } }"#);
    let ended = lab.contraflow(&["rehearse", "run.rhai", "--budget", "1s"]).exits_with(1);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(said.contains("budget was used up"), "{said}");
}
