//! What ends a run, or keeps its script from going on.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

use super::lock;
use crate::{
    budget::Budget,
    error::{RunError, codes},
    stop::Stop,
};

/// How a run stands between its first line and its end.
pub(crate) struct Lifecycle {
    /// What stops the run from outside.
    pub(crate) stop: Stop,
    /// Asks the script to stop at the next safe point.
    pub(super) cancel: CancellationToken,
    /// What the script may use up.
    pub(super) budget: Budget,
    fatal: Mutex<Option<RunError>>,
    rolling_back: AtomicBool,
    /// The script only looks from now on: no effect may be performed.
    effects_forbidden: AtomicBool,
}

impl Lifecycle {
    pub(super) fn new(stop: &Stop, budget: Budget) -> Self {
        Self {
            // Its own, so that an error can stop all branches.
            cancel: stop.child(),
            stop: stop.clone(),
            budget,
            fatal: Mutex::default(),
            rolling_back: AtomicBool::default(),
            effects_forbidden: AtomicBool::default(),
        }
    }

    /// Remembers why the run ends; the first reason counts.
    pub(super) fn end_with(&self, error: RunError) {
        lock(&self.fatal).get_or_insert(error);
    }

    /// Why the run ends, if something has ended it.
    pub(crate) fn fatal(&self) -> Option<RunError> {
        lock(&self.fatal).clone()
    }

    /// The same, which then counts no longer.
    pub(super) fn take_fatal(&self) -> Option<RunError> {
        lock(&self.fatal).take()
    }

    /// Whether the run stops without coming to an end.
    pub(super) fn is_pausing(&self) -> bool {
        lock(&self.fatal).as_ref().is_some_and(|error| error.is_pause() || error.is(codes::LOST))
    }

    /// Undoing begins: neither what ended the run nor what it used up may keep it from being undone.
    pub(super) fn begin_rollback(&self) {
        self.rolling_back.store(true, Ordering::Relaxed);
        self.take_fatal();
        self.budget.renew();
    }

    pub(super) fn is_rolling_back(&self) -> bool {
        self.rolling_back.load(Ordering::Relaxed)
    }

    /// From now on the script only looks.
    pub(crate) fn forbid_effects(&self) {
        self.effects_forbidden.store(true, Ordering::Relaxed);
    }

    pub(super) fn forbids_effects(&self) -> bool {
        self.effects_forbidden.load(Ordering::Relaxed)
    }
}
