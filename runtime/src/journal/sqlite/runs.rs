//! Runs: who works on them, how they stand, what was asked of them.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection as _;

use super::{SqliteStore, now};
use crate::{
    bundle::Bundle,
    journal::{
        columns::{json, parsed, run_of},
        run::{Heartbeat, Holder, Request, Run, RunStatus},
        store::{RunStore, StoreError, Used},
    },
};

/// Runs, each with the plan that it was started from.
macro_rules! runs {
    () => {
        "SELECT *, (SELECT plan FROM plans WHERE plans.run = runs.id) AS plan FROM runs"
    };
}

/// Removes what only a run that goes on needs.
const LET_GO: [&str; 3] = [
    "DELETE FROM locks WHERE run = $1",
    "DELETE FROM questions WHERE run = $1",
    "DELETE FROM answers WHERE run = $1",
];

/// Keeps a new run, and that it uses a plan up. Some: another run has used the plan.
async fn begin(
    store: &SqliteStore,
    run: &Run,
    bundle: &Bundle,
    holder: &Holder,
    used: Option<&Used>,
) -> Result<Option<String>, StoreError> {
    let files = bundle.to_json();
    store.with(false, async |connection| {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(Used { plan, until, binding }) = used {
            let before = sqlx::query_scalar("SELECT run FROM plans WHERE plan = ?")
                .bind(plan)
                .fetch_optional(&mut *transaction)
                .await?;
            if before.is_some() {
                return Ok(before);
            }
            sqlx::query("INSERT INTO plans (plan, run, expires_ms, binding) VALUES ($1, $2, $3, $4)")
                .bind(plan)
                .bind(&run.id)
                .bind(until.as_millisecond())
                .bind(binding)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("INSERT INTO bundles (hash, files) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(&run.bundle)
            .bind(files)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "INSERT INTO runs (id, runbook, version, environment, params, bundle, status, epoch, started_by, started_ms, ended_ms,
                               holder, heartbeat_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(&run.id)
        .bind(&run.runbook)
        .bind(&run.version)
        .bind(&run.environment)
        .bind(run.params.to_string())
        .bind(&run.bundle)
        .bind(run.status.as_str())
        .bind(run.epoch)
        .bind(&run.started_by)
        .bind(run.started_at.as_millisecond())
        .bind(run.ended_at.map(Timestamp::as_millisecond))
        .bind(json(holder))
        .bind(now())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(None)
    })
    .await
}

#[async_trait]
impl RunStore for SqliteStore {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        begin(self, run, bundle, holder, None).await.map(drop)
    }

    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError> {
        begin(self, run, bundle, holder, Some(used)).await
    }

    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        self.with(true, async |connection| {
            let acquired = sqlx::query(
                "UPDATE runs SET epoch = epoch + 1, status = 'running', ended_ms = NULL, request = NULL, holder = $3, heartbeat_ms = $4
                 WHERE id = $1 AND epoch = $2",
            )
            .bind(run)
            .bind(epoch)
            .bind(json(holder))
            .bind(now())
            .execute(connection)
            .await?;
            Ok(acquired.rows_affected() == 1)
        })
        .await
    }

    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        let (hash, files) = (bundle.hash(), bundle.to_json());
        let bound = self
            .with(true, async |connection| {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                sqlx::query("INSERT INTO bundles (hash, files) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                    .bind(&hash)
                    .bind(files)
                    .execute(&mut *transaction)
                    .await?;
                let bound = sqlx::query("UPDATE runs SET bundle = $3 WHERE id = $1 AND epoch = $2")
                    .bind(run)
                    .bind(epoch)
                    .bind(&hash)
                    .execute(&mut *transaction)
                    .await?
                    .rows_affected();
                transaction.commit().await?;
                Ok(bound == 1)
            })
            .await?;
        if bound { Ok(()) } else { Err(StoreError::lost(run)) }
    }

    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError> {
        self.with(false, async |connection| {
            let request: Option<Option<String>> = sqlx::query_scalar(
                "UPDATE runs SET heartbeat_ms = $3 WHERE id = $1 AND epoch = $2 AND status = 'running' RETURNING request",
            )
            .bind(run)
            .bind(epoch)
            .bind(now())
            .fetch_optional(connection)
            .await?;
            let Some(request) = request else { return Ok(Heartbeat::Lost) };
            Ok(Heartbeat::Held(request.map(|request| parsed("request", &request)).transpose()?))
        })
        .await
    }

    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        self.with(false, async |connection| {
            sqlx::query("UPDATE runs SET request = $2 WHERE id = $1 AND status = 'running'")
                .bind(run)
                .bind(json(request))
                .execute(connection)
                .await
                .map(drop)
        })
        .await
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        let ended = self
            .with(false, async |connection| {
                let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
                let ended = sqlx::query(
                    "UPDATE runs SET status = $3, ended_ms = $4, holder = NULL, request = NULL WHERE id = $1 AND epoch = $2",
                )
                .bind(run)
                .bind(epoch)
                .bind(status.as_str())
                .bind(at.as_millisecond())
                .execute(&mut *transaction)
                .await?
                .rows_affected()
                    == 1;
                if ended && !status.can_go_on() {
                    for statement in LET_GO {
                        sqlx::query(statement).bind(run).execute(&mut *transaction).await?;
                    }
                }
                transaction.commit().await?;
                Ok(ended)
            })
            .await?;
        if ended { Ok(()) } else { Err(StoreError::lost(run)) }
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(concat!(runs!(), " ORDER BY started_ms DESC, id LIMIT ?"))
                .bind(i64::from(limit))
                .fetch_all(connection)
                .await?;
            rows.iter().map(|row| run_of(row, now())).collect()
        })
        .await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(concat!(
                runs!(),
                " WHERE id = ?1 OR substr(id, 1, length(?1)) = ?1 OR substr(id, -length(?1)) = ?1
                 ORDER BY id = ?1 DESC, started_ms DESC"
            ))
            .bind(id)
            .fetch_all(connection)
            .await?;
            let mut runs = rows.iter().map(|row| run_of(row, now())).collect::<Result<Vec<_>, _>>()?;
            if runs.first().is_some_and(|run| run.id == id) {
                runs.truncate(1);
            }
            Ok(runs)
        })
        .await
    }

    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError> {
        let files: Option<String> = self
            .with(false, async |connection| {
                sqlx::query_scalar("SELECT files FROM bundles WHERE hash = ?")
                    .bind(hash)
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        let Some(files) = files else { return Ok(None) };
        Bundle::from_json(&files)
            .map(Some)
            .map_err(|e| StoreError::new(format!("the scripts of bundle {hash} cannot be read: {e}")))
    }
}
