//! The kernel performs effects: identity, policy, journal, retries, settling, undo, events.
//!
//! **Invariant:** the kernel knows no vendor, no script and no mode, and is the only place that blocks on async work and writes the
//! journal.

mod action;
pub(crate) mod cancel_scope;
mod change;
pub(crate) mod cursor;
mod doubt;
mod earlier;
pub(crate) mod enforcement;
mod guard;
mod lifecycle;
mod policy;
mod read;
mod record;
mod retry;
mod rollback;
mod run;
mod setup;
mod targets;
mod undo_stack;
mod wait;

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use futures_util::FutureExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

pub use self::policy::{Policy, Request};
pub(crate) use self::{
    cancel_scope::CancelScope,
    rollback::UndoClosures,
    run::Ended,
    setup::Setup,
    undo_stack::{UndoEntry, Undoing},
};
use self::{
    earlier::Earlier,
    enforcement::Planning,
    lifecycle::Lifecycle,
    record::{Ending, Kept},
    targets::Targets,
    undo_stack::UndoStack,
};
use crate::{
    effect::{Action, Change, On, Read, Role, Surroundings, Wait},
    error::{Frame, RunError, codes},
    event::{Emitter, Event, Kind, NoteLevel, WaitsFor},
    executor::{Executor, defect},
    journal::{Entry, Journal, Outcome, replay::Mark},
    lock::lock,
    world::{Known, World},
};

/// One run.
pub struct Kernel {
    pub(crate) facts: Facts,
    pub(crate) shared: Arc<Surroundings>,
    pub(crate) emitter: Emitter,
    pub(crate) world: Arc<dyn World>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) earlier: Earlier,
    pub(crate) executor: Executor,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) life: Lifecycle,
    pub(crate) plan: Planning,
    undo: UndoStack,
    targets: Targets,
    /// How many changes were made, those of a rollback not counted.
    changes: AtomicUsize,
}

/// What is known about a run before it begins.
pub(crate) struct Facts {
    pub(crate) run: Arc<str>,
    pub(crate) environment: String,
    /// Names of those who have a role.
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    /// Who began the run.
    pub(crate) started_by: String,
}

/// A step that was begun.
pub(crate) struct OpenStep {
    pub(crate) id: EffectId,
    /// For how long the run had been worked on when it began, if it began in an earlier process.
    pub(crate) begun: Option<Duration>,
    started: Duration,
    planned: Duration,
}

/// One effect on its way.
struct Call {
    id: EffectId,
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
    /// Fires when the part of the script that it belongs to is told to stop.
    cancel: CancellationToken,
    /// Fires when what is under way has to end itself.
    end: CancellationToken,
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
            On::new(Arc::clone(&self.shared), &self.id, key, self.end.clone())
        })
    }
}

impl Kernel {
    pub(crate) fn change<E: Change>(&self, effect: E) -> Result<Known, RunError> {
        let call = self.begin(Kind::Change, E::ID, &effect)?;
        self.perform(&call, self.do_change(&call, Arc::new(effect)))
    }

    pub(crate) fn action<E: Action>(&self, effect: E) -> Result<Known, RunError> {
        let call = self.begin(Kind::Action, E::ID, &effect)?;
        self.perform(&call, self.do_action(&call, Arc::new(effect)))
    }

    pub(crate) fn read<E: Read>(&self, effect: &E) -> Result<Known, RunError> {
        let call = self.begin(Kind::Read, E::ID, effect)?;
        self.perform(&call, self.do_read(&call, effect))
    }

    pub(crate) fn wait<E: Wait>(&self, effect: &E) -> Result<Known, RunError> {
        let call = self.begin(Kind::Wait, E::ID, effect)?;
        let call = Call { waits_for: Some(WaitsFor::from(&effect.until())), ..call };
        self.perform(&call, self.do_wait(&call, effect))
    }

