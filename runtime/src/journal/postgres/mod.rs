//! The store on a PostgreSQL server, for runners on several machines.
//!
//! **Invariant:** what is checked and what is written because of it are one statement. That makes it one transaction and one trip,
//! leaves no lock behind when a runner vanishes between two statements, and lets every operation be repeated as a whole.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use sqlx::postgres::PgRow;

use self::{
    address::Address,
    link::{Link, Work, tried},
    records::Unsure,
};
use super::{
    columns::columns,
    store::{Maintenance as _, StoreError},
};

mod address;
mod link;
mod locks;
mod maintenance;
mod plans;
mod questions;
mod records;
mod runs;
mod schema;

/// Milliseconds since 1970 by the server's clock: the one that all machines agree on.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// Part of a statement whose commit returns only when it is on disk, also where the server's default is that it need not be.
macro_rules! durably {
    () => {
        "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true)"
    };
}
use {durably, now};

columns!(PgRow);

/// A store in the schema `contraflow` of a PostgreSQL database.
///
/// What is not durable is committed without waiting for the disk, which leaves it to the server to write it within a second. Unlike
/// with a file, a runner can outlive the crash that loses such a commit. So the last records are remembered until a durable commit
/// covers them; each record is only taken behind the one before it, and where that is missing, what was lost is written once more.
pub struct PostgresStore {
    link: Link,
    /// By run, what may not be on disk yet.
    unsure: Mutex<HashMap<String, Unsure>>,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresStore({})", self.describe())
    }
}

impl PostgresStore {
    /// The store at a URL such as `postgres://user@host:5432/database?sslmode=verify-full`, created or brought to this version if
    /// need be. What the URL leaves out comes from the variables and the password file that libpq knows (`PGPASSWORD`, `~/.pgpass`).
    ///
    /// # Errors
    /// The URL is wrong, the server cannot be reached or refuses, or the store was written by a newer version.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::at(url)?;
        let version = store.version().await?;
        store.brought_on(version).await
    }

    /// The store at a URL, for looking only. `None`: there is none yet.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn look(url: &str) -> Result<Option<Self>, StoreError> {
        let store = Self::at(url)?;
        match store.version().await? {
            0 => Ok(None),
            version => store.brought_on(version).await.map(Some),
        }
    }

    /// The same, with tables of this version.
    async fn brought_on(self, version: i64) -> Result<Self, StoreError> {
        if version < schema::VERSION {
            let tries = self.link.first_tries(Work::Long);
            tried!(tries, |connection, _| schema::migrate(connection).await).await?;
        }
        Ok(self)
    }

    /// Which database a URL means, for people: without user and password.
    ///
    /// # Errors
    /// The URL is wrong.
    pub fn shown(url: &str) -> Result<String, StoreError> {
        Address::parse(url).map(|address| address.shown())
    }

    fn at(url: &str) -> Result<Self, StoreError> {
        Ok(Self { link: Link::new(Address::parse(url)?), unsure: Mutex::default() })
    }

    async fn version(&self) -> Result<i64, StoreError> {
        let version =
            tried!(self.link.first_tries(Work::Quick), |connection, _| schema::version(connection).await);
        let version = version.await?;
        if version > schema::VERSION {
            let message = format!("{} was written by a newer version of Contraflow", self.describe());
            return Err(StoreError::new(message).hint("use that version, or another store"));
        }
        Ok(version)
    }

    fn unsure(&self) -> MutexGuard<'_, HashMap<String, Unsure>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why nothing was written for a run: it belongs to somebody else, or is not there.
    async fn refused(&self, run: &str) -> StoreError {
        self.unsure().remove(run);
        let there = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM contraflow.runs WHERE id = $1)")
                .bind(run)
                .fetch_one(connection)
                .await
        });
        match there.await {
            Ok(true) => StoreError::lost(run),
            Ok(false) => {
                let message = format!("{}: the run {run} is missing", self.describe());
                StoreError { lost: true, ..StoreError::new(message) }
            }
            Err(error) => error,
        }
    }
}

/// A number that nobody else has.
fn key() -> i64 {
    fastrand::i64(..)
}
