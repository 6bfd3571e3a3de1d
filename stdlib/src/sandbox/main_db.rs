//! The target `db/main` of the sandbox: an SQLite database that is made when it is first used.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    provider::{Provider, ProviderError},
    quantity::Span,
};

use super::Sandbox;
use crate::db::{
    Backups, Database, Dialect, Job, Migrations, Proof, Queries, Question, Record, Rows, Sqlite, Table, Work,
};

pub(super) struct Main {
    sandbox: Arc<Sandbox>,
    sqlite: Sqlite,
}

impl Main {
    pub(super) fn new(sandbox: Arc<Sandbox>) -> Self {
        let sqlite = Sqlite::open(sandbox.database_path(), sandbox.migrations_dir());
        Self { sandbox, sqlite }
    }
}

#[async_trait]
impl Provider for Main {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        "SQLite in a temporary folder".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        self.ready().await?;
        self.sqlite.check().await
    }
}

#[async_trait]
impl Database for Main {
    async fn ready(&self) -> Result<(), ProviderError> {
        self.sandbox.ready().await
    }

    fn dialect(&self) -> Dialect {
        self.sqlite.dialect()
    }

    fn folder(&self) -> &Path {
        self.sqlite.folder()
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
impl Migrations for Main {
    fn configured_folder(&self) -> Option<&Path> {
        self.sqlite.configured_folder()
    }

    async fn history(&self, table: &Table) -> Result<Vec<Record>, ProviderError> {
        self.sqlite.history(table).await
    }

    async fn migrate(&self, on: &On, work: &Work) -> Result<(), ProviderError> {
        self.sqlite.migrate(on, work).await
    }

    async fn fence(&self, on: &On, table: &Table, patience: Span) -> Result<(), ProviderError> {
        self.sqlite.fence(on, table, patience).await
    }

    async fn rehearse(&self, on: &On, work: &Work) -> Result<Option<String>, ProviderError> {
        self.sqlite.rehearse(on, work).await
    }
}

#[async_trait]
impl Queries for Main {
    async fn query(&self, question: &Question) -> Result<Rows, ProviderError> {
        self.sqlite.query(question).await
    }
}

#[async_trait]
impl Backups for Main {
    async fn backup(&self, on: &On, job: &Job) -> Result<Proof, ProviderError> {
        self.sqlite.backup(on, job).await
    }

    fn ending(&self) -> &'static str {
        self.sqlite.ending()
    }
}
