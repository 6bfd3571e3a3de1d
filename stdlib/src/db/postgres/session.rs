//! Migrating a PostgreSQL database.

use std::time::Duration;

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On, error::codes as runtime_codes, provider::ProviderError, quantity::Span,
};
use futures_util::StreamExt as _;
use sha2::{Digest, Sha256};
use sqlx::{
    AssertSqlSafe, Either, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgErrorPosition},
};

use super::{Connected, Postgres, blockers::Blockers, by_server, failed, is_lost, said, shown, state};
use crate::db::{
    Dialect, Record, Session, Step, Table, Work, checksum, refused,
    sql::{self, line_at, quoted},
};

/// Longest wait for a lock in a rehearsal: queries of others queue behind it.
const REHEARSED_LOCK: Span = Span::secs(2);

/// How often the lock on the history is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Lets the server end a statement when this process is gone. Not there before PostgreSQL 14, and not on every system.
const NOTICED: &str = "SET client_connection_check_interval = '1s'";

/// The history table as it is found by the search path, quoted and with its schema. `None`: there is none.
async fn find(connection: &mut PgConnection, table: &Table) -> Result<Option<String>, sqlx::Error> {
    let name = match table.schema() {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(table.name())),
        None => quoted(table.name()),
    };
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass($1)";
    let found: Option<(String, String)> = sqlx::query_as(sql).bind(name).fetch_optional(connection).await?;
    Ok(found.map(|(schema, name)| format!("{}.{}", quoted(&schema), quoted(&name))))
}

/// The rows of the history table.
pub(super) async fn history(
    options: &PgConnectOptions,
    connection: &mut PgConnection,
    table: &Table,
) -> Result<Vec<Record>, ProviderError> {
    let Some(name) = find(connection, table).await.map_err(|e| failed(options, &e))? else {
        return Ok(Vec::new());
    };
    rows(connection, &name).await.map_err(|e| failed(options, &e))?.into_iter().map(read).collect()
}

type Row = (String, String, Option<String>, Option<String>);

async fn rows(connection: &mut PgConnection, name: &str) -> Result<Vec<Row>, sqlx::Error> {
    let sql = format!("SELECT name, checksum, down_checksum, down_sql FROM {name} ORDER BY version");
    sqlx::query_as(AssertSqlSafe(sql)).persistent(false).fetch_all(connection).await
}

fn read((name, checksum, down_checksum, down): Row) -> Result<Record, ProviderError> {
    Record::read(name, checksum, down_checksum, down)
}

/// A connection that holds the lock on the history. The lock goes with the connection.
pub(super) struct Migration<'a> {
    database: &'a Postgres,
    options: &'a PgConnectOptions,
    /// The server's process that serves this connection.
    pid: i32,
    connected: Connected<'a>,
    /// The history table, quoted and with its schema: a file may move the search path.
    table: String,
    lock_timeout: Span,
    statement_timeout: Span,
    /// Whether the server takes [`NOTICED`].
    noticed: bool,
    /// Whether all files run in one transaction that is rolled back.
    rehearsed: bool,
}

impl<'a> Migration<'a> {
    async fn open(database: &'a Postgres, work: &Work) -> Result<(Self, Option<String>, i64), ProviderError> {
        let mut connected = database.connect().await?;
        let options = &database.address().await?.options;
        let connection = &mut connected.connection;
        let noticed = connection.execute(NOTICED).await.is_ok();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await;
        let pid = pid.map_err(|e| failed(options, &e))?;
        let found = find(connection, &work.table).await.map_err(|e| failed(options, &e))?;
        let table = match &found {
            Some(name) => name.clone(),
            None => {
                let schema = match work.table.schema() {
                    Some(schema) => schema.to_owned(),
                    None => sqlx::query_scalar::<_, Option<String>>("SELECT current_schema()::text")
                        .fetch_one(&mut *connection)
                        .await
                        .map_err(|e| failed(options, &e))?
                        .ok_or_else(|| {
                            refused(format!("{}: no schema of the search path exists", shown(options)))
                                .hint("name one with `table`: \"ops.history\"")
                        })?,
                };
                format!("{}.{}", quoted(&schema), quoted(work.table.name()))
            }
        };
        // Locks of this kind belong to one database.
        let sum = Sha256::digest(format!("contraflow migrations {table}"));
        let key = sum.iter().take(8).fold(0_i64, |key, byte| (key << 8) | i64::from(*byte));
        let this = Self {
            database,
            options,
            pid,
            connected,
            table,
            lock_timeout: work.lock_timeout,
            statement_timeout: work.statement_timeout,
            noticed,
            rehearsed: false,
        };
        Ok((this, found, key))
    }

