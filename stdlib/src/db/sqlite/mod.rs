//! SQLite: a file.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building},
    registry::Factory,
};
use contraflow_runtime::{
    effect::On,
    error::codes as runtime_codes,
    provider::{Provider, ProviderError},
    quantity::{Size, Span},
};
use futures_util::StreamExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Either, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow},
};

use super::{
    Backups, Database, Dialect, Job, Migrations, Proof, Queries, Question, Record, Rows, Table, Work,
    refused, sql::quoted,
};

mod copy;
mod rows;
mod session;
#[cfg(test)]
mod tests;

/// Settings of the provider `sqlite`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file, from the folder of the configuration.
    pub path: String,
    /// Folder of migrations.
    #[serde(default)]
    pub migrations: Option<String>,
    /// Whether the first migration makes the file if it is not there.
    #[serde(default = "yes")]
    pub create: bool,
}

fn yes() -> bool {
    true
}

/// Databases up to this size are copied to try migrations in plans.
const LARGEST_REHEARSAL: u64 = 64 << 20;

/// Longest wait for a writer when only looking.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often SQLite asks whether to stop, in instructions of its virtual machine: some tens of microseconds.
const ASK_EVERY: i32 = 10_000;

/// An SQLite database. Each use opens the file anew; nothing is kept open between effects.
#[derive(Debug, Clone)]
pub struct Sqlite {
    path: PathBuf,
    folder: PathBuf,
    migrations: Option<PathBuf>,
    create: bool,
}

/// How a connection is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Read,
    Write,
}

impl Sqlite {
    /// The database in the file `path`, which the first migration makes if it is not there, with its folder of migrations.
    /// Relative paths in scripts are taken from the folder of the file. Nothing is opened yet.
    pub fn open(path: impl Into<PathBuf>, migrations: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Self { path, folder, migrations: Some(migrations.into()), create: true }
    }

    /// The database that settings describe; `place` finds a path of the configuration.
    pub fn new(settings: Settings, place: impl Fn(&str) -> PathBuf) -> Self {
        Self {
            path: place(&settings.path),
            folder: place(""),
            migrations: settings.migrations.as_deref().map(place),
            create: settings.create,
        }
    }

    fn options(&self, mode: Mode, patience: Duration) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(mode == Mode::Read)
            .create_if_missing(mode == Mode::Write && self.create)
            .busy_timeout(patience)
            // Rebuilding a table, SQLite's way to alter one, must not cascade into others. What a migration leaves dangling
            // is found by `PRAGMA foreign_key_check` before it is committed.
            .foreign_keys(false)
            .disable_statement_logging()
    }

    async fn connect(&self, mode: Mode, patience: Duration) -> Result<SqliteConnection, ProviderError> {
        let missing = !self.path.exists();
        if missing && (mode == Mode::Read || !self.create) {
            let error = ProviderError::terminal(
                runtime_codes::PROVIDER,
                format!("{}: there is no such file", self.path.display()),
            );
            return Err(match mode {
                Mode::Read if self.create => error.hint("the first db::migrate makes it"),
                _ => error.hint("check `path`, or set `create = true`"),
            });
        }
        let options = self.options(mode, patience);
        match opened(&options).await {
            // A process that was killed while it wrote left a journal that has to be rolled back, which a reader may not do.
            Err(e) if mode == Mode::Read && primary_code(&e) == Some(8) => {
                let writer = self.options(Mode::Write, patience).create_if_missing(false);
                opened(&writer).await.map_err(|e| self.failed(&e))?;
                opened(&options).await.map_err(|e| self.failed(&e))
            }
            other => other.map_err(|e| self.failed(&e)),
        }
    }

    /// An error of SQLite's for people.
    fn failed(&self, error: &sqlx::Error) -> ProviderError {
        let message = format!("{}: {}", self.path.display(), said(error));
        match primary_code(error) {
            Some(5 | 6) => ProviderError::retryable(runtime_codes::TIMEOUT, message)
                .hint("another process is writing to the database"),
            _ => ProviderError::terminal(runtime_codes::PROVIDER, message),
        }
    }

    async fn text(&self, connection: &mut SqliteConnection, sql: &str) -> Result<String, ProviderError> {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(|e| self.failed(&e))
    }

    async fn number(&self, connection: &mut SqliteConnection, sql: &str) -> Result<i64, ProviderError> {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(|e| self.failed(&e))
    }

    async fn run(&self, connection: &mut SqliteConnection, sql: &str) -> Result<(), ProviderError> {
        connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop).map_err(|e| self.failed(&e))
    }

    /// Size of the database in bytes.
    async fn size(&self, connection: &mut SqliteConnection) -> Result<u64, ProviderError> {
        let pages = self.number(connection, "PRAGMA page_count").await?;
        let bytes = self.number(connection, "PRAGMA page_size").await?;
        Ok(u64::try_from(pages.saturating_mul(bytes)).unwrap_or_default())
    }
}

