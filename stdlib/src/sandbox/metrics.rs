//! Measurements of the sandbox: for gates inside the process, and as Prometheus text at `/metrics`.
//!
//! `error_rate` (share of 5xx answers, 0 to 1), `p50` and `p95` (seconds) and `rps` (requests a second) are what the router
//! saw in the last 5 seconds; without a request in that time there is no data. `cpu` and `memory` (shares, 0 to 1) are derived
//! from the load, not measured: a replica is taken to be idle at 5 % CPU and 30 % memory, and at 95 % and 60 % with 200
//! requests a second. They are the mean over all ready replicas; without one there is no data. `blue.p95`, `green.cpu` and
//! so on are those of one pool.

use std::{fmt::Write as _, sync::Arc, time::Duration, time::Instant};

use async_trait::async_trait;
use contraflow_runtime::{
    error::{codes as runtime_codes, did_you_mean},
    provider::{Provider, ProviderError},
};
use hyper::{Request, Response, StatusCode, body::Incoming};

use super::{
    POOLS, Sandbox,
    http::{Body, Handler, answer},
    pool::Pool,
    router::Router,
    window::{BUCKETS, Summary, WINDOW},
};
use crate::metrics::{Metrics, Reading};

const NAMES: [&str; 6] = ["error_rate", "p50", "p95", "rps", "cpu", "memory"];

/// Requests a second at which a replica is taken to be fully busy.
const BUSY: f64 = 200.0;

/// The metrics source `web`.
pub(super) struct Source(pub(super) Arc<Sandbox>);

#[async_trait]
impl Provider for Source {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        "requests through the built-in router, last 5 s".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok(format!("metrics at {}", self.0.metrics_url().await?))
    }
}

#[async_trait]
impl Metrics for Source {
    async fn query(&self, metric: &str) -> Result<Reading, ProviderError> {
        let unknown = || {
            let error = ProviderError::terminal(
                runtime_codes::UNKNOWN_TARGET,
                format!("the sandbox has no metric named \"{metric}\""),
            );
            let names = self.names();
            match did_you_mean(metric, names.iter().map(String::as_str)) {
                Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                None => error.hint(format!("metrics here: {}", names.join(", "))),
            }
        };
        let (pool, name) = metric.split_once('.').map_or((None, metric), |(pool, name)| (Some(pool), name));
        if !NAMES.contains(&name) || pool.is_some_and(|pool| !POOLS.contains(&pool)) {
            return Err(unknown());
        }
        let world = self.0.world().await?;
        let pools: Vec<&Arc<Pool>> =
            world.router.pools.values().filter(|p| pool.is_none_or(|pool| p.name == pool)).collect();
        Ok(read(name, &pools, world.started))
    }

    fn names(&self) -> Vec<String> {
        let of_pools = POOLS.iter().flat_map(|pool| NAMES.iter().map(move |name| format!("{pool}.{name}")));
        NAMES.iter().map(|name| (*name).to_owned()).chain(of_pools).collect()
    }
}

/// One metric over some pools.
fn read(name: &str, pools: &[&Arc<Pool>], started: Instant) -> Reading {
    let mut summary = Summary::default();
    for pool in pools {
        pool.seen.add_to(&mut summary);
    }
    let samples = summary.len();
    // A sandbox that has just started has not seen a whole window; right at the start a second is taken as the least.
    let seconds = started.elapsed().clamp(Duration::from_secs(1), WINDOW).as_secs_f64();
    let rps = samples as f64 / seconds;
    let ready: u32 = pools.iter().map(|pool| pool.ready()).sum();
    let busy = (ready > 0).then(|| (rps / f64::from(ready) / BUSY).min(1.0));
    let value = match name {
        "error_rate" => summary.error_rate(),
        "p50" => summary.quantile(0.50),
        "p95" => summary.quantile(0.95),
        "rps" => (samples > 0).then_some(rps),
        "cpu" => return Reading { value: busy.map(|busy| 0.05 + 0.90 * busy), samples: None },
        _ => return Reading { value: busy.map(|busy| 0.30 + 0.30 * busy), samples: None },
    };
    Reading { value, samples: Some(samples as u64) }
}

/// The page for scrapers.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) router: Arc<Router>,
    pub(super) started: Instant,
}

impl Handler for Page {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/metrics" {
            return answer(StatusCode::NOT_FOUND, "text/plain", "there is /metrics\n");
        }
        answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.text())
    }
}

/// Writes one family: its kind and help, then `line` for each pool.
fn family(text: &mut String, name: &str, kind: &str, help: &str, mut lines: impl FnMut(&mut String)) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    lines(text);
}

impl Page {
    /// Source: Prometheus text exposition format 0.0.4.
    fn text(&self) -> String {
        let mut text = String::new();
        let pools = || self.router.pools.values();
        let (requests, duration) = ("sandbox_requests_total", "sandbox_request_duration_seconds");
        family(&mut text, requests, "counter", "Responses of the router by status class.", |text| {
            for pool in pools() {
                let by_class = pool.seen.totals().by_class;
                for (class, count) in (1..).zip(by_class) {
                    let _ = writeln!(text, "{requests}{{pool=\"{}\",code=\"{class}xx\"}} {count}", pool.name);
                }
            }
        });
        family(&mut text, duration, "histogram", "Response time of a pool.", |text| {
            for pool in pools() {
                let (name, totals) = (pool.name, pool.seen.totals());
                let mut count = 0;
                let bounds = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
                for (bound, in_bucket) in bounds.zip(totals.buckets) {
                    count += in_bucket;
                    let _ = writeln!(text, "{duration}_bucket{{pool=\"{name}\",le=\"{bound}\"}} {count}");
                }
                let _ = writeln!(text, "{duration}_sum{{pool=\"{name}\"}} {}", totals.seconds);
                let _ = writeln!(text, "{duration}_count{{pool=\"{name}\"}} {count}");
            }
        });
        type Gauge<'a> = (&'a str, &'a str, &'a dyn Fn(&Arc<Pool>) -> Option<f64>);
        let metric = |name: &'static str| move |pool: &Arc<Pool>| read(name, &[pool], self.started).value;
        let gauges: [Gauge<'_>; 6] = [
            ("sandbox_weight_percent", "Configured share of traffic.", &|pool| {
                Some(self.router.balancer.share(pool.name).percent())
            }),
            ("sandbox_replicas_wanted", "Configured replicas.", &|pool| Some(f64::from(pool.wanted()))),
            ("sandbox_replicas_ready", "Ready replicas.", &|pool| Some(f64::from(pool.ready()))),
            ("sandbox_open_requests", "Requests in progress.", &|pool| Some(pool.open() as f64)),
            ("sandbox_cpu_share", "Derived from the load, 0 to 1.", &metric("cpu")),
            ("sandbox_memory_share", "Derived from the load, 0 to 1.", &metric("memory")),
        ];
        for (name, help, value) in gauges {
            family(&mut text, name, "gauge", help, |text| {
                for pool in pools() {
                    if let Some(value) = value(pool) {
                        let _ = writeln!(text, "{name}{{pool=\"{}\"}} {value}", pool.name);
                    }
                }
            });
        }
        text
    }
}
