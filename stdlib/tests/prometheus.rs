//! Metrics and gates against a real Prometheus that scrapes a real Pushgateway.
//!
//! Each test starts its own pair from `PATH`, on free ports of loopback and with data in a temporary folder. Where they are not
//! installed a test does nothing, unless `CONTRAFLOW_TEST_SERVERS=1` says that they must be there.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test says what it could not do")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use contraflow_runtime::{
    effect::{On, Polled, Until, Wait},
    error::codes,
    provider::{Provider, ProviderError, Providers, Retry},
    quantity::Span,
};
use contraflow_stdlib::{
    codes as library,
    metrics::{
        Metrics,
        hold::{Held, Hold, Options},
        prometheus::{Prometheus, Settings},
        verdict::Watch,
    },
    net,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Processes that end with the test.
struct Process(Child);

impl Process {
    fn start(program: &str, folder: &Path, arguments: &[String]) -> Self {
        let log = std::fs::File::create(folder.join(format!("{program}.log"))).expect("a log file");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program} does not start: {e}"));
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Servers {
    prometheus: Option<Process>,
    _pushgateway: Process,
    url: String,
    push: String,
    _folder: TempDir,
}

/// Whether the servers are installed. Panics where they have to be and are not.
fn installed() -> bool {
    let missing = ["prometheus", "prometheus-pushgateway"].into_iter().find(|program| {
        let mut version = Command::new(program);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        !version.status().is_ok_and(|status| status.success())
    });
    let Some(program) = missing else { return true };
    assert!(
        std::env::var("CONTRAFLOW_TEST_SERVERS").as_deref() != Ok("1"),
        "{program} is not installed: run tests/servers/install"
    );
    eprintln!("not tested: {program} is not installed (tests/servers/install)");
    false
}

impl Servers {
    async fn start() -> Option<Self> {
        if !installed() {
            return None;
        }
        // A port that was free a moment ago may have been taken meanwhile.
        for _ in 0..3 {
            if let Some(servers) = Self::try_start().await {
                return Some(servers);
            }
        }
        panic!("the servers did not become ready three times");
    }

    async fn try_start() -> Option<Self> {
        // Both are held until both are known, so that they differ.
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [prometheus, pushgateway] = ports.map(|p| p.local_addr().expect("an address").port());
        let folder = tempfile::tempdir().expect("a folder");
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms }}\n\
             scrape_configs:\n  - job_name: push\n    honor_labels: true\n    \
             static_configs: [{{ targets: [\"127.0.0.1:{pushgateway}\"] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("a configuration");
        let servers = Self {
            _pushgateway: Process::start(
                "prometheus-pushgateway",
                folder.path(),
                &[format!("--web.listen-address=127.0.0.1:{pushgateway}")],
            ),
            prometheus: Some(Process::start(
                "prometheus",
                folder.path(),
                &[
                    "--config.file=prometheus.yml".to_owned(),
                    "--storage.tsdb.path=data".to_owned(),
                    format!("--web.listen-address=127.0.0.1:{prometheus}"),
                ],
            )),
            url: format!("http://127.0.0.1:{prometheus}"),
            push: format!("http://127.0.0.1:{pushgateway}"),
            _folder: folder,
        };
        let ready = [format!("{}/-/ready", servers.url), format!("{}/-/ready", servers.push)];
        let client = net::client(&servers.url).expect("a client");
        let patience = Instant::now();
        for url in ready {
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                if patience.elapsed() > Duration::from_secs(20) {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Some(servers)
    }

    /// Replaces what the service `web` has pushed.
    async fn push(&self, samples: &str) {
        let client = net::client(&self.push).expect("a client");
        let url = format!("{}/metrics/job/web", self.push);
        let answer = client.put(url).body(format!("{samples}\n")).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    fn source(&self) -> Prometheus {
        let settings = json!({ "url": self.url, "metrics": {
            "error_rate": { "query": "sum(errors_percent{job='web'})", "unit": "percent" },
            "p95": { "query": "max(p95_milliseconds)", "samples": "sum(requests)", "unit": "milliseconds" },
            "share": "sum(errors_percent) / (sum(requests) - sum(requests))",
        } });
        let settings: Settings = serde_json::from_value(settings).expect("settings");
        Prometheus::new("web", settings, &contraflow_provider::config::Detached::default()).expect("a source")
    }

    /// Waits until Prometheus has scraped a value of `metric` that is as wanted.
    async fn seen(&self, metric: &str, wanted: impl Fn(Option<f64>) -> bool) {
        let (source, patience) = (self.source(), Instant::now());
        loop {
            let reading = source.query(metric).await.expect("a reading");
            if wanted(reading.value) {
                return;
            }
            assert!(patience.elapsed() < Duration::from_secs(30), "{metric} is still {reading:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn on(&self) -> On {
        let source = Arc::new(self.source());
        let mut providers = Providers::new("test");
        providers.bind::<dyn Metrics>("web", source);
        On::detached(Arc::new(providers))
    }
}

const GOOD: &str =
    "errors_percent 0.05\np95_milliseconds{pod=\"a\"} 120\np95_milliseconds{pod=\"b\"} 180\nrequests 42";
const BAD: &str =
    "errors_percent 2.5\np95_milliseconds{pod=\"a\"} 120\np95_milliseconds{pod=\"b\"} 180\nrequests 42";

fn hold(duration: &str, options: Value) -> Hold {
    let bounds = json!({ "error_rate": "< 0.1%", "p95": "< 200ms" });
    Hold {
        source: "web".to_owned(),
        bounds: serde_json::from_value(bounds).expect("bounds"),
        duration: duration.parse().expect("a duration"),
        options: serde_json::from_value::<Options>(options).expect("options"),
    }
}

/// Polls in real time, as the kernel does; `before_look` is told how many looks were made.
async fn drive(hold: &Hold, on: &On, mut before_look: impl AsyncFnMut(u32)) -> Result<Held, ProviderError> {
    let Until::Polled { every, .. } = hold.until() else { panic!("a hold polls") };
    let (mut memory, started) = (Watch::default(), Instant::now());
    for look in 0.. {
        before_look(look).await;
        if let Polled::Over(held) = hold.poll(on, &mut memory, started.elapsed()).await? {
            return Ok(held);
        }
        tokio::time::sleep(every).await;
    }
    unreachable!("looks are not endless")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_is_read_in_base_units_and_what_was_not_is_no_data() {
    let Some(servers) = Servers::start().await else { return };
    let source = servers.source();
    let said = source.check().await.expect("it answers");
    assert!(said.starts_with("Prometheus "), "{said}");
    assert!(said.ends_with("3 metrics, no data now for error_rate, p95, share"), "{said}");

    servers.push(GOOD).await;
    servers.seen("error_rate", |value| value.is_some()).await;
    let error_rate = source.query("error_rate").await.expect("a reading");
    assert!((error_rate.value.expect("a value") - 0.000_5).abs() < 1e-9, "{error_rate:?}");
    let p95 = source.query("p95").await.expect("a reading");
    assert_eq!((p95.value, p95.samples), (Some(0.18), Some(42)));
    let share = source.query("share").await.expect("a reading").value;
    assert_eq!(share, Some(f64::MAX), "a division by zero is infinite, which is no missing data");
    assert_eq!(source.query("sum(nobody_has_this)").await.expect("a reading").value, None);
    assert_eq!(source.query("scalar(sum(requests))").await.expect("a reading").value, Some(42.0));

    let error = source.query("p95_milliseconds{}").await.expect_err("two series");
    assert!(error.message.ends_with("returned 2 series that differ in pod (a, b), expected one"), "{error}");
    let error = source.query("p95_milliseconds[1m]").await.expect_err("a range");
    assert!(error.message.contains("returned a range of values"), "{error}");
    let error = source.query("sum(").await.expect_err("no PromQL");
    assert_eq!((error.code.as_str(), error.retry), (codes::PROVIDER, Retry::Never));
    assert!(error.message.contains("(bad_data)") && error.message.contains("parse error"), "{error}");
    let twice = "sum(requests) * on() p95_milliseconds";
    let error = source.query(twice).await.map(|reading| reading.value).expect_err("several matches");
    assert_eq!(error.retry, Retry::Never, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_passes_on_good_values_and_fails_when_they_turn_bad() {
    let Some(servers) = Servers::start().await else { return };
    let on = servers.on();
    // Nothing is pushed yet: no data, and no pass.
    let error = drive(&hold("1s", json!({})), &on, async |_| {}).await.expect_err("no data");
    assert_eq!(error.code.as_str(), library::GATE_INCONCLUSIVE);
    assert!(error.message.starts_with("web: not enough data: error_rate had no data for "), "{error}");

    // Pushed while it waits.
    let waiting = hold("1s", json!({ "on_no_data": "wait", "every": "100ms" }));
    let push = async |look| {
        if look == 5 {
            servers.push(GOOD).await;
        }
    };
    let held = drive(&waiting, &on, push).await.expect("data comes");
    assert!(held.elapsed > Span::millis(1400) && held.polls > 14, "{held:?}");

    let held = drive(&hold("2s", json!({})), &on, async |_| {}).await.expect("all good");
    assert_eq!(held.verdict, "pass");
    let maxima: BTreeMap<&str, f64> =
        held.metrics.iter().map(|(name, seen)| (name.as_str(), seen.max)).collect();
    assert_eq!(maxima["p95"], 0.18);

    // Turns bad on the way.
    let push = async |look| {
        if look == 3 {
            servers.push(BAD).await;
        }
    };
    let error = drive(&hold("60s", json!({ "every": "250ms" })), &on, push).await.expect_err("bad");
    assert_eq!(error.code.as_str(), library::GATE_FAILED);
    assert!(error.message.starts_with("web: error_rate was 2.5%, expected < 0.1%, for 1 of "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_source_dies_is_inconclusive() {
    let Some(mut servers) = Servers::start().await else { return };
    servers.push(GOOD).await;
    servers.seen("p95", |value| value == Some(0.18)).await;
    let on = servers.on();
    let mut prometheus = servers.prometheus.take();
    let stop = async |look| {
        if look == 3 {
            drop(prometheus.take());
        }
    };
    let error = drive(&hold("60s", json!({ "every": "100ms" })), &on, stop).await.expect_err("it died");
    assert_eq!(error.code.as_str(), library::GATE_INCONCLUSIVE);
    assert!(
        error.message.starts_with("web: inconclusive: no answer for 4 measurements in a row: "),
        "{error}"
    );
    assert_eq!(error.detail.expect("detail")["polls"], 7);
}
