//! Locks of targets.

use async_trait::async_trait;

use super::{
    PostgresStore, durably,
    link::{Work, tried},
    now,
};
use crate::journal::{
    columns::lock_of,
    store::{Lock, LockStore, StoreError},
};

#[async_trait]
impl LockStore for PostgresStore {
    async fn lock(
        &self,
        run: &str,
        epoch: i64,
        environment: &str,
        target: &str,
    ) -> Result<Option<Lock>, StoreError> {
        let held = tried!(self.link.tries(Work::Quick), |connection, _| {
            loop {
                let (mine, taken, _): (i64, i64, String) = sqlx::query_as(concat!(
                    "WITH mine AS (SELECT id FROM contraflow.runs WHERE id = $1 AND epoch = $2 FOR SHARE), taken AS (
                         INSERT INTO contraflow.locks (environment, target, run, since_ms)
                         SELECT $3, $4, id, ", now!(), " FROM mine ON CONFLICT DO NOTHING RETURNING 1)
                     SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM taken), ", durably!()
                ))
                .bind(run)
                .bind(epoch)
                .bind(environment)
                .bind(target)
                .fetch_one(&mut *connection)
                .await?;
                if mine == 0 {
                    return Ok(Err(()));
                }
                if taken == 1 {
                    return Ok(Ok(None));
                }
                let held = sqlx::query(
                    "SELECT l.*, r.started_by FROM contraflow.locks l JOIN contraflow.runs r ON r.id = l.run
                     WHERE l.environment = $1 AND l.target = $2",
                )
                .bind(environment)
                .bind(target)
                .fetch_optional(&mut *connection)
                .await?;
                match held.as_ref().map(lock_of).transpose()? {
                    Some(held) if held.run == run => return Ok(Ok(None)),
                    Some(held) => return Ok(Ok(Some(held))),
                    // Freed in between.
                    None => {}
                }
            }
        });
        match held.await? {
            Ok(held) => Ok(held),
            Err(()) => Err(self.refused(run).await),
        }
    }

    async fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        let locks = tried!(self.link.tries(Work::Quick), |connection, _| {
            let rows = sqlx::query(
                "SELECT l.*, r.started_by FROM contraflow.locks l JOIN contraflow.runs r ON r.id = l.run
                 ORDER BY l.since_ms, l.environment, l.target",
            )
            .fetch_all(connection)
            .await?;
            rows.iter().map(lock_of).collect()
        });
        locks.await
    }
}
