//! The Prometheus provider against a server that answers whatever a test wants.

use std::sync::Mutex;

use contraflow_provider::{config::Detached, contract};
use contraflow_runtime::provider::Retry;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// An HTTP server on loopback that answers each request for a path with what was set for it, and keeps the requests.
struct Fake {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

/// Status line, content type and body for a request, given its first line and its body.
type Serve = dyn Fn(&str, &str) -> (u16, &'static str, String) + Send + Sync;

impl Fake {
    async fn start(
        serve: impl Fn(&str, &str) -> (u16, &'static str, String) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (serve, seen): (Arc<Serve>, _) = (Arc::new(serve), requests.clone());
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                let (serve, seen) = (serve.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut request = String::new();
                    let mut bytes = [0; 4096];
                    let body = loop {
                        let n = peer.read(&mut bytes).await.unwrap_or(0);
                        request.push_str(&String::from_utf8_lossy(&bytes[..n]));
                        let Some((head, body)) = request.split_once("\r\n\r\n") else {
                            if n == 0 {
                                return;
                            }
                            continue;
                        };
                        let lines = head.lines().filter_map(|line| line.split_once(": "));
                        let length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                        let length = length.filter_map(|(_, n)| n.parse::<usize>().ok()).next().unwrap_or(0);
                        if n == 0 || body.len() >= length {
                            break body.to_owned();
                        }
                    };
                    seen.lock().expect("no panic").push(request.clone());
                    let (status, kind, text) = serve(request.lines().next().unwrap_or_default(), &body);
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                        text.len()
                    );
                    drop(peer.write_all(answer.as_bytes()).await);
                });
            }
        });
        Self { url, requests }
    }

    /// One that answers every query with this JSON.
    async fn json(status: u16, body: Value) -> Self {
        let body = body.to_string();
        Self::start(move |_, _| (status, "application/json", body.clone())).await
    }

    fn source(&self, more: Value) -> Prometheus {
        let mut settings = json!({ "url": self.url, "metrics": {
            "error_rate": { "query": "errors / all", "unit": "percent" },
            "p95": { "query": "p95_ms", "unit": "milliseconds", "samples": "count" },
            "rps": "rate(all[1m])",
        } });
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        Prometheus::new("web", serde_json::from_value(settings).expect("settings"), &Detached::default())
            .expect("source")
    }
}

fn vector(values: &[&str]) -> Value {
    let series = values.iter().enumerate().map(|(i, value)| {
        json!({ "metric": { "job": "web", "pod": format!("web-{i}") }, "value": [1_700_000_000.1, value] })
    });
    json!({ "status": "success", "data": { "resultType": "vector", "result": series.collect::<Vec<_>>() } })
}

