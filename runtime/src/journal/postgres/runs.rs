//! Runs: who works on them, how they stand, what was asked of them.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::Query};

use super::{
    PostgresStore, durably, key,
    link::{Work, is_there, tried},
    now, plans,
};
use crate::{
    bundle::Bundle,
    journal::{
        columns::{json, parsed, run_of},
        run::{Heartbeat, Holder, Request, Run, RunStatus},
        store::{RunStore, StoreError, Used},
    },
};

/// Runs, each with the plan that it was started from, and the time by the clock of the store.
macro_rules! runs {
    () => {
        concat!(
            "SELECT *, ",
            now!(),
            " AS now_ms, (SELECT plan FROM contraflow.plans p WHERE p.run = runs.id) AS plan FROM contraflow.runs"
        )
    };
}

async fn runs_of(
    connection: &mut PgConnection,
    query: &'static str,
    id: Option<&str>,
    limit: i64,
) -> Result<Vec<Run>, sqlx::Error> {
    use crate::journal::columns::Columns as _;
    let rows = sqlx::query(query).bind(id).bind(limit).fetch_all(connection).await?;
    rows.iter().map(|row| run_of(row, row.number("now_ms")?)).collect()
}

/// The values of a run that is created, in the order in which statements name them: `$1` to `$14`.
pub(super) struct NewRun<'r> {
    run: &'r Run,
    files: String,
    params: String,
    holder: String,
    pub(super) key: i64,
}

impl<'r> NewRun<'r> {
    pub(super) fn of(run: &'r Run, bundle: &Bundle, holder: &Holder) -> Self {
        let (files, params, holder) = (bundle.to_json(), run.params.to_string(), json(holder));
        Self { run, files, params, holder, key: key() }
    }

    pub(super) fn bind<'q>(
        &'q self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let Self { run, files, params, holder, key } = self;
        query
            .bind(&run.id)
            .bind(&run.runbook)
            .bind(&run.version)
            .bind(&run.environment)
            .bind(params)
            .bind(&run.bundle)
            .bind(run.status.as_str())
            .bind(run.epoch)
            .bind(&run.started_by)
            .bind(run.started_at.as_millisecond())
            .bind(run.ended_at.map(Timestamp::as_millisecond))
            .bind(holder)
            .bind(key)
            .bind(files)
    }
}

