//! Connections to the server, and what happens when one breaks.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, PgConnection,
    postgres::{PgDatabaseError, PgSeverity},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, error::Elapsed},
};

use super::address::Address;
use crate::{error::NextStep, journal::StoreError};

/// Most connections at a time.
const CONNECTIONS: usize = 4;

/// How long an operation is repeated after its first failure while the server cannot be reached: longer than a restart or a
/// failover takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pauses between two attempts. There is none before the second: a connection that broke while it was not used is no reason to wait.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often an operation is repeated that the server itself broke off in favour of another.
const CONFLICTS: u32 = 20;

/// How long one attempt may take. What has not answered by then is given up and asked anew on another connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// Touches few rows.
    Quick,
    /// May go over the whole store.
    Long,
}

impl Work {
    fn limit(self) -> Duration {
        match self {
            Self::Quick => Duration::from_secs(20),
            Self::Long => Duration::from_secs(3600),
        }
    }
}

/// A server, with some connections to it that are kept open.
///
/// Not sqlx's pool: that one asks the server a second time after each use, and says only that its time was over where a server
/// cannot be reached.
pub(super) struct Link {
    address: Address,
    idle: Mutex<Vec<PgConnection>>,
    permits: Semaphore,
}

/// Why one attempt failed.
enum Failure {
    /// No connection was made; nothing was asked.
    Connect(sqlx::Error),
    /// It was asked, and this is what came of it.
    Asked(sqlx::Error),
    /// No answer came.
    Silence(Duration),
}

/// What can be done about a failure.
#[derive(Debug, PartialEq, Eq)]
enum Remedy {
    /// The connection broke: nobody knows whether it was done. Another connection may tell.
    Reconnect,
    /// The server undid it all in favour of somebody else's work.
    Repeat,
    /// Nothing.
    None,
}

/// A connection in use.
pub(super) struct Taken<'a> {
    pub(super) connection: PgConnection,
    _permit: Option<SemaphorePermit<'a>>,
}

/// The attempts of one operation.
pub(super) struct Tries<'a> {
    link: &'a Link,
    limit: Duration,
    patience: Duration,
    broken_since: Option<Instant>,
    asked: bool,
    pause: Duration,
    conflicts: u32,
}

/// Does something on a connection. If that breaks, or the server restarts, it is done again, and is told so: it must find out
/// whether it was done already.
///
/// `tried!(LINK.tries(…), |connection, again| WORK)` is a future. No closure: the compiler would not see that it can be sent.
macro_rules! tried {
    ($tries:expr, |$connection:ident, $again:pat_param| $work:expr) => {
        async {
            let mut tries = $tries;
            loop {
                let Some(mut taken) = tries.take().await? else { continue };
                let $connection = &mut taken.connection;
                let $again = tries.asked_before();
                let done = tokio::time::timeout(tries.limit(), async { $work }).await;
                if let Some(value) = tries.judge(taken, done).await? {
                    return Ok::<_, $crate::journal::StoreError>(value);
                }
            }
        }
    };
}
pub(super) use tried;

impl Link {
    pub(super) fn new(address: Address) -> Self {
        Self { address, idle: Mutex::default(), permits: Semaphore::new(CONNECTIONS) }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Attempts that go on while the server cannot be reached for a while.
    pub(super) fn tries(&self, work: Work) -> Tries<'_> {
        Tries {
            link: self,
            limit: work.limit(),
            patience: PATIENCE,
            broken_since: None,
            asked: false,
            pause: Duration::ZERO,
            conflicts: 0,
        }
    }

    /// Attempts that end where the server cannot be reached.
    pub(super) fn first_tries(&self, work: Work) -> Tries<'_> {
        Tries { patience: Duration::ZERO, ..self.tries(work) }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PgConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<PgConnection, Failure> {
        match tokio::time::timeout(self.address.patience, self.address.options.connect()).await {
            Ok(connected) => connected.map_err(Failure::Connect),
            Err(_) => {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(Failure::Connect(sqlx::Error::Io(late)))
            }
        }
    }
}

