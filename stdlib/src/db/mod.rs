//! `db`: migrations, queries and backups of databases.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    provider::{Provider, ProviderError},
    script::options,
};
use rhai::{Module, plugin::*};

use crate::codes;

pub mod backup;
#[cfg(feature = "postgres")]
mod child;
#[cfg(test)]
mod contract;
pub mod folder;
pub mod history;
pub mod migrate;
#[cfg(feature = "postgres")]
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
    query::{Question, Rows},
    sql::Dialect,
    sqlite::{Settings as SqliteSettings, Sqlite},
};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, Settings as PostgresSettings};

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

contraflow_provider::capability!(dyn Database, "db");

/// The database bound to a name, ready for use.
struct Ready<'n> {
    name: &'n str,
    database: Arc<dyn Database>,
}

/// The database bound to `name`, ready for use.
async fn ready<'n>(on: &On, name: &'n str) -> Result<Ready<'n>, ProviderError> {
    let database = on.get::<dyn Database>(name)?;
    database.ready().await?;
    Ok(Ready { name, database })
}

impl std::ops::Deref for Ready<'_> {
    type Target = dyn Database;

    fn deref(&self) -> &Self::Target {
        &*self.database
    }
}

impl Ready<'_> {
    fn migrations(&self) -> Result<&dyn Migrations, ProviderError> {
        self.database.migrations().ok_or_else(|| self.cannot("run migrations"))
    }

    fn queries(&self) -> Result<&dyn Queries, ProviderError> {
        self.database.queries().ok_or_else(|| self.cannot("answer queries"))
    }

    fn backups(&self) -> Result<&dyn Backups, ProviderError> {
        self.database.backups().ok_or_else(|| self.cannot("make backups"))
    }

    fn cannot(&self, what: &str) -> ProviderError {
        let (name, kind) = (self.name, self.database.kind());
        ProviderError::terminal(
            codes::CONFIG,
            format!("`{name}` is a database of kind {kind}: it cannot {what}"),
        )
        .hint(format!("bind {name} in contraflow.toml to a provider that can"))
    }
}

/// The script module `db`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("Databases: migrations, backups, read-only queries.");
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

    /// Can be asked, and nothing else.
    struct Replica;

    #[async_trait]
    impl Provider for Replica {
        fn kind(&self) -> &'static str {
            "replica"
        }
        fn describe(&self) -> String {
            "memory".to_owned()
        }
        async fn check(&self) -> Result<String, ProviderError> {
            Ok("there".to_owned())
        }
    }

    #[async_trait]
    impl Queries for Replica {
        async fn query(&self, _: &Question) -> Result<Rows, ProviderError> {
            Ok(Rows::default())
        }
    }

    impl Database for Replica {
        fn dialect(&self) -> Dialect {
            Dialect::Sqlite
        }
        fn folder(&self) -> &Path {
            Path::new("/")
        }
        fn queries(&self) -> Option<&dyn Queries> {
            Some(self)
        }
    }

    #[tokio::test]
    async fn what_a_database_cannot_do_is_said_by_its_name() {
        let ready = Ready { name: "main", database: Arc::new(Replica) };
        assert!(ready.queries().is_ok());
        for (error, what) in
            [(ready.migrations().err(), "run migrations"), (ready.backups().err(), "make backups")]
        {
            let error = error.expect("it cannot");
            assert_eq!(error.code.as_str(), codes::CONFIG);
            assert_eq!(error.message, format!("`main` is a database of kind replica: it cannot {what}"));
            assert_eq!(error.hints, ["bind main in contraflow.toml to a provider that can"]);
        }
    }
}
