//! `metrics::hold` is a gate: it passes when metrics keep their bounds for a while.

use std::{collections::BTreeMap, time::Duration};

use contraflow_runtime::{
    effect::{self, On, Polled, Reply, Until, VerdictName, Wait},
    error,
    provider::{ProviderError, Retry},
    quantity::{Comparison, Percent, Span},
    script::{ScriptContext, ScriptResult},
    target::Target,
};
use futures_util::future::join_all;
use rhai::{Map, NativeCallContext, export_module};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Metrics,
    verdict::{Length, Rules, Seen, Summary, Verdict, Watch},
};
use crate::codes;

/// What to do about time for which there is not enough data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnNoData {
    /// It counts: too much of it, and the hold fails when its time is over.
    #[default]
    Fail,
    /// It does not count: the hold takes that much longer, up to its `timeout`.
    Wait,
}

/// Options of `metrics::hold`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Time between two measurements. Default: a thirtieth of the hold, from "250ms" to "30s".
    pub every: Option<Span>,
    /// Minimum number of samples behind a value. With 2 or more, the metric needs a `samples` query.
    pub min_samples: u64,
    /// How many measurements of a metric may violate its bound. With `sustained`, both must be exceeded. A hold never
    /// passes during a breach: it continues until the value is within its bound again or the limits are exceeded.
    pub failure_limit: u32,
    /// A bound must stay violated this long to fail the hold. Only a good measurement ends a breach.
    pub sustained: Span,
    /// How many measurements in a row may fail because the source is unreachable.
    pub inconclusive_limit: u32,
    /// What to do without enough data.
    pub on_no_data: OnNoData,
    /// Share of the time for which every metric must have had enough data, where it is not waited for.
    pub coverage: Percent,
    /// The hold ends then, even without a verdict. Default: twice the hold plus `sustained` plus "5m".
    pub timeout: Option<Span>,
    /// What the metrics depend on besides the source and the route of the same name, such as `["deploy/web"]`. If a
    /// plan would change one of them, it assumes the verdict.
    pub depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            every: None,
            min_samples: 1,
            failure_limit: 0,
            sustained: Span::default(),
            inconclusive_limit: 3,
            on_no_data: OnNoData::Fail,
            coverage: Percent(80.0),
            timeout: None,
            depends_on: Vec::new(),
        }
    }
}

/// Watches metrics of one source until their bounds were kept for a while.
#[derive(Debug, Clone, Serialize)]
pub struct Hold {
    /// The metrics source.
    pub source: String,
    /// The bound of each metric.
    pub bounds: BTreeMap<String, Comparison>,
    /// For how long.
    pub duration: Span,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
}

/// What a hold that passed returns to the script.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Always `pass`: every other verdict is an error.
    pub verdict: String,
    /// How many looks were made.
    pub polls: u32,
    /// Time from the first look to the last.
    pub elapsed: Span,
    /// What the values were.
    pub metrics: BTreeMap<String, Summary>,
}

impl Hold {
    /// Why these options cannot be used: the option and what is wrong with it.
    fn refusal(&self) -> Option<(&'static str, String)> {
        let Self { bounds, duration, options, .. } = self;
        if bounds.is_empty() {
            return Some(("bounds", "expected at least one, such as #{ error_rate: \"< 0.1%\" }".to_owned()));
        }
        if options.every.is_some_and(|every| every.0.is_zero()) {
            return Some(("every", "expected more than 0s".to_owned()));
        }
        if !(options.coverage.0 > 0.0 && options.coverage.0 <= 100.0) {
            return Some((
                "coverage",
                format!("{} is not a percentage above 0% and up to 100%", options.coverage),
            ));
        }
        match options.timeout {
            Some(timeout) if timeout < *duration => {
                Some(("timeout", format!("{timeout} is shorter than the hold time of {duration}")))
            }
            _ => None,
        }
    }

    /// Time between two measurements: thirty of them, unless that is oftener than four a second or rarer than two a minute.
    fn every(&self) -> Duration {
        let thirtieth = (self.duration.0 / 30).clamp(Duration::from_millis(250), Duration::from_secs(30));
        self.options.every.map_or(thirtieth, |every| every.0)
    }

    /// Longest time it may take.
    fn timeout(&self) -> Duration {
        let usual = self.duration.0 * 2 + self.options.sustained.0 + Duration::from_secs(300);
        self.options.timeout.map_or(usual, |timeout| timeout.0)
    }

