use std::sync::Arc;

use async_trait::async_trait;
use contraflow_runtime::{
    effect::Progress,
    provider::{Provider, Providers},
    secret::{SecretText, Text},
};
use serde_json::json;

use super::*;
use crate::{
    http::testing::{Authority, Issued, Reply, Server, Wanted, detached, with_secret},
    traffic::{Traffic, Weights},
};

fn probe(target: &str, options: Value) -> HttpProbe {
    let target = Where::try_from(target.to_owned()).expect("target");
    HttpProbe::new(target, serde_json::from_value(options).expect("options")).expect("probe")
}

async fn passes(server: &Server, options: Value) -> Passed {
    probe(&server.url(), options.clone()).read(&detached()).await.unwrap_or_else(|e| panic!("{options}: {e}"))
}

async fn fails(server: &Server, options: Value) -> ProviderError {
    let error = probe(&server.url(), options.clone()).read(&detached()).await.expect_err("fails");
    assert_eq!(error.code.as_str(), "probe-failed", "{options}: {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_server_passes_and_shows_what_it_answered() {
    let server = Server::start(|request| {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/health"));
        Reply::ok("fine").header("X-Build", "7")
    })
    .await;
    let passed = passes(&server, json!({ "path": "/health" })).await;
    assert_eq!((passed.status, passed.attempts, passed.body.as_str()), (200, 1, "fine"));
    assert_eq!(passed.headers["x-build"], "7");
    assert_eq!(passed.url, format!("{}health", server.url()));
    assert!(passed.latency_ms > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_what_was_expected_what_came_and_how_often_it_was_tried() {
    let server = Server::start(|_| Reply::status(503, "starting up\nplease wait")).await;
    let error = fails(&server, json!({ "attempts": 3, "interval": "1ms" })).await;
    let start = format!(
        "GET {}: expected status 2xx, got 503 Service Unavailable: \"starting up please wait\" (tried 3 times in ",
        server.url()
    );
    assert!(error.message.starts_with(&start), "{}", error.message);
    let detail = error.detail.expect("detail");
    assert_eq!((&detail["expected"], &detail["attempts"]), (&json!("status 2xx"), &json!(3)));
    assert!(detail["got"].as_str().expect("got").starts_with("503"));
    assert_eq!(server.hits(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_as_soon_as_the_server_recovers() {
    let server = Server::start(|r| if r.nth < 2 { Reply::status(503, "") } else { Reply::ok("") }).await;
    let passed = passes(&server, json!({ "attempts": 9, "interval": "1ms" })).await;
    assert_eq!((passed.attempts, server.hits()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn any_2xx_passes_by_default_and_status_narrows_or_widens_it() {
    let server = Server::start(|r| Reply::status(r.path[1..].parse().expect("status"), "")).await;
    for (path, status, ok) in [
        ("/204", json!("2xx"), true),
        ("/204", json!(200), false),
        ("/204", json!([200, 204]), true),
        ("/404", json!("4xx"), true),
        ("/302", json!(302), true),
        ("/500", json!("200-499"), false),
    ] {
        let options = json!({ "path": path, "status": status });
        assert_eq!(probe(&server.url(), options).read(&detached()).await.is_ok(), ok, "{path} {status}");
    }
    passes(&server, json!({ "path": "/299" })).await;
    fails(&server, json!({ "path": "/300" })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_is_searched_for_text_and_patterns() {
    let server = Server::start(|_| Reply::ok("build 1234 ok")).await;
    passes(&server, json!({ "body_contains": "ok" })).await;
    passes(&server, json!({ "body_contains": ["build", "ok"], "body_regex": r"build \d{4}" })).await;
    let error = fails(&server, json!({ "body_contains": ["build", "missing"] })).await;
    assert!(
        error
            .message
            .contains("expected a body that contains \"missing\", got \"build 1234 ok\" (tried once)"),
        "{}",
        error.message
    );
    let error = fails(&server, json!({ "body_regex": r"^\d", "body_contains": "nope" })).await;
    assert!(error.message.contains("\"nope\"; a body that matches /^\\d/, got"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_values_are_compared_at_their_place() {
    let server =
        Server::start(|_| Reply::ok(r#"{"status":"ok","db":{"lag":0},"nodes":[{"up":true}],"last":null}"#))
            .await;
    passes(
        &server,
        json!({ "json": { "/status": "ok", "/db/lag": 0.0, "/nodes/0/up": true, "/last": null, "/db": { "lag": 0 } } }),
    )
    .await;
    let error = fails(&server, json!({ "json": { "/status": "degraded", "/nodes/1/up": true } })).await;
    assert!(
        error
            .message
            .contains("expected /nodes/1/up = true; /status = \"degraded\", got nothing there; \"ok\""),
        "{}",
        error.message
    );
    let text = Server::start(|_| Reply::ok("hello")).await;
    let error = fails(&text, json!({ "json": { "/status": "ok" } })).await;
    assert!(error.message.contains("expected a JSON body, got \"hello\""), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_required_forbidden_or_compared() {
    let server = Server::start(|_| {
        Reply::ok("").header("strict-transport-security", "max-age=600").header("server", "nginx")
    })
    .await;
    passes(
        &server,
        json!({
            "expect_headers": { "Strict-Transport-Security": true, "server": "nginx", "x-powered-by": false },
            "security_headers": ["hsts"],
        }),
    )
    .await;
    passes(&server, json!({ "expect_headers": { "strict-transport-security": "regex:max-age=[1-9]" } }))
        .await;
    for (check, expected) in [
        (json!({ "x-frame-options": true }), "header x-frame-options, got no such header"),
        (json!({ "server": false }), "no header server, got \"nginx\""),
        (json!({ "server": "caddy" }), "header server \"caddy\", got \"nginx\""),
        (json!({ "server": "regex:^ng$" }), "header server that matches /^ng$/, got \"nginx\""),
    ] {
        let error = fails(&server, json!({ "expect_headers": check })).await;
        assert!(error.message.contains(&format!("expected {expected}")), "{}", error.message);
    }
    let error = fails(&server, json!({ "security_headers": ["hsts", "csp"] })).await;
    assert!(error.message.contains("header content-security-policy"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_late_fails_its_budget_and_one_that_never_comes_the_timeout() {
    let server = Server::start(|_| Reply::ok("").delay_ms(80)).await;
    passes(&server, json!({ "latency": "5s" })).await;
    let error = fails(&server, json!({ "latency": "20ms" })).await;
    assert!(error.message.contains("expected an answer within 20ms, got "), "{}", error.message);
    let slow = Server::start(|_| Reply::ok("").delay_ms(5_000)).await;
    let error = fails(&slow, json!({ "timeout": "30ms", "attempts": 2, "interval": "1ms" })).await;
    assert!(
        error.message.contains("expected an answer within 30ms, got none in that time (tried 2 times"),
        "{}",
        error.message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_shown_or_followed() {
    let server = Server::start(|request| match request.path.as_str() {
        "/" => Reply::status(301, "").header("location", "/new"),
        _ => Reply::ok("here"),
    })
    .await;
    let error = fails(&server, json!({})).await;
    assert!(error.hints[0].contains("redirects to /new"), "{:?}", error.hints);
    let passed = passes(&server, json!({ "redirects": true })).await;
    assert_eq!((passed.body.as_str(), passed.url.as_str()), ("here", &*format!("{}new", server.url())));
    passes(&server, json!({ "redirects": 1 })).await;
    passes(&server, json!({ "status": 301, "expect_headers": { "location": "/new" } })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn method_headers_and_body_are_sent_and_secrets_stay_out_of_the_record() {
    let server = Server::start(|request| {
        assert_eq!(request.headers["host"], "shop.example.com");
        assert_eq!(request.headers["authorization"], "Bearer s3cr3t-value");
        assert_eq!(request.headers["content-type"], "application/json");
        Reply::status(
            400,
            &format!("{} {} {}", request.method, request.body, request.headers["authorization"]),
        )
    })
    .await;
    let mut effect = probe(
        &server.url(),
        json!({ "method": "POST", "body": { "query": "{ up }" }, "headers": { "Host": "shop.example.com" } }),
    );
    let bearer = SecretText::named("token").surrounded("Bearer ", "");
    effect.headers.insert("authorization".parse().expect("name"), Text::Secret(bearer));
    assert!(!serde_json::to_string(&effect).expect("json").contains("s3cr3t"));
    let error = effect.read(&with_secret("token", "s3cr3t-value")).await.expect_err("fails");
    assert!(error.message.contains(r#"POST {"query":"{ up }"} Bearer <secret token>"#), "{}", error.message);
    let error = effect.read(&detached()).await.expect_err("fails");
    assert_eq!(error.code.as_str(), "secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn head_asks_for_no_body() {
    let server = Server::start(|request| Reply::ok("ignored").header("x-method", &request.method)).await;
    let passed = passes(&server, json!({ "method": "HEAD" })).await;
    assert_eq!((passed.headers["x-method"].as_str(), passed.body.as_str()), ("HEAD", ""));
}

#[test]
fn what_a_probe_must_not_or_cannot_do_is_refused() {
    let refused = |options: Value| {
        let target = Where::try_from("web".to_owned()).expect("target");
        HttpProbe::new(target, serde_json::from_value(options).expect("options")).expect_err("refused").0
    };
    assert_eq!(refused(json!({ "method": "DELETE" })), "method");
    assert_eq!(refused(json!({ "method": "HEAD", "body_contains": "x" })), "method");
    for wrong in [
        json!({ "attempts": 0 }),
        json!({ "paht": "/" }),
        json!({ "path": "health" }),
        json!({ "body_regex": "(" }),
        json!({ "json": { "status": "ok" } }),
        json!({ "expect_headers": { "bad name": true } }),
        json!({ "security_headers": ["hst"] }),
        json!({ "redirects": -1 }),
        json!({ "tls": { "min_version": "1.1" } }),
    ] {
        assert!(serde_json::from_value::<Options>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_port_is_a_failed_probe() {
    let url = Server::refusing().await;
    let error = probe(&url, json!({})).read(&detached()).await.expect_err("fails");
    assert_eq!(error.message, format!("GET {url}: expected status 2xx, got connection refused (tried once)"));
    let garbage = Server::raw(b"SSH-2.0-OpenSSH_9\r\n").await;
    let error = probe(&garbage, json!({})).read(&detached()).await.expect_err("fails");
    assert!(error.message.contains("got the answer is not HTTP"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_to_a_bound_only() {
    let server = Server::start(|_| Reply::ok(&format!("{}needle", "x".repeat(3 << 20)))).await;
    assert_eq!(passes(&server, json!({})).await.body.len(), 64 << 10);
    let error = fails(&server, json!({ "body_contains": "needle" })).await;
    assert!(error.message.contains("searched the first 1048576 bytes"), "{}", error.message);
}

struct Route(String);

#[async_trait]
impl Provider for Route {
    fn kind(&self) -> &'static str {
        "test"
    }
    fn describe(&self) -> String {
        self.0.clone()
    }
    async fn check(&self) -> Result<String, ProviderError> {
        Ok(String::new())
    }
}

#[async_trait]
impl Traffic for Route {
    async fn weights(&self) -> Result<Weights, ProviderError> {
        Err(ProviderError::unreachable("not asked"))
    }
    async fn set_weights(&self, _: &Weights) -> Result<(), ProviderError> {
        Err(ProviderError::unreachable("not asked"))
    }
    async fn settled(&self, _: &Weights) -> Result<Progress, ProviderError> {
        Ok(Progress::Settled)
    }
    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError> {
        match pool {
            None => Ok(format!("{}/route", self.0)),
            Some("green") => Ok(format!("{}/green", self.0)),
            Some(pool) => Err(ProviderError::terminal("unknown-target", format!("no pool \"{pool}\""))),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_and_its_pools_are_probed_at_their_address() {
    let server = Server::start(|request| Reply::ok(&request.path)).await;
    let mut providers = Providers::new("test");
    let route = Arc::new(Route(server.url().trim_end_matches('/').to_owned()));
    providers.bind::<dyn Traffic>("web", route);
    let on = On::detached(Arc::new(providers));
    let ask = async |target: &str| {
        probe(target, json!({ "path": "/health?deep=1", "attempts": 3 })).read(&on).await
    };
    assert_eq!(ask("web").await.expect("route").body, "/route/health?deep=1");
    assert_eq!(ask("web/green").await.expect("pool").body, "/green/health?deep=1");
    assert_eq!(ask("web/grey").await.expect_err("no pool").code.as_str(), "unknown-target");
    let error = ask("wbe").await.expect_err("no route");
    assert_eq!(error.code.as_str(), "unknown-target");
    assert!(error.hints.iter().any(|hint| hint.contains("web")), "{:?}", error.hints);
    let error = probe("web", json!({ "status": 500 })).read(&on).await.expect_err("fails");
    assert!(
        error.message.starts_with(&format!("GET web ({}route): expected", server.url())),
        "{}",
        error.message
    );
}

#[test]
fn what_it_depends_on_and_how_long_it_may_take_follow_from_the_options() {
    let names = |probe: &HttpProbe| probe.depends_on().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&probe("web", json!({}))), ["traffic/web"]);
    assert_eq!(
        names(&probe("web/green", json!({ "depends_on": ["db/main"] }))),
        ["deploy/web/green", "db/main"]
    );
    assert!(names(&probe("https://shop.example.com", json!({}))).is_empty());
    let slow = probe("web", json!({ "attempts": 30, "timeout": "10s", "interval": "5s" }));
    assert!(slow.is_check());
    assert!(slow.limits().timeout.as_secs() >= 450 && slow.limits().attempts == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_is_accepted_and_any_other_refused_with_the_reason() {
    let authority = Authority::new();
    let ca = authority.ca();
    let good = Server::start_tls(authority.server(&Wanted::default()), |_| Reply::ok("")).await;
    passes(&good, json!({ "tls": { "ca": ca } })).await;
    let error = fails(&good, json!({})).await;
    assert!(error.message.contains("not issued by a trusted authority"), "{}", error.message);
    passes(&good, json!({ "tls": { "insecure": true } })).await;

    // As `openssl req -x509` makes one: its own authority.
    let own = Issued::self_signed_authority(&["127.0.0.1"]);
    let file = authority.file("own.pem", &format!("\u{feff}{}", own.certificate.pem()));
    let own = Server::start_tls(own.server(rustls::ALL_VERSIONS), |_| Reply::ok("")).await;
    passes(&own, json!({ "tls": { "ca": file } })).await;
    let error = fails(&own, json!({ "tls": { "ca": ca } })).await;
    assert!(error.message.contains("marked as an authority (CA:TRUE)"), "{}", error.message);
    let elsewhere = Issued::self_signed_authority(&["shop.example.com"]);
    let file = authority.file("elsewhere.pem", &elsewhere.certificate.pem());
    let elsewhere = Server::start_tls(elsewhere.server(rustls::ALL_VERSIONS), |_| Reply::ok("")).await;
    let error = fails(&elsewhere, json!({ "tls": { "ca": file } })).await;
    assert!(error.message.contains("the certificate is for shop.example.com"), "{}", error.message);

    let expired =
        Server::start_tls(authority.server(&Wanted { from: -9, until: -2, ..Wanted::default() }), |_| {
            Reply::ok("")
        })
        .await;
    let error = fails(&expired, json!({ "tls": { "ca": ca } })).await;
    assert!(error.message.contains("got the certificate expired on 20"), "{}", error.message);

    let other = Wanted { names: &["shop.example.com", "*.example.org"], ..Wanted::default() };
    let other =
        Server::start_tls(authority.server(&other), |request| Reply::ok(&request.headers["host"])).await;
    let error = fails(&other, json!({ "tls": { "ca": ca } })).await;
    assert!(
        error.message.contains("the certificate is for shop.example.com, *.example.org, not for 127.0.0.1"),
        "{}",
        error.message
    );
    // The name changes what the handshake asks for, not what the request does.
    let passed = passes(&other, json!({ "tls": { "ca": ca, "server_name": "shop.example.com" } })).await;
    assert_eq!(passed.body, other.addr().to_string());
    assert_eq!(passed.url, other.url());
    fails(&other, json!({ "tls": { "ca": ca, "server_name": "example.com" } })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowest_version_and_a_client_certificate_are_used() {
    let authority = Authority::new();
    let ca = authority.ca();
    let issued = authority.issue(&Wanted::default());
    let old = Server::start_tls(issued.server(&[&rustls::version::TLS12]), |_| Reply::ok("")).await;
    passes(&old, json!({ "tls": { "ca": ca, "min_version": "1.2" } })).await;
    let error = fails(&old, json!({ "tls": { "ca": ca, "min_version": "1.3" } })).await;
    assert!(error.message.contains("the server offers no acceptable TLS version"), "{}", error.message);

    let mutual = Server::start_tls(issued.mutual_server(&authority), |_| Reply::ok("")).await;
    let client = authority.issue(&Wanted { names: &["client"], ..Wanted::default() });
    let cert = authority.file("client.pem", &client.certificate.pem());
    let key = authority.file("client.key", &client.key.serialize_pem());
    passes(&mutual, json!({ "tls": { "ca": ca, "client_cert": cert, "client_key": key } })).await;
    let error = fails(&mutual, json!({ "tls": { "ca": ca } })).await;
    // How much of its refusal is heard depends on how soon it closes the connection.
    assert!(error.message.contains("client certificate"), "{}", error.message);

    // The key may also be a secret.
    let secret = serde_json::to_value(SecretText::named("key")).expect("json");
    let effect =
        probe(&mutual.url(), json!({ "tls": { "ca": ca, "client_cert": cert, "client_key": secret } }));
    effect.read(&with_secret("key", &client.key.serialize_pem())).await.expect("passes");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_files_that_cannot_be_used_are_errors_of_the_script() {
    let authority = Authority::new();
    let server = Server::start_tls(authority.server(&Wanted::default()), |_| Reply::ok("")).await;
    let empty = authority.file("empty.pem", "nothing");
    for (tls, message) in [
        (json!({ "ca": "/nonexistent.pem" }), "`tls.ca`: /nonexistent.pem cannot be read: no such file"),
        (json!({ "ca": empty }), "has no PEM certificate"),
        (json!({ "client_cert": authority.ca() }), "`tls.client_cert` needs its key"),
        (json!({ "client_cert": authority.ca(), "client_key": empty }), "has no PEM private key"),
    ] {
        let error = probe(&server.url(), json!({ "tls": tls, "attempts": 5 }))
            .read(&detached())
            .await
            .expect_err("refused");
        assert_eq!(error.code.as_str(), "argument", "{}", error.message);
        assert!(error.message.contains(message), "{}", error.message);
    }
    assert_eq!(server.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_ca_file_is_read_again() {
    let authority = Authority::new();
    let server = Server::start_tls(Issued::self_signed(&["127.0.0.1"]).server(rustls::ALL_VERSIONS), |_| {
        Reply::ok("")
    })
    .await;
    let file = authority.file("trust.pem", &std::fs::read_to_string(authority.ca()).expect("pem"));
    fails(&server, json!({ "tls": { "ca": file } })).await;
    let other = Issued::self_signed(&["127.0.0.1"]);
    authority.file("trust.pem", &other.certificate.pem());
    let renewed = Server::start_tls(other.server(rustls::ALL_VERSIONS), |_| Reply::ok("")).await;
    passes(&renewed, json!({ "tls": { "ca": file } })).await;
}
