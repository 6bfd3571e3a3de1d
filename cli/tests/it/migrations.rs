//! A database of the test's own, in a file.

use insta::assert_snapshot;

use crate::harness::Lab;

fn lab() -> Lab {
    let lab = Lab::with(r#"db::migrate("main");"#);
    lab.write(
        "cutover.toml",
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
    let ended = lab.cutover(&["run", "run.rhai", "--output", "json"]).succeeded();
    ended.events("note")[0]["text"].as_str().expect("a text").to_owned()
}

#[test]
fn migrations_that_succeed_stay() {
    let lab = lab();
    lab.cutover(&["plan", "run.rhai"]).succeeded();
    assert!(!lab.path("main.db").exists(), "a plan does not make the file");
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
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
    assert_snapshot!(lab.cutover(&["plan", "run.rhai"]), @"");
    assert!(!lab.path("main.db").exists());
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
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
    let ended = lab.cutover(&["run", "run.rhai", "--output", "json"]).succeeded();
    let notes = ended.events("note");
    let text = |at: usize| notes[at]["text"].as_str().expect("a text");
    assert!(text(0).contains("0003_broken.up.sql:1"), "{}", text(0));
    assert_eq!(text(1), "applied: [\"0001_users\", \"0002_orders\"]");
}

#[test]
fn without_a_way_back_the_rollback_is_incomplete_and_says_what_is_left() {
    let lab = lab();
    std::fs::remove_file(lab.path("migrations/0002_orders.down.sql")).expect("it was there");
    lab.runbook(r#"db::migrate("main"); fail("something else went wrong");"#);
    assert_snapshot!(lab.cutover(&["run", "run.rhai"]), @"");
    assert_eq!(applied(&lab), "applied: [\"0001_users\", \"0002_orders\"]");
}
