//! Effects that a script asks for, and what they come to as values of the script.

use rhai::{Dynamic, NativeCallContext};
use serde::de::DeserializeOwned;

use super::{
    super::{
        ScriptResult,
        convert::{self, Unknown},
    },
    Session,
};
use crate::{
    budget,
    effect::{Action, Change, Read, Wait},
    error::{RunError, codes},
    world::Known,
};

impl Session {
    pub(crate) fn change<E: Change>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self.kernel.change(effect);
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn action<E: Action>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self.kernel.action(effect);
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn read<E: Read>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self.kernel.read(&effect);
        self.finish(cx, E::ID, result)
    }

    pub(crate) fn read_value<E: Read>(
        &self,
        cx: &NativeCallContext<'_>,
        effect: E,
    ) -> ScriptResult<E::Value> {
        let read = self.kernel.read(&effect);
        budget::worked_elsewhere();
        let typed = read.and_then(|known| match known {
            Known::Value(value) => decode(value),
            Known::Unknown => Err(convert::unknown_in_plan(&self.origin(cx, E::ID))),
        });
        typed.map_err(|error| self.throw(cx, error))
    }

    pub(crate) fn wait<E: Wait>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        let result = self.kernel.wait(&effect);
        self.finish(cx, E::ID, result)
    }

    /// Gives the result of an effect to the script.
    fn finish(
        &self,
        cx: &NativeCallContext<'_>,
        effect: &str,
        result: Result<Known, RunError>,
    ) -> ScriptResult {
        budget::worked_elsewhere();
        match result {
            Ok(Known::Value(value)) => Ok(convert::from_json(value)),
            Ok(Known::Unknown) => Ok(Dynamic::from(Unknown { origin: self.origin(cx, effect) })),
            Err(error) => Err(self.throw(cx, error)),
        }
    }
}

fn decode<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, RunError> {
    serde_json::from_value(value)
        .map_err(|e| RunError::new(codes::INTERNAL, format!("a value cannot be read back: {e}")))
}
