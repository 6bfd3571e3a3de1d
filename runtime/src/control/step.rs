//! `step` names a part of a runbook.

use rhai::{Dynamic, FnPtr, Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    quantity::Span,
    script::{ScriptContext as _, ScriptResult, Session, takes},
};

/// Options of `step`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// The step is stopped after this time, also during a sleep or a question, and throws `timeout`. Time while no
    /// process works on the run, after a crash or a pause, does not count.
    timeout: Option<Span>,
}

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
        takes(&cx, &body, 0)?;
        Session::of(&cx)?.step(&cx, name, None, || body.call_within_context::<Dynamic>(&cx, ()))
    }

    /// ```rhai
    /// let late = false;
    /// try { step("soak", #{ timeout: "50ms" }, || sleep("1m")); } catch (e) { late = e.code == "timeout"; }
    /// late
    /// ```
    #[rhai_fn(name = "step", return_raw, volatile)]
    pub fn step_with(cx: NativeCallContext<'_>, name: &str, options: Map, body: FnPtr) -> ScriptResult {
        takes(&cx, &body, 0)?;
        let options: super::Options = cx.options(options)?;
        let timeout = options.timeout.map(|span| span.0);
        Session::of(&cx)?.step(&cx, name, timeout, || body.call_within_context::<Dynamic>(&cx, ()))
    }
}
