//! PostgreSQL, by its own protocol.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    error::codes as runtime_codes,
    provider::{Provider, ProviderError},
    quantity::Span,
};
use serde::Deserialize;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use super::{Database, Job, Proof, Question, Record, Rows, Table, Work, history::carry_out, sql::Dialect};
use crate::codes;

mod blockers;
mod dump;
mod rows;
mod scratch;
mod session;
mod values;

/// Settings of the provider `postgres`. One of `url`, `url_env` and `url_file` says where it is.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`.
    pub url: Option<String>,
    /// Environment variable that holds the URL.
    pub url_env: Option<String>,
    /// File that holds the URL.
    pub url_file: Option<String>,
    /// Folder of migrations.
    pub migrations: Option<String>,
    /// The program `pg_dump`, by path or by name.
    pub pg_dump: Option<String>,
    /// The program `pg_restore`, by path or by name.
    pub pg_restore: Option<String>,
    /// Most connections at a time.
    pub max_connections: Option<u16>,
}

/// Where the URL comes from.
enum Source {
    Plain(Zeroizing<String>),
    Variable(String),
    File(PathBuf),
}

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Connections at a time, unless configured.
const CONNECTIONS: u16 = 4;

/// A PostgreSQL database. Each use connects anew, so no setting or lock of one effect is seen by the next; nothing is connected
/// before the first.
pub struct Postgres {
    source: Source,
    folder: PathBuf,
    migrations: Option<PathBuf>,
    pg_dump: PathBuf,
    pg_restore: PathBuf,
    permits: Semaphore,
    address: OnceLock<Address>,
}

/// A database and how to get there.
#[derive(Clone)]
struct Address {
    options: PgConnectOptions,
    url: Zeroizing<String>,
}

/// A connection, and its place among the connections of the target. Closed when dropped.
struct Connected<'a> {
    connection: PgConnection,
    _permit: SemaphorePermit<'a>,
}

impl Postgres {
    /// The database that settings describe; `place` finds a path of the configuration.
    ///
    /// # Errors
    /// The setting that cannot be used, and why.
    pub fn new(settings: Settings, place: impl Fn(&str) -> PathBuf) -> Result<Self, (&'static str, String)> {
        let Settings { url, url_env, url_file, migrations, pg_dump, pg_restore, max_connections } = settings;
        let source = match (url, url_env, url_file) {
            (Some(url), None, None) => {
                parse(&url).map_err(|message| ("url", message))?;
                Source::Plain(Zeroizing::new(url))
            }
            (None, Some(variable), None) => Source::Variable(variable),
            (None, None, Some(file)) => Source::File(place(&file)),
            _ => return Err(("url", "want one of `url`, `url_env` and `url_file`".to_owned())),
        };
        if max_connections == Some(0) {
            return Err(("max_connections", "want 1 or more".to_owned()));
        }
        // A name without a folder is looked for in PATH.
        let program = |given: Option<String>, name: &str| match given {
            Some(path) if path.contains('/') => place(&path),
            Some(bare) => PathBuf::from(bare),
            None => PathBuf::from(name),
        };
        Ok(Self {
            source,
            folder: place(""),
            migrations: migrations.as_deref().map(&place),
            pg_dump: program(pg_dump, "pg_dump"),
            pg_restore: program(pg_restore, "pg_restore"),
            permits: Semaphore::new(usize::from(max_connections.unwrap_or(CONNECTIONS))),
            address: OnceLock::new(),
        })
    }

    fn address(&self) -> Result<&Address, ProviderError> {
        if let Some(known) = self.address.get() {
            return Ok(known);
        }
        let bad = |message: String| ProviderError::terminal(codes::CONFIG, message);
        let url = match &self.source {
            Source::Plain(url) => url.clone(),
            Source::Variable(name) => {
                let value = std::env::var(name);
                Zeroizing::new(value.map_err(|_| bad(format!("the environment variable {name} is not set")))?)
            }
            Source::File(path) => {
                let text = std::fs::read_to_string(path);
                Zeroizing::new(text.map_err(|e| bad(format!("{}: {e}", path.display())))?)
            }
        };
        let url = Zeroizing::new(url.trim().to_owned());
        let options = parse(&url).map_err(|message| {
            bad(match &self.source {
                Source::Plain(_) => message,
                Source::Variable(name) => format!("the environment variable {name}: {message}"),
                Source::File(path) => format!("{}: {message}", path.display()),
            })
        })?;
        Ok(self.address.get_or_init(|| Address { options, url }))
    }

