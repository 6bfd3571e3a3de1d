//! A script from its first line to its last, and its closures on the way back.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use rhai::{Dynamic, Engine, EvalAltResult, Scope};

use super::{
    super::{Loaded, error::innermost},
    Closure, Session, SessionTag, lock, terminated,
};
use crate::{
    error::{RunError, codes},
    kernel::{Ended, UndoClosures},
    vocabulary::NoteLevel,
};

/// A session with its interpreter.
struct Running<'e> {
    session: &'e Session,
    engine: &'e Engine,
}

impl UndoClosures for Running<'_> {
    fn call(&self, closure: usize) -> Result<(), RunError> {
        let Self { session, engine } = self;
        // It is called once: half of what it does may have been done.
        let kept = lock(&session.closures).get_mut(closure).and_then(Option::take);
        let Some(Closure { body, context }) = kept else {
            return Err(RunError::new(codes::INTERNAL, "a closure of on_rollback is no longer there"));
        };
        #[expect(deprecated, reason = "see `Closure::context`")]
        let cx = context.create_context(engine);
        match session.guarded(&cx, || body.call_within_context::<Dynamic>(&cx, ())) {
            Ok(_) => Ok(()),
            Err(error) => Err(session.explain(&error)),
        }
    }
}

impl Session {
    /// Runs the script on this thread, which must not be one that drives async work.
    pub(crate) fn execute(self: &Arc<Self>, engine: &mut Engine, loaded: &Loaded, params: Dynamic) -> Ended {
        self.hook(engine);
        let engine = &*engine;
        let script = || {
            let mut scope = Scope::new();
            scope.push_constant_dynamic("params", params);
            let run = || engine.eval_ast_with_scope::<Dynamic>(&mut scope, &loaded.main);
            match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(_)) => self.kernel.life.fatal(),
                Ok(Err(error)) => self.why(&error),
                Err(panic) => Some(self.kernel.panicked(&*panic)),
            }
        };
        self.kernel.execute(script, &Running { session: self, engine })
    }

    /// Makes an interpreter that of this run.
    fn hook(self: &Arc<Self>, engine: &mut Engine) {
        engine.set_default_tag(Dynamic::from(SessionTag(Arc::clone(self))));
        let kernel = Arc::clone(&self.kernel);
        engine.on_progress(move |_| kernel.must_end().then(terminated));
        let kernel = Arc::clone(&self.kernel);
        engine.on_print(move |text| kernel.note(NoteLevel::Log, text));
        let kernel = Arc::clone(&self.kernel);
        engine.on_debug(move |text, _, _| kernel.note(NoteLevel::Log, text));
    }

    /// Why a script ended early.
    fn why(&self, error: &EvalAltResult) -> Option<RunError> {
        if let Some(mut fatal) = self.kernel.life.fatal() {
            // Limits are found between two lines; other reasons have a place, or none in the script.
            if fatal.is(codes::LIMIT)
                && fatal.frames.first().is_none_or(|frame| frame.what.starts_with("step "))
            {
                fatal.frames.splice(..0, self.ended_at(error));
            }
            return Some(fatal);
        }
        let key = innermost(error).to_string();
        let mut error = self.explain(error);
        if error.frames.len() <= 1
            && let Some((_, steps)) = lock(&self.trace).iter_mut().find(|(of, _)| *of == key)
        {
            error.frames.append(steps);
        }
        self.kernel.scrub(&mut error);
        Some(error)
    }
}
