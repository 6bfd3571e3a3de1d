//! What the journal of a run knows, while it is still being read.
//!
//! The script runs as soon as the first page has arrived and is answered from what is there; it waits only for what has not
//! arrived yet. Nothing is applied before the last record was read and verified: an effect counts as not recorded only then.
//!
//! The records of an effect stay text until the script asks for it. Their values are then made by the thread that uses them up,
//! and what was read ahead takes no more memory than its text.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;

use self::known::{Content, Known, Read, Unopened, Written, decode};
pub(crate) use self::known::{Ended, Intent, Looked, Mark, Recorded};
use super::{
    memory::MemoryRecord,
    record::{Chain, Entry, Sealed},
    store::Store,
};
use crate::{
    effect::Reply,
    error::{RunError, codes},
    event::Kind,
};

mod known;

/// The effects of a run by id.
#[derive(Debug, Default)]
pub struct Replay {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    arrived: Condvar,
    /// Somebody waits for what has not arrived.
    asked: Condvar,
    /// Everything has been read and answered: asking is in vain.
    over: AtomicBool,
}

/// Pages that are read before they are decoded.
const PAGES: usize = 4;

/// Effects that are read before anybody asked for them, so that a long journal does not fill the memory: some ten times as many as
/// a script asks for before the reader looks again.
const AHEAD: usize = 6_000;

/// How often a reader that is far ahead looks whether it still is.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, failed: Option<RunError>) {
        let mut known = self.known();
        known.reading = false;
        known.failed = failed;
        self.arrived.notify_all();
    }
}

impl Replay {
    /// Begins to read the journal of a run up to the record at `last`, and verifies it on the way. An error of reading is the answer
    /// to whoever waits for a record.
    pub(crate) fn read(store: Arc<dyn Store>, run: &str, last: u64) -> Self {
        let replay = Self::default();
        replay.shared.known().reading = true;
        let (send, mut receive) = tokio::sync::mpsc::channel::<Result<Vec<Sealed>, RunError>>(PAGES);
        let run = run.to_owned();
        tokio::spawn(async move {
            let mut after = 0;
            while after < last {
                let mut page = store.page(&run, after).await;
                if let Ok(page) = &mut page {
                    // What this runner itself adds meanwhile is not to be answered.
                    page.retain(|record| record.seq <= last);
                }
                let end = page.as_ref().ok().and_then(|page| page.last()).map(|record| record.seq);
                // Nobody receives any more: something wrong was found.
                let heard = send.send(page.map_err(RunError::from)).await.is_ok();
                let Some(end) = end.filter(|_| heard) else { return };
                after = end;
            }
            let _ = send.send(Ok(Vec::new())).await;
        });
        let shared = Arc::clone(&replay.shared);
        // Decoding on a thread of its own, while the store reads the next page.
        std::thread::spawn(move || {
            let mut chain = Chain::default();
            let mut complete = false;
            let mut pages = std::iter::from_fn(|| receive.blocking_recv());
            let read = pages.try_for_each(|page| {
                let page = page?;
                // The end is told: a reader that was broken off must not pass for it.
                complete = page.is_empty();
                let records = decode(page, &mut chain)?;
                let mut known = shared.known();
                records.into_iter().for_each(|record| known.add(record));
                shared.arrived.notify_all();
                // Far enough ahead of the script, unless it waits for something that comes later.
                while known.effects.len() > AHEAD && known.waiting == 0 && Arc::strong_count(&shared) > 1 {
                    (known, _) =
                        shared.asked.wait_timeout(known, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner);
                }
                Ok(())
            });
            let read = read.and_then(|()| {
                let broken_off = || RunError::new(codes::JOURNAL, "reading the journal was interrupted");
                complete.then_some(()).ok_or_else(broken_off)
            });
            shared.end(read.err());
        });
        replay
    }

    /// Records that are all there.
    pub(crate) fn of(records: impl IntoIterator<Item = MemoryRecord>) -> Self {
        let replay = Self::default();
        let mut known = replay.shared.known();
        for MemoryRecord { seq, at, id, entry } in records {
            let content = match entry {
                Entry::Intent { .. } => Content::Intent(Written::Entry(Box::new(entry))),
                Entry::Outcome { .. } => Content::Outcome(Written::Entry(Box::new(entry))),
                _ => Content::Other(Box::new(entry)),
            };
            known.add(Read { seq, at, id, content });
        }
        drop(known);
        replay
    }

