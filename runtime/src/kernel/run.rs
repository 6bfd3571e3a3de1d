//! From the first line of a script to the outcome of the run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use rhai::{Dynamic, Engine, EvalAltResult, Scope};
use tokio_util::sync::CancellationToken;

use super::{Kernel, KernelTag, cursor, lock};
use crate::{
    error::{RunError, codes},
    event::{Event, LeftOver, Mode, NoteLevel, RunOutcome},
    journal::Entry,
    script::{Library, Loaded, ScriptLimits, build, innermost, is_exit},
};

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) outcome: RunOutcome,
    pub(crate) error: Option<RunError>,
    pub(crate) left: Vec<LeftOver>,
    pub(crate) changes: usize,
    pub(crate) elapsed_ms: u64,
}

impl Kernel {
    /// Runs the script on this thread, which must not be one that drives async work.
    pub(crate) fn execute(
        self: &Arc<Self>,
        library: &Library,
        limits: &ScriptLimits,
        loaded: &Loaded,
        params: Dynamic,
    ) -> Ended {
        let started = self.now();
        let engine = self.engine(library, limits, loaded);
        let mut scope = Scope::new();
        scope.push_constant_dynamic("params", params);
        let place = cursor::Cursor::new("", Vec::new(), self.cancel.clone());
        let (result, planned) = cursor::enter(place, || {
            let run = || engine.eval_ast_with_scope::<Dynamic>(&mut scope, &loaded.main);
            catch_unwind(AssertUnwindSafe(run)).map_err(|panic| self.panicked(&*panic))
        });
        let error = match result {
            Ok(Ok(_)) => lock(&self.state.fatal).take(),
            Ok(Err(error)) => self.why(&error),
            Err(error) => Some(error),
        };
        let (outcome, left) = match &error {
            None => (RunOutcome::Succeeded, Vec::new()),
            Some(error) => self.give_up(&engine, error),
        };
        let elapsed =
            if self.world.mode() == Mode::Plan { planned } else { self.now().saturating_sub(started) };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let changes = self.state.changes.load(Ordering::Relaxed);
        self.keep("run", &Entry::RunEnded { outcome, error: error.clone(), elapsed_ms });
        Ended { outcome, error, left, changes, elapsed_ms }
    }

    /// The interpreter with this run's hooks.
    fn engine(self: &Arc<Self>, library: &Library, limits: &ScriptLimits, loaded: &Loaded) -> Engine {
        let mut engine = build(library, limits, Arc::clone(&loaded.imports));
        engine.set_default_tag(Dynamic::from(KernelTag(Arc::clone(self))));
        let kernel = Arc::clone(self);
        engine.on_progress(move |_| kernel.progress());
        let kernel = Arc::clone(self);
        engine.on_print(move |text| kernel.note(NoteLevel::Log, text));
        let kernel = Arc::clone(self);
        engine.on_debug(move |text, _, _| kernel.note(NoteLevel::Log, text));
        engine
    }

    /// Why a script ended early.
    fn why(&self, error: &EvalAltResult) -> Option<RunError> {
        if let Some(fatal) = lock(&self.state.fatal).take() {
            return Some(fatal);
        }
        if is_exit(error) {
            return None;
        }
        let key = innermost(error).to_string();
        let mut error = self.explain(error);
        if error.frames.len() <= 1
            && let Some((_, steps)) = lock(&self.state.trace).iter_mut().find(|(of, _)| *of == key)
        {
            error.frames.append(steps);
        }
        self.scrub(&mut error);
        Some(error)
    }

    /// Undoes what was done, if that is what this error and this world ask for.
    fn give_up(&self, engine: &Engine, error: &RunError) -> (RunOutcome, Vec<LeftOver>) {
        let aborted = self.abort.is_cancelled();
        if self.world.mode() == Mode::Plan || error.is(codes::DIVERGED) || lock(&self.state.undo).is_empty() {
            let stopped = error.is(codes::CANCELLED);
            return (if stopped { RunOutcome::Aborted } else { RunOutcome::Failed }, Vec::new());
        }
        if aborted {
            let why = "the run was stopped before it could be undone";
            let left = std::mem::take(&mut *lock(&self.state.undo))
                .into_iter()
                .rev()
                .map(|entry| entry.left(why.to_owned()));
            return (RunOutcome::RollbackIncomplete, left.collect());
        }
        // Undoing is not stopped by what stopped the run.
        let place = cursor::Cursor::new("rollback", Vec::new(), CancellationToken::new());
        let undo = || catch_unwind(AssertUnwindSafe(|| self.rollback(engine, error)));
        match cursor::enter(place, undo).0 {
            Ok(left) if left.is_empty() => (RunOutcome::RolledBack, left),
            Ok(left) => (RunOutcome::RollbackIncomplete, left),
            Err(panic) => {
                let why = self.panicked(&*panic).message;
                let left = LeftOver {
                    id: "rollback".into(),
                    what: "the rollback itself".into(),
                    by_hand: format!("look at what was done with `cutover show {}`", self.run),
                    why,
                };
                (RunOutcome::RollbackIncomplete, vec![left])
            }
        }
    }

    /// How a run ended whose thread did not come to its end.
    pub(crate) fn died(&self) -> Ended {
        let changes = self.state.changes.load(Ordering::Relaxed);
        Ended {
            outcome: if changes > 0 { RunOutcome::RollbackIncomplete } else { RunOutcome::Failed },
            error: Some(RunError::new(codes::INTERNAL, "the script's thread could not run to its end")),
            left: Vec::new(),
            changes,
            elapsed_ms: 0,
        }
    }

    fn panicked(&self, panic: &(dyn std::any::Any + Send)) -> RunError {
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
            changes: ended.changes,
        });
    }
}

/// The error for a panic.
pub(super) fn defect(panic: &(dyn std::any::Any + Send)) -> RunError {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    RunError::new(codes::INTERNAL, format!("a defect in Cutover or in a primitive: {what}"))
        .hint("what was done so far is in the journal")
}
