//! The contract of databases on a PostgreSQL server, the effects of `db` there, and what only PostgreSQL does.
//!
//! `CONTRAFLOW_TEST_POSTGRES` is the URL of a database of a superuser; each test makes a database of its own there and drops it.
//! Without it the tests are skipped, unless `CONTRAFLOW_TEST_SERVERS=1` says that servers must be there.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "these are tests")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use contraflow_provider::{
    config::{Detached, Setting},
    contract::db as contract,
};
use contraflow_runtime::{
    effect::{Change as _, On},
    error::codes as runtime_codes,
    provider::{Provider as _, ProviderError},
    quantity::Span,
};
use contraflow_stdlib::{
    codes,
    db::{
        Backups as _, Database, Job, Postgres, PostgresSettings, Proof, Queries as _, Question, Verify,
        migrate::Options,
    },
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

mod support {
    pub(crate) mod db;
}

use support::db::{self, Lab, effects};

/// The server's URL, or none to skip.
fn server() -> Option<String> {
    match std::env::var("CONTRAFLOW_TEST_POSTGRES") {
        Ok(url) => Some(url),
        Err(_) if std::env::var("CONTRAFLOW_TEST_SERVERS").is_ok_and(|set| set == "1") => {
            panic!(
                "CONTRAFLOW_TEST_POSTGRES is not set: expected the URL of a PostgreSQL superuser's database"
            )
        }
        Err(_) => {
            eprintln!("skipped: CONTRAFLOW_TEST_POSTGRES is not set");
            None
        }
    }
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("connected");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.expect(sql);
}

/// A database that is dropped with this.
struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    async fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = server()?;
        let name = format!("contraflow_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(&server, &format!("CREATE DATABASE {name}")).await;
        Some(Self { server, name })
    }

    fn url(&self) -> String {
        let mut url = reqwest::Url::parse(&self.server).expect("URL");
        url.set_path(&self.name);
        url.to_string()
    }

    fn settings(&self) -> PostgresSettings {
        PostgresSettings {
            url: Setting::plain(self.url()),
            migrations: Some("migrations".into()),
            pg_dump: None,
            pg_restore: None,
            max_connections: None,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("runtime");
            runtime.block_on(run(&server, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")));
        });
        drop(dropping.join());
    }
}

fn made(settings: PostgresSettings, folder: &Path) -> Postgres {
    Postgres::new(settings, &Detached::new(folder, std::env::vars_os())).expect("settings")
}

/// A lab on a database of its own.
struct PgLab {
    lab: Lab,
    scratch: Scratch,
}

impl std::ops::Deref for PgLab {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        &self.lab
    }
}

async fn lab() -> Option<PgLab> {
    let scratch = Scratch::create().await?;
    let lab = Lab::new(|folder| made(scratch.settings(), folder));
    Some(PgLab { lab, scratch })
}

effects!(lab);

/// A database of its own, as the contract wants it.
struct Fixture {
    scratch: Scratch,
    folder: tempfile::TempDir,
    database: Arc<Postgres>,
}

impl Fixture {
    /// `change` gets the folder of the database and settings that it may change.
    async fn create(change: impl FnOnce(&Path, &mut PostgresSettings)) -> Option<Self> {
        let scratch = Scratch::create().await?;
        let folder = tempfile::tempdir().expect("folder");
        let mut settings = scratch.settings();
        change(folder.path(), &mut settings);
        let database = Arc::new(made(settings, folder.path()));
        Some(Self { scratch, folder, database })
    }

    async fn fresh() -> Self {
        Self::create(|_, _| ()).await.expect("the server is still there")
    }
}

#[async_trait]
impl contract::Fixture for Fixture {
    fn database(&self) -> Arc<dyn Database> {
        Arc::clone(&self.database) as _
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self, sql: &str) {
        run(&self.scratch.url(), sql).await;
    }

