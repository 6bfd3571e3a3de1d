//! What keeps a store in order.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    PostgresStore, durably,
    link::{self, Work, tried},
    plans,
};
use crate::journal::store::{Maintenance, StoreError};

/// Runs in one transaction when old ones are removed.
const PRUNED: i64 = 100;

#[async_trait]
impl Maintenance for PostgresStore {
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let gone = tried!(self.link.tries(Work::Long), |connection, _| {
                // A run that is acquired meanwhile is looked at again, and stays. Locks and questions go with their run.
                let (gone, _): (i64, String) = sqlx::query_as(concat!(
                    "WITH old AS (
                         DELETE FROM contraflow.runs WHERE id IN (
                             SELECT id FROM contraflow.runs
                             WHERE ended_ms < $1 AND status NOT IN ('running', 'paused', 'rollback_incomplete')
                             ORDER BY started_ms LIMIT $2)
                         AND ended_ms < $1 AND status NOT IN ('running', 'paused', 'rollback_incomplete') RETURNING id),
                     gone AS (DELETE FROM contraflow.records WHERE run IN (SELECT id FROM old))
                     SELECT (SELECT count(*) FROM old), ", durably!()
                ))
                .bind(before.as_millisecond())
                .bind(PRUNED)
                .fetch_one(connection)
                .await?;
                Ok(gone.unsigned_abs())
            });
            match gone.await? {
                0 => break,
                gone => all += gone,
            }
        }
        let scripts = tried!(self.link.tries(Work::Long), |connection, _| {
            sqlx::query(concat!(
                "DELETE FROM contraflow.bundles b WHERE NOT EXISTS (SELECT 1 FROM contraflow.runs WHERE bundle = b.hash)
                 RETURNING ", durably!()
            ))
            .execute(connection)
            .await
            .map(drop)
        });
        scripts.await?;
        plans::forget(self, before).await?;
        Ok(all)
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
                found.push(format!("records of {orphans} runs that are missing from the list of runs"));
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
