//! `db`: migrations, queries and backups of databases.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    provider::{Capability, Provider, ProviderError},
    script::options,
};
use rhai::{Module, plugin::*};

pub mod backup;
mod child;
#[cfg(test)]
mod contract;
pub mod folder;
pub mod history;
pub mod migrate;
mod postgres;
pub mod query;
mod sql;
mod sqlite;
pub mod status;

// The contract is compiled here and in `tests/postgres.rs`, where this library has another name.
#[cfg(test)]
use crate as lib;

pub use self::{
    backup::{Job, Proof},
    history::{Record, Schema, Table, Work},
    postgres::{Postgres, Settings as PostgresSettings},
    query::{Question, Rows},
    sql::Dialect,
    sqlite::{Settings as SqliteSettings, Sqlite},
};

/// A database whose schema can be migrated, that can be asked and copied.
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

    /// The folder of migrations that the configuration names.
    fn migrations(&self) -> Option<&Path>;

    /// The rows of the history table by version. None where there is no table yet.
    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError>;

    /// Runs what leads from the history as it is now to `work.to`, file by file, under a lock that keeps other migrations out.
    ///
    /// # Errors
    /// `migration` with file, line, the database's message and what is applied then; `timeout` (retryable) for a lock that was
    /// not had in time.
    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError>;

    /// Tries the same without effect and answers what to show, or `None` if that cannot be done here.
    ///
    /// # Errors
    /// `migration`: it would fail.
    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError>;

    /// Reads rows, where nothing can be written.
    ///
    /// # Errors
    /// `query`: a write, a value that has no form in a script, too many rows, the database's own errors; `timeout`.
    async fn query(&self, question: &Question) -> Result<Rows, ProviderError>;

    /// Writes a copy to `job.file` and proves it.
    ///
    /// # Errors
    /// `backup`: it could not be written, or not be read back.
    async fn backup(&self, on: &On, job: &Job) -> Result<Proof, ProviderError>;

    /// Ending of the names of its backups.
    fn backup_ending(&self) -> &'static str;
}

impl Capability for dyn Database {
    const NOUN: &'static str = "db";

    fn as_provider(self: Arc<Self>) -> Arc<dyn Provider> {
        self
    }
}

/// The database bound to `name`, ready for use.
async fn ready(on: &On, name: &str) -> Result<Arc<dyn Database>, ProviderError> {
    let database = on.get::<dyn Database>(name)?;
    database.ready().await?;
    Ok(database)
}

/// The script module `db`.
pub fn module() -> Module {
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "migrate", migrate::script);
    combine_with_exported_module!(&mut module, "status", status::script);
    combine_with_exported_module!(&mut module, "query", query::script);
    combine_with_exported_module!(&mut module, "backup", backup::script);
    options::<migrate::Options>(&mut module, "migrate");
    options::<status::Options>(&mut module, "status");
    options::<query::Options>(&mut module, "query");
    options::<backup::Options>(&mut module, "backup");
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_is_there_with_and_without_options() {
        let mut engine = rhai::Engine::new();
        engine.register_static_module("db", Arc::new(module()));
        for call in ["migrate('main'", "status('main'", "query('main', 'SELECT 1'", "backup('main'"] {
            for end in [")", ", #{})"] {
                let call = format!("db::{call}{end}").replace('\'', "\"");
                let error = engine.eval::<rhai::Dynamic>(&call).expect_err("there is no run").to_string();
                assert!(!error.contains("not found"), "{call}: {error}");
            }
        }
    }
}