    /// Connects and takes the lock on the history.
    pub(super) async fn begin(database: &'a Postgres, on: &On, work: &Work) -> Result<Self, ProviderError> {
        let (mut this, found, key) = Self::open(database, work).await?;
        let begun = on.clock().monotonic();
        // Asked for again and again: a statement that waits for the lock would hold a snapshot, which keeps a
        // CREATE INDEX CONCURRENTLY of the holder waiting in turn.
        while !this.try_lock("SELECT pg_try_advisory_lock($1)", key).await? {
            if on.clock().monotonic().saturating_sub(begun) >= this.lock_timeout.0 {
                return Err(this.held(key).await);
            }
            on.progress(0, 0, "another migration of this database is running");
            on.clock().sleep(ASK_EVERY.min(this.lock_timeout.0)).await;
        }
        if found.is_none() {
            let sql = this.creation();
            this.simple(&sql).await?;
        }
        Ok(this)
    }

    fn creation(&self) -> String {
        format!(
            "CREATE TABLE IF NOT EXISTS {} (version bigint PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, \
             down_checksum text, down_sql text, applied_at timestamptz NOT NULL, elapsed_ms bigint NOT NULL)",
            self.table
        )
    }

    async fn try_lock(&mut self, sql: &'static str, key: i64) -> Result<bool, ProviderError> {
        let got = sqlx::query_scalar(sql).bind(key).fetch_one(&mut self.connected.connection).await;
        got.map_err(|e| failed(self.options, &e))
    }

    /// The error for a lock that somebody else holds, with who that is.
    async fn held(&mut self, key: i64) -> ProviderError {
        let sql = "SELECT format('process %s of \"%s\" (%s%s), connected since %s', a.pid, a.usename, \
                   coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(' from ' || host(a.client_addr), ''), \
                   to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"')) \
                   FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
                   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
                   AND (l.classid::bigint << 32) | l.objid::bigint = $1 LIMIT 1";
        let holder: Option<String> = sqlx::query_scalar(sql)
            .bind(key)
            .fetch_optional(&mut self.connected.connection)
            .await
            .unwrap_or(None);
        let holder = holder.unwrap_or_else(|| "somebody".to_owned());
        let waited = self.lock_timeout;
        let message =
            format!("{}: {holder} held the lock on migrations for longer than {waited}", shown(self.options));
        ProviderError::retryable(runtime_codes::TIMEOUT, message)
            .hint("let the other migration end, or raise `lock_timeout`")
    }

