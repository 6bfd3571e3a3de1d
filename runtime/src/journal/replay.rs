//! What the journal of a run knows, while it is still being read.
//!
//! The script runs as soon as the first page has arrived and is answered from what is there; it waits only for what has not
//! arrived yet. Nothing is applied before the last record was read and verified: an effect counts as not recorded only then.
//!
//! The records of an effect stay text until the script asks for it. Their values are then made by the thread that uses them up,
//! and what was read ahead takes no more memory than its text.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    memory::MemoryRecord,
    record::{Chain, Entry, Moved, Outcome, Sealed},
    store::Store,
};
use crate::{
    effect::Reply,
    error::{RunError, codes},
    event::{Kind, RunOutcome},
};

/// What the journal knows about one effect.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) kind: Kind,
    pub(crate) effect: String,
    pub(crate) print: String,
    pub(crate) input: String,
    pub(crate) intent: Option<Intent>,
    /// `None`: an intent without an outcome.
    pub(crate) outcome: Option<Ended>,
}

/// What an effect was about to do.
#[derive(Debug, Clone)]
pub(crate) struct Intent {
    /// Place of the record.
    pub(crate) seq: u64,
    /// When.
    pub(crate) at: Timestamp,
    /// For a change, where it moves its target from and to.
    pub(crate) moved: Option<Moved>,
}

/// How an effect ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// Place of the record.
    pub(crate) seq: u64,
    pub(crate) outcome: Outcome,
    pub(crate) attempts: u32,
    pub(crate) elapsed_ms: u64,
}

/// The records of one effect that count, not decoded yet.
#[derive(Debug, Default)]
struct Unopened {
    intent: Option<Body>,
    outcome: Option<Body>,
}

/// An entry with the place of its record.
#[derive(Debug)]
struct Body {
    seq: u64,
    at: Timestamp,
    written: Written,
}

/// An entry, which is decoded when it is asked for; one that never left the memory need not be.
#[derive(Debug)]
enum Written {
    Text(String),
    Entry(Box<Entry>),
}

/// How far a wait got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looked {
    pub(crate) waited: Duration,
    pub(crate) memory: Option<Value>,
}

/// A record that answers nothing and is not written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    StepStarted,
    StepEnded,
    Note,
    Registered,
    NoReturn,
    GuardStarted,
    Passed,
}

