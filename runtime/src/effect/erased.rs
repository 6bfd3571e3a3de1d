//! Effects without their types: states and values as JSON, futures boxed. What worlds and the journal work with.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Action, Change, InDoubt, Limits, On, Polled, Progress, Read, Reply, Undo, Until, Verdict, Wait};
use crate::{
    clock::BoxFuture,
    error::{RunError, codes},
    provider::ProviderError,
    target::Target,
};

fn encode<T: Serialize>(value: &T) -> Result<Value, ProviderError> {
    serde_json::to_value(value).map_err(|e| {
        ProviderError::terminal(codes::INTERNAL, format!("a state cannot be written as JSON: {e}"))
    })
}

fn decode<T: DeserializeOwned>(value: &Value) -> Result<T, ProviderError> {
    T::deserialize(value)
        .map_err(|e| ProviderError::terminal(codes::INTERNAL, format!("a state cannot be read back: {e}")))
}

/// A [`Change`] without its type.
pub trait AnyChange: Send + Sync {
    /// [`Change::ID`].
    fn effect(&self) -> &'static str;
    /// [`Change::target`].
    fn target(&self) -> Target;
    /// [`Change::subresource`].
    fn subresource(&self) -> String;
    /// [`Change::limits`].
    fn limits(&self) -> Limits;
    /// [`Change::touches`].
    fn touches(&self) -> Vec<Target>;
    /// [`Change::observe`].
    fn observe<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>>;
    /// [`Change::desired`].
    ///
    /// # Errors
    /// As there.
    fn desired(&self, now: &Value) -> Result<Value, ProviderError>;
    /// [`Change::apply`].
    fn apply<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// [`Change::settled`].
    fn settled<'a>(&'a self, on: &'a On, to: &'a Value) -> BoxFuture<'a, Result<Progress, ProviderError>>;
    /// [`Change::fence`].
    fn fence<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// [`Change::may_be_half_done`].
    fn may_be_half_done(&self, from: &Value, to: &Value, error: Option<&RunError>) -> bool;
    /// [`Change::undo`].
    fn undo(&self, from: &Value, to: &Value) -> Undo;
    /// [`Change::rehearse`].
    fn rehearse<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<Option<String>, ProviderError>>;
    /// [`Change::ready`].
    fn ready<'a>(&'a self, on: &'a On, to: &'a Value) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// [`Change::estimate`].
    fn estimate<'a>(&'a self, on: &'a On, from: &'a Value, to: &'a Value) -> BoxFuture<'a, Option<Duration>>;
    /// The state for people.
    fn show(&self, state: &Value) -> String;
}

impl<E: Change> AnyChange for E {
    fn effect(&self) -> &'static str {
        E::ID
    }
    fn target(&self) -> Target {
        Change::target(self)
    }
    fn subresource(&self) -> String {
        Change::subresource(self)
    }
    fn limits(&self) -> Limits {
        Change::limits(self)
    }
    fn touches(&self) -> Vec<Target> {
        Change::touches(self)
    }
    fn observe<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>> {
        Box::pin(async move { encode(&Change::observe(self, on).await?) })
    }
    fn desired(&self, now: &Value) -> Result<Value, ProviderError> {
        encode(&Change::desired(self, &decode(now)?)?)
    }
    fn apply<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move { Change::apply(self, on, &decode(from)?, &decode(to)?).await })
    }
    fn settled<'a>(&'a self, on: &'a On, to: &'a Value) -> BoxFuture<'a, Result<Progress, ProviderError>> {
        Box::pin(async move { Change::settled(self, on, &decode(to)?).await })
    }
    fn fence<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move { Change::fence(self, on, &decode(from)?, &decode(to)?).await })
    }
    fn may_be_half_done(&self, from: &Value, to: &Value, error: Option<&RunError>) -> bool {
        match (decode(from), decode(to)) {
            (Ok(from), Ok(to)) => Change::may_be_half_done(self, &from, &to, error),
            _ => true,
        }
    }
    fn undo(&self, from: &Value, to: &Value) -> Undo {
        match (decode(from), decode(to)) {
            (Ok(from), Ok(to)) => Change::undo(self, &from, &to),
            (Err(e), _) | (_, Err(e)) => Undo::Impossible(e.message),
        }
    }
    fn rehearse<'a>(
        &'a self,
        on: &'a On,
        from: &'a Value,
        to: &'a Value,
    ) -> BoxFuture<'a, Result<Option<String>, ProviderError>> {
        Box::pin(async move { Change::rehearse(self, on, &decode(from)?, &decode(to)?).await })
    }
    fn ready<'a>(&'a self, on: &'a On, to: &'a Value) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move { Change::ready(self, on, &decode(to)?).await })
    }
    fn estimate<'a>(&'a self, on: &'a On, from: &'a Value, to: &'a Value) -> BoxFuture<'a, Option<Duration>> {
        Box::pin(async move { Change::estimate(self, on, &decode(from).ok()?, &decode(to).ok()?).await })
    }
    fn show(&self, state: &Value) -> String {
        decode::<E::State>(state).map_or_else(|_| state.to_string(), |state| state.to_string())
    }
}

