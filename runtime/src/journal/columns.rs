//! How the values of the store's tables are written into columns and read back, whichever database keeps them.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    record::Sealed,
    run::{Held, Run, RunStatus},
    store::{Asked, Lock},
};

/// A row with columns of the few types that a store uses.
pub(super) trait Columns {
    fn text(&self, column: &str) -> Result<String, sqlx::Error>;
    fn text_or_null(&self, column: &str) -> Result<Option<String>, sqlx::Error>;
    fn number(&self, column: &str) -> Result<i64, sqlx::Error>;
    fn number_or_null(&self, column: &str) -> Result<Option<i64>, sqlx::Error>;
    fn bytes(&self, column: &str) -> Result<Vec<u8>, sqlx::Error>;
}

/// Reads columns of a row of one of sqlx's databases.
macro_rules! columns {
    ($row:ty) => {
        impl $crate::journal::columns::Columns for $row {
            fn text(&self, column: &str) -> Result<String, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn text_or_null(&self, column: &str) -> Result<Option<String>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn number(&self, column: &str) -> Result<i64, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn number_or_null(&self, column: &str) -> Result<Option<i64>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
            fn bytes(&self, column: &str) -> Result<Vec<u8>, sqlx::Error> {
                sqlx::Row::try_get(self, column)
            }
        }
    };
}
pub(super) use columns;

pub(super) fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}

pub(super) fn json<T: Serialize>(value: &T) -> String {
    // Plain data of this crate's own always encodes.
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn parsed<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| broken(format!("{what}: {e}")))
}

fn broken(why: String) -> sqlx::Error {
    sqlx::Error::Decode(why.into())
}

/// A row of `locks` with `started_by` of its run.
pub(super) fn lock_of(row: &impl Columns) -> Result<Lock, sqlx::Error> {
    Ok(Lock {
        environment: row.text("environment")?,
        target: row.text("target")?,
        run: row.text("run")?,
        started_by: row.text("started_by")?,
        since: time(row.number("since_ms")?),
    })
}

/// A row of `questions`.
pub(super) fn asked_of(row: &impl Columns) -> Result<Asked, sqlx::Error> {
    Ok(Asked {
        run: row.text("run")?,
        id: row.text("id")?.into(),
        question: parsed("question", &row.text("question")?)?,
        at: time(row.number("asked_ms")?),
        until: row.number_or_null("expires_ms")?.map(time),
    })
}

/// A row of `runs` with the plan that the run has used, read when the clock of the store showed `now_ms`.
pub(super) fn run_of(row: &impl Columns, now_ms: i64) -> Result<Run, sqlx::Error> {
    let status = row.text("status")?;
    let silent_ms = now_ms - row.number("heartbeat_ms")?;
    let held = match row.text_or_null("holder")? {
        Some(holder) => Some(Held { by: parsed("holder", &holder)?, silent_ms }),
        None => None,
    };
    Ok(Run {
        id: row.text("id")?,
        runbook: row.text("runbook")?,
        version: row.text("version")?,
        environment: row.text("environment")?,
        params: parsed("parameters", &row.text("params")?)?,
        bundle: row.text("bundle")?,
        status: RunStatus::parse(&status).ok_or_else(|| broken(format!("unknown status: {status}")))?,
        epoch: row.number("epoch")?,
        started_by: row.text("started_by")?,
        started_at: time(row.number("started_ms")?),
        ended_at: row.number_or_null("ended_ms")?.map(time),
        held,
        plan: row.text_or_null("plan")?,
    })
}

/// A row of `records`.
pub(super) fn sealed_of(row: &impl Columns) -> Result<Sealed, sqlx::Error> {
    Ok(Sealed {
        seq: row.number("seq")?.unsigned_abs(),
        v: u32::try_from(row.number("v")?).map_err(|_| broken("a record has no version".to_owned()))?,
        at_ms: row.number("at_ms")?,
        id: row.text("id")?.into(),
        body: row.text("body")?,
        hash: row
            .bytes("hash")?
            .try_into()
            .map_err(|_| broken("a hash does not have 32 bytes".to_owned()))?,
    })
}
