//! The contract of databases on SQLite, and what only SQLite does.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use contraflow_provider::contract::db as contract;
use contraflow_runtime::provider::Provider as _;
use sqlx::Connection as _;
use tempfile::TempDir;

use super::{Mode, PATIENCE, Settings, Sqlite};
use crate::db::{Database, Migrations as _, Table};

fn open(folder: &Path) -> Sqlite {
    Sqlite::open(folder.join("main.sqlite"), folder.join("migrations"))
}

/// A database in a folder of its own. Without migrations in files: the contract brings its own.
struct Lab {
    folder: TempDir,
    database: Sqlite,
}

impl Lab {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        Self { database: open(folder.path()), folder }
    }

    /// One with a write-ahead log, as most applications have it.
    async fn wal() -> Self {
        let lab = Self::new().await;
        let mut connection = lab.database.connect(Mode::Write, PATIENCE).await.expect("open");
        let mode = lab.database.text(&mut connection, "PRAGMA journal_mode = wal").await;
        assert_eq!(mode.as_deref(), Ok("wal"));
        connection.close().await.expect("closed");
        lab
    }

    fn file(&self) -> PathBuf {
        self.database.path.clone()
    }
}

#[async_trait]
impl contract::Fixture for Lab {
    fn database(&self) -> Arc<dyn Database> {
        Arc::new(self.database.clone())
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self, sql: &str) {
        let mut connection = self.database.connect(Mode::Write, PATIENCE).await.expect("open");
        self.database.run(&mut connection, sql).await.expect(sql);
        connection.close().await.expect("closed");
    }

    fn lock_holder(&self) -> &[&str] {
        &["another process held the write lock"]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_keep_their_contract() {
    contract::migrations::holds(Lab::new).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_keep_their_contract_with_a_write_ahead_log() {
    contract::migrations::holds(Lab::wal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_keep_their_contract() {
    contract::queries::holds(Lab::new).await;
    contract::queries::holds(Lab::wal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_keep_their_contract() {
    contract::backups::holds(Lab::new).await;
    contract::backups::holds(Lab::wal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_backup_is_found() {
    let lab = Lab::new().await;
    contract::backups::damage_is_found(&lab, || {
        let mut bytes = std::fs::read(lab.file()).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        std::fs::write(lab.file(), bytes).expect("write");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_writer_was_killed_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("folder");
    let database = open(folder.path());
    let mut writer = database.connect(Mode::Write, PATIENCE).await.expect("open");
    let rows = |n: u32| {
        format!(
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {n}) INSERT INTO a SELECT hex(randomblob(400)) FROM c"
        )
    };
    database.run(&mut writer, &format!("CREATE TABLE a (x TEXT); {}", rows(50))).await.expect("filled");
    // So little memory that the file is written to before the transaction ends.
    let sql = format!("PRAGMA cache_size = 2; BEGIN; UPDATE a SET x = ''; {}", rows(500));
    database.run(&mut writer, &sql).await.expect("spilled");
    let killed = folder.path().join("killed.sqlite");
    for (from, to) in [("main.sqlite", "killed.sqlite"), ("main.sqlite-journal", "killed.sqlite-journal")] {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).expect("copied");
    }
    let killed = Sqlite::open(killed, "");
    assert_eq!(killed.history(&Table::default()).await, Ok(Vec::new()));
    let mut reader = killed.connect(Mode::Read, PATIENCE).await.expect("open");
    assert_eq!(killed.number(&mut reader, "SELECT count(*) FROM a WHERE x <> ''").await, Ok(50));
    assert_eq!(killed.text(&mut reader, "PRAGMA integrity_check").await.as_deref(), Ok("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_makes_no_file_and_a_target_may_refuse_to_make_one() {
    let folder = tempfile::tempdir().expect("folder");
    let settings = |create| Settings { path: "db.sqlite".into(), migrations: None, create };
    let place = |path: &str| folder.path().join(path);
    let may = Sqlite::new(settings(true), place);
    assert_eq!(may.history(&Table::default()).await, Ok(Vec::new()));
    assert_eq!(may.check().await, Ok("no file yet; the first migration makes it".to_owned()));
    let may_not = Sqlite::new(settings(false), place);
    let e = may_not.history(&Table::default()).await.expect_err("no file");
    assert!(e.message.ends_with("there is no such file"), "{}", e.message);
    assert!(!place("db.sqlite").exists());
}
