//! `invariant` says what must hold at every moment of a rehearsal.

use rhai::{FnPtr, NativeCallContext, plugin::*};

use crate::script::{ScriptResult, Session, takes};

#[export_module]
pub(super) mod script {
    /// Declares what must hold from here on, whatever goes wrong. `contraflow rehearse` evaluates `holds` after every
    /// change; runs and plans do not.
    ///
    /// `holds` gets the states of all targets that the run has used, by noun and name, and returns true or false. It
    /// performs no effects.
    ///
    /// ```rhai
    /// invariant("green never has all traffic before it has capacity", |world| {
    ///     "traffic" !in world || world.traffic.web.green < 100 || world.deploy["web/green"] > 0
    /// });
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn invariant(cx: NativeCallContext<'_>, text: &str, holds: FnPtr) -> ScriptResult<()> {
        takes(&cx, &holds, 1)?;
        Session::of(&cx)?.keep_invariant(&cx, text, holds);
        Ok(())
    }
}
