//! The targets of a run: those that it has for itself, and whose turn it is at each.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use super::lock;
use crate::target::Target;

/// What a run knows about targets that it moves.
#[derive(Default)]
pub(super) struct Targets {
    /// Those that no other run moves meanwhile.
    taken: Mutex<HashSet<Target>>,
    turns: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<()>>>>,
}

impl Targets {
    pub(super) fn is_taken(&self, target: &Target) -> bool {
        lock(&self.taken).contains(target)
    }

    pub(super) fn taken(&self, target: &Target) {
        lock(&self.taken).insert(target.clone());
    }

    /// The lock that orders effects on one target within this run.
    pub(super) fn turn(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.turns).entry(target.clone()).or_default())
    }
}
