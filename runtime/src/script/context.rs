//! What a primitive's script function has at hand.

use std::sync::Arc;

use rhai::{Dynamic, EvalAltResult, FnPtr, Map, NativeCallContext};
use serde::de::DeserializeOwned;

use super::{Session, check::wrong_closure, convert};
use crate::{
    effect::AnyWait,
    effect::{Action, Change, Read, Wait},
    error::{RunError, codes},
};

/// The error type of script functions.
pub type ScriptError = Box<EvalAltResult>;

/// What script functions return.
pub type ScriptResult<T = Dynamic> = Result<T, ScriptError>;

/// Arguments in, effects out: everything a primitive's script function needs of its call.
///
/// ```ignore
/// pub fn shift(cx: NativeCallContext, route: &str, pool: &str, percent: i64) -> ScriptResult {
///     cx.change(Shift { route: cx.arg("route", route)?, pool: cx.arg("pool", pool)?, percent: cx.arg("percent", percent)? })
/// }
/// ```
pub trait ScriptContext {
    /// Decodes one argument. A wrong one is refused with the argument's name and what was expected.
    ///
    /// # Errors
    /// `argument`, catchable.
    fn arg<T: DeserializeOwned>(&self, name: &str, value: impl Into<Dynamic>) -> ScriptResult<T>;

    /// Decodes an options map into a struct that denies unknown fields. An unknown one is answered with *did you mean*.
    ///
    /// # Errors
    /// `argument`, catchable.
    fn options<T: DeserializeOwned>(&self, options: Map) -> ScriptResult<T>;

    /// Performs a change; returns the state that is then in effect.
    ///
    /// # Errors
    /// Why it did not come into effect.
    fn change<E: Change>(&self, effect: E) -> ScriptResult;

    /// Performs an action; returns its output.
    ///
    /// # Errors
    /// Why it failed.
    fn action<E: Action>(&self, effect: E) -> ScriptResult;

    /// Performs a read; returns what was found.
    ///
    /// # Errors
    /// Why nothing could be found, or why a check did not pass.
    fn read<E: Read>(&self, effect: E) -> ScriptResult;

    /// Performs a read whose value the primitive itself uses, for an effect that follows.
    ///
    /// # Errors
    /// As [`ScriptContext::read`].
    fn read_value<E: Read>(&self, effect: E) -> ScriptResult<E::Value>;

    /// Waits; returns the answer.
    ///
    /// # Errors
    /// A timeout, a no, a failed condition.
    fn wait<E: Wait>(&self, effect: E) -> ScriptResult;

    /// Calls `body` while each of `watches` is polled: a [`Wait`] that ends, or fails, stops the body at once, and its error is thrown
    /// here. Within the body it cannot be caught.
    ///
    /// # Errors
    /// What a watch found; the body's own.
    fn guard(&self, watches: Vec<Arc<dyn AnyWait>>, body: &FnPtr) -> ScriptResult;

    /// An error at this call. `name` is the argument it is about.
    fn bad_argument(&self, name: &str, message: &str) -> ScriptError;

    /// Turns an error into one that can be thrown into the script at this call.
    fn throw(&self, error: RunError) -> ScriptError;

    /// Ends the run at this call, whatever the script does with the error. Also where Rhai drops errors: it ignores those of
    /// `to_string` when it fills in a text or prints an array. No effect begins after that.
    fn stop(&self, error: RunError) -> ScriptError;
}

impl ScriptContext for NativeCallContext<'_> {
    fn arg<T: DeserializeOwned>(&self, name: &str, value: impl Into<Dynamic>) -> ScriptResult<T> {
        convert::decode(&value.into(), name).map_err(|e| self.throw(e))
    }

    fn options<T: DeserializeOwned>(&self, options: Map) -> ScriptResult<T> {
        convert::decode(&Dynamic::from(options), "").map_err(|e| self.throw(e))
    }

    fn change<E: Change>(&self, effect: E) -> ScriptResult {
        Session::of(self)?.change(self, effect)
    }

    fn action<E: Action>(&self, effect: E) -> ScriptResult {
        Session::of(self)?.action(self, effect)
    }

    fn read<E: Read>(&self, effect: E) -> ScriptResult {
        Session::of(self)?.read(self, effect)
    }

    fn read_value<E: Read>(&self, effect: E) -> ScriptResult<E::Value> {
        Session::of(self)?.read_value(self, effect)
    }

    fn wait<E: Wait>(&self, effect: E) -> ScriptResult {
        Session::of(self)?.wait(self, effect)
    }

    fn guard(&self, watches: Vec<Arc<dyn AnyWait>>, body: &FnPtr) -> ScriptResult {
        takes(self, body, 0)?;
        Session::of(self)?.guard(self, watches, || body.call_within_context::<Dynamic>(self, ()))
    }

    fn bad_argument(&self, name: &str, message: &str) -> ScriptError {
        self.throw(RunError::new(codes::ARGUMENT, format!("`{name}`: {message}")))
    }

    fn throw(&self, error: RunError) -> ScriptError {
        match Session::of(self) {
            Ok(session) => session.throw(self, error),
            Err(outside) => outside,
        }
    }

    fn stop(&self, error: RunError) -> ScriptError {
        match Session::of(self) {
            Ok(session) => session.stop(self, error),
            Err(outside) => outside,
        }
    }
}

/// Whether a closure can be called with so many arguments: it is found out where it is given away, not when it is needed.
///
/// # Errors
/// `argument`: it takes another number of them.
pub(crate) fn takes(cx: &NativeCallContext<'_>, body: &FnPtr, given: usize) -> ScriptResult<()> {
    const MOST: usize = 32;
    let known =
        |count: usize| cx.iter_namespaces().any(|lib| lib.get_script_fn(body.fn_name(), count).is_some());
    let taken = body.curry().len();
    if !body.is_anonymous() || known(taken + given) {
        return Ok(());
    }
    match (0..=MOST).find(|count| known(taken + count)) {
        Some(count) => Err(cx.throw(wrong_closure(cx.fn_name(), given, count))),
        None => Ok(()),
    }
}
