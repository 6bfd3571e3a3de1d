//! What the effects of `db` do with a database, whoever made it. What the database itself has to keep is its contract, in
//! `contraflow_provider::contract::db`.

use std::{path::Path, sync::Arc};

use contraflow_runtime::{
    effect::{Action as _, Change as _, On, Read as _, Undo},
    error::codes as runtime_codes,
    provider::{ProviderError, Providers},
    quantity::Span,
};
use contraflow_stdlib::{
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
use serde_json::{Value, json};

/// A database to try, with a folder of its own.
pub(crate) struct Lab {
    pub(crate) on: On,
    pub(crate) folder: tempfile::TempDir,
    dialect: Dialect,
}

impl Lab {
    /// `made` gets the folder in which the database looks for `migrations`.
    pub(crate) fn new<D: Database + 'static>(made: impl FnOnce(&Path) -> D) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("migrations")).expect("migrations");
        let database = Arc::new(made(folder.path()));
        let dialect = database.dialect();
        let mut providers = Providers::new("test");
        providers.bind::<dyn Database>("main", database);
        Self { on: On::detached(Arc::new(providers)), folder, dialect }
    }

    pub(crate) fn write(&self, name: &str, sql: &str) {
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

    pub(crate) async fn change(&self, options: Options) -> Migrate {
        let folder = Folder { database: "main".into(), dir: None };
        let files = folder.read(&self.on).await.expect("files");
        Migrate::new("main", files, options)
    }

    /// What the kernel does with a change.
    pub(crate) async fn migrate(&self, options: Options) -> Result<(Schema, Schema), ProviderError> {
        let change = self.change(options).await;
        let from = change.observe(&self.on).await?;
        let to = change.desired(&from)?;
        if from != to {
            change.apply(&self.on, &from, &to).await?;
            assert_eq!(change.observe(&self.on).await?, to);
        }
        Ok((from, to))
    }

    /// What a plan does with a change.
    pub(crate) async fn rehearse(&self, options: Options) -> Result<Option<String>, ProviderError> {
        let change = self.change(options).await;
        let from = change.observe(&self.on).await?;
        let to = change.desired(&from)?;
        change.rehearse(&self.on, &from, &to).await
    }

    async fn applied(&self) -> String {
        self.change(Options::default()).await.observe(&self.on).await.expect("history").to_string()
    }

    async fn ask(&self, sql: &str) -> Result<Vec<Value>, ProviderError> {
        self.ask_with(sql, QueryOptions::default()).await
    }

    async fn ask_with(&self, sql: &str, options: QueryOptions) -> Result<Vec<Value>, ProviderError> {
        let QueryOptions { params, timeout, max_rows } = options;
        let query = Query { database: "main".into(), sql: sql.into(), params, timeout, max_rows };
        Ok(query.read(&self.on).await?.into_iter().map(|row| json!(row)).collect())
    }

    pub(crate) async fn rows(&self, sql: &str) -> Value {
        Value::Array(self.ask(sql).await.expect(sql))
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

fn version(text: &str) -> Version {
    serde_json::from_value(text.into()).expect("version")
}

pub(crate) async fn a_migration_goes_to_a_version_and_its_undo_runs_the_down_files(lab: &Lab) {
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
    assert!(lab.ask("SELECT email FROM users").await.is_err(), "the column is gone");
    lab.migrate(Options::default()).await.expect("again");
    let (from, to) = lab.migrate(Options::default()).await.expect("unchanged");
    assert_eq!(from, to);
    lab.migrate(Options { to: Some(version("0")), ..Options::default() }).await.expect("all taken back");
    assert_eq!(lab.applied().await, "no migrations");
}

pub(crate) async fn undo_works_when_the_files_are_gone(lab: &Lab) {
    lab.write_three();
    let (from, to) = lab.migrate(Options::default()).await.expect("applied");
    let mut change = lab.change(Options::default()).await;
    change.migrations.clear();
    change.apply(&lab.on, &to, &from).await.expect("undo");
    assert_eq!(lab.applied().await, "no migrations");
}

pub(crate) async fn a_changed_file_is_refused_and_reported(lab: &Lab) {
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

pub(crate) async fn a_file_that_failed_is_applied_once_it_is_put_right(lab: &Lab) {
    lab.write_three();
    lab.write(
        "0004_bad.sql",
        "INSERT INTO users VALUES (2, 'bob', NULL);\nINSERT INTO nowhere VALUES (1);\n",
    );
    let (code, message) = code(lab.migrate(Options::default()).await);
    assert_eq!(code, codes::MIGRATION);
    assert!(message.starts_with("0004_bad.sql line 2: "), "{message}");
    assert_eq!(lab.applied().await, "0001, 0002, 0003");
    lab.write("0004_bad.sql", "INSERT INTO users VALUES (2, 'bob', NULL);\n");
    lab.migrate(Options::default()).await.expect("put right");
    assert_eq!(lab.applied().await, "0001, 0002, 0003, 0004");
}

pub(crate) async fn a_migration_without_a_way_back_is_a_point_of_no_return(lab: &Lab) {
    lab.write_three();
    lab.write("0004_drop.sql", "DROP TABLE users;\n");
    let (from, to) = lab.migrate(Options::default()).await.expect("applied");
    let change = lab.change(Options::default()).await;
    assert_eq!(change.undo(&from, &to), Undo::Impossible("0004_drop has no down file".into()));
    let undone = change.apply(&lab.on, &to, &from).await;
    assert_eq!(code(undone), (codes::MIGRATION.to_owned(), "0004_drop has no down file".to_owned()));
    assert_eq!(lab.applied().await, "0001, 0002, 0003, 0004", "nothing was taken back");
}

pub(crate) async fn a_plan_tries_migrations_unless_it_is_told_not_to(lab: &Lab) {
    lab.write_three();
    let found = lab.rehearse(Options::default()).await.expect("applies").expect("can be tried");
    assert!(found.starts_with("3 migrations apply cleanly "), "{found}");
    let off = Options { rehearse: false, ..Options::default() };
    assert_eq!(lab.rehearse(off).await, Ok(None));
    assert_eq!(lab.applied().await, "no migrations");
}

pub(crate) async fn only_one_statement_that_reads_reaches_the_database(lab: &Lab) {
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    let target = lab.folder.path().join("copied").display().to_string();
    let mut writes = vec![
        "DELETE FROM users".to_owned(),
        "UPDATE users SET name = 'x'".to_owned(),
        "SELECT 1; DELETE FROM users".to_owned(),
        "DROP TABLE users".to_owned(),
        "COMMIT".to_owned(),
    ];
    writes.extend(match lab.dialect {
        Dialect::Sqlite => [
            "WITH x AS (SELECT 1) DELETE FROM users".to_owned(),
            "PRAGMA query_only = 0".to_owned(),
            format!("VACUUM INTO '{target}'"),
        ],
        Dialect::Postgres => [
            "WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone".to_owned(),
            "SET transaction_read_only = off".to_owned(),
            format!("COPY users TO '{target}'"),
        ],
    });
    for sql in writes {
        assert_eq!(code(lab.ask(&sql).await).0, codes::QUERY, "{sql}");
    }
    assert!(!Path::new(&target).exists());
    assert_eq!(lab.rows("SELECT name FROM users").await, json!([{"name": "ann"}]));
}

pub(crate) async fn a_query_has_the_values_and_the_limits_of_its_options(lab: &Lab) {
    // Makes the file of a database that is one.
    lab.write_three();
    lab.migrate(Options::default()).await.expect("applied");
    let params = [json!(1), json!("ann")].map(Param::Plain).into();
    let options = QueryOptions { params, ..QueryOptions::default() };
    let found = lab.ask_with("SELECT id FROM users WHERE id = $1 AND name = $2", options).await;
    assert_eq!(found.expect("rows"), [json!({"id": 1})]);
    let few = QueryOptions { max_rows: 2, ..QueryOptions::default() };
    let (code, message) = self::code(lab.ask_with("VALUES (1), (2), (3)", few).await);
    assert_eq!((&*code, &*message), (codes::QUERY, "the query returns more than 2 rows"));
    let quick = QueryOptions { timeout: Span::millis(300), ..QueryOptions::default() };
    let (code, message) = self::code(lab.ask_with(lab.slow(), quick).await);
    assert_eq!((&*code, &*message), (runtime_codes::TIMEOUT, "the query took longer than 300ms"));
}

pub(crate) async fn a_migration_has_the_limits_of_its_options(lab: &Lab) {
    lab.write("0001_slow.sql", &format!("CREATE TABLE a (b INTEGER);\n{};\n", lab.slow()));
    let quick = Options { statement_timeout: Span::millis(300), ..Options::default() };
    let (code, message) = code(lab.migrate(quick).await);
    assert_eq!(code, runtime_codes::TIMEOUT);
    assert!(message.starts_with("0001_slow.sql line 2: "), "{message}");
    let other: Table = serde_json::from_value("other".into()).expect("a name");
    lab.write("0001_slow.sql", "SELECT 1;");
    lab.migrate(Options { table: other, ..Options::default() }).await.expect("applied");
    assert_eq!(lab.applied().await, "no migrations", "in the table that was named");
}

pub(crate) async fn a_backup_is_published_and_older_ones_are_removed(lab: &Lab) {
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
pub(crate) async fn a_damaged_backup_leaves_no_file(lab: &Lab, spoil: impl FnOnce()) {
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

/// A test for each, in a lab of its own.
macro_rules! effects {
    ($lab:path) => {
        $crate::support::db::effects! { $lab:
            a_migration_goes_to_a_version_and_its_undo_runs_the_down_files,
            undo_works_when_the_files_are_gone,
            a_changed_file_is_refused_and_reported,
            a_file_that_failed_is_applied_once_it_is_put_right,
            a_migration_without_a_way_back_is_a_point_of_no_return,
            a_plan_tries_migrations_unless_it_is_told_not_to,
            only_one_statement_that_reads_reaches_the_database,
            a_query_has_the_values_and_the_limits_of_its_options,
            a_migration_has_the_limits_of_its_options,
            a_backup_is_published_and_older_ones_are_removed,
        }
    };
    ($lab:path: $($name:ident,)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if let Some(lab) = $lab().await {
                $crate::support::db::$name(&lab).await;
            }
        }
    )+};
}
pub(crate) use effects;
