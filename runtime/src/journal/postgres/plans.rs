//! Saved plans: which were used, by which runs, and what people said to them.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    PostgresStore, durably, key,
    link::{Work, is_there, tried},
    now,
    runs::NewRun,
};
use crate::{
    bundle::Bundle,
    effect::Reply,
    journal::{
        columns::{json, parsed},
        run::{Holder, Run},
        store::{PlanStore, StoreError, Used},
    },
};

/// Creates a run that uses a plan up. Some: another run has used it.
pub(super) async fn create(
    store: &PostgresStore,
    run: &Run,
    bundle: &Bundle,
    holder: &Holder,
    used: &Used,
) -> Result<Option<String>, StoreError> {
    let row = NewRun::of(run, bundle, holder);
    let created = tried!(store.link.tries(Work::Quick), |connection, again| {
        // Whoever is second waits for the first and then inserts nothing, so neither the scripts nor the run.
        let done = row.bind(sqlx::query(concat!(
            "WITH used AS (
                 INSERT INTO contraflow.plans (plan, run, expires_ms, binding) VALUES ($15, $1, $16, $17)
                 ON CONFLICT (plan) DO NOTHING RETURNING run),
             scripts AS (
                 INSERT INTO contraflow.bundles (hash, files) SELECT $6, $14 FROM used ON CONFLICT DO NOTHING)
             INSERT INTO contraflow.runs (id, runbook, version, environment, params, bundle, status, epoch, started_by, started_ms,
                                       ended_ms, holder, idempotency_key, heartbeat_ms)
             SELECT run, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, ", now!(), " FROM used
             RETURNING ", durably!()
        )))
        .bind(&used.plan)
        .bind(used.until.as_millisecond())
        .bind(&used.binding)
        .fetch_optional(&mut *connection)
        .await?;
        if done.is_some() {
            return Ok(None);
        }
        if again {
            // It may have been this one that used it, when the answer was lost.
            let ours: Option<bool> =
                sqlx::query_scalar("SELECT idempotency_key = $2 FROM contraflow.runs WHERE id = $1")
                    .bind(&run.id)
                    .bind(row.key)
                    .fetch_optional(&mut *connection)
                    .await?;
            if ours == Some(true) {
                return Ok(None);
            }
        }
        sqlx::query_scalar("SELECT run FROM contraflow.plans WHERE plan = $1")
            .bind(&used.plan)
            .fetch_one(connection)
            .await
            .map(Some)
    });
    created.await
}

/// Forgets plans that expired before then, unless their runs are still there.
pub(super) async fn forget(store: &PostgresStore, before: Timestamp) -> Result<(), StoreError> {
    let forgotten = tried!(store.link.tries(Work::Long), |connection, _| {
        sqlx::query(concat!(
            "WITH old AS (
                 DELETE FROM contraflow.plans p WHERE expires_ms < $1
                 AND NOT EXISTS (SELECT 1 FROM contraflow.runs WHERE id = p.run) RETURNING plan)
             DELETE FROM contraflow.approvals a WHERE expires_ms < $1
             AND (plan IN (SELECT plan FROM old) OR NOT EXISTS (SELECT 1 FROM contraflow.plans WHERE plan = a.plan))
             RETURNING ",
            durably!()
        ))
        .bind(before.as_millisecond())
        .execute(connection)
        .await
        .map(drop)
    });
    forgotten.await
}

#[async_trait]
impl PlanStore for PostgresStore {
    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        let used = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query_scalar("SELECT run FROM contraflow.plans WHERE plan = $1")
                .bind(plan)
                .fetch_optional(connection)
                .await
        });
        used.await
    }

    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        let binding = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query_scalar("SELECT binding FROM contraflow.plans WHERE run = $1")
                .bind(run)
                .fetch_optional(connection)
                .await
        });
        binding.await
    }

    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError> {
        let (reply, key) = (json(reply), key());
        let approved = tried!(self.link.tries(Work::Quick), |connection, again| {
            let done = sqlx::query(concat!(
                "INSERT INTO contraflow.approvals (plan, expires_ms, reply, idempotency_key) VALUES ($1, $2, $3, $4) RETURNING ",
                durably!()
            ))
            .bind(plan)
            .bind(until.as_millisecond())
            .bind(&reply)
            .bind(key)
            .execute(connection)
            .await;
            match done {
                Err(error) if again && is_there(&error) => Ok(()),
                done => done.map(drop),
            }
        });
        approved.await
    }

    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        let approvals = tried!(self.link.tries(Work::Quick), |connection, _| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM contraflow.approvals WHERE plan = $1 ORDER BY n")
                    .bind(plan)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("approval", reply)).collect()
        });
        approvals.await
    }

    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError> {
        let void = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query(concat!("DELETE FROM contraflow.approvals WHERE plan = $1 RETURNING ", durably!()))
                .bind(plan)
                .execute(connection)
                .await
                .map(drop)
        });
        void.await
    }
}
