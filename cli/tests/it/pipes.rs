//! Whoever reads what a run says may be slow, gone or asleep, and the disk may be full: the run is not about that.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Instant,
};

use crate::harness::{Lab, await_end};

/// Enough to fill every pipe.
const TALKS: &str = r#"
    let text = ""; text.pad(1000, 'x');
    for i in 0..300 { note(text); }
    traffic::shift("web", "green", 5);
"#;

#[test]
fn a_log_whose_reader_goes_away_never_ends_a_run() {
    for verbose in ["-v", "-vv", "-vvv"] {
        for lines in [0, 1, 4] {
            let lab = Lab::with(r#"db::backup("main"); traffic::shift("web", "green", 5);"#);
            let mut command = lab.command(&["run", "run.rhai", verbose]);
            let begun = Instant::now();
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("is started");
            let reader = BufReader::new(child.stderr.take().expect("a pipe"));
            assert!(reader.lines().take(lines).all(|line| line.is_ok()));
            assert_eq!(await_end(&mut child, begun).0, 0, "{verbose}, {lines} lines");
            assert_eq!(lab.runs()[0]["state"], "succeeded", "{verbose}, {lines} lines");
        }
    }
}

#[test]
fn a_reader_that_takes_nothing_never_holds_up_a_run() {
    for (args, is_stdout) in [
        (&["run", "run.rhai", "-vvv"][..], false),
        (&["run", "run.rhai"][..], true),
        (&["run", "run.rhai", "--output", "json"][..], true),
    ] {
        let lab = Lab::with(TALKS);
        let mut command = lab.command(args);
        command.env("RUST_LOG", "trace").stdout(Stdio::null()).stderr(Stdio::null());
        if is_stdout {
            command.env_remove("RUST_LOG").stdout(Stdio::piped());
        } else {
            command.stderr(Stdio::piped());
        }
        let begun = Instant::now();
        let mut child = command.spawn().expect("is started");
        // Both pipes stay open and nobody reads.
        assert_eq!(await_end(&mut child, begun).0, 0, "{args:?}");
        assert_eq!(lab.runs()[0]["state"], "succeeded", "{args:?}");
    }
}

#[test]
fn a_full_disk_loses_what_a_run_says_and_nothing_else() {
    let full = || File::options().write(true).open("/dev/full").expect("a full disk");
    for args in [&["run", "run.rhai", "-vvv"][..], &["run", "run.rhai", "-vvv", "--output", "json"][..]] {
        let lab = Lab::with(TALKS);
        let begun = Instant::now();
        let mut child = lab.command(args).stdout(full()).stderr(full()).spawn().expect("is started");
        assert_eq!(await_end(&mut child, begun).0, 0, "{args:?}");
        assert_eq!(lab.runs()[0]["state"], "succeeded", "{args:?}");
    }
}
