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
    Dialect, HALF_DONE, NOTHING_DONE, Record, Session, Step, Table, Work, checksum, refused,
    sql::{self, line_at, quoted},
};

/// Longest wait for a lock in a rehearsal: queries of others queue behind it.
const REHEARSED_LOCK: Span = Span::secs(2);

/// How often the lock on the history is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Lets the server end a statement when this process is gone. Not there before PostgreSQL 14, and not on every system.
const NOTICED: &str = "SET client_connection_check_interval = '1s'";

/// The sessions that hold the advisory lock `$1` of this database.
const HOLDERS: &str = "pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
     AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()) \
     AND (l.classid::bigint << 32) | l.objid::bigint = $1";

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
    /// The statement that names the session by its run, so that whoever takes the run over can end it.
    named: Option<String>,
    /// Whether all files run in one transaction that is rolled back.
    rehearsed: bool,
}

impl<'a> Migration<'a> {
    async fn open(
        database: &'a Postgres,
        table: &Table,
        (lock_timeout, statement_timeout): (Span, Span),
    ) -> Result<(Self, Option<String>, i64), ProviderError> {
        let mut connected = database.connect().await?;
        let options = &database.address().await?.options;
        let connection = &mut connected.connection;
        let noticed = connection.execute(NOTICED).await.is_ok();
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await;
        let pid = pid.map_err(|e| failed(options, &e))?;
        let found = find(connection, table).await.map_err(|e| failed(options, &e))?;
        let name = match &found {
            Some(name) => name.clone(),
            None => {
                let schema = match table.schema() {
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
                format!("{}.{}", quoted(&schema), quoted(table.name()))
            }
        };
        // Locks of this kind belong to one database.
        let sum = Sha256::digest(format!("contraflow migrations {name}"));
        let key = sum.iter().take(8).fold(0_i64, |key, byte| (key << 8) | i64::from(*byte));
        let this = Self {
            database,
            options,
            pid,
            connected,
            table: name,
            lock_timeout,
            statement_timeout,
            noticed,
            named: None,
            rehearsed: false,
        };
        Ok((this, found, key))
    }

    /// Connects and takes the lock on the history.
    pub(super) async fn begin(database: &'a Postgres, on: &On, work: &Work) -> Result<Self, ProviderError> {
        let (mut this, found, key) =
            Self::open(database, &work.table, (work.lock_timeout, work.statement_timeout)).await?;
        if let Some(name) = this.name(on) {
            let set = format!("SET application_name = '{}'", name.replace('\'', "''"));
            this.simple(&set).await?;
            this.named = Some(set);
        }
        this.lock(on, key).await?;
        if found.is_none() {
            let sql = this.creation();
            this.simple(&sql).await?;
        }
        Ok(this)
    }

    /// What the session is called: by its run, unless the configuration names it.
    fn name(&self, on: &On) -> Option<String> {
        let ours = self.options.get_application_name() == Some(super::APPLICATION);
        let run = on.idempotency_key().split('/').next().unwrap_or_default();
        ours.then(|| format!("{} {run}", super::APPLICATION).chars().take(63).collect())
    }

    /// Takes the lock on the history.
    async fn lock(&mut self, on: &On, key: i64) -> Result<(), ProviderError> {
        let begun = on.clock().monotonic();
        // Asked for again and again: a statement that waits for the lock would hold a snapshot, which keeps a
        // CREATE INDEX CONCURRENTLY of the holder waiting in turn.
        while !self.try_lock("SELECT pg_try_advisory_lock($1)", key).await? {
            if on.clock().monotonic().saturating_sub(begun) >= self.lock_timeout.0 {
                return Err(self.held(key).await);
            }
            on.progress(0, 0, "another migration of this database is running");
            on.clock().sleep(ASK_EVERY.min(self.lock_timeout.0)).await;
        }
        Ok(())
    }

    /// Ends the session of this run that holds the lock on the history, if there is one. A role that may not do that is told who
    /// holds the lock when it waits for it.
    async fn end_earlier(&mut self, on: &On, key: i64) {
        let Some(name) = self.name(on) else { return };
        let sql = format!(
            "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM {HOLDERS} AND a.application_name = $2"
        );
        let asked = sqlx::query(AssertSqlSafe(sql)).bind(key).bind(name);
        drop(asked.execute(&mut self.connected.connection).await);
    }

    /// Ends the session, once a new one finds the history where this one left it.
    pub(super) async fn end_found(self, work: &Work) -> Result<(), ProviderError> {
        let (database, options, table) = (self.database, self.options, self.table.clone());
        self.end().await?;
        let mut connected = database.connect().await?;
        let found = find(&mut connected.connection, &work.table).await.map_err(|e| failed(options, &e))?;
        connected.close().await;
        if found.as_ref() == Some(&table) {
            return Ok(());
        }
        let now = found.unwrap_or_else(|| "nothing".to_owned());
        let message = format!(
            "a migration has moved the search path: new sessions look for the history in {now}, but it is in {table}"
        );
        Err(refused(message)
            .hint(format!("name the table with its schema: `table: \"{}\"`", table.replace('"', "")))
            .detail(serde_json::json!({ "file": work.table.to_string(), HALF_DONE: true })))
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
        let sql = format!(
            "SELECT format('process %s of \"%s\" (%s%s), connected since %s', a.pid, a.usename, \
             coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(' from ' || host(a.client_addr), ''), \
             to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"')) FROM {HOLDERS} LIMIT 1"
        );
        let holder: Option<String> = sqlx::query_scalar(AssertSqlSafe(sql))
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
                .hint("write the rows as INSERT")
                .detail(serde_json::json!({ NOTHING_DONE: true })));
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
        for (n, statement) in statements.iter().enumerate() {
            if let Err((_, e)) = send(&mut self.connected.connection, statement.text).await {
                let line = match by_server(&e).and_then(|e| e.position()) {
                    Some(PgErrorPosition::Original(at)) => statement.line + line_of(statement.text, at) - 1,
                    _ => statement.line,
                };
                let error = self.broken(step, Some(line), &e);
                // PostgreSQL takes a statement back that fails, unless it works in several transactions.
                let whole = !statement.text.to_ascii_lowercase().contains("concurrently") && !is_lost(&e);
                return Err(if n == 0 && whole {
                    error.detail(serde_json::json!({ NOTHING_DONE: true }))
                } else {
                    error
                });
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
        if let Some(set) = self.named.clone() {
            self.simple(&set).await?;
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

/// Waits until nobody holds the lock on the history, and ends the session of this run that does.
pub(super) async fn fence(
    database: &Postgres,
    on: &On,
    table: &Table,
    patience: Span,
) -> Result<(), ProviderError> {
    let (mut session, _, key) = Migration::open(database, table, (patience, patience)).await?;
    session.end_earlier(on, key).await;
    session.lock(on, key).await?;
    session.end().await
}

/// Runs the files in one transaction that is rolled back.
pub(super) async fn rehearse(
    database: &Postgres,
    on: &On,
    work: &Work,
) -> Result<Option<String>, ProviderError> {
    let (mut session, found, key) =
        Migration::open(database, &work.table, (work.lock_timeout, work.statement_timeout)).await?;
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