    /// Opens the step `name`, which errors name by `frame`.
    pub(crate) fn begin_step(&self, name: &str, frame: impl FnOnce() -> Frame) -> Result<OpenStep, RunError> {
        self.stopped()?;
        let id = cursor::open(name, frame());
        let started = self.now();
        let planned = cursor::planned();
        let Kept { replayed, worked: begun } =
            self.keep_once(&id, Mark::StepStarted, &Entry::StepStarted { name: name.to_owned() });
        self.emit(Event::StepStarted { id: id.clone(), name: name.to_owned(), replayed });
        Ok(OpenStep { id, begun, started, planned })
    }

    /// Closes a step.
    pub(crate) fn end_step(&self, step: OpenStep, name: &str, ok: bool) {
        cursor::close();
        let OpenStep { id, started, planned, .. } = step;
        let elapsed_ms = self.elapsed_ms(started, planned);
        let mut replayed = false;
        // A step that the run was paused in has not ended.
        if ok || !self.life.is_pausing() {
            let entry = Entry::StepEnded { name: name.to_owned(), ok, elapsed_ms };
            replayed = self.keep_once(&id, Mark::StepEnded, &entry).replayed;
        }
        self.emit(Event::StepEnded { id, name: name.to_owned(), ok, elapsed_ms, replayed });
    }

    /// Keeps what the script has to say.
    pub(crate) fn note(&self, level: NoteLevel, text: &str) {
        let id = cursor::next(if level == NoteLevel::Note { "note" } else { "log" });
        let entry = Entry::Note { level, text: text.to_owned() };
        let replayed = self.keep_once(&id, Mark::Note, &entry).replayed;
        self.emit(Event::Note { id, level, text: text.to_owned(), replayed });
    }

    /// Forgets what is to be undone, once nobody needs it.
    pub(crate) fn release(&self) {
        drop(self.undo.take());
    }

    /// Since when an invariant of the script holds. `None`: nobody will ask for it.
    pub(crate) fn invariant_since(&self, id: &EffectId) -> Option<usize> {
        self.world.invariant(id)
    }

    /// Puts something on the undo stack, unless undoing has begun.
    pub(crate) fn push_undo(&self, entry: UndoEntry) {
        if !self.life.is_rolling_back() {
            self.undo.push(entry);
        }
    }

    /// Registers how the script undoes something in its own way.
    pub(crate) fn register(
        &self,
        mark: Mark,
        entry: &Entry,
        id: EffectId,
        doing: Undoing,
    ) -> Result<(), RunError> {
        let (seq, _) = self.keep_mark(mark, entry, &id)?;
        self.push_undo(UndoEntry { seq, id, doing });
        Ok(())
    }

    /// Marks a place behind which there is no way back.
    pub(crate) fn no_return(&self, id: EffectId, why: &str) -> Result<(), RunError> {
        let entry = Entry::NoReturn { why: why.to_owned() };
        let (seq, replayed) = self.keep_mark(Mark::NoReturn, &entry, &id)?;
        self.world.no_return(&id);
        if let Some(draft) = &self.plan.draft {
            draft.no_return(&id, why);
        }
        self.emit(Event::NoReturn { id: id.clone(), why: why.to_owned(), replayed });
        self.push_undo(UndoEntry { seq, id, doing: Undoing::NoReturn(why.to_owned()) });
        Ok(())
    }

    /// The place in the journal of a mark that only a run that goes on may make, and whether it was there already.
    fn keep_mark(&self, mark: Mark, entry: &Entry, id: &EffectId) -> Result<(u64, bool), RunError> {
        self.stopped()?;
        match self.earlier.replay.take_mark(id, mark)? {
            Some((seq, _)) => Ok((seq, true)),
            None => {
                self.may_begin()?;
                Ok((self.keep(id, entry), false))
            }
        }
    }

    /// Remembers why the run ends; the first reason counts. Other branches are told not to go on waiting.
    pub(crate) fn end_with(&self, error: RunError) {
        self.life.end_with(error);
        if !self.earlier.replay_only {
            self.life.cancel.cancel();
        }
    }

