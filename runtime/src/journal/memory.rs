//! Records in memory, of a rehearsed run: it may be cut off anywhere, as when a process dies.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use contraflow_provider::effect_id::EffectId;
use jiff::Timestamp;

use super::Entry;

/// A record that never leaves the memory.
#[derive(Debug, Clone)]
pub(crate) struct MemoryRecord {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) id: EffectId,
    pub(super) entry: Entry,
}

/// What a rehearsed run has recorded.
#[derive(Default)]
pub(crate) struct MemoryJournal {
    records: Mutex<Vec<MemoryRecord>>,
    /// How many records there are when the process dies.
    ends_at: Option<usize>,
    cut: AtomicBool,
    /// Whether records are needed at all: they are if the process dies.
    forgets: bool,
}

impl MemoryJournal {
    /// For a run that does not die: nobody will ask for its records.
    pub(crate) fn forgetful() -> Self {
        Self { forgets: true, ..Self::default() }
    }

    /// For a run that dies once it has that many records.
    pub(crate) fn ending_at(records: usize) -> Self {
        Self { ends_at: Some(records), ..Self::default() }
    }

    /// Goes on after records that were made before.
    pub(crate) fn after(records: Vec<MemoryRecord>) -> Self {
        Self { records: Mutex::new(records), ..Self::default() }
    }

    fn records(&self) -> MutexGuard<'_, Vec<MemoryRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, seq: u64, at: Timestamp, id: &EffectId, entry: &Entry) {
        if self.forgets || self.is_cut() {
            return;
        }
        let mut records = self.records();
        records.push(MemoryRecord { seq, at, id: id.clone(), entry: entry.clone() });
        if self.ends_at == Some(records.len()) {
            self.cut();
        }
    }

    /// The process dies now: nothing is recorded any more.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
    }

    /// Whether the process has died.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// All records, which are given away.
    pub(crate) fn take(&self) -> Vec<MemoryRecord> {
        std::mem::take(&mut self.records())
    }

    /// How many records there were when undoing began.
    pub(crate) fn undoing_since(&self) -> Option<usize> {
        self.records().iter().position(|record| matches!(record.entry, Entry::RollbackStarted { .. }))
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records().len()
    }
}
