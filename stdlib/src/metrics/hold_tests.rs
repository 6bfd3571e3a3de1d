//! `metrics::hold` against a source that plays a script.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use contraflow_runtime::provider::{Provider, Providers};

use super::*;
use crate::metrics::Reading;

type Play = Box<dyn FnMut(&str, u32) -> Result<Reading, ProviderError> + Send>;

/// A metrics source that answers what a closure says: it is given the metric and how often that metric was asked before.
pub(in crate::metrics) struct Scripted {
    play: Mutex<(Play, BTreeMap<String, u32>)>,
}

impl Scripted {
    fn new(play: impl FnMut(&str, u32) -> Result<Reading, ProviderError> + Send + 'static) -> Arc<Self> {
        Arc::new(Self { play: Mutex::new((Box::new(play), BTreeMap::new())) })
    }

    pub(in crate::metrics) fn always(reading: Reading) -> Arc<Self> {
        Self::new(move |_, _| Ok(reading))
    }

    /// An effect's view of an environment in which this is the source `web`.
    pub(in crate::metrics) fn on(self: Arc<Self>) -> On {
        let mut providers = Providers::new("test");
        providers.bind::<dyn Metrics>("web", self);
        On::detached(Arc::new(providers))
    }
}

#[async_trait]
impl Provider for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn describe(&self) -> String {
        "a script".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok("ready".to_owned())
    }
}

