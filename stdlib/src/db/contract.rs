//! What every database must do, whoever made it. Run against SQLite here, against a PostgreSQL server in `tests/postgres.rs`.

use std::{path::Path, sync::Arc, time::Duration};

use contraflow_runtime::{
    effect::{Action as _, Change as _, On, Read as _, Undo},
    error::codes as runtime_codes,
    provider::{Provider, ProviderError, Providers, Retry},
    quantity::Span,
};
use serde_json::{Value, json};

use super::lib::{
    codes,
    db::{
        Database, Dialect, Schema, Table, Verify, Version,
        backup::{Backup, Finished, Options as BackupOptions},
        folder::Folder,
        migrate::{Migrate, Options},
        query::{Options as QueryOptions, Param, Query},
        status::{Standing, Status},
    },
};

/// A database to try, with a folder of its own.
pub(super) struct Lab {
    pub(super) on: On,
    pub(super) folder: tempfile::TempDir,
    pub(super) dialect: Dialect,
}

impl Lab {
    /// `made` gets the folder in which the database looks for `migrations`.
    pub(super) fn new<D: Database + Provider + 'static>(made: impl FnOnce(&Path) -> D) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("migrations")).expect("migrations");
        let database = Arc::new(made(folder.path()));
        let dialect = database.dialect();
        let mut providers = Providers::new("test");
        providers.bind::<dyn Database>("main", database);
        Self { on: On::detached(Arc::new(providers)), folder, dialect }
    }

    fn write(&self, name: &str, sql: &str) {
        std::fs::write(self.folder.path().join("migrations").join(name), sql).expect("written");
    }

    /// Three migrations: users, an e-mail column, one row.
    fn write_three(&self) {
        self.write("0001_users.up.sql", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\n");
        self.write("0001_users.down.sql", "DROP TABLE users;\n");
        self.write("0002_email.up.sql", "ALTER TABLE users ADD COLUMN email TEXT;\n");
        self.write("0002_email.down.sql", "ALTER TABLE users DROP COLUMN email;\n");
        self.write("0003_ann.up.sql", "INSERT INTO users VALUES (1, 'ann', 'ann@example.com');\n");
        self.write("0003_ann.down.sql", "DELETE FROM users WHERE id = 1;\n");
    }

    async fn change(&self, options: Options) -> Migrate {
        let folder = Folder { database: "main".into(), dir: None };
        let files = folder.read(&self.on).await.expect("files");
        Migrate::new("main", files, options)
    }

    /// What the kernel does with a change.
    async fn migrate(&self, options: Options) -> Result<(Schema, Schema), ProviderError> {
        let change = self.change(options).await;
        let from = change.observe(&self.on).await?;
        let to = change.desired(&from)?;
        if from != to {
            change.apply(&self.on, &from, &to).await?;
            assert_eq!(change.observe(&self.on).await?, to);
        }
        Ok((from, to))
    }

    async fn applied(&self) -> String {
        self.change(Options::default()).await.observe(&self.on).await.expect("history").to_string()
    }

    async fn ask(&self, sql: &str, options: QueryOptions) -> Result<Vec<Value>, ProviderError> {
        let QueryOptions { params, timeout, max_rows } = options;
        let query = Query { database: "main".into(), sql: sql.into(), params, timeout, max_rows };
        Ok(query.read(&self.on).await?.into_iter().map(|row| json!(row)).collect())
    }

    async fn rows(&self, sql: &str) -> Value {
        Value::Array(self.ask(sql, QueryOptions::default()).await.expect(sql))
    }

    async fn status(&self) -> Standing {
        let status = Status { database: "main".into(), dir: None, table: Table::default() };
        status.read(&self.on).await.expect("status")
    }

    async fn backup(&self, options: BackupOptions) -> Result<Finished, ProviderError> {
        let BackupOptions { dir, keep, verify, timeout, assume } = options;
        let backup = Backup { database: "main".into(), dir, keep, verify, timeout, assume };
        backup.perform(&self.on).await
    }

    /// A statement that takes a minute.
    fn slow(&self) -> &'static str {
        match self.dialect {
            Dialect::Sqlite => {
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000000) SELECT count(*) AS n FROM c"
            }
            Dialect::Postgres => "SELECT count(*) AS n FROM pg_sleep(60)",
        }
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> (String, String) {
    let e = result.expect_err("must fail");
    (e.code.as_str().to_owned(), e.message)
}

