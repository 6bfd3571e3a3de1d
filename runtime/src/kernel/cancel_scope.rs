//! Cancellation scopes, the parts of a script that can be stopped on their own: what a guard watches, a step with a deadline, the branches of a `parallel`.
//!
//! **Invariant:** what stops a scope is in the journal under its id. On replay the scope stops at the first effect that has
//! no outcome there, so it comes to the same end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use tokio_util::sync::CancellationToken;

use super::{Kernel, cursor, lock};
use crate::{
    error::{RunError, codes},
    event::Event,
    journal::{Entry, replay::Mark},
};

/// One cancellation scope.
pub(crate) struct CancelScope {
    pub(crate) id: EffectId,
    pub(crate) cancel: CancellationToken,
    /// It has taken too long: what is under way in it has to end itself.
    late: AtomicBool,
    state: Mutex<ScopeState>,
}

#[derive(Default)]
struct ScopeState {
    /// Its body has ended: it can no longer be stopped.
    closed: bool,
    stopped: Option<RunError>,
    /// It is to be stopped as soon as the journal has been answered.
    due: Option<RunError>,
}

impl CancelScope {
    /// Why it was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<RunError> {
        lock(&self.state).stopped.clone()
    }

    /// It has taken too long.
    pub(super) fn is_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }
}

impl Kernel {
    /// Runs `body` in a cancellation scope, which [`Kernel::stop_scope`] can stop. `body` answers also whether it has come to its end
    /// by itself.
    ///
    /// # Errors
    /// What stopped the scope, where nothing around it was stopped as well.
    pub(crate) fn within<T>(
        &self,
        id: &EffectId,
        body: impl FnOnce(&Arc<CancelScope>) -> (T, bool),
    ) -> Result<T, RunError> {
        let around = cursor::cancel();
        let scope = Arc::new(CancelScope {
            id: id.clone(),
            cancel: around.child_token(),
            late: AtomicBool::default(),
            state: Mutex::default(),
        });
        cursor::enter_scope(&scope);
        let (result, ended) = body(&scope);
        cursor::leave_scope(around);
        let stopped = {
            let mut state = lock(&scope.state);
            state.closed = true;
            state.stopped.clone()
        };
        let stopped = match stopped {
            Some(error) => Some(error),
            None => self.ended_scope(&scope, ended)?,
        };
        match stopped {
            // What stops more than this scope counts more.
            Some(error) if self.stop_around().is_none() => Err(error),
            _ => Ok(result),
        }
    }

    /// Whether the journal says that a scope was stopped which has come to its end by itself.
    fn ended_scope(&self, scope: &CancelScope, ended: bool) -> Result<Option<RunError>, RunError> {
        if !self.earlier.replay.is_empty() {
            if self.earlier.replay.take_mark(&scope.id, Mark::Passed)?.is_some() {
                return Ok(None);
            }
            if let Some(error) = self.earlier.replay.stopped(&scope.id)? {
                return Ok(Some(error));
            }
        }
        let due = lock(&scope.state).due.clone();
        if let Some(error) = due {
            self.record_stop(&mut lock(&scope.state), scope, error.clone());
            return Ok(Some(error));
        }
        if ended {
            self.keep(&scope.id, &Entry::ScopeEnded {});
        }
        Ok(None)
    }

    /// Stops a scope. `false`: it has ended or was stopped already.
    pub(crate) fn stop_scope(&self, scope: &CancelScope, error: RunError) -> bool {
        let mut state = lock(&scope.state);
        if state.closed || state.stopped.is_some() {
            return false;
        }
        if self.earlier.replay_only || !self.earlier.replay.is_answered() {
            // Other branches are still being answered from the journal; they have to get as far as they got.
            state.due.get_or_insert(error);
            return false;
        }
        self.record_stop(&mut state, scope, error);
        true
    }

    /// Within the lock, so that the journal has it before the scope can end.
    fn record_stop(&self, state: &mut ScopeState, scope: &CancelScope, error: RunError) {
        if state.stopped.is_none() {
            if !self.earlier.replay_only {
                let entry = Entry::ScopeStopped { error: error.clone() };
                self.journal.add(self.shared.clock.now(), &scope.id, &entry);
                // Told before it takes effect, so that what follows from it is told later.
                self.emit(Event::ScopeStopped { id: scope.id.clone(), error: error.clone() });
            }
            state.stopped = Some(error);
        }
        scope.cancel.cancel();
    }

    /// Stops a scope that is due, once the journal has been answered.
    pub(super) async fn stop_when_due(&self, scope: &CancelScope) {
        while !self.earlier.replay.is_answered() {
            if lock(&scope.state).closed {
                return;
            }
            self.shared.clock.sleep(Duration::from_millis(5)).await;
        }
        let mut state = lock(&scope.state);
        let due = state.due.clone();
        if let Some(error) = due.filter(|_| !state.closed) {
            self.record_stop(&mut state, scope, error);
        }
    }

    /// The error inside the outermost scope around this place that was stopped.
    /// Whether a part of the script around here was stopped because it took too long.
    pub(super) fn is_late(&self) -> bool {
        cursor::cancel_scopes()
            .iter()
            .any(|scope| scope.late.load(Ordering::Relaxed) && scope.stopped().is_some())
    }

    pub(super) fn stop_around(&self) -> Option<RunError> {
        cursor::cancel_scopes().iter().find_map(|scope| scope.stopped()).map(|error| inside(&error))
    }

    /// Why nothing new may begin here, as far as the journal says so: undoing had begun, it is what this runner is there for, or
    /// the scope had been stopped.
    pub(super) fn may_begin(&self) -> Result<(), RunError> {
        if self.life.is_rolling_back() {
            return Ok(());
        }
        if !self.earlier.replay.is_empty() || self.earlier.only_undo.is_some() {
            self.frontier()?;
        }
        self.earlier.go_live(&self.life.budget)?;
        if let Some(error) = self.life.fatal() {
            // What a run that only pauses has begun stays open, whichever branch paused it.
            return Err(if self.is_over(&error) { error } else { inside(&error) });
        }
        if cursor::is_cancelled() || self.life.stop.is_aborted() {
            return Err(self.why_stopped());
        }
        Ok(())
    }

    /// What the journal says about it, once it has been read to its end.
    fn frontier(&self) -> Result<(), RunError> {
        let aborted = if self.earlier.replay_only { self.earlier.replay.aborted()? } else { None };
        let undoing = self.earlier.undoing()?;
        if let Some(error) = undoing.or(aborted) {
            let told = inside(&error);
            self.end_with(error);
            return Err(told);
        }
        self.earlier.accept_new_script(&self.life.stop)?;
        for scope in cursor::cancel_scopes() {
            // Only this place stops: other branches may still be answered from the journal.
            let due = lock(&scope.state).due.clone();
            if let Some(error) = self.earlier.replay.stopped(&scope.id)?.or(due) {
                return Err(inside(&error));
            }
        }
        Ok(())
    }
}

/// What the effects within a scope are told that was stopped with that error.
fn inside(error: &RunError) -> RunError {
    RunError::new(codes::STOPPED, error.message.clone())
}
