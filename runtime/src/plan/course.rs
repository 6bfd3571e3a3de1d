//! How a plan went, line by line: what those read who approve it.
//!
//! **Invariant:** it tells of exactly the changes, actions, questions and points of no return that the plan binds, so that nobody
//! approves one thing and lets another be done.

use serde::{Deserialize, Serialize};

use super::Foreseen;
use crate::{
    event::{EffectResult, Envelope, Event, Kind, WaitsFor},
    vocabulary::Undo,
};

/// What happened while a plan was made, in order. Empty: it was saved by a program that did not keep it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Course(Vec<Envelope>);

impl Course {
    /// The events, in order.
    pub fn events(&self) -> &[Envelope] {
        &self.0
    }

    /// Whether it was not kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, envelope: &Envelope) {
        // How far something is, and what is only said while it goes on, is of no use later.
        let passing = matches!(
            envelope.event,
            Event::Progress { .. } | Event::Output { .. } | Event::Retrying { .. } | Event::Applying { .. }
        );
        if !passing {
            self.0.push(envelope.clone());
        }
    }

    /// Whether it tells of what is foreseen, of all of it and of nothing else.
    pub(super) fn agrees_with(&self, foreseen: &Foreseen) -> bool {
        let mut told: Vec<String> = self.0.iter().filter_map(|envelope| told(&envelope.event)).collect();
        let mut bound: Vec<String> = bound(foreseen).collect();
        told.sort_unstable();
        bound.sort_unstable();
        told == bound
    }
}

/// One line of a plan that binds, in a form that can be compared.
fn told(event: &Event) -> Option<String> {
    match event {
        Event::EffectEnded { id, kind, effect, target, waits_for, grade, result, .. } => match (kind, result)
        {
            (Kind::Change, EffectResult::Changed { from_text, to_text, undo, .. }) => {
                Some(line(("change", id, effect, target.as_ref()?, from_text, to_text, grade, undo)))
            }
            (Kind::Change, EffectResult::Unchanged { text, .. }) => {
                Some(line(("change", id, effect, target.as_ref()?, text, text, grade, Undo::Possible)))
            }
            (Kind::Action, EffectResult::Performed { text }) => Some(line(("action", id, effect, text))),
            (Kind::Wait, EffectResult::Answered { .. }) if *waits_for == Some(WaitsFor::People) => {
                Some(line(("question", id)))
            }
            _ => None,
        },
        Event::NoReturn { id, why, .. } => Some(line(("no return", id, why))),
        _ => None,
    }
}

fn bound(foreseen: &Foreseen) -> impl Iterator<Item = String> {
    let changes = foreseen
        .changes
        .iter()
        .map(|c| line(("change", &c.id, &c.effect, &c.target, &c.from_text, &c.to_text, &c.grade, &c.undo)));
    let actions = foreseen.actions.iter().map(|a| line(("action", &a.id, &a.effect, &a.text)));
    let questions = foreseen.questions.iter().map(|q| line(("question", &q.id)));
    // Those of changes are part of the changes.
    let marks = foreseen.no_return.iter().filter(|mark| foreseen.changes.iter().all(|c| c.id != mark.id));
    let marks = marks.map(|mark| line(("no return", &mark.id, &mark.why)));
    changes.chain(actions).chain(questions).chain(marks)
}

fn line(parts: impl Serialize) -> String {
    serde_json::to_string(&parts).unwrap_or_default()
}
