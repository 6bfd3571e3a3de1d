//! The store on a PostgreSQL server, for runners on several machines.
//!
//! **Invariant:** what is checked and what is written because of it are one statement. That makes it one transaction and one trip,
//! leaves no lock behind when a runner vanishes between two statements, and lets every operation be repeated as a whole.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::postgres::PgRow;

use self::{
    address::Address,
    link::{Link, Work, is_there, tried},
};
use super::{
    columns::{columns, lock_of, sealed_of},
    record::Sealed,
    store::{Asked, Heartbeat, Holder, Lock, Request, Run, RunStatus, Store, StoreError, Used},
};
use crate::{effect::Reply, script::Bundle};

mod address;
mod link;
mod people;
mod plans;
mod runs;
mod schema;

/// Most records in one statement, and in one page when they are read.
const PAGE: usize = 2000;

/// Most bytes of bodies in one statement or page, unless a single record has more.
const PAGE_BYTES: usize = 8 << 20;

/// Most records, and bytes of their bodies, that are kept until it is known that the server has them on disk.
const UNSURE: usize = 4096;
const UNSURE_BYTES: usize = 4 << 20;

/// How often a gap is filled that opens again at once.
const MENDS: usize = 10;

/// Milliseconds since 1970 by the server's clock: the one that all machines agree on.
macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// Part of a statement whose commit returns only when it is on disk, also where the server's default is that it need not be.
macro_rules! durably {
    () => {
        "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), true)"
    };
}
use {durably, now};

columns!(PgRow);

/// A store in the schema `contraflow` of a PostgreSQL database.
///
/// What is not durable is committed without waiting for the disk, which leaves it to the server to write it within a second. Unlike
/// with a file, a runner can outlive the crash that loses such a commit. So the last records are remembered until a durable commit
/// covers them; each record is only taken behind the one before it, and where that is missing, what was lost is written once more.
pub struct PostgresStore {
    link: Link,
    /// By run, what may not be on disk yet.
    unsure: Mutex<HashMap<String, Unsure>>,
}

/// The last records of a run, which may not be on disk yet.
#[derive(Default)]
struct Unsure {
    records: Vec<Sealed>,
    /// Bytes of their bodies.
    bytes: usize,
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgresStore({})", self.describe())
    }
}

/// What became of records that were to be written.
enum Written {
    /// They are there.
    All,
    /// The record before them is missing.
    Gap,
    /// The run has another epoch, or is not there.
    Refused,
}

