//! `guard` watches a metric or a probe while a part of the script runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use contraflow_runtime::{
    effect::{AnyWait, On, Polled, Reply, Until, Wait},
    error::{RunError, codes as runtime_codes},
    provider::{ProviderError, Retry},
    quantity::{Comparison, QuantityError, Span, Unit},
    script::{ScriptContext, ScriptResult, convert::decode, each},
    target::Target,
};
use rhai::{Array, Dynamic, FnPtr, Map, Module, NativeCallContext, combine_with_exported_module, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    metrics::{
        self, Metrics,
        hold::look,
        verdict::{Rules, Verdict, Watch},
    },
    probe::all::Entry,
};

/// One guard as a script writes it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// A metric of a metrics target, as `"source.metric"`, with `above` or `below`.
    #[serde(default)]
    metric: Option<String>,
    /// The limit that the metric must not be above.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    above: Option<Limit>,
    /// The limit that the metric must not be below.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    below: Option<Limit>,
    /// What to probe, in place of a metric: text or a map, like an entry of `probe::all`, such as `"web/green"` or `#{ tcp:
    /// "db.example.com:5432" }`.
    #[serde(default)]
    probe: Option<serde_json::Value>,
    /// How long it must stay bad.
    #[serde(default)]
    sustained: Span,
    /// Time between two measurements.
    #[serde(default = "every")]
    every: Span,
    /// For a metric: what to do after 30 seconds without data, or after `sustained` if that is longer.
    #[serde(default)]
    on_no_data: OnNoData,
    /// Minimum number of samples behind a value.
    #[serde(default = "one")]
    min_samples: u64,
    /// How many measurements may be bad.
    #[serde(default)]
    failure_limit: u32,
    /// What the metric depends on besides the route of the same name.
    #[serde(default)]
    depends_on: Vec<Target>,
}

/// A value that a metric must not pass: `"1%"`, `"200ms"`, `"3"`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Limit(String);

impl TryFrom<String> for Limit {
    type Error = QuantityError;

    fn try_from(text: String) -> Result<Self, QuantityError> {
        Unit::read(&text).map(|_| Self(text))
    }
}

fn every() -> Span {
    Span(Duration::from_secs(5))
}

fn one() -> u64 {
    1
}

/// What it means that there is nothing to judge by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNoData {
    /// After a while, a breach.
    #[default]
    Breach,
    /// Nothing.
    Ignore,
}

/// Without data for so long, a guard that does not ignore it is breached, unless it may be breached itself for longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Watches one metric of one source.
#[derive(Debug, Clone, Serialize)]
pub struct MetricGuard {
    source: String,
    metric: String,
    bound: Comparison,
    sustained: Span,
    every: Span,
    on_no_data: OnNoData,
    min_samples: u64,
    failure_limit: u32,
    depends_on: Vec<Target>,
}

/// What a guard of a metric remembers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Seen {
    watch: Watch,
    /// Since when there is nothing to judge by.
    blind: Option<Duration>,
}

impl MetricGuard {
    fn rules(&self) -> Rules {
        Rules {
            bounds: BTreeMap::from([(self.metric.clone(), self.bound)]),
            min_samples: self.min_samples,
            failure_limit: self.failure_limit,
            sustained: self.sustained.0,
            inconclusive_limit: u32::MAX,
        }
    }

    fn breached(&self, verdict: &str, why: &str) -> ProviderError {
        ProviderError::terminal(runtime_codes::GUARD_BREACHED, format!("{}: {why}", self.source)).detail(
            json!({ "verdict": verdict, "source": self.source, "metric": self.metric, "bound": self.bound }),
        )
    }
}

/// From when on what is bad counts: ` (a breach counts after 2s)`.
fn counts(what: &str, sustained: Span) -> String {
    if sustained.0.is_zero() { String::new() } else { format!(" ({what} counts after {sustained})") }
}

impl Wait for MetricGuard {
    const ID: &'static str = "guard.metric";
    type Answer = ();
    type Memory = Seen;

    fn describe(&self) -> String {
        let counts = counts("a breach", self.sustained);
        format!("{}: {} {}{counts}", self.source, self.metric, self.bound)
    }

    fn depends_on(&self) -> Vec<Target> {
        metrics::depends_on(&self.source, &self.depends_on)
    }

    fn until(&self) -> Until {
        Until::Polled { every: self.every.0, at_least: Duration::ZERO }
    }

    fn answer(&self, _: &[Reply]) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn poll(&self, on: &On, seen: &mut Seen, waited: Duration) -> Result<Polled<()>, ProviderError> {
        let source = on.get::<dyn Metrics>(&self.source)?;
        let read = look(&*source, [&self.metric]).await?;
        let verdict = seen.watch.look(&self.rules(), waited, &read);
        let blind = match &verdict {
            Verdict::Pass => None,
            Verdict::Fail(breaches) => {
                let what = breaches.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return Err(self.breached(verdict.name(), &what));
            }
            Verdict::NoData(why) | Verdict::Inconclusive(why) => Some(why.clone()),
        };
        let Some(why) = blind else {
            seen.blind = None;
            return Ok(Polled::Waiting(String::new()));
        };
        let since = *seen.blind.get_or_insert(waited);
        let patience = self.sustained.0.max(PATIENCE);
        if self.on_no_data == OnNoData::Breach && waited.saturating_sub(since) >= patience {
            let why = format!("{} has had too little data since {}: {why}", self.metric, Span(patience));
            return Err(self.breached(verdict.name(), &why));
        }
        Ok(Polled::Waiting(why))
    }
}

/// Watches what a probe finds.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeGuard {
    probe: Entry,
    sustained: Span,
    every: Span,
    failure_limit: u32,
}