    fn lock_holder(&self) -> &[&str] {
        &[": process ", "(contraflow", " held the lock on migrations"]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_keep_their_contract() {
    if server().is_some() {
        contract::migrations::holds(Fixture::fresh).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_keep_their_contract() {
    if server().is_some() {
        contract::queries::holds(Fixture::fresh).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_keep_their_contract() {
    if server().is_some() {
        contract::backups::holds(Fixture::fresh).await;
    }
}

/// A program in `folder` that calls another with the same arguments, then does more.
fn wrapper(folder: &Path, name: &str, script: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
    path
}

/// Settings whose backups are damaged on the way.
fn spoilt(folder: &Path, settings: &mut PostgresSettings) {
    let spoil = "pg_dump \"$@\" || exit\nfor a; do case $a in --file=*) f=${a#--file=};; esac; done\n\
                 size=$(wc -c < \"$f\")\ndd if=/dev/zero of=\"$f\" bs=1 seek=$((size / 2)) count=512 conv=notrunc 2>/dev/null";
    settings.pg_dump = Some(wrapper(folder, "pg_dump", spoil).display().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_backup_is_found() {
    let Some(fixture) = Fixture::create(spoilt).await else { return };
    contract::backups::damage_is_found(&fixture, || ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_leaves_no_file() {
    let Some(scratch) = Scratch::create().await else { return };
    let lab = Lab::new(|folder| {
        let mut settings = scratch.settings();
        spoilt(folder, &mut settings);
        made(settings, folder)
    });
    db::a_damaged_backup_leaves_no_file(&lab, || ()).await;
}

async fn backup(database: &Postgres, folder: &Path, verify: Verify) -> Result<Proof, ProviderError> {
    let file = folder.join("copy.dump");
    std::fs::write(&file, "").expect("written");
    let on = On::detached(Default::default());
    let key = format!("test{}", folder.display().to_string().len());
    database.backup(&on, &Job { file, verify, key }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_lacks_rows_is_found_and_the_scratch_database_is_dropped() {
    let Some(scratch) = Scratch::create().await else { return };
    run(&scratch.url(), "CREATE SCHEMA s; CREATE TABLE s.a (x int); INSERT INTO s.a SELECT generate_series(1, 10); \
        CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9); INSERT INTO p VALUES (3)")
        .await;
    let folder = tempfile::tempdir().expect("folder");
    let database = made(scratch.settings(), folder.path());
    let proof = backup(&database, folder.path(), Verify::Restore).await.expect("backup");
    assert_eq!((proof.tables, proof.rows), (Some(3), Some(11)));
    let less = wrapper(folder.path(), "pg_dump", "exec pg_dump \"$@\" --exclude-table-data=s.a");
    let settings = PostgresSettings { pg_dump: Some(less.display().to_string()), ..scratch.settings() };
    let e =
        backup(&made(settings, folder.path()), folder.path(), Verify::Restore).await.expect_err("lacks rows");
    assert_eq!(e.message, "\"s.a\" has 0 rows in the restored dump, but had 10");
    let question = Question {
        sql: "SELECT datname::text AS name FROM pg_database WHERE datname LIKE 'contraflow_scratch_test%'"
            .into(),
        params: vec![],
        timeout: Span::secs(5),
        max_rows: 10,
    };
    assert_eq!(database.query(&question).await.expect("query"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_databases_has_its_dump_read_and_is_told() {
    let Some(scratch) = Scratch::create().await else { return };
    let role = format!("{}_role", scratch.name);
    let sql = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'pa:s\\s'; ALTER DATABASE {} OWNER TO {role}; CREATE TABLE a (x int); \
         ALTER TABLE a OWNER TO {role}; INSERT INTO a VALUES (1)",
        scratch.name
    );
    run(&scratch.url(), &sql).await;
    let mut url = reqwest::Url::parse(&scratch.url()).expect("URL");
    url.set_username(&role).expect("user");
    url.set_password(Some("pa:s\\s")).expect("password");
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("url"), format!("{url}\n")).expect("written");
    let settings = PostgresSettings {
        url: serde_json::from_value(serde_json::json!({ "file": "url" })).expect("a setting"),
        migrations: None,
        ..scratch.settings()
    };
    let database = made(settings, folder.path());
    assert!(!database.describe().contains("pa"), "{}", database.describe());
    let proof = backup(&database, folder.path(), Verify::Restore).await;
    run(&scratch.url(), &format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}")).await;
    let (server, drop_role) = (
        scratch.server.clone(),
        format!("ALTER DATABASE {} OWNER TO CURRENT_USER; DROP ROLE {role}", scratch.name),
    );
    run(&server, &drop_role).await;
    let proof = proof.expect("backup");
    assert_eq!((&*proof.verified, proof.tables, proof.rows), ("read", Some(1), None));
    assert_eq!(proof.note, "read, not restored: the role may not create databases here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cut_short_ends_its_programs() {
    let Some(scratch) = Scratch::create().await else { return };
    let folder = tempfile::tempdir().expect("folder");
    let hang = wrapper(folder.path(), "pg_dump", "echo $$ > \"$HOME_OF_TEST\"; sleep 600");
    let mark = folder.path().join("pid");
    let text = std::fs::read_to_string(&hang)
        .expect("script")
        .replace("\"$HOME_OF_TEST\"", &mark.display().to_string());
    std::fs::write(&hang, text).expect("script");
    let settings = PostgresSettings { pg_dump: Some(hang.display().to_string()), ..scratch.settings() };
    let database = made(settings, folder.path());
    let cut =
        tokio::time::timeout(std::time::Duration::from_secs(2), backup(&database, folder.path(), Verify::No))
            .await;
    assert!(cut.is_err());
    let pid = std::fs::read_to_string(&mark).expect("it ran").trim().to_owned();
    for _ in 0..300 {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_all_common_types_are_read() {
    let Some(lab) = lab().await else { return };
    run(
        &lab.scratch.url(),
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN small AS int CHECK (VALUE < 9)",
    )
    .await;
    let database = made(lab.scratch.settings(), lab.folder.path());
    let ask = |sql: &str| Question { sql: sql.into(), params: vec![], timeout: Span::secs(5), max_rows: 10 };
    for (sql, value) in [
        ("true", json!(true)),
        ("1::int2", json!(1)),
        ("9007199254740993", json!(9_007_199_254_740_993_i64)),
        ("0.1::float4", json!(0.1)),
        ("'NaN'::float8", json!("NaN")),
        ("1234567890.0123456789", json!("1234567890.0123456789")),
        ("-0.00001", json!("-0.00001")),
        ("100000000::numeric", json!("100000000")),
        ("'a\u{fc}'::varchar", json!("a\u{fc}")),
        ("'{\"a\": [1, null]}'::jsonb", json!({"a": [1, null]})),
        ("'[true]'::json", json!([true])),
        ("timestamptz '2026-03-01 12:00:00.25+01'", json!("2026-03-01T11:00:00.25Z")),
        ("timestamp '1999-12-31 23:59:59'", json!("1999-12-31T23:59:59")),
        ("date '2026-02-28'", json!("2026-02-28")),
        ("time '23:59:58.5'", json!("23:59:58.5")),
        ("interval '1 day 2 hours'", json!("P1DT2H")),
        ("'00000000-0000-4000-8000-00000000000a'::uuid", json!("00000000-0000-4000-8000-00000000000a")),
        ("ARRAY[1, NULL, 3]", json!([1, null, 3])),
        ("ARRAY[['a', 'b'], ['c', 'd']]", json!([["a", "b"], ["c", "d"]])),
        ("'{}'::text[]", json!([])),
        ("'glad'::mood", json!("glad")),
        ("ARRAY['glad'::mood]", json!(["glad"])),
        ("3::small", json!(3)),
    ] {
        let rows = database.query(&ask(&format!("SELECT {sql} AS v"))).await.expect(sql);
        assert_eq!(rows[0]["v"], value, "{sql}");
    }
    let e = database.query(&ask("SELECT '\\x00'::bytea AS v")).await.expect_err("bytes");
    assert_eq!(e.message, "column \"v\" is of type bytea, which scripts cannot represent");
    let typed = Question { params: vec![json!("x")], ..ask("SELECT * FROM (VALUES (1)) t(a) WHERE a = $1") };
    let e = database.query(&typed);
    assert_eq!(e.await.expect_err("types").hints.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_moves_the_search_path_does_not_move_the_history() {
    let Some(lab) = lab().await else { return };
    lab.write("1_a.sql", "CREATE SCHEMA other; SET search_path = other; SET statement_timeout = 0;");
    lab.write("2_b.sql", "CREATE TABLE b (x int); SELECT pg_catalog.set_config('search_path', '', false);");
    lab.migrate(Options::default()).await.expect("applied, and read back as such");
    run(&lab.scratch.url(), "SELECT * FROM public.b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_others_lock_is_a_retryable_timeout_and_not_a_failed_rehearsal() {
    let Some(lab) = lab().await else { return };
    run(&lab.scratch.url(), "CREATE TABLE a (x int)").await;
    let mut holder = PgConnection::connect(&lab.scratch.url()).await.expect("connected");
    sqlx::raw_sql("BEGIN; SELECT * FROM a").execute(&mut holder).await.expect("held");
    lab.write("1_a.sql", "\nALTER TABLE a ADD y int;");
    let options = Options { lock_timeout: Span::millis(200), ..Options::default() };
    let change = lab.change(options).await;
    let from = change.observe(&lab.on).await.expect("history");
    let to = change.desired(&from).expect("wanted");
    let note = change.rehearse(&lab.on, &from, &to).await.expect("no verdict").expect("a note");
    assert!(
        note.starts_with("not tried completely: 1_a.sql line 2: canceling statement due to lock timeout"),
        "{note}"
    );
    let e = change.apply(&lab.on, &from, &to).await.expect_err("locked");
    assert_eq!(
        (e.code.as_str(), e.retry),
        (runtime_codes::TIMEOUT, contraflow_runtime::provider::Retry::Safe { after: None })
    );
    let holder = ", while the lock was held by process ";
    assert!(e.message.contains(holder) && e.message.contains("idle in transaction"), "{}", e.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn deferred_constraints_are_checked_in_a_rehearsal() {
    let Some(lab) = lab().await else { return };
    let sql = "CREATE TABLE a (x int PRIMARY KEY); \
               CREATE TABLE b (x int REFERENCES a DEFERRABLE INITIALLY DEFERRED); INSERT INTO b VALUES (1);";
    lab.write("1_a.sql", sql);
    for e in [
        lab.rehearse(Options::default()).await.map(|_| ()).expect_err("dangling"),
        lab.migrate(Options::default()).await.map(|_| ()).expect_err("dangling"),
    ] {
        assert_eq!(e.code.as_str(), codes::MIGRATION);
        assert!(e.message.contains("violates foreign key constraint"), "{}", e.message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said_without_the_password() {
    let Some(scratch) = Scratch::create().await else { return };
    let mut url = reqwest::Url::parse(&scratch.url()).expect("URL");
    url.set_username("contraflow_nobody").expect("user");
    url.set_password(Some("s3cret")).expect("password");
    let settings = PostgresSettings { url: Setting::plain(url), migrations: None, ..scratch.settings() };
    let e = made(settings, Path::new("/")).check().await.expect_err("refused");
    assert!(!format!("{e:?}").contains("s3cret"), "{e:?}");
    let fine = made(scratch.settings(), Path::new("/")).check().await.expect("answers");
    assert!(fine.starts_with("PostgreSQL ") && fine.contains(&scratch.name), "{fine}");
}
