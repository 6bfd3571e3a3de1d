//! The state directory, where all is not well with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use insta::assert_snapshot;

use crate::harness::Lab;

const SHIFT: &str = r#"traffic::shift("web", "green", 5);"#;

#[test]
fn a_state_directory_that_cannot_be_made_is_refused_before_anything_happens() {
    let lab = Lab::with(SHIFT);
    let file = lab.write("taken", "");
    assert_snapshot!(lab.cutover(&["run", "run.rhai", "--state-dir", "taken"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: taken: File exists (os error 17)
      help: make it writable for this user, or choose another place with --state-dir
    ");
    assert_snapshot!(lab.cutover(&["run", "run.rhai", "--state-dir", "taken/below"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: taken/below: Not a directory (os error 20)
      help: make it writable for this user, or choose another place with --state-dir
    ");
    assert_eq!(fs::metadata(file).expect("still there").len(), 0);
    lab.cutover(&["runs", "--state-dir", "taken"]).exits_with(1).complains("journal");
}

#[test]
fn a_damaged_store_is_named_and_left_alone() {
    let lab = Lab::with(SHIFT);
    let store = lab.write("state/cutover/cutover.db", "this is no database at all, ".repeat(200));
    let before = fs::read(&store).expect("there");
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: [DIR]/state/cutover/cutover.db: file is not a database
      help: the file is damaged: restore it from a backup, or move it away and start with an empty store
    ");
    for args in [&["runs"][..], &["show", "last"], &["verify", "last"]] {
        let ended = lab.cutover(args).exits_with(1).complains("journal");
        assert_eq!(ended.stdout, "");
    }
    assert_eq!(fs::read(&store).expect("there"), before);
}

/// Replaces text in the store's file by as much other text.
fn alter(store: &Path, find: &str, with: &str) {
    assert_eq!(find.len(), with.len());
    let mut bytes = fs::read(store).expect("a store");
    let mut found = 0;
    for at in 0..bytes.len() - find.len() {
        if bytes[at..].starts_with(find.as_bytes()) {
            bytes[at..at + find.len()].copy_from_slice(with.as_bytes());
            found += 1;
        }
    }
    assert!(found > 0, "{find} is not in the store");
    fs::write(store, bytes).expect("written");
}

/// Folds the log of a store into its one file and answers that.
fn folded(lab: &Lab) -> PathBuf {
    let store = lab.state().join("cutover.db");
    let tokio = tokio::runtime::Runtime::new().expect("a runtime");
    tokio.block_on(async {
        use sqlx::Connection as _;
        let url = format!("sqlite:{}", store.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("a store");
        sqlx::raw_sql("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.expect("folded");
        connection.close().await.expect("closed");
    });
    store
}

#[test]
fn a_record_or_a_script_that_was_altered_is_found() {
    let lab = Lab::with("note(\"all is well\"); // as reviewed");
    lab.cutover(&["run", "run.rhai"]).succeeded();
    let store = folded(&lab);
    let good = fs::read(&store).expect("a store");

    alter(&store, "\"all is well\"", "\"all is lost\"");
    assert_snapshot!(lab.cutover(&["verify", "last"]), @"
    exit 1
    ----- stderr
    error[journal]: test-[ID]: record 1: its hash does not match its content and the records before it
      help: somebody or something changed the store: compare it with a backup
    ");

    folded(&lab);
    fs::write(&store, &good).expect("restored");
    lab.cutover(&["verify", "last"]).succeeded();
    alter(&store, "as reviewed", "as reworked");
    assert_snapshot!(lab.cutover(&["verify", "last"]), @"
    exit 1
    ----- stderr
    error[journal]: test-[ID]: its scripts are not the ones that were run
      help: somebody or something changed the store: compare it with a backup
    ");
}

#[test]
fn a_store_that_was_cut_off_is_an_error_and_no_crash() {
    let lab = Lab::with("for i in 0..200 { note(\"line \" + i); }");
    lab.cutover(&["run", "run.rhai"]).succeeded();
    let store = folded(&lab);
    let good = fs::read(&store).expect("a store");
    for length in [0, 10, 100, 1000, 5000, good.len() / 2, good.len() - 1] {
        for log in ["cutover.db-wal", "cutover.db-shm"] {
            let _ = fs::remove_file(lab.state().join(log));
        }
        fs::write(&store, &good[..length]).expect("cut");
        for args in [&["runs"][..], &["show", "last"], &["show", "last", "--records"], &["verify", "last"]] {
            let ended = lab.cutover(args);
            assert!([0, 1].contains(&ended.code), "{length} {args:?}: {ended}");
            assert!(!ended.stderr.contains("panicked"), "{length} {args:?}: {ended}");
            assert!(args[0] != "verify" || ended.code == 1, "{length}: {ended}");
        }
    }
}

#[test]
fn two_runs_at_once_share_a_state_directory() {
    let lab =
        Lab::with(r#"for i in 1..20 { traffic::shift("web", "green", i); sleep("20ms"); note("n" + i); }"#);
    let running: Vec<_> =
        (0..3).map(|_| lab.start(&mut lab.command(&["run", "run.rhai", "--output", "json"]))).collect();
    for run in running {
        run.wait().succeeded();
    }
    let runs = lab.runs();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert_eq!(run["state"], "succeeded");
        lab.cutover(&["verify", run["run"].as_str().expect("an id")]).succeeded();
    }
}

/// A file system of its own, small. Unmounted at the end.
struct Small(PathBuf);

impl Small {
    #[expect(clippy::print_stdout, reason = "says why a test did not run")]
    fn at(path: PathBuf) -> Option<Self> {
        fs::create_dir(&path).expect("a folder");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path)),
            Ok(output) => {
                println!("skipped: cannot mount: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: cannot mount: {error}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_the_run_before_the_next_change_and_with_space_it_goes_on() {
    let lab = Lab::with(
        r#"
        let text = "";
        for i in 0..1000 { text += "0123456789"; }
        traffic::shift("web", "green", 5);
        for i in 0..1000 { note(text); if i % 10 == 0 { traffic::shift("web", "green", i / 10 + 6); } }
        "#,
    );
    let Some(small) = Small::at(lab.path("small")) else { return };
    let ended = lab.cutover(&["run", "run.rhai", "--output", "json", "--state-dir", "small"]);
    let ended = ended.exits_with(5).complains("journal").says("free some space on that disk");
    // Nothing is changed that cannot be written down.
    let changes = ended.changes().len();
    assert!(changes > 2 && ended.events("applying").len() == changes, "{ended}");
    lab.cutover(&["verify", "last", "--state-dir", "small"]).succeeded();
    // What was written is enough to go on with, on a disk with more room.
    for file in crate::harness::names(&lab.path("small")) {
        fs::create_dir_all(lab.path("large")).expect("a folder");
        fs::copy(lab.path("small").join(&file), lab.path("large").join(&file)).expect("a copy");
    }
    drop(small);
    let back = lab.cutover(&["rollback", "last", "--state-dir", "large", "--output", "json"]).succeeded();
    assert_eq!(back.events("run_ended")[0]["outcome"], "rolled_back");
    lab.cutover(&["verify", "last", "--state-dir", "large"]).succeeded();
}
