//! `note` and `log` put words into the record of a run.

use rhai::{NativeCallContext, plugin::*};

use crate::{
    event::NoteLevel,
    script::{ScriptResult, Session},
};

#[export_module]
pub(super) mod script {
    /// Adds a line to the record of the run.
    ///
    /// ```rhai
    /// note("starting with 5%");
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn note(cx: NativeCallContext<'_>, text: &str) -> ScriptResult<()> {
        Session::of(&cx)?.kernel.note(NoteLevel::Note, text);
        Ok(())
    }

    /// Adds a detail to the record of the run; shown with `-v`.
    ///
    /// ```rhai
    /// log("nothing special");
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn log(cx: NativeCallContext<'_>, text: &str) -> ScriptResult<()> {
        Session::of(&cx)?.kernel.note(NoteLevel::Log, text);
        Ok(())
    }
}
