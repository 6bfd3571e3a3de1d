//! The contract of databases on SQLite, and what only SQLite does.

use std::path::Path;

use cutover_runtime::provider::Provider as _;

use super::{Settings, Sqlite};
use crate::db::{
    Database as _,
    contract::{self, Lab, contracts},
    history::Table,
};

fn open(folder: &Path) -> Sqlite {
    Sqlite::open(folder.join("main.sqlite"), folder.join("migrations"))
}

async fn lab() -> Option<Lab> {
    Some(Lab::new(open))
}

contracts!(lab);

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
