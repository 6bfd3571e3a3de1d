//! From the first line of a script to the outcome of the run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use tokio_util::sync::CancellationToken;

use super::{Kernel, UndoClosures, cursor};
use crate::{
    error::{RunError, codes},
    event::{Event, LeftOver, RunOutcome},
    executor::defect,
    journal::Entry,
};

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) outcome: RunOutcome,
    pub(crate) error: Option<RunError>,
    pub(crate) left: Vec<LeftOver>,
    pub(crate) changes: usize,
    pub(crate) elapsed_ms: u64,
    pub(crate) estimate_ms: Option<u64>,
}

impl Kernel {
    /// Runs the script on this thread, which must not be one that drives async work. `script` answers why it ended, unless it came to its
    /// end.
    pub(crate) fn execute(
        &self,
        script: impl FnOnce() -> Option<RunError>,
        closures: &dyn UndoClosures,
    ) -> Ended {
        let started = self.now();
        let place = cursor::Cursor::new(EffectId::default(), Vec::new(), self.life.cancel.clone());
        let (error, planned) = cursor::enter(place, script);
        let late = || self.life.budget.would_be_late(planned.least).filter(|_| self.sums_up_time());
        let error = error.or_else(|| self.earlier.unasked()).or_else(late);
        let (outcome, left, error) = match error {
            None => (RunOutcome::Succeeded, Vec::new(), None),
            Some(error) => self.give_up(closures, error),
        };
        let elapsed = if self.sums_up_time() { planned.least } else { self.now().saturating_sub(started) };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let elapsed_ms = millis(elapsed);
        let estimate_ms = Some(millis(planned.estimated())).filter(|ms| *ms > 0);
        let changes = self.changes.load(Ordering::Relaxed);
        match (&error, outcome) {
            // Whoever has the run now writes how it goes on.
            (Some(error), _) if error.is(codes::LOST) => {}
            (Some(error), RunOutcome::Paused) => {
                self.keep(&EffectId::of_run(), &Entry::Paused { error: error.clone() });
            }
            _ => {
                self.keep(
                    &EffectId::of_run(),
                    &Entry::RunEnded { outcome, error: error.clone(), elapsed_ms },
                );
            }
        }
        Ended { outcome, error, left, changes, elapsed_ms, estimate_ms }
    }

    /// What becomes of a run that did not succeed: undone, paused, or ended as it stands.
    fn give_up(
        &self,
        closures: &dyn UndoClosures,
        error: RunError,
    ) -> (RunOutcome, Vec<LeftOver>, Option<RunError>) {
        let nothing = self.undo.is_empty();
        if !self.world.undoes() || self.earlier.replay_only && error.is_pause() {
            let stopped = error.is(codes::CANCELLED);
            let outcome = if stopped { RunOutcome::Aborted } else { RunOutcome::Failed };
            return (outcome, Vec::new(), Some(error));
        }
        if error.is(codes::LOST) {
            return (RunOutcome::Aborted, Vec::new(), Some(error));
        }
        // Without a journal there is nothing that could go on.
        if error.is_pause() && self.journal.is_kept() {
            return (RunOutcome::Paused, Vec::new(), Some(error));
        }
        let ended_by_a_person = error.is(codes::ABORTED) || self.life.stop.is_aborted();
        let told = if ended_by_a_person { Ok(error) } else { self.earlier.cut_short(error) };
        let error = match told {
            Ok(error) => error,
            Err(diverged) => return (RunOutcome::Paused, Vec::new(), Some(diverged)),
        };
        if error.is(codes::ABORTED) {
            return (RunOutcome::Aborted, self.undo.take_left("a person ended the run"), Some(error));
        }
        if nothing && self.earlier.only_undo.is_some() {
            // Whoever asked for it to be undone has what they wanted.
            return (RunOutcome::RolledBack, Vec::new(), Some(error));
        }
        if nothing {
            let stopped = error.is(codes::CANCELLED);
            let outcome = if stopped { RunOutcome::Aborted } else { RunOutcome::Failed };
            return (outcome, Vec::new(), Some(error));
        }
        if self.life.stop.is_aborted() {
            let left = self.undo.take_left("the run was stopped before it could be rolled back");
            return (RunOutcome::RollbackIncomplete, left, Some(error));
        }
        let (outcome, left) = self.undo_all(closures, &error);
        // What came in the way of undoing is what has to be told.
        match self.life.take_fatal() {
            Some(over) if over.is(codes::LOST) => (RunOutcome::Aborted, Vec::new(), Some(over)),
            Some(over) if over.is_pause() && self.journal.is_kept() => (RunOutcome::Paused, left, Some(over)),
            _ => (outcome, left, Some(error)),
        }
    }

    fn undo_all(&self, closures: &dyn UndoClosures, error: &RunError) -> (RunOutcome, Vec<LeftOver>) {
        // Undoing is not stopped by what stopped the run.
        let place = cursor::Cursor::new(EffectId::of_rollback(), Vec::new(), CancellationToken::new());
        let undo = || catch_unwind(AssertUnwindSafe(|| self.rollback(closures, error)));
        match cursor::enter(place, undo).0 {
            Ok(left) if left.is_empty() => (RunOutcome::RolledBack, left),
            Ok(left) => (RunOutcome::RollbackIncomplete, left),
            Err(panic) => {
                let why = self.panicked(&*panic).message;
                let left = LeftOver {
                    id: EffectId::of_rollback(),
                    what: "the rollback itself".into(),
                    by_hand: "see what the run has done".into(),
                    why,
                };
                (RunOutcome::RollbackIncomplete, vec![left])
            }
        }
    }

    /// How a run ended whose thread did not come to its end.
    pub(crate) fn died(&self) -> Ended {
        let changes = self.changes.load(Ordering::Relaxed);
        Ended {
            outcome: if changes > 0 { RunOutcome::RollbackIncomplete } else { RunOutcome::Failed },
            error: Some(RunError::new(codes::INTERNAL, "the script's thread stopped unexpectedly")),
            left: Vec::new(),
            changes,
            elapsed_ms: 0,
            estimate_ms: None,
        }
    }

    pub(crate) fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> RunError {
        let mut error = defect(panic);
        self.scrub(&mut error);
        error
    }

    /// Tells how the run ended, once the journal is complete.
    pub(crate) fn tell_end(&self, ended: &Ended) {
        self.emit(Event::RunEnded {
            outcome: ended.outcome,
            error: ended.error.clone(),
            elapsed_ms: ended.elapsed_ms,
            estimate_ms: ended.estimate_ms,
            changes: ended.changes,
        });
    }
}
