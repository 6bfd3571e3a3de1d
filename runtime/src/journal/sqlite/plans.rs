//! Saved plans: which were used, by which runs, and what people said to them.

use jiff::Timestamp;

use super::SqliteStore;
use crate::{
    effect::Reply,
    journal::{
        columns::{json, parsed},
        store::StoreError,
    },
};

pub(super) async fn plan_used(store: &SqliteStore, plan: &str) -> Result<Option<String>, StoreError> {
    store
        .with(false, async |connection| {
            sqlx::query_scalar("SELECT run FROM plans WHERE plan = ?")
                .bind(plan)
                .fetch_optional(connection)
                .await
        })
        .await
}

pub(super) async fn binding(store: &SqliteStore, run: &str) -> Result<Option<String>, StoreError> {
    store
        .with(false, async |connection| {
            sqlx::query_scalar("SELECT binding FROM plans WHERE run = ?")
                .bind(run)
                .fetch_optional(connection)
                .await
        })
        .await
}

pub(super) async fn approve(
    store: &SqliteStore,
    plan: &str,
    until: Timestamp,
    reply: &Reply,
) -> Result<(), StoreError> {
    store
        .with(true, async |connection| {
            sqlx::query(
                "INSERT INTO approvals (plan, n, until_ms, reply)
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

pub(super) async fn approvals(store: &SqliteStore, plan: &str) -> Result<Vec<Reply>, StoreError> {
    store
        .with(false, async |connection| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM approvals WHERE plan = ? ORDER BY n")
                    .bind(plan)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("approval", reply)).collect()
        })
        .await
}

pub(super) async fn void_approvals(store: &SqliteStore, plan: &str) -> Result<(), StoreError> {
    store
        .with(true, async |connection| {
            sqlx::query("DELETE FROM approvals WHERE plan = ?").bind(plan).execute(connection).await.map(drop)
        })
        .await
}