pub(super) async fn migrations_apply_in_order_and_undo_runs_the_downs(lab: &Lab) {
    lab.write_three();
    assert_eq!(lab.applied().await, "no migrations");
    lab.migrate(Options { to: Some(version("1")), ..Options::default() }).await.expect("first");
    assert_eq!(lab.applied().await, "0001");
    let change = lab.change(Options::default()).await;
    let (from, to) = lab.migrate(Options::default()).await.expect("rest");
    assert_eq!(to.to_string(), "0001, 0002, 0003");
    assert_eq!(
        lab.rows("SELECT name, email FROM users").await,
        json!([{"name": "ann", "email": "ann@example.com"}])
    );
    assert_eq!(change.undo(&from, &to), Undo::Possible);
    change.apply(&lab.on, &to, &from).await.expect("undo");
    assert_eq!(lab.applied().await, "0001");
    assert_eq!(lab.rows("SELECT * FROM users").await, json!([]));
    assert!(lab.ask("SELECT email FROM users", QueryOptions::default()).await.is_err(), "the column is gone");
    // Both again: what is there already is left alone.
    change.apply(&lab.on, &from, &to).await.expect("again");
    change.apply(&lab.on, &from, &to).await.expect("and nothing to do");
    let (from, to) = lab.migrate(Options::default()).await.expect("unchanged");
    assert_eq!(from, to);
}

pub(super) async fn undo_works_when_the_files_are_gone(lab: &Lab) {
    lab.write_three();
    let (from, to) = lab.migrate(Options::default()).await.expect("applied");
    let mut change = lab.change(Options::default()).await;
    change.migrations.clear();
    change.apply(&lab.on, &to, &from).await.expect("undo");
    assert_eq!(lab.applied().await, "no migrations");
}

pub(super) async fn a_changed_file_is_refused_and_reported(lab: &Lab) {
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    lab.write("0002_email.up.sql", "ALTER TABLE users ADD COLUMN mail TEXT;\n");
    lab.write("0003_ann.down.sql", "DELETE FROM users;\n");
    lab.write("0004_more.sql", "SELECT 1;\n");
    std::fs::remove_file(lab.folder.path().join("migrations/0001_users.up.sql")).expect("removed");
    std::fs::remove_file(lab.folder.path().join("migrations/0001_users.down.sql")).expect("removed");
    let standing = lab.status().await;
    assert_eq!(standing.applied, ["0001_users", "0002_email", "0003_ann"]);
    assert_eq!(standing.pending, ["0004_more"]);
    assert_eq!(standing.changed, ["0002_email"]);
    assert_eq!(standing.changed_down, ["0003_ann"]);
    assert_eq!(standing.missing, ["0001_users"]);
    lab.write("0001_users.up.sql", "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\n");
    let message = "0002_email.up.sql was changed after it was applied".to_owned();
    assert_eq!(code(lab.migrate(Options::default()).await), (codes::MIGRATION.to_owned(), message));
}

pub(super) async fn a_file_that_fails_halfway_keeps_those_before_it(lab: &Lab) {
    lab.write_three();
    lab.write(
        "0004_bad.sql",
        "-- a comment;\nINSERT INTO users VALUES (2, 'bob', NULL);\n\nINSERT INTO nowhere VALUES (1);\n",
    );
    let e = lab.migrate(Options::default()).await.expect_err("fails");
    assert_eq!((e.code.as_str(), e.retry), (codes::MIGRATION, Retry::Never));
    assert!(e.message.starts_with("0004_bad.sql line 4: ") && e.message.contains("nowhere"), "{}", e.message);
    assert!(e.message.ends_with("; applied now: 0001, 0002, 0003"), "{}", e.message);
    assert_eq!(e.detail.expect("detail")["applied"], json!(["0001", "0002", "0003"]));
    assert_eq!(lab.applied().await, "0001, 0002, 0003");
    assert_eq!(
        lab.rows("SELECT count(*) AS n FROM users").await,
        json!([{"n": 1}]),
        "its first line is undone"
    );
    lab.write("0004_bad.sql", "INSERT INTO users VALUES (2, 'bob', NULL);\n");
    lab.migrate(Options::default()).await.expect("put right");
    assert_eq!(lab.applied().await, "0001, 0002, 0003, 0004");
}

