//! `on_rollback` says how to undo what the script did in its own way.

use rhai::{FnPtr, NativeCallContext, plugin::*};

use crate::{
    journal::{Entry, replay::Mark},
    kernel::{Kernel, Undoing, cursor},
    script::ScriptResult,
};

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
        let kernel = Kernel::of(&cx)?;
        let id = cursor::next("on_rollback");
        let line = cx.call_position().line().unwrap_or(0);
        let source = cx.call_source().unwrap_or_default().to_owned();
        #[expect(
            deprecated,
            reason = "the only way to keep a call's context for later; volatile, not deprecated"
        )]
        let context = Box::new(cx.store_data());
        let what = format!("on_rollback at {source}:{line}");
        let entry = Entry::UndoRegistered { place: what.clone() };
        kernel.register(&cx, Mark::Registered, &entry, id, Undoing::Closure { what, body: undo, context })
    }
}
