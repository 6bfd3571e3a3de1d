//! Where a rehearsed run can go wrong, and what it is told when it does.

use std::sync::atomic::{AtomicBool, Ordering};

use contraflow_provider::effect_id::EffectId;

use super::scenario::Fault;
use crate::{
    effect::{On, Verdict, VerdictName},
    error::codes,
    event::Kind,
    provider::ProviderError,
};

/// An effect that a rehearsed run came to, and how it can go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultPoint {
    pub(crate) id: EffectId,
    pub(crate) kind: Kind,
    pub(crate) effect: &'static str,
    /// What it is about.
    pub(crate) what: String,
    pub(crate) faults: Vec<Fault>,
    /// Whether a plan does not know what it would answer.
    pub(crate) open: bool,
}

/// A fault that has not struck yet, or has.
pub(super) struct Planned {
    pub(super) id: EffectId,
    pub(super) fault: Fault,
    pub(super) struck: AtomicBool,
}

impl Planned {
    /// One that has not struck.
    pub(super) fn new((id, fault): &(EffectId, Fault)) -> Self {
        Self { id: id.clone(), fault: fault.clone(), struck: AtomicBool::new(false) }
    }

    /// The same for the process that goes on after one died.
    pub(super) fn left(&self) -> Self {
        let struck = AtomicBool::new(self.struck.load(Ordering::Relaxed));
        Self { id: self.id.clone(), fault: self.fault.clone(), struck }
    }

    /// Whether it has struck and does not strike again. What keeps something from being undone stays: undoing is tried again.
    pub(super) fn is_over(&self) -> bool {
        let once = !self.id.is_rollback() || matches!(self.fault, Fault::LostAnswer | Fault::Killed);
        once && self.struck.load(Ordering::Relaxed)
    }
}

pub(super) fn refused(on: &On) -> ProviderError {
    ProviderError::terminal(codes::PROVIDER, format!("rehearsed: {} is refused", on.id()))
}

pub(super) fn unreachable(on: &On) -> ProviderError {
    ProviderError::terminal(codes::UNREACHABLE, format!("rehearsed: nothing answers {}", on.id()))
}

pub(super) fn lost(on: &On) -> ProviderError {
    ProviderError::terminal(codes::UNREACHABLE, format!("rehearsed: the answer to {} is lost", on.id()))
}

/// The error of the verdict of that name, or of the first.
pub(super) fn bad_end(on: &On, verdicts: Vec<Verdict>, name: Option<&VerdictName>) -> ProviderError {
    let mut meant = verdicts.into_iter().filter(|verdict| name.is_none_or(|name| verdict.name == *name));
    meant.next().map_or_else(|| refused(on), |verdict| verdict.error)
}