/// A connection that has read the file: opening alone does not.
async fn opened(options: &SqliteConnectOptions) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = options.connect().await?;
    sqlx::raw_sql("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await?;
    Ok(connection)
}

/// SQLite's own words.
fn said(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(e) => e.message().to_owned(),
        other => crate::net::chain(other),
    }
}

/// SQLite's primary result code, such as 5 for busy: <https://www.sqlite.org/rescode.html>.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// Stops what a connection is doing: when asked to, and when it is dropped. SQLite runs on a thread of its own, which a dropped
/// future does not stop.
struct Stop(Arc<AtomicBool>);

impl Stop {
    async fn of(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        connection
            .lock_handle()
            .await?
            .set_progress_handler(ASK_EVERY, move || !asked.load(Ordering::Relaxed));
        Ok(Self(stop))
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why running SQL ended early.
enum Ended {
    /// A statement took longer than it may.
    TooSlow,
    /// SQLite refused.
    Failed(sqlx::Error),
    /// The taker of rows refused.
    Refused(ProviderError),
}

/// Runs statements, each within `limit`, and hands their rows to `take`. With the error comes how many had succeeded.
async fn run_within<'q>(
    connection: &mut SqliteConnection,
    stop: &Stop,
    sql: impl sqlx::Execute<'q, sqlx::Sqlite> + 'q,
    limit: Duration,
    mut take: impl FnMut(SqliteRow) -> Result<(), ProviderError> + Send,
) -> Result<(), (usize, Ended)> {
    let mut stream = connection.fetch_many(sql);
    let mut done = 0;
    loop {
        let statement = async {
            loop {
                match stream.next().await {
                    Some(Ok(Either::Right(row))) => take(row).map_err(Ended::Refused)?,
                    Some(Ok(Either::Left(_))) => return Ok(true),
                    Some(Err(e)) => return Err(Ended::Failed(e)),
                    None => return Ok(false),
                }
            }
        };
        match tokio::time::timeout(limit, statement).await {
            Ok(Ok(true)) => done += 1,
            Ok(Ok(false)) => return Ok(()),
            Ok(Err(e @ Ended::Failed(_))) => return Err((done, e)),
            early => {
                stop.0.store(true, Ordering::Relaxed);
                while stream.next().await.is_some_and(|next| next.is_ok()) {}
                drop(stream);
                stop.0.store(false, Ordering::Relaxed);
                return Err((
                    done,
                    early.map_or(Ended::TooSlow, |early| early.err().unwrap_or(Ended::TooSlow)),
                ));
            }
        }
    }
}

impl Factory for Sqlite {
    type Capability = dyn Database;
    type Settings = Settings;

