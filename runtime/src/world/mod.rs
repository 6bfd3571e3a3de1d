//! Worlds: what carries effects out.
//!
//! **Invariant:** only worlds differ by mode. The kernel does the same for an effect in each of them.

mod live;
mod predicted;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

pub use self::{
    live::{LiveWorld, NoPeople, People, YesToAll},
    predicted::PredictedWorld,
};
use crate::{
    effect::{On, Progress, Reply},
    event::{Grade, Mode},
    kernel::{AnyAction, AnyChange, AnyRead, AnyWait},
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
    /// The person's reply, if one was asked.
    pub reply: Option<Reply>,
}

/// Carries effects out, each in its own way.
#[async_trait]
pub trait World: Send + Sync {
    /// Which one it is, for events.
    fn mode(&self) -> Mode;

    /// Looks at the target of a change.
    async fn observe(&self, on: &On, change: &dyn AnyChange) -> Result<(Value, Grade), ProviderError>;

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

    /// What is to be said about a move that is not made for real.
    async fn foresee(
        &self,
        on: &On,
        change: &dyn AnyChange,
        grade: Grade,
        from: &Value,
        to: &Value,
    ) -> Result<Option<String>, ProviderError>;

    /// Performs an action.
    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError>;

    /// Takes an action back.
    async fn take_back(&self, on: &On, action: &dyn AnyAction, output: &Value) -> Result<(), ProviderError>;

    /// Looks.
    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError>;

    /// Waits. `waited` is the time that passed before a crash.
    async fn wait(&self, on: &On, wait: &dyn AnyWait, waited: Duration) -> Result<Waited, ProviderError>;
}
