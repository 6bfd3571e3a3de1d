//! PostgreSQL, by its own protocol.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Resolve, Setting, Source},
    registry::Factory,
};
use contraflow_runtime::{
    effect::On,
    error::codes as runtime_codes,
    provider::{Provider, ProviderError},
    quantity::Span,
};
use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgDatabaseError},
};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use zeroize::Zeroizing;

use super::{
    Backups, Database, Dialect, Job, Migrations, Proof, Queries, Question, Record, Rows, Table, Work,
};

/// What sessions are called, unless the configuration says otherwise.
const APPLICATION: &str = "contraflow";

mod blockers;
mod dump;
mod rows;
mod scratch;
mod session;
mod values;

/// Settings of the provider `postgres`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `postgres://user:password@host:5432/database?sslmode=verify-full`.
    pub url: Setting,
    /// Folder of migrations.
    pub migrations: Option<String>,
    /// The program `pg_dump`, by path or by name.
    pub pg_dump: Option<String>,
    /// The program `pg_restore`, by path or by name.
    pub pg_restore: Option<String>,
    /// Most connections at a time.
    pub max_connections: Option<u16>,
}

/// Variables that PostgreSQL's own programs heed, and are given.
const OWN_VARIABLES: [&str; 7] =
    ["PATH", "HOME", "PGPASSWORD", "PGPASSFILE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"];

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
    own_variables: BTreeMap<&'static str, Zeroizing<String>>,
    permits: Semaphore,
    address: OnceCell<Address>,
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
    /// The database that settings describe. Nothing is connected yet.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(settings: Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let Settings { url, migrations, pg_dump, pg_restore, max_connections } = settings;
        let source = at.source("url", &url)?;
        if let Some(url) = source.as_plain() {
            parse(url).map_err(|message| source.unusable(message))?;
        }
        if max_connections == Some(0) {
            return Err(BadSetting::new("max_connections", "expected 1 or more"));
        }
        // A name without a folder is looked for in PATH.
        let program = |given: Option<String>, name: &str| match given {
            Some(path) if path.contains('/') => at.path(&path),
            Some(bare) => PathBuf::from(bare),
            None => PathBuf::from(name),
        };
        let own_variables = OWN_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name, Zeroizing::new(at.variable(name)?.into_string().ok()?))));
        let own_variables = own_variables.collect();
        Ok(Self {
            source,
            folder: at.path(""),
            migrations: migrations.map(|path| at.path(&path)),
            pg_dump: program(pg_dump, "pg_dump"),
            pg_restore: program(pg_restore, "pg_restore"),
            permits: Semaphore::new(usize::from(max_connections.unwrap_or(CONNECTIONS))),
            address: OnceCell::new(),
            own_variables,
        })
    }

    async fn address(&self) -> Result<&Address, ProviderError> {
        self.address
            .get_or_try_init(|| async {
                let url = self.source.read().await?;
                Ok(self.read_address(url.as_str())?)
            })
            .await
    }

    fn read_address(&self, url: &str) -> Result<Address, BadSetting> {
        let url = Zeroizing::new(url.trim().to_owned());
        let options = parse(&url).map_err(|message| self.source.unusable(message))?;
        Ok(Address { options, url })
    }

    async fn connect(&self) -> Result<Connected<'_>, ProviderError> {
        let address = self.address().await?;
        let permit = self.permits.acquire().await.map_err(|e| internal(&e))?;
        let connection = connect(&address.options).await?;
        Ok(Connected { connection, _permit: permit })
    }
}

/// The options in a URL. An error never quotes the URL.
fn parse(url: &str) -> Result<PgConnectOptions, String> {
    let wanted = "expected postgres://user@host:5432/database";
    let parsed = reqwest::Url::parse(url).map_err(|e| format!("not a URL ({e}): {wanted}"))?;
    if !["postgres", "postgresql"].contains(&parsed.scheme()) {
        return Err(format!("a URL of scheme \"{}\": {wanted}", parsed.scheme()));
    }
    let options: PgConnectOptions = url.parse().map_err(|e: sqlx::Error| match e {
        sqlx::Error::Configuration(e) => e.to_string(),
        _ => wanted.to_owned(),
    })?;
    let named = options.get_application_name().is_some();
    let options = if named { options } else { options.application_name(APPLICATION) };
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

impl Factory for Postgres {
    type Capability = dyn Database;
    type Settings = Settings;

    const KIND: &'static str = "postgres";
    const ABOUT: &'static str = "A PostgreSQL database, by its own protocol. Backups are made with `pg_dump` and read back with \
        `pg_restore`, which must be installed.";
    const CAPABILITIES: &'static [&'static str] = &[
        "tries migrations in plans, in a transaction that is rolled back",
        "names the sessions that block a lock",
    ];
    const EXAMPLE: &'static str = r#"[env.production.db.main]
provider = "postgres"
url = { env = "DATABASE_URL" }
migrations = "migrations"
max_connections = 4
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Database>, BadSetting> {
        Ok(Arc::new(Self::new(settings, at)?))
    }
}

