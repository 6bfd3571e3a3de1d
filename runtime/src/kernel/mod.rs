//! The kernel performs effects: identity, policy, journal, retries, settling, undo, events.
//!
//! **Invariant:** the kernel knows no vendor and no script, and is the only place that blocks on async work and writes the
//! journal.

mod action;
pub(crate) mod cancel_scope;
mod change;
pub(crate) mod cursor;
mod doubt;
pub(crate) mod enforcement;
mod erased;
mod guard;
mod invariant;
mod place;
mod policy;
mod read;
mod record;
mod retry;
mod rollback;
mod run;
mod wait;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use rhai::{Dynamic, EvalAltResult, NativeCallContext};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use self::{
    enforcement::Enforcement,
    record::{Ending, Kept},
};
pub use self::{
    erased::{AnyAction, AnyChange, AnyMemory, AnyRead, AnyWait},
    policy::{Policy, Request},
};
pub(crate) use self::{
    rollback::{UndoEntry, Undoing},
    run::{Ended, defect},
};
use crate::{
    effect::{Action, Change, On, Read, Role, Surroundings, Wait},
    error::{Frame, RunError, codes},
    event::{Emitter, Event, Kind, NoteLevel, WaitsFor, scrub},
    executor::Executor,
    journal::{Entry, Journal, Outcome, Replay, replay::Mark},
    plan::Draft,
    rehearsal::ScriptInvariant,
    script::{
        Budget, Bundle, Places, ScriptError, ScriptResult, convert, convert::Unknown, innermost, is_exit,
        terminated, thrown,
    },
    stop::Stop,
    target::Target,
    world::{Known, World},
};

/// One run.
pub struct Kernel {
    pub(crate) run: Arc<str>,
    pub(crate) environment: String,
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) places: Arc<Places>,
    pub(crate) shared: Arc<Surroundings>,
    pub(crate) emitter: Emitter,
    pub(crate) world: Arc<dyn World>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) replay: Replay,
    /// Nothing may happen that is not in `replay`.
    pub(crate) replay_only: bool,
    /// Nothing new may begin: what was done is to be undone, for this reason.
    pub(crate) only_undo: Option<RunError>,
    /// Other scripts than those that made the journal: they must do all that is in it before they go on.
    pub(crate) new_script: Mutex<Option<Bundle>>,
    pub(crate) executor: Executor,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) budget: Budget,
    /// Asks the script to stop at the next safe point.
    pub(crate) cancel: CancellationToken,
    /// What stops the run from outside.
    pub(crate) stop: Stop,
    /// Fires at the first effect that is not answered from the journal.
    pub(crate) live: CancellationToken,
    /// Names of those who have a role.
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    /// Who began the run.
    pub(crate) started_by: String,
    pub(crate) state: State,
}

/// What changes while a run goes on.
#[derive(Default)]
pub(crate) struct State {
    undo: Mutex<Vec<UndoEntry>>,
    /// The plan that the run must keep to.
    enforcement: Option<Enforcement>,
    /// Where a plan collects what it foresees.
    pub(crate) draft: Option<Arc<Draft>>,
    /// Targets that this run has for itself.
    taken: Mutex<HashSet<Target>>,
    locks: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<()>>>>,
    fatal: Mutex<Option<RunError>>,
    /// Steps that were open when an error of Rhai's own came by, innermost first, with the error.
    trace: Mutex<Vec<(String, Vec<Frame>)>>,
    rolling_back: AtomicBool,
    changes: AtomicUsize,
    /// What the runbook says must hold, in a rehearsal.
    script_invariants: Mutex<Vec<ScriptInvariant>>,
    /// Invariants of the script are being checked: no effect may be performed.
    checking_invariants: AtomicBool,
    /// Threads on which the script is running besides the first, each branch of a `parallel` one; not those that wait for others.
    branches: AtomicUsize,
    /// How many of them are where the journal ends, with another script than the one that made it.
    at_the_end: AtomicUsize,
}

/// How a script's native functions find the run they belong to.
#[derive(Clone)]
pub(crate) struct KernelTag(pub(crate) Arc<Kernel>);

/// One effect on its way.
struct Call {
    id: String,
    kind: Kind,
    effect: &'static str,
    /// What ends it, if it is a wait.
    waits_for: Option<WaitsFor>,
    /// Canonical input.
    input: String,
    /// Fingerprint of the input.
    fingerprint: String,
    key: Arc<str>,
    shared: Arc<Surroundings>,
    cancel: CancellationToken,
    /// Made when the effect first needs it: one that is answered from the journal never does.
    on: OnceLock<On>,
    started: Duration,
    /// Place of its first intent in the journal. Intents on one target come in the order in which it was moved; what became of
    /// them may be found out in another.
    place: OnceLock<u64>,
}