    async fn connect(&self) -> Result<Connected<'_>, ProviderError> {
        let address = self.address()?;
        let permit = self.permits.acquire().await.map_err(|e| internal(&e))?;
        let connection = connect(&address.options).await?;
        Ok(Connected { connection, _permit: permit })
    }
}

/// The options in a URL. An error never quotes the URL.
fn parse(url: &str) -> Result<PgConnectOptions, String> {
    let wanted = "want postgres://user@host:5432/database";
    let parsed = reqwest::Url::parse(url).map_err(|e| format!("not a URL ({e}): {wanted}"))?;
    if !["postgres", "postgresql"].contains(&parsed.scheme()) {
        return Err(format!("a URL of scheme \"{}\": {wanted}", parsed.scheme()));
    }
    let options: PgConnectOptions = url.parse().map_err(|e: sqlx::Error| match e {
        sqlx::Error::Configuration(e) => e.to_string(),
        _ => wanted.to_owned(),
    })?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name("contraflow") };
    Ok(options.disable_statement_logging())
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, ProviderError> {
    match tokio::time::timeout(CONNECT, options.connect()).await {
        Ok(connected) => connected.map_err(|e| failed(options, &e)),
        Err(_) => Err(ProviderError::unreachable(format!(
            "{}: no connection within {}",
            shown(options),
            Span(CONNECT)
        ))),
    }
}

/// Host, port and database, without a user.
fn shown(options: &PgConnectOptions) -> String {
    let host: Cow<'_, str> = match options.get_socket() {
        Some(socket) => socket.display().to_string().into(),
        None => options.get_host().into(),
    };
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("postgres://{host}:{}/{database}", options.get_port())
}

fn internal(error: &dyn std::error::Error) -> ProviderError {
    ProviderError::terminal(runtime_codes::INTERNAL, error.to_string())
}

/// What PostgreSQL itself says, if it was it that refused.
fn by_server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// The SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn state(error: &sqlx::Error) -> &str {
    by_server(error).map_or("", PgDatabaseError::code)
}

/// PostgreSQL's own words, with detail and hint.
fn said(error: &sqlx::Error) -> String {
    let Some(e) = by_server(error) else { return crate::net::chain(error) };
    let mut text = e.message().to_owned();
    for more in [e.detail(), e.hint()].into_iter().flatten() {
        text.push_str(&format!(" ({more})"));
    }
    text
}

/// Whether nothing can be known about the server any more: the connection broke.
fn is_lost(error: &sqlx::Error) -> bool {
    // 57P01 to 57P03: the server shuts down, crashed, starts. 53300: too many clients. 08: connection errors.
    let state = state(error);
    // A certificate that is not trusted arrives as data that is not valid.
    matches!(error, sqlx::Error::Io(e) if e.kind() != std::io::ErrorKind::InvalidData)
        || state.starts_with("57P0")
        || state == "53300"
        || state.starts_with("08")
}

/// An error outside any file or query, for people.
fn failed(options: &PgConnectOptions, error: &sqlx::Error) -> ProviderError {
    let message = format!("{}: {}", shown(options), said(error));
    if is_lost(error) {
        return ProviderError::unreachable(message);
    }
    match state(error) {
        // 28: authorization. 3D000: no such database.
        s if s.starts_with("28") => ProviderError::terminal(runtime_codes::PROVIDER, message)
            .hint("check user and password in the URL"),
        _ => ProviderError::terminal(runtime_codes::PROVIDER, message),
    }
}