#[async_trait]
impl RunStore for PostgresStore {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        let row = NewRun::of(run, bundle, holder);
        // Durable at once: the crash of a server must not take away the run under a runner that lives on.
        let created = tried!(self.link.tries(Work::Quick), |connection, again| {
            let done = row.bind(sqlx::query(concat!(
                "WITH scripts AS (INSERT INTO contraflow.bundles (hash, files) VALUES ($6, $14) ON CONFLICT DO NOTHING)
                 INSERT INTO contraflow.runs (id, runbook, version, environment, params, bundle, status, epoch, started_by, started_ms,
                                           ended_ms, holder, idempotency_key, heartbeat_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, ", now!(), ")
                 RETURNING ", durably!()
            )))
            .execute(&mut *connection)
            .await;
            match done {
                Err(error) if again && is_there(&error) => {
                    let ours: bool =
                        sqlx::query_scalar("SELECT idempotency_key = $2 FROM contraflow.runs WHERE id = $1")
                            .bind(&run.id)
                            .bind(row.key)
                            .fetch_one(connection)
                            .await?;
                    if ours { Ok(()) } else { Err(error) }
                }
                done => done.map(drop),
            }
        });
        created.await
    }

    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError> {
        plans::create(self, run, bundle, holder, used).await
    }

    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        let (holder, key) = (json(holder), key());
        let acquired = tried!(self.link.tries(Work::Quick), |connection, again| {
            let done: Option<String> = sqlx::query_scalar(concat!(
                "UPDATE contraflow.runs SET epoch = epoch + 1, status = 'running', ended_ms = NULL, request = NULL, holder = $3,
                                         idempotency_key = $4, heartbeat_ms = ", now!(), "
                 WHERE id = $1 AND epoch = $2 RETURNING ", durably!()
            ))
            .bind(run)
            .bind(epoch)
            .bind(&holder)
            .bind(key)
            .fetch_optional(&mut *connection)
            .await?;
            if done.is_some() || !again {
                return Ok(done.is_some());
            }
            // It may have been this one that raised the epoch, when the answer was lost.
            let ours: Option<bool> =
                sqlx::query_scalar("SELECT idempotency_key = $2 FROM contraflow.runs WHERE id = $1")
                    .bind(run)
                    .bind(key)
                    .fetch_optional(connection)
                    .await?;
            Ok(ours == Some(true))
        });
        acquired.await
    }

    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        let (hash, files) = (bundle.hash(), bundle.to_json());
        let bound = tried!(self.link.tries(Work::Quick), |connection, _| {
            let done: Option<String> = sqlx::query_scalar(concat!(
                "WITH scripts AS (INSERT INTO contraflow.bundles (hash, files) VALUES ($3, $4) ON CONFLICT DO NOTHING)
                 UPDATE contraflow.runs SET bundle = $3 WHERE id = $1 AND epoch = $2
                 RETURNING ",
                durably!()
            ))
            .bind(run)
            .bind(epoch)
            .bind(&hash)
            .bind(&files)
            .fetch_optional(connection)
            .await?;
            Ok(done.is_some())
        });
        if bound.await? { Ok(()) } else { Err(self.refused(run).await) }
    }

    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError> {
        let heartbeat = tried!(self.link.tries(Work::Quick), |connection, _| {
            let request: Option<(Option<String>, String)> = sqlx::query_as(concat!(
                "UPDATE contraflow.runs SET heartbeat_ms = ",
                now!(),
                " WHERE id = $1 AND epoch = $2 AND status = 'running'
                 RETURNING request, set_config('synchronous_commit', 'off', true)"
            ))
            .bind(run)
            .bind(epoch)
            .fetch_optional(connection)
            .await?;
            let Some((request, _)) = request else { return Ok(Heartbeat::Lost) };
            Ok(Heartbeat::Held(request.map(|request| parsed("request", &request)).transpose()?))
        });
        heartbeat.await
    }

    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        let request = json(request);
        let asked = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query(concat!(
                "UPDATE contraflow.runs SET request = $2 WHERE id = $1 AND status = 'running' RETURNING ",
                durably!()
            ))
            .bind(run)
            .bind(&request)
            .execute(connection)
            .await
            .map(drop)
        });
        asked.await
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        if self.unsure().contains_key(run) {
            self.settle(run, epoch).await?;
        }
        let ended = tried!(self.link.tries(Work::Quick), |connection, _| {
            // Answers go with their questions.
            let (ended, _): (i64, String) = sqlx::query_as(concat!(
                "WITH ended AS (
                     UPDATE contraflow.runs SET status = $3, ended_ms = $4, holder = NULL, request = NULL
                     WHERE id = $1 AND epoch = $2 RETURNING id),
                 freed AS (DELETE FROM contraflow.locks WHERE $5 AND run IN (SELECT id FROM ended)),
                 closed AS (DELETE FROM contraflow.questions WHERE $5 AND run IN (SELECT id FROM ended))
                 SELECT (SELECT count(*) FROM ended), ",
                durably!()
            ))
            .bind(run)
            .bind(epoch)
            .bind(status.as_str())
            .bind(at.as_millisecond())
            .bind(!status.can_go_on())
            .fetch_one(connection)
            .await?;
            Ok(ended == 1)
        });
        if ended.await? { Ok(()) } else { Err(self.refused(run).await) }
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        let runs = tried!(self.link.tries(Work::Quick), |connection, _| {
            let query = concat!(
                runs!(),
                " WHERE $1::text IS NULL
                 ORDER BY started_ms DESC, id LIMIT $2"
            );
            runs_of(connection, query, None, limit.into()).await
        });
        runs.await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        let found = tried!(self.link.tries(Work::Quick), |connection, _| {
            let exact = concat!(runs!(), " WHERE id = $1 LIMIT $2");
            let found = runs_of(connection, exact, Some(id), 1).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            let part = concat!(
                runs!(),
                " WHERE left(id, length($1)) = $1 OR right(id, length($1)) = $1
                 ORDER BY started_ms DESC, id LIMIT $2"
            );
            runs_of(connection, part, Some(id), i64::MAX).await
        });
        found.await
    }

    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError> {
        let files = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query_scalar::<_, String>("SELECT files FROM contraflow.bundles WHERE hash = $1")
                .bind(hash)
                .fetch_optional(connection)
                .await
        });
        let Some(files) = files.await? else { return Ok(None) };
        Bundle::from_json(&files)
            .map(Some)
            .map_err(|e| StoreError::new(format!("the scripts of bundle {hash} cannot be read: {e}")))
    }
}