impl<'a> Tries<'a> {
    /// How long one attempt may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether an attempt before may have been carried out.
    pub(super) fn asked_before(&self) -> bool {
        self.asked
    }

    /// A connection. `None`: none could be made now; ask again.
    pub(super) async fn take(&mut self) -> Result<Option<Taken<'a>>, StoreError> {
        // It is never closed, so there always is one in the end.
        let permit = self.link.permits.acquire().await.ok();
        let kept = self.link.idle().pop();
        let connected = match kept {
            Some(connection) => Ok(connection),
            None => self.link.connect().await,
        };
        match connected {
            Ok(connection) => Ok(Some(Taken { connection, _permit: permit })),
            Err(failure) => {
                drop(permit);
                self.failed(&failure).await?;
                Ok(None)
            }
        }
    }

    /// What an attempt came to. `None`: try again.
    pub(super) async fn judge<T>(
        &mut self,
        taken: Taken<'a>,
        done: Result<Result<T, sqlx::Error>, Elapsed>,
    ) -> Result<Option<T>, StoreError> {
        let failure = match done {
            Ok(Ok(value)) => {
                self.link.idle().push(taken.connection);
                return Ok(Some(value));
            }
            Ok(Err(error)) => Failure::Asked(error),
            Err(_) => Failure::Silence(self.limit),
        };
        // It may be inside a transaction: it is closed, which ends that at once.
        drop(taken);
        self.asked = true;
        self.failed(&failure).await?;
        Ok(None)
    }

    /// A failure for people: where, what, and what to do next.
    fn told(&self, failure: &Failure) -> StoreError {
        let address = &self.link.address;
        let error = StoreError::new(format!("{}: {}", address.shown(), said(failure)));
        let error = match hint(failure, address.database(), !self.patience.is_zero()) {
            Some(hint) => error.hint(hint),
            None => error,
        };
        if lacks_rights(failure) { error.next_step(NextStep::MigrateStore) } else { error }
    }

    /// Waits until it is worth another attempt, or answers the error if it is not.
    async fn failed(&mut self, failure: &Failure) -> Result<(), StoreError> {
        match remedy(failure) {
            Remedy::Repeat if self.conflicts < CONFLICTS => {
                self.conflicts += 1;
                let pause = fastrand::u64(1..=5 * u64::from(self.conflicts));
                tokio::time::sleep(Duration::from_millis(pause)).await;
                Ok(())
            }
            Remedy::Reconnect => {
                // The others are most likely broken as well.
                self.link.idle().clear();
                let since = *self.broken_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.patience {
                    return Err(self.told(failure));
                }
                tracing::warn!(why = %said(failure), "the store cannot be reached; trying again");
                tokio::time::sleep(self.pause).await;
                self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                Ok(())
            }
            _ => Err(self.told(failure)),
        }
    }
}

/// What PostgreSQL itself says, if it was it that refused.
fn by_server(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// The SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(super) fn state(error: &sqlx::Error) -> &str {
    by_server(error).map_or("", PgDatabaseError::code)
}

/// Whether a row with that key is there already.
pub(super) fn is_there(error: &sqlx::Error) -> bool {
    state(error) == "23505"
}

fn remedy(failure: &Failure) -> Remedy {
    let (error, connecting) = match failure {
        Failure::Silence(_) => return Remedy::Reconnect,
        Failure::Connect(error) => (error, true),
        Failure::Asked(error) => (error, false),
    };
    let Some(by_server) = by_server(error) else {
        return match error {
            // A certificate that is not trusted arrives as data that is not valid; a name may be looked up in vain for a while.
            sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => Remedy::None,
            sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => Remedy::Reconnect,
            _ => Remedy::None,
        };
    };
    match by_server.code() {
        // Serialization failure, deadlock; a row that was removed while another began to refer to it.
        "40001" | "40P01" | "23503" => Remedy::Repeat,
        // 57P: the server shuts down, crashed, starts, ends an idle connection. 53300: too many clients. 08: the connection.
        // 25006: after a failover, the address may soon lead to a server that can be written.
        state if state.starts_with("57P") || state.starts_with("08") => Remedy::Reconnect,
        "53300" | "25006" => Remedy::Reconnect,
        // Whatever else ends a connection that had been accepted.
        _ if !connecting && matches!(by_server.severity(), PgSeverity::Fatal | PgSeverity::Panic) => {
            Remedy::Reconnect
        }
        _ => Remedy::None,
    }
}

