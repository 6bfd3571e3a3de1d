//! The journal of a run: an append-only, hash-chained list of records, and the write barrier before every apply.
//!
//! **Invariant:** an intent is durable before its apply starts. Everything else (reads, outcomes, notes) is buffered and
//! becomes durable with the next intent, or at the end of the run: a crash can lose the outcome of a read, which is then read
//! again, never the fact that something was about to be changed.

mod columns;
mod history;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod record;
pub mod replay;
pub mod sqlite;
pub mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
pub use self::{
    history::history,
    record::{Entry, Outcome, Record, Sealed},
    replay::Replay,
    sqlite::SqliteStore,
    store::{Asked, Beat, Held, Holder, Lock, Request, RequestKind, Run, RunStatus, Store, StoreError},
};
use crate::{
    error::{RunError, codes},
    event::scrub_fields,
    secret::Vault,
};

/// Buffered records at which the thread that adds one writes them out itself.
const FULL: usize = 512;

/// Writes the journal of one run.
pub(crate) struct Journal {
    /// `None`: nothing is kept (a plan).
    store: Option<Arc<dyn Store>>,
    run: String,
    epoch: i64,
    vault: Arc<Vault>,
    tail: Mutex<Tail>,
    /// Held while a batch is on its way to the store, so that batches arrive in order.
    writing: tokio::sync::Mutex<()>,
}

struct Tail {
    seq: u64,
    hash: [u8; 32],
    buffer: Vec<Sealed>,
    failed: Option<StoreError>,
    /// Whether anything had to be durable.
    acted: bool,
}

impl Journal {
    /// A journal that goes on after record `seq` with hash `hash`.
    pub(crate) fn new(
        store: Option<Arc<dyn Store>>,
        run: &str,
        epoch: i64,
        seq: u64,
        hash: [u8; 32],
        vault: Arc<Vault>,
    ) -> Self {
        let tail = Tail { seq, hash, buffer: Vec::new(), failed: None, acted: false };
        Self {
            store,
            run: run.to_owned(),
            epoch,
            vault,
            tail: Mutex::new(tail),
            writing: tokio::sync::Mutex::default(),
        }
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was an intent: a run without one only looked, and leaves nothing that would have to survive a power failure.
    pub(crate) fn acted(&self) -> bool {
        self.tail().acted
    }

    /// Whether anything is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.store.is_some()
    }

    /// Adds a record; answers whether the buffer should be written out now. It is not durable yet.
    pub(crate) fn add(&self, at: Timestamp, id: &str, entry: &Entry) -> bool {
        if self.store.is_none() {
            return false;
        }
        let body = match self.text_of(entry) {
            Ok(body) => body,
            // Entries are plain data; should one not encode, the chain shows the gap instead of hiding it.
            Err(error) => format!("{{\"entry\":\"unreadable\",\"why\":{:?}}}", error.to_string()),
        };
        let mut tail = self.tail();
        tail.seq += 1;
        let sealed = Sealed::seal(tail.seq, at, id, body, &tail.hash);
        tail.hash = sealed.hash;
        tail.buffer.push(sealed);
        tail.buffer.len() >= FULL
    }

    /// An entry as text without the bytes of secrets.
    fn text_of(&self, entry: &Entry) -> serde_json::Result<String> {
        if self.vault.is_empty() {
            return serde_json::to_string(entry);
        }
        let mut json = serde_json::to_value(entry)?;
        scrub_fields(&mut json, &self.vault);
        serde_json::to_string(&json)
    }

    /// Hands buffered records to the store, which may lose them in a power failure.
    pub(crate) async fn flush(&self) -> Result<(), RunError> {
        self.write(false).await
    }

    /// Returns once every record added so far is durable.
    pub(crate) async fn barrier(&self) -> Result<(), RunError> {
        self.tail().acted = true;
        self.write(true).await
    }

    async fn write(&self, durable: bool) -> Result<(), RunError> {
        let Some(store) = &self.store else { return Ok(()) };
        let _turn = self.writing.lock().await;
        let batch = {
            let mut tail = self.tail();
            if let Some(error) = &tail.failed {
                return Err(error.clone().into());
            }
            std::mem::take(&mut tail.buffer)
        };
        if batch.is_empty() && !durable {
            return Ok(());
        }
        if let Err(error) = store.append(&self.run, self.epoch, &batch, durable).await {
            // What could not be written is kept, in order, and nothing more is applied: the next barrier fails as well.
            let mut tail = self.tail();
            let later = std::mem::take(&mut tail.buffer);
            tail.buffer = batch;
            tail.buffer.extend(later);
            tail.failed = Some(error.clone());
            return Err(error.into());
        }
        Ok(())
    }

    /// Writes what is left and marks the run as ended.
    pub(crate) async fn end(&self, status: RunStatus, at: Timestamp, durable: bool) -> Result<(), RunError> {
        self.write(durable).await?;
        match &self.store {
            Some(store) => store.end(&self.run, self.epoch, status, at).await.map_err(RunError::from),
            None => Ok(()),
        }
    }
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        let message = format!("the journal cannot be used: {}", error.message);
        error.hints.into_iter().fold(Self::new(codes::JOURNAL, message), Self::hint)
    }
}
