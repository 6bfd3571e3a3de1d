//! The records of runs.

use async_trait::async_trait;

use super::SqliteStore;
use crate::journal::{
    columns::sealed_of,
    record::Sealed,
    store::{RecordStore, StoreError},
};

/// Most records in one statement; each takes seven parameters of SQLite's 32,766.
const BATCH: usize = 1000;

/// Records in one page when they are read.
const PAGE: i64 = 2000;

/// About how many bytes a page may have, unless one record has more.
const PAGE_BYTES: i64 = 8 << 20;

/// A record from its line in a page. Neither JSON text nor ids hold line breaks or unit separators.
fn parse(line: &str) -> Option<Sealed> {
    let mut fields = line.splitn(6, '\u{1f}');
    let (seq, v, at_ms) =
        (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let (id, hex, body) = (fields.next()?.into(), fields.next()?.as_bytes(), fields.next()?.to_owned());
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut hash = [0; 32];
    if hex.len() != 64 {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(Sealed { seq, v, at_ms, id, body, hash })
}

#[async_trait]
impl RecordStore for SqliteStore {
    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        if records.is_empty() {
            // A durable commit of anything makes all before it durable.
            let written = self
                .with(durable, async |connection| {
                    sqlx::query("UPDATE runs SET epoch = epoch WHERE id = $1 AND epoch = $2")
                        .bind(run)
                        .bind(epoch)
                        .execute(connection)
                        .await
                })
                .await?
                .rows_affected();
            return if written == 0 { Err(StoreError::lost(run)) } else { Ok(()) };
        }
        for batch in records.chunks(BATCH) {
            let written = self
                .with(durable, async |connection| {
                    // One statement, so that it is one transaction and one trip: the epoch is checked where it is written.
                    let mut query = sqlx::QueryBuilder::new(
                        "INSERT INTO records (run, seq, v, at_ms, id, body, hash) SELECT r.id, n.* FROM (",
                    );
                    query.push_values(batch, |mut values, record| {
                        values.push_bind(i64::try_from(record.seq).unwrap_or(i64::MAX));
                        values.push_bind(record.v);
                        values.push_bind(record.at_ms);
                        values.push_bind(&*record.id);
                        values.push_bind(&*record.body);
                        values.push_bind(&record.hash[..]);
                    });
                    query.push(") n CROSS JOIN runs r WHERE r.id = ").push_bind(run);
                    query.push(" AND r.epoch = ").push_bind(epoch);
                    let persistent = batch.len() <= 4;
                    query.build().persistent(persistent).execute(connection).await
                })
                .await?
                .rows_affected();
            if written == 0 {
                return Err(StoreError::lost(run));
            }
        }
        Ok(())
    }

    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError> {
        self.with(false, async |connection| {
            let row = sqlx::query("SELECT * FROM records WHERE run = $1 ORDER BY seq DESC LIMIT 1")
                .bind(run)
                .fetch_optional(connection)
                .await?;
            row.as_ref().map(sealed_of).transpose()
        })
        .await
    }

    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError> {
        // A row costs a trip between two threads, so rows come as one text of lines and fields.
        let page: Option<String> = self
            .with(false, async |connection| {
                let after = i64::try_from(after).unwrap_or(i64::MAX);
                // Lengths stand before what they are of, so this reads little even of large records.
                let (bytes, count): (i64, i64) = sqlx::query_as(
                    "SELECT coalesce(sum(octet_length(body)), 0), count(*) FROM records
                     WHERE run = ?1 AND seq > ?2 AND seq < (SELECT min(seq) FROM records WHERE run = ?1 AND seq > ?2) + ?3",
                )
                .bind(run)
                .bind(after)
                .bind(PAGE)
                .fetch_one(&mut *connection)
                .await?;
                let records = if bytes > PAGE_BYTES { (count * PAGE_BYTES / bytes).max(1) } else { PAGE };
                sqlx::query_scalar(
                    "SELECT group_concat(seq || char(31) || v || char(31) || at_ms || char(31) || id || char(31) || hex(hash) || char(31) || body,
                            char(10))
                     FROM records
                     WHERE run = ?1 AND seq >= (SELECT min(seq) FROM records WHERE run = ?1 AND seq > ?2)
                       AND seq < (SELECT min(seq) FROM records WHERE run = ?1 AND seq > ?2) + ?3",
                )
                .bind(run)
                .bind(after)
                .bind(records)
                .fetch_one(connection)
                .await
            })
            .await?;
        let lines = page.as_deref().map(|page| page.split('\n')).into_iter().flatten();
        let mut records = lines
            .map(|line| parse(line).ok_or_else(|| StoreError::new("a record is damaged")))
            .collect::<Result<Vec<_>, _>>()?;
        // SQLite promises no order within an aggregate; sorting what is in order already costs next to nothing.
        records.sort_by_key(|record| record.seq);
        Ok(records)
    }
}
