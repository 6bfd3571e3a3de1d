//! `fail` ends a run with a reason.

use rhai::{NativeCallContext, plugin::*};

use crate::{
    error::{RunError, codes},
    script::{ScriptContext as _, ScriptResult},
};

#[export_module]
pub(super) mod script {
    /// Throws `failed` with a reason. If nothing catches it, the run ends and is rolled back.
    ///
    /// ```rhai
    /// let seen = ();
    /// try { fail("no capacity left"); } catch (e) { seen = e.message; }
    /// seen == "no capacity left"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn fail(cx: NativeCallContext<'_>, reason: &str) -> ScriptResult {
        Err(cx.throw(RunError::new(codes::FAILED, reason)))
    }
}
