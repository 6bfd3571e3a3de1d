//! The kernel performs effects: identity, policy, journal, retries, settling, undo, events.
//!
//! **Invariant:** the kernel knows no vendor and no script, and is the only place that blocks on async work and writes the
//! journal.

mod action;
mod change;
pub(crate) mod cursor;
mod erased;
mod policy;
mod read;
mod retry;
mod rollback;
mod run;
mod wait;

use std::{
    collections::HashMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
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

pub use self::{
    erased::{AnyAction, AnyChange, AnyMemory, AnyRead, AnyWait},
    policy::{Policy, Request},
};
pub(crate) use self::{
    rollback::{UndoEntry, Undoing},
    run::Ended,
};
use crate::{
    effect::{Action, Change, On, Read, Shared, Wait},
    error::{Frame, RunError, codes},
    event::{EffectResult, Event, Grade, Kind, NoteLevel, scrub},
    journal::{Entry, Journal, Outcome, Replay, replay::Recorded},
    script::{
        Budget, Bundle, Places, ScriptError, ScriptResult, convert, convert::Unknown, from_rhai, innermost,
        is_exit, terminated, thrown,
    },
    target::Target,
    world::{Known, World},
};

/// One run.
pub struct Kernel {
    pub(crate) run: Arc<str>,
    pub(crate) environment: String,
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) places: Arc<Places>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) replay: Replay,
    /// Nothing may happen that is not in `replay`.
    pub(crate) replay_only: bool,
    pub(crate) handle: tokio::runtime::Handle,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) budget: Budget,
    /// Asks the script to stop at the next safe point.
    pub(crate) cancel: CancellationToken,
    /// Stops everything, undoing included.
    pub(crate) abort: CancellationToken,
    pub(crate) state: State,
}

/// What changes while a run goes on.
#[derive(Default)]
pub(crate) struct State {
    undo: Mutex<Vec<UndoEntry>>,
    locks: Mutex<HashMap<Target, Arc<tokio::sync::Mutex<()>>>>,
    fatal: Mutex<Option<RunError>>,
    /// Steps that were open when an error of Rhai's own came by, innermost first, with the error.
    trace: Mutex<Vec<(String, Vec<Frame>)>>,
    rolling_back: AtomicBool,
    changes: AtomicUsize,
}

/// How a script's native functions find the run they belong to.
#[derive(Clone)]
pub(crate) struct KernelTag(pub(crate) Arc<Kernel>);

/// One effect on its way.
struct Call {
    id: String,
    kind: Kind,
    effect: &'static str,
    /// Canonical input.
    input: String,
    /// Fingerprint of the input.
    print: String,
    key: Arc<str>,
    shared: Arc<Shared>,
    cancel: CancellationToken,
    /// Made when the effect first needs it: one that is answered from the journal never does.
    on: OnceLock<On>,
    started: Duration,
}

