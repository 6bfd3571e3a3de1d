//! The contract of `db`. What a database can do are traits of their own, and each has a suite of its own.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Database, Dialect, Question, Rows},
    on::{On, Surroundings},
    provider::{ProviderError, Providers},
    quantity::Span,
};

pub mod backups;
pub mod migrations;
pub mod queries;

/// A database that nothing was done to, and what the test knows about it: by default what is true of all of its dialect. The suites
/// make tables named `users`, `a` and `none` in it, so it has none of them.
#[async_trait]
pub trait Fixture: Sync {
    /// The database.
    fn database(&self) -> Arc<dyn Database>;

    /// A folder for backups.
    fn folder(&self) -> &Path;

    /// Runs statements as an application would, behind the provider's back.
    async fn run(&self, sql: &str);

    /// Reads rows, of a database that is migrated. By default with its own queries.
    async fn rows(&self, sql: &str) -> Value {
        json!(ask(self.database(), sql).await.expect(sql))
    }

    /// A statement that reads and takes a minute.
    fn slow(&self) -> &str {
        match self.database().dialect() {
            Dialect::Sqlite => {
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000000000) SELECT count(*) AS n FROM c"
            }
            Dialect::Postgres => "SELECT count(*) AS n FROM pg_sleep(60)",
        }
    }

    /// Statements that make an index `by_name` on the column `name` of `users`, and cannot run in a transaction.
    fn outside_transaction(&self) -> &str {
        match self.database().dialect() {
            Dialect::Sqlite => "VACUUM;\nCREATE INDEX by_name ON users (name);\n",
            Dialect::Postgres => "CREATE INDEX CONCURRENTLY by_name ON users (name);\nVACUUM users;\n",
        }
    }

    /// Statements that begin like those that read, and write.
    fn disguised_writes(&self) -> &[&str] {
        match self.database().dialect() {
            Dialect::Sqlite => &["WITH x AS (SELECT 1) DELETE FROM users"],
            Dialect::Postgres => &[
                "WITH gone AS (DELETE FROM users RETURNING id) SELECT * FROM gone",
                "SELECT set_config('transaction_read_only', 'off', true)",
                "EXPLAIN ANALYZE DELETE FROM users",
                "SELECT * INTO copied FROM users",
            ],
        }
    }

    /// What the error for a lock that was not had in time says about who holds it.
    fn lock_holder(&self) -> &[&str] {
        &[]
    }

    /// Whether migrations can be tried without effect.
    fn can_rehearse(&self) -> bool {
        true
    }
}

/// What an effect has at hand.
fn on() -> On {
    On::detached(Arc::new(Providers::new("test")))
}

/// What an effect of that run has at hand.
fn on_of(run: &str) -> On {
    let nothing = Surroundings::detached(Arc::new(Providers::new("test")));
    On::new(Arc::new(nothing), "1:db.migrate", format!("{run}/1:db.migrate"), CancellationToken::new())
}

fn question(sql: &str) -> Question {
    Question { sql: sql.to_owned(), params: Vec::new(), timeout: Span::secs(30), max_rows: 1000 }
}

async fn ask(database: Arc<dyn Database>, sql: &str) -> Result<Rows, ProviderError> {
    database.ready().await?;
    database.queries().expect("the database has queries").query(&question(sql)).await
}
