//! Scripts and configurations that are wrong: said before anything happens, with the place.

use insta::assert_snapshot;

use crate::harness::{Ended, Lab};

/// Runs a script and sees that it was refused before a run began.
fn refused(body: &str) -> Ended {
    let lab = Lab::with(body);
    let ended = lab.cutover(&["run", "run.rhai"]).exits_with(2);
    assert!(!lab.path("state").exists() && ended.stdout.is_empty(), "{ended}");
    ended
}

/// Runs a script that fails.
fn fails(body: &str) -> Ended {
    let lab = Lab::with(body);
    lab.cutover(&["run", "run.rhai"]).exits_with(1)
}

#[test]
fn a_script_that_does_not_parse() {
    assert_snapshot!(refused("step(\"look\", || {\n    probe::http(\"web\");\n);"), @"");
    assert_snapshot!(refused("let x = \"never closed;"), @"");
}

#[test]
fn a_function_that_does_not_exist() {
    assert_snapshot!(refused("trafic::shift(\"web\", \"green\", 5);"), @"");
    assert_snapshot!(refused("traffic::shfit(\"web\", \"green\", 5);"), @"");
    assert_snapshot!(refused("shift(\"web\", \"green\", 5);"), @"");
}

#[test]
fn a_wrong_number_of_arguments() {
    assert_snapshot!(refused("traffic::shift(\"web\");"), @"");
}

#[test]
fn a_variable_that_does_not_exist() {
    assert_snapshot!(refused("let pool = \"green\";\nnote(pol);"), @"");
}

#[test]
fn every_mistake_is_said_at_once() {
    assert_snapshot!(refused("trafic::shift(\"web\", \"green\", 5);\nstep(\"a\", || porbe::http(\"web\"));"), @"");
}

#[test]
fn a_header_that_is_missing_or_wrong() {
    let lab = Lab::new();
    lab.write("run.rhai", "note(\"x\");\n");
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
    lab.write(
        "run.rhai",
        "const RUNBOOK = #{ name: \"a b\", params: #{ hold: #{ type: \"duration\", \"default\": 15 } } };\n",
    );
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
}

#[test]
fn a_target_that_does_not_exist() {
    assert_snapshot!(fails("traffic::shift(\"wbe\", \"green\", 5);"), @"");
    assert_snapshot!(fails("traffic::shift(\"web\", \"gren\", 5);"), @"");
}

#[test]
fn an_option_that_does_not_exist_or_has_the_wrong_type() {
    assert_snapshot!(fails("traffic::shift(\"web\", \"green\", 5, #{ drian: \"1m\" });"), @"");
    assert_snapshot!(fails("traffic::shift(\"web\", \"green\", 5, #{ drain: 60 });"), @"");
    assert_snapshot!(fails("traffic::shift(\"web\", \"green\", \"many\");"), @"");
    assert_snapshot!(fails("sleep(90);"), @"");
}

#[test]
fn a_file_that_is_none() {
    let lab = Lab::new();
    assert_snapshot!(lab.cutover(&["run", "missing.rhai"]), @"");
    std::fs::create_dir(lab.path("folder.rhai")).expect("made");
    assert_snapshot!(lab.cutover(&["run", "folder.rhai"]), @"");
    lab.write("latin.rhai", b"const RUNBOOK = #{ name: \"test\" };\nnote(\"gr\xfcn\");\n");
    assert_snapshot!(lab.cutover(&["run", "latin.rhai"]), @"");
    lab.write(
        "large.rhai",
        format!("const RUNBOOK = #{{ name: \"test\" }};\n{}", "note(\"x\");\n".repeat(100_000)),
    );
    assert_snapshot!(lab.cutover(&["run", "large.rhai"]), @"");
    lab.write("empty.rhai", "");
    assert_snapshot!(lab.cutover(&["run", "empty.rhai"]), @"");
    for file in ["missing.rhai", "folder.rhai", "latin.rhai", "large.rhai", "empty.rhai"] {
        for command in ["check", "plan"] {
            lab.cutover(&[command, file]).exits_with(2);
        }
    }
}

#[test]
fn an_import_that_leads_out_of_the_folder() {
    let lab = Lab::new();
    lab.write("outside.rhai", "fn f() { 1 }");
    lab.write("in/run.rhai", "import \"../outside\" as o;\nconst RUNBOOK = #{ name: \"test\" };\no::f();\n");
    assert_snapshot!(lab.cutover(&["run", "in/run.rhai"]), @"");
    std::os::unix::fs::symlink(lab.path("outside.rhai"), lab.path("in/link.rhai")).expect("a link");
    lab.write("in/run.rhai", "import \"link\" as o;\nconst RUNBOOK = #{ name: \"test\" };\no::f();\n");
    lab.cutover(&["run", "in/run.rhai"]).exits_with(2).complains("error[import]");
    lab.write("in/run.rhai", "import \"run\" as o;\nconst RUNBOOK = #{ name: \"test\" };\n");
    lab.cutover(&["run", "in/run.rhai"]).exits_with(2).complains("error[import]");
}

/// Runs with a configuration that is wrong.
fn config(text: &str) -> Ended {
    let lab = Lab::with("note(\"x\");");
    lab.write("cutover.toml", text);
    let ended = lab.cutover(&["run", "run.rhai", "--env", "staging"]).exits_with(2);
    assert!(!lab.path("state").exists(), "{ended}");
    ended
}

#[test]
fn a_configuration_that_is_wrong() {
    assert_snapshot!(config("[env.staging.trafic.web]\nprovider = \"haproxy\"\n"), @"");
    assert_snapshot!(config("[env.staging.notify.ops]\nprovider = \"webhook\"\nurl = \"http://127.0.0.1:1/\"\nmethd = \"POST\"\n"), @"");
    assert_snapshot!(config("[env.staging.notify.ops]\nprovider = \"carrier-pigeon\"\n"), @"");
    assert_snapshot!(config("[env.staging\n"), @"");
    assert_snapshot!(config("[env.production]\n"), @"");
    assert_snapshot!(config("[limits]\nmax_memory = \"lots\"\n[env.staging]\n"), @"");
}

#[test]
fn a_protected_environment() {
    assert_snapshot!(config("[env.staging]\nprotected = true\n"), @"");
}

#[test]
fn faults_that_are_none() {
    let lab = Lab::with("note(\"x\");");
    assert_snapshot!(lab.cutover(&["run", "run.rhai", "--fault", "green.eror_rate=30%"]), @"");
    assert_snapshot!(lab.cutover(&["run", "run.rhai", "--env", "nowhere"]), @"");
}
