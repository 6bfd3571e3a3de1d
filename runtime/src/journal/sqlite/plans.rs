//! Saved plans: which were used, by which runs, and what people said to them.

use async_trait::async_trait;
use jiff::Timestamp;

use super::SqliteStore;
use crate::{
    effect::Reply,
    journal::{
        columns::{json, parsed},
        store::{PlanStore, StoreError},
    },
};

#[async_trait]
impl PlanStore for SqliteStore {
    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        self.with(false, async |connection| {
            sqlx::query_scalar("SELECT run FROM plans WHERE plan = ?")
                .bind(plan)
                .fetch_optional(connection)
                .await
        })
        .await
    }

    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        self.with(false, async |connection| {
            sqlx::query_scalar("SELECT binding FROM plans WHERE run = ?")
                .bind(run)
                .fetch_optional(connection)
                .await
        })
        .await
    }

    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError> {
        self.with(true, async |connection| {
            sqlx::query(
                "INSERT INTO approvals (plan, n, expires_ms, reply)
                 SELECT $1, (SELECT count(*) FROM approvals WHERE plan = $1), $2, $3",
            )
            .bind(plan)
            .bind(until.as_millisecond())
            .bind(json(reply))
            .execute(connection)
            .await
            .map(drop)
        })
        .await
    }

    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        self.with(false, async |connection| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM approvals WHERE plan = ? ORDER BY n")
                    .bind(plan)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("approval", reply)).collect()
        })
        .await
    }

    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError> {
        self.with(true, async |connection| {
            sqlx::query("DELETE FROM approvals WHERE plan = ?").bind(plan).execute(connection).await.map(drop)
        })
        .await
    }
}
