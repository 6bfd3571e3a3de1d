//! Each command where all is well.

use std::{collections::BTreeSet, fs, io::Read as _, process::Stdio};

use insta::assert_snapshot;
use serde_json::Value;

use crate::harness::{Lab, names};

const LOOK: &str = r#"const RUNBOOK = #{
    name: "look",
    version: "1.2.0",
    params: #{ percent: #{ type: "int", "default": 25, min: 1, max: 100, help: "share of traffic" } },
};
step("look", || traffic::weights("web"));
step("shift", || traffic::shift("web", "green", params.percent));
note("half way");
notify::send("ops", "done");
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("look.rhai", LOOK);
    lab
}

#[test]
fn a_run_tells_what_it_does_and_leaves_only_its_journal() {
    let lab = lab();
    assert_snapshot!(lab.contraflow(&["run", "look.rhai"]), @"
    exit 0
    ----- stdout
    ▶ look 1.2.0 in sandbox, run look-[ID]
      percent = 25
    ▸ look
      ✓ traffic.weights web: blue 100, green 0
    ✓ look
    ▸ shift
      ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25
    ✓ shift
    • half way
    > notify.send ops: done

    succeeded in [TIME]: 1 change
    ");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    // The log of the database stays next to it: folding it in would cost every run some syncs.
    for name in names(&lab.state()) {
        assert!(name.starts_with("contraflow.db"), "{name}");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(lab.state().join(&name)).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn each_line_of_json_is_an_event_with_the_documented_fields() {
    let lab = lab();
    let ended =
        lab.contraflow(&["run", "look.rhai", "--param", "percent=50", "--output", "json"]).succeeded();
    assert_eq!(ended.stderr, "");
    let events = ended.json();
    let run = events[0]["run"].as_str().expect("an id");
    for event in &events {
        assert_eq!((&event["v"], &event["run"]), (&1.into(), &run.into()), "{event}");
        let at: Result<jiff::Timestamp, _> = event["at"].as_str().expect("a time").parse();
        assert!(at.is_ok(), "{event}");
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().expect("a kind")).collect();
    assert_snapshot!(kinds.join(" "), @"run_started step_started effect_started effect_ended step_ended step_started effect_started applying effect_ended step_ended note effect_started applying effect_ended run_ended");
    assert_eq!(events[0]["params"]["percent"], 50);
    assert_eq!((&events[0]["mode"], &events[0]["environment"]), (&"live".into(), &"sandbox".into()));
    let ids = |kind: &str| -> BTreeSet<String> {
        ended.events(kind).iter().map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids("effect_started"), ids("effect_ended"));
    assert_eq!(ids("step_started"), ids("step_ended"));
    assert_eq!(ended.changes(), ["traffic.shift blue 100, green 0 -> blue 50, green 50"]);
    let last = events.last().expect("events");
    assert_eq!(
        (&last["event"], &last["outcome"], &last["changes"]),
        (&"run_ended".into(), &"succeeded".into(), &1.into())
    );
}

#[test]
fn verbose_logs_to_standard_error_only() {
    let lab = lab();
    let quiet = lab.contraflow(&["run", "look.rhai", "--output", "json"]).succeeded();
    assert_eq!(quiet.stderr, "");
    let loud = lab.contraflow(&["run", "look.rhai", "--output", "json", "-vvv"]).succeeded();
    assert!(!loud.stderr.is_empty() && !loud.stderr.contains('\u{1b}'), "{loud}");
    assert_eq!(loud.json().len(), quiet.json().len());
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let lab = lab();
    assert!(!lab.contraflow(&["run", "look.rhai"]).succeeded().stdout.contains('\u{1b}'));
    assert!(!lab.at_terminal(&["plan", "look.rhai"], "").succeeded().stdout.contains("\u{1b}[3"));
    let mut forced = lab.command(&["plan", "look.rhai"]);
    forced.env_remove("NO_COLOR");
    assert!(!lab.end(&mut forced).succeeded().stdout.contains('\u{1b}'), "no terminal, no colour");
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_run() {
    let lab = Lab::with(r#"for i in 0..2000 { note("line " + i); } traffic::shift("web", "green", 5);"#);
    for output in ["human", "json"] {
        let mut child = lab
            .command(&["run", "run.rhai", "--output", output])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut first = [0; 20];
        child.stdout.take().expect("piped").read_exact(&mut first).expect("a line");
        // The reading end is closed here.
        assert!(child.wait().expect("it ends").success(), "{output}");
        assert!(lab.contraflow(&["verify", "last"]).succeeded().stdout.starts_with("ok: test-"));
    }
    let states: Vec<Value> = lab.runs().iter().map(|run| run["state"].clone()).collect();
    assert_eq!(states, ["succeeded", "succeeded"]);
}

#[test]
fn a_plan_shows_each_change_and_makes_none() {
    let lab = lab();
    assert_snapshot!(lab.contraflow(&["plan", "look.rhai"]), @"
    exit 0
    ----- stdout
    Plan of look 1.2.0 in sandbox
      percent = 25

    ▸ look
      ✓ traffic.weights web: blue 100, green 0                     observed
    ▸ shift
      ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25  observed
    • half way
    > notify.send ops: done                                        assumed

    Plan: 1 change, 1 action; 1 line assumed.
    Needs: notify/ops, traffic/web; all are reachable.
    ");
    assert!(!lab.path("state").exists(), "a plan keeps nothing");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
    let json = lab.contraflow(&["plan", "look.rhai", "--output", "json"]).succeeded();
    assert_eq!(json.events("run_started")[0]["mode"], "plan");
    assert_eq!(json.changes(), ["traffic.shift blue 100, green 0 -> blue 75, green 25"]);
    assert_eq!(json.events("run_ended")[0]["changes"], 1);
}

#[test]
fn the_detailed_exit_code_tells_whether_there_is_something_to_do() {
    let lab = Lab::new();
    lab.write(
        "nothing.rhai",
        "const RUNBOOK = #{ name: \"test\" };\ntraffic::shift(\"web\", \"green\", 0);\n",
    );
    lab.write("some.rhai", "const RUNBOOK = #{ name: \"test\" };\ntraffic::shift(\"web\", \"green\", 1);\n");
    lab.write("fails.rhai", "const RUNBOOK = #{ name: \"test\" };\ntraffic::shift(\"web\", \"teal\", 1);\n");
    lab.write("wrong.rhai", "const RUNBOOK = #{ name: \"test\" };\ntraffic::shift(\n");
    for (file, plain, detailed) in [("nothing", 0, 0), ("some", 0, 2), ("fails", 1, 1), ("wrong", 2, 1)] {
        let file = format!("{file}.rhai");
        assert_eq!(lab.contraflow(&["plan", &file]).code, plain, "{file}");
        assert_eq!(lab.contraflow(&["plan", &file, "--detailed-exitcode"]).code, detailed, "{file}");
    }
    assert_eq!(lab.contraflow(&["plan", "none.rhai", "--detailed-exitcode"]).code, 1);
    assert!(!lab.path("state").exists());
}

#[test]
fn check_says_what_is_wrong_with_each_file() {
    let lab = lab();
    lab.write("bad.rhai", "const RUNBOOK = #{ name: \"test\" };\ntrafic::shift(\"web\", \"green\", 1);\n");
    assert_snapshot!(lab.contraflow(&["check", "look.rhai"]), @"
    exit 0
    ----- stdout
    ok: look.rhai (look 1.2.0)
    ");
    assert_snapshot!(lab.contraflow(&["check", "look.rhai", "bad.rhai"]), @r#"
    exit 2
    ----- stdout
    ok: look.rhai (look 1.2.0)
    ----- stderr
    error[unknown-function]: no module named `trafic`
      at bad.rhai:2:1
       2 | trafic::shift("web", "green", 1);
         | ^^^^^^^^^^^^^
      help: did you mean `traffic`?
    "#);
    let json = lab.contraflow(&["check", "look.rhai", "bad.rhai", "--output", "json"]).exits_with(2);
    assert!(!json.json().is_empty());
    assert!(!lab.path("state").exists());
}

#[test]
fn runs_lists_them_newest_first() {
    let lab = lab();
    assert_snapshot!(lab.contraflow(&["runs"]).columns(), @"
    exit 0
    ----- stdout
    no runs yet: start one with `contraflow run FILE`
    ");
    assert_eq!(lab.contraflow(&["runs", "--output", "json"]).succeeded().stdout, "");
    lab.contraflow(&["run", "look.rhai"]).succeeded();
    lab.contraflow(&["run", "look.rhai", "--param", "percent=0"]).exits_with(2);
    lab.write("fails.rhai", "const RUNBOOK = #{ name: \"test\" };\nfail(\"no\");\n");
    lab.contraflow(&["run", "fails.rhai"]).exits_with(1);
    assert_snapshot!(lab.contraflow(&["runs"]).columns(), @"
    exit 0
    ----- stdout
    RUN  RUNBOOK  ENV  STATE  STARTED  TOOK  BY
    test-[ID]  test 0  sandbox  failed  just now  [MS]  tester@[HOST]
    look-[ID]  look 1.2.0  sandbox  succeeded  just now  [MS]  tester@[HOST]
    ");
    assert_snapshot!(lab.contraflow(&["runs", "--limit", "1"]).columns(), @"
    exit 0
    ----- stdout
    RUN  RUNBOOK  ENV  STATE  STARTED  TOOK  BY
    test-[ID]  test 0  sandbox  failed  just now  [MS]  tester@[HOST]
    ");
    let rows = lab.runs();
    let states: Vec<&Value> = rows.iter().map(|row| &row["state"]).collect();
    assert_eq!(states, ["failed", "succeeded"]);
    for row in &rows {
        for field in ["run", "runbook", "environment", "state", "started", "started_by", "elapsed_ms"] {
            assert!(!row[field].is_null(), "{field}: {row}");
        }
    }
}

#[test]
fn show_tells_the_same_as_the_run_did() {
    let lab = lab();
    let run = lab.contraflow(&["run", "look.rhai"]).succeeded();
    let shown = lab.contraflow(&["show", "last"]).succeeded();
    let (head, rest) = shown.stdout.split_once('\n').expect("lines");
    assert!(head.starts_with("look-") && head.contains("  look 1.2.0  sandbox  by tester@"), "{head}");
    // A read that ran within a millisecond may be written in another way; what happened may not.
    let lines = |text: &str| text.lines().count();
    assert_eq!(lines(rest), lines(&run.stdout), "{shown}\n{run}");
    assert!(rest.contains("~ traffic.shift web: blue 100, green 0 -> blue 75, green 25"), "{shown}");
    let id = head.split(' ').next().expect("an id");
    for name in [id, &id[..8], &id[5..]] {
        assert_eq!(lab.contraflow(&["show", name]).succeeded().stdout, shown.stdout, "{name}");
    }
    let events = lab.contraflow(&["show", "last", "--events"]).succeeded().json();
    assert_eq!(events.last().expect("events")["outcome"], "succeeded");
    let records = lab.contraflow(&["show", "last", "--records", "--output", "json"]).succeeded().json();
    assert!(records.len() >= 6, "{records:?}");
    assert_eq!(
        lab.contraflow(&["show", "last", "--records"]).succeeded().stdout.lines().count(),
        records.len()
    );
    assert_snapshot!(lab.contraflow(&["show", "no-such-run"]), @r#"
    exit 1
    ----- stderr
    error[journal]: no run "no-such-run" in [DIR]/state/contraflow
      help: list them: contraflow runs
    "#);
}

#[test]
fn verify_says_that_a_run_was_not_altered() {
    let lab = lab();
    lab.contraflow(&["run", "look.rhai"]).succeeded();
    assert_snapshot!(lab.contraflow(&["verify", "last"]), @"
    exit 0
    ----- stdout
    ok: look-[ID] has 11 records, unaltered (head [HASH]), and the scripts it ran (bundle [HASH])
    ");
    let json = lab.contraflow(&["verify", "last", "--output", "json"]).succeeded().json();
    assert_eq!(json[0]["ok"], true);
    assert_eq!(json[0]["head"].as_str().expect("a hash").len(), 64);
    assert_snapshot!(lab.contraflow(&["verify", "none"]), @r#"
    exit 1
    ----- stderr
    error[journal]: no run "none" in [DIR]/state/contraflow
      help: list them: contraflow runs
    "#);
}

#[test]
fn targets_lists_what_is_bound_and_whether_it_answers() {
    let lab = Lab::new();
    assert_snapshot!(lab.contraflow(&["targets"]).columns(), @"
    exit 0
    ----- stdout
    TARGET  PROVIDER  AT
    traffic/web  sandbox  built-in router on 127.0.0.1
    deploy/web  sandbox  built-in HTTP servers on 127.0.0.1
    metrics/web  sandbox  requests through the built-in router, last 5 s
    notify/ops  sandbox  built-in sink /ops on 127.0.0.1
    notify/oncall  sandbox  built-in sink /oncall on 127.0.0.1
    db/main  sandbox  SQLite in a temporary folder
    secrets/deploy-token  sandbox  a made-up value
    ");
    assert_snapshot!(lab.contraflow(&["targets", "--check"]).columns(), @"
    exit 0
    ----- stdout
    TARGET  PROVIDER  AT  CHECK
    traffic/web  sandbox  built-in router on 127.0.0.1  ok: router at http://127.0.0.1:[PORT], 2 pools: blue 100, green 0
    deploy/web  sandbox  built-in HTTP servers on 127.0.0.1  ok: blue 3 of 3 ready, green 3 of 3 ready
    metrics/web  sandbox  requests through the built-in router, last 5 s  ok: metrics at http://127.0.0.1:[PORT]/metrics
    notify/ops  sandbox  built-in sink /ops on 127.0.0.1  ok: listens at http://127.0.0.1:[PORT]/ops
    notify/oncall  sandbox  built-in sink /oncall on 127.0.0.1  ok: listens at http://127.0.0.1:[PORT]/oncall
    db/main  sandbox  SQLite in a temporary folder  ok: SQLite 3.51.3, 2 tables, 16KiB
    secrets/deploy-token  sandbox  a made-up value  ok: there
    ");
    let rows = lab.contraflow(&["targets", "--check", "--output", "json"]).succeeded().json();
    assert!(rows.len() >= 7 && rows.iter().all(|row| row["check"]["ok"] == true), "{rows:?}");
    assert_eq!(lab.leftovers(), Vec::<String>::new());
}

#[test]
fn what_new_writes_checks_plans_and_runs() {
    for template in ["shift", "minimal"] {
        let lab = Lab::new();
        lab.contraflow(&["new", "hello", "--template", template]).succeeded();
        let checked = lab.contraflow(&["check", "hello.rhai", "--strict"]).succeeded();
        assert_eq!(checked.stderr, "", "no warnings");
        lab.contraflow(&["plan", "hello.rhai"]).succeeded();
        let hold: &[&str] = if template == "shift" { &["--param", "hold=300ms"] } else { &[] };
        let run = lab.contraflow(&[&["run", "hello.rhai"], hold].concat()).succeeded();
        assert!(run.stdout.contains("succeeded in"), "{run}");
    }
    let lab = Lab::new();
    assert_snapshot!(lab.contraflow(&["new", "hello", "--with-config"]), @"
    exit 0
    ----- stdout
    wrote hello.rhai and contraflow.toml

    Next:
      contraflow plan hello.rhai
      contraflow run hello.rhai
    ");
    lab.contraflow(&["targets", "--env", "staging"]).succeeded();
    assert_snapshot!(lab.contraflow(&["new", "hello"]), @"
    exit 1
    ----- stderr
    error[argument]: hello.rhai already exists
      help: choose another name, or remove it first
    ");
    assert_snapshot!(lab.contraflow(&["new", "Hello World"]), @r#"
    exit 1
    ----- stderr
    error[argument]: "Hello World" is not a valid runbook name: expected a lowercase letter, then lowercase letters, digits, - and _, at most 64
      help: try "hello-world"
    "#);
}

#[test]
fn completions_are_scripts_of_the_shell() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = lab.contraflow(&["completions", shell]).succeeded().stdout;
        assert!(script.contains("contraflow") && script.contains("detailed-exitcode"), "{shell}");
    }
    let script = lab.write("complete.bash", lab.contraflow(&["completions", "bash"]).succeeded().stdout);
    let mut bash = std::process::Command::new("bash");
    lab.end(bash.arg("-n").arg(script)).succeeded();
}

#[test]
fn the_command_line_says_what_is_wrong_with_it() {
    let lab = lab();
    for args in [
        &[][..],
        &["rnu"],
        &["run"],
        &["run", "look.rhai", "--parm", "x=1"],
        &["run", "look.rhai", "--param", "x"],
    ] {
        let ended = lab.contraflow(args).exits_with(2);
        assert!(
            ended.stdout.is_empty() && ended.stderr.contains("Usage:")
                || ended.stderr.contains("expected NAME=VALUE"),
            "{ended}"
        );
    }
    for args in [["--help", "--help"], ["run", "--help"], ["--version", "--version"]] {
        assert_eq!(lab.contraflow(&args).succeeded().stderr, "");
    }
}
