//! The store in one SQLite file: WAL, mode 0600, in the state directory.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::Mutex;

use super::{
    record::Sealed,
    store::{Run, RunStatus, Store, StoreError},
};
use crate::script::Bundle;

const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE bundles (
    hash  TEXT PRIMARY KEY,
    files TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE runs (
    id          TEXT PRIMARY KEY,
    runbook     TEXT NOT NULL,
    version     TEXT NOT NULL,
    environment TEXT NOT NULL,
    params      TEXT NOT NULL,
    bundle      TEXT NOT NULL REFERENCES bundles (hash),
    status      TEXT NOT NULL,
    epoch       INTEGER NOT NULL,
    started_by  TEXT NOT NULL,
    started_ms  INTEGER NOT NULL,
    ended_ms    INTEGER
) WITHOUT ROWID;
CREATE INDEX runs_by_start ON runs (started_ms);
CREATE TABLE records (
    run   TEXT NOT NULL,
    seq   INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    id    TEXT NOT NULL,
    body  TEXT NOT NULL,
    hash  BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) WITHOUT ROWID;
";

/// Most records in one statement; each takes six parameters of SQLite's 32,766.
const BATCH: usize = 1000;

/// Records in one page when they are read.
const PAGE: i64 = 2000;

/// A record from its line in a page. Neither JSON text nor ids hold line breaks or unit separators.
fn parse(line: &str) -> Option<Sealed> {
    let mut fields = line.splitn(5, '\u{1f}');
    let (seq, at_ms) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (id, hex, body) = (fields.next()?.to_owned(), fields.next()?.as_bytes(), fields.next()?.to_owned());
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut hash = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Sealed { seq, at_ms, id, body, hash })
}

/// A store in one SQLite file.
///
/// Two connections write: one that syncs at every commit, for intents, and one that does not, for all the rest. In WAL mode the
/// first one's sync covers what the second one wrote before.
pub struct SqliteStore {
    path: PathBuf,
    options: SqliteConnectOptions,
    lazy: Mutex<Option<SqliteConnection>>,
    durable: Mutex<Option<SqliteConnection>>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqliteStore({})", self.path.display())
    }
}