impl PostgresStore {
    /// The store at a URL such as `postgres://user@host:5432/database?sslmode=verify-full`, created or brought to this version if
    /// need be. What the URL leaves out comes from the variables and the password file that libpq knows (`PGPASSWORD`, `~/.pgpass`).
    ///
    /// # Errors
    /// The URL is wrong, the server cannot be reached or refuses, or the store was written by a newer version.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::at(url)?;
        let version = store.version().await?;
        store.brought_on(version).await
    }

    /// The store at a URL, for looking only. `None`: there is none yet.
    ///
    /// # Errors
    /// As [`PostgresStore::connect`].
    pub async fn look(url: &str) -> Result<Option<Self>, StoreError> {
        let store = Self::at(url)?;
        match store.version().await? {
            0 => Ok(None),
            version => store.brought_on(version).await.map(Some),
        }
    }

    /// The same, with tables of this version.
    async fn brought_on(self, version: i64) -> Result<Self, StoreError> {
        if version < schema::VERSION {
            let tries = self.link.first_tries(Work::Long);
            tried!(tries, |connection, _| schema::migrate(connection).await).await?;
        }
        Ok(self)
    }

    /// Which database a URL means, for people: without user and password.
    ///
    /// # Errors
    /// The URL is wrong.
    pub fn shown(url: &str) -> Result<String, StoreError> {
        Address::parse(url).map(|address| address.shown())
    }

    fn at(url: &str) -> Result<Self, StoreError> {
        Ok(Self { link: Link::new(Address::parse(url)?), unsure: Mutex::default() })
    }

    async fn version(&self) -> Result<i64, StoreError> {
        let version =
            tried!(self.link.first_tries(Work::Quick), |connection, _| schema::version(connection).await);
        let version = version.await?;
        if version > schema::VERSION {
            let message = format!("{} was written by a newer version of Contraflow", self.describe());
            return Err(StoreError::new(message).hint("use that version, or another store"));
        }
        Ok(version)
    }

    fn unsure(&self) -> MutexGuard<'_, HashMap<String, Unsure>> {
        self.unsure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so much of a run is kept that it should be made durable.
    fn is_too_unsure(&self, run: &str) -> bool {
        let unsure = self.unsure();
        unsure.get(run).is_some_and(|kept| kept.records.len() >= UNSURE || kept.bytes >= UNSURE_BYTES)
    }

    /// Writes records behind the last one of a run.
    async fn write(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<Written, StoreError> {
        let before = records.first().map_or(0, |first| number(first.seq) - 1);
        let Some(last) = records.last() else { return Ok(Written::All) };
        let seqs: Vec<i64> = records.iter().map(|record| number(record.seq)).collect();
        let times: Vec<i64> = records.iter().map(|record| record.at_ms).collect();
        let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
        let bodies: Vec<&str> = records.iter().map(|record| &*record.body).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|record| &record.hash[..]).collect();
        let written = tried!(self.link.tries(Work::Quick), |connection, again| {
            // `FOR SHARE` makes an acquire wait for this, and this for an acquire, after which the epoch is looked at once more.
            let done: Result<(i64, i64, String), _> = sqlx::query_as(concat!(
                "WITH mine AS (SELECT id FROM contraflow.runs WHERE id = $1 AND epoch = $2 FOR SHARE), written AS (
                     INSERT INTO contraflow.records (run, seq, at_ms, id, body, hash)
                     SELECT mine.id, r.* FROM mine, unnest($3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bytea[]) r
                     WHERE $8 = 0 OR EXISTS (SELECT 1 FROM contraflow.records b WHERE b.run = $1 AND b.seq = $8)
                     RETURNING 1)
                 SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM written),
                        CASE WHEN $9 THEN ", durably!(), " ELSE set_config('synchronous_commit', 'off', true) END"
            ))
            .bind(run)
            .bind(epoch)
            .bind(&seqs)
            .bind(&times)
            .bind(&ids)
            .bind(&bodies)
            .bind(&hashes)
            .bind(before)
            .bind(durable)
            .fetch_one(&mut *connection)
            .await;
            match done {
                Ok((0, ..)) => Ok(Written::Refused),
                Ok((_, 0, _)) => Ok(Written::Gap),
                Ok(_) => Ok(Written::All),
                // Written by an attempt whose answer was lost? A hash covers all records before it.
                Err(error) if again && is_there(&error) => {
                    let hash: Option<Vec<u8>> =
                        sqlx::query_scalar("SELECT hash FROM contraflow.records WHERE run = $1 AND seq = $2")
                            .bind(run)
                            .bind(number(last.seq))
                            .fetch_optional(connection)
                            .await?;
                    if hash.is_some_and(|hash| hash == last.hash) { Ok(Written::All) } else { Err(error) }
                }
                Err(error) => Err(error),
            }
        });
        written.await
    }

    /// The same, after what is missing before them was written again.
    async fn write_on(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        for _ in 0..MENDS {
            match self.write(run, epoch, records, durable).await? {
                Written::All => return Ok(()),
                Written::Gap => self.mend(run, epoch).await?,
                Written::Refused => return Err(self.refused(run).await),
            }
        }
        Err(StoreError::new(format!(
            "{}: records of {run} vanish as soon as they are written",
            self.describe()
        ))
        .hint("the server loses what it has confirmed: look at its log"))
    }

    /// Writes again what a crash of the server has lost.
    async fn mend(&self, run: &str, epoch: i64) -> Result<(), StoreError> {
        let there = self.last(run).await?.map_or(0, |last| last.seq);
        let lost: Vec<Sealed> = {
            let unsure = self.unsure();
            let kept = unsure.get(run).map(|kept| &*kept.records).unwrap_or_default();
            kept.iter().filter(|record| record.seq > there).cloned().collect()
        };
        if lost.first().map(|first| first.seq) != Some(there + 1) {
            let message = format!("{}: record {} of {run} is not there any more", self.describe(), there + 1);
            return Err(StoreError::new(message)
                .hint("the server lost what it had confirmed, such as by a failover to a standby that lagged behind: look at its log"));
        }
        tracing::warn!(
            run,
            from = there + 1,
            records = lost.len(),
            "the server lost records; writing them again"
        );
        for batch in batches(&lost) {
            match self.write(run, epoch, batch, false).await? {
                Written::All => {}
                // Lost again: whoever called looks again.
                Written::Gap => return Ok(()),
                Written::Refused => return Err(self.refused(run).await),
            }
        }
        Ok(())
    }

    /// Makes all that was written of a run durable.
    async fn settle(&self, run: &str, epoch: i64) -> Result<(), StoreError> {
        for _ in 0..MENDS {
            let last =
                self.unsure().get(run).and_then(|kept| kept.records.last()).map_or(0, |r| number(r.seq));
            let settled = tried!(self.link.tries(Work::Quick), |connection, _| {
                // Any write will do: its commit brings all before it to the disk.
                let done: Option<String> = sqlx::query_scalar(concat!(
                    "UPDATE contraflow.runs SET epoch = epoch WHERE id = $1 AND epoch = $2
                     AND ($3 = 0 OR EXISTS (SELECT 1 FROM contraflow.records WHERE run = $1 AND seq = $3))
                     RETURNING ",
                    durably!()
                ))
                .bind(run)
                .bind(epoch)
                .bind(last)
                .fetch_optional(&mut *connection)
                .await?;
                if done.is_some() {
                    return Ok(Written::All);
                }
                let mine = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM contraflow.runs WHERE id = $1 AND epoch = $2)",
                )
                .bind(run)
                .bind(epoch)
                .fetch_one(connection)
                .await?;
                Ok(if mine { Written::Gap } else { Written::Refused })
            });
            match settled.await? {
                Written::All => {
                    self.unsure().remove(run);
                    return Ok(());
                }
                Written::Gap => self.mend(run, epoch).await?,
                Written::Refused => return Err(self.refused(run).await),
            }
        }
        Err(StoreError::new(format!(
            "{}: records of {run} vanish as soon as they are written",
            self.describe()
        ))
        .hint("the server loses what it has confirmed: look at its log"))
    }

    /// Why nothing was written for a run: it belongs to somebody else, or is not there.
    async fn refused(&self, run: &str) -> StoreError {
        self.unsure().remove(run);
        let there = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM contraflow.runs WHERE id = $1)")
                .bind(run)
                .fetch_one(connection)
                .await
        });
        match there.await {
            Ok(true) => StoreError::lost(run),
            Ok(false) => {
                let message = format!("{}: the run {run} is not there any more", self.describe());
                StoreError { lost: true, ..StoreError::new(message) }
            }
            Err(error) => error,
        }
    }
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// A number that nobody else has.
fn mark() -> i64 {
    fastrand::i64(..)
}

