//! `traffic::set` sets the weights of all pools of a route.

use std::collections::BTreeMap;

use contraflow_runtime::script::{ScriptContext as _, ScriptResult};
use contraflow_runtime::{
    effect::{Change, Limits, On, Progress},
    provider::ProviderError,
    target::Target,
};
use rhai::{Map, NativeCallContext};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{
    Share, Traffic, Weights,
    shift::{Options, apply, caveats},
    unknown_pool,
};

/// Shares by pool that add up to 100 %.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Split(Weights);

impl TryFrom<BTreeMap<String, Share>> for Split {
    type Error = String;

    fn try_from(shares: BTreeMap<String, Share>) -> Result<Self, String> {
        let weights = Weights(shares);
        if weights.is_whole() {
            return Ok(Self(weights));
        }
        Err(if weights.0.is_empty() {
            "no pools given: the weights must add up to 100%".to_owned()
        } else {
            format!("{weights} add up to {}%, not to 100%", weights.total_percent())
        })
    }
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_from(BTreeMap::<String, Share>::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Sets all weights; pools that are not listed get 0.
#[derive(Debug, Clone, Serialize)]
pub struct Set {
    /// The route.
    pub route: String,
    /// The shares.
    pub weights: Split,
    /// Deadlines.
    #[serde(flatten)]
    pub options: Options,
}

impl Change for Set {
    const ID: &'static str = "traffic.set";
    type State = Weights;

    fn target(&self) -> Target {
        Target::new("traffic", &self.route)
    }

    async fn observe(&self, on: &On) -> Result<Weights, ProviderError> {
        on.get::<dyn Traffic>(&self.route)?.weights().await
    }

    fn desired(&self, now: &Weights) -> Result<Weights, ProviderError> {
        let mut to: BTreeMap<String, Share> = now.0.keys().map(|pool| (pool.clone(), Share::NONE)).collect();
        for (pool, share) in &self.weights.0.0 {
            match to.get_mut(pool) {
                Some(weight) => *weight = *share,
                None => return Err(unknown_pool(&self.route, pool, now.0.keys().map(String::as_str))),
            }
        }
        Ok(Weights(to))
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

fn run(cx: &NativeCallContext<'_>, route: &str, weights: Map, options: Options) -> ScriptResult {
    let weights = cx.arg("weights", weights)?;
    cx.change(Set { route: route.to_owned(), weights, options })
}

/// The script function.
#[rhai::export_module]
pub mod script {
    use contraflow_runtime::script::{Changes, ScriptContext as _};
    use rhai::{Map, NativeCallContext};

    use super::{Options, run};

    /// Sets the weights of all pools of a route, in percent that add up to 100; pools that are not listed get 0. The
    /// smallest
    /// step is 0.01%. Waits until the weights are in effect and pools without weight have no open connection, and returns the
    /// weights.
    ///
    /// ```rhai
    /// traffic::set("web", #{ blue: 95, green: 5 }).green == 5
    /// ```
    #[rhai_fn(name = "set", return_raw, volatile)]
    pub fn set(cx: NativeCallContext<'_>, route: &str, weights: Map) -> Changes {
        run(&cx, route, weights, Options::default())
    }

    /// ```rhai
    /// traffic::set("web", #{ blue: "99.9%", green: "0.1%" }, #{ drain: "1m" }).green == 0.1
    /// ```
    #[rhai_fn(name = "set", return_raw, volatile)]
    pub fn set_with(cx: NativeCallContext<'_>, route: &str, weights: Map, options: Map) -> Changes {
        let options = cx.options(options)?;
        run(&cx, route, weights, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(json: serde_json::Value) -> Result<Set, String> {
        let weights = serde_json::from_value(json).map_err(|e| e.to_string())?;
        Ok(Set { route: "web".into(), weights, options: Options::default() })
    }

    fn now() -> Weights {
        Weights(
            ["blue", "green", "red"]
                .map(|p| (p.to_owned(), if p == "blue" { Share::ALL } else { Share::NONE }))
                .into(),
        )
    }

    #[test]
    fn pools_that_are_not_named_get_nothing() {
        for (weights, then) in [
            (serde_json::json!({ "green": 60, "red": "40%" }), "blue 0, green 60, red 40"),
            (serde_json::json!({ "blue": "99.9%", "green": 0.1 }), "blue 99.9, green 0.1, red 0"),
        ] {
            let to = set(weights).expect("a split").desired(&now());
            assert_eq!(to.expect("known pools").to_string(), then);
        }
    }

    #[test]
    fn weights_that_do_not_add_up_to_100_are_refused_with_their_sum() {
        let error = set(serde_json::json!({ "blue": 95, "green": 15 })).expect_err("110");
        assert!(error.contains("blue 95, green 15 add up to 110%, not to 100%"), "{error}");
        let error = set(serde_json::json!({ "blue": 99.9, "green": 0.01 })).expect_err("99.91");
        assert!(error.contains("blue 99.9, green 0.01 add up to 99.91%, not to 100%"), "{error}");
        assert!(set(serde_json::json!({})).expect_err("empty").contains("no pools given"));
    }

    #[test]
    fn an_unknown_pool_is_answered_with_the_closest_name() {
        let error =
            set(serde_json::json!({ "bleu": 100 })).expect("a split").desired(&now()).expect_err("unknown");
        assert_eq!(error.hints, ["did you mean \"blue\"?"]);
    }
}