impl SqliteStore {
    /// The store `cutover.db` in `folder`, created if it is not there.
    ///
    /// # Errors
    /// The folder cannot be created or written, or the file is no store of this version.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        create_folder(folder)?;
        let path = folder.join("cutover.db");
        create_file(&path)?;
        Self::at(path, false).await
    }

    /// The store in `folder`, for looking only. `None`: there is none yet.
    ///
    /// # Errors
    /// The file cannot be read or is no store of this version.
    pub async fn look(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join("cutover.db");
        if !path.try_exists().map_err(|e| unusable(&path, &e))? {
            return Ok(None);
        }
        Self::at(path, true).await.map(Some)
    }

    async fn at(path: PathBuf, look: bool) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite:")
            .map_err(|e| StoreError::new(e.to_string()))?
            .filename(&path)
            .create_if_missing(false)
            .busy_timeout(Duration::from_secs(10))
            .pragma("cache_size", "-8192")
            .disable_statement_logging();
        let store = Self { path, options, lazy: Mutex::default(), durable: Mutex::default() };
        store.migrate(look).await?;
        Ok(store)
    }

    async fn connect(&self, sync: SqliteSynchronous) -> Result<SqliteConnection, StoreError> {
        let options = self.options.clone().journal_mode(SqliteJournalMode::Wal).synchronous(sync);
        options.connect().await.map_err(|e| self.broken(&e))
    }

    async fn migrate(&self, look: bool) -> Result<(), StoreError> {
        let mut connection = self.connect(SqliteSynchronous::Normal).await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| self.broken(&e))?;
        if version > SCHEMA_VERSION {
            return Err(StoreError::new(format!(
                "{} was written by a newer version of Cutover",
                self.path.display()
            ))
            .hint("use that version, or another state directory"));
        }
        if version == 0 {
            if look {
                // Somebody is just creating it, or the file is empty: no runs yet either way.
                tracing::debug!(path = %self.path.display(), "store has no schema yet");
            }
            let mut transaction =
                connection.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.broken(&e))?;
            let now: i64 = sqlx::query_scalar("PRAGMA user_version")
                .fetch_one(&mut *transaction)
                .await
                .map_err(|e| self.broken(&e))?;
            if now == 0 {
                sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await.map_err(|e| self.broken(&e))?;
                sqlx::raw_sql("PRAGMA user_version = 1")
                    .execute(&mut *transaction)
                    .await
                    .map_err(|e| self.broken(&e))?;
            }
            transaction.commit().await.map_err(|e| self.broken(&e))?;
        }
        *self.lazy.lock().await = Some(connection);
        Ok(())
    }

    fn broken(&self, error: &sqlx::Error) -> StoreError {
        let path = self.path.display();
        let text = match error {
            sqlx::Error::Database(e) => e.message().to_owned(),
            other => other.to_string(),
        };
        let error = StoreError::new(format!("{path}: {text}"));
        if text.contains("full") {
            error.hint("free some space on that disk; the run can go on afterwards")
        } else if text.contains("readonly") || text.contains("unable to open") || text.contains("permission")
        {
            error.hint("make it writable for this user, or choose another place with --state-dir")
        } else if text.contains("malformed") || text.contains("not a database") {
            error.hint("the file is damaged: restore it from a backup, or move it away and start with an empty store")
        } else {
            error
        }
    }

    /// Runs `work` on one of the two connections, opening it first if need be. A connection that failed is opened anew next time.
    async fn with<T>(
        &self,
        durable: bool,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, StoreError> {
        let (slot, sync) = if durable {
            (&self.durable, SqliteSynchronous::Full)
        } else {
            (&self.lazy, SqliteSynchronous::Normal)
        };
        let mut slot = slot.lock().await;
        if slot.is_none() {
            *slot = Some(self.connect(sync).await?);
        }
        let Some(connection) = slot.as_mut() else { return Err(StoreError::new("no connection")) };
        let result = work(connection).await;
        result.map_err(|error| {
            if !matches!(error, sqlx::Error::Database(_) | sqlx::Error::RowNotFound) {
                *slot = None;
            }
            self.broken(&error)
        })
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::new(format!("{}: {error}", path.display()))
        .hint("make it writable for this user, or choose another place with --state-dir")
}

fn create_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|e| unusable(folder, &e))
}

/// The file is made here and not by SQLite, so that nobody else can read it at any moment.
fn create_file(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|e| unusable(path, &e))
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

