use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::http::testing::{Authority, Issued, Reply, Server, Wanted, detached};

fn probe(target: &str, options: Value) -> TlsProbe {
    let target = Endpoint::try_from(target.to_owned()).expect("target");
    TlsProbe::new(target, serde_json::from_value(options).expect("options"))
}

async fn server(config: rustls::ServerConfig) -> Server {
    Server::start_tls(config, |_| Reply::ok("")).await
}

async fn look(server: &Server, options: Value) -> Result<Certificate, String> {
    probe(&server.addr().to_string(), options).read(&detached()).await.map_err(|error| {
        assert_eq!(error.code.as_str(), "probe-failed", "{error}");
        error.message
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_certificate_passes_and_is_described() {
    let authority = Authority::new();
    let server = server(authority.server(&Wanted::default())).await;
    let seen = look(&server, json!({ "ca": authority.ca() })).await.expect("passes");
    assert_eq!(seen.subject, "CN=leaf");
    assert_eq!(seen.issuer, "CN=Test Root");
    assert_eq!(seen.names, ["localhost", "127.0.0.1"]);
    assert_eq!((seen.version.as_str(), seen.chain, seen.attempts), ("1.3", 1, 1));
    assert!((89..=90).contains(&seen.days_left), "{}", seen.days_left);
    let until: Timestamp = seen.not_after.parse().expect("RFC 3339");
    assert!(until > Timestamp::now());
    let by_url =
        probe(&server.url(), json!({ "ca": authority.ca() })).read(&detached()).await.expect("passes");
    assert_eq!(by_url.not_after, seen.not_after);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_named_with_its_date() {
    let authority = Authority::new();
    let issued = authority.issue(&Wanted { from: -30, until: -2, ..Wanted::default() });
    let not_after = Timestamp::from_second(issued.not_after).expect("date");
    let server = server(issued.server(rustls::ALL_VERSIONS)).await;
    let error = look(&server, json!({ "ca": authority.ca() })).await.expect_err("expired");
    assert!(
        error.contains(&format!(
            "expected a valid certificate for 127.0.0.1, got the certificate expired on {not_after} ("
        )),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_future_is_named_with_its_date() {
    let authority = Authority::new();
    let server = server(authority.server(&Wanted { from: 2, until: 30, ..Wanted::default() })).await;
    let error = look(&server, json!({ "ca": authority.ca() })).await.expect_err("not yet valid");
    assert!(
        error.contains("the certificate is not valid before 20") && !error.contains("expired"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_another_host_lists_the_hosts_it_is_for() {
    let authority = Authority::new();
    let wanted = Wanted { names: &["shop.example.com", "*.example.org"], ..Wanted::default() };
    let server = server(authority.server(&wanted)).await;
    let error = look(&server, json!({ "ca": authority.ca() })).await.expect_err("wrong host");
    assert!(
        error.contains("the certificate is for shop.example.com, *.example.org, not for 127.0.0.1"),
        "{error}"
    );
    for (name, ok) in [("shop.example.com", true), ("a.example.org", true), ("a.b.example.org", false)] {
        let result = look(&server, json!({ "ca": authority.ca(), "server_name": name })).await;
        assert_eq!(result.is_ok(), ok, "{name}: {result:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_issuer_is_named() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let other = server(stranger.server(&Wanted::default())).await;
    let error = look(&other, json!({ "ca": authority.ca() })).await.expect_err("unknown issuer");
    // Both roots have one name; their keys differ.
    assert!(error.contains("got the certificate"), "{error}");
    let error = look(&other, json!({})).await.expect_err("unknown issuer");
    assert!(error.contains("was issued by CN=Test Root, which is not trusted here"), "{error}");
    let own = server(Issued::self_signed(&["127.0.0.1"]).server(rustls::ALL_VERSIONS)).await;
    let error = look(&own, json!({})).await.expect_err("self-signed");
    assert!(error.contains("the certificate is self-signed and not trusted here"), "{error}");
    // One that is its own authority is trusted by name.
    let issued = Issued::self_signed_authority(&["127.0.0.1"]);
    let file = authority.file("own.pem", &issued.certificate.pem());
    let own = server(issued.server(rustls::ALL_VERSIONS)).await;
    look(&own, json!({ "ca": file })).await.expect("trusted");
    let error = look(&own, json!({})).await.expect_err("not trusted");
    assert!(!error.contains("CaUsedAsEndEntity"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_said_at_once() {
    let authority = Authority::new();
    let wanted = Wanted { names: &["old.example.com"], from: -30, until: -2 };
    let server = server(authority.server(&wanted)).await;
    let error = look(&server, json!({ "min_version": "1.3" })).await.expect_err("all wrong");
    for part in ["expired on", "is for old.example.com, not for 127.0.0.1", "not trusted here"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_days_left_fail() {
    let authority = Authority::new();
    let server = server(authority.server(&Wanted { until: 10, ..Wanted::default() })).await;
    let error = look(&server, json!({ "ca": authority.ca() })).await.expect_err("14 by default");
    assert!(
        error.contains("expected a certificate valid for 14 days more, got ")
            && error.contains(" left, until 20"),
        "{error}"
    );
    assert!(look(&server, json!({ "ca": authority.ca(), "days_left": 5 })).await.is_ok());
    assert!(look(&server, json!({ "ca": authority.ca(), "days_left": 20 })).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_below_the_lowest_accepted_is_named() {
    let authority = Authority::new();
    let server = server(authority.issue(&Wanted::default()).server(&[&rustls::version::TLS12])).await;
    let seen = look(&server, json!({ "ca": authority.ca() })).await.expect("1.2 is accepted by default");
    assert_eq!(seen.version, "1.2");
    let error =
        look(&server, json!({ "ca": authority.ca(), "min_version": "1.3" })).await.expect_err("too old");
    assert!(error.contains("expected TLS 1.3 or later, got TLS 1.2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_tls_is_told_apart_from_nobody() {
    let plain = Server::start(|_| Reply::ok("")).await;
    let error = look(&plain, json!({})).await.expect_err("plain HTTP");
    assert!(error.contains("got the server does not speak TLS"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("address");
    drop(listener);
    let error = probe(&addr.to_string(), json!({ "attempts": 2, "interval": "1ms" }))
        .read(&detached())
        .await
        .expect_err("nobody");
    assert!(error.message.contains("connection refused (tried 2 times"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_servers_that_want_one() {
    let authority = Authority::new();
    // In TLS 1.2 the handshake itself fails without it.
    let issued = authority.issue(&Wanted::default());
    let mutual = server(issued.mutual_server(&authority)).await;
    let client = authority.issue(&Wanted { names: &["client"], ..Wanted::default() });
    let cert = authority.file("client.pem", &client.certificate.pem());
    let key = authority.file("client.key", &client.key.serialize_pem());
    look(&mutual, json!({ "ca": authority.ca(), "client_cert": cert, "client_key": key }))
        .await
        .expect("passes");
}
