//! What happens in a run, as one stream of typed events.
//!
//! The runtime prints nothing. Terminal, JSON lines, tracing and an embedding program are consumers of the same events.

use std::{sync::Arc, time::Duration};

pub use contraflow_provider::on::Stream;
use contraflow_provider::{
    effect_id::EffectId,
    on::{On, Reporter, Surroundings},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::vocabulary::{Grade, Kind, LeftOver, Mode, NoteLevel, RunOutcome};
use crate::{
    clock::Clock,
    effect::Until,
    error::RunError,
    question::{Question, Reply},
    secret::Vault,
    target::Target,
    vocabulary::{Doubt, Estimate, Undo},
};

/// Version of the JSON form of events. Fields are added without raising it; a change of meaning raises it.
pub const SCHEMA_VERSION: u32 = 1;

/// An event, when it happened and in which run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`SCHEMA_VERSION`].
    pub v: u32,
    /// The run.
    pub run: String,
    /// When, by the run's clock.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum WaitsFor {
    /// Time that passes.
    Time {
        /// How long.
        ms: u64,
    },
    /// Somebody who answers a question.
    People,
    /// A condition that is looked at again and again.
    Condition {
        /// Shortest time that it can take.
        at_least_ms: u64,
    },
}

impl From<&Until> for WaitsFor {
    fn from(until: &Until) -> Self {
        let ms = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match until {
            Until::Elapsed(time) => Self::Time { ms: ms(time) },
            Until::Answered(_) => Self::People,
            Until::Polled { at_least, .. } => Self::Condition { at_least_ms: ms(at_least) },
        }
    }
}

/// What an effect came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum EffectResult {
    /// A target was moved.
    Changed {
        /// State before.
        from: Value,
        /// State after.
        to: Value,
        /// `from` for people.
        from_text: String,
        /// `to` for people.
        to_text: String,
        /// Whether it can be undone.
        undo: Undo,
        /// What a plan found out by trying it without effect.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// In a plan, how long it is expected to take, as far as that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        estimate: Option<Estimate>,
    },
    /// The target already was as desired; nothing was sent.
    Unchanged {
        /// Its state.
        state: Value,
        /// The state for people.
        text: String,
    },
    /// An action was performed (or, in a plan, would be).
    Performed {
        /// What it does, for people.
        text: String,
    },
    /// A read answered or a wait ended.
    Answered {
        /// What was found, for people. May be empty.
        text: String,
    },
    /// It failed.
    Failed {
        /// Why.
        error: RunError,
    },
}