fn said(failure: &Failure) -> String {
    let error = match failure {
        Failure::Silence(limit) => return format!("no answer within {}s", limit.as_secs()),
        Failure::Connect(error) | Failure::Asked(error) => error,
    };
    if let Some(e) = by_server(error) {
        let mut text = e.message().to_owned();
        for more in [e.detail(), e.hint()].into_iter().flatten() {
            text.push_str(&format!(" ({more})"));
        }
        return text;
    }
    match error {
        sqlx::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => {
            "no connection was made in time".to_owned()
        }
        sqlx::Error::Io(e) => certificate(&e.to_string()),
        sqlx::Error::Tls(e) => certificate(&e.to_string()),
        sqlx::Error::Configuration(e) | sqlx::Error::Decode(e) => e.to_string(),
        other => other.to_string(),
    }
}

/// What is wrong with a certificate, in words.
fn certificate(text: &str) -> String {
    let Some(why) = text.strip_prefix("invalid peer certificate: ") else { return text.to_owned() };
    let why = match why {
        "UnknownIssuer" => "it is not signed by a trusted authority",
        "BadSignature" => "its signature is not valid",
        "Revoked" => "it was revoked",
        "CaUsedAsEndEntity" => "it is the certificate of an authority, not of a server",
        "NotValidForName" => "it is issued for another name",
        words => words,
    };
    format!("the server's certificate cannot be trusted: {why}")
}

/// Whether the database user may not do what was asked.
fn lacks_rights(failure: &Failure) -> bool {
    matches!(failure, Failure::Connect(error) | Failure::Asked(error)
        if by_server(error).is_some() && state(error) == "42501")
}

/// `begun`: there may be a run that waits for this.
fn hint(failure: &Failure, database: &str, begun: bool) -> Option<String> {
    let error = match failure {
        Failure::Silence(_) => None,
        Failure::Connect(error) | Failure::Asked(error) => Some(error),
    };
    let there = match begun {
        true => "check that PostgreSQL runs there and is reachable from here, then resume the run",
        false => "check that PostgreSQL runs there and is reachable from here",
    };
    let Some(error) = error else { return Some(there.to_owned()) };
    if by_server(error).is_none() {
        let text = said(failure);
        return match error {
            _ if text.contains("certificate") => {
                Some("add the authority that signed it with `sslrootcert=FILE` in the URL".to_owned())
            }
            sqlx::Error::Tls(_) => Some(
                "enable TLS in the server, or, on a trusted network, connect without it: `sslmode=disable`"
                    .to_owned(),
            ),
            sqlx::Error::Io(_) => Some(there.to_owned()),
            sqlx::Error::Configuration(_) => {
                Some("create a database with `createdb --encoding UTF8 --template template0 NAME`".to_owned())
            }
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                Some("its tables were altered: compare them with a backup".to_owned())
            }
            _ => None,
        };
    }
    let state = state(error);
    let hint = match state {
        "3D000" => format!("create it first: `createdb {database}`"),
        "42501" => {
            "grant the database user the missing rights; have the owner of the tables migrate the store"
                .to_owned()
        }
        "25006" => "this server is read-only: use the primary".to_owned(),
        "53100" => "free some space on the server's disk, then resume the run".to_owned(),
        "53300" => "close some connections, or raise `max_connections` of the server".to_owned(),
        "42P01" | "42703" | "3F000" => "its tables were altered: compare them with a backup".to_owned(),
        _ if state.starts_with("28") => {
            "check user and password in the URL, in PGPASSWORD or in the password file".to_owned()
        }
        _ if state.starts_with("XX") => {
            "the server or its data is damaged: check its log, restore a backup".to_owned()
        }
        _ if remedy(failure) == Remedy::Reconnect => there.to_owned(),
        _ => return None,
    };
    Some(hint)
}