    /// Whether nothing is recorded, or all of it has been answered.
    pub fn is_empty(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed) || {
            let known = self.shared.known();
            let nothing = known.effects.is_empty()
                && known.marks.is_empty()
                && known.stopped.is_empty()
                && known.undoing.is_none();
            let over = !known.reading && known.failed.is_none() && nothing;
            self.shared.over.store(over, Ordering::Relaxed);
            over
        }
    }

    /// Whether all effects that are recorded have been asked for, besides those of a rollback.
    pub(crate) fn is_answered(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed) || {
            let known = self.shared.known();
            !known.reading && known.open == 0
        }
    }

    /// Blocks until `found` has something, or everything was read.
    fn until<T>(&self, mut found: impl FnMut(&mut Known) -> Option<T>) -> Result<Option<T>, RunError> {
        let mut known = self.shared.known();
        loop {
            if let Some(found) = found(&mut known) {
                return Ok(Some(found));
            }
            if !known.reading {
                return known.failed.clone().map_or(Ok(None), Err);
            }
            known.waiting += 1;
            self.shared.asked.notify_one();
            known = self.shared.arrived.wait(known).unwrap_or_else(PoisonError::into_inner);
            known.waiting -= 1;
        }
    }

    /// Blocks until everything was read; then answers what `look` finds.
    fn at_the_end<T>(&self, look: impl FnOnce(&mut Known) -> T) -> Result<T, RunError> {
        self.until(|known| (!known.reading && known.failed.is_none()).then_some(()))?;
        Ok(look(&mut self.shared.known()))
    }

    /// Takes what is recorded of the effect of that id, which must be the same one. An id is asked for once in a run. Blocks until
    /// the record has arrived, or all have.
    ///
    /// # Errors
    /// `diverged`, showing both sides; why the journal cannot be read.
    pub(crate) fn take(
        &self,
        id: &EffectId,
        kind: Kind,
        effect: &str,
        fingerprint: &str,
        input: &str,
    ) -> Result<Option<Recorded>, RunError> {
        let ended = |unopened: &Unopened| unopened.outcome.is_some();
        let whole = self.until(|known| known.effects.get(id).is_some_and(ended).then(|| known.take(id)))?;
        let Some(unopened) = whole.unwrap_or_else(|| self.shared.known().take(id)) else {
            return Ok(None);
        };
        let recorded = unopened.open()?;
        let is_same = |recorded: &Recorded| {
            recorded.kind == kind && recorded.effect == effect && recorded.fingerprint == fingerprint
        };
        let recorded = match recorded {
            Some(recorded) if !is_same(&recorded) => recorded,
            same => {
                self.shared.known().answered(id);
                return Ok(same);
            }
        };
        // It stays unanswered, so that no other branch takes the journal for done and goes on.
        self.shared.known().put_back(id.clone(), unopened);
        let side = |effect: &str, input: &str| {
            if input.is_empty() { effect.to_owned() } else { format!("{effect} {input}") }
        };
        let message = format!("the script does something different at {id} from the journal");
        Err(RunError::new(codes::DIVERGED, message)
            .hint(format!("journal: {}", side(&recorded.effect, &recorded.input)))
            .hint(format!("script:  {}", side(effect, input)))
            .hint(
                "between effects a script must do the same each time: its only inputs are parameters and \
                effects",
            ))
    }

    /// Takes a mark: its place, and for how long the run had been worked on then. Blocks until it has arrived, or all have.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn take_mark(&self, id: &EffectId, mark: Mark) -> Result<Option<(u64, Duration)>, RunError> {
        self.until(|known| {
            let marks = known.marks.get_mut(id)?;
            let found = marks.iter().position(|(made, ..)| *made == mark)?;
            let (_, seq, worked) = marks.remove(found);
            if marks.is_empty() {
                known.marks.remove(id);
            }
            known.open -= usize::from(mark.is_undone() && !id.is_rollback());
            Some((seq, worked))
        })
    }

    /// What stopped the part of the script with that id, if something did. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn stopped(&self, id: &str) -> Result<Option<RunError>, RunError> {
        self.at_the_end(|known| known.stopped.get(id).cloned())
    }

    /// Why undoing began, if it did. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn undoing(&self) -> Result<Option<RunError>, RunError> {
        self.at_the_end(|known| known.undoing.clone())
    }

    /// Whether undoing has come to an end before and left something: what failed then is tried again. Blocks until everything was
    /// read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn left_over(&self) -> Result<bool, RunError> {
        self.at_the_end(|known| known.left_over)
    }

    /// Why a person ended the run, if it stands like that. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn aborted(&self) -> Result<Option<RunError>, RunError> {
        self.at_the_end(|known| known.aborted.clone())
    }

    /// For how long the run has been worked on, not counting the time when nobody did. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn worked(&self) -> Result<Duration, RunError> {
        self.at_the_end(|known| known.worked)
    }

    /// Takes how far a wait got, and what people answered. To be asked once its intent is known to have no outcome.
    pub(crate) fn take_wait(&self, id: &str) -> (Looked, Vec<Reply>) {
        let mut known = self.shared.known();
        (known.looked.remove(id).unwrap_or_default(), known.replies.remove(id).unwrap_or_default())
    }

    /// The place of something that is part of a rollback, such as an `on_rollback`, that the script never got to. Blocks until
    /// everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn unregistered(&self) -> Result<Option<EffectId>, RunError> {
        self.at_the_end(|known| {
            let is_left = |(id, marks): &(&EffectId, &Vec<(Mark, u64, Duration)>)| {
                !id.is_rollback() && marks.iter().any(|(mark, ..)| mark.is_undone())
            };
            known.marks.iter().filter(is_left).map(|(id, _)| id.clone()).min()
        })
    }

    /// An effect outside of a rollback that the script never asked for. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn left(&self) -> Result<Option<(EffectId, Recorded)>, RunError> {
        self.at_the_end(|known| {
            let left = known.effects.iter().filter(|(id, _)| !id.is_rollback());
            let first = left.min_by_key(|(_, unopened)| unopened.outcome.as_ref().map(|body| body.seq));
            let Some((id, unopened)) = first else { return Ok(None) };
            Ok(unopened.open()?.map(|recorded| (id.clone(), recorded)))
        })?
    }
}
