//! Migrating an SQLite database.

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On, error::codes as runtime_codes, provider::ProviderError, quantity::Span,
};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};

use super::{Ended, Mode, Sqlite, Stop, primary_code, run_within, said, table_name};
use crate::db::{Dialect, NOTHING_DONE, Record, Session, Step, Table, Work, checksum, refused, sql};

/// The rows of the history table.
pub(super) async fn history(
    database: &Sqlite,
    connection: &mut SqliteConnection,
    table: &Table,
) -> Result<Vec<Record>, ProviderError> {
    let name = table_name(table)?;
    let found: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND lower(name) = lower($1)",
    )
    .bind(table.name())
    .fetch_one(&mut *connection)
    .await
    .map_err(|e| database.failed(&e))?;
    if found == 0 {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT name, checksum, down_checksum, down_sql FROM {name} ORDER BY version");
    let rows =
        sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await.map_err(|e| database.failed(&e))?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        Ok::<_, sqlx::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?))
    };
    rows.iter()
        .map(|row| {
            let (name, checksum, down_checksum, down) = read(row).map_err(|e| database.failed(&e))?;
            Record::read(name, checksum, down_checksum, down)
        })
        .collect()
}

/// A connection that runs migrations. Each file takes the write lock of the database for itself (`BEGIN IMMEDIATE`).
pub(super) struct Migration<'a> {
    database: &'a Sqlite,
    // Before the connection, so that it stops working before it is closed.
    stop: Stop,
    connection: SqliteConnection,
    table: Table,
    lock_timeout: Span,
    statement_timeout: Span,
    /// Rows whose foreign key points nowhere, if that can be told.
    dangling: Option<usize>,
}

impl<'a> Migration<'a> {
    pub(super) async fn begin(database: &'a Sqlite, work: &Work) -> Result<Self, ProviderError> {
        let mut connection = database.connect(Mode::Write, work.lock_timeout.0).await?;
        let stop = Stop::of(&mut connection).await.map_err(|e| database.failed(&e))?;
        let name = table_name(&work.table)?;
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {name} (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, \
             down_checksum TEXT, down_sql TEXT, applied_at TEXT NOT NULL, elapsed_ms INTEGER NOT NULL)"
        );
        let made = database.run(&mut connection, &sql).await;
        made.map_err(|e| locked(database, work.lock_timeout, e))?;
        let mut this = Self {
            database,
            stop,
            connection,
            table: work.table.clone(),
            lock_timeout: work.lock_timeout,
            statement_timeout: work.statement_timeout,
            dangling: None,
        };
        this.dangling = this.count_dangling().await.map(|(rows, _)| rows);
        Ok(this)
    }

    pub(super) async fn end(self) -> Result<(), ProviderError> {
        let database = self.database;
        self.connection.close().await.map_err(|e| database.failed(&e))
    }

    /// How many rows have a foreign key that points nowhere, and the table of the first. `None`: a foreign key is declared in a
    /// way that SQLite cannot check, such as one to a column that is not unique.
    async fn count_dangling(&mut self) -> Option<(usize, String)> {
        let checked = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut self.connection).await;
        let rows = checked.ok()?;
        let table = rows.first().and_then(|row| row.try_get::<String, _>(0).ok()).unwrap_or_default();
        Some((rows.len(), table))
    }

    /// Takes the write lock.
    async fn lock(&mut self, sql: &'static str) -> Result<(), ProviderError> {
        let ran = self.database.run(&mut self.connection, sql).await;
        ran.map_err(|e| locked(self.database, self.lock_timeout, e))
    }

    /// Runs the file itself.
    async fn file(&mut self, step: &Step<'_>) -> Result<(), ProviderError> {
        let text = step.sql().to_owned();
        let limit = self.statement_timeout;
        let sql = sqlx::raw_sql(AssertSqlSafe(text));
        let ran = run_within(&mut self.connection, &self.stop, sql, limit.0, |_| Ok(())).await;
        let Err((done, ended)) = ran else { return Ok(()) };
        // Each statement is atomic.
        let untouched = done == 0;
        let statements = sql::statements(step.sql(), Dialect::Sqlite);
        let place = match statements.get(done) {
            Some(statement) => format!("{} line {}", step.file(), statement.line),
            None => step.file().to_owned(),
        };
        let error = match ended {
            Ended::TooSlow => {
                let message = format!("{place}: stopped after {limit}, the `statement_timeout`");
                ProviderError::terminal(runtime_codes::TIMEOUT, message)
            }
            Ended::Failed(e) => {
                let message = format!("{place}: {}", said(&e));
                if matches!(primary_code(&e), Some(5 | 6)) && !step.is_without_transaction() {
                    ProviderError::retryable(runtime_codes::TIMEOUT, message)
                } else if message.contains("within a transaction") || message.contains("from within a") {
                    refused(message).hint("begin the file with `-- contraflow: no-transaction`")
                } else {
                    refused(message)
                }
            }
            Ended::Refused(e) => e,
        };
        Err(if untouched { nothing_done(error) } else { error })
    }

    /// Whether the migration is recorded as applied.
    async fn is_recorded(&mut self, step: &Step<'_>) -> Result<bool, ProviderError> {
        let sql = format!("SELECT count(*) FROM {} WHERE version = $1", table_name(&self.table)?);
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(number(step))
            .fetch_one(&mut self.connection)
            .await
            .map_err(|e| self.database.failed(&e))?;
        Ok(count > 0)
    }

    async fn record(&mut self, on: &On, step: &Step<'_>, elapsed_ms: i64) -> Result<(), ProviderError> {
        let name = table_name(&self.table)?;
        let query = match step {
            Step::Up(migration) => {
                let sql = format!("INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6, $7)");
                sqlx::query(AssertSqlSafe(sql))
                    .bind(number(step))
                    .bind(migration.name.clone())
                    .bind(migration.checksum.clone())
                    .bind(migration.down.as_deref().map(checksum))
                    .bind(migration.down.clone())
                    .bind(on.clock().now().to_string())
                    .bind(elapsed_ms)
            }
            Step::Down { .. } => {
                let sql = format!("DELETE FROM {name} WHERE version = $1");
                sqlx::query(AssertSqlSafe(sql)).bind(number(step))
            }
        };
        query.execute(&mut self.connection).await.map(drop).map_err(|e| {
            let e = self.database.failed(&e);
            ProviderError {
                message: format!("{}: the history could not be written: {}", step.file(), e.message),
                ..e
            }
        })
    }

    /// File, check and record, inside the transaction of the file if it has one.
    async fn body(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError> {
        if self.is_recorded(step).await? == matches!(step, Step::Up(_)) {
            return Err(nothing_done(refused(format!("{}: another process has just run it", step.file()))));
        }
        let begun = on.clock().monotonic();
        self.file(step).await?;
        let elapsed = on.clock().monotonic().saturating_sub(begun);
        let dangling = self.count_dangling().await;
        if let (Some(before), Some((now, table))) = (self.dangling, &dangling)
            && *now > before
            && !step.is_without_transaction()
        {
            let (file, more) = (step.file(), now - before);
            return Err(refused(format!("{file}: leaves rows with dangling foreign keys: {more}, the first \
                in \"{table}\""))
                .hint("foreign keys are off while migrations run, so nothing cascades: delete or change those rows in the file"));
        }
        self.dangling = dangling.map(|(rows, _)| rows);
        self.record(on, step, i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)).await
    }
}

