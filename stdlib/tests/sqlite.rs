//! The effects of `db` on SQLite.

#[cfg(test)]
mod support {
    pub(crate) mod db;
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use contraflow_stdlib::db::{Sqlite, migrate::Options};
    use serde_json::json;
    use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

    use super::support::db::{self, Lab, effects};

    fn file(folder: &Path) -> PathBuf {
        folder.join("main.sqlite")
    }

    fn open(folder: &Path) -> Sqlite {
        Sqlite::open(file(folder), folder.join("migrations"))
    }

    async fn lab() -> Option<Lab> {
        Some(Lab::new(open))
    }

    effects!(lab);

    /// The same with a write-ahead log, as most applications have it.
    mod wal {
        use super::*;

        async fn lab() -> Option<Lab> {
            let lab = Lab::new(open);
            let options =
                SqliteConnectOptions::new().filename(file(lab.folder.path())).create_if_missing(true);
            let mut connection = options.connect().await.expect("open");
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode = wal")
                .fetch_one(&mut connection)
                .await
                .expect("a mode");
            assert_eq!(mode, "wal");
            connection.close().await.expect("closed");
            Some(lab)
        }

        effects!(lab);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_backup_leaves_no_file() {
        let lab = Lab::new(open);
        let file = file(lab.folder.path());
        db::a_damaged_backup_leaves_no_file(&lab, || {
            let mut bytes = std::fs::read(&file).expect("read");
            let middle = bytes.len() / 2;
            bytes[middle..middle + 4096].fill(0xa5);
            std::fs::write(&file, bytes).expect("write");
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rebuilding_a_table_does_not_cascade_and_dangling_rows_are_refused() {
        let lab = Lab::new(open);
        lab.write(
            "1_a.sql",
            "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a ON DELETE CASCADE); \
             INSERT INTO a VALUES (1), (2); INSERT INTO b VALUES (1), (2);",
        );
        lab.write(
            "2_rebuild.sql",
            "CREATE TABLE a2 (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO a2 (id) SELECT id FROM a; DROP TABLE a; \
             ALTER TABLE a2 RENAME TO a;",
        );
        lab.migrate(Options::default()).await.expect("applied");
        let two = json!([{ "n": 2 }]);
        assert_eq!(lab.rows("SELECT count(*) AS n FROM b").await, two);
        lab.write("3_delete.sql", "DELETE FROM a WHERE id = 1;");
        let e = lab.migrate(Options::default()).await.expect_err("dangling");
        assert!(
            e.message
                .starts_with("3_delete.sql: leaves rows with dangling foreign keys: 1, the first in \"b\""),
            "{}",
            e.message
        );
        assert_eq!(lab.rows("SELECT count(*) AS n FROM a").await, two);
    }
}
