//! The store in one SQLite file: WAL, mode 0600, in the state directory.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::Mutex;

use self::schema::SCHEMA;
use super::{
    columns::{columns, lock_of},
    record::Sealed,
    store::{Asked, Heartbeat, Holder, Lock, Request, Run, RunStatus, Store, StoreError, Used},
};
use crate::{effect::Reply, script::Bundle};

mod people;
mod plans;
mod records;
mod runs;
mod schema;

columns!(SqliteRow);

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
            .auto_vacuum(SqliteAutoVacuum::Incremental)
            .disable_statement_logging();
        let store = Self { path, options, lazy: Mutex::default(), durable: Mutex::default() };
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

/// Whether another has the file to itself at the moment.
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    let code = error.as_database_error().and_then(|e| e.code()?.parse::<i32>().ok());
    // The rest of it says why.
    code.is_some_and(|code| code & 0xff == BUSY)
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

/// The clock of the store is the one of this machine.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        runs::begin(self, run, bundle, holder, None).await.map(drop)
    }

    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError> {
        runs::begin(self, run, bundle, holder, Some(used)).await
    }

    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        plans::plan_used(self, plan).await
    }

    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        plans::binding(self, run).await
    }

    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError> {
        plans::approve(self, plan, until, reply).await
    }

    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        plans::approvals(self, plan).await
    }

    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError> {
        plans::void_approvals(self, plan).await
    }

    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        runs::acquire(self, run, epoch, holder).await
    }

    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        runs::rebind(self, run, epoch, bundle).await
    }

    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError> {
        runs::heartbeat(self, run, epoch).await
    }

    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        runs::request(self, run, request).await
    }

    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        records::append(self, run, epoch, records, durable).await
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        runs::end(self, run, epoch, status, at).await
    }

    async fn lock(
        &self,
        run: &str,
        epoch: i64,
        environment: &str,
        target: &str,
    ) -> Result<Option<Lock>, StoreError> {
        let held = self
            .with(false, async |connection| {
                // One transaction: whoever has it must not let go of it in between.
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let mine: bool =
                    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE id = $1 AND epoch = $2)")
                        .bind(run)
                        .bind(epoch)
                        .fetch_one(&mut *transaction)
                        .await?;
                if !mine {
                    return Ok(None);
                }
                sqlx::query(
                    "INSERT INTO locks (environment, target, run, since_ms) VALUES ($1, $2, $3, $4)
                     ON CONFLICT DO NOTHING",
                )
                .bind(environment)
                .bind(target)
                .bind(run)
                .bind(now())
                .execute(&mut *transaction)
                .await?;
                let held = sqlx::query(
                    "SELECT l.*, r.started_by FROM locks l JOIN runs r ON r.id = l.run
                     WHERE l.environment = $1 AND l.target = $2",
                )
                .bind(environment)
                .bind(target)
                .fetch_optional(&mut *transaction)
                .await?;
                transaction.commit().await?;
                held.as_ref().map(lock_of).transpose()
            })
            .await?;
        match held {
            Some(held) if held.run == run => Ok(None),
            Some(held) => Ok(Some(held)),
            None => Err(StoreError::lost(run)),
        }
    }

    async fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(
                "SELECT l.*, r.started_by FROM locks l JOIN runs r ON r.id = l.run ORDER BY l.since_ms, l.environment, l.target",
            )
            .fetch_all(connection)
            .await?;
            rows.iter().map(lock_of).collect()
        })
        .await
    }

    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
        people::ask(self, epoch, asked).await
    }

    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        people::asked(self, run).await
    }

    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        people::answer(self, run, id, reply).await
    }

    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        people::answers(self, run, id).await
    }

    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        people::close(self, run, epoch, id).await
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        runs::runs(self, limit).await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        runs::find(self, id).await
    }

    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError> {
        records::last(self, run).await
    }

    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError> {
        records::page(self, run, after).await
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

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        runs::prune(self, before).await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        records::check(self).await
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
