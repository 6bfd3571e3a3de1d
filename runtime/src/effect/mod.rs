//! The four kinds of effect.
//!
//! Everything that touches the outside is one of them. A primitive implements one of [`Change`], [`Action`], [`Read`] or
//! [`Wait`] for a plain struct and hands it to the kernel; plan, journal, resume, rollback, events and redaction follow from
//! the contract. The struct itself is the effect's canonical input: it is serialized into the journal and compared on replay,
//! so it holds what the script asked for and nothing that varies between two executions of the same script.
//!
//! **Invariant:** an effect never asks in which mode it runs, and what it computes without `on` is pure.

mod erased;

use std::{borrow::Cow, fmt::Display, future::Future, time::Duration};

pub use contraflow_provider::{
    effect_id::{EffectId, Part, Segment},
    on::{On, Progress, Surroundings},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::erased::{AnyAction, AnyChange, AnyMemory, AnyRead, AnyWait};
pub use crate::question::{
    Choice, Evidence, Heard, Question, QuestionKind, Reply, Role, Rule, SOMEBODY_ELSE,
};
pub use crate::vocabulary::Undo;
use crate::{error::RunError, provider::ProviderError, target::Target};

/// How long an effect may take and how often it may be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time limit for one attempt.
    pub timeout: Duration,
    /// Time limit for all attempts together, with the waits between them.
    pub total: Option<Duration>,
    /// Most tries, counting the first. Only errors that the provider calls retryable lead to another.
    pub attempts: u32,
    /// Wait before the second try; doubles with each further one, with jitter.
    pub backoff: Duration,
    /// Longest wait between two tries.
    pub backoff_max: Duration,
    /// Longest time a change may take to come into effect after it was applied.
    pub settle: Duration,
    /// How often to look whether it did.
    pub settle_every: Duration,
    /// How long a change or an action may take to end once it was told to.
    pub stop_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            total: None,
            attempts: 4,
            backoff: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
            settle: Duration::from_secs(300),
            settle_every: Duration::from_millis(500),
            stop_grace: Duration::from_secs(10),
        }
    }
}

