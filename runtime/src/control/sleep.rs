//! `sleep` lets time pass.

use rhai::{NativeCallContext, plugin::*};
use serde::Serialize;

use crate::{
    effect::{Reply, Until, Wait},
    provider::ProviderError,
    quantity::Span,
    script::{ScriptContext as _, ScriptResult},
};

/// A length of time to let pass.
#[derive(Debug, Serialize)]
pub(super) struct Sleep {
    span: Span,
}

impl Wait for Sleep {
    const ID: &'static str = "sleep";
    type Answer = ();
    type Memory = ();

    fn describe(&self) -> String {
        self.span.to_string()
    }

    fn until(&self) -> Until {
        Until::Elapsed(self.span.0)
    }

    fn answer(&self, _: &[Reply]) -> Result<(), ProviderError> {
        Ok(())
    }
}

#[export_module]
pub(super) mod script {
    /// Waits: `sleep("90s")`. A plan only counts the time; a stopped run does not wait for it to end.
    ///
    /// ```rhai
    /// sleep("10ms");
    /// true
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn sleep(cx: NativeCallContext<'_>, span: &str) -> ScriptResult {
        cx.wait(Sleep { span: cx.arg("span", span.to_owned())? })
    }

    /// Refuses a bare number: nobody can see whether seconds or minutes were meant.
    ///
    /// ```rhai
    /// let span = 90;
    /// let refused = false;
    /// try { sleep(span); } catch (e) { refused = e.code == "argument"; }
    /// refused
    /// ```
    #[rhai_fn(name = "sleep", return_raw, volatile)]
    pub fn sleep_number(cx: NativeCallContext<'_>, span: i64) -> ScriptResult {
        Err(cx.bad_argument("span", &format!("{span} has no unit: write sleep(\"{span}s\")")))
    }

    /// Refuses a bare number: nobody can see whether seconds or minutes were meant.
    ///
    /// ```rhai
    /// let span = 1.5;
    /// let refused = false;
    /// try { sleep(span); } catch (e) { refused = e.code == "argument"; }
    /// refused
    /// ```
    #[rhai_fn(name = "sleep", return_raw, volatile)]
    pub fn sleep_float(cx: NativeCallContext<'_>, span: f64) -> ScriptResult {
        Err(cx.bad_argument("span", &format!("{span} has no unit: write a duration such as sleep(\"90s\")")))
    }
}