#[async_trait]
impl Metrics for Scripted {
    async fn query(&self, metric: &str) -> Result<Reading, ProviderError> {
        let (play, asked) = &mut *self.play.lock().expect("no test panicked");
        let asked = asked.entry(metric.to_owned()).or_default();
        *asked += 1;
        play(metric, *asked - 1)
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Polls as the kernel does, with a made-up clock, until the hold is over; answers how long that took as well.
async fn drive(hold: &Hold, on: &On) -> (Result<Held, ProviderError>, Duration) {
    assert_eq!(hold.refusal(), None);
    let Until::Polled { every, .. } = hold.until() else { panic!("a hold polls") };
    let deadline = hold.deadline().expect("a hold has a deadline");
    let (mut memory, mut waited) = (Watch::default(), Duration::ZERO);
    loop {
        match hold.poll(on, &mut memory, waited).await {
            Ok(Polled::Over(held)) => return (Ok(held), waited),
            Err(error) => return (Err(error), waited),
            Ok(Polled::Waiting(text)) => assert!(text.contains(" of "), "{text}"),
        }
        waited += every;
        if waited > deadline {
            return (hold.on_timeout(), waited);
        }
    }
}

fn hold(bounds: serde_json::Value, duration: &str, options: serde_json::Value) -> Hold {
    Hold {
        source: "web".to_owned(),
        bounds: serde_json::from_value(bounds).expect("bounds"),
        duration: duration.parse().expect("duration"),
        options: serde_json::from_value(options).expect("options"),
    }
}

async fn run(
    play: impl FnMut(&str, u32) -> Result<Reading, ProviderError> + Send + 'static,
    options: serde_json::Value,
) -> (Result<Held, ProviderError>, Duration) {
    let hold = hold(json!({ "error_rate": "< 0.1%" }), "10m", options);
    drive(&hold, &Scripted::new(play).on()).await
}

#[expect(clippy::unnecessary_wraps, reason = "a script's line")]
fn value(value: f64) -> Result<Reading, ProviderError> {
    Ok(Reading { value: Some(value), samples: None })
}

const NOTHING: Reading = Reading { value: None, samples: None };
const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn kept_bounds_pass_when_the_time_is_over_with_what_was_seen() {
    let bounds = json!({ "error_rate": "< 0.1%", "p95": "<= 200ms" });
    let source = Scripted::new(|metric, n| {
        value(match metric {
            "p95" => [0.1, 0.2, 0.15][n as usize % 3],
            _ => 0.0005,
        })
    });
    let hold = hold(bounds, "10m", json!({ "every": "1m" }));
    let (held, took) = drive(&hold, &source.on()).await;
    let held = held.expect("pass");
    assert_eq!(took, 10 * MINUTE);
    assert_eq!((&*held.verdict, held.polls, held.elapsed), ("pass", 11, "10m".parse().expect("span")));
    let p95 = held.metrics["p95"];
    assert_eq!((p95.min, p95.max, p95.last, p95.looks), (0.1, 0.2, 0.2, 11));
    assert!((p95.mean - 0.15).abs() < 0.005, "{}", p95.mean);
    assert_eq!(hold.show(&held), "error_rate 0.05%, p95 100ms to 200ms in 11 measurements");
    let json = serde_json::to_value(&held).expect("json");
    assert_eq!(serde_json::from_value::<Held>(json).expect("a journaled answer reads back"), held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_bound_fails_at_once_and_says_all_about_it() {
    let (held, took) = run(|_, n| value(if n < 3 { 0.0 } else { 0.023 }), json!({ "every": "1m" })).await;
    let error = held.expect_err("broken");
    assert_eq!(took, 3 * MINUTE);
    assert_eq!(error.code.as_str(), codes::GATE_FAILED);
    assert_eq!(error.retry, Retry::Never);
    assert_eq!(
        error.message,
        "web: error_rate was 2.3%, expected < 0.1%, for 1 of 4 measurements, since 3m after the first"
    );
    let detail = error.detail.expect("detail");
    assert_eq!(detail["verdict"], "fail");
    assert_eq!(detail["breaches"][0]["value"], 0.023);
    assert_eq!(detail["metrics"]["error_rate"]["max"], 0.023);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_breach_must_be_sustained_where_that_is_asked_for() {
    let options = json!({ "every": "30s", "sustained": "2m" });
    // Broken for 1m30s, well again, broken for good.
    let spell =
        |from: u32, to: u32| move |_: &str, n: u32| value(if (from..to).contains(&n) { 1.0 } else { 0.0 });
    let (held, took) = run(spell(4, 8), options.clone()).await;
    assert_eq!(held.expect("recovered").metrics["error_rate"].broken, 4);
    assert_eq!(took, 10 * MINUTE);
    let (held, took) = run(spell(4, 99), options.clone()).await;
    assert_eq!(took, 4 * MINUTE);
    let error = held.expect_err("sustained");
    assert_eq!(
        error.message,
        "web: error_rate was 100%, expected < 0.1%, for 5 of 9 measurements, since 2m after the first"
    );
    // A breach that is open when the time is over is not waved through.
    let (held, took) = run(spell(19, 99), options.clone()).await;
    assert_eq!((held.expect_err("open breach").code.as_str(), took), (codes::GATE_FAILED, 23 * MINUTE / 2));
    let (held, took) = run(spell(19, 22), options).await;
    assert_eq!((held.is_ok(), took), (true, 11 * MINUTE));
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_looks_may_break_a_bound_as_the_limit_says() {
    let broken =
        |looks: &'static [u32]| move |_: &str, n: u32| value(if looks.contains(&n) { 1.0 } else { 0.0 });
    let options = json!({ "every": "1m", "failure_limit": 2 });
    assert!(run(broken(&[2, 7]), options.clone()).await.0.is_ok());
    let (held, took) = run(broken(&[2, 7, 9]), options).await;
    let error = held.expect_err("three");
    assert_eq!(took, 9 * MINUTE);
    assert_eq!(
        error.message,
        "web: error_rate was 100%, expected < 0.1%, for 3 of 10 measurements, since 9m after the first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_data_is_inconclusive_when_the_time_is_over() {
    for nothing in [
        NOTHING,
        Reading { value: Some(f64::NAN), ..NOTHING },
        Reading { value: Some(0.0), samples: Some(0) },
    ] {
        let (held, took) = run(move |_, _| Ok(nothing), json!({})).await;
        let error = held.expect_err("no data");
        assert_eq!(took, 10 * MINUTE);
        assert_eq!(error.code.as_str(), codes::GATE_INCONCLUSIVE);
        assert_eq!(error.message, "web: not enough data: error_rate had no data for 10m of 10m");
        assert_eq!(error.detail.expect("detail")["verdict"], "no_data");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_must_cover_most_of_the_hold() {
    let late = |minutes: u32| move |_: &str, n: u32| if n < minutes { Ok(NOTHING) } else { value(0.0) };
    let every = json!({ "every": "1m" });
    assert!(run(late(3), every.clone()).await.0.is_ok());
    let (held, _) = run(late(5), every).await;
    let error = held.expect_err("a late start");
    assert_eq!(error.message, "web: not enough data: error_rate had no data for 4m of 10m");
    assert!(run(late(5), json!({ "every": "1m", "coverage": "60%" })).await.0.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_data_does_not_count_the_time_without() {
    let options = json!({ "every": "1m", "on_no_data": "wait", "timeout": "30m" });
    let late = |_: &str, n: u32| if n <= 5 { Ok(NOTHING) } else { value(0.0) };
    let (held, took) = run(late, options.clone()).await;
    assert_eq!((held.expect("pass").polls, took), (16, 15 * MINUTE));
    let (held, took) = run(|_, _| Ok(NOTHING), options).await;
    let error = held.expect_err("never");
    assert_eq!(took, 30 * MINUTE);
    assert_eq!(error.message, "web: not enough data: error_rate had no data for 30m of 30m");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_samples_decide_nothing() {
    let few = |n: u64| move |_: &str, _: u32| Ok(Reading { value: Some(1.0), samples: Some(n) });
    let options = json!({ "min_samples": 100 });
    let error = run(few(99), options.clone()).await.0.expect_err("few");
    assert_eq!(error.code.as_str(), codes::GATE_INCONCLUSIVE);
    assert_eq!(error.message, "web: inconclusive: error_rate had fewer than 100 samples for 10m of 10m");
    assert_eq!(run(few(100), options.clone()).await.0.expect_err("enough").code.as_str(), codes::GATE_FAILED);
    let error = run(|_, _| value(0.0), options).await.0.expect_err("not known");
    assert_eq!(error.message, "web: inconclusive: error_rate has no `samples` query, but min_samples is 100");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_out_of_reach_is_put_up_with_for_a_while() {
    let down = |from: u32, to: u32| {
        move |_: &str, n: u32| {
            if (from..to).contains(&n) {
                Err(ProviderError::unreachable("connection refused"))
            } else {
                value(0.0)
            }
        }
    };
    let options = json!({ "every": "30s" });
    assert!(run(down(0, 3), options.clone()).await.0.is_ok());
    let (held, took) = run(down(5, 99), options).await;
    let error = held.expect_err("down");
    assert_eq!((error.code.as_str(), took), (codes::GATE_INCONCLUSIVE, 4 * MINUTE));
    assert_eq!(
        error.message,
        "web: inconclusive: no answer for 4 measurements in a row: error_rate could not be read: connection \
         refused"
    );
    // Now and then is not in a row.
    let flaky = |_: &str, n: u32| match n {
        1 | 2 | 5 | 6 => Err(ProviderError::unreachable("connection refused")),
        _ => value(0.0),
    };
    assert!(run(flaky, json!({ "every": "30s" })).await.0.is_ok());
    let terminal = |_: &str, _: u32| Err(ProviderError::terminal(codes::GATE_FAILED, "no such metric"));
    let (held, took) = run(terminal, json!({})).await;
    assert_eq!((held.expect_err("terminal").message.as_str(), took), ("no such metric", Duration::ZERO));
}

#[test]
fn looks_are_a_thirtieth_apart_within_reason() {
    for (duration, every) in [("1s", 250), ("30s", 1000), ("10m", 20_000), ("15m", 30_000), ("2h", 30_000)] {
        let hold = hold(json!({ "cpu": "< 1" }), duration, json!({}));
        assert_eq!(hold.every(), Duration::from_millis(every), "{duration}");
    }
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_happens() {
    let refused = |bounds, options| hold(bounds, "10m", options).refusal().map(|(name, _)| name);
    let cpu = json!({ "cpu": "< 1" });
    assert_eq!(refused(json!({}), json!({})), Some("bounds"));
    assert_eq!(refused(cpu.clone(), json!({ "every": "0s" })), Some("every"));
    assert_eq!(refused(cpu.clone(), json!({ "coverage": "0%" })), Some("coverage"));
    assert_eq!(refused(cpu.clone(), json!({ "coverage": "101%" })), Some("coverage"));
    assert_eq!(refused(cpu.clone(), json!({ "timeout": "9m" })), Some("timeout"));
    assert_eq!(refused(cpu, json!({ "timeout": "10m" })), None);
}

#[test]
fn its_record_is_what_the_script_asked_for() {
    let hold =
        hold(json!({ "p95": "<200ms", "error_rate": "< 0.1%" }), "90s", json!({ "on_no_data": "wait" }));
    let record = serde_json::to_value(&hold).expect("json");
    assert_eq!(record["bounds"], json!({ "error_rate": "< 0.1%", "p95": "< 200ms" }));
    assert_eq!((&record["duration"], &record["on_no_data"]), (&json!("1m30s"), &json!("wait")));
    assert_eq!(hold.describe(), "web: error_rate < 0.1%, p95 < 200ms for 1m30s");
    let targets: Vec<String> = hold.depends_on().iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["metrics/web", "traffic/web"]);
}
