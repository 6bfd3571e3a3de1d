//! The store in one SQLite file: WAL, mode 0600, in the state directory.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::Mutex;

use self::schema::SCHEMA;
use super::{columns::columns, store::StoreError};

mod locks;
mod maintenance;
mod plans;
mod questions;
mod records;
mod runs;
mod schema;

columns!(SqliteRow);

/// Pages of the log at which what it holds is moved into the database and it is written from its start again. A program that opens the
/// store first reads the log up to where it ends, so a short one is opened sooner.
const LOG_PAGES: u64 = 256;

/// Durable writes after which the log is brought to its full length: it costs a few milliseconds, which a short run would not get back.
const LONG_RUN: u32 = 16;

/// Bytes of a page, as SQLite has them unless told otherwise.
const PAGE: u64 = 4096;

/// Longest time to wait for others that write.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in one SQLite file.
///
/// Two connections write: one that syncs at every commit, for intents, and one that does not, for all the rest. In WAL mode the
/// first one's sync covers what the second one wrote before.
pub struct SqliteStore {
    path: PathBuf,
    options: SqliteConnectOptions,
    lazy: Mutex<Option<SqliteConnection>>,
    durable: Mutex<Option<SqliteConnection>>,
    /// How many writes were durable so far.
    writes: AtomicU32,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqliteStore({})", self.path.display())
    }
}

impl SqliteStore {
    /// The store `contraflow.db` in `folder`, created if it is not there.
    ///
    /// # Errors
    /// The folder cannot be created or written, or the file is no store of this version.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        create_folder(folder)?;
        let path = folder.join("contraflow.db");
        create_file(&path)?;
        Self::at(path, false).await
    }

    /// The store in `folder`, for looking only. `None`: there is none yet.
    ///
    /// # Errors
    /// The file cannot be read or is no store of this version.
    pub async fn look(folder: &Path) -> Result<Option<Self>, StoreError> {
        let path = folder.join("contraflow.db");
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
            .busy_timeout(PATIENCE)
            .pragma("cache_size", "-8192")
            .pragma("wal_autocheckpoint", LOG_PAGES.to_string())
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .disable_statement_logging();
        let (lazy, durable) = (Mutex::default(), Mutex::default());
        let store = Self { path, options, lazy, durable, writes: AtomicU32::default() };
        store.migrate(look).await?;
        Ok(store)
    }

    async fn connect(&self, sync: SqliteSynchronous) -> Result<SqliteConnection, StoreError> {
        let options = self.options.clone().journal_mode(SqliteJournalMode::Wal).synchronous(sync);
        let begun = Instant::now();
        loop {
            match options.connect().await {
                // Of those that find a new file at the same moment one turns its log on. SQLite does not let the others wait.
                Err(error) if is_busy(&error) && begun.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                connected => return connected.map_err(|e| self.broken(&e)),
            }
        }
    }

    async fn migrate(&self, look: bool) -> Result<(), StoreError> {
        let mut connection = self.connect(SqliteSynchronous::Normal).await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| self.broken(&e))?;
        let newest = i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX);
        if version > newest {
            return Err(StoreError::new(format!(
                "{} was written by a newer version of Contraflow",
                self.path.display()
            ))
            .hint("use that version, or another state directory"));
        }
        if version < newest {
            if look && version == 0 {
                // Somebody is just creating it, or the file is empty: no runs yet either way.
                tracing::debug!(path = %self.path.display(), "store has no schema yet");
            }
            let mut transaction =
                connection.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.broken(&e))?;
            let now: i64 = sqlx::query_scalar("PRAGMA user_version")
                .fetch_one(&mut *transaction)
                .await
                .map_err(|e| self.broken(&e))?;
            // Somebody else may have done it meanwhile.
            for (step, to) in SCHEMA.iter().zip(1..).skip(usize::try_from(now).unwrap_or(usize::MAX)) {
                sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(|e| self.broken(&e))?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {to}")))
                    .execute(&mut *transaction)
                    .await
                    .map_err(|e| self.broken(&e))?;
            }
            transaction.commit().await.map_err(|e| self.broken(&e))?;
        }
        *self.lazy.lock().await = Some(connection);
        Ok(())
    }

    /// Brings the log to its full length in a long run, if it is shorter: a commit that writes over a part of a file is durable sooner than
    /// one that makes the file longer, for then the disk has to keep the new length as well. SQLite fills it itself, with what
    /// it then takes back, so that whoever else has the store open is not disturbed. On a disk without that much room it stays as long
    /// as it is.
    async fn lengthen_log(&self) {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        if std::fs::metadata(log).is_ok_and(|log| log.len() >= LOG_PAGES * PAGE) {
            return;
        }
        // On a connection of its own: what does not fit into its small memory goes to the log before it is committed, and a full disk
        // leaves it in a state of which the others know nothing. The last pages fit, so there are some more.
        let filled = async {
            let mut connection = self.connect(SqliteSynchronous::Normal).await?;
            let fill = format!(
                "PRAGMA cache_size = 8; BEGIN IMMEDIATE; CREATE TABLE filler (bytes BLOB);
                 INSERT INTO filler VALUES (zeroblob({})); ROLLBACK",
                (LOG_PAGES + 32) * PAGE
            );
            let filled = sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&mut connection).await;
            filled.map_err(|e| self.broken(&e))?;
            connection.close().await.map_err(|e| self.broken(&e))
        };
        if let Err(error) = filled.await {
            tracing::debug!(path = %self.path.display(), %error, "the log stays short");
        }
    }

    fn broken(&self, error: &sqlx::Error) -> StoreError {
        let path = self.path.display();
        if is_busy(error) {
            return StoreError::new(format!("{path}: another process has held its write lock for {} s", PATIENCE.as_secs()))
                .hint("a process that was stopped in the middle of a write keeps the lock: let it continue, or end it");
        }
        let text = match error {
            sqlx::Error::Database(e) => e.message().to_owned(),
            other => other.to_string(),
        };
        let error = StoreError::new(format!("{path}: {text}"));
        if text.contains("full") {
            error.hint("free some space on that disk, then resume the run")
        } else if text.contains("readonly") || text.contains("unable to open") || text.contains("permission")
        {
            error.hint("make it writable for this user, or choose another folder with --state-dir")
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
        let result = work(connection).await.map_err(|error| {
            if !matches!(error, sqlx::Error::Database(_) | sqlx::Error::RowNotFound) {
                *slot = None;
            }
            self.broken(&error)
        });
        drop(slot);
        if durable && self.writes.fetch_add(1, Ordering::Relaxed) + 1 == LONG_RUN {
            self.lengthen_log().await;
        }
        result
    }
}

/// Whether another has the file to itself at the moment.
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    let code = error.as_database_error().and_then(|e| e.code()?.parse::<i32>().ok());
    // The rest of it says why.
    code.is_some_and(|code| code & 0xff == BUSY)
}

fn unusable(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::new(format!("{}: {error}", path.display()))
        .hint("make it writable for this user, or choose another folder with --state-dir")
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

/// The clock of the store is the one of this machine.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