/// Moves one target from a state to another.
///
/// The kernel observes, computes what is desired, and only when the two differ makes the intent durable, applies, and waits
/// until the change is in effect. Undo is applying the state observed before.
pub trait Change: Serialize + Send + Sync + 'static {
    /// Name in the journal, `noun.verb`. Never renamed: old journals hold it.
    const ID: &'static str;

    /// State of the target. Its `Display` is what people read in plans: `blue 95, green 5`.
    type State: Serialize + DeserializeOwned + Display + Send + Sync + 'static;

    /// What is changed.
    fn target(&self) -> Target;

    /// Looks at the target.
    fn observe(&self, on: &On) -> impl Future<Output = Result<Self::State, ProviderError>> + Send;

    /// What the target should be, given what it is. Pure: same input, same answer, nothing asked outside.
    ///
    /// # Errors
    /// What is asked cannot be reached from this state.
    fn desired(&self, now: &Self::State) -> Result<Self::State, ProviderError>;

    /// Makes it so. Called again after a retryable error or a crash, and with `from` and `to` exchanged to undo.
    fn apply(
        &self,
        on: &On,
        from: &Self::State,
        to: &Self::State,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send;

    /// Whether `to` is in effect, which may be later than set.
    fn settled(
        &self,
        on: &On,
        to: &Self::State,
    ) -> impl Future<Output = Result<Progress, ProviderError>> + Send {
        let _ = (on, to);
        async { Ok(Progress::Settled) }
    }

    /// Ends what an earlier try, of this runner or of one before it, may still have under way, or waits until it is over: nothing of
    /// it may land afterwards. Called before the kernel believes a look at a target whose move broke off.
    ///
    /// # Errors
    /// What is still under way, and that it cannot be ended: the change stays in doubt.
    fn fence(
        &self,
        on: &On,
        from: &Self::State,
        to: &Self::State,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send {
        let _ = (on, from, to);
        async { Ok(()) }
    }

    /// Whether a move that broke off with `error` may be half done although the target is still at `from`: the move is not atomic, and
    /// its state does not show the half. Without an `error`, nobody heard how it ended. Pure.
    fn may_be_half_done(&self, from: &Self::State, to: &Self::State, error: Option<&RunError>) -> bool {
        let _ = (from, to, error);
        false
    }

    /// Whether applying `from` again would undo it. Pure.
    fn undo(&self, from: &Self::State, to: &Self::State) -> Undo {
        let _ = (from, to);
        Undo::Possible
    }

    /// Asks whether the move would succeed without making it, where the target can say so (a transaction that is rolled back).
    /// Called in plans only. Answers what to show, or `None` if the target cannot say.
    fn rehearse(
        &self,
        on: &On,
        from: &Self::State,
        to: &Self::State,
    ) -> impl Future<Output = Result<Option<String>, ProviderError>> + Send {
        let _ = (on, from, to);
        async { Ok(None) }
    }

    /// Asks whether a run would be refused the move, as things are now: a pool without a server that is up, weights that are too
    /// fine. Called in plans only, for every move. Where something before it in the plan may have made the target ready, the
    /// refusal is shown and does not stop the plan.
    ///
    /// # Errors
    /// Why a run would fail here.
    fn ready(&self, on: &On, to: &Self::State) -> impl Future<Output = Result<(), ProviderError>> + Send {
        let _ = (on, to);
        async { Ok(()) }
    }

    /// How long the move is expected to take until it is in effect, if the target or its settings say so: a drain time, a schedule.
    /// Called in plans only, which show it as an estimate. `None`: nothing is known; a plan then looks at how long the same move
    /// took in earlier runs.
    fn estimate(
        &self,
        on: &On,
        from: &Self::State,
        to: &Self::State,
    ) -> impl Future<Output = Option<Duration>> + Send {
        let _ = (on, from, to);
        async { None }
    }

    /// Which subresource of its target it changes, where changes of one noun to different subresources do not meet, such as the history
    /// table of migrations. A plan carries states forward for each subresource.
    fn subresource(&self) -> String {
        String::new()
    }

    /// Targets besides its own whose checks this change makes unknowable in a plan, such as the pool behind a route.
    fn touches(&self) -> Vec<Target> {
        Vec::new()
    }

    /// Deadlines and tries.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// What to do with an action of which nobody knows whether it happened (a crash between intent and outcome).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InDoubt {
    /// Do it again: the receiver knows the idempotency key, or twice does no harm.
    Repeat,
    /// Ask a person.
    Ask,
}

/// Has an outside effect but no state that could be read back: a message, a command.
pub trait Action: Serialize + Send + Sync + 'static {
    /// Name in the journal, `noun.verb`. Never renamed.
    const ID: &'static str;

    /// What it returns to the script.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What it does, for people: `console: cutover to green done`. Never a secret.
    fn describe(&self) -> String;

    /// What of it may not differ between a saved plan and a run from it. `None`: nothing that the script asks for. A message, whose
    /// words may hold what was measured meanwhile, answers only with where it goes.
    fn binds(&self) -> Option<String> {
        None
    }

    /// Targets that it looks at or may alter. In a plan, checks that depend on them cannot be known afterwards.
    fn touches(&self) -> Vec<Target> {
        Vec::new()
    }

    /// Whether it may alter what later effects meet, so that a plan no longer knows whether they find it ready. A message does not.
    fn alters(&self) -> bool {
        true
    }

    /// Does it.
    fn perform(&self, on: &On) -> impl Future<Output = Result<Self::Output, ProviderError>> + Send;

    /// Asks whether it could be performed, as far as that can be known before it is: the target is bound, the command is
    /// allowed. Called in plans only, where it must change nothing.
    ///
    /// # Errors
    /// Why a run would fail here.
    fn rehearse(&self, on: &On) -> impl Future<Output = Result<(), ProviderError>> + Send {
        let _ = on;
        async { Ok(()) }
    }

    /// What a plan answers, since it does not perform the action. `None`: not known; a script that needs it stops the plan.
    fn planned(&self) -> Option<serde_json::Value> {
        None
    }

    /// What to do when it may or may not have happened.
    fn in_doubt(&self) -> InDoubt {
        InDoubt::Ask
    }

    /// Whether it may have done some or all of what it was to do, although it failed with `error`: a command that was killed. An
    /// action that ran out of time or was stopped counts as such anyway. Pure.
    fn may_be_half_done(&self, error: &RunError) -> bool {
        let _ = error;
        false
    }

    /// Whether [`Action::undo`] takes it back.
    fn undoable(&self) -> bool {
        false
    }

    /// Takes it back on rollback. Without an `output`, nobody saw what it answered: a person found out after a crash that it had
    /// happened.
    fn undo(
        &self,
        on: &On,
        output: Option<&Self::Output>,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send {
        let _ = (on, output);
        async { Ok(()) }
    }

    /// Deadlines and tries.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// A way in which a check or a gate can go wrong, for rehearsals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which one.
    pub name: VerdictName,
    /// What the script is told.
    pub error: ProviderError,
}

impl Verdict {
    /// A verdict of that name with its error.
    pub fn new(name: VerdictName, error: ProviderError) -> Self {
        Self { name, error }
    }
}

/// How a check or a gate ends that does not pass. Written as one or two words joined by `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictName {
    /// What it looks at is not as it should be.
    Fails,
    /// It can tell neither one nor the other.
    Inconclusive,
    /// There was not enough to look at.
    NoData,
    /// Another one, by an adjective such as `stale`.
    Other(Cow<'static, str>),
}

impl VerdictName {
    /// As it is written: `fails`, `no-data`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Fails => "fails",
            Self::Inconclusive => "inconclusive",
            Self::NoData => "no-data",
            Self::Other(name) => name,
        }
    }

    /// What is said of a check that ends so, for people: `has no data`.
    pub fn predicate(&self) -> String {
        match self {
            Self::Fails => "fails".to_owned(),
            Self::Inconclusive => "is inconclusive".to_owned(),
            Self::NoData => "has no data".to_owned(),
            Self::Other(name) => format!("is {}", name.replace('-', " ")),
        }
    }
}

