//! Migrations of a real PostgreSQL, as the binary reports them.

use tempfile::TempDir;

use crate::lab::{contraflow::Contraflow, database::Database};

const SCRIPT: &str = "const RUNBOOK = #{ name: \"migrate\" };\nstep(\"migrate\", || { db::migrate(\"main\", #{ lock_timeout: \"1s\" }); });\n";

const ORDERS: [(&str, &str); 2] = [
    ("0001_orders.up.sql", "CREATE TABLE orders (id bigint PRIMARY KEY, total numeric NOT NULL);\n"),
    ("0001_orders.down.sql", "DROP TABLE orders;\n"),
];

struct Lab {
    contraflow: Contraflow,
    database: Database,
    _folder: TempDir,
}

fn lab(files: &[(&str, &str)]) -> Option<Lab> {
    let database = Database::create()?;
    let folder = tempfile::tempdir().expect("a folder");
    let contraflow = Contraflow::new(folder.path()).set("DATABASE_URL", database.url());
    contraflow.write("migrate.rhai", SCRIPT);
    for (name, sql) in files {
        contraflow.write(&format!("migrations/{name}"), sql);
    }
    Some(Lab { contraflow, database, _folder: folder })
}

#[test]
fn a_file_that_postgresql_refuses_is_named_with_its_line_and_the_first_is_taken_back() {
    let broken = "-- Two more columns.\nALTER TABLE orders ADD COLUMN placed timestamptz;\nALTER TABLE ordres ADD COLUMN note text;\n";
    let files = [ORDERS[0], ORDERS[1], ("0002_more.up.sql", broken), ("0002_more.down.sql", "SELECT 1;\n")];
    let Some(lab) = lab(&files) else { return };
    let before = lab.database.schema();
    let plan = lab.contraflow.run(&["plan", "migrate.rhai"]).exits(1);
    plan.says(&["0002_more.up.sql line 3", "relation \"ordres\" does not exist"]);
    assert_eq!(lab.database.tables(), "", "the plan left something");

    // Seen by the plan already, so the run must meet it on the way.
    lab.contraflow.write("migrate.rhai", &SCRIPT.replace("\"1s\"", "\"1s\", rehearse: false"));
    let done = lab.contraflow.run(&["run", "migrate.rhai"]).exits(3);
    done.says(&[
        "[migration]",
        "0002_more.up.sql line 3",
        "relation \"ordres\" does not exist",
        "migrate.rhai:2",
    ]);
    assert_eq!(lab.database.schema(), before);
    assert_eq!(lab.database.ask("SELECT count(*) FROM _contraflow_migrations"), "0");
}

#[test]
fn a_plan_tries_migrations_for_real_and_leaves_no_trace() {
    let Some(lab) = lab(&ORDERS) else { return };
    let before = (lab.database.schema(), lab.database.tables());
    let plan = lab.contraflow.run(&["plan", "migrate.rhai"]).exits(0);
    plan.says(&[
        "no migrations -> 0001",
        "1 migration applies cleanly in a transaction that was rolled back",
    ]);
    assert!(!plan.text().contains("point of no return"), "{}", plan.text());
    assert_eq!((lab.database.schema(), lab.database.tables()), before);
    assert_eq!(lab.database.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
}

#[test]
fn a_migration_without_a_way_down_is_marked_as_the_point_of_no_return() {
    let files = [ORDERS[0], ORDERS[1], ("0002_drop.up.sql", "ALTER TABLE orders DROP COLUMN total;\n")];
    let Some(lab) = lab(&files) else { return };
    let plan = lab.contraflow.run(&["plan", "migrate.rhai"]).exits(0);
    plan.says(&["point of no return", "0002_drop has no down file"]);
}

#[test]
fn a_lock_that_is_not_given_back_in_time_is_reported_with_who_holds_it() {
    let files = [
        ("0001_note.up.sql", "ALTER TABLE customers ADD COLUMN note text;\n"),
        ("0001_note.down.sql", "SELECT 1;\n"),
    ];
    let Some(lab) = lab(&files) else { return };
    lab.database.ask("CREATE TABLE customers (id int)");
    let before = lab.database.schema();
    let holder = lab.database.session("nightly-report", "BEGIN; LOCK TABLE customers IN ACCESS SHARE MODE;");
    let done = lab.contraflow.run(&["run", "migrate.rhai"]).exits(1);
    done.says(&[
        "[timeout]",
        "0001_note.up.sql line 1",
        "lock timeout",
        "held by process",
        "(nightly-report from 127.0.0.1), idle in transaction",
    ]);
    assert_eq!(lab.database.schema(), before);
    drop(holder);
    lab.contraflow.run(&["run", "migrate.rhai"]).exits(0);
}