#[async_trait]
impl Provider for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn describe(&self) -> String {
        match (self.address(), &self.source) {
            (Ok(address), _) => shown(&address.options),
            (Err(_), Source::Variable(name)) => format!("the URL in ${name}"),
            (Err(_), Source::File(path)) => format!("the URL in {}", path.display()),
            (Err(e), Source::Plain(_)) => e.message,
        }
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let mut connected = self.connect().await?;
        let options = &self.address()?.options;
        let sql = "SELECT current_setting('server_version'), current_database()::text, pg_is_in_recovery()";
        let (version, database, standby): (String, String, bool) = sqlx::query_as(sql)
            .fetch_one(&mut connected.connection)
            .await
            .map_err(|e| failed(options, &e))?;
        let version = version.split(' ').next().unwrap_or_default();
        Ok(format!("PostgreSQL {version}, database {database}{}", if standby { ", a standby" } else { "" }))
    }
}

#[async_trait]
impl Database for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn migrations(&self) -> Option<&Path> {
        self.migrations.as_deref()
    }

    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError> {
        let mut connected = self.connect().await?;
        let options = &self.address()?.options;
        session::history(options, &mut connected.connection, table).await
    }

    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError> {
        let mut session = session::Migration::begin(self, on, work).await?;
        carry_out(&mut session, on, work, false).await?;
        session.end().await
    }

    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError> {
        session::rehearse(self, on, work).await
    }

    async fn query(&self, question: &Question) -> Result<Rows, ProviderError> {
        rows::query(self, question).await
    }

    async fn backup(&self, on: &On, job: &Job) -> Result<Proof, ProviderError> {
        dump::backup(self, on, job).await
    }

    fn backup_ending(&self) -> &'static str {
        "dump"
    }
}

impl Connected<'_> {
    /// Closes the connection in an orderly way.
    async fn close(self) {
        // The server notices a broken connection as well; there is nothing left to lose.
        drop(tokio::time::timeout(CONNECT, self.connection.close()).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings { url: Some(url.to_owned()), ..Settings::default() }
    }

    fn made(settings: Settings) -> Result<Postgres, String> {
        Postgres::new(settings, |path| path.into()).map_err(|(key, message)| format!("{key}: {message}"))
    }

    #[test]
    fn a_description_has_no_credentials() {
        let database = made(settings("postgres://ann:s3cret@db.example.com:6432/shop?sslmode=require"));
        assert_eq!(database.expect("made").describe(), "postgres://db.example.com:6432/shop");
    }

    #[test]
    fn a_url_that_cannot_be_used_is_not_quoted() {
        for url in ["postgres://ann:s3cret@host:notaport/shop", "mysql://ann:s3cret@host/shop", "s3cret"] {
            let message = made(settings(url)).map(|_| ()).expect_err(url);
            assert!(message.starts_with("url: ") && !message.contains("s3cret"), "{message}");
        }
        let both = Settings { url_env: Some("A".into()), ..settings("postgres://host/shop") };
        assert_eq!(made(both).map(|_| ()), Err("url: want one of `url`, `url_env` and `url_file`".into()));
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let settings =
            Settings { url_env: Some("CONTRAFLOW_NO_SUCH_VARIABLE".into()), ..Settings::default() };
        let database = made(settings).expect("made");
        assert_eq!(database.describe(), "the URL in $CONTRAFLOW_NO_SUCH_VARIABLE");
        let message = database.address().map(|_| ()).expect_err("not set").message;
        assert_eq!(message, "the environment variable CONTRAFLOW_NO_SUCH_VARIABLE is not set");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_not_there_may_be_tried_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        let database = made(settings(&format!("postgres://ann:s3cret@127.0.0.1:{port}/shop"))).expect("made");
        let e = database.check().await.expect_err("nobody there");
        assert_eq!(e.code.as_str(), runtime_codes::UNREACHABLE);
        assert!(e.message.starts_with(&format!("postgres://127.0.0.1:{port}/shop: ")), "{}", e.message);
    }
}