/// The same error, of a file of which nothing was done.
fn nothing_done(error: ProviderError) -> ProviderError {
    error.detail(serde_json::json!({ NOTHING_DONE: true }))
}

/// The error for a write lock that was not had in time; any other as it is.
fn locked(database: &Sqlite, lock_timeout: Span, error: ProviderError) -> ProviderError {
    if error.code.as_str() != runtime_codes::TIMEOUT {
        return error;
    }
    let path = database.path.display();
    let message = format!("{path}: another process held the write lock for longer than {lock_timeout}");
    ProviderError::retryable(runtime_codes::TIMEOUT, message)
        .hint("end the other writer (fuser names it), or raise `lock_timeout`")
}

/// Waits until nobody holds the write lock. A process that is gone holds none.
pub(super) async fn fence(database: &Sqlite, patience: Span) -> Result<(), ProviderError> {
    let mut connection = database.connect(Mode::Write, patience.0).await?;
    let taken = database.run(&mut connection, "BEGIN IMMEDIATE").await;
    taken.map_err(|e| locked(database, patience, e))?;
    database.run(&mut connection, "ROLLBACK").await?;
    connection.close().await.map_err(|e| database.failed(&e))
}

fn number(step: &Step<'_>) -> i64 {
    // At most 18 digits.
    i64::try_from(step.version().number()).unwrap_or(i64::MAX)
}

#[async_trait]
impl Session for Migration<'_> {
    async fn history(&mut self) -> Result<Vec<Record>, ProviderError> {
        history(self.database, &mut self.connection, &self.table).await
    }

    async fn run(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError> {
        if step.is_without_transaction() {
            let ran = self.body(on, step).await;
            if ran.is_err() {
                // The file may have left a transaction of its own open.
                drop(self.database.run(&mut self.connection, "ROLLBACK").await);
            }
            return ran;
        }
        self.lock("BEGIN IMMEDIATE").await?;
        let ran = match self.body(on, step).await {
            Ok(()) => self.lock("COMMIT").await,
            failed => failed,
        };
        if ran.is_err() {
            // Fails where SQLite has rolled back by itself.
            drop(self.database.run(&mut self.connection, "ROLLBACK").await);
        }
        ran
    }
}
