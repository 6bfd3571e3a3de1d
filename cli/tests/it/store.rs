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
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--state-dir", "taken"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: taken: File exists (os error 17)
      help: make it writable for this user, or choose another folder with --state-dir
    ");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--state-dir", "taken/below"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: taken/below: Not a directory (os error 20)
      help: make it writable for this user, or choose another folder with --state-dir
    ");
    assert_eq!(fs::metadata(file).expect("still there").len(), 0);
    lab.contraflow(&["runs", "--state-dir", "taken"]).exits_with(1).complains("journal");
}

#[test]
fn a_damaged_store_is_named_and_left_alone() {
    let lab = Lab::with(SHIFT);
    let store = lab.write("state/contraflow/contraflow.db", "this is no database at all, ".repeat(200));
    let before = fs::read(&store).expect("there");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: [DIR]/state/contraflow/contraflow.db: file is not a database
      help: the file is damaged: restore it from a backup, or move it away and start with an empty store
    ");
    for args in [&["runs"][..], &["show", "last"], &["verify", "last"]] {
        let ended = lab.contraflow(args).exits_with(1).complains("journal");
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
    let store = lab.state().join("contraflow.db");
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
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let store = folded(&lab);
    let good = fs::read(&store).expect("a store");

    alter(&store, "\"all is well\"", "\"all is lost\"");
    assert_snapshot!(lab.contraflow(&["verify", "last"]), @"
    exit 1
    ----- stderr
    error[journal]: test-[ID]: record 1: its hash does not match its content and the records before it
      help: the store was altered: compare it with a backup
    ");

    folded(&lab);
    fs::write(&store, &good).expect("restored");
    lab.contraflow(&["verify", "last"]).succeeded();
    alter(&store, "as reviewed", "as reworked");
    assert_snapshot!(lab.contraflow(&["verify", "last"]), @"
    exit 1
    ----- stderr
    error[journal]: test-[ID]: the stored scripts differ from the ones that ran
      help: the store was altered: compare it with a backup
    ");
}

#[test]
fn a_store_that_was_cut_off_is_an_error_and_no_crash() {
    let lab = Lab::with("for i in 0..200 { note(\"line \" + i); }");
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let store = folded(&lab);
    let good = fs::read(&store).expect("a store");
    for length in [0, 10, 100, 1000, 5000, good.len() / 2, good.len() - 1] {
        for log in ["contraflow.db-wal", "contraflow.db-shm"] {
            let _ = fs::remove_file(lab.state().join(log));
        }
        fs::write(&store, &good[..length]).expect("cut");
        for args in [&["runs"][..], &["show", "last"], &["show", "last", "--records"], &["verify", "last"]] {
            let ended = lab.contraflow(args);
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
    let running: Vec<_> = (0..3).map(|_| lab.begin()).collect();
    for run in running {
        run.wait().succeeded();
    }
    let runs = lab.runs();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert_eq!(run["state"], "succeeded");
        lab.contraflow(&["verify", run["run"].as_str().expect("an id")]).succeeded();
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
    let ended = lab.contraflow(&["run", "run.rhai", "--output", "json", "--state-dir", "small"]);
    let ended = ended.exits_with(5).complains("journal").says("free some space on that disk");
    // Nothing is changed that cannot be written down.
    let changes = ended.changes().len();
    assert!(changes > 2 && ended.events("applying").len() == changes, "{ended}");
    // What was written is enough to go on with, on a disk with more room.
    for file in crate::harness::names(&lab.path("small")) {
        fs::create_dir_all(lab.path("large")).expect("a folder");
        fs::copy(lab.path("small").join(&file), lab.path("large").join(&file)).expect("a copy");
    }
    drop(small);
    let back = lab.contraflow(&["rollback", "last", "--state-dir", "large", "--output", "json"]).succeeded();
    assert_eq!(back.events("run_ended")[0]["outcome"], "rolled_back");
    lab.contraflow(&["verify", "last", "--state-dir", "large"]).succeeded();
}

#[test]
fn a_store_is_made_looked_at_and_freed_of_old_runs() {
    let lab = Lab::with(SHIFT);
    assert_snapshot!(lab.contraflow(&["store", "check"]), @"
    exit 0
    ----- stdout
    ok: no damage found in [DIR]/state/contraflow (0 runs, 0 records)
    ");
    assert_snapshot!(lab.contraflow(&["store", "prune", "--older-than", "1s"]), @"
    exit 0
    ----- stdout
    ok: 0 runs removed from [DIR]/state/contraflow
    ");
    assert!(!lab.state().exists(), "looking makes nothing");
    assert_snapshot!(lab.contraflow(&["store", "migrate"]), @"
    exit 0
    ----- stdout
    ok: created [DIR]/state/contraflow/contraflow.db
    ");
    assert_snapshot!(lab.contraflow(&["store", "migrate"]), @"
    exit 0
    ----- stdout
    ok: [DIR]/state/contraflow/contraflow.db is up to date
    ");
    let made = lab.contraflow(&["store", "migrate", "--output", "json", "--state-dir", "other"]);
    assert_eq!(made.json()[0]["created"], true);

    lab.contraflow(&["run", "run.rhai"]).succeeded();
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let checked = lab.contraflow(&["store", "check", "--output", "json"]).succeeded().json().remove(0);
    assert_eq!(
        (&checked["ok"], &checked["runs"], &checked["found"]),
        (&true.into(), &2.into(), &serde_json::json!([]))
    );
    assert!(checked["records"].as_u64().is_some_and(|n| n >= 6), "{checked}");

    assert_snapshot!(lab.contraflow(&["store", "prune", "--older-than", "1h", "--dry-run"]), @"
    exit 0
    ----- stdout
    nothing would be removed
    ");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let listed = lab.contraflow(&["store", "prune", "--older-than", "1s", "--dry-run"]).succeeded();
    assert!(
        listed.stdout.ends_with(
            "
2 runs would be removed
"
        ),
        "{listed}"
    );
    let rows = lab.contraflow(&["store", "prune", "--older-than", "1s", "--dry-run", "--output", "json"]);
    assert_eq!(rows.succeeded().stdout.matches("\"state\":\"succeeded\"").count(), 2);
    assert_eq!(lab.runs().len(), 2);
    let removed = lab
        .contraflow(&["store", "prune", "--older-than", "1s", "--output", "json"])
        .succeeded()
        .json()
        .remove(0);
    assert_eq!(removed["removed"], 2);
    assert_eq!(lab.runs().len(), 0);
    lab.contraflow(&["store", "prune", "--older-than", "99999999d"]).succeeded();
}

#[test]
fn damage_in_a_store_is_listed() {
    let lab = Lab::with("note(\"all is well\"); // as reviewed");
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let store = folded(&lab);
    alter(&store, "\"all is well\"", "\"all is lost\"");
    alter(&store, "as reviewed", "as reworked");
    assert_snapshot!(lab.contraflow(&["store", "check"]), @"
    exit 1
    ----- stdout
    damaged: test-[ID]: record 1: its hash does not match its content and the records before it
    damaged: test-[ID]: the stored scripts differ from the ones that ran
    [DIR]/state/contraflow is damaged: compare it with a backup
    ");
    let found = lab.contraflow(&["store", "check", "--output", "json"]).exits_with(1).json().remove(0);
    assert_eq!((&found["ok"], found["found"].as_array().map(Vec::len)), (&false.into(), Some(2)));
}

#[test]
fn the_store_of_the_command_line_counts_more_than_that_of_the_configuration() {
    let lab = Lab::with(SHIFT);
    lab.write("contraflow.toml", "store = \"from-file\"\nstate_dir = \"nowhere\"");
    let run = |args: &[&str], variable: &str| {
        let mut all = vec!["run", "run.rhai"];
        all.extend(args);
        lab.end(lab.command(&all).env("CONTRAFLOW_STORE", variable)).succeeded();
    };
    run(&["--state-dir", "nowhere"], "");
    assert!(lab.path("from-file/contraflow.db").exists());
    run(&[], "from-variable");
    assert!(lab.path("from-variable/contraflow.db").exists());
    run(&["--store", "from-option"], "from-variable");
    assert!(lab.path("from-option/contraflow.db").exists());
    assert!(!lab.path("nowhere").exists());
    let runs = lab.contraflow(&["runs", "--store", "from-option", "--output", "json"]).succeeded();
    assert_eq!(runs.stdout.lines().count(), 1);
}

#[test]
fn a_store_that_is_none_is_refused_without_its_password() {
    let lab = Lab::with(SHIFT);
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--store", "mysql://ann:s3cret@db/contraflow"]), @r#"
    exit 2
    ----- stderr
    error[journal]: unknown kind of store "mysql"
      help: use a folder, or a database: postgres://USER@HOST/DATABASE
    "#);
    assert_snapshot!(lab.contraflow(&["runs", "--store", "postgres://ann:s3cret/1@db/contraflow"]), @"
    exit 2
    ----- stderr
    error[journal]: the journal cannot be used: the URL of the run store: a password with one of / ? # @ must have it percent-encoded: %2F %3F %23 %40
      help: expected postgres://user@host:5432/database?sslmode=verify-full
    ");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai", "--store", "postgres://ann:s3cret@127.0.0.1:1/contraflow"]), @"
    exit 1
    ----- stderr
    error[journal]: the journal cannot be used: postgres://127.0.0.1:[PORT]/contraflow: Connection refused (os error 111)
      help: check that PostgreSQL runs there and is reachable from here
    ");
    lab.write("contraflow.toml", "store = { env = \"STORE_URL\" }");
    assert_snapshot!(lab.contraflow(&["runs"]), @r#"
    exit 2
    ----- stderr
    error[config]: `store`: the environment variable STORE_URL is not set
      at [DIR]/contraflow.toml:1:1
       1 | store = { env = "STORE_URL" }
         | ^^^^^
      help: set STORE_URL where contraflow is started, or set `store` another way
    "#);
    // What needs no store does not ask where it is.
    lab.contraflow(&["check", "run.rhai"]).succeeded();
    lab.contraflow(&["plan", "run.rhai"]).succeeded();
    let help =
        lab.end(lab.command(&["--help"]).env("CONTRAFLOW_STORE", "postgres://ann:s3cret@db/contraflow"));
    assert!(help.stdout.contains("CONTRAFLOW_STORE") && !help.stdout.contains("s3cret"), "{help}");
}