impl Mark {
    /// Whether it stands for something to undo, like an effect.
    fn is_undone(self) -> bool {
        matches!(self, Self::Registered | Self::NoReturn)
    }
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
    /// Somebody waits for what has not arrived.
    asked: Condvar,
    /// Everything has been read and answered: asking is in vain.
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    effects: HashMap<String, Unopened>,
    /// How many of them, and of what was registered to be undone, do not belong to a rollback and were not asked for yet.
    open: usize,
    marks: HashMap<String, Vec<(Mark, u64, Duration)>>,
    replies: HashMap<String, Vec<Reply>>,
    looked: HashMap<String, Looked>,
    /// What stopped parts of the script.
    stopped: HashMap<String, RunError>,
    /// Why undoing began.
    undoing: Option<RunError>,
    /// Undoing has come to an end before, and left something.
    left_over: bool,
    /// Why a person ended the run, if it was not taken up again.
    aborted: Option<RunError>,
    /// When the last record was added.
    last: Option<Timestamp>,
    /// For how long the run had been worked on by then.
    worked: Duration,
    /// Whether records may still arrive.
    reading: bool,
    /// How many threads wait for some.
    waiting: usize,
    failed: Option<RunError>,
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
                let broken_off = || RunError::new(codes::JOURNAL, "reading the journal was broken off");
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
        id: &str,
        kind: Kind,
        effect: &str,
        print: &str,
        input: &str,
    ) -> Result<Option<Recorded>, RunError> {
        let ended = |unopened: &Unopened| unopened.outcome.is_some();
        let whole = self.until(|known| known.effects.get(id).is_some_and(ended).then(|| known.remove(id)))?;
        let Some(unopened) = whole.unwrap_or_else(|| self.shared.known().remove(id)) else {
            return Ok(None);
        };
        let Some(recorded) = unopened.open()? else { return Ok(None) };
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

    /// Takes a mark: its place, and for how long the run had been worked on then. Blocks until it has arrived, or all have.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn take_mark(&self, id: &str, mark: Mark) -> Result<Option<(u64, Duration)>, RunError> {
        self.until(|known| {
            let marks = known.marks.get_mut(id)?;
            let found = marks.iter().position(|(made, ..)| *made == mark)?;
            let (_, seq, worked) = marks.remove(found);
            if marks.is_empty() {
                known.marks.remove(id);
            }
            known.open -= usize::from(mark.is_undone() && !is_undoing(id));
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
    pub(crate) fn unregistered(&self) -> Result<Option<String>, RunError> {
        self.at_the_end(|known| {
            let is_left = |(id, marks): &(&String, &Vec<(Mark, u64, Duration)>)| {
                !is_undoing(id) && marks.iter().any(|(mark, ..)| mark.is_undone())
            };
            known.marks.iter().filter(is_left).map(|(id, _)| id.clone()).min()
        })
    }

    /// An effect outside of a rollback that the script never asked for. Blocks until everything was read.
    ///
    /// # Errors
    /// Why the journal cannot be read.
    pub(crate) fn left(&self) -> Result<Option<(String, Recorded)>, RunError> {
        self.at_the_end(|known| {
            let left = known.effects.iter().filter(|(id, _)| !is_undoing(id));
            let first = left.min_by_key(|(_, unopened)| unopened.outcome.as_ref().map(|body| body.seq));
            let Some((id, unopened)) = first else { return Ok(None) };
            Ok(unopened.open()?.map(|recorded| (id.clone(), recorded)))
        })?
    }
}

/// A record that was read.
struct Read {
    seq: u64,
    at: Timestamp,
    id: String,
    content: Content,
}

/// What is in a record, as far as it is decoded at once.
enum Content {
    Intent(Written),
    Outcome(Written),
    Other(Box<Entry>),
}

/// Verifies a page and decodes what is needed of it.
fn decode(page: Vec<Sealed>, chain: &mut Chain) -> Result<Vec<Read>, RunError> {
    page.into_iter()
        .map(|sealed| {
            chain
                .follow(&sealed)
                .map_err(|b| RunError::new(codes::JOURNAL, format!("record {}: {}", b.seq, b.why)))?;
            let Sealed { seq, at_ms, id, body, .. } = sealed;
            let content = match tag(&body) {
                Some("intent") => Content::Intent(Written::Text(body)),
                Some("outcome") => Content::Outcome(Written::Text(body)),
                _ => Content::Other(Box::new(open(seq, &body)?)),
            };
            let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
            Ok(Read { seq, at, id, content })
        })
        .collect()
}

/// The variant of an entry, which stands in front of its fields.
fn tag(body: &str) -> Option<&str> {
    body.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?.split('"').next()
}

/// Decodes the entry of a record.
fn open(seq: u64, body: &str) -> Result<Entry, RunError> {
    serde_json::from_str(body).map_err(|e| {
        RunError::new(codes::JOURNAL, format!("record {seq} cannot be read: {e}"))
            .hint("it may have been written by a newer version of Contraflow")
    })
}

impl Unopened {
    /// Decodes what is recorded of an effect.
    fn open(&self) -> Result<Option<Recorded>, RunError> {
        let mut recorded = None;
        for Body { seq, at, written } in self.intent.iter().chain(&self.outcome) {
            let entry = match written {
                Written::Text(text) => open(*seq, text)?,
                Written::Entry(entry) => (**entry).clone(),
            };
            match entry {
                Entry::Intent { kind, effect, print, input, from, to, .. } => {
                    let moved = from.zip(to).map(|(from, to)| Moved { from, to });
                    let intent = Some(Intent { seq: *seq, at: *at, moved });
                    recorded = Some(Recorded { kind, effect, print, input, intent, outcome: None });
                }
                Entry::Outcome { kind, effect, print, input, attempts, elapsed_ms, result, .. } => {
                    let outcome = Some(Ended { seq: *seq, outcome: result, attempts, elapsed_ms });
                    let input = input.unwrap_or_default();
                    recorded
                        .get_or_insert(Recorded { kind, effect, print, input, intent: None, outcome: None })
                        .outcome = outcome;
                }
                _ => {}
            }
        }
        Ok(recorded)
    }
}

/// Whether an effect belongs to a rollback.
fn is_undoing(id: &str) -> bool {
    id.starts_with("rollback/")
}

impl Known {
    fn remove(&mut self, id: &str) -> Option<Unopened> {
        let unopened = self.effects.remove(id)?;
        self.open -= usize::from(!is_undoing(id));
        Some(unopened)
    }

    /// What is known of the effect with that id.
    fn effect(&mut self, id: String) -> &mut Unopened {
        let open = &mut self.open;
        self.effects.entry(id).or_insert_with_key(|id| {
            *open += usize::from(!is_undoing(id));
            Unopened::default()
        })
    }

    fn add(&mut self, Read { seq, at, id, content }: Read) {
        // Before it was taken up, nobody worked on it; and a clock may have been set back.
        let idle = matches!(&content, Content::Other(entry) if matches!(**entry, Entry::Resumed { .. }));
        if let Some(last) = self.last.filter(|_| !idle) {
            self.worked += Duration::try_from(at.duration_since(last)).unwrap_or_default();
        }
        self.last = Some(at);
        match content {
            Content::Intent(written) => {
                let effect = self.effect(id);
                // An effect in doubt goes on with what it first intended.
                if effect.intent.is_none() || effect.outcome.is_some() {
                    *effect = Unopened { intent: Some(Body { seq, at, written }), outcome: None };
                }
            }
            Content::Outcome(written) => {
                self.looked.remove(&id);
                self.effect(id).outcome = Some(Body { seq, at, written });
            }
            Content::Other(entry) => self.remember(seq, id, *entry),
        }
    }

    fn remember(&mut self, seq: u64, id: String, entry: Entry) {
        let worked = self.worked;
        let (marks, open) = (&mut self.marks, &mut self.open);
        let mut mark = |id: String, mark: Mark| {
            *open += usize::from(mark.is_undone() && !is_undoing(&id));
            marks.entry(id).or_default().push((mark, seq, worked));
        };
        match entry {
            Entry::StepStarted { .. } => mark(id, Mark::StepStarted),
            Entry::StepEnded { .. } => mark(id, Mark::StepEnded),
            Entry::Note { .. } => mark(id, Mark::Note),
            Entry::Registered { .. } => mark(id, Mark::Registered),
            Entry::NoReturn { .. } => mark(id, Mark::NoReturn),
            Entry::GuardStarted { .. } => mark(id, Mark::GuardStarted),
            Entry::Passed {} => mark(id, Mark::Passed),
            Entry::Replied { reply } => self.replies.entry(id).or_default().push(reply),
            Entry::Looked { waited_ms, memory } => {
                let waited = Duration::from_millis(waited_ms);
                self.looked.insert(id, Looked { waited, memory: Some(memory) });
            }
            Entry::Stopped { error } => {
                self.stopped.insert(id, error);
            }
            Entry::RollbackStarted { error, .. } => {
                self.undoing.get_or_insert(error);
            }
            Entry::RunEnded { outcome: RunOutcome::Aborted, error, .. } => self.aborted = error,
            Entry::Resumed { .. } => self.aborted = None,
            Entry::RollbackEnded { left } => self.left_over = !left.is_empty(),
            // Those of effects are kept as they are.
            Entry::Intent { .. } | Entry::Outcome { .. } => {}
            Entry::Doubt { .. } | Entry::RunEnded { .. } | Entry::Paused { .. } => {}
        }
    }
}
