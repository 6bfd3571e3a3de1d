//! Worlds: what carries effects out.
//!
//! **Invariant:** only worlds differ by mode. The kernel does the same for an effect in each of them.

mod live;
mod predicted;

use std::time::Duration;

use async_trait::async_trait;
use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

pub use self::{
    live::{Elsewhere, LiveWorld, NoPeople, People, YesToAll},
    predicted::PredictedWorld,
};
use crate::{
    effect::{AnyAction, AnyChange, AnyRead, AnyWait, On, Progress, Question, Reply},
    event::{Event, Grade, Mode},
    plan::Estimate,
    provider::ProviderError,
};

/// What a world knows of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// The value.
    Value(Value),
    /// Only a real run can tell.
    Unknown,
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Waited {
    /// The answer.
    pub answer: Known,
    /// How sure it is.
    pub grade: Grade,
    /// Shortest time it would take; in a live run, zero: the clock tells.
    pub at_least: Duration,
}

/// What is to be said about a move that is not made for real.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Foresight {
    /// What trying it without effect has shown.
    pub note: Option<String>,
    /// How long it is expected to take.
    pub estimate: Option<Estimate>,
}

/// What is known of a wait from before, and where it tells how it goes.
pub struct Waiting<'w> {
    /// Time that passed before this runner took the run over.
    pub waited: Duration,
    /// What a polled wait remembers from then.
    pub memory: Option<Value>,
    /// What people had answered by then.
    pub replies: Vec<Reply>,
    /// Where it tells.
    pub channel: &'w dyn WaitChannel,
}

impl std::fmt::Debug for Waiting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("waited", &self.waited).finish_non_exhaustive()
    }
}

/// The kernel's side of a wait.
#[async_trait]
pub trait WaitChannel: Send + Sync {
    /// Tells listeners.
    fn emit(&self, event: Event);

    /// Keeps how far it is.
    async fn checkpoint(&self, waited: Duration, memory: Value);

    /// Keeps an answer.
    async fn record_reply(&self, reply: &Reply);

    /// Whether answers can come from elsewhere.
    fn takes_answers(&self) -> bool;

    /// The next answer from elsewhere, if one is there.
    async fn next_answer(&self) -> Option<Reply>;
}

/// Carries effects out, each in its own way.
#[async_trait]
pub trait World: Send + Sync {
    /// Which one it is, for events.
    fn mode(&self) -> Mode;

    /// Whether effects take no time here: what they would take is summed up, and the end of a run is that of a prediction.
    fn sums_up_time(&self) -> bool {
        false
    }

    /// Whether there are values that only a real run can tell.
    fn may_not_know(&self) -> bool {
        false
    }

    /// Whether other runs may reach the targets that are changed, so that each is locked.
    fn locks_targets(&self) -> bool {
        true
    }

    /// Whether people are asked, and their answers heard.
    fn hears_people(&self) -> bool {
        true
    }

    /// Whether there is something to undo when a run fails.
    fn undoes(&self) -> bool {
        true
    }

    /// The script passed a point of no return.
    fn no_return(&self, id: &EffectId) {
        let _ = id;
    }

    /// The script says that something must hold from here on. Answers how many moves there had been when it first said so. `None`: nobody
    /// will ask.
    fn invariant(&self, id: &EffectId) -> Option<usize> {
        let _ = id;
        None
    }

    /// Looks at the target of a change.
    async fn observe(&self, on: &On, change: &dyn AnyChange) -> Result<(Value, Grade), ProviderError>;

    /// Sees to it that nothing of a move that broke off lands any more.
    async fn fence(
        &self,
        on: &On,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        let _ = (on, change, from, to);
        Ok(())
    }

    /// Makes the move.
    async fn apply(
        &self,
        on: &On,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
    ) -> Result<(), ProviderError>;

    /// Whether the move is in effect.
    async fn settled(&self, on: &On, change: &dyn AnyChange, to: &Value) -> Result<Progress, ProviderError>;

    /// Puts a target that died with an earlier process where the journal of the run says that it was.
    async fn bring_back(&self, on: &On, change: &dyn AnyChange, to: &Value) -> Result<(), ProviderError> {
        let _ = (on, change, to);
        Ok(())
    }

    /// What is to be said about a move that is not made for real.
    async fn foresee(
        &self,
        on: &On,
        change: &dyn AnyChange,
        grade: Grade,
        from: &Value,
        to: &Value,
    ) -> Result<Foresight, ProviderError> {
        let _ = (on, change, grade, from, to);
        Ok(Foresight::default())
    }

    /// Performs an action.
    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError>;

    /// Takes an action back.
    async fn take_back(&self, on: &On, action: &dyn AnyAction, output: &Value) -> Result<(), ProviderError>;

    /// Looks.
    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError>;

    /// Waits.
    async fn wait(&self, on: &On, wait: &dyn AnyWait, waiting: Waiting<'_>) -> Result<Waited, ProviderError>;

    /// Watches for a guard, and completes once there is a reason to stop what it guards.
    async fn watch(&self, on: &On, watch: &dyn AnyWait) -> ProviderError;

    /// Asks people something; answers with their replies once these come to a verdict.
    async fn ask(
        &self,
        on: &On,
        question: &Question,
        waiting: Waiting<'_>,
    ) -> Result<Vec<Reply>, ProviderError>;
}