impl From<&str> for VerdictName {
    fn from(name: &str) -> Self {
        let known = [Self::Fails, Self::Inconclusive, Self::NoData];
        let found = known.into_iter().find(|known| known.as_str() == name);
        found.unwrap_or_else(|| Self::Other(Cow::Owned(name.to_owned())))
    }
}

/// Looks, and changes nothing.
pub trait Read: Serialize + Send + Sync + 'static {
    /// Name in the journal, `noun.verb`. Never renamed.
    const ID: &'static str;

    /// What it returns to the script.
    type Value: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What it looks at, for people: `https://shop.example.com/health`. Never a secret.
    fn describe(&self) -> String;

    /// The targets its answer depends on.
    fn depends_on(&self) -> Vec<Target>;

    /// Whether it is a check: something that passes or fails. A plan assumes that a check passes when it depends on a target
    /// that the plan has changed; a read that is no check answers what is there now.
    fn is_check(&self) -> bool {
        false
    }

    /// Looks.
    fn read(&self, on: &On) -> impl Future<Output = Result<Self::Value, ProviderError>> + Send;

    /// Which subresource of its target it looks at, as in [`Change::subresource`].
    fn subresource(&self) -> String {
        String::new()
    }

    /// Whether it is read again when a resumed run answers it from the journal, because reading leaves something behind in this
    /// process that later effects need, such as the bytes of a secret. The script gets what the journal says all the same.
    fn again_on_resume(&self) -> bool {
        false
    }

    /// What it would answer once the first of the targets it depends on is in `state`, the state of a change of the same noun
    /// that a plan carries forward. `None`: that does not follow from the state; the plan then answers what is there now.
    fn read_after(
        &self,
        on: &On,
        state: &serde_json::Value,
    ) -> impl Future<Output = Result<Option<Self::Value>, ProviderError>> + Send {
        let _ = (on, state);
        async { Ok(None) }
    }

    /// What it answers in a rehearsal in which nothing else is known and all is well. `None`: a script that needs it has to be told
    /// by the scenario.
    fn assumed(&self) -> Option<Self::Value> {
        None
    }

    /// How looking can come to something bad, which a rehearsal tries. Not being able to look is tried in any case.
    fn verdicts(&self) -> Vec<Verdict> {
        if self.is_check() {
            let error = ProviderError::terminal(crate::error::codes::PROVIDER, "the check does not pass");
            return vec![Verdict::new(VerdictName::Fails, error.about(self.describe()))];
        }
        Vec::new()
    }

    /// One line about what it found, for people. Empty: nothing to say.
    fn show(&self, value: &Self::Value) -> String {
        let _ = value;
        String::new()
    }

    /// Deadlines and tries.
    fn limits(&self) -> Limits {
        Limits::default()
    }
}