    async fn simple(&mut self, sql: &str) -> Result<(), ProviderError> {
        let ran = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connected.connection).await;
        ran.map(drop).map_err(|e| failed(self.options, &e))
    }

    /// `SET` of both timeouts, in milliseconds. 0 would mean none.
    fn timeouts(&self, set: &str) -> String {
        let millis = |span: Span| span.0.as_millis().clamp(1, 2_147_483_647);
        format!(
            "{set} lock_timeout = {}; {set} statement_timeout = {}",
            millis(self.lock_timeout),
            millis(self.statement_timeout)
        )
    }

    pub(super) async fn end(self) -> Result<(), ProviderError> {
        self.connected.close().await;
        Ok(())
    }

    /// Runs the file itself: as a whole inside a transaction, statement by statement outside one.
    async fn file(&mut self, step: &Step<'_>) -> Result<(), ProviderError> {
        let statements = sql::statements(step.sql(), Dialect::Postgres);
        if let Some(copy) = statements.iter().find(|statement| statement.reads_from_client()) {
            let place = format!("{} line {}", step.file(), copy.line);
            return Err(refused(format!("{place}: COPY … FROM STDIN needs a client, and there is none"))
                .hint("write the rows as INSERT"));
        }
        if !step.is_without_transaction() {
            let ran = send(&mut self.connected.connection, step.sql()).await;
            return ran.map_err(|(done, e)| {
                let line = match by_server(&e).and_then(|e| e.position()) {
                    Some(PgErrorPosition::Original(position)) => Some(line_of(step.sql(), position)),
                    _ => statements.get(done).map(|statement| statement.line),
                };
                self.broken(step, line, &e)
            });
        }
        for statement in &statements {
            if let Err((_, e)) = send(&mut self.connected.connection, statement.text).await {
                let line = match by_server(&e).and_then(|e| e.position()) {
                    Some(PgErrorPosition::Original(at)) => statement.line + line_of(statement.text, at) - 1,
                    _ => statement.line,
                };
                return Err(self.broken(step, Some(line), &e));
            }
        }
        Ok(())
    }

    /// The error for a file that PostgreSQL did not take.
    fn broken(&self, step: &Step<'_>, line: Option<usize>, error: &sqlx::Error) -> ProviderError {
        let place = match line {
            Some(line) => format!("{} line {line}", step.file()),
            None => step.file().to_owned(),
        };
        let message = format!("{place}: {}", said(error));
        let outside = step.is_without_transaction();
        let again = |error: ProviderError| {
            // What a file outside a transaction had done by then is still there.
            if outside {
                ProviderError { retry: contraflow_runtime::provider::Retry::Never, ..error }.hint(
                    "the file runs outside a transaction: its statements before this line stay in \
                        effect (an unfinished index stays invalid)",
                )
            } else {
                error
            }
        };
        match state(error) {
            "55P03" => again(ProviderError::retryable(runtime_codes::TIMEOUT, message).hint(
                "another session holds a lock on the table: look for long transactions, or raise \
                 `lock_timeout`",
            )),
            "57014" => {
                ProviderError::terminal(runtime_codes::TIMEOUT, message).hint("raise `statement_timeout`")
            }
            // Serialization failure and deadlock: PostgreSQL asks to try again.
            "40001" | "40P01" => again(ProviderError::retryable(crate::codes::MIGRATION, message)),
            "25001" => refused(message).hint("begin the file with `-- contraflow: no-transaction`"),
            _ if is_lost(error) => again(ProviderError::unreachable(message)),
            _ if outside => again(refused(message)),
            _ => refused(message),
        }
    }

    async fn record(&mut self, on: &On, step: &Step<'_>, elapsed_ms: i64) -> Result<(), ProviderError> {
        let number = i64::try_from(step.version().number()).unwrap_or(i64::MAX);
        let query = match step {
            Step::Up(migration) => {
                let sql =
                    format!("INSERT INTO {} VALUES ($1, $2, $3, $4, $5, $6::timestamptz, $7)", self.table);
                sqlx::query(AssertSqlSafe(sql))
                    .bind(number)
                    .bind(migration.name.clone())
                    .bind(migration.checksum.clone())
                    .bind(migration.down.as_deref().map(checksum))
                    .bind(migration.down.clone())
                    .bind(on.clock().now().to_string())
                    .bind(elapsed_ms)
            }
            Step::Down { .. } => {
                sqlx::query(AssertSqlSafe(format!("DELETE FROM {} WHERE version = $1", self.table)))
                    .bind(number)
            }
        };
        let ran = query.persistent(false).execute(&mut self.connected.connection).await;
        ran.map(drop).map_err(|e| {
            let e = failed(self.options, &e);
            ProviderError {
                message: format!("{}: the history could not be written: {}", step.file(), e.message),
                ..e
            }
        })
    }

    /// The file, then its row, as the role that connected.
    async fn body(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError> {
        let begun = on.clock().monotonic();
        let (database, pid, lock_timeout) = (self.database, self.pid, self.lock_timeout);
        let blockers = Blockers::default();
        let ran = tokio::select! {
            biased;
            ran = self.file(step) => ran,
            never = blockers.watch(database, on, pid, lock_timeout, step.file()) => match never {},
        };
        ran.map_err(|e| blockers.name_in(e))?;
        let elapsed = on.clock().monotonic().saturating_sub(begun);
        self.simple("RESET SESSION AUTHORIZATION; RESET ROLE").await?;
        self.record(on, step, i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)).await
    }
}