async fn answer(status: u16, body: Value) -> Result<Option<f64>, ProviderError> {
    Fake::json(status, body).await.source(json!({})).query("rps").await.map(|reading| reading.value)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_series_or_a_scalar_is_a_number_and_nothing_else_is_data() {
    assert_eq!(answer(200, vector(&["12.5"])).await, Ok(Some(12.5)));
    let scalar = json!({ "status": "success", "data": { "resultType": "scalar", "result": [1.0, "3"] } });
    assert_eq!(answer(200, scalar).await, Ok(Some(3.0)));
    assert_eq!(answer(200, vector(&[])).await, Ok(None));
    assert_eq!(answer(200, vector(&["NaN"])).await, Ok(None));
    // Nothing but errors is no silence.
    assert_eq!(answer(200, vector(&["+Inf"])).await, Ok(Some(f64::MAX)));
    assert_eq!(answer(200, vector(&["-Inf"])).await, Ok(Some(f64::MIN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_series_are_an_error_that_names_the_labels() {
    let error = answer(200, vector(&["1", "2", "3", "4"])).await.expect_err("four");
    assert_eq!(
        error.message,
        "rps returned 4 series that differ in pod (web-0, web-1, web-2, …), expected one"
    );
    assert!(error.hints[0].contains("sum(…) or max(…)"), "{:?}", error.hints);
    assert_eq!(error.retry, Retry::Never);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_number_says_how_to_make_it_one() {
    let of = |kind: &str, result: Value| json!({ "status": "success", "data": { "resultType": kind, "result": result } });
    for (body, want) in [
        (of("matrix", json!([{ "metric": {}, "values": [[1, "1"]] }])), "rps returned a range of values"),
        (of("string", json!([1, "x"])), "rps returned a string, expected one number"),
        (of("vector", json!([{ "metric": {}, "histogram": [1, {}] }])), "rps returned a histogram"),
        (
            of("vector", json!([{ "metric": {}, "value": [1, "x"] }])),
            "rps returned a vector that cannot be read",
        ),
        (of("vector", json!([{ "metric": {} }])), "rps returned a vector that cannot be read"),
        (json!({ "status": "success" }), "rps returned no data"),
    ] {
        let error = answer(200, body).await.expect_err(want);
        assert_eq!((&*error.message, error.retry), (want, Retry::Never));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_pass_is_retryable() {
    let safe = Retry::Safe { after: None };
    for (status, kind, retry) in [
        (400, "bad_data", Retry::Never),
        (422, "execution", Retry::Never),
        (503, "timeout", safe),
        (503, "canceled", safe),
        (500, "internal", safe),
        (429, "rate_limited", safe),
    ] {
        let body = json!({ "status": "error", "errorType": kind, "error": "because" });
        let error = answer(status, body).await.expect_err(kind);
        assert_eq!((&*error.message, error.retry), (&*format!("rps was refused ({kind}): because"), retry));
    }
    let error = answer(502, json!({ "message": "gateway" })).await.expect_err("not Prometheus");
    assert_eq!(error.retry, safe);
    let error = answer(200, json!({ "message": "hello" })).await.expect_err("not Prometheus");
    assert!(error.message.ends_with("JSON that is not a Prometheus response"), "{error}");
    assert_eq!(error.retry, Retry::Never);

    let html = |status: u16| async move {
        let fake = Fake::start(move |_, _| (status, "text/html", "<html>Login</html>".to_owned())).await;
        fake.source(json!({})).query("rps").await.expect_err("a page")
    };
    assert!(html(200).await.message.contains("did not answer JSON but \"<html>Login</html>\""));
    assert_eq!(html(503).await.retry, safe);
    let error = html(401).await;
    assert_eq!((error.code.as_str(), error.retry), (library::HTTP_STATUS, Retry::Never));
    assert!(error.hints[0].contains("`bearer`"), "{:?}", error.hints);

    let nobody = Prometheus::new(
        "web",
        serde_json::from_value(json!({ "url": "http://127.0.0.1:1" })).expect("settings"),
        &Detached::default(),
    );
    let error = nobody.expect("source").query("up{}").await.expect_err("nobody there");
    assert_eq!((error.code.as_str(), error.retry), (codes::UNREACHABLE, safe));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_came_with_a_warning_is_not_trusted_unless_told_to() {
    let with = |warning: &str| {
        let mut body = vector(&["1"]);
        body["warnings"] = json!([warning]);
        body
    };
    let partial = with("No StoreAPIs matched for this query");
    let error = answer(200, partial.clone()).await.expect_err("partial");
    assert_eq!(error.retry, Retry::Safe { after: None });
    assert_eq!(error.message, "rps came with a warning: No StoreAPIs matched for this query");
    let fake = Fake::json(200, partial).await;
    let trusting = fake.source(json!({ "ignore_warnings": true }));
    assert_eq!(trusting.query("rps").await.map(|reading| reading.value), Ok(Some(1.0)));
    let info = "PromQL info: metric might not be a counter, name does not end in _total: \"x\"";
    assert_eq!(answer(200, with(info)).await, Ok(Some(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_in_base_units_with_their_samples() {
    let fake = Fake::start(|_, body| {
        let value = if body.contains("query=count") { "40.7" } else { "250" };
        (200, "application/json", vector(&[value]).to_string())
    })
    .await;
    let source = fake.source(json!({}));
    assert_eq!(source.query("p95").await, Ok(Reading { value: Some(0.25), samples: Some(40) }));
    assert_eq!(source.query("error_rate").await, Ok(Reading { value: Some(2.5), samples: None }));
    let nothing = Fake::json(200, vector(&[])).await;
    let reading = nothing.source(json!({})).query("p95").await;
    assert_eq!(reading, Ok(Reading { value: None, samples: Some(0) }));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bound_and_promql_is_passed_through() {
    let fake = Fake::json(200, vector(&["1"])).await;
    let source = fake.source(json!({}));
    source.query("sum(rate(x{a=\"b c\"}[1m])) > 0 & 1").await.expect("PromQL");
    let request = fake.requests.lock().expect("requests").remove(0);
    assert!(request.starts_with("POST /api/v1/query HTTP/1.1"), "{request}");
    assert!(
        request.contains("query=sum%28rate%28x%7Ba%3D%22b+c%22%7D%5B1m%5D%29%29+%3E+0+%26+1&timeout=10.000"),
        "{request}"
    );
    source.query("job:errors:rate5m").await.expect("the name of a recording rule");
    for (wrong, hint) in
        [("eror_rate", "did you mean \"error_rate\"?"), ("error-rate", "did you mean \"error_rate\"?")]
    {
        let error = source.query(wrong).await.expect_err(wrong);
        assert_eq!(error.message, format!("no metric named \"{wrong}\" in web; bound: error_rate, p95, rps"));
        assert_eq!(error.hints[0], hint);
    }
    let error = source.query("up").await.expect_err("a plain word");
    assert_eq!(error.hints, ["for the series of that name write \"up{}\""]);
    assert_eq!(fake.requests.lock().expect("requests").len(), 1, "a wrong name is not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_sent_and_never_told() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "first-token\n").expect("token");
    let fake = Fake::start(|_, _| (403, "text/plain", "no".to_owned())).await;
    let source = fake.source(json!({ "bearer": { "file": file }, "headers": { "X-Scope-OrgID": "team-a" } }));
    let error = source.query("rps").await.expect_err("refused");
    std::fs::write(&file, "second-token").expect("token");
    drop(source.query("rps").await);
    let requests = fake.requests.lock().expect("requests").clone();
    assert!(requests[0].contains("authorization: Bearer first-token\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("x-scope-orgid: team-a\r\n"), "{}", requests[0]);
    assert!(requests[1].contains("authorization: Bearer second-token\r\n"), "{}", requests[1]);
    assert!(!format!("{error:?}").contains("first-token"));
    std::fs::remove_file(&file).expect("removed");
    let error = source.query("rps").await.expect_err("no token");
    assert_eq!((error.code.as_str(), error.retry), (library::CONFIG, Retry::Never));

    let source = fake.source(json!({ "bearer": { "env": "NO_TOKEN" } }));
    let error = source.query("rps").await.expect_err("no variable");
    assert!(error.message.contains("NO_TOKEN is not set"), "{error}");

    let url = fake.url.replace("http://", "http://ann:pass-word@");
    let source = fake.source(json!({ "url": url }));
    let error = source.query("rps").await.expect_err("refused");
    assert!(!format!("{error:?} {}", source.describe()).contains("pass-word"));
    let request = fake.requests.lock().expect("requests").pop().expect("one");
    assert!(request.contains("authorization: Basic YW5uOnBhc3Mtd29yZA==\r\n"), "{request}");
}

/// A server with one value that stays.
struct Steady(Prometheus);

#[async_trait]
impl contract::metrics::Fixture for Steady {
    fn metrics(&self) -> &dyn Metrics {
        &self.0
    }

    fn known(&self) -> (&str, f64) {
        ("error_rate", 0.025)
    }

    fn silent(&self) -> &str {
        "up{job='nothing'}"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_metrics() {
    let fake = Fake::start(|_, body| {
        let series: &[&str] = if body.contains("errors") { &["2.5"] } else { &[] };
        (200, "application/json", vector(series).to_string())
    })
    .await;
    contract::metrics::holds(&Steady(fake.source(json!({})))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_the_version_and_which_metrics_are_silent() {
    let fake = Fake::start(|line, body| {
        let json = if line.contains("/status/buildinfo") {
            json!({ "status": "success", "data": { "version": "2.42.0" } })
        } else {
            vector(if body.contains("p95") { &[] } else { &["1"] })
        };
        (200, "application/json", json.to_string())
    })
    .await;
    let said = fake.source(json!({})).check().await;
    assert_eq!(said.as_deref(), Ok("Prometheus 2.42.0, 3 metrics, no data now for p95"));

    let plain = Fake::start(|line, _| match line.contains("buildinfo") {
        true => (404, "text/plain", "not found".to_owned()),
        false => (200, "application/json", vector(&["1"]).to_string()),
    })
    .await;
    assert_eq!(plain.source(json!({})).check().await.as_deref(), Ok("Prometheus API, 3 metrics"));

    let wrong = Fake::start(|line, _| match line.contains("buildinfo") {
        true => (200, "application/json", json!({ "data": { "version": "3.0.0" } }).to_string()),
        false => (
            400,
            "application/json",
            json!({ "status": "error", "errorType": "bad_data", "error": "parse error" }).to_string(),
        ),
    })
    .await;
    let error = wrong.source(json!({})).check().await.expect_err("a query that does not parse");
    assert_eq!(error.message, "error_rate was refused (bad_data): parse error");
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let refused = |settings: Value| {
        let settings: Settings = serde_json::from_value(settings).expect("settings");
        Prometheus::new("web", settings, &Detached::default()).err().map(|bad| bad.key)
    };
    let url = "http://127.0.0.1:9090/prefix/";
    assert_eq!(refused(json!({ "url": url })), None);
    for wrong in ["127.0.0.1:9090", "ftp://host/", "http://host/?x=1", ""] {
        assert_eq!(refused(json!({ "url": wrong })), Some("url".into()), "{wrong}");
    }
    assert_eq!(refused(json!({ "url": url, "metrics": { "a": " " } })), Some("metrics".into()));
    assert_eq!(refused(json!({ "url": url, "headers": { "a b": "c" } })), Some("headers".into()));
    assert_eq!(refused(json!({ "url": url, "timeout": "0s" })), Some("timeout".into()));
    assert_eq!(refused(json!({ "url": url, "bearer": { "secret": "x" } })), Some("bearer".into()));
    let table = json!({ "url": url, "metrics": { "a": { "query": "x", "units": "percent" } } });
    let error = serde_json::from_value::<Settings>(table).err().expect("a wrong field").to_string();
    assert!(error.starts_with("unknown field `units`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_end_is_not_read_to_the_end() {
    let fake = Fake::start(|_, _| (200, "application/json", " ".repeat(LONGEST_ANSWER + 1))).await;
    let error = fake.source(json!({})).query("rps").await.expect_err("too long");
    assert!(error.message.ends_with("answered more than 4 MiB"), "{error}");
}