/// What ends a wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// Time passes.
    Elapsed(Duration),
    /// A person answers.
    Answered(Question),
    /// [`Wait::poll`] says so; asked again after each `every`.
    Polled {
        /// Time between two measurements.
        every: Duration,
        /// Shortest time it can take, for plans.
        at_least: Duration,
    },
}

/// What one look of a polled wait came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled<A> {
    /// The wait is over.
    Over(A),
    /// Not yet, and what is being waited for.
    Waiting(String),
}

/// Lets time pass, or waits for a person or a condition.
pub trait Wait: Serialize + Send + Sync + 'static {
    /// Name in the journal, `noun.verb`. Never renamed.
    const ID: &'static str;

    /// What it returns to the script.
    type Answer: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What a polled wait remembers between two looks. It is kept in the journal, so that a resumed run goes on with it.
    type Memory: Default + Serialize + DeserializeOwned + Send + 'static;

    /// What is waited for, for people.
    fn describe(&self) -> String;

    /// The targets that a polled wait looks at.
    fn depends_on(&self) -> Vec<Target> {
        Vec::new()
    }

    /// What ends it.
    fn until(&self) -> Until;

    /// Longest time it may take. What happens then is [`Wait::on_timeout`].
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// The answer when time has passed ([`Until::Elapsed`]) or people have replied ([`Until::Answered`]): as many as the question
    /// wants, or one who said no.
    ///
    /// # Errors
    /// Somebody said no.
    fn answer(&self, replies: &[Reply]) -> Result<Self::Answer, ProviderError>;

    /// Looks once ([`Until::Polled`]); `waited` is the time since the wait began.
    fn poll(
        &self,
        on: &On,
        memory: &mut Self::Memory,
        waited: Duration,
    ) -> impl Future<Output = Result<Polled<Self::Answer>, ProviderError>> + Send {
        let _ = (on, memory, waited);
        async { Ok(Polled::Waiting(String::new())) }
    }

    /// What a polled wait answers in a rehearsal in which all is well. `None`: a script that needs it has to be told by the scenario.
    fn assumed(&self) -> Option<Self::Answer> {
        None
    }

    /// How a polled wait can come to something bad, which a rehearsal tries.
    fn verdicts(&self) -> Vec<Verdict> {
        Vec::new()
    }

    /// What passing the deadline means.
    ///
    /// # Errors
    /// As a rule it is one.
    fn on_timeout(&self) -> Result<Self::Answer, ProviderError> {
        Err(ProviderError::terminal(crate::error::codes::TIMEOUT, "nobody answered in time"))
    }

    /// One line about how it ended, for people. Empty: nothing to say.
    fn show(&self, answer: &Self::Answer) -> String {
        let _ = answer;
        String::new()
    }
}
