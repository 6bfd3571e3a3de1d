//! A script that is being run: between the interpreter, which knows no effects, and the kernel, which knows no script.

mod effects;
mod invariant;
mod place;
mod run;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use rhai::{Dynamic, EvalAltResult, FnPtr, NativeCallContext};

pub(crate) use self::invariant::{Holds, ScriptInvariant};
use super::{
    ScriptError, ScriptResult,
    conditions::Places,
    error::{innermost, thrown},
};
use crate::{
    bundle::Bundle,
    effect::AnyWait,
    error::{Frame, RunError, codes},
    executor::defect,
    journal::{Entry, replay::Mark},
    kernel::{CancelScope, Kernel, Undoing, cursor},
    lock::lock,
};

/// One script on its way, with what only the interpreter can keep.
pub(crate) struct Session {
    pub(crate) kernel: Arc<Kernel>,
    bundle: Arc<Bundle>,
    places: Arc<Places>,
    /// What `on_rollback` was given, by the number that the undo stack knows it by.
    closures: Mutex<Vec<Option<Closure>>>,
    /// What the runbook says must hold, in a rehearsal.
    invariants: Mutex<Vec<ScriptInvariant>>,
    /// Steps that were open when an error of Rhai's own came by, innermost first, with the error.
    trace: Mutex<Vec<(String, Vec<Frame>)>>,
}

/// A closure of the script that is called later.
pub(crate) struct Closure {
    pub(crate) body: FnPtr,
    #[expect(
        deprecated,
        reason = "the only way to keep a call's context for later; volatile, not deprecated"
    )]
    pub(crate) context: Box<rhai::NativeCallContextStore>,
}

impl Closure {
    /// Keeps a closure with the call that it was passed to.
    #[expect(deprecated, reason = "see `Closure::context`")]
    pub(crate) fn new(cx: &NativeCallContext<'_>, body: FnPtr) -> Self {
        Self { body, context: Box::new(cx.store_data()) }
    }
}

/// How a script's native functions find the session they belong to.
#[derive(Clone)]
struct SessionTag(Arc<Session>);

/// The token with which a script is ended; the kernel keeps the reason.
fn terminated() -> Dynamic {
    Dynamic::UNIT
}

impl Session {
    pub(crate) fn new(kernel: Arc<Kernel>, bundle: Arc<Bundle>, places: Arc<Places>) -> Self {
        let (closures, invariants, trace) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { kernel, bundle, places, closures, invariants, trace }
    }

    /// The session that a native function is called in.
    ///
    /// # Errors
    /// The script is evaluated outside of any run.
    pub(crate) fn of(cx: &NativeCallContext<'_>) -> ScriptResult<Arc<Self>> {
        cx.tag()
            .and_then(|tag| tag.read_lock::<SessionTag>().map(|tag| Arc::clone(&tag.0)))
            .ok_or_else(|| "effects can only be performed within a run".into())
    }

    /// Runs `body` as the step `name`, for at most `timeout`.
    pub(crate) fn step(
        &self,
        cx: &NativeCallContext<'_>,
        name: &str,
        timeout: Option<Duration>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        // Ids are made of it, and they are kept as they are.
        let name = &*self.kernel.scrubbed_text(name);
        let frame = || Frame { what: format!("step \"{name}\""), ..self.frame(cx) };
        let step = self.kernel.begin_step(name, frame).map_err(|error| self.throw(cx, error))?;
        let result = match timeout {
            Some(span) => self.limited(cx, &step.id, &format!("step \"{name}\""), span, step.begun, body),
            None => self.guarded(cx, body),
        };
        if let Err(error) = &result
            && thrown(error).is_none()
        {
            self.remember_steps(innermost(error).to_string());
        }
        self.kernel.end_step(step, name, result.is_ok());
        result
    }

