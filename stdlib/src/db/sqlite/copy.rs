//! Backups of an SQLite database.

use std::{collections::BTreeMap, path::Path};

use contraflow_runtime::provider::ProviderError;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

use super::{Mode, PATIENCE, Sqlite, Stop, said};
use crate::{
    codes,
    db::{Job, Proof, Verify, sql::quoted},
};

/// Rows of each table.
type Counts = BTreeMap<String, i64>;

/// Tables that hold rows of their own. Virtual tables keep theirs in others.
const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                      AND sql NOT LIKE 'CREATE VIRTUAL%'";

async fn counts(connection: &mut SqliteConnection) -> Result<Counts, sqlx::Error> {
    let tables = sqlx::query(TABLES).fetch_all(&mut *connection).await?;
    let mut counts = Counts::new();
    for table in tables {
        let name: String = table.try_get(0)?;
        let sql = format!("SELECT count(*) FROM main.{}", quoted(&name));
        let rows = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut *connection).await?;
        counts.insert(name, rows);
    }
    Ok(counts)
}

fn broken(message: String) -> ProviderError {
    ProviderError::terminal(codes::BACKUP, message)
}

/// Copies the database as it is at one moment, and proves the copy.
pub(super) async fn backup(database: &Sqlite, job: &Job) -> Result<Proof, ProviderError> {
    let path = database.path.display();
    let failed = |e: sqlx::Error| broken(format!("{path}: {}", said(&e)));
    let mut connection = database.connect(Mode::Read, PATIENCE).await?;
    // Ends the copying when this is dropped.
    let _stop = Stop::of(&mut connection).await.map_err(failed)?;
    // Changes when another connection writes.
    let moment = database.number(&mut connection, "PRAGMA data_version").await?;
    let counted = counts(&mut connection).await.map_err(failed)?;
    sqlx::query("VACUUM INTO $1")
        .bind(job.file.display().to_string())
        .execute(&mut connection)
        .await
        .map_err(failed)?;
    let quiet = moment == database.number(&mut connection, "PRAGMA data_version").await?;
    // What was written while it was copied may or may not be in the copy.
    let expected = quiet.then_some(counted);
    let mut proof = match job.verify {
        Verify::No => return Ok(Proof { verified: "no".to_owned(), ..Proof::default() }),
        Verify::Read => prove(&job.file, None).await?,
        Verify::Restore => prove(&job.file, expected.as_ref()).await?,
    };
    if job.verify == Verify::Read {
        "read".clone_into(&mut proof.verified);
    } else if !quiet {
        "the database was written to meanwhile: the copy is intact, but its rows were not compared"
            .clone_into(&mut proof.note);
    }
    Ok(proof)
}

/// Opens a copy, checks its integrity and compares it with what is expected.
async fn prove(copy: &Path, expected: Option<&Counts>) -> Result<Proof, ProviderError> {
    let failed = |e: sqlx::Error| broken(format!("the copy cannot be read back: {}", said(&e)));
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(copy)
        .read_only(true)
        .immutable(true)
        .disable_statement_logging();
    let mut connection = options.connect().await.map_err(failed)?;
    let _stop = Stop::of(&mut connection).await.map_err(failed)?;
    let found: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(3)").fetch_all(&mut connection).await.map_err(failed)?;
    if found != ["ok"] {
        return Err(broken(format!("the copy is damaged: {}", found.join("; "))));
    }
    let counts = counts(&mut connection).await.map_err(failed)?;
    if let Some(expected) = expected
        && *expected != counts
    {
        let different = |name: &&String| expected.get(*name) != counts.get(*name);
        let name = expected.keys().chain(counts.keys()).find(different).cloned().unwrap_or_default();
        let rows = |counts: &Counts| counts.get(&name).map_or("no table".to_owned(), |n| format!("{n} rows"));
        return Err(broken(format!(
            "\"{name}\" has {} in the copy, but had {}",
            rows(&counts),
            rows(expected)
        )));
    }
    let rows = counts.values().map(|n| u64::try_from(*n).unwrap_or_default()).sum();
    Ok(Proof {
        verified: "restored".to_owned(),
        tables: Some(counts.len() as u64),
        rows: Some(rows),
        note: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn filled(path: &Path) -> Sqlite {
        let database = Sqlite::open(path, "");
        let mut connection = database.connect(Mode::Write, PATIENCE).await.expect("open");
        database
            .run(
                &mut connection,
                "CREATE TABLE a (x TEXT); CREATE INDEX i ON a (x); WITH RECURSIVE n(i) AS \
                 (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) INSERT INTO a SELECT 'row ' || i FROM n",
            )
            .await
            .expect("filled");
        sqlx::Connection::close(connection).await.expect("closed");
        database
    }

    async fn copied(folder: &Path) -> std::path::PathBuf {
        let database = filled(&folder.join("db.sqlite")).await;
        let file = folder.join("copy");
        let job = Job { file: file.clone(), verify: Verify::Restore, key: "k".to_owned() };
        let proof = backup(&database, &job).await.expect("backup");
        assert_eq!((&*proof.verified, proof.tables, proof.rows), ("restored", Some(1), Some(2000)));
        file
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_copy_is_found() {
        let folder = tempfile::tempdir().expect("folder");
        let file = copied(folder.path()).await;
        let mut bytes = std::fs::read(&file).expect("read");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 512].fill(0xa5);
        std::fs::write(&file, bytes).expect("write");
        let e = prove(&file, None).await.expect_err("damaged");
        assert_eq!(e.code.as_str(), codes::BACKUP);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_copy_that_lacks_rows_or_tables_is_found() {
        let folder = tempfile::tempdir().expect("folder");
        let file = copied(folder.path()).await;
        for (expected, message) in [
            (Counts::from([("a".to_owned(), 2001)]), "\"a\" has 2000 rows in the copy, but had 2001 rows"),
            (
                Counts::from([("a".to_owned(), 2000), ("b".to_owned(), 0)]),
                "\"b\" has no table in the copy, but had 0 rows",
            ),
        ] {
            let e = prove(&file, Some(&expected)).await.expect_err("less");
            assert_eq!(e.message, message);
        }
    }
}
