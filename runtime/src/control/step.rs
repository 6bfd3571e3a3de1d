//! `step` names a part of a runbook.

use rhai::{Dynamic, FnPtr, NativeCallContext, plugin::*};

use crate::{kernel::Kernel, script::ScriptResult};

#[export_module]
pub(super) mod script {
    /// Runs `body` as the step `name` and returns its value. If it throws and nothing catches the error, the run is rolled back.
    ///
    /// Effects inside get ids that begin with the step's name: `preflight/1:probe.http`.
    ///
    /// ```rhai
    /// step("add", || 1 + 2) == 3
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn step(cx: NativeCallContext<'_>, name: &str, body: FnPtr) -> ScriptResult {
        Kernel::of(&cx)?.step(&cx, name, || body.call_within_context::<Dynamic>(&cx, ()))
    }
}
