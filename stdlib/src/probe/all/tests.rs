use serde_json::json;

use super::*;
use crate::http::testing::{Reply, Server, detached, with_secret};

fn all(entries: Value, options: Value) -> All {
    let Value::Array(entries) = entries else { panic!("an array") };
    let entries = entries.into_iter().enumerate().map(|(i, v)| Entry::read(i, v).expect("entry")).collect();
    All::new(entries, &serde_json::from_value(options).expect("options")).expect("probes")
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_result_for_each_entry_in_order() {
    let server = Server::start(|request| {
        // The first answers last.
        Reply::ok("").delay_ms(if request.path == "/0" { 60 } else { 0 })
    })
    .await;
    let mut entries: Vec<Value> =
        (0..20).map(|i| json!({ "http": server.url(), "path": format!("/{i}") })).collect();
    entries.push(json!(server.url()));
    entries.push(json!({ "tcp": server.addr().to_string() }));
    let effect = all(entries.into(), json!({ "limit": 7 }));
    let outcomes = effect.read(&detached()).await.expect("pass");
    assert_eq!(outcomes.len(), 22);
    for (i, outcome) in outcomes.iter().take(20).enumerate() {
        assert!(outcome.ok && outcome.error.is_empty());
        assert_eq!(outcome.value["url"], format!("{}{i}", server.url()));
        assert_eq!((&outcome.value["status"], &outcome.value["attempts"]), (&json!(200), &json!(1)));
    }
    assert!(outcomes[0].latency_ms >= 60.0);
    assert_eq!(outcomes[21].value["address"], server.addr().to_string());
    assert!(effect.show(&outcomes).starts_with("22 of 22 passed"), "{}", effect.show(&outcomes));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_limit_run_at_once_and_connections_are_kept() {
    let server = Server::start(|_| Reply::ok("").delay_ms(1)).await;
    let entries: Vec<Value> = (0..200).map(|_| json!(server.url())).collect();
    all(entries.into(), json!({ "limit": 4 })).read(&detached()).await.expect("pass");
    assert_eq!(server.hits(), 200);
    // A connection that is just being put back may be missed, so a few more are opened, but not one for each.
    assert!(server.connections() < 40, "{} connections", server.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_fails_all_and_the_error_says_which_and_why() {
    let server =
        Server::start(|r| Reply::status(if r.path.starts_with("/bad") { 500 } else { 200 }, "")).await;
    let entry = |path: String| json!({ "http": server.url(), "path": path });
    let mut entries = vec![entry("/good".into())];
    entries.extend((0..12).map(|i| entry(format!("/bad{i}"))));
    let error = all(entries.clone().into(), json!({})).read(&detached()).await.expect_err("fails");
    assert_eq!(error.code.as_str(), "probe-failed");
    let lines: Vec<&str> = error.message.lines().collect();
    assert_eq!(lines[0], "12 of 13 probes failed");
    let first = format!(
        "  [1] GET {}bad0: expected status 2xx, got 500 Internal Server Error (tried once)",
        server.url()
    );
    assert_eq!(lines[1], first);
    assert_eq!((lines.len(), lines[11]), (12, "  and 2 more"));
    let detail = error.detail.expect("detail");
    assert_eq!(detail["failed"].as_array().map(Vec::len), Some(12));
    assert_eq!(detail["failed"][11]["entry"], 12);

    let few = all(entries.clone().into(), json!({ "allow_failures": 11 })).read(&detached()).await;
    assert!(few.expect_err("one too many").message.starts_with("12 of 13 probes failed, 11 may"));
    let outcomes =
        all(entries.into(), json!({ "allow_failures": 12 })).read(&detached()).await.expect("allowed");
    assert!(outcomes[0].ok && !outcomes[12].ok);
    assert_eq!(outcomes[12].value, Value::Null);
    assert!(outcomes[12].error.contains("expected status 2xx"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_started_once_too_many_have_failed() {
    let server = Server::start(|_| Reply::status(500, "")).await;
    let entries: Vec<Value> = (0..50).map(|_| json!(server.url())).collect();
    let effect =
        all(entries.clone().into(), json!({ "limit": 1, "stop_on_fail": true, "allow_failures": 2 }));
    let error = effect.read(&detached()).await.expect_err("fails");
    assert_eq!(server.hits(), 3);
    assert!(error.message.starts_with("3 of 50 probes failed, 2 may, 47 were not made"), "{}", error.message);
    all(entries.into(), json!({ "limit": 5 })).read(&detached()).await.expect_err("fails");
    assert_eq!(server.hits(), 53);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_has_its_own_options_and_attempts() {
    let server = Server::start(|r| match r.path.as_str() {
        "/late" if r.nth < 3 => Reply::status(503, ""),
        _ => Reply::ok("yes"),
    })
    .await;
    let url = server.url();
    let outcomes = all(
        json!([
            { "http": url, "path": "/late", "attempts": 9, "interval": "1ms" },
            { "http": url, "body_contains": "no" },
        ]),
        json!({ "limit": 1, "allow_failures": 1 }),
    )
    .read(&detached())
    .await
    .expect("allowed");
    assert_eq!(outcomes[0].value["attempts"], 4);
    assert!(outcomes[1].error.contains("contains \"no\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_route_is_said_before_anything_is_probed() {
    let server = Server::start(|_| Reply::ok("")).await;
    let error = all(json!([server.url(), "wbe/green"]), json!({ "allow_failures": 2 }))
        .read(&detached())
        .await
        .expect_err("unknown");
    assert_eq!(error.code.as_str(), "unknown-target");
    assert!(error.message.starts_with("entries[1]: no traffic target named \"wbe\""), "{}", error.message);
    assert_eq!(server.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_not_read_is_said_before_anything_is_probed() {
    let server = Server::start(|_| Reply::ok("")).await;
    let token = json!({ "$secret": [{ "name": "token" }] });
    let secret = json!({ "http": server.url(), "headers": { "x-token": token } });
    let entries = |last: Value| json!([server.url(), last]);
    let error = all(entries(secret.clone()), json!({ "allow_failures": 2 }))
        .read(&detached())
        .await
        .expect_err("not read");
    assert!(error.message.starts_with("entries[1]: header `x-token`"), "{}", error.message);
    assert_eq!(server.hits(), 0);
    let on = with_secret("token", "s3cr3t-value");
    all(entries(secret), json!({})).read(&on).await.expect("pass");
    assert_eq!(server.hits(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_probes_show_no_secret() {
    let server = Server::start(|_| Reply::ok("")).await;
    let on = with_secret("token", "s3cr3t-value");
    let outcomes = all(json!([format!("{}s3cr3t-value", server.url())]), json!({})).read(&on).await;
    assert_eq!(outcomes.expect("pass")[0].probe, format!("GET {}<secret token>", server.url()));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_it_stops_all_of_it() {
    let server = Server::start(|_| Reply::ok("").delay_ms(20)).await;
    let entries: Vec<Value> = (0..500).map(|_| json!(server.url())).collect();
    let effect = all(entries.into(), json!({ "limit": 4 }));
    let short = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(short, effect.read(&detached())).await.is_err());
    tokio::time::sleep(short).await;
    let hits = server.hits();
    tokio::time::sleep(short).await;
    assert_eq!(server.hits(), hits);
    assert!(hits < 100, "{hits}");
}

#[test]
fn a_bad_entry_is_refused_with_its_place() {
    for (entry, message) in [
        (json!({ "path": "/" }), "`entries[3]`: no probe: expected one of"),
        (json!({ "http": "web", "tcp": "x:1" }), "`entries[3]`: `http` and `tcp` are two probes"),
        (json!(5), "`entries[3]`: expected a URL"),
        (json!({ "http": "web", "pahts": "/" }), "unknown key `pahts`"),
        (json!({ "tcp": "nohost:" }), "`entries[3].tcp`: bad address"),
        (json!({ "http": "web", "attempts": 0 }), "`entries[3].attempts`"),
        (json!({ "http": "web", "method": "PUT" }), "`entries[3]`: `method`: a probe changes nothing"),
        (json!({ "dns": "" }), "`entries[3]`: `name`"),
    ] {
        let error = Entry::read(3, entry.clone()).expect_err("refused");
        assert!(error.message.contains(message), "{entry}: {}", error.message);
    }
    let error = Entry::read(0, json!({ "http": "web", "pth": "/" })).expect_err("refused");
    assert_eq!(error.hints, ["did you mean `path`?"]);
    let read = |limit: usize, entries: Vec<Entry>| {
        All::new(entries, &Options { limit, ..Options::default() }).map(|_| ()).map_err(|e| e.0)
    };
    let one = || vec![Entry::read(0, json!("web")).expect("entry")];
    assert_eq!(read(0, one()), Err("limit"));
    assert_eq!(read(5000, one()), Err("limit"));
    assert_eq!(read(5, Vec::new()), Err("entries"));
    assert_eq!(read(5, one()), Ok(()));
}

#[test]
fn it_depends_on_all_that_its_entries_do_and_may_take_as_long() {
    let effect = all(
        json!(["web", { "http": "web/green" }, "web", { "tcp": "x:1", "depends_on": ["db/main"] }]),
        json!({ "limit": 2 }),
    );
    let names: Vec<_> = effect.depends_on().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["traffic/web", "deploy/web/green", "db/main"]);
    assert!(effect.is_check());
    // Four probes of eleven seconds, two at a time.
    assert!(effect.limits().timeout >= Duration::from_secs(33));
}

/// With `PROBE_URL` naming a fast server (nginx) and in a release build it measures: 20,000 requests a second are wanted.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_probes_go_through_one_client() {
    let own = Server::start(|_| Reply::ok("ok")).await;
    let measured = std::env::var("PROBE_URL").ok();
    let (url, count) = match &measured {
        Some(url) => (url.clone(), 200_000),
        None => (own.url(), 2_000),
    };
    let entries: Vec<Value> = (0..count).map(|_| json!(url)).collect();
    let effect = all(entries.into(), json!({ "limit": 64 }));
    let start = std::time::Instant::now();
    let outcomes = effect.read(&detached()).await.expect("pass");
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("{rate:.0} requests/s");
    assert!(outcomes.iter().all(|outcome| outcome.ok));
    assert!(measured.is_none() || cfg!(debug_assertions) || rate >= 20_000.0, "{rate:.0} requests/s");
}