pub(super) async fn a_migration_without_a_way_back_is_a_point_of_no_return(lab: &Lab) {
    lab.write_three();
    lab.write("0004_drop.sql", "DROP TABLE users;\n");
    let (from, to) = lab.migrate(Options::default()).await.expect("applied");
    let change = lab.change(Options::default()).await;
    assert_eq!(change.undo(&from, &to), Undo::Impossible("0004_drop has no down file".into()));
    let undone = change.apply(&lab.on, &to, &from).await;
    assert_eq!(code(undone), (codes::MIGRATION.to_owned(), "0004_drop has no down file".to_owned()));
    assert_eq!(lab.applied().await, "0001, 0002, 0003, 0004", "nothing was taken back");
}

pub(super) async fn a_file_outside_a_transaction_runs_as_it_is(lab: &Lab) {
    lab.write_three();
    let sql = match lab.dialect {
        Dialect::Sqlite => "VACUUM;\nCREATE INDEX by_name ON users (name);\n",
        Dialect::Postgres => "CREATE INDEX CONCURRENTLY by_name ON users (name);\nVACUUM users;\n",
    };
    lab.write("0004_index.up.sql", sql);
    let e = lab.migrate(Options::default()).await.expect_err("needs the directive");
    assert_eq!(e.hints, ["begin the file with `-- contraflow: no-transaction`"], "{e:?}");
    lab.write("0004_index.up.sql", &format!("-- contraflow: no-transaction\n{sql}"));
    lab.write("0004_index.down.sql", "DROP INDEX by_name;\n");
    let (_, to) = lab.migrate(Options::default()).await.expect("applied");
    assert_eq!(to.0.len(), 4);
    lab.migrate(Options { to: Some(version("0")), ..Options::default() }).await.expect("all taken back");
    assert_eq!(lab.applied().await, "no migrations");
}

