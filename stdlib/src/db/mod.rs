//! `db`: migrations, queries and backups of databases.

use std::sync::Arc;

pub use contraflow_provider::db::*;
use contraflow_runtime::{effect::On, provider::ProviderError, script::options};
use rhai::{Module, plugin::*};

use crate::codes;

pub mod backup;
#[cfg(feature = "postgres")]
mod child;
pub mod folder;
mod foreign;
pub mod migrate;
#[cfg(feature = "postgres")]
mod postgres;
pub mod query;
mod sqlite;
pub mod status;

#[cfg(feature = "postgres")]
pub use postgres::{Postgres, Settings as PostgresSettings};
pub use sqlite::{Settings as SqliteSettings, Sqlite};

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

/// An error about migrations that repeating will not cure.
fn refused(message: String) -> ProviderError {
    ProviderError::terminal(codes::MIGRATION, message)
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
    use std::path::Path;

    use async_trait::async_trait;
    use contraflow_runtime::provider::Provider;

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
