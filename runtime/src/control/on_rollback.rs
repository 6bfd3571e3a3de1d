//! `on_rollback` says how to undo what the script did in its own way.

use rhai::{FnPtr, NativeCallContext, plugin::*};

use crate::script::{ScriptResult, Session, takes};

#[export_module]
pub(super) mod script {
    /// Calls `undo` if the run is rolled back, in reverse order with everything else that is undone. It has the values
    /// that it captured, also after a resume.
    ///
    /// Register it right after (or right before) what it undoes. Effects inside it are journaled like all others.
    ///
    /// ```rhai
    /// on_rollback(|| log("taking it back"));
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn on_rollback(cx: NativeCallContext<'_>, undo: FnPtr) -> ScriptResult<()> {
        takes(&cx, &undo, 0)?;
        let line = cx.call_position().line().unwrap_or(0);
        let source = cx.call_source().unwrap_or_default().to_owned();
        Session::of(&cx)?.on_rollback(&cx, undo, format!("on_rollback at {source}:{line}"))
    }
}
