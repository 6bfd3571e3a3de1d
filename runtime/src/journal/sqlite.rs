//! The store in one SQLite file: WAL, mode 0600, in the state directory.

use std::{
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::Mutex;

use super::{
    columns::{asked_of, columns, json, lock_of, parsed, run_of, sealed_of},
    record::Sealed,
    store::{Asked, Beat, Holder, Lock, Request, Run, RunStatus, Store, StoreError, Used},
};
use crate::{effect::Reply, script::Bundle};

/// What each version of the schema adds to the one before. Written once, never changed: files of every version are around.
const SCHEMA: [&str; 3] = [
    "
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
",
    "
ALTER TABLE runs ADD COLUMN holder TEXT;
ALTER TABLE runs ADD COLUMN beat_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE runs ADD COLUMN request TEXT;
CREATE TABLE locks (
    environment TEXT NOT NULL,
    target      TEXT NOT NULL,
    run         TEXT NOT NULL,
    since_ms    INTEGER NOT NULL,
    PRIMARY KEY (environment, target)
) WITHOUT ROWID;
CREATE TABLE questions (
    run      TEXT NOT NULL,
    id       TEXT NOT NULL,
    question TEXT NOT NULL,
    at_ms    INTEGER NOT NULL,
    until_ms INTEGER,
    PRIMARY KEY (run, id)
) WITHOUT ROWID;
CREATE TABLE answers (
    run   TEXT NOT NULL,
    id    TEXT NOT NULL,
    n     INTEGER NOT NULL,
    reply TEXT NOT NULL,
    PRIMARY KEY (run, id, n)
) WITHOUT ROWID;
",
    "
CREATE TABLE plans (
    plan     TEXT PRIMARY KEY,
    run      TEXT NOT NULL UNIQUE,
    until_ms INTEGER NOT NULL,
    binding  TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE approvals (
    plan     TEXT NOT NULL,
    n        INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    reply    TEXT NOT NULL,
    PRIMARY KEY (plan, n)
) WITHOUT ROWID;
",
];

/// Runs, each with the plan that it was started from.
macro_rules! runs {
    () => {
        "SELECT *, (SELECT plan FROM plans WHERE plans.run = runs.id) AS plan FROM runs"
    };
}

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
            .auto_vacuum(SqliteAutoVacuum::Incremental)
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
        let newest = i64::try_from(SCHEMA.len()).unwrap_or(i64::MAX);
        if version > newest {
            return Err(StoreError::new(format!(
                "{} was written by a newer version of Cutover",
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

    /// Keeps a new run, and that it uses a plan up. Some: another run has used the plan.
    async fn begin(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: Option<&Used>,
    ) -> Result<Option<String>, StoreError> {
        let files = bundle.to_json();
        self.with(false, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(Used { plan, until, binding }) = used {
                let before = sqlx::query_scalar("SELECT run FROM plans WHERE plan = ?")
                    .bind(plan)
                    .fetch_optional(&mut *transaction)
                    .await?;
                if before.is_some() {
                    return Ok(before);
                }
                sqlx::query("INSERT INTO plans (plan, run, until_ms, binding) VALUES ($1, $2, $3, $4)")
                    .bind(plan)
                    .bind(&run.id)
                    .bind(until.as_millisecond())
                    .bind(binding)
                    .execute(&mut *transaction)
                    .await?;
            }
            sqlx::query("INSERT INTO bundles (hash, files) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(&run.bundle)
                .bind(files)
                .execute(&mut *transaction)
                .await?;
            sqlx::query(
                "INSERT INTO runs (id, runbook, version, environment, params, bundle, status, epoch, started_by, started_ms, ended_ms,
                                   holder, beat_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
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
            .bind(json(holder))
            .bind(now())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(None)
        })
        .await
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

/// The clock of the store is the one of this machine.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

columns!(SqliteRow);

/// Removes what only a run that goes on needs.
const LET_GO: [&str; 3] = [
    "DELETE FROM locks WHERE run = $1",
    "DELETE FROM questions WHERE run = $1",
    "DELETE FROM answers WHERE run = $1",
];

/// Runs that ended before a time and cannot go on.
const OLD: &str =
    "SELECT id FROM runs WHERE ended_ms < $1 AND status NOT IN ('running', 'paused', 'rollback_incomplete')";

#[async_trait]
impl Store for SqliteStore {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        self.begin(run, bundle, holder, None).await.map(drop)
    }

    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError> {
        self.begin(run, bundle, holder, Some(used)).await
    }

    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        self.with(false, async |connection| {
            sqlx::query_scalar("SELECT run FROM plans WHERE plan = ?")
                .bind(plan)
                .fetch_optional(connection)
                .await
        })
        .await
    }

    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        self.with(false, async |connection| {
            sqlx::query_scalar("SELECT binding FROM plans WHERE run = ?")
                .bind(run)
                .fetch_optional(connection)
                .await
        })
        .await
    }

    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError> {
        self.with(true, async |connection| {
            sqlx::query(
                "INSERT INTO approvals (plan, n, until_ms, reply)
                 SELECT $1, (SELECT count(*) FROM approvals WHERE plan = $1), $2, $3",
            )
            .bind(plan)
            .bind(until.as_millisecond())
            .bind(json(reply))
            .execute(connection)
            .await
            .map(drop)
        })
        .await
    }

    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        self.with(false, async |connection| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM approvals WHERE plan = ? ORDER BY n")
                    .bind(plan)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("approval", reply)).collect()
        })
        .await
    }

    async fn claim(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        self.with(true, async |connection| {
            let claimed = sqlx::query(
                "UPDATE runs SET epoch = epoch + 1, status = 'running', ended_ms = NULL, request = NULL, holder = $3, beat_ms = $4
                 WHERE id = $1 AND epoch = $2",
            )
            .bind(run)
            .bind(epoch)
            .bind(json(holder))
            .bind(now())
            .execute(connection)
            .await?;
            Ok(claimed.rows_affected() == 1)
        })
        .await
    }

    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        let (hash, files) = (bundle.hash(), bundle.to_json());
        let bound = self
            .with(true, async |connection| {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                sqlx::query("INSERT INTO bundles (hash, files) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(&hash)
                    .bind(files)
                    .execute(&mut *transaction)
                    .await?;
                let bound = sqlx::query("UPDATE runs SET bundle = $3 WHERE id = $1 AND epoch = $2")
                    .bind(run)
                    .bind(epoch)
                    .bind(&hash)
                    .execute(&mut *transaction)
                    .await?
                    .rows_affected();
                transaction.commit().await?;
                Ok(bound == 1)
            })
            .await?;
        if bound { Ok(()) } else { Err(StoreError::lost(run)) }
    }

    async fn beat(&self, run: &str, epoch: i64) -> Result<Beat, StoreError> {
        self.with(false, async |connection| {
            let request: Option<Option<String>> = sqlx::query_scalar(
                "UPDATE runs SET beat_ms = $3 WHERE id = $1 AND epoch = $2 AND status = 'running' RETURNING request",
            )
            .bind(run)
            .bind(epoch)
            .bind(now())
            .fetch_optional(connection)
            .await?;
            let Some(request) = request else { return Ok(Beat::Lost) };
            Ok(Beat::Held(request.map(|request| parsed("request", &request)).transpose()?))
        })
        .await
    }

    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        self.with(false, async |connection| {
            sqlx::query("UPDATE runs SET request = $2 WHERE id = $1 AND status = 'running'")
                .bind(run)
                .bind(json(request))
                .execute(connection)
                .await
                .map(drop)
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
            let written = self
                .with(durable, async |connection| {
                    sqlx::query("UPDATE runs SET epoch = epoch WHERE id = $1 AND epoch = $2")
                        .bind(run)
                        .bind(epoch)
                        .execute(connection)
                        .await
                })
                .await?
                .rows_affected();
            return if written == 0 { Err(StoreError::lost(run)) } else { Ok(()) };
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
                return Err(StoreError::lost(run));
            }
        }
        Ok(())
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        let ended = self
            .with(false, async |connection| {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let ended = sqlx::query(
                    "UPDATE runs SET status = $3, ended_ms = $4, holder = NULL, request = NULL WHERE id = $1 AND epoch = $2",
                )
                .bind(run)
                .bind(epoch)
                .bind(status.as_str())
                .bind(at.as_millisecond())
                .execute(&mut *transaction)
                .await?
                .rows_affected()
                    == 1;
                if ended && !status.can_go_on() {
                    for statement in LET_GO {
                        sqlx::query(statement).bind(run).execute(&mut *transaction).await?;
                    }
                }
                transaction.commit().await?;
                Ok(ended)
            })
            .await?;
        if ended { Ok(()) } else { Err(StoreError::lost(run)) }
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
        let Asked { run, id, question, at, until } = asked;
        let written = self
            .with(false, async |connection| {
                sqlx::query(
                    "INSERT INTO questions (run, id, question, at_ms, until_ms)
                     SELECT id, $3, $4, $5, $6 FROM runs WHERE id = $1 AND epoch = $2
                     ON CONFLICT (run, id) DO UPDATE SET question = excluded.question",
                )
                .bind(run)
                .bind(epoch)
                .bind(id)
                .bind(json(question))
                .bind(at.as_millisecond())
                .bind(until.map(Timestamp::as_millisecond))
                .execute(connection)
                .await
            })
            .await?
            .rows_affected();
        if written == 0 { Err(StoreError::lost(run)) } else { Ok(()) }
    }

    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        self.with(false, async |connection| {
            let rows =
                sqlx::query("SELECT * FROM questions WHERE $1 IS NULL OR run = $1 ORDER BY at_ms, run, id")
                    .bind(run)
                    .fetch_all(connection)
                    .await?;
            rows.iter().map(asked_of).collect()
        })
        .await
    }

    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        self.with(true, async |connection| {
            let answered = sqlx::query(
                "INSERT INTO answers (run, id, n, reply)
                 SELECT run, id, (SELECT count(*) FROM answers a WHERE a.run = q.run AND a.id = q.id), $3
                 FROM questions q WHERE run = $1 AND id = $2 AND (until_ms IS NULL OR until_ms > $4)",
            )
            .bind(run)
            .bind(id)
            .bind(json(reply))
            .bind(now())
            .execute(connection)
            .await?;
            Ok(answered.rows_affected() == 1)
        })
        .await
    }

    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        self.with(false, async |connection| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM answers WHERE run = $1 AND id = $2 ORDER BY n")
                    .bind(run)
                    .bind(id)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("answer", reply)).collect()
        })
        .await
    }

    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        self.with(false, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for table in ["questions", "answers"] {
                let statement = format!(
                    "DELETE FROM {table} WHERE run = $1 AND id = $3
                     AND EXISTS (SELECT 1 FROM runs r WHERE r.id = $1 AND r.epoch = $2)"
                );
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .bind(run)
                    .bind(epoch)
                    .bind(id)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        })
        .await
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(concat!(runs!(), " ORDER BY started_ms DESC, id LIMIT ?"))
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| run_of(row, now())).collect()
        })
        .await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(concat!(
                runs!(),
                " WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1
                 ORDER BY id = ?1 DESC, started_ms DESC"
            ))
            .bind(id)
            .fetch_all(connection)
            .await?;
            let mut runs = rows.iter().map(|row| run_of(row, now())).collect::<Result<Vec<_>, _>>()?;
            if runs.first().is_some_and(|run| run.id == id) {
                runs.truncate(1);
            }
            Ok(runs)
        })
        .await
    }

    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError> {
        self.with(false, async |connection| {
            let row = sqlx::query("SELECT * FROM records WHERE run = $1 ORDER BY seq DESC LIMIT 1")
                .bind(run)
                .fetch_optional(connection)
                .await?;
            row.as_ref().map(sealed_of).transpose()
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

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.with(true, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM records WHERE run IN ({OLD})")))
                .bind(before.as_millisecond())
                .execute(&mut *transaction)
                .await?;
            let gone = sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM runs WHERE id IN ({OLD})")))
                .bind(before.as_millisecond())
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            for statement in [
                "DELETE FROM plans WHERE until_ms < $1 AND run NOT IN (SELECT id FROM runs)",
                "DELETE FROM approvals WHERE until_ms < $1 AND plan NOT IN (SELECT plan FROM plans)",
            ] {
                sqlx::query(statement).bind(before.as_millisecond()).execute(&mut *transaction).await?;
            }
            sqlx::query("DELETE FROM bundles WHERE hash NOT IN (SELECT bundle FROM runs)")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            // Gives the space back to the disk.
            sqlx::query("PRAGMA incremental_vacuum").execute(&mut *connection).await?;
            Ok(gone)
        })
        .await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.with(false, async |connection| {
            let mut found: Vec<String> =
                sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *connection).await?;
            found.retain(|line| line != "ok");
            let orphans: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT run) FROM records WHERE run NOT IN (SELECT id FROM runs)",
            )
            .fetch_one(&mut *connection)
            .await?;
            if orphans > 0 {
                found.push(format!("records of {orphans} runs that are not in the list of runs"));
            }
            let scriptless: Vec<String> =
                sqlx::query_scalar("SELECT id FROM runs WHERE bundle NOT IN (SELECT hash FROM bundles)")
                    .fetch_all(connection)
                    .await?;
            found.extend(scriptless.into_iter().map(|run| format!("the scripts of {run} are missing")));
            Ok(found)
        })
        .await
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