    /// Called by the interpreter at each operation: whether the script must stop.
    pub(crate) fn must_end(&self) -> bool {
        let Some(error) = self.life.budget.spend(|| self.is_stopped().then(|| self.why_stopped())) else {
            return false;
        };
        if !error.is(codes::STOPPED) {
            self.end_with(RunError { frames: cursor::frames(), ..error });
        }
        true
    }

    pub(crate) fn scrub(&self, error: &mut RunError) {
        let vault = &self.shared.vault;
        if vault.is_empty() {
            return;
        }
        error.message = vault.scrub(&error.message).into_owned();
        error.subject = error.subject.take().map(|subject| vault.scrub(&subject).into_owned());
        error.hints.iter_mut().for_each(|hint| *hint = vault.scrub(hint).into_owned());
        if let Some(detail) = &mut error.detail {
            vault.scrub_json(detail);
        }
    }

    /// A text of the script without the bytes of secrets.
    pub(crate) fn scrubbed_text<'t>(&self, text: &'t str) -> std::borrow::Cow<'t, str> {
        self.shared.vault.scrub(text)
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
                    let error = RunError { effect: Some(call.id.clone()), ..defect(&*panic) };
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
            Known::Value(mut value) => {
                self.shared.vault.scrub_json(&mut value);
                Known::Value(value)
            }
            Known::Unknown => Known::Unknown,
        }
    }

    /// Whether effects take no time here, and what they would take is summed up.
    pub(crate) fn sums_up_time(&self) -> bool {
        self.world.sums_up_time()
    }

    /// Whether there are values that only a real run can tell.
    pub(crate) fn may_not_know(&self) -> bool {
        self.world.may_not_know()
    }

    /// Whether this thread's part of the run was told to stop, or the whole run to end itself.
    fn is_stopped(&self) -> bool {
        // What is in the journal is answered first, in all branches: it has to be known in order to be undone.
        self.life.stop.is_aborted() || (cursor::is_cancelled() && self.earlier.replay.is_answered())
    }

    /// Why this thread's part of the run is to stop.
    pub(super) fn why_stopped(&self) -> RunError {
        let fatal = self.life.fatal();
        let outside = || self.life.stop.is_cancelled().then(|| self.life.stop.why());
        let why =
            fatal.or_else(outside).or_else(|| self.stop_around()).unwrap_or_else(|| self.life.stop.why());
        // The place is that of whoever met it first.
        RunError { frames: Vec::new(), effect: None, ..why }
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.executor.block_on(&self.life.stop, work)
    }

    fn now(&self) -> Duration {
        self.shared.clock.monotonic()
    }

    /// Time since `started`; in a plan, the time that has been planned since it was `planned`.
    fn elapsed_ms(&self, started: Duration, planned: Duration) -> u64 {
        let elapsed = if self.sums_up_time() {
            cursor::planned().saturating_sub(planned)
        } else {
            self.now().saturating_sub(started)
        };
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn emit(&self, event: Event) {
        self.emitter.emit(event);
    }

    /// Whether the script must stop before its next effect.
    fn stopped(&self) -> Result<(), RunError> {
        self.journal.alive()?;
        if !self.earlier.replay.is_answered() && !self.life.stop.is_aborted() {
            return Ok(());
        }
        if let Some(error) = self.life.fatal() {
            return Err(error);
        }
        if self.life.stop.is_held() && !self.life.is_rolling_back() {
            self.block_on(self.life.stop.released());
        }
        if self.is_stopped() {
            return Err(self.why_stopped());
        }
        self.life.budget.overdue().map_or(Ok(()), Err)
    }

    fn begin<E: Serialize>(&self, kind: Kind, effect: &'static str, input: &E) -> Result<Call, RunError> {
        self.stopped()?;
        if self.life.forbids_effects() {
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

    fn call(&self, kind: Kind, effect: &'static str, input: String, id: EffectId) -> Result<Call, RunError> {
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
            key: Arc::clone(&self.facts.run),
            shared: Arc::clone(&self.shared),
            end: match kind {
                // Breaking it off would leave something half done.
                Kind::Change | Kind::Action => CancellationToken::new(),
                Kind::Read | Kind::Wait => cursor::cancel(),
            },
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
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}
