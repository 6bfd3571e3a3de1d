//! What a provider of `db` can do: migrations, queries and backups of a database.

use std::path::Path;

use async_trait::async_trait;

use crate::{
    on::On,
    provider::{Provider, ProviderError},
    quantity::Span,
};

mod backup;
mod history;
mod migration;
mod query;
pub mod sql;
mod work;

pub use self::{
    backup::{Job, Proof, Verify},
    history::{Applied, Record, Schema, Table},
    migration::{Migration, Version, checksum, directives, is_without_transaction},
    query::{Question, Rows},
    work::{HALF_DONE, NOTHING_DONE, Session, Step, Work, no_way_back},
};

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// A database: where it is, and whose SQL it takes. What can be done with it are traits of their own, which a provider need not
/// have all of.
#[async_trait]
pub trait Database: Provider {
    /// Makes what has to be there before the database is used for the first time. Cheap once that is done.
    ///
    /// # Errors
    /// `unreachable`: it cannot be made.
    async fn ready(&self) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Whose SQL it takes.
    fn dialect(&self) -> Dialect;

    /// The folder that relative paths in scripts are taken from.
    fn folder(&self) -> &Path;

    /// Its migrations, if its schema can be migrated.
    fn migrations(&self) -> Option<&dyn Migrations> {
        None
    }

    /// Its queries, if scripts can read rows of it.
    fn queries(&self) -> Option<&dyn Queries> {
        None
    }

    /// Its backups, if it can be copied.
    fn backups(&self) -> Option<&dyn Backups> {
        None
    }
}

/// A database whose schema can be migrated.
#[async_trait]
pub trait Migrations: Send + Sync {
    /// The folder of migrations that the configuration names.
    fn configured_folder(&self) -> Option<&Path>;

    /// The rows of the history table by version. None where there is no table yet.
    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError>;

    /// Runs what leads from the history as it is now to `work.to`, file by file, under a lock that keeps other migrations out.
    ///
    /// # Errors
    /// `migration` with file, line, the database's message and what is applied then; `timeout` (retryable) for a lock that was
    /// not had in time.
    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError>;

    /// Sees to it that no migration of an earlier runner of this run lands any more: waits until the lock that keeps migrations out is
    /// free, and ends a session of this run that still holds it, where the database can.
    ///
    /// # Errors
    /// `timeout` (retryable) with who holds the lock, if it was not free within `patience`.
    async fn fence(&self, on: &On, table: &Table, patience: Span) -> Result<(), ProviderError>;

    /// Tries the same without effect and answers what to show, or `None` if that cannot be done here.
    ///
    /// # Errors
    /// `migration`: it would fail.
    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError> {
        let _ = (on, work);
        Ok(None)
    }
}

/// A database that can be asked.
#[async_trait]
pub trait Queries: Send + Sync {
    /// Reads rows, where nothing can be written.
    ///
    /// # Errors
    /// `query`: a write, a value that cannot be represented in a script, too many rows, the database's own errors;
    /// `timeout`.
    async fn query(&self, question: &Question) -> Result<Rows, ProviderError>;
}

/// A database that can be copied.
#[async_trait]
pub trait Backups: Send + Sync {
    /// Writes a copy to `job.file` and proves it.
    ///
    /// # Errors
    /// `backup`: it could not be written, or not be read back.
    async fn backup(&self, on: &On, job: &Job) -> Result<Proof, ProviderError>;

    /// Ending of the names of its backups.
    fn ending(&self) -> &'static str;
}

crate::capability!(dyn Database, "db");
