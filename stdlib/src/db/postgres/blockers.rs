//! Who keeps a migration waiting for a lock. PostgreSQL can tell only while it waits, so it is asked on a connection of its own.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use contraflow_runtime::{
    effect::On, error::codes as runtime_codes, provider::ProviderError, quantity::Span,
};
use sqlx::PgConnection;

use super::{Postgres, connect};

/// Longest time between two measurements.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Those that the lock must be had from first, the longest transaction first.
const BLOCKERS: &str = "SELECT format('process %s of \"%s\" (%s%s), %s, in a transaction since %s', a.pid, a.usename, \
     coalesce(nullif(a.application_name, ''), 'unnamed'), coalesce(' from ' || host(a.client_addr), ''), \
     coalesce(a.state, 'in an unknown state'), \
     coalesce(to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"'), 'an unknown time')) \
     FROM pg_catalog.pg_stat_activity a WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) \
     ORDER BY a.xact_start, a.pid LIMIT 3";

/// What was seen at the last look.
#[derive(Default)]
pub(super) struct Blockers(Mutex<Option<String>>);

impl Blockers {
    fn set(&self, seen: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// Looks again and again at whom the server's process `pid` waits for; runs until it is dropped. What takes less time than
    /// half the longest wait for a lock costs nothing.
    pub(super) async fn watch(
        &self,
        database: &Postgres,
        on: &On,
        pid: i32,
        lock_timeout: Span,
        file: &str,
    ) -> Infallible {
        let pause = (lock_timeout.0 / 4).clamp(Duration::from_millis(20), LOOK_EVERY);
        on.clock().sleep((lock_timeout.0 / 2).min(LOOK_EVERY)).await;
        let Some((_permit, mut connection)) = open(database).await else {
            return std::future::pending().await;
        };
        loop {
            let seen = look(&mut connection, pid).await;
            if let Some(who) = &seen {
                on.progress(0, 0, format!("{file} waits for a lock of {who}"));
            }
            self.set(seen);
            on.clock().sleep(pause).await;
        }
    }

    /// Says in the error of a wait that was too long who was waited for.
    pub(super) fn name_in(self, mut error: ProviderError) -> ProviderError {
        let seen = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let (Some(who), runtime_codes::TIMEOUT) = (seen, error.code.as_str()) {
            error.message = format!("{}, while the lock was held by {who}", error.message);
        }
        error
    }
}

/// A further connection, if the target may have one.
async fn open(database: &Postgres) -> Option<(tokio::sync::SemaphorePermit<'_>, PgConnection)> {
    let permit = database.permits.try_acquire().ok()?;
    let connection = connect(&database.address().await.ok()?.options).await.ok()?;
    Some((permit, connection))
}

/// `None`: nobody, or it cannot be told; not to know is no reason to fail.
async fn look(connection: &mut PgConnection, pid: i32) -> Option<String> {
    let found: Vec<String> = sqlx::query_scalar(BLOCKERS).bind(pid).fetch_all(connection).await.ok()?;
    (!found.is_empty()).then(|| found.join(" and "))
}
