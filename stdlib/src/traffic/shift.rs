//! `traffic::shift` gives one pool a share of a route's traffic.

use std::time::Duration;

use contraflow_runtime::script::{ScriptContext as _, ScriptResult};
use contraflow_runtime::{
    effect::{Change, Limits, On, Progress},
    provider::ProviderError,
    quantity::Span,
    target::Target,
};
use rhai::{Dynamic, NativeCallContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Share, Traffic, Weights};

/// Options of a change of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Time limit until the weights are in effect and pools without weight have no open connection; after it, the
    /// change fails
    /// as `not-settled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = DRAIN))]
    pub drain: Option<Span>,
    /// Time limit for one attempt to set the weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Span::from(Limits::default().timeout)))]
    pub timeout: Option<Span>,
}

/// How long connections may take to drain.
const DRAIN: Span = Span::secs(300);

impl Options {
    pub(super) fn limits(self) -> Limits {
        let usual = Limits { settle: DRAIN.0, ..Limits::default() };
        Limits {
            settle: self.drain.map_or(usual.settle, Duration::from),
            timeout: self.timeout.map_or(usual.timeout, Duration::from),
            ..usual
        }
    }
}

/// Sets weights, and notes what keeps traffic from being dealt as they say.
pub(super) async fn apply(on: &On, route: &str, to: &Weights) -> Result<(), ProviderError> {
    let traffic = on.get::<dyn Traffic>(route)?;
    traffic.set_weights(to).await?;
    // The weights are set: not being able to say more about them is no reason to take them back.
    for caveat in traffic.caveats(to).await.unwrap_or_default() {
        on.note(format!("{route}: {caveat}"));
    }
    Ok(())
}

/// What keeps traffic from being dealt as `to` says, for plans.
pub(super) async fn caveats(on: &On, route: &str, to: &Weights) -> Result<Option<String>, ProviderError> {
    let caveats = on.get::<dyn Traffic>(route)?.caveats(to).await?;
    Ok((!caveats.is_empty()).then(|| caveats.join("; ")))
}

/// Gives `pool` a share; the other pools keep their proportions in what is left.
#[derive(Debug, Clone, Serialize)]
pub struct Shift {
    /// The route.
    pub route: String,
    /// The pool.
    pub pool: String,
    /// Its share.
    pub percent: Share,
    /// Deadlines.
    #[serde(flatten)]
    pub options: Options,
}

impl Change for Shift {
    const ID: &'static str = "traffic.shift";
    type State = Weights;

    fn target(&self) -> Target {
        Target::new("traffic", &self.route)
    }

    async fn observe(&self, on: &On) -> Result<Weights, ProviderError> {
        on.get::<dyn Traffic>(&self.route)?.weights().await
    }

    fn desired(&self, now: &Weights) -> Result<Weights, ProviderError> {
        now.with_share(&self.route, &self.pool, self.percent)
    }

    async fn apply(&self, on: &On, _from: &Weights, to: &Weights) -> Result<(), ProviderError> {
        apply(on, &self.route, to).await
    }

    async fn settled(&self, on: &On, to: &Weights) -> Result<Progress, ProviderError> {
        on.get::<dyn Traffic>(&self.route)?.settled(to).await
    }

    async fn rehearse(
        &self,
        on: &On,
        _from: &Weights,
        to: &Weights,
    ) -> Result<Option<String>, ProviderError> {
        caveats(on, &self.route, to).await
    }

    async fn ready(&self, on: &On, to: &Weights) -> Result<(), ProviderError> {
        on.get::<dyn Traffic>(&self.route)?.would_take(to).await
    }

    fn limits(&self) -> Limits {
        self.options.limits()
    }
}

fn run(
    cx: &NativeCallContext<'_>,
    route: &str,
    pool: &str,
    percent: Dynamic,
    options: Options,
) -> ScriptResult {
    let percent = cx.arg("percent", percent)?;
    cx.change(Shift { route: route.to_owned(), pool: pool.to_owned(), percent, options })
}

/// The script function.
#[rhai::export_module]
pub mod script {
    use contraflow_runtime::script::{Changes, ScriptContext as _};
    use rhai::{Dynamic, Map, NativeCallContext};

    use super::{Options, run};

    /// Gives `pool` this percentage of a route's traffic; the rest is spread over the other pools in proportion to
    /// their current weights. The smallest step is 0.01%: `25`, `0.5` and `"0.5%"` are percentages. Waits until the
    /// weights are in
    /// effect and pools without weight have no open connection, and returns the weights.
    ///
    /// ```rhai
    /// traffic::shift("web", "green", "0.5%").blue == 99.5
    /// ```
    #[rhai_fn(name = "shift", return_raw, volatile)]
    pub fn shift(cx: NativeCallContext<'_>, route: &str, pool: &str, percent: Dynamic) -> Changes {
        run(&cx, route, pool, percent, Options::default())
    }

    /// ```rhai
    /// traffic::shift("web", "green", "100%", #{ drain: "30s" }) == #{ blue: 0, green: 100 }
    /// ```
    #[rhai_fn(name = "shift", return_raw, volatile)]
    pub fn shift_with(
        cx: NativeCallContext<'_>,
        route: &str,
        pool: &str,
        percent: Dynamic,
        options: Map,
    ) -> Changes {
        let options = cx.options(options)?;
        run(&cx, route, pool, percent, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_record_holds_what_was_asked_for_and_nothing_else() {
        let percent = Share::try_from(25_i64).expect("a share");
        let mut shift =
            Shift { route: "web".into(), pool: "green".into(), percent, options: Options::default() };
        let json = |shift: &Shift| serde_json::to_string(shift).expect("json");
        assert_eq!(json(&shift), r#"{"route":"web","pool":"green","percent":25}"#);
        assert_eq!(shift.limits().settle, Duration::from_secs(300));
        shift.options.drain = Some(Span::secs(30));
        shift.percent = Share::try_from(0.5).expect("a share");
        assert_eq!(json(&shift), r#"{"route":"web","pool":"green","percent":0.5,"drain":"30s"}"#);
        assert_eq!(shift.limits().settle, Duration::from_secs(30));
    }

    #[test]
    fn a_misspelt_option_is_refused() {
        let error = serde_json::from_str::<Options>(r#"{"drian":"30s"}"#).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `drian`"), "{error}");
    }
}