/// Records in parts that fit into one statement.
fn batches(records: &[Sealed]) -> impl Iterator<Item = &[Sealed]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(PAGE).take_while(|record| {
            bytes += record.body.len();
            bytes <= PAGE_BYTES
        });
        let (batch, behind) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = behind;
        (!batch.is_empty()).then_some(batch)
    })
}

#[async_trait]
impl Store for PostgresStore {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        runs::create(self, run, bundle, holder).await
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

    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        plans::used(self, plan).await
    }

    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        plans::binding(self, run).await
    }

    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError> {
        plans::approve(self, plan, until, reply).await
    }

    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        plans::approvals(self, plan).await
    }

    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError> {
        plans::void_approvals(self, plan).await
    }

    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        runs::acquire(self, run, epoch, holder).await
    }

    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        runs::rebind(self, run, epoch, bundle).await
    }

    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError> {
        runs::heartbeat(self, run, epoch).await
    }

    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        runs::request(self, run, request).await
    }

    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        let mut rest = batches(records).peekable();
        if rest.peek().is_none() {
            return self.settle(run, epoch).await;
        }
        while let Some(batch) = rest.next() {
            // The commit of the last one covers those before it.
            let durable = durable && rest.peek().is_none() || self.is_too_unsure(run);
            self.write_on(run, epoch, batch, durable).await?;
            let mut unsure = self.unsure();
            if durable {
                unsure.remove(run);
            } else {
                let kept = unsure.entry(run.to_owned()).or_default();
                kept.bytes += batch.iter().map(|record| record.body.len()).sum::<usize>();
                kept.records.extend_from_slice(batch);
            }
        }
        Ok(())
    }

    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError> {
        runs::end(self, run, epoch, status, at).await
    }

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

    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
        people::ask(self, epoch, asked).await
    }

    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        people::asked(self, run).await
    }

    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        people::answer(self, run, id, reply).await
    }

    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        people::answers(self, run, id).await
    }

    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        people::close(self, run, epoch, id).await
    }

    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        runs::runs(self, limit).await
    }

    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        runs::find(self, id).await
    }

    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError> {
        let last = tried!(self.link.tries(Work::Quick), |connection, _| {
            let row =
                sqlx::query("SELECT * FROM contraflow.records WHERE run = $1 ORDER BY seq DESC LIMIT 1")
                    .bind(run)
                    .fetch_optional(connection)
                    .await?;
            row.as_ref().map(sealed_of).transpose()
        });
        last.await
    }

    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError> {
        let page = tried!(self.link.tries(Work::Quick), |connection, _| {
            // How long a body is can be told without reading it.
            let rows = sqlx::query(
                "SELECT seq, at_ms, id, body, hash FROM (
                     SELECT *, row_number() OVER behind AS place, sum(octet_length(body)) OVER behind AS bytes
                     FROM (SELECT * FROM contraflow.records WHERE run = $1 AND seq > $2 ORDER BY seq LIMIT $3) next
                     WINDOW behind AS (ORDER BY seq)) counted
                 WHERE place = 1 OR bytes <= $4 ORDER BY seq",
            )
            .bind(run)
            .bind(number(after))
            .bind(PAGE as i64)
            .bind(PAGE_BYTES as i64)
            .fetch_all(connection)
            .await?;
            rows.iter().map(sealed_of).collect()
        });
        page.await
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

    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        runs::prune(self, before).await
    }

    async fn check(&self) -> Result<Vec<String>, StoreError> {
        let found = tried!(self.link.tries(Work::Long), |connection, _| {
            let mut found: Vec<String> = sqlx::query_scalar(
                "SELECT format('the index %s is not valid: REINDEX it', i.indexrelid::regclass) FROM pg_catalog.pg_index i
                 JOIN pg_catalog.pg_class c ON c.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'contraflow' AND NOT i.indisvalid
                 UNION ALL
                 SELECT format('the server has met %s damaged pages in this database', checksum_failures)
                 FROM pg_catalog.pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
                 UNION ALL
                 SELECT format('the server runs with %s = off: a power failure can lose or damage what was confirmed', name)
                 FROM pg_catalog.pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'",
            )
            .fetch_all(&mut *connection)
            .await?;
            let orphans: i64 = sqlx::query_scalar(
                "SELECT count(DISTINCT run) FROM contraflow.records r WHERE NOT EXISTS (SELECT 1 FROM contraflow.runs WHERE id = r.run)",
            )
            .fetch_one(&mut *connection)
            .await?;
            if orphans > 0 {
                found.push(format!("records of {orphans} runs that are not in the list of runs"));
            }
            let scriptless: Vec<String> = sqlx::query_scalar(
                "SELECT id FROM contraflow.runs r WHERE NOT EXISTS (SELECT 1 FROM contraflow.bundles WHERE hash = r.bundle)",
            )
            .fetch_all(&mut *connection)
            .await?;
            found.extend(scriptless.into_iter().map(|run| format!("the scripts of {run} are missing")));
            // Hashing a text reads all of it, so that damage to any page is met.
            for text in [
                "SELECT count(hashtext(body)) FROM contraflow.records",
                "SELECT count(hashtext(files)) FROM contraflow.bundles",
            ] {
                let read: Result<i64, _> = sqlx::query_scalar(text).fetch_one(&mut *connection).await;
                match read {
                    Err(error) if link::state(&error).starts_with("XX") => {
                        found.push(
                            error.as_database_error().map_or_else(String::new, |e| e.message().to_owned()),
                        );
                    }
                    read => drop(read?),
                }
            }
            Ok(found)
        });
        found.await
    }

    fn describe(&self) -> String {
        self.link.address().shown()
    }
}
