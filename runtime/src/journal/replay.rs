//! What the journal of a run knows, while it is still being read.
//!
//! The script runs as soon as the first page has arrived and is answered from what is there; it waits only for what has not
//! arrived yet. Nothing is applied before the last record was read and verified: an effect counts as not recorded only then.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    record::{Chain, Entry, Outcome, Sealed},
    store::Store,
};
use crate::{
    error::{RunError, codes},
    event::Kind,
};

/// What the journal knows about one effect.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) kind: Kind,
    pub(crate) effect: String,
    pub(crate) print: String,
    pub(crate) input: String,
    /// `None`: an intent without an outcome.
    pub(crate) outcome: Option<(Outcome, u32, u64)>,
}

/// The effects of a run by id.
#[derive(Debug, Default)]
pub struct Replay {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    arrived: Condvar,
    /// Everything has been read and answered: asking is in vain.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    effects: HashMap<String, Recorded>,
    /// Whether records may still arrive.
    reading: bool,
    failed: Option<RunError>,
}

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
    /// Begins to read the journal of a run, and verifies it on the way. An error of reading is the answer to whoever waits for a
    /// record.
    pub(crate) fn read(store: Arc<dyn Store>, run: &str) -> Self {
        let replay = Self::default();
        replay.shared.known().reading = true;
        let (send, receive) = std::sync::mpsc::channel::<Result<Vec<Sealed>, RunError>>();
        let run = run.to_owned();
        tokio::spawn(async move {
            let mut after = 0;
            loop {
                let page = store.page(&run, after).await;
                let last = page.as_ref().ok().and_then(|page| page.last()).map(|record| record.seq);
                // Nobody receives any more: something wrong was found.
                let heard = send.send(page.map_err(RunError::from)).is_ok();
                let Some(last) = last.filter(|_| heard) else { return };
                after = last;
            }
        });
        let shared = Arc::clone(&replay.shared);
        // Decoding on a thread of its own, while the store reads the next page.
        std::thread::spawn(move || {
            let mut chain = Chain::default();
            let mut complete = false;
            let read = receive.into_iter().try_for_each(|page| {
                let page = page?;
                // The end is told: a reader that was broken off must not pass for it.
                complete = page.is_empty();
                let known = decode(page, &mut chain)?;
                let mut all = shared.known();
                for (id, entry) in known {
                    add(&mut all.effects, id, entry);
                }
                drop(all);
                shared.arrived.notify_all();
                Ok(())
            });
            let read = read.and_then(|()| {
                let broken_off = || RunError::new(codes::JOURNAL, "reading the journal was broken off");
                complete.then_some(()).ok_or_else(broken_off)
            });
            shared.end(read.err());
        });
        replay
    }

    /// Whether nothing is recorded, or all of it has been answered.
    pub fn is_empty(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed) || {
            let known = self.shared.known();
            let over = !known.reading && known.failed.is_none() && known.effects.is_empty();
            self.shared.over.store(over, Ordering::Relaxed);
            over
        }
    }

    /// Takes what is recorded of the effect of that id, which must be the same one. An id is asked for once in a run. Blocks until
    /// the record has arrived, or all have.
    ///
    /// # Errors
    /// `diverged`, showing both sides; why the journal cannot be read.
    pub(crate) fn take(
        &self,
        id: &str,
        kind: Kind,
        effect: &str,
        print: &str,
        input: &str,
    ) -> Result<Option<Recorded>, RunError> {
        let mut known = self.shared.known();
        let recorded = loop {
            if known.effects.get(id).is_some_and(|recorded| recorded.outcome.is_some()) || !known.reading {
                break known.effects.remove(id);
            }
            known = self.shared.arrived.wait(known).unwrap_or_else(PoisonError::into_inner);
        };
        if let Some(error) = &known.failed {
            return Err(error.clone());
        }
        drop(known);
        let Some(recorded) = recorded else { return Ok(None) };
        if recorded.kind == kind && recorded.effect == effect && recorded.print == print {
            return Ok(Some(recorded));
        }
        let side = |effect: &str, input: &str| {
            if input.is_empty() { effect.to_owned() } else { format!("{effect} {input}") }
        };
        let message = format!("the script does something else at {id} than the journal says");
        Err(RunError::new(codes::DIVERGED, message)
            .hint(format!("journal: {}", side(&recorded.effect, &recorded.input)))
            .hint(format!("script:  {}", side(effect, input)))
            .hint("a script must do the same between effects each time it runs: no input but parameters and effects"))
    }
}

/// Verifies a page and decodes what is needed of it.
fn decode(page: Vec<Sealed>, chain: &mut Chain) -> Result<Vec<(String, Entry)>, RunError> {
    let mut known = Vec::with_capacity(page.len());
    for sealed in page {
        chain
            .follow(&sealed)
            .map_err(|b| RunError::new(codes::JOURNAL, format!("record {}: {}", b.seq, b.why)))?;
        // Only effects are answered; decoding the rest would be wasted.
        if !sealed.body.starts_with("{\"intent\":") && !sealed.body.starts_with("{\"outcome\":") {
            continue;
        }
        let entry = serde_json::from_str(&sealed.body).map_err(|e| {
            RunError::new(codes::JOURNAL, format!("record {} cannot be read: {e}", sealed.seq))
        })?;
        known.push((sealed.id, entry));
    }
    Ok(known)
}

fn add(effects: &mut HashMap<String, Recorded>, id: String, entry: Entry) {
    match entry {
        Entry::Intent { kind, effect, print, input, .. } => {
            effects.insert(id, Recorded { kind, effect, print, input, outcome: None });
        }
        Entry::Outcome { kind, effect, print, input, attempts, elapsed_ms, result, .. } => {
            let outcome = Some((result, attempts, elapsed_ms));
            match effects.get_mut(&id) {
                Some(recorded) => recorded.outcome = outcome,
                None => {
                    let input = input.unwrap_or_default();
                    effects.insert(id, Recorded { kind, effect, print, input, outcome });
                }
            }
        }
        _ => {}
    }
}