    const KIND: &'static str = "sqlite";
    const ABOUT: &'static str =
        "An SQLite database in a file. Migrations, queries and backups need no other program.";
    const CAPABILITIES: &'static [&'static str] =
        &["tries migrations in plans, on a copy", "creates the file with the first migration"];
    const EXAMPLE: &'static str = r#"[env.production.db.main]
provider = "sqlite"
path = "shop.db"
migrations = "migrations"
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Database>, BadSetting> {
        Ok(Arc::new(Self::new(settings, |path| at.path(path))))
    }
}

#[async_trait]
impl Provider for Sqlite {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        if !self.path.exists()
            && self.create
            && self.path.parent().is_some_and(|folder| folder.as_os_str().is_empty() || folder.is_dir())
        {
            return Ok("no file yet; the first migration makes it".to_owned());
        }
        let mut connection = self.connect(Mode::Read, PATIENCE).await?;
        let version = self.text(&mut connection, "SELECT sqlite_version()").await?;
        let size = Size(self.size(&mut connection).await?);
        let tables = self
            .number(&mut connection, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")
            .await?;
        Ok(format!("SQLite {version}, {tables} table{}, {size}", if tables == 1 { "" } else { "s" }))
    }
}

impl Database for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn migrations(&self) -> Option<&dyn Migrations> {
        Some(self)
    }

    fn queries(&self) -> Option<&dyn Queries> {
        Some(self)
    }

    fn backups(&self) -> Option<&dyn Backups> {
        Some(self)
    }
}

#[async_trait]
impl Migrations for Sqlite {
    fn configured_folder(&self) -> Option<&Path> {
        self.migrations.as_deref()
    }

    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError> {
        if !self.path.exists() && self.create {
            return Ok(Vec::new());
        }
        let mut connection = self.connect(Mode::Read, PATIENCE).await?;
        session::history(self, &mut connection, table).await
    }

    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError> {
        let mut session = session::Migration::begin(self, work).await?;
        work.carry_out(&mut session, on).await?;
        session.end().await
    }

    async fn fence(&self, _: &On, _: &Table, patience: Span) -> Result<(), ProviderError> {
        if !self.path.exists() {
            return Ok(());
        }
        session::fence(self, patience).await
    }

    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError> {
        let folder = tempfile::tempdir().map_err(|e| refused(format!("no folder for a copy: {e}")))?;
        let copy = Self { path: folder.path().join("copy.sqlite"), create: true, ..self.clone() };
        if self.path.exists() {
            let mut connection = self.connect(Mode::Read, PATIENCE).await?;
            if self.size(&mut connection).await? > LARGEST_REHEARSAL {
                return Ok(None);
            }
            let _stop = Stop::of(&mut connection).await.map_err(|e| self.failed(&e))?;
            let into = copy.path.display().to_string();
            sqlx::query("VACUUM INTO $1")
                .bind(into)
                .execute(&mut connection)
                .await
                .map_err(|e| self.failed(&e))?;
        }
        let mut work = work.clone();
        work.statement_timeout = work.statement_timeout.min(Work::REHEARSED_STATEMENT);
        let mut session = session::Migration::begin(&copy, &work).await?;
        work.rehearse(&mut session, on, "to a copy").await.map(Some)
    }
}

#[async_trait]
impl Queries for Sqlite {
    async fn query(&self, question: &Question) -> Result<Rows, ProviderError> {
        rows::query(self, question).await
    }
}

#[async_trait]
impl Backups for Sqlite {
    async fn backup(&self, _: &On, job: &Job) -> Result<Proof, ProviderError> {
        copy::backup(self, job).await
    }

    fn ending(&self) -> &'static str {
        "sqlite"
    }
}

/// `"main"."name"`, for a table of the database itself.
fn table_name(table: &Table) -> Result<String, ProviderError> {
    match table.schema() {
        None => Ok(quoted(table.name())),
        Some(schema) => Err(ProviderError::terminal(
            runtime_codes::ARGUMENT,
            format!("`table`: \"{table}\" names the schema \"{schema}\", but SQLite has no schemas"),
        )),
    }
}
