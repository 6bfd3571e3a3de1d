//! Commands of the machine, allowed by the configuration.

use crate::lab::{contraflow::Contraflow, installed};

const SCRIPT: &str = r#"const RUNBOOK = #{ name: "commands" };
let looked = exec::run(["tee", "looked"], #{ read_only: true, stdin: "seen" });
if looked.stdout != "seen" { fail("it was not run") }
exec::run(["touch", "changed"]);
"#;

#[test]
fn a_plan_runs_a_command_that_only_looks_and_no_other() {
    if !installed(&["tee", "touch"]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let contraflow = Contraflow::new(folder.path())
        .set("CONTRAFLOW__ENV__STAGING__EXEC__ALLOW", r#"["tee looked", "touch changed"]"#);
    contraflow.write("commands.rhai", SCRIPT);
    let there = |name: &str| folder.path().join(name).exists();

    contraflow.run(&["plan", "commands.rhai"]).exits(0).says(&["touch changed"]);
    assert!(there("looked") && !there("changed"));
    std::fs::remove_file(folder.path().join("looked")).expect("removed");
    contraflow.run(&["run", "commands.rhai"]).exits(0);
    assert!(there("looked") && there("changed"));
}

#[test]
fn a_command_that_the_configuration_does_not_allow_is_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let contraflow = Contraflow::new(folder.path());
    contraflow.write("commands.rhai", SCRIPT);
    let done = contraflow.run(&["run", "commands.rhai"]).exits(1);
    done.says(&["exec", "tee", "commands.rhai"]);
    assert!(!folder.path().join("looked").exists());
}
