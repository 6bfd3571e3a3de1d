//! Locks of targets.

use async_trait::async_trait;
use sqlx::Connection as _;

use super::{SqliteStore, now};
use crate::journal::{
    columns::lock_of,
    store::{Lock, LockStore, StoreError},
};

#[async_trait]
impl LockStore for SqliteStore {
    async fn lock(
        &self,
        run: &str,
        epoch: i64,
        environment: &str,
        target: &str,
    ) -> Result<Option<Lock>, StoreError> {
        let held = self
            .with(false, async |connection| {
                // One transaction: whoever has it must not let go of it in between.
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let mine: bool =
                    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM runs WHERE id = $1 AND epoch = $2)")
                        .bind(run)
                        .bind(epoch)
                        .fetch_one(&mut *transaction)
                        .await?;
                if !mine {
                    return Ok(None);
                }
                sqlx::query(
                    "INSERT INTO locks (environment, target, run, since_ms) VALUES ($1, $2, $3, $4)
                     ON CONFLICT DO NOTHING",
                )
                .bind(environment)
                .bind(target)
                .bind(run)
                .bind(now())
                .execute(&mut *transaction)
                .await?;
                let held = sqlx::query(
                    "SELECT l.*, r.started_by FROM locks l JOIN runs r ON r.id = l.run
                     WHERE l.environment = $1 AND l.target = $2",
                )
                .bind(environment)
                .bind(target)
                .fetch_optional(&mut *transaction)
                .await?;
                transaction.commit().await?;
                held.as_ref().map(lock_of).transpose()
            })
            .await?;
        match held {
            Some(held) if held.run == run => Ok(None),
            Some(held) => Ok(Some(held)),
            None => Err(StoreError::lost(run)),
        }
    }

    async fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(
                "SELECT l.*, r.started_by FROM locks l JOIN runs r ON r.id = l.run ORDER BY l.since_ms, l.environment, l.target",
            )
            .fetch_all(connection)
            .await?;
            rows.iter().map(lock_of).collect()
        })
        .await
    }
}