    fn rules(&self) -> Rules {
        Rules {
            bounds: self.bounds.clone(),
            min_samples: self.options.min_samples,
            failure_limit: self.options.failure_limit,
            sustained: self.options.sustained.0,
            inconclusive_limit: self.options.inconclusive_limit,
        }
    }

    fn length(&self) -> Length {
        Length {
            hold: self.duration.0,
            wait_for_data: self.options.on_no_data == OnNoData::Wait,
            coverage: self.options.coverage.0 / 100.0,
            timeout: self.timeout(),
        }
    }

    /// The error for a verdict that is not a pass.
    fn refuse(&self, verdict: &Verdict, watch: &Watch) -> ProviderError {
        let source = &self.source;
        let error = match verdict {
            Verdict::Fail(breaches) => {
                let what = breaches.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                ProviderError::terminal(codes::GATE_FAILED, what).about(source)
            }
            Verdict::NoData(why) => {
                ProviderError::terminal(codes::GATE_INCONCLUSIVE, format!("not enough data: {why}"))
                    .about(source)
                    .hint("check that the metrics are collected and that there is traffic to measure")
                    .hint("if data comes late, use #{ on_no_data: \"wait\" }")
            }
            Verdict::Inconclusive(why) => {
                ProviderError::terminal(codes::GATE_INCONCLUSIVE, format!("inconclusive: {why}"))
                    .about(source)
                    .hint("the gate could neither pass nor fail: check the metrics before you continue")
            }
            Verdict::Pass => {
                ProviderError::terminal(error::codes::INTERNAL, "a passed gate was taken for an error")
            }
        };
        let breaches = if let Verdict::Fail(breaches) = verdict { &**breaches } else { &[] };
        error.detail(json!({
            "verdict": verdict.name(),
            "source": source,
            "polls": watch.looks(),
            "elapsed": Span(watch.watched()),
            "with_data": Span(watch.covered()),
            "metrics": watch.summaries(),
            "breaches": breaches,
        }))
    }
}

/// Looks at metrics of a source once, all at the same time. A source that cannot be reached now is something seen.
///
/// # Errors
/// What asking again would not cure, such as an unknown metric.
pub async fn look<'n>(
    source: &dyn Metrics,
    names: impl IntoIterator<Item = &'n String>,
) -> Result<BTreeMap<String, Seen>, ProviderError> {
    let asked = names.into_iter().map(|name| async move {
        match source.query(name).await {
            Ok(reading) => Ok((name.clone(), Seen::Read(reading))),
            Err(ProviderError { retry: Retry::Safe { .. }, message, .. }) => {
                Ok((name.clone(), Seen::Unreachable(message)))
            }
            Err(error) => Err(error),
        }
    });
    join_all(asked).await.into_iter().collect()
}

impl Wait for Hold {
    const ID: &'static str = "metrics.hold";

    type Answer = Held;
    type Memory = Watch;

    fn describe(&self) -> String {
        let bounds = self.bounds.iter().map(|(metric, bound)| format!("{metric} {bound}"));
        format!("{}: {} for {}", self.source, bounds.collect::<Vec<_>>().join(", "), self.duration)
    }

    fn depends_on(&self) -> Vec<Target> {
        super::depends_on(&self.source, &self.options.depends_on)
    }

    fn until(&self) -> Until {
        Until::Polled { every: self.every(), at_least: self.duration.0 }
    }

    /// A little behind `timeout`, at which a look decides and can say what was missing. This one is for looks that hang.
    fn deadline(&self) -> Option<Duration> {
        Some(self.timeout() + self.every() + Duration::from_secs(30))
    }

    fn assumed(&self) -> Option<Held> {
        let metrics = self.bounds.keys().map(|metric| (metric.clone(), Summary::default())).collect();
        let verdict = Verdict::Pass.name().to_owned();
        Some(Held { verdict, polls: 1, elapsed: self.duration, metrics })
    }

    fn verdicts(&self) -> Vec<effect::Verdict> {
        let bad = |name: VerdictName, code, what: &str| {
            let error = ProviderError::terminal(code, format!("rehearsed: {what}")).about(&self.source);
            let detail = json!({ "verdict": name.as_str() });
            effect::Verdict::new(name, error.detail(detail))
        };
        vec![
            bad(VerdictName::Fails, codes::GATE_FAILED, "a bound is violated"),
            bad(VerdictName::Inconclusive, codes::GATE_INCONCLUSIVE, "the source cannot be queried"),
            bad(VerdictName::NoData, codes::GATE_INCONCLUSIVE, "not enough data"),
        ]
    }