#[async_trait]
impl Provider for Postgres {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        let known = self.address.get().cloned();
        let known = known.or_else(|| self.read_address(self.source.peek()?.as_str()).ok());
        known
            .map_or_else(|| format!("the URL in {}", self.source.origin()), |address| shown(&address.options))
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let mut connected = self.connect().await?;
        let options = &self.address().await?.options;
        let sql = "SELECT current_setting('server_version'), current_database()::text, pg_is_in_recovery()";
        let (version, database, standby): (String, String, bool) = sqlx::query_as(sql)
            .fetch_one(&mut connected.connection)
            .await
            .map_err(|e| failed(options, &e))?;
        let version = version.split(' ').next().unwrap_or_default();
        Ok(format!("PostgreSQL {version}, database {database}{}", if standby { ", a standby" } else { "" }))
    }
}

impl Database for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
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
impl Migrations for Postgres {
    fn configured_folder(&self) -> Option<&Path> {
        self.migrations.as_deref()
    }

    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError> {
        let mut connected = self.connect().await?;
        let options = &self.address().await?.options;
        session::history(options, &mut connected.connection, table).await
    }

    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError> {
        let mut session = session::Migration::begin(self, on, work).await?;
        work.carry_out(&mut session, on).await?;
        session.end_found(work).await
    }

    async fn fence(&self, on: &On, table: &Table, patience: Span) -> Result<(), ProviderError> {
        session::fence(self, on, table, patience).await
    }

    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError> {
        session::rehearse(self, on, work).await
    }
}

#[async_trait]
impl Queries for Postgres {
    async fn query(&self, question: &Question) -> Result<Rows, ProviderError> {
        rows::query(self, question).await
    }
}

#[async_trait]
impl Backups for Postgres {
    async fn backup(&self, on: &On, job: &Job) -> Result<Proof, ProviderError> {
        dump::backup(self, on, job).await
    }

    fn ending(&self) -> &'static str {
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
    use contraflow_provider::config::Detached;

    use super::*;

    fn settings(url: Setting) -> Settings {
        Settings { url, migrations: None, pg_dump: None, pg_restore: None, max_connections: None }
    }

    fn made(url: impl Into<Setting>) -> Result<Postgres, String> {
        let nothing: [(&str, &str); 0] = [];
        Postgres::new(settings(url.into()), &Detached::new("/", nothing)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_description_has_no_credentials() {
        let database = made("postgres://ann:s3cret@db.example.com:6432/shop?sslmode=require");
        assert_eq!(database.expect("made").describe(), "postgres://db.example.com:6432/shop");
    }

    #[test]
    fn a_url_that_cannot_be_used_is_not_quoted() {
        for url in ["postgres://ann:s3cret@host:notaport/shop", "mysql://ann:s3cret@host/shop", "s3cret"] {
            let message = made(url).map(|_| ()).expect_err(url);
            assert!(message.starts_with("`url`: ") && !message.contains("s3cret"), "{message}");
        }
        let none = Settings { max_connections: Some(0), ..settings("postgres://host/shop".into()) };
        let none = Postgres::new(none, &Detached::new("/", [("A", "b")])).map(|_| ()).map_err(|e| e.key);
        assert_eq!(none, Err("max_connections".to_owned()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_variable_that_is_not_set_is_named() {
        let url: Setting =
            serde_json::from_value(serde_json::json!({ "env": "SHOP_URL" })).expect("a setting");
        let database = made(url).expect("made");
        assert_eq!(database.describe(), "the URL in the environment variable SHOP_URL");
        let message = database.address().await.map(|_| ()).expect_err("not set").message;
        assert_eq!(message, "`url`: the environment variable SHOP_URL is not set");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_that_is_not_there_may_be_tried_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        let port = listener.local_addr().expect("address").port();
        drop(listener);
        let database = made(&*format!("postgres://ann:s3cret@127.0.0.1:{port}/shop")).expect("made");
        let e = database.check().await.expect_err("nobody there");
        assert_eq!(e.code.as_str(), runtime_codes::UNREACHABLE);
        assert!(e.message.starts_with(&format!("postgres://127.0.0.1:{port}/shop: ")), "{}", e.message);
    }
}
