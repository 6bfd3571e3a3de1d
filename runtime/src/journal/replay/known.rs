//! What has been read of a journal so far, by the ids of effects and places.

use std::{collections::HashMap, time::Duration};

use contraflow_provider::effect_id::EffectId;
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    effect::Reply,
    error::RunError,
    event::{Kind, RunOutcome},
    journal::record::{self, Chain, Entry, Moved, Outcome, Sealed},
};

/// What the journal knows about one effect.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) kind: Kind,
    pub(crate) effect: String,
    pub(crate) fingerprint: String,
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
pub(super) struct Unopened {
    pub(super) intent: Option<Body>,
    pub(super) outcome: Option<Body>,
}

/// An entry with the place of its record.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) written: Written,
}

/// An entry, which is decoded from its version and text when it is asked for; one that never left the memory need not be.
#[derive(Debug)]
pub(super) enum Written {
    Text(u32, String),
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
    pub(super) fn is_undone(self) -> bool {
        matches!(self, Self::Registered | Self::NoReturn)
    }
}

#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) effects: HashMap<EffectId, Unopened>,
    /// How many of them, and of what was registered to be undone, do not belong to a rollback and were not asked for yet.
    pub(super) open: usize,
    pub(super) marks: HashMap<EffectId, Vec<(Mark, u64, Duration)>>,
    pub(super) replies: HashMap<EffectId, Vec<Reply>>,
    pub(super) looked: HashMap<EffectId, Looked>,
    /// What stopped parts of the script.
    pub(super) stopped: HashMap<EffectId, RunError>,
    /// Why undoing began.
    pub(super) undoing: Option<RunError>,
    /// Undoing has come to an end before, and left something.
    pub(super) left_over: bool,
    /// Why a person ended the run, if it was not taken up again.
    pub(super) aborted: Option<RunError>,
    /// When the last record was added.
    pub(super) last: Option<Timestamp>,
    /// For how long the run had been worked on by then.
    pub(super) worked: Duration,
    /// Whether records may still arrive.
    pub(super) reading: bool,
    /// How many threads wait for some.
    pub(super) waiting: usize,
    pub(super) failed: Option<RunError>,
}

/// A record that was read.
pub(super) struct Read {
    pub(super) seq: u64,
    pub(super) at: Timestamp,
    pub(super) id: EffectId,
    pub(super) content: Content,
}

/// What is in a record, as far as it is decoded at once.
pub(super) enum Content {
    Intent(Written),
    Outcome(Written),
    Other(Box<Entry>),
}

/// Verifies a page and decodes what is needed of it.
pub(super) fn decode(page: Vec<Sealed>, chain: &mut Chain) -> Result<Vec<Read>, RunError> {
    page.into_iter()
        .map(|sealed| {
            // Also refuses records of a newer version, whose bodies may say anything.
            chain.follow(&sealed)?;
            let Sealed { seq, v, at_ms, id, body, .. } = sealed;
            let content = match tag(&body) {
                Some("intent") => Content::Intent(Written::Text(v, body)),
                Some("outcome") => Content::Outcome(Written::Text(v, body)),
                _ => Content::Other(Box::new(record::decode(seq, v, &body)?)),
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

impl Unopened {
    /// Decodes what is recorded of an effect.
    pub(super) fn open(&self) -> Result<Option<Recorded>, RunError> {
        let mut recorded = None;
        for Body { seq, at, written } in self.intent.iter().chain(&self.outcome) {
            let entry = match written {
                Written::Text(v, text) => record::decode(*seq, *v, text)?,
                Written::Entry(entry) => (**entry).clone(),
            };
            match entry {
                Entry::Intent { kind, effect, fingerprint, input, from, to, .. } => {
                    let moved = from.zip(to).map(|(from, to)| Moved::new(from, to));
                    let intent = Some(Intent { seq: *seq, at: *at, moved });
                    recorded = Some(Recorded { kind, effect, fingerprint, input, intent, outcome: None });
                }
                Entry::Outcome { kind, effect, fingerprint, input, attempts, elapsed_ms, result, .. } => {
                    let outcome = Some(Ended { seq: *seq, outcome: result, attempts, elapsed_ms });
                    let input = input.unwrap_or_default();
                    recorded
                        .get_or_insert(Recorded {
                            kind,
                            effect,
                            fingerprint,
                            input,
                            intent: None,
                            outcome: None,
                        })
                        .outcome = outcome;
                }
                _ => {}
            }
        }
        Ok(recorded)
    }
}

impl Known {
    /// Takes an effect out, to compare it. It counts as unanswered until [`Known::answered`].
    pub(super) fn take(&mut self, id: &str) -> Option<Unopened> {
        self.effects.remove(id)
    }

    /// An effect that was taken out was what the script asked for.
    pub(super) fn answered(&mut self, id: &EffectId) {
        self.open -= usize::from(!id.is_rollback());
    }

    /// An effect that was taken out was not what the script asked for.
    pub(super) fn put_back(&mut self, id: EffectId, unopened: Unopened) {
        self.effects.insert(id, unopened);
    }

    /// What is known of the effect with that id.
    fn effect(&mut self, id: EffectId) -> &mut Unopened {
        let open = &mut self.open;
        self.effects.entry(id).or_insert_with_key(|id| {
            *open += usize::from(!id.is_rollback());
            Unopened::default()
        })
    }

    pub(super) fn add(&mut self, Read { seq, at, id, content }: Read) {
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

    fn remember(&mut self, seq: u64, id: EffectId, entry: Entry) {
        let worked = self.worked;
        let (marks, open) = (&mut self.marks, &mut self.open);
        let mut mark = |id: EffectId, mark: Mark| {
            *open += usize::from(mark.is_undone() && !id.is_rollback());
            marks.entry(id).or_default().push((mark, seq, worked));
        };
        match entry {
            Entry::StepStarted { .. } => mark(id, Mark::StepStarted),
            Entry::StepEnded { .. } => mark(id, Mark::StepEnded),
            Entry::Note { .. } => mark(id, Mark::Note),
            Entry::UndoRegistered { .. } => mark(id, Mark::Registered),
            Entry::NoReturn { .. } => mark(id, Mark::NoReturn),
            Entry::GuardStarted { .. } => mark(id, Mark::GuardStarted),
            Entry::ScopeEnded {} => mark(id, Mark::Passed),
            Entry::Replied { reply } => self.replies.entry(id).or_default().push(reply),
            Entry::Checkpoint { waited_ms, memory } => {
                let waited = Duration::from_millis(waited_ms);
                self.looked.insert(id, Looked { waited, memory: Some(memory) });
            }
            Entry::ScopeStopped { error } => {
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
            Entry::DoubtResolved { .. } | Entry::RunEnded { .. } | Entry::Paused { .. } => {}
        }
    }
}