    /// Runs `body` while each of `watches` is polled. One that ends, or fails, stops the body with its error.
    pub(crate) fn guard(
        &self,
        cx: &NativeCallContext<'_>,
        watches: Vec<Arc<dyn AnyWait>>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        let id = self.kernel.begin_guard(&watches).map_err(|error| self.throw(cx, error))?;
        cursor::open_part(&id);
        let result = self.within(cx, &id, |scope| {
            let _watching =
                self.kernel.watch_over(scope, &id, watches).map_err(|error| self.throw(cx, error))?;
            body()
        });
        cursor::close_part();
        result
    }

    /// Runs `body` for at most `span`, not counting the time when nobody worked on the run.
    fn limited(
        &self,
        cx: &NativeCallContext<'_>,
        id: &EffectId,
        what: &str,
        span: Duration,
        begun: Option<Duration>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        if self.kernel.sums_up_time() {
            let before = cursor::planned();
            let value = self.guarded(cx, body)?;
            let least = cursor::planned().saturating_sub(before);
            return match self.kernel.too_long(what, least, span) {
                None => Ok(value),
                Some(error) => Err(self.throw(cx, error)),
            };
        }
        self.within(cx, id, |scope| {
            let _timer = self.kernel.limit_time(scope, what, span, begun);
            body()
        })
    }

    /// Runs `body` in a cancellation scope. If that is stopped, its error is thrown here, where the script may catch it; within the
    /// scope it cannot.
    pub(crate) fn within(
        &self,
        cx: &NativeCallContext<'_>,
        id: &EffectId,
        body: impl FnOnce(&Arc<CancelScope>) -> ScriptResult,
    ) -> ScriptResult {
        let result = self.kernel.within(id, |scope| {
            let result = self.guarded(cx, || body(scope));
            let ended = match &result {
                Ok(_) => true,
                Err(error) => !matches!(innermost(error), EvalAltResult::ErrorTerminated(..)),
            };
            (result, ended)
        });
        result.unwrap_or_else(|error| Err(self.throw(cx, error)))
    }

    /// Calls into the script. A panic in there ends the run, in order.
    pub(crate) fn guarded(
        &self,
        cx: &NativeCallContext<'_>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(self.stop(cx, defect(&*panic))))
    }

    /// Registers how the script undoes something in its own way.
    pub(crate) fn on_rollback(
        &self,
        cx: &NativeCallContext<'_>,
        body: FnPtr,
        what: String,
    ) -> ScriptResult<()> {
        let id = cursor::next("on_rollback");
        let closure = {
            let mut closures = lock(&self.closures);
            closures.push(Some(Closure::new(cx, body)));
            closures.len() - 1
        };
        let entry = Entry::UndoRegistered { place: what.clone() };
        let registered =
            self.kernel.register(Mark::Registered, &entry, id, Undoing::Closure { what, closure });
        registered.map_err(|error| self.throw(cx, error))
    }

    /// Says that nothing before this place can be undone.
    pub(crate) fn point_of_no_return(&self, cx: &NativeCallContext<'_>, why: &str) -> ScriptResult<()> {
        let id = cursor::next("point_of_no_return");
        let registered = self.kernel.no_return(id, why);
        registered.map_err(|error| self.throw(cx, error))
    }

    /// Turns an error into one that can be thrown into the script at this call, with its place and the open steps.
    pub(crate) fn throw(&self, cx: &NativeCallContext<'_>, error: RunError) -> ScriptError {
        if error.is(codes::STOPPED) {
            return Box::new(EvalAltResult::ErrorTerminated(terminated(), cx.call_position()));
        }
        if !error.is_catchable() {
            return self.stop(cx, error);
        }
        Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(self.placed(cx, error)), cx.call_position()))
    }

    /// The same for an error that the script cannot catch.
    pub(crate) fn stop(&self, cx: &NativeCallContext<'_>, error: RunError) -> ScriptError {
        self.kernel.end_with(self.placed(cx, error));
        Box::new(EvalAltResult::ErrorTerminated(terminated(), cx.call_position()))
    }

    /// Forgets the closures that the script has left here, once nobody needs them: each holds this session, and would keep it for ever.
    pub(crate) fn release(&self) {
        self.kernel.release();
        lock(&self.closures).clear();
        lock(&self.invariants).clear();
    }
}
