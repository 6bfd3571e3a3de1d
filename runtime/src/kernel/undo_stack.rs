//! What is to be undone, should the run fail.

use std::sync::{Arc, Mutex};

use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

use super::lock;
use crate::{
    effect::{AnyAction, AnyChange, Undo},
    event::LeftOver,
};

/// Everything that a run would undo.
#[derive(Default)]
pub(crate) struct UndoStack(Mutex<Vec<UndoEntry>>);

impl UndoStack {
    pub(super) fn push(&self, entry: UndoEntry) {
        lock(&self.0).push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Takes everything, what was done last at the end.
    pub(super) fn take(&self) -> Vec<UndoEntry> {
        let mut entries = std::mem::take(&mut *lock(&self.0));
        entries.sort_by_key(|entry| entry.seq);
        entries
    }

    /// Takes everything, as what stays, what was done last first.
    pub(super) fn take_left(&self, why: &str) -> Vec<LeftOver> {
        self.take().into_iter().rev().map(|entry| entry.left(why.to_owned())).collect()
    }
}

/// Something to undo.
pub(crate) struct UndoEntry {
    /// Its place in the journal: what was done last is undone first, whatever the order in which branches told of it.
    pub(crate) seq: u64,
    /// Id of what is undone.
    pub(crate) id: EffectId,
    /// How to undo it.
    pub(crate) doing: Undoing,
}

/// How to undo something.
pub(crate) enum Undoing {
    /// Apply the state that was there before.
    Change {
        change: Arc<dyn AnyChange>,
        input: String,
        from: Value,
        to: Value,
        undo: Undo,
        /// Whether the change failed, so that nobody knows how far it got.
        failed: bool,
        /// It may be half done in a way that the state of the target does not show.
        half_done: bool,
    },
    /// Let the action take itself back.
    Action {
        action: Arc<dyn AnyAction>,
        input: String,
        output: Value,
        /// Nobody knows whether it happened.
        doubtful: bool,
    },
    /// Call a closure of the script.
    Closure {
        /// Where the script gave it.
        what: String,
        /// Which one.
        closure: usize,
    },
    /// Nothing before it can be undone, and why.
    NoReturn(String),
}

impl UndoEntry {
    /// What it did, for people.
    fn what(&self) -> String {
        match &self.doing {
            Undoing::Change { change, from, to, .. } => {
                let (from, to) = (change.show(from), change.show(to));
                format!("{} {}: {from} -> {to}", change.effect(), change.target())
            }
            Undoing::Action { action, .. } => format!("{} {}", action.effect(), action.describe()),
            Undoing::Closure { what, .. } => what.clone(),
            Undoing::NoReturn(why) => format!("point of no return: {why}"),
        }
    }

    pub(super) fn left(&self, why: String) -> LeftOver {
        let by_hand = match &self.doing {
            Undoing::Change { change, half_done: true, .. } => {
                format!("look at what is done of it, and undo that by hand in {}", change.target())
            }
            Undoing::Change { change, undo: Undo::Impossible(_), .. } => {
                format!("it cannot be undone: decide what to do about {}", change.target())
            }
            Undoing::Change { change, from, .. } => {
                format!("set {} back to \"{}\"", change.target(), change.show(from))
            }
            Undoing::Action { action, .. } => format!("undo {}", action.describe()),
            Undoing::Closure { .. } => "do what this on_rollback closure does".to_owned(),
            Undoing::NoReturn(_) => "decide what to do about everything that was done before it".to_owned(),
        };
        let what = match &self.doing {
            // The reason is what was given for the point of no return.
            Undoing::NoReturn(reason) if *reason == why => "point of no return".to_owned(),
            _ => self.what(),
        };
        LeftOver { id: self.id.clone(), what, by_hand, why }
    }
}