impl Call {
    /// What the effect has at hand.
    fn on(&self) -> &On {
        self.on.get_or_init(|| On {
            shared: Arc::clone(&self.shared),
            id: Arc::from(&*self.id),
            key: format!("{}/{}", self.key, self.id).into(),
            cancel: self.cancel.clone(),
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
            .and_then(|call| self.perform(&call, self.do_wait(&call, &effect)));
        self.finish(cx, E::ID, result)
    }

    /// Runs `body` as the step `name`.
    pub(crate) fn step(
        &self,
        cx: &NativeCallContext<'_>,
        name: &str,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        self.stopped().map_err(|e| self.throw(cx, e))?;
        let frame = Frame { what: format!("step \"{name}\""), ..self.frame(cx) };
        let id = cursor::open(name, frame);
        let started = self.now();
        let planned = cursor::planned();
        self.emit(Event::StepStarted { id: id.clone(), name: name.to_owned() });
        self.keep(&id, &Entry::StepStarted { name: name.to_owned() });
        let result = self.guarded(cx, body);
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
        self.keep(&id, &Entry::StepEnded { name: name.to_owned(), ok, elapsed_ms });
        self.emit(Event::StepEnded { id, name: name.to_owned(), ok, elapsed_ms });
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

    /// Keeps the open steps for an error of Rhai's own, which does not know them. An error may be caught, so more than one is kept.
    fn remember_steps(&self, error: String) {
        const MOST: usize = 64;
        let mut trace = lock(&self.state.trace);
        if trace.iter().all(|(known, _)| *known != error) {
            if trace.len() >= MOST {
                trace.remove(0);
            }
            trace.push((error, cursor::frames()));
        }
    }

    /// Keeps what the script has to say.
    pub(crate) fn note(&self, level: NoteLevel, text: &str) {
        let id = cursor::next(if level == NoteLevel::Note { "note" } else { "log" });
        self.keep(&id, &Entry::Note { level, text: text.to_owned() });
        self.emit(Event::Note { id, level, text: text.to_owned() });
    }

    /// Puts something on the undo stack, unless undoing has begun.
    pub(crate) fn push_undo(&self, entry: UndoEntry) {
        if !self.state.rolling_back.load(Ordering::Relaxed) {
            lock(&self.state.undo).push(entry);
        }
    }

    /// Turns an error into one that can be thrown into the script at this call, with its place and the open steps.
    pub(crate) fn throw(&self, cx: &NativeCallContext<'_>, error: RunError) -> ScriptError {
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

    fn placed(&self, cx: &NativeCallContext<'_>, mut error: RunError) -> RunError {
        if error.frames.is_empty() {
            error.frames.push(self.frame(cx));
            error.frames.extend(cursor::frames());
        }
        self.scrub(&mut error);
        error
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
        let error = self.budget.spend(|| self.is_stopped().then(cancelled))?;
        self.end_with(RunError { frames: cursor::frames(), ..error });
        Some(terminated())
    }

    /// An error of Rhai's as an error of the run.
    fn explain(&self, error: &EvalAltResult) -> RunError {
        let placed = thrown(error).is_some_and(|known| !known.frames.is_empty());
        let mut error = from_rhai(error, &self.bundle.main);
        if !placed {
            error.frames.iter_mut().for_each(|frame| self.places.fix(frame));
        }
        error
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
        self.block_on(async {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(result) => result,
                Err(panic) => {
                    let error = RunError { effect: Some(call.id.clone()), ..run::defect(&*panic) };
                    let outcome = Outcome::Failed { error: error.clone(), happened: None };
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

    /// Whether this thread's part of the run was told to stop, or the whole run to end itself.
    fn is_stopped(&self) -> bool {
        cursor::is_cancelled() || self.abort.is_cancelled()
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
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
        self.shared.emitter.emit(event);
    }

    /// Adds a record. A journal that is full to the brim is written out by whoever fills it.
    fn keep(&self, id: &str, entry: &Entry) {
        if !self.replay_only && self.journal.add(self.shared.clock.now(), id, entry) {
            // A failure stays in the journal and stops the run at the next intent, or at its end.
            let _ = self.block_on(self.journal.flush());
        }
    }

    /// As [`Kernel::keep`], from async code.
    async fn keep_async(&self, id: &str, entry: &Entry) {
        if !self.replay_only && self.journal.add(self.shared.clock.now(), id, entry) {
            let _ = self.journal.flush().await;
        }
    }

    /// Whether the script must stop before its next effect.
    fn stopped(&self) -> Result<(), RunError> {
        if let Some(error) = lock(&self.state.fatal).clone() {
            return Err(error);
        }
        if self.is_stopped() {
            return Err(cancelled());
        }
        self.budget.overdue().map_or(Ok(()), Err)
    }

    fn begin<E: Serialize>(&self, kind: Kind, effect: &'static str, input: &E) -> Result<Call, RunError> {
        self.stopped()?;
        let input = serde_json::to_string(input).map_err(|e| {
            RunError::new(codes::INTERNAL, format!("the input of {effect} has no JSON form: {e}"))
        })?;
        self.call(kind, effect, input, cursor::next(effect))
    }

    fn call(&self, kind: Kind, effect: &'static str, input: String, id: String) -> Result<Call, RunError> {
        let mut hash = Sha256::new();
        hash.update(effect);
        hash.update(&input);
        let print = hex(&hash.finalize()[..12]);
        Ok(Call {
            id,
            kind,
            effect,
            input,
            print,
            key: Arc::clone(&self.run),
            shared: Arc::clone(&self.shared),
            cancel: cursor::cancel(),
            on: OnceLock::new(),
            started: self.now(),
        })
    }

    /// The recorded outcome of an effect, if the journal has one.
    fn recorded(&self, call: &Call) -> Result<Option<(Outcome, u32, u64)>, RunError> {
        if self.replay.is_empty() && !self.replay_only {
            return Ok(None);
        }
        match self.replay.take(&call.id, call.kind, call.effect, &call.print, &call.input)? {
            Some(Recorded { outcome: Some(outcome), .. }) => Ok(Some(outcome)),
            _ if self.replay_only => Err(RunError::new(
                codes::DIVERGED,
                format!("the journal has no outcome for {}, which the script asks for", call.id),
            )
            .hint("the run stopped there, or its journal is not complete")),
            _ => Ok(None),
        }
    }

    fn ask_policies(&self, request: &Request<'_>) -> Result<(), RunError> {
        for policy in &self.policies {
            policy
                .allow(request)
                .map_err(|why| RunError::new(codes::DENIED_BY_POLICY, format!("refused by policy: {why}")))?;
        }
        Ok(())
    }

    fn started(&self, call: &Call, target: Option<&Target>, text: String) {
        if !self.shared.emitter.is_silent() {
            self.emit(Event::EffectStarted {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target: target.cloned(),
                text,
            });
        }
    }

    /// Makes the intent durable. Nothing may be applied unless this succeeds.
    async fn intend(
        &self,
        call: &Call,
        target: Option<&Target>,
        states: Option<(&serde_json::Value, &serde_json::Value)>,
        text: &str,
    ) -> Result<(), RunError> {
        // A last safe point: whoever waited for its turn may have been told to stop meanwhile.
        if call.cancel.is_cancelled() || self.abort.is_cancelled() {
            return Err(cancelled());
        }
        if !self.journal.is_kept() {
            return Ok(());
        }
        let entry = Entry::Intent {
            kind: call.kind,
            effect: call.effect.to_owned(),
            print: call.print.clone(),
            input: call.input.clone(),
            target: target.cloned(),
            from: states.map(|(from, _)| from.clone()),
            to: states.map(|(_, to)| to.clone()),
            text: text.to_owned(),
        };
        self.journal.add(self.shared.clock.now(), &call.id, &entry);
        self.journal.barrier().await
    }

    /// Records and tells how an effect ended.
    async fn ended(&self, call: &Call, ending: Ending) {
        let Ending { outcome, attempts, grade, target, about, intended, at_least, note } = ending;
        let elapsed = if at_least.is_zero() { self.now().saturating_sub(call.started) } else { at_least };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let told = (!self.shared.emitter.is_silent()).then(|| tell(&outcome, note));
        if self.journal.is_kept() && !self.replay_only {
            let input = (!intended).then(|| call.input.clone());
            let entry = Entry::Outcome {
                kind: call.kind,
                effect: call.effect.to_owned(),
                print: call.print.clone(),
                input,
                target: target.clone(),
                about: if intended { String::new() } else { about.clone() },
                attempts,
                elapsed_ms,
                result: outcome,
            };
            self.keep_async(&call.id, &entry).await;
        }
        if let Some(result) = told {
            self.emit(Event::EffectEnded {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target,
                about,
                grade,
                attempts,
                elapsed_ms,
                replayed: false,
                result,
            });
        }
    }

    /// Tells that an effect was answered from the journal.
    fn replayed(
        &self,
        call: &Call,
        target: Option<Target>,
        about: impl FnOnce() -> String,
        outcome: &Outcome,
        attempts: u32,
        elapsed_ms: u64,
    ) {
        if self.shared.emitter.is_silent() {
            return;
        }
        self.emit(Event::EffectEnded {
            id: call.id.clone(),
            kind: call.kind,
            effect: call.effect.to_owned(),
            target,
            about: about(),
            grade: Grade::Observed,
            attempts,
            elapsed_ms,
            replayed: true,
            result: tell(outcome, None),
        });
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

    fn origin(&self, cx: &NativeCallContext<'_>, effect: &str) -> String {
        let frame = self.frame(cx);
        format!("{effect} ({}:{})", frame.source, frame.line)
    }

    fn frame(&self, cx: &NativeCallContext<'_>) -> Frame {
        let position = cx.call_position();
        let source = cx.call_source().filter(|s| !s.is_empty()).unwrap_or(&self.bundle.main).to_owned();
        let (line, column) = (position.line().unwrap_or(0), position.position().unwrap_or(0));
        let column = self.places.column(&source, line, column);
        let (what, column) =
            self.bundle.files.get(&source).map_or((None, column), |text| word_at(text, line, column));
        Frame { what: what.unwrap_or_else(|| cx.fn_name().to_owned()), source, line, column }
    }

    /// The lock that orders effects on one target within this run.
    fn target_lock(&self, target: &Target) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(lock(&self.state.locks).entry(target.clone()).or_default())
    }
}

/// How an effect ended, for the journal and for events.
struct Ending {
    outcome: Outcome,
    attempts: u32,
    grade: Grade,
    target: Option<Target>,
    about: String,
    /// Whether an intent holds the input already.
    intended: bool,
    at_least: Duration,
    note: Option<String>,
}

impl Ending {
    fn new(outcome: Outcome, attempts: u32) -> Self {
        Self {
            outcome,
            attempts,
            grade: Grade::Observed,
            target: None,
            about: String::new(),
            intended: false,
            at_least: Duration::ZERO,
            note: None,
        }
    }
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, RunError> {
    serde_json::from_value(value)
        .map_err(|e| RunError::new(codes::INTERNAL, format!("a value cannot be read back: {e}")))
}

fn cancelled() -> RunError {
    RunError::new(codes::CANCELLED, "the run was told to stop")
}

fn tell(outcome: &Outcome, foreseen: Option<String>) -> EffectResult {
    let mut result = EffectResult::from(outcome.clone());
    if let EffectResult::Changed { note, .. } = &mut result {
        *note = foreseen;
    }
    result
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// The path of names around a place, such as `traffic::shift`, and the column where it begins.
fn word_at(text: &str, line: usize, column: usize) -> (Option<String>, usize) {
    let Some(line) = line.checked_sub(1).and_then(|n| text.lines().nth(n)) else { return (None, column) };
    let chars: Vec<char> = line.chars().collect();
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let Some(mut start) = column.checked_sub(1).filter(|c| chars.get(*c).copied().is_some_and(part)) else {
        return (None, column);
    };
    let mut end = start;
    while start > 0 && part(chars[start - 1]) {
        start -= 1;
    }
    while end < chars.len() && part(chars[end]) {
        end += 1;
    }
    let word: String = chars[start..end].iter().collect();
    (Some(word), start + 1)
}
