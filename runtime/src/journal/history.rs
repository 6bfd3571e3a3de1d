//! A run told again from its records, as the events that reporters know.

use std::time::Duration;

use super::{
    record::{Entry, Outcome, Record},
    run::Run,
};
use crate::event::{EffectResult, Envelope, Event, Grade, Kind, Mode, RunOutcome, SCHEMA_VERSION};

/// Takes from an outcome what listeners are told, and leaves its value where it is.
impl From<&Outcome> for EffectResult {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Changed { from, to, from_text, to_text, undo } => Self::Changed {
                from: from.clone(),
                to: to.clone(),
                from_text: from_text.clone(),
                to_text: to_text.clone(),
                undo: undo.clone(),
                note: None,
                estimate: None,
            },
            Outcome::Unchanged { state, text } => {
                Self::Unchanged { state: state.clone(), text: text.clone() }
            }
            Outcome::Performed { text, .. } => Self::Performed { text: text.clone() },
            Outcome::Answered { text, .. } => Self::Answered { text: text.clone() },
            Outcome::Failed { error, .. } => Self::Failed { error: error.clone() },
        }
    }
}

/// The events of a run, from its records.
pub fn history(run: &Run, records: &[Record]) -> Vec<Envelope> {
    let envelope = |at, event| Envelope { v: SCHEMA_VERSION, run: run.id.clone(), at, event };
    let begin = Event::RunStarted {
        runbook: run.runbook.clone(),
        version: run.version.clone(),
        environment: run.environment.clone(),
        mode: Mode::Live,
        params: run.params.clone(),
        plan: run.plan.clone(),
    };
    let moved = |record: &&Record| {
        let outside = !record.id.is_rollback();
        outside
            && matches!(
                &record.entry,
                Entry::Outcome {
                    kind: Kind::Change,
                    result: Outcome::Changed { .. } | Outcome::Failed { possibly_applied: Some(_), .. },
                    ..
                }
            )
    };
    let changes = records.iter().filter(moved).count();
    let mut events = vec![envelope(run.started_at, begin)];
    // Since when the runner that wrote a record has worked on the run.
    let mut since = run.started_at;
    for record in records {
        if matches!(record.entry, Entry::Resumed { .. }) {
            since = record.at;
        }
        // A clock may have been set back.
        let worked = Duration::try_from(record.at.duration_since(since)).unwrap_or_default();
        events.extend(event(record, changes, worked).map(|event| envelope(record.at, event)));
    }
    events
}

/// `None`: nothing that people are told of. `worked`: for how long the runner that wrote it had worked on the run.
fn event(record: &Record, changes: usize, worked: Duration) -> Option<Event> {
    let id = record.id.clone();
    Some(match record.entry.clone() {
        Entry::Intent { kind, effect, target, text, waits_for, .. } => {
            Event::EffectStarted { id, kind, effect, target, text, waits_for }
        }
        Entry::Outcome { kind, effect, target, about, attempts, elapsed_ms, result, .. } => {
            Event::EffectEnded {
                id,
                kind,
                effect,
                target,
                about,
                waits_for: None,
                grade: Grade::Observed,
                attempts,
                elapsed_ms,
                replayed: false,
                result: EffectResult::from(&result),
            }
        }
        Entry::StepStarted { name } => Event::StepStarted { id, name, replayed: false },
        Entry::StepEnded { name, ok, elapsed_ms } => {
            Event::StepEnded { id, name, ok, elapsed_ms, replayed: false }
        }
        Entry::Replied { reply } => Event::Replied { id, reply },
        Entry::Note { level, text } => Event::Note { id, level, text, replayed: false },
        Entry::RollbackStarted { error, entries } => Event::RollbackStarted { error, entries },
        Entry::RollbackEnded { left } => Event::RollbackEnded { left },
        Entry::RunEnded { outcome, error, elapsed_ms } => {
            Event::RunEnded { outcome, error, elapsed_ms, estimate_ms: None, changes }
        }
        Entry::Paused { error } => Event::RunEnded {
            outcome: RunOutcome::Paused,
            error: Some(error),
            elapsed_ms: u64::try_from(worked.as_millis()).unwrap_or(u64::MAX),
            estimate_ms: None,
            changes,
        },
        Entry::Resumed { by, epoch, rollback } => Event::Resumed { by, epoch, rollback },
        Entry::DoubtResolved { resolution, text } => Event::DoubtResolved { id, resolution, text },
        Entry::NoReturn { why } => Event::NoReturn { id, why, replayed: false },
        Entry::GuardStarted { watching } => Event::GuardStarted { id, watching, replayed: false },
        Entry::ScopeStopped { error } => Event::ScopeStopped { id, error },
        Entry::UndoRegistered { .. } | Entry::ScopeEnded {} | Entry::Checkpoint { .. } => return None,
    })
}
