//! `point_of_no_return` says that nothing before it can be undone.

use rhai::{NativeCallContext, plugin::*};

use crate::script::{ScriptResult, Session};

#[export_module]
pub(super) mod script {
    /// Declares that nothing before this point can be undone, and why. A plan shows it. If the run fails later,
    /// everything after this point is undone; everything before it stays, and the run ends as `rollback_incomplete`
    /// with a list of it.
    ///
    /// ```rhai
    /// point_of_no_return("the old database is gone");
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn point_of_no_return(cx: NativeCallContext<'_>, why: &str) -> ScriptResult<()> {
        Session::of(&cx)?.point_of_no_return(&cx, why)
    }
}
