//! The kernel performs effects: identity, policy, journal, retries, undo, events. It knows no vendor and no script.

use rhai::NativeCallContext;

use crate::{
    effect::{Action, Change, Read, Wait},
    error::RunError,
    script::{ScriptError, ScriptResult},
};

/// One run.
pub struct Kernel {}

#[expect(unused_variables, clippy::unused_self, reason = "being written")]
impl Kernel {
    pub(crate) fn of(cx: &NativeCallContext<'_>) -> ScriptResult<std::sync::Arc<Self>> {
        Err("outside a run".into())
    }
    pub(crate) fn change<E: Change>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        Err("".into())
    }
    pub(crate) fn action<E: Action>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        Err("".into())
    }
    pub(crate) fn read<E: Read>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        Err("".into())
    }
    pub(crate) fn read_value<E: Read>(
        &self,
        cx: &NativeCallContext<'_>,
        effect: E,
    ) -> ScriptResult<E::Value> {
        Err("".into())
    }
    pub(crate) fn wait<E: Wait>(&self, cx: &NativeCallContext<'_>, effect: E) -> ScriptResult {
        Err("".into())
    }
    pub(crate) fn throw(&self, cx: &NativeCallContext<'_>, error: RunError) -> ScriptError {
        "".into()
    }
}