pub(super) async fn a_second_migration_waits_for_the_lock_and_says_who_holds_it(lab: &Lab) {
    lab.write_three();
    lab.migrate(Options { to: Some(version("1")), ..Options::default() }).await.expect("first");
    let folder = lab.folder.path().join("slow");
    std::fs::create_dir(&folder).expect("folder");
    std::fs::copy(lab.folder.path().join("migrations/0001_users.up.sql"), folder.join("0001_users.up.sql"))
        .expect("copied");
    std::fs::write(folder.join("0002_slow.sql"), lab.slow()).expect("written");
    let files = Folder { database: "main".into(), dir: Some("slow".into()) };
    let slow = Migrate::new("main", files.read(&lab.on).await.expect("files"), Options::default());
    let from = slow.observe(&lab.on).await.expect("history");
    let to = slow.desired(&from).expect("wanted");
    let on = lab.on.clone();
    let running = tokio::spawn(async move { slow.apply(&on, &from, &to).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let quick = Options { lock_timeout: Span::millis(300), ..Options::default() };
    let e = lab.migrate(quick).await.expect_err("locked");
    assert_eq!((e.code.as_str(), e.retry), (runtime_codes::TIMEOUT, Retry::Safe { after: None }));
    match lab.dialect {
        Dialect::Sqlite => {
            assert!(e.message.contains("held the write lock for longer than 300ms"), "{}", e.message)
        }
        Dialect::Postgres => {
            let (_, holder) = e.message.split_once("/: ").unwrap_or(("", &e.message));
            assert!(holder.contains("process ") && holder.contains("(contraflow"), "{}", e.message);
        }
    }
    // What is cut short leaves nothing behind, not even the lock.
    running.abort();
    assert!(running.await.expect_err("aborted").is_cancelled());
    let patient = Options { lock_timeout: Span::secs(20), ..Options::default() };
    let (_, to) = lab.migrate(patient).await.expect("the lock is free");
    assert_eq!(to.to_string(), "0001, 0002, 0003");
}

pub(super) async fn two_migrations_at_once_apply_each_file_once(lab: &Lab) {
    lab.write_three();
    let options = || Options { lock_timeout: Span::secs(20), ..Options::default() };
    let change = lab.change(options()).await;
    let from = Schema::default();
    let to = change.desired(&from).expect("wanted");
    let (one, two) = tokio::join!(change.apply(&lab.on, &from, &to), change.apply(&lab.on, &from, &to));
    // The second finds the work done, or that somebody is doing it; never does it do it again.
    for done in [one, two] {
        if let Err(e) = done {
            assert!(e.message.contains("another process has just run it"), "{}", e.message);
        }
    }
    assert_eq!(lab.rows("SELECT count(*) AS n FROM users").await, json!([{"n": 1}]));
    assert_eq!(lab.applied().await, "0001, 0002, 0003");
}

pub(super) async fn a_statement_that_takes_too_long_is_ended(lab: &Lab) {
    lab.write("0001_slow.sql", &format!("CREATE TABLE a (b INTEGER);\n{};\n", lab.slow()));
    let begun = std::time::Instant::now();
    let options = Options { statement_timeout: Span::millis(300), ..Options::default() };
    let e = lab.migrate(options).await.expect_err("too slow");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!((e.code.as_str(), e.retry), (runtime_codes::TIMEOUT, Retry::Never));
    assert!(e.message.starts_with("0001_slow.sql line 2: "), "{}", e.message);
    assert!(lab.ask("SELECT * FROM a", QueryOptions::default()).await.is_err(), "the table is undone");
}

pub(super) async fn a_rehearsal_finds_what_fails_and_leaves_nothing(lab: &Lab) {
    lab.write_three();
    let change = lab.change(Options::default()).await;
    let from = change.observe(&lab.on).await.expect("history");
    let to = change.desired(&from).expect("wanted");
    let found = change.rehearse(&lab.on, &from, &to).await.expect("applies").expect("can be tried");
    assert!(found.starts_with("3 migrations apply cleanly "), "{found}");
    assert_eq!(lab.applied().await, "no migrations");
    let off = lab.change(Options { rehearse: false, ..Options::default() }).await;
    assert_eq!(off.rehearse(&lab.on, &from, &to).await, Ok(None));
    lab.migrate(Options::default()).await.expect("for real");
    lab.write("0004_bad.sql", "INSERT INTO users VALUES (1, 'again', NULL);\n");
    let change = lab.change(Options::default()).await;
    let from = change.observe(&lab.on).await.expect("history");
    let to = change.desired(&from).expect("wanted");
    let (code, message) = code(change.rehearse(&lab.on, &from, &to).await);
    assert_eq!(code, codes::MIGRATION);
    assert!(message.starts_with("0004_bad.sql line 1: "), "{message}");
    assert_eq!(lab.applied().await, "0001, 0002, 0003");
}

pub(super) async fn a_query_cannot_write(lab: &Lab) {
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    let mut writes = vec![
        "DELETE FROM users",
        "UPDATE users SET name = 'x'",
        "SELECT 1; DELETE FROM users",
        "DROP TABLE users",
        "COMMIT",
    ];
    writes.extend(match lab.dialect {
        Dialect::Sqlite => {
            &["WITH x AS (SELECT 1) DELETE FROM users", "PRAGMA query_only = 0", "VACUUM INTO '/tmp/x'"][..]
        }
        Dialect::Postgres => &[
            "WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone",
            "SELECT set_config('transaction_read_only', 'off', true)",
            "EXPLAIN ANALYZE DELETE FROM users",
            "SELECT * INTO copied FROM users",
            "COPY users TO '/tmp/x'",
        ],
    });
    for sql in writes {
        assert_eq!(code(lab.ask(sql, QueryOptions::default()).await).0, codes::QUERY, "{sql}");
    }
    assert_eq!(lab.rows("SELECT name FROM users").await, json!([{"name": "ann"}]));
}

pub(super) async fn rows_have_the_types_of_their_columns(lab: &Lab) {
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    let params = |values: &[Value]| QueryOptions {
        params: values.iter().cloned().map(Param::Plain).collect(),
        ..QueryOptions::default()
    };
    let sql = "SELECT id, name, NULL AS none, CAST(0.5 AS DOUBLE PRECISION) AS half FROM users WHERE id = $1 AND name = $2";
    let found = lab.ask(sql, params(&[json!(1), json!("ann")])).await.expect("rows");
    assert_eq!(found, [json!({"id": 1, "name": "ann", "none": null, "half": 0.5})]);
    assert_eq!(lab.ask(sql, params(&[json!(2), json!("ann")])).await.expect("rows"), Vec::<Value>::new());
    let few = || QueryOptions { max_rows: 2, ..QueryOptions::default() };
    assert_eq!(lab.ask("VALUES (1), (2)", few()).await.expect("two").len(), 2);
    let (code, message) = code(lab.ask("VALUES (1), (2), (3)", few()).await);
    assert_eq!((&*code, &*message), (codes::QUERY, "the query returns more than 2 rows"));
    let e = lab.ask("SELECT 1 AS a, 2 AS a", QueryOptions::default()).await.expect_err("same name");
    assert_eq!(e.message, "two columns are named \"a\"");
}

pub(super) async fn a_query_that_takes_too_long_is_ended(lab: &Lab) {
    lab.write("0001_a.sql", "CREATE TABLE a (b INTEGER);\n");
    lab.migrate(Options::default()).await.expect("applied");
    let begun = std::time::Instant::now();
    let options = QueryOptions { timeout: Span::millis(300), ..QueryOptions::default() };
    assert_eq!(code(lab.ask(lab.slow(), options).await).0, runtime_codes::TIMEOUT);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(lab.rows("SELECT * FROM a").await, json!([]));
}

pub(super) async fn a_backup_is_proven_private_and_counted(lab: &Lab) {
    use std::os::unix::fs::PermissionsExt as _;
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    let done = lab.backup(BackupOptions::default()).await.expect("backup");
    assert_eq!((&*done.verified, done.tables, done.rows), ("restored", Some(2), Some(4)), "{done:?}");
    assert_eq!(done.note, "");
    let path = Path::new(&done.path);
    assert_eq!(path.parent(), Some(&*lab.folder.path().join("backups")));
    let meta = std::fs::metadata(path).expect("file");
    assert_eq!((meta.permissions().mode() & 0o777, meta.len()), (0o600, done.size));
    assert_eq!(done.sha256.len(), 64);
    let again = BackupOptions { keep: Some(1), verify: Verify::Read, ..BackupOptions::default() };
    let second = lab.backup(again).await.expect("backup");
    assert_eq!((&*second.verified, &second.removed), ("read", &vec![done.path]));
    let left: Vec<_> = std::fs::read_dir(lab.folder.path().join("backups")).expect("folder").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// `lab` is one whose backups are damaged on the way; `spoil` is called when the database is filled.
pub(super) async fn a_damaged_backup_fails_and_leaves_no_file(lab: &Lab, spoil: impl FnOnce()) {
    lab.write_three();
    let rows: Vec<String> = (10..4000).map(|n| format!("({n}, 'name {n}', 'mail {}')", n * 7919)).collect();
    lab.write("0004_many.sql", &format!("INSERT INTO users VALUES {};", rows.join(",")));
    lab.migrate(Options::default()).await.expect("applied");
    spoil();
    for verify in [Verify::Restore, Verify::Read] {
        let (code, message) = code(lab.backup(BackupOptions { verify, ..BackupOptions::default() }).await);
        assert_eq!(code, codes::BACKUP, "{message}");
    }
    let left: Vec<_> = std::fs::read_dir(lab.folder.path().join("backups")).expect("folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

fn version(text: &str) -> Version {
    serde_json::from_value(text.into()).expect("version")
}

/// Runs every contract, each in a lab of its own.
macro_rules! contracts {
    ($lab:path) => {
        contracts! { $lab:
            migrations_apply_in_order_and_undo_runs_the_downs,
            undo_works_when_the_files_are_gone,
            a_changed_file_is_refused_and_reported,
            a_file_that_fails_halfway_keeps_those_before_it,
            a_migration_without_a_way_back_is_a_point_of_no_return,
            a_file_outside_a_transaction_runs_as_it_is,
            a_second_migration_waits_for_the_lock_and_says_who_holds_it,
            two_migrations_at_once_apply_each_file_once,
            a_statement_that_takes_too_long_is_ended,
            a_rehearsal_finds_what_fails_and_leaves_nothing,
            a_query_cannot_write,
            rows_have_the_types_of_their_columns,
            a_query_that_takes_too_long_is_ended,
            a_backup_is_proven_private_and_counted,
        }
    };
    ($lab:path: $($name:ident,)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if let Some(lab) = $lab().await {
                contract::$name(&lab).await;
            }
        }
    )+};
}
pub(super) use contracts;
