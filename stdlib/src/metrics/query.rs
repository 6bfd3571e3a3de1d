//! `metrics::query` reads one metric once.

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    script::{ScriptContext, ScriptResult},
    target::Target,
};
use rhai::{NativeCallContext, export_module};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::Metrics;
use crate::codes;

/// Options of `metrics::query`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The value to return if there is no data, such as `0` or `()`. Without it, no data is an error (`gate-inconclusive`). NaN is no data; an infinity, such as errors divided by no good answers, is the largest number
    /// there is, shown as `+Inf`.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub if_no_data: Option<Value>,
    /// Whether to return a map with `value` and `samples`, the number of samples behind it, or `()` if the source does
    /// not know it.
    pub detail: bool,
    /// What the value depends on besides the source and the route of the same name, such as `["deploy/web"]`. If a plan
    /// would change one of them, the value is stale.
    pub depends_on: Vec<Target>,
}

/// Tells `()`, which is a value, from an option that is not there.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Reads one metric once.
#[derive(Debug, Clone, Serialize)]
pub struct Query {
    /// The metrics source.
    pub source: String,
    /// A name bound in the source, or a query in its language.
    pub metric: String,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
}

impl Read for Query {
    const ID: &'static str = "metrics.query";

    type Value = Value;

    fn describe(&self) -> String {
        format!("{} of {}", self.metric, self.source)
    }

    fn depends_on(&self) -> Vec<Target> {
        super::depends_on(&self.source, &self.options.depends_on)
    }

    async fn read(&self, on: &On) -> Result<Value, ProviderError> {
        let reading = on.get::<dyn Metrics>(&self.source)?.query(&self.metric).await?;
        let reading = reading.normal();
        let value = match (reading.value, &self.options.if_no_data) {
            (Some(value), _) => json!(value),
            (None, Some(instead)) => instead.clone(),
            (None, None) => return Err(self.no_data()),
        };
        Ok(if self.options.detail { json!({ "value": value, "samples": reading.samples }) } else { value })
    }

    fn show(&self, value: &Value) -> String {
        let value = value.get("value").unwrap_or(value);
        if let Some(infinite) = value.as_f64().filter(|value| value.abs() >= f64::MAX) {
            return contraflow_runtime::quantity::Unit::Number.show(infinite);
        }
        // Six digits tell a person enough; a quotient has seventeen.
        let short = value.as_f64().and_then(|value| format!("{value:.5e}").parse::<f64>().ok());
        short.map_or_else(|| value.to_string(), |short| short.to_string())
    }
}

impl Query {
    fn no_data(&self) -> ProviderError {
        ProviderError::terminal(
            codes::GATE_INCONCLUSIVE,
            format!("{} has no data for {}", self.source, self.metric),
        )
        .hint("check that the metric is collected and that there is traffic to measure")
        .hint("set a fallback: #{ if_no_data: 0 } or #{ if_no_data: () }")
        .detail(json!({ "verdict": "no_data", "source": self.source, "metric": self.metric }))
    }
}

/// Script functions.
#[export_module]
pub mod script {
    use contraflow_runtime::script::{Reads, ScriptContext};
    use rhai::{Map, NativeCallContext};

    use super::{Options, read};

    /// Reads the current value of a metric: a ratio 0..1, seconds, or a number.
    ///
    /// `metric` is a name bound to the source in the configuration, or a query in the source's own language. No data is an
    /// error (`gate-inconclusive`).
    ///
    /// ```rhai
    /// metrics::query("web", "cpu") >= 0.0
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn query(cx: NativeCallContext<'_>, source: &str, metric: &str) -> Reads {
        read(&cx, source, metric, Options::default())
    }

    /// ```rhai
    /// let cpu = metrics::query("web", "cpu", #{ detail: true, if_no_data: () });
    /// cpu.value == () || cpu.value >= 0.0
    /// ```
    #[rhai_fn(name = "query", return_raw, volatile)]
    pub fn query_with(cx: NativeCallContext<'_>, source: &str, metric: &str, options: Map) -> Reads {
        let options = cx.options(options)?;
        read(&cx, source, metric, options)
    }
}

fn read(cx: &NativeCallContext<'_>, source: &str, metric: &str, options: Options) -> ScriptResult {
    if metric.trim().is_empty() {
        return Err(cx.bad_argument("metric", "is empty"));
    }
    super::check_depends_on(cx, &options.depends_on)?;
    cx.read(Query { source: source.to_owned(), metric: metric.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Reading, hold::tests::Scripted};

    async fn ask(reading: Reading, options: Value) -> Result<Value, ProviderError> {
        let on = Scripted::always(reading).on();
        let options = serde_json::from_value(options).expect("options");
        Query { source: "web".into(), metric: "cpu".into(), options }.read(&on).await
    }

    const NOTHING: Reading = Reading { value: None, samples: Some(0) };

    #[tokio::test(flavor = "multi_thread")]
    async fn a_value_is_a_number_or_with_detail_a_map() {
        let reading = Reading { value: Some(0.25), samples: Some(40) };
        assert_eq!(ask(reading, json!({})).await, Ok(json!(0.25)));
        assert_eq!(
            ask(reading, json!({ "detail": true })).await,
            Ok(json!({ "value": 0.25, "samples": 40 }))
        );
        let unknown = Reading { value: Some(1.0), samples: None };
        assert_eq!(
            ask(unknown, json!({ "detail": true })).await,
            Ok(json!({ "value": 1.0, "samples": null }))
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_data_is_an_error_unless_the_script_says_what_to_answer() {
        let infinite = Reading { value: Some(f64::INFINITY), samples: None };
        assert_eq!(ask(infinite, json!({ "if_no_data": 0 })).await, Ok(json!(f64::MAX)));
        for value in [None, Some(f64::NAN)] {
            let reading = Reading { value, ..NOTHING };
            let error = ask(reading, json!({})).await.expect_err("no data");
            assert_eq!(error.code.as_str(), codes::GATE_INCONCLUSIVE);
            assert_eq!(error.message, "web has no data for cpu");
            assert_eq!(ask(reading, json!({ "if_no_data": 7 })).await, Ok(json!(7)));
            assert_eq!(ask(reading, json!({ "if_no_data": null })).await, Ok(Value::Null));
            assert_eq!(
                ask(reading, json!({ "if_no_data": 0, "detail": true })).await,
                Ok(json!({ "value": 0, "samples": 0 }))
            );
        }
    }

    #[test]
    fn people_are_shown_six_digits() {
        let query = Query { source: "web".into(), metric: "cpu".into(), options: Options::default() };
        for (value, shown) in [
            (json!(0.087_500_000_000_000_01), "0.0875"),
            (json!({ "value": 0.000_123_456_789, "samples": 3 }), "0.000123457"),
            (json!(42.0), "42"),
            (json!(f64::MAX), "+Inf"),
            (Value::Null, "null"),
        ] {
            assert_eq!(query.show(&value), shown);
        }
    }

    #[test]
    fn it_depends_on_the_source_the_route_of_that_name_and_what_the_script_says() {
        let options = serde_json::from_value(json!({ "depends_on": ["deploy/web", "traffic/web"] }));
        let query = Query { source: "web".into(), metric: "cpu".into(), options: options.expect("options") };
        let targets: Vec<String> = query.depends_on().iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["metrics/web", "traffic/web", "deploy/web"]);
    }
}
