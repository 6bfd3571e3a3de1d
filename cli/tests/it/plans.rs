//! Saved plans, from one shell to the next.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use insta::assert_snapshot;

use crate::harness::Lab;

/// A database with two migrations, in an open environment and in one that takes two to agree.
fn lab() -> Lab {
    let lab = Lab::with(r#"db::migrate("main");"#);
    let database = |environment: &str| {
        format!(
            "[env.{environment}.db.main]\nprovider = \"sqlite\"\npath = \"{environment}.db\"\nmigrations = \"migrations\"\n"
        )
    };
    lab.write(
        "contraflow.toml",
        format!(
            "default_env = \"test\"\n{}[env.live]\nprotected = true\napprovers = [\"managers\"]\napprovals = 2\n{}\
             [roles.managers]\nmembers = [\"ana\", \"bo\", \"tester\"]\n",
            database("test"),
            database("live"),
        ),
    );
    for (n, table) in [(1, "users"), (2, "orders")] {
        lab.write(
            &format!("migrations/000{n}_{table}.up.sql"),
            format!("CREATE TABLE {table} (id INTEGER PRIMARY KEY);\n"),
        );
        lab.write(&format!("migrations/000{n}_{table}.down.sql"), format!("DROP TABLE {table};\n"));
    }
    lab
}

fn saved(lab: &Lab) {
    lab.contraflow(&["plan", "run.rhai", "--save", "p.plan"]).succeeded();
}

#[test]
fn a_plan_is_saved_shown_and_run_once() {
    let lab = lab();
    assert_snapshot!(lab.contraflow(&["plan", "run.rhai", "--save", "p.plan"]), @"
    exit 0
    ----- stdout
    Plan of test 0 in test

    ✓ db.migrations main: 2 files, latest 0002_orders  observed
    ~ db.migrate main: no migrations -> 0001, 0002     observed
      · 2 migrations apply cleanly to a copy

    Plan: 1 change.
    Needs: db/main; it is reachable.
    Saved: p.plan, until [WHEN]. Run it: contraflow run --plan p.plan
    ");
    let mode = fs::metadata(lab.path("p.plan")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_snapshot!(lab.contraflow(&["plan", "--show", "p.plan"]), @"
    exit 0
    ----- stdout
    Plan of test 0 in test
      plan [HASH], made by tester@[HOST] at [WHEN]

    ✓ db.migrations main: 2 files, latest 0002_orders  observed
    ~ db.migrate main: no migrations -> 0001, 0002     observed
      · 2 migrations apply cleanly to a copy

    Plan: 1 change.
    Can be run once, until [WHEN].
    ");
    // What is run is what was planned, wherever the script is now.
    fs::remove_file(lab.path("run.rhai")).expect("it was there");
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan"]), @"
    exit 0
    ----- stdout
    ▶ test 0 in test, run test-[ID], from plan [HASH]
    ✓ db.migrations main: 2 files, latest 0002_orders
    ~ db.migrate main: no migrations -> 0001, 0002

    succeeded in [TIME]: 1 change
    ");
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan"]), @"
    exit 1
    ----- stderr
    error[saved-plan]: the plan was already used by run test-[ID]
      help: show the run: contraflow show test-[ID]
      help: make a new plan: contraflow plan FILE --save PLAN
    ");
    let shown = lab.contraflow(&["plan", "--show", "p.plan"]).succeeded().stdout;
    assert!(shown.contains("Used by run test-"), "{shown}");
}

#[test]
fn a_run_names_the_plan_that_it_was_started_from() {
    let lab = lab();
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    lab.contraflow(&["rollback", "last"]).succeeded();
    saved(&lab);
    let plan =
        lab.contraflow(&["plan", "--show", "p.plan", "--output", "json"]).succeeded().json()[0].clone();
    let hash = plan["id"].as_str().expect("a hash");
    lab.contraflow(&["run", "--plan", "p.plan"]).succeeded();
    let runs = lab.runs();
    assert_eq!((&runs[0]["plan"], &runs[1]["plan"]), (&plan["id"], &serde_json::Value::Null));
    let listed = lab.contraflow(&["runs"]).succeeded().stdout;
    assert!(listed.contains("PLAN") && listed.contains(&hash[..12]), "{listed}");
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(shown.contains(&format!(", from plan {}\n", &hash[..12])), "{shown}");
    let events = lab.contraflow(&["show", "last", "--output", "json"]).succeeded();
    assert_eq!(events.events("run_started")[0]["plan"], plan["id"]);
}

#[test]
fn a_plan_that_no_longer_holds_is_refused_with_both_sides() {
    let lab = lab();
    saved(&lab);
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    lab.contraflow(&["rollback", "last"]).succeeded();
    let files = ["0002_orders.up.sql", "0002_orders.down.sql"];
    let there = |file: &str| lab.path(&format!("migrations/{file}"));
    files.iter().for_each(|file| fs::rename(there(file), lab.path(file)).expect("renamed"));
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    files.iter().for_each(|file| fs::rename(lab.path(file), there(file)).expect("renamed"));
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan"]), @"
    exit 1
    ----- stderr
    error[saved-plan]: the plan no longer holds: one thing has changed since it was made; nothing was changed
      help: db/main  planned: no migrations   now: 0001
      help: make a new plan: contraflow plan FILE --save PLAN
    ");
}

#[test]
fn a_plan_is_refused_when_what_it_would_apply_was_altered() {
    let lab = lab();
    saved(&lab);
    lab.write("migrations/0002_orders.up.sql", "CREATE TABLE orders (id INTEGER PRIMARY KEY, more TEXT);\n");
    lab.contraflow(&["run", "--plan", "p.plan"]).exits_with(1).complains("saved-plan");
}

#[test]
fn a_plan_that_others_have_carried_out_already_changes_nothing() {
    let lab = lab();
    saved(&lab);
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let ended = lab.contraflow(&["run", "--plan", "p.plan"]).succeeded();
    assert!(ended.stdout.contains("no changes"), "{ended}");
}

#[test]
fn of_two_that_run_a_plan_at_the_same_time_one_does() {
    let lab = lab();
    saved(&lab);
    let begin = || lab.start(&mut lab.command(&["run", "--plan", "p.plan"]));
    let (one, two) = (begin(), begin());
    let mut codes = [one.wait().code, two.wait().code];
    codes.sort_unstable();
    assert_eq!(codes, [0, 1]);
    assert_eq!(lab.runs().len(), 1);
}

#[test]
fn a_plan_expires_and_is_not_replaced_unasked() {
    let lab = lab();
    lab.contraflow(&["plan", "run.rhai", "--save", "p.plan", "--expires", "1s"]).succeeded();
    lab.contraflow(&["plan", "run.rhai", "--save", "p.plan"]).exits_with(2).complains("argument");
    std::thread::sleep(Duration::from_millis(1100));
    let ended = lab.contraflow(&["run", "--plan", "p.plan"]).exits_with(1);
    assert!(ended.stderr.contains("error[saved-plan]: the plan expired at "), "{ended}");
    lab.contraflow(&["approve", "--plan", "p.plan"]).exits_with(1).complains("saved-plan");
    lab.contraflow(&["plan", "run.rhai", "--save", "p.plan", "--force"]).succeeded();
    lab.contraflow(&["run", "--plan", "p.plan"]).succeeded();
}

#[test]
fn a_file_that_was_edited_or_is_no_plan_is_refused() {
    let lab = lab();
    saved(&lab);
    let text = fs::read_to_string(lab.path("p.plan")).expect("a file");
    lab.write("p.plan", text.replacen("0001", "0009", 1));
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan"]), @"
    exit 2
    ----- stderr
    error[saved-plan]: p.plan: the plan was altered after it was saved
      help: make a new plan: contraflow plan FILE --save PLAN
    ");
    for (file, content) in [("no.plan", "hello"), ("empty.plan", ""), ("list.plan", "[1]")] {
        lab.write(file, content);
        lab.contraflow(&["run", "--plan", file]).exits_with(2).complains("saved-plan");
    }
    lab.contraflow(&["run", "--plan", "none.plan"]).exits_with(2).complains("saved-plan");
    lab.contraflow(&["plan", "--show", "migrations"]).exits_with(2).complains("saved-plan");
    assert!(lab.runs().is_empty());
}

#[test]
fn what_a_plan_says_already_cannot_be_said_again() {
    let lab = lab();
    saved(&lab);
    for args in [["run", "run.rhai", "--plan", "p.plan"], ["run", "--param=a=1", "--plan", "p.plan"]] {
        lab.contraflow(&args).exits_with(2);
    }
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan", "--env", "live"]), @r#"
    exit 2
    ----- stderr
    error[saved-plan]: the plan was made for the environment "test", not for "live"
      help: remove --env (or CONTRAFLOW_ENV): a plan fixes its environment
    "#);
    lab.contraflow(&["run", "--plan", "p.plan", "--env", "test"]).succeeded();
}

#[test]
fn a_plan_that_is_not_complete_is_not_saved() {
    let lab = Lab::with("if exec::run([\"true\"]).stdout == \"\" { note(\"x\"); }");
    lab.write("contraflow.toml", "[env.test.exec]\nallow = [\"true\"]\n");
    let ended = lab.contraflow(&["plan", "run.rhai", "--env", "test", "--save", "p.plan"]).exits_with(1);
    assert!(ended.stderr.contains("the plan was not saved"), "{ended}");
    assert!(!lab.path("p.plan").exists());
}

#[test]
fn a_protected_environment_runs_only_plans_that_enough_people_approved() {
    let lab = lab();
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--env", "live"]), @r#"
    exit 2
    ----- stderr
    error[denied-by-policy]: the environment "live" is protected: it runs only saved plans
      at [DIR]/contraflow.toml:7:1
       7 | protected = true
         | ^^^^^^^^^
      help: plan it: contraflow plan run.rhai --env live --save PLAN
      help: let managers approve it: contraflow approve --plan PLAN
      help: then run it: contraflow run --plan PLAN
    "#);
    assert_snapshot!(lab.contraflow(&["plan", "run.rhai", "--env", "live", "--save", "p.plan"]), @"
    exit 0
    ----- stdout
    Plan of test 0 in live

    ✓ db.migrations main: 2 files, latest 0002_orders  observed
    ~ db.migrate main: no migrations -> 0001, 0002     observed
      · 2 migrations apply cleanly to a copy

    Plan: 1 change.
    Needs: db/main; it is reachable.
    Approval: 2 of managers, before a saved plan runs.
    Saved: p.plan, until [WHEN]. Run it: contraflow run --plan p.plan
    ");
    lab.contraflow(&["approve", "--plan", "p.plan", "--as", "cy"]).exits_with(1).complains("denied");
    let said = lab.contraflow(&["approve", "--plan", "p.plan", "--as", "ana", "--comment", "fine"]);
    assert_snapshot!(said, @"
    exit 0
    ----- stdout
    yes to the plan [HASH] of test, by ana
    ");
    lab.contraflow(&["approve", "--plan", "p.plan", "--as", "ana@desk"]).exits_with(1).complains("denied");
    lab.contraflow(&["approve", "--plan", "p.plan"]).succeeded();
    // Whoever starts it does not count.
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan"]), @"
    exit 1
    ----- stderr
    error[denied-by-policy]: the plan has 1 of the 2 approvals by managers that this environment requires
      help: not counted: tester started the run: somebody else must answer
      help: approve it: contraflow approve --plan PLAN
    ");
    lab.contraflow(&["approve", "--plan", "p.plan", "--as", "bo"]).succeeded();
    lab.contraflow(&["run", "--plan", "p.plan"]).succeeded();
    // Another plan wants other approvals.
    lab.contraflow(&["plan", "run.rhai", "--env", "live", "--save", "q.plan"]).succeeded();
    lab.contraflow(&["deny", "--plan", "q.plan", "--as", "bo", "--comment", "freeze"]).succeeded();
    assert_snapshot!(lab.contraflow(&["run", "--plan", "q.plan"]), @"
    exit 1
    ----- stderr
    error[denied]: bo denied the plan: freeze
    ");
    let shown = lab.contraflow(&["plan", "--show", "q.plan"]).succeeded().stdout;
    assert!(shown.contains("denied by bo: freeze"), "{shown}");
}

#[test]
fn what_is_outside_the_plan_waits_for_a_decision() {
    let lab = lab();
    let config = fs::read_to_string(lab.path("contraflow.toml")).expect("a file");
    lab.write("contraflow.toml", config + "[env.test.exec]\nallow = [\"echo\"]\n");
    lab.runbook(
        r#"let said = exec::run(["echo", "two"], #{ assume: #{ stdout: "one" } }).stdout;
if said.contains("two") { step("more", || db::migrate("main")); }"#,
    );
    saved(&lab);
    assert_snapshot!(lab.contraflow(&["run", "--plan", "p.plan", "--yes"]), @r#"
    exit 5
    ----- stdout
    ▶ test 0 in test, run test-[ID], from plan [HASH]
    … exec.run echo two
      │ two
    > exec.run echo two
    ▸ more
      ✓ db.migrations main: 2 files, latest 0002_orders
      ? db.migrate db/main: no migrations -> 0001, 0002 is not in the plan. Do it?
      ✗ db.migrate main: db.migrate db/main: no migrations -> 0001, 0002 is not in the plan
    ✗ more

    paused after [TIME]: run test-[ID] can be resumed
    ----- stderr
    error[outside-plan]: db.migrate db/main: no migrations -> 0001, 0002 is not in the plan
      at run.rhai:3:43
       3 | if said.contains("two") { step("more", || db::migrate("main")); }
         |                                           ^^^^^^^^^^^
      in step "more" at run.rhai:3:27
      help: decide: contraflow approve test-[ID] more/2:db.migrate, or contraflow deny test-[ID] more/2:db.migrate
      help: then resume the run: contraflow resume test-[ID]
    "#);
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(shown.contains("is not in the plan. Do it?"), "{shown}");
    lab.contraflow(&["approve", "last", "more", "--as", "ana"]).succeeded();
    assert_snapshot!(lab.contraflow(&["resume", "last"]), @"
    exit 0
    ----- stdout
    ▶ test 0 in test, run test-[ID], from plan [HASH]
    ▶ resumed by tester@[HOST], runner 2
    > exec.run echo two (from the journal)
    ▸ more
      ✓ db.migrations main: 2 files, latest 0002_orders (from the journal)
      ? db.migrate db/main: no migrations -> 0001, 0002 is not in the plan. Do it?
      ~ db.migrate main: no migrations -> 0001, 0002
    ✓ more

    succeeded in [TIME]: 1 change
    ");
}

#[test]
fn programs_are_told_what_a_plan_foresees_in_a_line_of_its_own() {
    let lab = lab();
    let ended = lab.contraflow(&["plan", "run.rhai", "--output", "json", "--save", "p.plan"]).succeeded();
    let last: serde_json::Value =
        serde_json::from_str(ended.stdout.lines().last().expect("a line")).expect("json");
    assert_eq!(last["v"], 1);
    let plan = &last["plan"];
    assert_eq!(plan["foreseen"]["changes"][0]["target"], "db/main");
    assert_eq!(
        (&plan["needs"][0]["target"], &plan["needs"][0]["reachable"]),
        (&"db/main".into(), &true.into())
    );
    assert_eq!(plan["saved"]["file"], "p.plan");
    let shown = lab.contraflow(&["plan", "--show", "p.plan", "--output", "json"]).succeeded().json();
    assert_eq!(shown[0]["id"], plan["saved"]["id"]);
    assert_eq!(shown[0]["foreseen"], plan["foreseen"]);
}

#[test]
fn a_plan_expects_of_a_change_what_it_took_before_and_keeps_that_when_it_is_saved() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 100); sleep("3s");"#);
    let plan = || lab.contraflow(&["plan", "run.rhai"]).succeeded().stdout;
    assert!(plan().contains("Plan: 1 change; at least 3s; 1 line assumed."), "{}", plan());
    assert!(!lab.state().exists(), "a plan makes no store");
    // What is open on blue takes that long to end.
    lab.contraflow(&["run", "run.rhai", "--fault", "blue.latency=1500ms"]).succeeded();
    let told = plan();
    let about = regex::Regex::new(r"-> blue 0, green 100 \(about \ds\)").expect("a pattern");
    let sum = regex::Regex::new(
        r"Plan: 1 change; at least 3s, and about \ds until the change is in effect; 1 line",
    )
    .expect("a pattern");
    assert!(about.is_match(&told) && sum.is_match(&told), "{told}");
    lab.contraflow(&["plan", "run.rhai", "--save", "p.plan"]).succeeded();
    let shown = lab.contraflow(&["plan", "--show", "p.plan"]).succeeded().stdout;
    assert!(about.is_match(&shown) && shown.contains("at least 3s, and about"), "{shown}");
    let json =
        lab.contraflow(&["plan", "--show", "p.plan", "--output", "json"]).succeeded().json()[0].clone();
    let estimate = &json["foreseen"]["changes"][0]["estimate"];
    assert_eq!((&estimate["basis"], &json["v"]), (&"earlier_runs".into(), &1.into()));
    assert_eq!(estimate["ms"], json["foreseen"]["estimate_ms"]);
    // Another environment's runs say nothing, nor does a store that is none.
    lab.write("nowhere", "");
    let without = lab.contraflow(&["plan", "run.rhai", "--state-dir", "nowhere"]).succeeded().stdout;
    assert!(!without.contains("about"), "{without}");
}

#[test]
fn a_saved_plan_is_shown_in_the_order_in_which_it_runs_and_with_every_line() {
    let lab = Lab::with(
        r#"
        step("preflight", || probe::http("web/green", #{ path: "/health" }));
        on_rollback(|| note("back"));
        step("backup", || db::backup("main"));
        parallel([|| traffic::weights("web"), || step("warm", || note("warm"))]);
        step("shift", || { traffic::shift("web", "green", 5); metrics::hold("web", #{ error_rate: "< 0.0001%" }, "1s"); });
        confirm("retire blue?");
        step("retire", || deploy::scale("web/blue", 0));
        point_of_no_return("blue is gone");
        notify::send("ops", "done");
        "#,
    );
    let lines = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .skip_while(|line| !line.starts_with("Plan of"))
            .filter(|line| !line.starts_with("  plan "));
        lines.take_while(|line| !line.starts_with("Plan:")).map(str::to_owned).collect()
    };
    let planned = lab.contraflow(&["plan", "run.rhai", "--save", "p.plan"]).succeeded().stdout;
    let shown = lab.contraflow(&["plan", "--show", "p.plan"]).succeeded().stdout;
    assert_eq!(lines(&shown), lines(&planned), "{shown}");
    assert!(lines(&shown).len() > 12, "{shown}");
    let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("no {what}: {shown}"));
    assert!(at("db.backup") < at("traffic.shift") && at("error_rate < 0.0001%") < at("retire blue?"));
    assert!(at("retire blue?") < at("deploy.scale") && at("deploy.scale") < at("notify.send"), "{shown}");
    // A plan that shows something else than it would do is refused.
    let text = fs::read_to_string(lab.path("p.plan")).expect("a plan");
    lab.write("q.plan", text.replace("blue 95, green 5", "blue 99, green 1"));
    lab.contraflow(&["plan", "--show", "q.plan"]).exits_with(2).complains("saved-plan");
}