/// One thing that happened. Ids are those of steps and effects, such as `preflight/1:probe.http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A run began.
    RunStarted {
        /// Name of the runbook.
        runbook: String,
        /// Version of the runbook.
        version: String,
        /// Environment whose targets it uses.
        environment: String,
        /// In which world.
        mode: Mode,
        /// Parameters with defaults filled in.
        params: Value,
        /// Hash of the saved plan that it was started from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<String>,
    },
    /// A run that died or was paused is taken up again.
    Resumed {
        /// Who does it.
        by: String,
        /// Which time, from 2.
        epoch: i64,
        /// Whether it is taken over for rollback.
        rollback: bool,
    },
    /// A step opened.
    StepStarted {
        /// Its id.
        id: EffectId,
        /// Its name as the script gives it.
        name: String,
        /// Whether the journal had it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    /// A step closed.
    StepEnded {
        /// Its id.
        id: EffectId,
        /// Its name as the script gives it.
        name: String,
        /// Whether its body ran to the end.
        ok: bool,
        /// How long it took.
        elapsed_ms: u64,
        /// Whether the journal had it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    /// An effect began.
    EffectStarted {
        /// Its id.
        id: EffectId,
        /// Its kind.
        kind: Kind,
        /// Its name, `noun.verb`.
        effect: String,
        /// What it changes, if it changes one thing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Target>,
        /// What it is about, for people. May be empty.
        text: String,
        /// What ends it, if it is a wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<WaitsFor>,
    },
    /// An effect's intent is durable and it is about to be applied.
    Applying {
        /// Id of the effect.
        id: EffectId,
        /// State before, for people; empty for actions.
        from_text: String,
        /// State wanted, for people; what is done, for actions.
        to_text: String,
    },
    /// An effect says how far it is.
    Progress {
        /// Id of the effect.
        id: EffectId,
        /// How much is done.
        done: u64,
        /// Of how much; 0 where it is not known.
        total: u64,
        /// What is being waited for.
        message: String,
    },
    /// Something else printed a line while an effect ran.
    Output {
        /// Id of the effect.
        id: EffectId,
        /// Where it was printed.
        stream: Stream,
        /// The line, scrubbed.
        line: String,
    },
    /// An effect failed in a way that allows another try.
    Retrying {
        /// Id of the effect.
        id: EffectId,
        /// The try that failed, from 1.
        attempt: u32,
        /// Most tries.
        attempts: u32,
        /// Wait before the next.
        wait_ms: u64,
        /// Why it failed.
        error: RunError,
    },
    /// An effect ended.
    EffectEnded {
        /// Its id.
        id: EffectId,
        /// Its kind.
        kind: Kind,
        /// Its name, `noun.verb`.
        effect: String,
        /// What it changed, if it changes one thing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Target>,
        /// What it was about, for people. May be empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        about: String,
        /// What ended it, if it was a wait. Not known of a run that is shown from its journal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<WaitsFor>,
        /// How sure this is. Always observed in a live run.
        grade: Grade,
        /// How often it was tried.
        attempts: u32,
        /// How long it took; in a plan, how long it would take at least.
        elapsed_ms: u64,
        /// Whether it was answered from the journal.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
        /// What it came to.
        #[serde(flatten)]
        result: EffectResult,
    },
    /// A person is asked.
    Asked {
        /// Id of the wait.
        id: EffectId,
        /// The question.
        question: Question,
    },
    /// A person answered.
    Replied {
        /// Id of the wait.
        id: EffectId,
        /// The answer.
        reply: Reply,
    },
    /// The script has something to say.
    Note {
        /// Id of the place.
        id: EffectId,
        /// `note` for the record of the run, `log` for detail.
        level: NoteLevel,
        /// What.
        text: String,
        /// Whether the journal had it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    /// Nobody knew whether an effect had happened, and now it is settled.
    DoubtResolved {
        /// Id of the effect.
        id: EffectId,
        /// What was found or decided.
        resolution: Doubt,
        /// How, for people.
        text: String,
    },
    /// The script passed a point of no return.
    NoReturn {
        /// Id of the place.
        id: EffectId,
        /// Why.
        why: String,
        /// Whether the journal had it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    /// A guard began to watch.
    GuardStarted {
        /// Its id.
        id: EffectId,
        /// What it watches, for people.
        watching: Vec<String>,
        /// Whether the journal had it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        replayed: bool,
    },
    /// A cancellation scope was stopped: by a guard, a deadline or a branch that failed.
    ScopeStopped {
        /// Id of the guard, step or `parallel`.
        id: EffectId,
        /// Why.
        error: RunError,
    },
    /// What was done is being undone.
    RollbackStarted {
        /// Why.
        error: RunError,
        /// How many things there are to undo.
        entries: usize,
    },
    /// Undoing ended.
    RollbackEnded {
        /// What is still there, with how to undo it by hand. Empty: all undone.
        left: Vec<LeftOver>,
    },
    /// The run ended.
    RunEnded {
        /// How.
        outcome: RunOutcome,
        /// Why, unless it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        /// How long it took; in a plan, how long it would take at least.
        elapsed_ms: u64,
        /// In a plan, how much longer it is expected to take until its changes are in effect, as far as that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        estimate_ms: Option<u64>,
        /// How many targets were changed (in a plan: would be).
        changes: usize,
    },
}

/// Takes events as they happen. Called from the thread that caused the event; it must not block for long.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Envelope);
}

impl<F: Fn(&Envelope) + Send + Sync> Sink for F {
    fn event(&self, event: &Envelope) {
        self(event);
    }
}

/// Sends events of one run to all sinks.
///
/// **Invariant:** every text that leaves the run passes through here or through the journal, and both scrub secrets.
#[derive(Clone)]
pub struct Emitter {
    run: Arc<str>,
    sinks: Arc<[Arc<dyn Sink>]>,
    clock: Arc<dyn Clock>,
    vault: Arc<Vault>,
}

impl Emitter {
    /// An emitter for `run`.
    pub fn new(
        run: &str,
        sinks: impl Into<Arc<[Arc<dyn Sink>]>>,
        clock: Arc<dyn Clock>,
        vault: Arc<Vault>,
    ) -> Self {
        Self { run: run.into(), sinks: sinks.into(), clock, vault }
    }

    /// Whether nobody listens, so that costly events need not be built.
    pub fn is_silent(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Sends one event.
    pub fn emit(&self, event: Event) {
        if self.is_silent() {
            return;
        }
        let event = if self.vault.is_empty() { event } else { self.scrubbed(event) };
        let envelope = Envelope { v: SCHEMA_VERSION, run: self.run.to_string(), at: self.clock.now(), event };
        for sink in self.sinks.iter() {
            sink.event(&envelope);
        }
    }

    fn scrubbed(&self, event: Event) -> Event {
        // Scrubbing exchanges no word of the runtime's own, so what was an event still is one.
        let clean = serde_json::to_value(&event).and_then(|mut json| {
            scrub_fields(&mut json, &self.vault);
            serde_json::from_value(json)
        });
        clean.unwrap_or_else(|_| Event::Note {
            id: EffectId::default(),
            level: NoteLevel::Log,
            text: "an event is hidden: its secrets could not be removed".to_owned(),
            replayed: false,
        })
    }
}

impl Reporter for Emitter {
    fn progress(&self, id: &EffectId, done: u64, total: u64, message: String) {
        self.emit(Event::Progress { id: id.clone(), done, total, message });
    }

    fn output(&self, id: &EffectId, stream: Stream, line: &str) {
        self.emit(Event::Output { id: id.clone(), stream, line: line.to_owned() });
    }

    fn note(&self, id: &EffectId, text: String) {
        self.emit(Event::Note { id: id.clone(), level: NoteLevel::Note, text, replayed: false });
    }
}

/// What an effect has at hand outside any run, with somebody who listens to its events.
#[must_use]
pub fn heard_by(sink: Arc<dyn Sink>, on: &On) -> On {
    let surroundings = on.surroundings().clone();
    let emitter =
        Emitter::new("detached", [sink], Arc::clone(&surroundings.clock), Arc::clone(&surroundings.vault));
    On::outside(Surroundings { reporter: Arc::new(emitter), ..surroundings })
}

/// Fields of events, journal entries and plans that hold data of any form: no name in it means anything here.
pub(crate) const DATA: [&str; 7] = ["detail", "from", "memory", "params", "state", "to", "value"];

/// Scrubs the texts of an event or a journal entry. Its own fields keep their names, and those that hold one of a few words keep
/// the word: a secret may be the same by chance.
pub(crate) fn scrub_fields(json: &mut Value, vault: &Vault) {
    const WORDS: [&str; 14] = [
        "code",
        "effect",
        "event",
        "fingerprint",
        "for",
        "grade",
        "kind",
        "level",
        "mode",
        "outcome",
        "resolution",
        "result",
        "stream",
        "undo",
    ];
    match json {
        Value::Object(map) => map.iter_mut().for_each(|(field, value)| match &**field {
            field if DATA.contains(&field) => vault.scrub_json(value),
            word if value.is_string() && WORDS.contains(&word) => {}
            _ => scrub_fields(value, vault),
        }),
        Value::Array(items) => items.iter_mut().for_each(|item| scrub_fields(item, vault)),
        _ => vault.scrub_json(json),
    }
}