/// The line of a character, counted from 1.
fn line_of(sql: &str, position: usize) -> usize {
    let offset = sql.char_indices().nth(position.saturating_sub(1)).map_or(sql.len(), |(offset, _)| offset);
    line_at(sql, offset)
}

/// Sends text of any number of statements. With the error comes how many had succeeded.
async fn send(connection: &mut PgConnection, text: &str) -> Result<(), (usize, sqlx::Error)> {
    let mut stream = connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(text)));
    let mut done = 0;
    while let Some(next) = stream.next().await {
        match next {
            Ok(Either::Left(_)) => done += 1,
            Ok(Either::Right(_)) => {}
            Err(e) => return Err((done, e)),
        }
    }
    Ok(())
}

#[async_trait]
impl Session for Migration<'_> {
    async fn history(&mut self) -> Result<Vec<Record>, ProviderError> {
        let found = rows(&mut self.connected.connection, &self.table).await;
        found.map_err(|e| failed(self.options, &e))?.into_iter().map(read).collect()
    }

    async fn run(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError> {
        if self.rehearsed {
            self.body(on, step).await?;
            // This transaction never reaches the end, where deferred constraints are checked. Rolled back, so that they are
            // deferred again for the next file.
            let check = "SAVEPOINT contraflow; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO contraflow; RELEASE contraflow";
            let checked = send(&mut self.connected.connection, check).await;
            return checked.map_err(|(_, e)| self.broken(step, None, &e));
        }
        // What the file before it set for its session is not for this one.
        self.simple("RESET ALL").await?;
        if self.noticed {
            self.simple(NOTICED).await?;
        }
        if step.is_without_transaction() {
            let set = self.timeouts("SET");
            self.simple(&set).await?;
            self.body(on, step).await?;
        } else {
            let begin = format!("BEGIN; {}", self.timeouts("SET LOCAL"));
            self.simple(&begin).await?;
            if let Err(e) = self.body(on, step).await {
                drop(self.simple("ROLLBACK").await);
                return Err(e);
            }
            let committed = send(&mut self.connected.connection, "COMMIT").await;
            committed.map_err(|(_, e)| self.broken(step, None, &e))?;
        }
        Ok(())
    }
}

/// Runs the files in one transaction that is rolled back.
pub(super) async fn rehearse(
    database: &Postgres,
    on: &On,
    work: &Work,
) -> Result<Option<String>, ProviderError> {
    let (mut session, found, key) = Migration::open(database, work).await?;
    let known = match found {
        Some(_) => session.history().await?,
        None => Vec::new(),
    };
    let steps = work.steps(&known)?;
    if let Some(step) = steps.iter().find(|step| step.is_without_transaction()) {
        return Ok(Some(format!("not tried: {} runs outside a transaction", step.file())));
    }
    session.rehearsed = true;
    session.lock_timeout = session.lock_timeout.min(REHEARSED_LOCK);
    session.statement_timeout = session.statement_timeout.min(Work::REHEARSED_STATEMENT);
    let begin = format!("BEGIN; {}", session.timeouts("SET LOCAL"));
    session.simple(&begin).await?;
    if !session.try_lock("SELECT pg_try_advisory_xact_lock($1)", key).await? {
        return Ok(Some("not tried: another migration of this database is running".to_owned()));
    }
    if found.is_none() {
        let sql = session.creation();
        session.simple(&sql).await?;
    }
    let tried = work.rehearse(&mut session, on, "in a transaction that was rolled back").await;
    session.simple("ROLLBACK").await?;
    session.end().await?;
    tried.map(Some)
}
