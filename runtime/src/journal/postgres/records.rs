//! The records of runs.

use async_trait::async_trait;

use super::{
    PostgresStore, durably,
    link::{Work, is_there, tried},
};
use crate::journal::{
    columns::sealed_of,
    record::Sealed,
    store::{Maintenance as _, RecordStore, StoreError},
};

/// Most records in one statement, and in one page when they are read.
const PAGE: usize = 2000;

/// Most bytes of bodies in one statement or page, unless a single record has more.
const PAGE_BYTES: usize = 8 << 20;

/// Most records, and bytes of their bodies, that are kept until it is known that the server has them on disk.
const UNSURE: usize = 4096;
const UNSURE_BYTES: usize = 4 << 20;

/// How often a gap is filled that opens again at once.
const MENDS: usize = 10;

/// The last records of a run, which may not be on disk yet.
#[derive(Default)]
pub(super) struct Unsure {
    records: Vec<Sealed>,
    /// Bytes of their bodies.
    bytes: usize,
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
        let versions: Vec<i64> = records.iter().map(|record| record.v.into()).collect();
        let times: Vec<i64> = records.iter().map(|record| record.at_ms).collect();
        let ids: Vec<&str> = records.iter().map(|record| &*record.id).collect();
        let bodies: Vec<&str> = records.iter().map(|record| &*record.body).collect();
        let hashes: Vec<&[u8]> = records.iter().map(|record| &record.hash[..]).collect();
        let written = tried!(self.link.tries(Work::Quick), |connection, again| {
            // `FOR SHARE` makes an acquire wait for this, and this for an acquire, after which the epoch is looked at once more.
            let done: Result<(i64, i64, String), _> = sqlx::query_as(concat!(
                "WITH mine AS (SELECT id FROM contraflow.runs WHERE id = $1 AND epoch = $2 FOR SHARE), written AS (
                     INSERT INTO contraflow.records (run, seq, v, at_ms, id, body, hash)
                     SELECT mine.id, r.* FROM mine, unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::bytea[]) r
                     WHERE $9 = 0 OR EXISTS (SELECT 1 FROM contraflow.records b WHERE b.run = $1 AND b.seq = $9)
                     RETURNING 1)
                 SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM written),
                        CASE WHEN $10 THEN ", durably!(), " ELSE set_config('synchronous_commit', 'off', true) END"
            ))
            .bind(run)
            .bind(epoch)
            .bind(&seqs)
            .bind(&versions)
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
            "{}: records of {run} disappear as soon as they are written",
            self.describe()
        ))
        .hint("the server loses confirmed writes: check its log"))
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
            let message = format!("{}: record {} of {run} is missing", self.describe(), there + 1);
            return Err(StoreError::new(message).hint(
                "the server lost confirmed writes, for example in a failover to a standby that lagged \
                    behind: check its log",
            ));
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
    pub(super) async fn settle(&self, run: &str, epoch: i64) -> Result<(), StoreError> {
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
            "{}: records of {run} disappear as soon as they are written",
            self.describe()
        ))
        .hint("the server loses confirmed writes: check its log"))
    }
}

fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
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
impl RecordStore for PostgresStore {
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
                "SELECT seq, v, at_ms, id, body, hash FROM (
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
}