impl Call {
    /// Its place among what is undone: that of its intent, else that of its outcome.
    fn place(&self, ended: u64) -> u64 {
        self.place.get().copied().unwrap_or(ended)
    }

    /// What the effect has at hand.
    fn on(&self) -> &On {
        self.on.get_or_init(|| {
            let key = format!("{}/{}", self.key, self.id);
            On::new(Arc::clone(&self.shared), &*self.id, key, self.cancel.clone())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these was held has already ended the run; what is in it is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kernel {
    /// The run that a native function is called in.
    ///
    /// # Errors
    /// The script is evaluated outside of any run.
    pub(crate) fn of(cx: &NativeCallContext<'_>) -> ScriptResult<Arc<Self>> {
        cx.tag()
            .and_then(|tag| tag.read_lock::<KernelTag>().map(|tag| Arc::clone(&tag.0)))
            .ok_or_else(|| "effects can only be performed within a run".into())
    }

    pub(crate) fn change<E: Change>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self
            .begin(Kind::Change, E::ID, &effect)
            .and_then(|call| self.perform(&call, self.do_change(&call, Arc::new(effect))));
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn action<E: Action>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self
            .begin(Kind::Action, E::ID, &effect)
            .and_then(|call| self.perform(&call, self.do_action(&call, Arc::new(effect))));
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn read<E: Read>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self
            .begin(Kind::Read, E::ID, &effect)
            .and_then(|call| self.perform(&call, self.do_read(&call, &effect)));
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn read_value<E: Read>(
        &self,
        cx: &NativeCallContext<'_>,
        effect: E,
    ) -> ScriptResult<E::Value> {
        let result = self
            .begin(Kind::Read, E::ID, &effect)
            .and_then(|call| self.perform(&call, self.do_read(&call, &effect)));
        let typed = result.and_then(|known| match known {
            Known::Value(value) => decode(value),
            Known::Unknown => Err(convert::unknown_in_plan(&self.origin(cx, E::ID))),
        });
        typed.map_err(|error| self.throw(cx, error))
    }

    pub(crate) fn wait<E: Wait>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self
            .begin(Kind::Wait, E::ID, &effect)
            .map(|call| Call { waits_for: Some(WaitsFor::from(&effect.until())), ..call })
            .and_then(|call| self.perform(&call, self.do_wait(&call, &effect)));
        self.finish(cx, E::ID, result)
    }

    /// Runs `body` as the step `name`, for at most `timeout`.
    pub(crate) fn step(
        self: &Arc<Self>,
        cx: &NativeCallContext<'_>,
        name: &str,
        timeout: Option<Duration>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        self.stopped().map_err(|e| self.throw(cx, e))?;
        let frame = Frame { what: format!("step \"{name}\""), ..self.frame(cx) };
        let id = cursor::open(name, frame);
        let started = self.now();
        let planned = cursor::planned();
        let Kept { replayed, worked: begun } =
            self.keep_once(&id, Mark::StepStarted, &Entry::StepStarted { name: name.to_owned() });
        self.emit(Event::StepStarted { id: id.clone(), name: name.to_owned(), replayed });
        let result = match timeout {
            Some(span) => self.limited(cx, &id, &format!("step \"{name}\""), span, begun, body),
            None => self.guarded(cx, body),
        };
        let ok = match &result {
            Ok(_) => true,
            Err(error) => is_exit(error),
        };
        if let Err(error) = &result
            && !ok
            && thrown(error).is_none()
        {
            self.remember_steps(innermost(error).to_string());
        }
        cursor::close();
        let elapsed_ms = self.elapsed_ms(started, planned);
        let mut replayed = false;
        // A step that the run was paused in has not ended.
        if ok || !self.is_pausing() {
            let entry = Entry::StepEnded { name: name.to_owned(), ok, elapsed_ms };
            replayed = self.keep_once(&id, Mark::StepEnded, &entry).replayed;
        }
        self.emit(Event::StepEnded { id, name: name.to_owned(), ok, elapsed_ms, replayed });
        result
    }

    /// Calls into the script. A panic in there ends the run, in order.
    pub(crate) fn guarded(
        &self,
        cx: &NativeCallContext<'_>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(self.stop(cx, run::defect(&*panic))))
    }

    /// Keeps what the script has to say.
    pub(crate) fn note(&self, level: NoteLevel, text: &str) {
        let id = cursor::next(if level == NoteLevel::Note { "note" } else { "log" });
        let entry = Entry::Note { level, text: text.to_owned() };
        let replayed = self.keep_once(&id, Mark::Note, &entry).replayed;
        self.emit(Event::Note { id, level, text: text.to_owned(), replayed });
    }

    /// Forgets the closures that the script has left here, once nobody needs them: each holds this kernel, and would keep it for ever.
    pub(crate) fn release(&self) {
        lock(&self.state.undo).clear();
        lock(&self.state.script_invariants).clear();
    }

    /// Puts something on the undo stack, unless undoing has begun.
    pub(crate) fn push_undo(&self, entry: UndoEntry) {
        if !self.is_rolling_back() {
            lock(&self.state.undo).push(entry);
        }
    }

    /// Registers how the script undoes something in its own way.
    pub(crate) fn register(
        &self,
        cx: &NativeCallContext<'_>,
        mark: Mark,
        entry: &Entry,
        id: String,
        doing: Undoing,
    ) -> ScriptResult<()> {
        self.stopped().map_err(|error| self.throw(cx, error))?;
        let mut replayed = false;
        let seq = match self.replay.take_mark(&id, mark) {
            Ok(Some((seq, _))) => {
                replayed = true;
                seq
            }
            Ok(None) => {
                self.may_begin().map_err(|error| self.throw(cx, error))?;
                self.keep(&id, entry)
            }
            Err(error) => return Err(self.throw(cx, error)),
        };
        if let (Undoing::NoReturn(_), Some(world)) = (&doing, self.world.rehearsed()) {
            world.simulation.state().no_return.push(id.clone());
        }
        if let (Undoing::NoReturn(why), Some(draft)) = (&doing, &self.state.draft) {
            draft.no_return(&id, why);
        }
        if let Undoing::NoReturn(why) = &doing {
            self.emit(Event::NoReturn { id: id.clone(), why: why.clone(), replayed });
        }
        self.push_undo(UndoEntry { seq, id, doing });
        Ok(())
    }

    pub(super) fn is_rolling_back(&self) -> bool {
        self.state.rolling_back.load(Ordering::Relaxed)
    }

    /// Whether the run stops without coming to an end.
    pub(super) fn is_pausing(&self) -> bool {
        lock(&self.state.fatal).as_ref().is_some_and(|error| error.is_pause() || error.is(codes::LOST))
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
        self.end_with(self.placed(cx, error));
        Box::new(EvalAltResult::ErrorTerminated(terminated(), cx.call_position()))
    }

    /// Remembers why the run ends; the first reason counts. Other branches are told not to go on waiting.
    pub(crate) fn end_with(&self, error: RunError) {
        lock(&self.state.fatal).get_or_insert(error);
        if !self.replay_only {
            self.cancel.cancel();
        }
    }

    /// Called by the interpreter at each operation: why the script must stop, if it must.
    pub(crate) fn progress(&self) -> Option<Dynamic> {
        let error = self.budget.spend(|| self.is_stopped().then(|| self.why_stopped()))?;
        if !error.is(codes::STOPPED) {
            self.end_with(RunError { frames: cursor::frames(), ..error });
        }
        Some(terminated())
    }

    fn scrub(&self, error: &mut RunError) {
        let vault = &self.shared.vault;
        if vault.is_empty() {
            return;
        }
        error.message = vault.scrub(&error.message).into_owned();
        error.hints.iter_mut().for_each(|hint| *hint = vault.scrub(hint).into_owned());
        if let Some(detail) = &mut error.detail {
            scrub(detail, vault);
        }
    }

    /// Performs an effect. Whatever happens, it ends.
    fn perform(
        &self,
        call: &Call,
        work: impl Future<Output = Result<Known, RunError>>,
    ) -> Result<Known, RunError> {
        // Pinned at once: it holds all that an effect may come to, and would be copied wherever it is handed on.
        let work = pin!(work);
        self.block_on(async {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(result) => result,
                Err(panic) => {
                    let error = RunError { effect: Some(call.id.clone()), ..run::defect(&*panic) };
                    let outcome = Outcome::Failed { error: error.clone(), possibly_applied: None };
                    self.ended(call, Ending::new(outcome, 1)).await;
                    Err(error)
                }
            }
        })
    }

    /// What a script may see of a value, which is what the journal keeps of it: no bytes of a secret.
    fn clean(&self, known: Known) -> Known {
        match known {
            Known::Value(mut value) if !self.shared.vault.is_empty() => {
                scrub(&mut value, &self.shared.vault);
                Known::Value(value)
            }
            known => known,
        }
    }

    /// Whether nothing is changed for real.
    pub(crate) fn is_plan(&self) -> bool {
        self.world.mode() == crate::event::Mode::Plan
    }

    /// Whether there are values that only a real run can tell.
    pub(crate) fn is_foreseen(&self) -> bool {
        self.is_plan() || self.world.rehearsed().is_some()
    }

    /// Whether this thread's part of the run was told to stop, or the whole run to end itself.
    fn is_stopped(&self) -> bool {
        // What is in the journal is answered first, in all branches: it has to be known in order to be undone.
        self.stop.is_aborted() || (cursor::is_cancelled() && self.replay.is_answered())
    }

    /// Why this thread's part of the run is to stop.
    pub(super) fn why_stopped(&self) -> RunError {
        let fatal = lock(&self.state.fatal).clone();
        let outside = || self.stop.is_cancelled().then(|| self.stop.why());
        let why = fatal.or_else(outside).or_else(|| self.stop_around()).unwrap_or_else(|| self.stop.why());
        // The place is that of whoever met it first.
        RunError { frames: Vec::new(), effect: None, ..why }
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.executor.block_on(&self.stop, work)
    }

    fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    /// Time since `started`; in a plan, the time that has been planned since it was `planned`.
    fn elapsed_ms(&self, started: Duration, planned: Duration) -> u64 {
        let elapsed = match self.world.mode() {
            crate::event::Mode::Plan => cursor::planned().saturating_sub(planned),
            _ => self.now().saturating_sub(started),
        };
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn emit(&self, event: Event) {
        self.emitter.emit(event);
    }

    /// Whether the script must stop before its next effect.
    fn stopped(&self) -> Result<(), RunError> {
        self.journal.alive()?;
        if !self.replay.is_answered() && !self.stop.is_aborted() {
            return Ok(());
        }
        if let Some(error) = lock(&self.state.fatal).clone() {
            return Err(error);
        }
        if self.stop.is_held() && !self.is_rolling_back() {
            self.block_on(self.stop.released());
        }
        if self.is_stopped() {
            return Err(self.why_stopped());
        }
        self.budget.overdue().map_or(Ok(()), Err)
    }

    fn begin<E: Serialize>(&self, kind: Kind, effect: &'static str, input: &E) -> Result<Call, RunError> {
        self.stopped()?;
        if self.state.checking_invariants.load(Ordering::Relaxed) {
            return Err(RunError::new(
                codes::ARGUMENT,
                format!("an invariant may only read its world: {effect} is an effect"),
            ));
        }
        let input = serde_json::to_string(input).map_err(|e| {
            RunError::new(codes::INTERNAL, format!("the input of {effect} cannot be written as JSON: {e}"))
        })?;
        self.call(kind, effect, input, cursor::next(effect))
    }

    fn call(&self, kind: Kind, effect: &'static str, input: String, id: String) -> Result<Call, RunError> {
        let mut hash = Sha256::new();
        hash.update(effect);
        hash.update(&input);
        let fingerprint = hex(&hash.finalize()[..12]);
        Ok(Call {
            id,
            kind,
            effect,
            waits_for: None,
            input,
            fingerprint,
            key: Arc::clone(&self.run),
            shared: Arc::clone(&self.shared),
            cancel: cursor::cancel(),
            on: OnceLock::new(),
            started: self.now(),
            place: OnceLock::new(),
        })
    }

    fn ask_policies(&self, request: &Request<'_>) -> Result<(), RunError> {
        for policy in &self.policies {
            policy
                .allow(request)
                .map_err(|why| RunError::new(codes::DENIED_BY_POLICY, format!("refused by policy: {why}")))?;
        }
        Ok(())
    }

    /// Gives the result of an effect to the script.
    fn finish(
        &self,
        cx: &NativeCallContext<'_>,
        effect: &str,
        result: Result<Known, RunError>,
    ) -> ScriptResult {
        match result {
            Ok(Known::Value(value)) => Ok(convert::from_json(value)),
            Ok(Known::Unknown) => Ok(Dynamic::from(Unknown { origin: self.origin(cx, effect) })),
            Err(error) => Err(self.throw(cx, error)),
        }
    }

    /// The lock that orders effects on one target within this run.
    fn target_lock(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.state.locks).entry(target.clone()).or_default())
    }
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, RunError> {
    serde_json::from_value(value)
        .map_err(|e| RunError::new(codes::INTERNAL, format!("a value cannot be read back: {e}")))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}
