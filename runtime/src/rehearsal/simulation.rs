//! What is outside of a rehearsed run: the states of targets, in memory. It outlives the process of the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

use crate::target::Target;

/// States by key, see [`super::initial_state::key`].
pub type States = BTreeMap<String, Value>;

/// A state that was set.
#[derive(Debug, Clone)]
pub(crate) struct StateChange {
    /// The effect that set it.
    pub(crate) id: EffectId,
    pub(crate) key: String,
    pub(crate) to: Value,
}

/// Everything that the run can change.
pub(crate) struct Simulation {
    state: Mutex<Simulated>,
}

#[derive(Default)]
pub(crate) struct Simulated {
    pub(crate) states: States,
    /// How targets stood before anything was done.
    pub(crate) first: States,
    /// Targets of which it is no longer known what they would answer.
    pub(crate) touched: BTreeSet<Target>,
    pub(crate) history: Vec<StateChange>,
    /// Ids of actions that were performed.
    pub(crate) performed: BTreeSet<EffectId>,
    /// Actions that were taken back.
    pub(crate) taken_back: BTreeSet<EffectId>,
    /// Ids of changes that have no way back.
    pub(crate) one_way: Vec<EffectId>,
    /// Ids of the points of no return that the script declares.
    pub(crate) no_return: Vec<EffectId>,
    /// How many moves there had been when each invariant was first made, by id.
    pub(crate) invariant_since: BTreeMap<EffectId, usize>,
}

impl Simulation {
    /// An outside of which that is known.
    pub(crate) fn new(given: &States) -> Self {
        let simulated = Simulated { states: given.clone(), first: given.clone(), ..Simulated::default() };
        Self { state: Mutex::new(simulated) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, Simulated> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulated {
    /// A target was looked at for the first time.
    pub(crate) fn found(&mut self, key: &str, state: &Value) {
        self.states.entry(key.to_owned()).or_insert_with(|| state.clone());
        self.first.entry(key.to_owned()).or_insert_with(|| state.clone());
    }

    /// A target was moved.
    pub(crate) fn set(&mut self, id: &EffectId, key: &str, to: &Value) {
        self.states.insert(key.to_owned(), to.clone());
        self.history.push(StateChange { id: id.clone(), key: key.to_owned(), to: to.clone() });
    }

    /// Shows `look` the states after each move, beginning with those before the first, each with what led to it, until it has an
    /// answer.
    pub(crate) fn review<T>(
        &self,
        mut look: impl FnMut(Option<&StateChange>, &States) -> Option<T>,
    ) -> Option<T> {
        // What was looked at only later stood there all the time.
        let mut states = self.first.clone();
        look(None, &states).or_else(|| {
            self.history.iter().find_map(|moment| {
                states.insert(moment.key.clone(), moment.to.clone());
                look(Some(moment), &states)
            })
        })
    }
}
