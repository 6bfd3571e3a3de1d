//! The example of a program that embeds Contraflow does what the book says, in as few lines.

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use serde_json::Value;

    /// `cargo test` builds the examples before it runs a test; asked for this test alone, it does not.
    fn program() -> PathBuf {
        let here = std::env::current_exe().expect("a path");
        let folder = here.parent().and_then(|deps| deps.parent()).expect("the build's folder");
        let program = folder.join("examples").join("embed");
        assert!(program.exists(), "cargo build -p contraflow-stdlib --example embed");
        program
    }

    #[test]
    fn it_changes_both_targets_and_hears_what_happens() {
        let done = Command::new(program()).output().expect("it starts");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{out}{err}");
        let events: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let changed: Vec<&str> = events
            .iter()
            .filter(|event| event["result"] == "changed")
            .filter_map(|event| event["id"].as_str())
            .collect();
        assert_eq!(changed, ["traffic/1:traffic.shift", "flag/1:flag.set"]);
        let last = events.last().expect("an event");
        assert_eq!((&last["outcome"], &last["changes"]), (&"succeeded".into(), &2.into()));
    }

    #[test]
    fn it_is_short() {
        let lines = include_str!("../examples/embed.rs").lines().count();
        assert!(lines < 70, "{lines}");
    }
}
