//! A database of the test's own, in a file.

use insta::assert_snapshot;

use crate::harness::Lab;

fn lab() -> Lab {
    let lab = Lab::with(r#"db::migrate("main");"#);
    lab.write(
        "contraflow.toml",
        "default_env = \"test\"\n[env.test.db.main]\nprovider = \"sqlite\"\npath = \"main.db\"\nmigrations = \"migrations\"\n",
    );
    lab.write("migrations/0001_users.up.sql", "CREATE TABLE users (id INTEGER PRIMARY KEY);\n");
    lab.write("migrations/0001_users.down.sql", "DROP TABLE users;\n");
    lab.write("migrations/0002_orders.up.sql", "CREATE TABLE orders (id INTEGER PRIMARY KEY);\n");
    lab.write("migrations/0002_orders.down.sql", "DROP TABLE orders;\n");
    lab
}

fn applied(lab: &Lab) -> String {
    lab.runbook(r#"note("applied: " + db::status("main").applied);"#);
    let ended = lab.contraflow(&["run", "run.rhai", "--output", "json"]).succeeded();
    ended.events("note")[0]["text"].as_str().expect("a text").to_owned()
}

#[test]
fn migrations_that_succeed_stay() {
    let lab = lab();
    lab.contraflow(&["plan", "run.rhai"]).succeeded();
    assert!(!lab.path("main.db").exists(), "a plan does not make the file");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @"
    exit 0
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ✓ db.migrations main: 2 files, latest 0002_orders
    ~ db.migrate main: no migrations -> 0001, 0002

    succeeded in [TIME]: 1 change
    ");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @"
    exit 0
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ✓ db.migrations main: 2 files, latest 0002_orders
    = db.migrate main: 0001, 0002 (unchanged)

    succeeded in [TIME]: no changes
    ");
}

#[test]
fn one_that_fails_halfway_is_named_with_its_line_and_the_ones_before_it_are_undone() {
    let lab = lab();
    lab.write(
        "migrations/0003_broken.up.sql",
        "CREATE TABLE a (id INTEGER);\n\nINSERT INTO nowhere VALUES (1);\n",
    );
    lab.write("migrations/0003_broken.down.sql", "DROP TABLE a;\n");
    // A plan finds it without touching the database.
    assert_snapshot!(lab.contraflow(&["plan", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    Plan of test 0 in test

    ✓ db.migrations main: 3 files, latest 0003_broken  observed
    ✗ db.migrate main: 0003_broken.up.sql line 3: no such table: nowhere

    Plan stopped. No changes planned so far.
    ----- stderr
    error[migration]: 0003_broken.up.sql line 3: no such table: nowhere
      at run.rhai:2:1
       2 | db::migrate("main");
         | ^^^^^^^^^^^
    "#);
    assert!(!lab.path("main.db").exists());
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 3
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ✓ db.migrations main: 3 files, latest 0003_broken
    ✗ db.migrate main: 0003_broken.up.sql line 3: no such table: nowhere; applied now: 0001, 0002

    ↩ rolling back, 1 to undo
      ~ db.migrate main: 0001, 0002 -> no migrations

    rolled back after [TIME], 1 undone
    ----- stderr
    error[migration]: 0003_broken.up.sql line 3: no such table: nowhere; applied now: 0001, 0002
      at run.rhai:2:1
       2 | db::migrate("main");
         | ^^^^^^^^^^^
    "#);
    assert_eq!(applied(&lab), "applied: []");
}

#[test]
fn one_that_fails_halfway_leaves_the_ones_before_it_where_the_script_goes_on() {
    let lab = lab();
    lab.write("migrations/0003_broken.up.sql", "INSERT INTO nowhere VALUES (1);\n");
    lab.runbook(
        r#"try { db::migrate("main"); } catch (e) { note(e.message); }
        note("applied: " + db::status("main").applied);"#,
    );
    let ended = lab.contraflow(&["run", "run.rhai", "--output", "json"]).succeeded();
    let notes = ended.events("note");
    let text = |at: usize| notes[at]["text"].as_str().expect("a text");
    assert!(text(0).contains("0003_broken.up.sql line 1"), "{}", text(0));
    assert_eq!(text(1), "applied: [\"0001_users\", \"0002_orders\"]");
}

#[test]
fn without_a_way_back_the_rollback_is_incomplete_and_says_what_is_left() {
    let lab = lab();
    std::fs::remove_file(lab.path("migrations/0002_orders.down.sql")).expect("it was there");
    lab.runbook(r#"db::migrate("main"); fail("something else went wrong");"#);
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 4
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ✓ db.migrations main: 2 files, latest 0002_orders
    ~ db.migrate main: no migrations -> 0001, 0002
      ! point of no return: 0002_orders has no down file

    ↩ rolling back, 1 to undo: something else went wrong

    rollback incomplete after [TIME], 1 left to undo by hand
      1. db.migrate db/main: no migrations -> 0001, 0002 (2:db.migrate)
         by hand: it cannot be undone: decide what to do about db/main
         why: 0002_orders has no down file
    ----- stderr
    error[failed]: something else went wrong
      at run.rhai:2:22
       2 | db::migrate("main"); fail("something else went wrong");
         |                      ^^^^
    "#);
    assert_eq!(applied(&lab), "applied: [\"0001_users\", \"0002_orders\"]");
}