/// An [`Action`] without its type.
pub trait AnyAction: Send + Sync {
    /// [`Action::ID`].
    fn effect(&self) -> &'static str;
    /// [`Action::describe`].
    fn describe(&self) -> String;
    /// The canonical input, as the journal keeps it.
    fn input(&self) -> String;
    /// [`Action::binds`].
    fn binds(&self) -> Option<String>;
    /// [`Action::alters`].
    fn alters(&self) -> bool;
    /// [`Action::touches`].
    fn touches(&self) -> Vec<Target>;
    /// [`Action::limits`].
    fn limits(&self) -> Limits;
    /// [`Action::perform`].
    fn perform<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>>;
    /// [`Action::rehearse`].
    fn rehearse<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// [`Action::planned`].
    fn planned(&self) -> Option<Value>;
    /// [`Action::in_doubt`].
    fn in_doubt(&self) -> InDoubt;
    /// [`Action::undoable`].
    fn undoable(&self) -> bool;
    /// [`Action::may_be_half_done`].
    fn may_be_half_done(&self, error: &RunError) -> bool;
    /// [`Action::undo`].
    fn undo<'a>(&'a self, on: &'a On, output: &'a Value) -> BoxFuture<'a, Result<(), ProviderError>>;
}

impl<E: Action> AnyAction for E {
    fn effect(&self) -> &'static str {
        E::ID
    }
    fn describe(&self) -> String {
        Action::describe(self)
    }
    fn input(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
    fn binds(&self) -> Option<String> {
        Action::binds(self)
    }
    fn alters(&self) -> bool {
        Action::alters(self)
    }
    fn touches(&self) -> Vec<Target> {
        Action::touches(self)
    }
    fn limits(&self) -> Limits {
        Action::limits(self)
    }
    fn perform<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>> {
        Box::pin(async move { encode(&Action::perform(self, on).await?) })
    }
    fn rehearse<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(Action::rehearse(self, on))
    }
    fn planned(&self) -> Option<Value> {
        Action::planned(self)
    }
    fn in_doubt(&self) -> InDoubt {
        Action::in_doubt(self)
    }
    fn undoable(&self) -> bool {
        Action::undoable(self)
    }
    fn may_be_half_done(&self, error: &RunError) -> bool {
        Action::may_be_half_done(self, error)
    }
    fn undo<'a>(&'a self, on: &'a On, output: &'a Value) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(async move {
            let output = match decode(output) {
                Ok(output) => Some(output),
                Err(_) if output.is_null() => None,
                Err(error) => return Err(error),
            };
            Action::undo(self, on, output.as_ref()).await
        })
    }
}

/// A [`Read`] without its type.
pub trait AnyRead: Send + Sync {
    /// [`Read::ID`].
    fn effect(&self) -> &'static str;
    /// [`Read::describe`].
    fn describe(&self) -> String;
    /// [`Read::depends_on`].
    fn depends_on(&self) -> Vec<Target>;
    /// [`Read::is_check`].
    fn is_check(&self) -> bool;
    /// [`Read::again_on_resume`].
    fn again_on_resume(&self) -> bool;
    /// [`Read::limits`].
    fn limits(&self) -> Limits;
    /// [`Read::read`].
    fn read<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>>;
    /// [`Read::subresource`].
    fn subresource(&self) -> String;
    /// [`Read::read_after`].
    fn read_after<'a>(
        &'a self,
        on: &'a On,
        state: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Value>, ProviderError>>;
    /// The canonical input, as the journal keeps it.
    fn input(&self) -> String;
    /// [`Read::assumed`].
    fn assumed(&self) -> Option<Value>;
    /// [`Read::verdicts`].
    fn verdicts(&self) -> Vec<Verdict>;
    /// [`Read::show`].
    fn show(&self, value: &Value) -> String;
}

