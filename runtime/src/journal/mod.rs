//! The journal of a run: an append-only, hash-chained list of records, and the write barrier before every apply.
//!
//! **Invariant:** an intent is durable before its apply starts. Everything else (reads, outcomes, notes) is buffered and
//! becomes durable with the next intent, or at the end of the run: a crash can lose the outcome of a read, which is then read
//! again, never the fact that something was about to be changed.

mod columns;
mod history;
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod record;
pub mod replay;
pub mod run;
pub mod sqlite;
pub mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use contraflow_provider::{effect_id::EffectId, on::Ownership, provider::ProviderError};
use jiff::Timestamp;

pub(crate) use self::memory::MemoryJournal;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresStore;
pub use self::{
    history::history,
    record::{Entry, Outcome, Record, Sealed},
    replay::Replay,
    run::{Heartbeat, Held, Holder, Request, RequestKind, Run, RunStatus},
    sqlite::SqliteStore,
    store::{
        Asked, Lock, LockStore, Maintenance, PlanStore, QuestionStore, RecordStore, RunStore, Store,
        StoreError, Used,
    },
};
use crate::{
    bundle::Bundle,
    crash,
    effect::Reply,
    error::{NextStep, RunError, codes},
    event::{RunOutcome, scrub_fields},
    secret::Vault,
};

/// Buffered records at which the thread that adds one writes them out itself.
const FULL: usize = 512;

/// Where records go.
pub(crate) enum Keeper {
    /// Nothing is kept (a plan).
    Nobody,
    Store(Arc<dyn Store>),
    /// Memory, as long as a rehearsal lasts.
    Memory(Arc<MemoryJournal>),
}

/// Writes the journal of one run.
pub(crate) struct Journal {
    keeper: Keeper,
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

/// A record that was added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    /// Its place in the run. What was done later has a higher one, in the journal as in the run.
    pub(crate) seq: u64,
    /// Whether the buffer should be written out now.
    pub(crate) full: bool,
}