    fn answer(&self, _: &[Reply]) -> Result<Held, ProviderError> {
        Err(ProviderError::terminal(error::codes::INTERNAL, "a gate was answered instead of polled"))
    }

    async fn poll(
        &self,
        on: &On,
        watch: &mut Watch,
        waited: Duration,
    ) -> Result<Polled<Held>, ProviderError> {
        let source = on.get::<dyn Metrics>(&self.source)?;
        let seen = look(&*source, self.bounds.keys()).await?;
        let rules = self.rules();
        watch.look(&rules, waited, &seen);
        match watch.over(&rules, &self.length()) {
            None => {
                // What counts towards the end: time with data, or all time.
                let held =
                    if self.options.on_no_data == OnNoData::Wait { watch.covered() } else { watch.watched() };
                // In tenths of a second: finer is noise that makes the line jump.
                let tenths = u64::try_from(held.as_millis() / 100).unwrap_or(u64::MAX);
                let (held, whole) = (Span::millis(tenths.saturating_mul(100)), self.duration);
                Ok(Polled::Waiting(format!("{held} of {whole}: {}", watch.glance(&rules))))
            }
            Some(Verdict::Pass) => Ok(Polled::Over(Held {
                verdict: Verdict::Pass.name().to_owned(),
                polls: watch.looks(),
                elapsed: Span(watch.watched()),
                metrics: watch.summaries(),
            })),
            Some(verdict) => Err(self.refuse(&verdict, watch)),
        }
    }

    fn on_timeout(&self) -> Result<Held, ProviderError> {
        let (source, timeout) = (&self.source, Span(self.timeout()));
        Err(ProviderError::terminal(
            codes::GATE_INCONCLUSIVE,
            format!("inconclusive: the source did not answer in time to decide within {timeout}"),
        )
        .about(source)
        .detail(json!({ "verdict": "inconclusive", "source": source })))
    }

    fn show(&self, held: &Held) -> String {
        let values = held.metrics.iter().filter_map(|(metric, seen)| {
            let bound = self.bounds.get(metric)?;
            let (min, max) = (bound.show(seen.min), bound.show(seen.max));
            Some(if min == max { format!("{metric} {min}") } else { format!("{metric} {min} to {max}") })
        });
        let s = if held.polls == 1 { "" } else { "s" };
        format!("{} in {} measurement{s}", values.collect::<Vec<_>>().join(", "), held.polls)
    }
}

/// Script functions.
#[export_module]
pub mod script {
    use contraflow_runtime::script::{Checks, ScriptContext};
    use rhai::{Map, NativeCallContext};

    use super::{Options, start};

    /// Watches metrics of a source and passes if every metric stays within its bound for `duration`.
    ///
    /// Bounds are comparisons such as `"< 0.1%"`, `"<= 200ms"` or `"> 3"`. A violated bound ends the hold at once
    /// (`gate-failed`); too little data is never a pass (`gate-inconclusive`). Returns a map with `verdict`,
    /// `polls`, `elapsed` and, for each metric in `metrics`, `last`, `min`, `max` and `mean`.
    ///
    /// ```rhai
    /// metrics::hold("web", #{ error_rate: "< 1%", p95: "< 2s" }, "1s").verdict == "pass"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn hold(cx: NativeCallContext<'_>, source: &str, bounds: Map, duration: &str) -> Checks {
        start(&cx, source, bounds, duration, Options::default())
    }

    /// ```rhai
    /// let held = metrics::hold("web", #{ error_rate: "< 1%" }, "500ms", #{ every: "100ms", on_no_data: "wait" });
    /// held.polls >= 2 && held.metrics.error_rate.max < 0.01
    /// ```
    #[rhai_fn(name = "hold", return_raw, volatile)]
    pub fn hold_with(
        cx: NativeCallContext<'_>,
        source: &str,
        bounds: Map,
        duration: &str,
        options: Map,
    ) -> Checks {
        let options = cx.options(options)?;
        start(&cx, source, bounds, duration, options)
    }
}

fn start(
    cx: &NativeCallContext<'_>,
    source: &str,
    bounds: Map,
    duration: &str,
    options: Options,
) -> ScriptResult {
    super::check_depends_on(cx, &options.depends_on)?;
    let hold = Hold {
        source: source.to_owned(),
        bounds: cx.arg("bounds", bounds)?,
        duration: cx.arg("duration", duration)?,
        options,
    };
    match hold.refusal() {
        Some((name, why)) => Err(cx.bad_argument(name, &why)),
        None => cx.wait(hold),
    }
}

#[cfg(test)]
#[path = "hold_tests.rs"]
pub(super) mod tests;
