//! The contract of databases on SQLite, and what only SQLite does.

use std::path::Path;

use contraflow_runtime::{
    effect::{Change as _, Read as _},
    provider::Provider as _,
};

use super::{Settings, Sqlite};
use crate::db::{
    Migrations as _, Table,
    contract::{self, Lab, contracts},
    folder::Folder,
    migrate::{Migrate, Options},
};

fn open(folder: &Path) -> Sqlite {
    Sqlite::open(folder.join("main.sqlite"), folder.join("migrations"))
}

async fn lab() -> Option<Lab> {
    Some(Lab::new(open))
}

contracts!(lab);

/// The same with a write-ahead log, as most applications have it.
mod wal {
    use super::{super::Mode, contract, contracts, open};
    use crate::db::contract::Lab;

    async fn lab() -> Option<Lab> {
        let mut database = None;
        let lab = Lab::new(|folder| database.insert(open(folder)).clone());
        let database = database.expect("made");
        let mut connection = database.connect(Mode::Write, super::super::PATIENCE).await.expect("open");
        assert_eq!(database.text(&mut connection, "PRAGMA journal_mode = wal").await.as_deref(), Ok("wal"));
        Some(lab)
    }

    contracts!(lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_writer_was_killed_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("folder");
    let database = open(folder.path());
    let mut writer = database.connect(super::Mode::Write, super::PATIENCE).await.expect("open");
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
    let mut reader = killed.connect(super::Mode::Read, super::PATIENCE).await.expect("open");
    assert_eq!(killed.number(&mut reader, "SELECT count(*) FROM a WHERE x <> ''").await, Ok(50));
    assert_eq!(killed.text(&mut reader, "PRAGMA integrity_check").await.as_deref(), Ok("ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilding_a_table_does_not_cascade_and_dangling_rows_are_refused() {
    let lab = Lab::new(open);
    let write = |name: &str, sql: &str| {
        std::fs::write(lab.folder.path().join("migrations").join(name), sql).expect("written");
    };
    write(
        "1_a.sql",
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a ON DELETE CASCADE); \
         INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1), (2);",
    );
    write(
        "2_rebuild.sql",
        "CREATE TABLE a2 (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO a2 (id) SELECT id FROM a; DROP TABLE a; \
         ALTER TABLE a2 RENAME TO a;",
    );
    let migrate = async || {
        let files = Folder { database: "main".into(), dir: None }.read(&lab.on).await.expect("files");
        let change = Migrate::new("main", files, Options::default());
        let from = change.observe(&lab.on).await.expect("history");
        let to = change.desired(&from).expect("wanted");
        change.apply(&lab.on, &from, &to).await
    };
    migrate().await.expect("applied");
    let database = open(lab.folder.path());
    let mut reader = database.connect(super::Mode::Read, super::PATIENCE).await.expect("open");
    assert_eq!(database.number(&mut reader, "SELECT count(*) FROM b").await, Ok(2));
    write("3_delete.sql", "DELETE FROM a WHERE id = 1;");
    let e = migrate().await.expect_err("dangling");
    assert!(
        e.message.starts_with("3_delete.sql: leaves rows with dangling foreign keys: 1, the first in \"b\""),
        "{}",
        e.message
    );
    assert_eq!(database.number(&mut reader, "SELECT count(*) FROM a").await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_fails_and_leaves_no_file() {
    let lab = Lab::new(open);
    let file = lab.folder.path().join("main.sqlite");
    contract::a_damaged_backup_fails_and_leaves_no_file(&lab, || {
        let mut bytes = std::fs::read(&file).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4096].fill(0xa5);
        std::fs::write(&file, bytes).expect("write");
    })
    .await;
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