impl Journal {
    /// A journal that goes on after record `seq` with hash `hash`.
    pub(crate) fn new(
        keeper: Keeper,
        run: &str,
        epoch: i64,
        seq: u64,
        hash: [u8; 32],
        vault: Arc<Vault>,
    ) -> Self {
        let tail = Tail { seq, hash, buffer: Vec::new(), failed: None, acted: false };
        Self {
            keeper,
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
        !matches!(self.keeper, Keeper::Nobody)
    }

    /// Adds a record. It is not durable yet.
    pub(crate) fn add(&self, at: Timestamp, id: &EffectId, entry: &Entry) -> Added {
        if !matches!(self.keeper, Keeper::Store(_)) {
            let mut tail = self.tail();
            tail.seq += 1;
            if let Keeper::Memory(memory) = &self.keeper {
                memory.add(tail.seq, at, id, entry);
            }
            return Added { seq: tail.seq, full: false };
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
        Added { seq: tail.seq, full: tail.buffer.len() >= FULL }
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

    /// Hands buffered records to the store, which may lose them in a power failure. Not to be broken off, or they are lost here.
    pub(crate) async fn flush(&self) -> Result<(), RunError> {
        self.write(false).await
    }

    /// Returns once every record added so far is durable.
    pub(crate) async fn barrier(&self) -> Result<(), RunError> {
        self.tail().acted = true;
        self.alive()?;
        self.write(true).await
    }

    async fn write(&self, durable: bool) -> Result<(), RunError> {
        let Keeper::Store(store) = &self.keeper else { return Ok(()) };
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
        crash::point("append-before");
        let appended = store.append(&self.run, self.epoch, &batch, durable).await;
        crash::point("append-after");
        if let Err(error) = appended {
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
        match &self.keeper {
            Keeper::Store(store) => {
                store.end(&self.run, self.epoch, status, at).await.map_err(RunError::from)
            }
            Keeper::Nobody | Keeper::Memory(_) => Ok(()),
        }
    }

    /// Whether the process that writes it still lives: in a rehearsal it dies where the scenario says so.
    pub(crate) fn alive(&self) -> Result<(), RunError> {
        match &self.keeper {
            Keeper::Memory(memory) if memory.is_cut() => Err(StoreError::lost(&self.run).into()),
            _ => Ok(()),
        }
    }

    /// Exchanges the scripts of the run.
    pub(crate) async fn rebind(&self, bundle: &Bundle) -> Result<(), RunError> {
        match &self.keeper {
            Keeper::Store(store) => store.rebind(&self.run, self.epoch, bundle).await.map_err(RunError::from),
            Keeper::Nobody | Keeper::Memory(_) => Ok(()),
        }
    }

    /// Gives a sign of life; answers what was asked of the run meanwhile.
    pub(crate) async fn heartbeat(&self) -> Result<Heartbeat, RunError> {
        match &self.keeper {
            Keeper::Store(store) => store.heartbeat(&self.run, self.epoch).await.map_err(RunError::from),
            Keeper::Nobody | Keeper::Memory(_) => self.alive().map(|()| Heartbeat::Held(None)),
        }
    }

    /// Makes sure that the run is still this runner's.
    pub(crate) async fn hold(&self) -> Result<(), RunError> {
        match self.heartbeat().await? {
            Heartbeat::Held(_) => Ok(()),
            Heartbeat::Lost => Err(StoreError::lost(&self.run).into()),
        }
    }

    /// Takes a target for this run. Answers who has it, if that is another.
    pub(crate) async fn lock(&self, environment: &str, target: &str) -> Result<Option<Lock>, RunError> {
        match &self.keeper {
            Keeper::Store(store) => {
                store.lock(&self.run, self.epoch, environment, target).await.map_err(RunError::from)
            }
            Keeper::Nobody | Keeper::Memory(_) => Ok(None),
        }
    }

    /// Shows a question to whoever can answer it from elsewhere. [`Journal::answers`] has what they said so far.
    pub(crate) async fn ask(&self, asked: &Asked) -> Result<(), RunError> {
        match &self.keeper {
            Keeper::Store(store) => store.ask(self.epoch, asked).await.map_err(RunError::from),
            Keeper::Nobody | Keeper::Memory(_) => Ok(()),
        }
    }

    /// The answers to a question so far.
    pub(crate) async fn answers(&self, id: &str) -> Result<Vec<Reply>, RunError> {
        match &self.keeper {
            Keeper::Store(store) => store.answers(&self.run, id).await.map_err(RunError::from),
            Keeper::Nobody | Keeper::Memory(_) => Ok(Vec::new()),
        }
    }

    /// Closes a question, once its answers are in the journal.
    pub(crate) async fn close(&self, id: &str) -> Result<(), RunError> {
        let Keeper::Store(store) = &self.keeper else { return Ok(()) };
        self.flush().await?;
        store.close(&self.run, self.epoch, id).await.map_err(RunError::from)
    }
}

/// Gives up a run that nobody works on: it is aborted, and its targets are free again. What it has done stays. `at` is the time now,
/// by the clock of whoever gives it up.
///
/// # Errors
/// Somebody works on it, or it has ended; the store cannot be written.
pub async fn abandon(store: &dyn Store, run: &Run, by: &str, at: Timestamp) -> Result<(), RunError> {
    let refuse = |why: &str| RunError::new(codes::NOT_RESUMABLE, format!("run {} {why}", run.id));
    if let Some(held) = run.held.as_ref().filter(|_| run.is_alive()) {
        let Holder { who, host, pid } = &held.by;
        return Err(refuse(&format!("is running: {who} on {host}, process {pid}"))
            .next_step(NextStep::AbortRun { run: run.id.clone() }));
    }
    if !run.status.can_go_on() {
        return Err(refuse(&format!("has ended: {}", run.status.as_str().replace('_', " "))));
    }
    if !store.acquire(&run.id, run.epoch, &Holder::this(by)).await? {
        return Err(refuse("was just taken over by another runner"));
    }
    let epoch = run.epoch + 1;
    let (seq, hash) = store.last(&run.id).await?.map_or((0, record::GENESIS), |last| (last.seq, last.hash));
    let error = RunError::new(codes::ABORTED, format!("{by} abandoned the run; its changes stay"));
    let entry = Entry::RunEnded { outcome: RunOutcome::Aborted, error: Some(error), elapsed_ms: 0 };
    let body = serde_json::to_string(&entry)
        .map_err(|e| RunError::new(codes::INTERNAL, format!("a record cannot be written as JSON: {e}")))?;
    store
        .append(&run.id, epoch, &[Sealed::seal(seq + 1, at, &EffectId::of_run(), body, &hash)], true)
        .await?;
    store.end(&run.id, epoch, RunStatus::Ended(RunOutcome::Aborted), at).await?;
    Ok(())
}

impl From<StoreError> for RunError {
    fn from(error: StoreError) -> Self {
        let told = if error.lost {
            Self::new(codes::LOST, error.message)
        } else {
            Self::new(codes::JOURNAL, format!("the journal cannot be used: {}", error.message))
        };
        error.next.into_iter().fold(error.hints.into_iter().fold(told, Self::hint), Self::next_step)
    }
}
#[async_trait]
impl Ownership for Journal {
    async fn confirm(&self) -> Result<(), ProviderError> {
        self.hold().await.map_err(ProviderError::from)
    }
}