impl<E: Read> AnyRead for E {
    fn effect(&self) -> &'static str {
        E::ID
    }
    fn describe(&self) -> String {
        Read::describe(self)
    }
    fn depends_on(&self) -> Vec<Target> {
        Read::depends_on(self)
    }
    fn is_check(&self) -> bool {
        Read::is_check(self)
    }
    fn again_on_resume(&self) -> bool {
        Read::again_on_resume(self)
    }
    fn limits(&self) -> Limits {
        Read::limits(self)
    }
    fn read<'a>(&'a self, on: &'a On) -> BoxFuture<'a, Result<Value, ProviderError>> {
        Box::pin(async move { encode(&Read::read(self, on).await?) })
    }
    fn subresource(&self) -> String {
        Read::subresource(self)
    }
    fn read_after<'a>(
        &'a self,
        on: &'a On,
        state: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Value>, ProviderError>> {
        Box::pin(
            async move { Read::read_after(self, on, state).await?.map(|value| encode(&value)).transpose() },
        )
    }
    fn input(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
    fn assumed(&self) -> Option<Value> {
        Read::assumed(self).and_then(|value| encode(&value).ok())
    }
    fn verdicts(&self) -> Vec<Verdict> {
        Read::verdicts(self)
    }
    fn show(&self, value: &Value) -> String {
        decode::<E::Value>(value).map_or_else(|_| String::new(), |value| Read::show(self, &value))
    }
}

/// What a polled wait remembers, without its type.
pub type AnyMemory = Box<dyn std::any::Any + Send>;

/// A [`Wait`] without its type.
pub trait AnyWait: Send + Sync {
    /// [`Wait::ID`].
    fn effect(&self) -> &'static str;
    /// [`Wait::describe`].
    fn describe(&self) -> String;
    /// [`Wait::depends_on`].
    fn depends_on(&self) -> Vec<Target>;
    /// [`Wait::until`].
    fn until(&self) -> Until;
    /// [`Wait::deadline`].
    fn deadline(&self) -> Option<Duration>;
    /// [`Wait::answer`].
    ///
    /// # Errors
    /// As there.
    fn answer(&self, replies: &[Reply]) -> Result<Value, ProviderError>;
    /// A [`Wait::Memory`]: as it was kept, or empty.
    fn memory(&self, kept: Option<&Value>) -> AnyMemory;
    /// The memory as it is kept.
    fn keep(&self, memory: &AnyMemory) -> Value;
    /// [`Wait::poll`].
    fn poll<'a>(
        &'a self,
        on: &'a On,
        memory: &'a mut AnyMemory,
        waited: Duration,
    ) -> BoxFuture<'a, Result<Polled<Value>, ProviderError>>;
    /// The canonical input, as the journal keeps it.
    fn input(&self) -> String;
    /// [`Wait::assumed`].
    fn assumed(&self) -> Option<Value>;
    /// [`Wait::verdicts`].
    fn verdicts(&self) -> Vec<Verdict>;
    /// [`Wait::on_timeout`].
    ///
    /// # Errors
    /// As there.
    fn on_timeout(&self) -> Result<Value, ProviderError>;
    /// [`Wait::show`].
    fn show(&self, answer: &Value) -> String;
}

impl<E: Wait> AnyWait for E {
    fn effect(&self) -> &'static str {
        E::ID
    }
    fn describe(&self) -> String {
        Wait::describe(self)
    }
    fn depends_on(&self) -> Vec<Target> {
        Wait::depends_on(self)
    }
    fn until(&self) -> Until {
        Wait::until(self)
    }
    fn deadline(&self) -> Option<Duration> {
        Wait::deadline(self)
    }
    fn answer(&self, replies: &[Reply]) -> Result<Value, ProviderError> {
        encode(&Wait::answer(self, replies)?)
    }
    fn memory(&self, kept: Option<&Value>) -> AnyMemory {
        Box::new(
            kept.and_then(|kept| <E::Memory as serde::Deserialize>::deserialize(kept).ok())
                .unwrap_or_default(),
        )
    }
    fn keep(&self, memory: &AnyMemory) -> Value {
        memory
            .downcast_ref::<E::Memory>()
            .and_then(|memory| serde_json::to_value(memory).ok())
            .unwrap_or_default()
    }
    fn poll<'a>(
        &'a self,
        on: &'a On,
        memory: &'a mut AnyMemory,
        waited: Duration,
    ) -> BoxFuture<'a, Result<Polled<Value>, ProviderError>> {
        Box::pin(async move {
            let memory = memory.downcast_mut::<E::Memory>().ok_or_else(|| {
                ProviderError::terminal(codes::INTERNAL, "a wait was polled with another's memory")
            })?;
            Ok(match Wait::poll(self, on, memory, waited).await? {
                Polled::Over(answer) => Polled::Over(encode(&answer)?),
                Polled::Waiting(what) => Polled::Waiting(what),
            })
        })
    }
    fn input(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
    fn assumed(&self) -> Option<Value> {
        Wait::assumed(self).and_then(|answer| encode(&answer).ok())
    }
    fn verdicts(&self) -> Vec<Verdict> {
        Wait::verdicts(self)
    }
    fn on_timeout(&self) -> Result<Value, ProviderError> {
        encode(&Wait::on_timeout(self)?)
    }
    fn show(&self, answer: &Value) -> String {
        decode::<E::Answer>(answer).map_or_else(|_| String::new(), |answer| Wait::show(self, &answer))
    }
}
