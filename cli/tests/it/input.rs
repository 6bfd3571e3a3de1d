//! Scripts and configurations that are wrong: said before anything happens, with the place.

use insta::assert_snapshot;

use crate::harness::{Ended, Lab};

/// Runs a script and sees that it was refused before a run began.
fn refused(body: &str) -> Ended {
    let lab = Lab::with(body);
    let ended = lab.contraflow(&["run", "run.rhai"]).exits_with(2);
    assert!(lab.runs().is_empty() && ended.stdout.is_empty(), "{ended}");
    ended
}

/// Runs a script that fails.
fn fails(body: &str) -> Ended {
    let lab = Lab::with(body);
    lab.contraflow(&["run", "run.rhai"]).exits_with(1)
}

#[test]
fn a_script_that_does_not_parse() {
    assert_snapshot!(refused("step(\"look\", || {\n    probe::http(\"web\");\n);"), @"
    exit 2
    ----- stderr
    error[syntax]: unexpected ')'
      at run.rhai:4:1
       4 | );
         | ^
    ");
    assert_snapshot!(refused("let x = \"never closed;"), @r#"
    exit 2
    ----- stderr
    error[syntax]: open string is not terminated
      at run.rhai:2:9
       2 | let x = "never closed;
         |         ^^^^^^^^^^^^^^
    "#);
}

#[test]
fn a_function_that_does_not_exist() {
    assert_snapshot!(refused("trafic::shift(\"web\", \"green\", 5);"), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: no module named `trafic`
      at run.rhai:2:1
       2 | trafic::shift("web", "green", 5);
         | ^^^^^^^^^^^^^
      help: did you mean `traffic`?
    "#);
    assert_snapshot!(refused("traffic::shfit(\"web\", \"green\", 5);"), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: no function named `traffic::shfit`
      at run.rhai:2:10
       2 | traffic::shfit("web", "green", 5);
         |          ^^^^^
      help: did you mean `traffic::shift`?
    "#);
    assert_snapshot!(refused("shift(\"web\", \"green\", 5);"), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: `shift` takes 1 argument, not 3
      at run.rhai:2:1
       2 | shift("web", "green", 5);
         | ^^^^^
      help: did you mean `traffic::shift`?
    "#);
}

#[test]
fn a_wrong_number_of_arguments() {
    assert_snapshot!(refused("traffic::shift(\"web\");"), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: `traffic::shift` takes 3 or 4 arguments, not 1
      at run.rhai:2:10
       2 | traffic::shift("web");
         |          ^^^^^
    "#);
}

#[test]
fn a_variable_that_does_not_exist() {
    assert_snapshot!(refused("let pool = \"green\";\nnote(pol);"), @"
    exit 2
    ----- stderr
    error[unknown-variable]: no variable named `pol` here
      at run.rhai:3:6
       3 | note(pol);
         |      ^^^
      help: functions (`fn`) see only their arguments and constants, not outer variables
    ");
}

#[test]
fn every_mistake_is_said_at_once() {
    assert_snapshot!(refused("traffic::shfit(\"web\", \"green\", 5);\nstep(\"a\", || probe::htp(\"web\"));\nnotify::send(\"ops\");"), @r#"
    exit 2
    ----- stderr
    error[unknown-function]: no function named `traffic::shfit`
      at run.rhai:2:10
       2 | traffic::shfit("web", "green", 5);
         |          ^^^^^
      help: did you mean `traffic::shift`?

    error[unknown-function]: no function named `probe::htp`
      at run.rhai:3:21
       3 | step("a", || probe::htp("web"));
         |                     ^^^
      help: did you mean `probe::http`?

    error[unknown-function]: `notify::send` takes 2 or 3 arguments, not 1
      at run.rhai:4:9
       4 | notify::send("ops");
         |         ^^^^
    "#);
}

#[test]
fn a_header_that_is_missing_or_wrong() {
    let lab = Lab::new();
    lab.write("run.rhai", "note(\"x\");\n");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 2
    ----- stderr
    error[header]: the runbook has no header
      at run.rhai:1:1
       1 | note("x");
         | ^^^^
      help: begin it with: const RUNBOOK = #{ name: "…" };
    "#);
    lab.write(
        "run.rhai",
        "const RUNBOOK = #{ name: \"a b\", params: #{ hold: #{ type: \"duration\", \"default\": 15 } } };\n",
    );
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 2
    ----- stderr
    error[header]: `RUNBOOK.name`: "a b" is not a valid name
      at run.rhai:1:1
       1 | const RUNBOOK = #{ name: "a b", params: #{ hold: #{ type: "duration", "default": 15 } } };
         | ^^^^^
      help: use at most 60 letters, digits, - and _: it becomes part of run ids
    "#);
}

#[test]
fn a_target_that_does_not_exist() {
    assert_snapshot!(fails("traffic::shift(\"wbe\", \"green\", 5);"), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ✗ traffic.shift wbe: no traffic target named "wbe" in environment "sandbox"

    failed after [TIME], nothing to undo
    ----- stderr
    error[unknown-target]: no traffic target named "wbe" in environment "sandbox"
      at run.rhai:2:1
       2 | traffic::shift("wbe", "green", 5);
         | ^^^^^^^^^^^^^^
      help: traffic targets here: web
    "#);
    assert_snapshot!(fails("traffic::shift(\"web\", \"gren\", 5);"), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ✗ traffic.shift web: web has no pool named "gren"

    failed after [TIME], nothing to undo
    ----- stderr
    error[unknown-target]: web has no pool named "gren"
      at run.rhai:2:1
       2 | traffic::shift("web", "gren", 5);
         | ^^^^^^^^^^^^^^
      help: did you mean "green"?
    "#);
}

#[test]
fn an_option_that_does_not_exist_or_has_the_wrong_type() {
    assert_snapshot!(refused("traffic::shift(\"web\", \"green\", 5, #{ drian: \"1m\" });"), @r#"
    exit 2
    ----- stderr
    error[argument]: unknown option `drian`, expected `drain` or `timeout`
      at run.rhai:2:38
       2 | traffic::shift("web", "green", 5, #{ drian: "1m" });
         |                                      ^^^^^
      help: did you mean `drain`?
    "#);
    assert_snapshot!(refused("traffic::shift(\"web\", \"green\", 5, #{ drain: 60 });"), @r#"
    exit 2
    ----- stderr
    error[argument]: `drain`: 60 has no unit: expected a duration string such as "90s"
      at run.rhai:2:45
       2 | traffic::shift("web", "green", 5, #{ drain: 60 });
         |                                             ^^
    "#);
    assert_snapshot!(refused("traffic::shift(\"web\", \"green\", \"many\");"), @r#"
    exit 2
    ----- stderr
    error[argument]: `percent`: "many" is not a percentage from 0 to 100, such as "25%" or "0.5%"
      at run.rhai:2:32
       2 | traffic::shift("web", "green", "many");
         |                                ^^^^^^
    "#);
    assert_snapshot!(refused("sleep(90);"), @r#"
    exit 2
    ----- stderr
    error[argument]: `span`: 90 has no unit: expected a duration string such as "90s"
      at run.rhai:2:7
       2 | sleep(90);
         |       ^^
    "#);
    // What only a run can know is refused there.
    assert_snapshot!(fails("let options = #{ drian: \"1m\" }; traffic::shift(\"web\", \"green\", 5, options);"), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]

    failed after [TIME], nothing to undo: unknown option `drian`, expected `drain` or `timeout`
    ----- stderr
    error[argument]: unknown option `drian`, expected `drain` or `timeout`
      at run.rhai:2:33
       2 | let options = #{ drian: "1m" }; traffic::shift("web", "green", 5, options);
         |                                 ^^^^^^^^^^^^^^
      help: did you mean `drain`?
    "#);
}

/// What `check` says about a script.
fn checked(body: &str) -> String {
    let lab = Lab::with(body);
    lab.contraflow(&["check", "run.rhai"]).exits_with(2).stderr
}

#[test]
fn a_check_finds_every_argument_that_cannot_work() {
    for (body, message, place) in [
        (
            "metrics::hold(\"web\", #{ error_rate: \"< 1%\" }, \"5s\", #{ min_sample: 5 });",
            "unknown option `min_sample`",
            "2:56",
        ),
        ("probe::http(\"web/green\", #{ attemps: 5 });", "unknown option `attemps`", "2:29"),
        (
            "on_rollback(|| notify::send(\"ops\", \"x\", #{ severty: \"critical\" }));",
            "unknown option `severty`",
            "2:44",
        ),
        ("step(\"a\", #{ timout: \"5m\" }, || note(\"x\"));", "unknown option `timout`", "2:14"),
        ("sleep(30);", "30 has no unit", "2:7"),
        ("sleep(\"5 minute\");", "bad duration \"5 minute\"", "2:7"),
        ("traffic::shift(\"web\", \"green\", 150);", "150", "2:32"),
        ("traffic::set(\"web\", #{ blue: 50, green: 40 });", "add up to 90%, not to 100%", "2:21"),
        (
            "if false { traffic::shift(\"web\", \"green\", 5, #{ dran: \"1s\" }); }",
            "unknown option `dran`",
            "2:49",
        ),
        ("guard(#{ metric: \"web.error_rate\", abov: \"1%\" }, || 1);", "unknown option `abov`", "2:36"),
        ("probe::http(\"web\", #{ tls: #{ insecre: true } });", "unknown option `insecre`", "2:31"),
    ] {
        let told = checked(body);
        assert!(told.contains(message) && told.contains(&format!("run.rhai:{place}")), "{body}\n{told}");
    }
}

#[test]
fn a_file_that_is_none() {
    let lab = Lab::new();
    assert_snapshot!(lab.contraflow(&["run", "missing.rhai"]), @"
    exit 2
    ----- stderr
    error[import]: cannot read missing.rhai: No such file or directory (os error 2)
    ");
    std::fs::create_dir(lab.path("folder.rhai")).expect("made");
    assert_snapshot!(lab.contraflow(&["run", "folder.rhai"]), @"
    exit 2
    ----- stderr
    error[import]: cannot read folder.rhai: it is a folder
      help: use the .rhai file in it
    ");
    lab.write("latin.rhai", b"const RUNBOOK = #{ name: \"test\" };\nnote(\"gr\xfcn\");\n");
    assert_snapshot!(lab.contraflow(&["run", "latin.rhai"]), @"
    exit 2
    ----- stderr
    error[import]: cannot read latin.rhai: it is not UTF-8 text (byte 43)
    ");
    lab.write(
        "large.rhai",
        format!("const RUNBOOK = #{{ name: \"test\" }};\n{}", "note(\"x\");\n".repeat(100_000)),
    );
    assert_snapshot!(lab.contraflow(&["run", "large.rhai"]), @"
    exit 2
    ----- stderr
    error[import]: cannot read large.rhai: it is larger than 256 KiB
      help: split it with `import`
    ");
    lab.write("empty.rhai", "");
    assert_snapshot!(lab.contraflow(&["run", "empty.rhai"]), @r#"
    exit 2
    ----- stderr
    error[header]: the runbook has no header
      at empty.rhai:1:1
       1 | 
         | ^
      help: begin it with: const RUNBOOK = #{ name: "…" };
    "#);
    for file in ["missing.rhai", "folder.rhai", "latin.rhai", "large.rhai", "empty.rhai"] {
        for command in ["check", "plan"] {
            lab.contraflow(&[command, file]).exits_with(2);
        }
    }
}

#[test]
fn an_import_that_leads_out_of_the_folder() {
    let lab = Lab::new();
    lab.write("outside.rhai", "fn f() { 1 }");
    lab.write("in/run.rhai", "import \"../outside\" as o;\nconst RUNBOOK = #{ name: \"test\" };\no::f();\n");
    assert_snapshot!(lab.contraflow(&["run", "in/run.rhai"]), @r#"
    exit 2
    ----- stderr
    error[import]: "../outside" cannot be imported
      at in/run.rhai:1:1
       1 | import "../outside" as o;
         | ^^^^^^
      help: use a path below the runbook's folder without .rhai, such as "lib/health"
    "#);
    std::os::unix::fs::symlink(lab.path("outside.rhai"), lab.path("in/link.rhai")).expect("a link");
    lab.write("in/run.rhai", "import \"link\" as o;\nconst RUNBOOK = #{ name: \"test\" };\no::f();\n");
    lab.contraflow(&["run", "in/run.rhai"]).exits_with(2).complains("import");
    lab.write("in/run.rhai", "import \"run\" as o;\nconst RUNBOOK = #{ name: \"test\" };\n");
    lab.contraflow(&["run", "in/run.rhai"]).exits_with(2).complains("import");
}

/// Runs with a configuration that is wrong.
fn config(text: &str) -> Ended {
    let lab = Lab::with("note(\"x\");");
    lab.write("contraflow.toml", text);
    let ended = lab.contraflow(&["run", "run.rhai", "--env", "staging"]).exits_with(2);
    assert!(!lab.path("state").exists(), "{ended}");
    ended
}

#[test]
fn a_configuration_that_is_wrong() {
    assert_snapshot!(config("[env.staging.trafic.web]\nprovider = \"haproxy\"\n"), @"
    exit 2
    ----- stderr
    error[config]: unknown key `trafic`
      at [DIR]/contraflow.toml:1:14
       1 | [env.staging.trafic.web]
         |              ^^^^^^^^^^
      help: did you mean `traffic`?
    ");
    assert_snapshot!(config("[env.staging.notify.ops]\nprovider = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\nmethd = \"POST\"\n"), @r#"
    exit 2
    ----- stderr
    error[config]: unknown key `methd`
      at [DIR]/contraflow.toml:4:1
       4 | methd = "POST"
         | ^^^^^
      help: did you mean `method`?
    "#);
    assert_snapshot!(config("[env.staging.notify.ops]\nprovider = \"carrier-pigeon\"\n"), @r#"
    exit 2
    ----- stderr
    error[config]: no notify provider named "carrier-pigeon"
      at [DIR]/contraflow.toml:2:12
       2 | provider = "carrier-pigeon"
         |            ^^^^^^^^^^^^^^^^
      help: notify providers: console, slack, webhook
    "#);
    assert_snapshot!(config("[env.staging\n"), @"
    exit 2
    ----- stderr
    error[config]: not valid TOML: unclosed table, expected `]`
      at [DIR]/contraflow.toml:1:13
       1 | [env.staging
         |             ^
    ");
    assert_snapshot!(config("[env.production]\n"), @r#"
    exit 2
    ----- stderr
    error[config]: no environment "staging" in [DIR]/contraflow.toml
      help: environments: production, sandbox
    "#);
    assert_snapshot!(config("[limits]\nmax_memory = \"lots\"\n[env.staging]\n"), @r#"
    exit 2
    ----- stderr
    error[config]: `max_memory`: bad size "lots": expected a number with B, KiB, MiB or GiB, such as "1MiB"
      at [DIR]/contraflow.toml:2:14
       2 | max_memory = "lots"
         |              ^^^^^^
    "#);
}

#[test]
fn a_protected_environment() {
    assert_snapshot!(config("[env.staging]\nprotected = true\n"), @r#"
    exit 2
    ----- stderr
    error[denied-by-policy]: the environment "staging" is protected: it runs only saved plans
      at [DIR]/contraflow.toml:2:1
       2 | protected = true
         | ^^^^^^^^^
      help: plan it: contraflow plan run.rhai --env staging --save PLAN
      help: then run it: contraflow run --plan PLAN
    "#);
}

#[test]
fn faults_that_are_none() {
    let lab = Lab::with("note(\"x\");");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--fault", "green.eror_rate=30%"]), @r#"
    exit 2
    ----- stderr
    error[argument]: --fault green.eror_rate=30%: bad fault "green.eror_rate=30%": green has no fault "eror_rate", did you mean "error_rate"?
    "#);
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--env", "nowhere"]), @r#"
    exit 2
    ----- stderr
    error[config]: no environment "nowhere": no contraflow.toml was found in this folder or a parent folder
      help: environments: sandbox
    "#);
}
