//! What keeps a store in order.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection as _;

use super::SqliteStore;
use crate::journal::store::{Maintenance, StoreError};

/// Runs that ended before a time and cannot go on.
const OLD: &str =
    "SELECT id FROM runs WHERE ended_ms < $1 AND status NOT IN ('running', 'paused', 'rollback_incomplete')";

#[async_trait]
impl Maintenance for SqliteStore {
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.with(true, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM records WHERE run IN ({OLD})")))
                .bind(before.as_millisecond())
                .execute(&mut *transaction)
                .await?;
            let gone = sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM runs WHERE id IN ({OLD})")))
                .bind(before.as_millisecond())
                .execute(&mut *transaction)
                .await?
                .rows_affected();
            for statement in [
                "DELETE FROM plans WHERE expires_ms < $1 AND run NOT IN (SELECT id FROM runs)",
                "DELETE FROM approvals WHERE expires_ms < $1 AND plan NOT IN (SELECT plan FROM plans)",
            ] {
                sqlx::query(statement).bind(before.as_millisecond()).execute(&mut *transaction).await?;
            }
            sqlx::query("DELETE FROM bundles WHERE hash NOT IN (SELECT bundle FROM runs)")
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            // Gives the space back to the disk.
            sqlx::query("PRAGMA incremental_vacuum").execute(&mut *connection).await?;
            Ok(gone)
        })
        .await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.with(false, async |connection| {
            let mut found: Vec<String> =
                sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *connection).await?;
            found.retain(|line| line != "ok");
            let orphans: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT run) FROM records WHERE run NOT IN (SELECT id FROM runs)",
            )
            .fetch_one(&mut *connection)
            .await?;
            if orphans > 0 {
                found.push(format!("records of {orphans} runs that are missing from the list of runs"));
            }
            let scriptless: Vec<String> =
                sqlx::query_scalar("SELECT id FROM runs WHERE bundle NOT IN (SELECT hash FROM bundles)")
                    .fetch_all(connection)
                    .await?;
            found.extend(scriptless.into_iter().map(|run| format!("the scripts of {run} are missing")));
            Ok(found)
        })
        .await
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}