fn run_of(row: &SqliteRow) -> Result<Run, sqlx::Error> {
    let decode = |what: &str, text: String| sqlx::Error::Decode(format!("{what}: {text}").into());
    let status: String = row.try_get("status")?;
    let params: String = row.try_get("params")?;
    Ok(Run {
        id: row.try_get("id")?,
        runbook: row.try_get("runbook")?,
        version: row.try_get("version")?,
        environment: row.try_get("environment")?,
        params: serde_json::from_str(&params).map_err(|e| decode("parameters", e.to_string()))?,
        bundle: row.try_get("bundle")?,
        status: RunStatus::parse(&status).ok_or_else(|| decode("unknown status", status))?,
        epoch: row.try_get("epoch")?,
        started_by: row.try_get("started_by")?,
        started_at: time(row.try_get("started_ms")?),
        ended_at: row.try_get::<Option<i64>, _>("ended_ms")?.map(time),
    })
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, run: &Run, bundle: &Bundle) -> Result<(), StoreError> {
        let files = bundle.to_json();
        self.with(false, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query("INSERT INTO bundles (hash, files) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(&run.bundle)
                .bind(files)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "INSERT INTO runs (id, runbook, version, environment, params, bundle, status, epoch, started_by, started_ms, ended_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&run.id)
            .bind(&run.runbook)
            .bind(&run.version)
            .bind(&run.environment)
            .bind(run.params.to_string())
            .bind(&run.bundle)
            .bind(run.status.as_str())
            .bind(run.epoch)
            .bind(&run.started_by)
            .bind(run.started_at.as_millisecond())
            .bind(run.ended_at.map(Timestamp::as_millisecond))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await
        })
        .await
    }

    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        if records.is_empty() {
            // A durable commit of anything makes all before it durable.
            return self
                .with(durable, async |connection| {
                    sqlx::query("UPDATE runs SET epoch = epoch WHERE id = ?")
                        .bind(run)
                        .execute(connection)
                        .await
                        .map(drop)
                })
                .await;
        }
        for batch in records.chunks(BATCH) {
            let written = self
                .with(durable, async |connection| {
                    // One statement, so that it is one transaction and one trip: the epoch is checked where it is written.
                    let mut query = sqlx::QueryBuilder::new(
                        "INSERT INTO records (run, seq, at_ms, id, body, hash) SELECT r.id, v.* FROM (",
                    );
                    query.push_values(batch, |mut values, record| {
                        values.push_bind(i64::try_from(record.seq).unwrap_or(i64::MAX));
                        values.push_bind(record.at_ms);
                        values.push_bind(&*record.id);
                        values.push_bind(&*record.body);
                        values.push_bind(&record.hash[..]);
                    });
                    query.push(") v CROSS JOIN runs r WHERE r.id = ").push_bind(run);
                    query.push(" AND r.epoch = ").push_bind(epoch);
                    let persistent = batch.len() <= 4;
                    query.build().persistent(persistent).execute(connection).await
                })
                .await?
                .rows_affected();
            if written == 0 {
                return Err(StoreError::new(format!("another runner has taken over the run {run}"))
                    .hint(format!("look at it with `cutover show {run}`")));
            }
        }
        Ok(())
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        self.with(false, async |connection| {
            sqlx::query("UPDATE runs SET status = ?, ended_ms = ? WHERE id = ? AND epoch = ?")
                .bind(status.as_str())
                .bind(at.as_millisecond())
                .bind(run)
                .bind(epoch)
                .execute(connection)
                .await
                .map(drop)
        })
        .await
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query("SELECT * FROM runs ORDER BY started_ms DESC, id LIMIT ?")
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(run_of).collect()
        })
        .await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(
                "SELECT * FROM runs WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1
                 ORDER BY id = ?1 DESC, started_ms DESC",
            )
            .bind(id)
            .fetch_all(connection)
            .await?;
            let mut runs = rows.iter().map(run_of).collect::<Result<Vec<_>, _>>()?;
            if runs.first().is_some_and(|run| run.id == id) {
                runs.truncate(1);
            }
            Ok(runs)
        })
        .await
    }

    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError> {
        // A row costs a trip between two threads, so rows come as one text of lines and fields.
        let page: Option<String> = self
            .with(false, async |connection| {
                sqlx::query_scalar(
                    "SELECT group_concat(seq || char(31) || at_ms || char(31) || id || char(31) || hex(hash) || char(31) || body,
                            char(10))
                     FROM records
                     WHERE run = ?1 AND seq >= (SELECT min(seq) FROM records WHERE run = ?1 AND seq > ?2)
                       AND seq < (SELECT min(seq) FROM records WHERE run = ?1 AND seq > ?2) + ?3",
                )
                .bind(run)
                .bind(i64::try_from(after).unwrap_or(i64::MAX))
                .bind(PAGE)
                .fetch_one(connection)
                .await
            })
            .await?;
        let lines = page.as_deref().map(|page| page.split('\n')).into_iter().flatten();
        let mut records = lines
            .map(|line| parse(line).ok_or_else(|| StoreError::new("a record has lost its form")))
            .collect::<Result<Vec<_>, _>>()?;
        // SQLite promises no order within an aggregate; sorting what is in order already costs next to nothing.
        records.sort_by_key(|record| record.seq);
        Ok(records)
    }

    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError> {
        let files: Option<String> = self
            .with(false, async |connection| {
                sqlx::query_scalar("SELECT files FROM bundles WHERE hash = ?")
                    .bind(hash)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        let Some(files) = files else { return Ok(None) };
        Bundle::from_json(&files)
            .map(Some)
            .map_err(|e| StoreError::new(format!("the scripts of bundle {hash} cannot be read: {e}")))
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