/// What a guard of a probe remembers: since when it fails, and how often in a row.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Failing {
    since: Option<Duration>,
    times: u32,
}

impl Wait for ProbeGuard {
    const ID: &'static str = "guard.probe";
    type Answer = ();
    type Memory = Failing;

    fn describe(&self) -> String {
        format!("probe of {}{}", self.probe.subject(), counts("a failure", self.sustained))
    }

    fn depends_on(&self) -> Vec<Target> {
        self.probe.depends_on()
    }

    fn until(&self) -> Until {
        Until::Polled { every: self.every.0, at_least: Duration::ZERO }
    }

    fn answer(&self, _: &[Reply]) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn poll(&self, on: &On, seen: &mut Failing, waited: Duration) -> Result<Polled<()>, ProviderError> {
        let Err(error) = self.probe.probe(on).await else {
            *seen = Failing::default();
            return Ok(Polled::Waiting(String::new()));
        };
        // What cannot be asked at all is no finding.
        let mistaken = [runtime_codes::UNKNOWN_TARGET, runtime_codes::ARGUMENT, runtime_codes::SECRET];
        if error.retry == Retry::Never && mistaken.contains(&error.code.as_str()) {
            return Err(error);
        }
        seen.times += 1;
        let since = *seen.since.get_or_insert(waited);
        if seen.times > self.failure_limit && waited.saturating_sub(since) >= self.sustained.0 {
            let times = seen.times;
            let message = match times {
                1 => error.message,
                _ => format!("{} ({times} times in a row)", error.message),
            };
            return Err(ProviderError::terminal(runtime_codes::GUARD_BREACHED, message)
                .detail(json!({ "verdict": "fail", "times": times, "probe": self.probe.subject() })));
        }
        Ok(Polled::Waiting(error.message))
    }
}

impl Spec {
    /// The guard itself.
    ///
    /// # Errors
    /// The option that cannot be used, and why.
    fn watch(self) -> Result<Arc<dyn AnyWait>, RunError> {
        let bad =
            |option: &str, why: &str| RunError::new(runtime_codes::ARGUMENT, format!("`{option}`: {why}"));
        if self.every.0 < Duration::from_millis(10) {
            return Err(bad("every", "expected 10ms or more"));
        }
        let Self { sustained, every, failure_limit, .. } = self;
        match (self.metric, self.probe) {
            (Some(_), Some(_)) | (None, None) => Err(bad(
                "metric",
                "expected either `metric` or `probe`, such as #{ metric: \"web.error_rate\", above: \"1%\" }",
            )),
            (None, Some(probe)) => {
                if self.above.is_some() || self.below.is_some() {
                    return Err(bad("above", "a probe passes or fails: it takes no `above` or `below`"));
                }
                let probe = Entry::one("probe", probe)?;
                Ok(Arc::new(ProbeGuard { probe, sustained, every, failure_limit }))
            }
            (Some(metric), None) => {
                let Some((source, metric)) =
                    metric.split_once('.').filter(|(s, m)| !s.is_empty() && !m.is_empty())
                else {
                    return Err(bad(
                        "metric",
                        "expected a source and one of its metrics, such as \"web.error_rate\"",
                    ));
                };
                let (option, text) = match (&self.above, &self.below) {
                    (Some(above), None) => ("above", format!("<= {}", above.0)),
                    (None, Some(below)) => ("below", format!(">= {}", below.0)),
                    _ => {
                        return Err(bad(
                            "above",
                            "expected either `above` or `below`, such as above: \"1%\"",
                        ));
                    }
                };
                let bound = text.parse::<Comparison>().map_err(|e| bad(option, &e.to_string()))?;
                Ok(Arc::new(MetricGuard {
                    source: source.to_owned(),
                    metric: metric.to_owned(),
                    bound,
                    sustained,
                    every,
                    on_no_data: self.on_no_data,
                    min_samples: self.min_samples,
                    failure_limit,
                    depends_on: self.depends_on,
                }))
            }
        }
    }
}

fn watch(cx: &NativeCallContext<'_>, guards: Vec<Dynamic>, body: &FnPtr) -> ScriptResult {
    let watches = guards
        .into_iter()
        .map(|guard| decode::<Spec>(&guard, "").and_then(Spec::watch).map_err(|e| cx.throw(e)))
        .collect::<ScriptResult<Vec<_>>>()?;
    cx.guard(watches, body)
}

/// Script functions.
#[export_module]
pub mod script {
    /// Runs `body` while something is watched, also during sleeps, gates and questions. Returns the value of `body`. A
    /// breach
    /// stops `body` at once and throws `guard-breached`; if nothing catches it, the run is rolled back.
    ///
    /// Watches either a metric with a limit, or a probe. To watch several, give an array of maps; the first breach
    /// stops `body`.
    ///
    /// ```rhai
    /// guard(#{ metric: "web.error_rate", above: "5%", every: "50ms" }, || { sleep("100ms"); "calm" }) == "calm"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn guard(cx: NativeCallContext<'_>, watched: Map, body: FnPtr) -> ScriptResult {
        watch(&cx, vec![Dynamic::from_map(watched)], &body)
    }

    /// ```rhai
    /// guard([#{ metric: "web.p95", above: "2s" }, #{ probe: "web" }], || 42) == 42
    /// ```
    #[rhai_fn(name = "guard", return_raw, volatile)]
    pub fn guard_all(cx: NativeCallContext<'_>, watched: Array, body: FnPtr) -> ScriptResult {
        if watched.is_empty() {
            return Err(cx.bad_argument("watched", "there is nothing to watch"));
        }
        watch(&cx, watched, &body)
    }
}

/// The function as it is registered.
pub(crate) fn add_to(module: &mut Module) {
    combine_with_exported_module!(module, "guard", script);
    each::<Spec>(module, "guard", "watched");
}
