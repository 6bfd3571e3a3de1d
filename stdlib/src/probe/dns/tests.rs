use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode},
    rr::{
        Record,
        rdata::{A, AAAA, CNAME, MX, PTR, TXT},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use super::*;
use crate::http::testing::detached;

fn name(text: &str) -> Name {
    Name::from_str(text).expect("name")
}

/// A small zone. What it does not have does not exist.
fn records(query: &Name, kind: RecordType) -> Option<Vec<Record>> {
    let record = |ttl, data| Record::from_rdata(query.clone(), ttl, data);
    let a = |ttl, last| record(ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))));
    match (query.to_string().to_lowercase().as_str(), kind) {
        ("shop.example.com.", RecordType::A) => Some(vec![a(300, 2), a(60, 1)]),
        ("shop.example.com.", RecordType::AAAA) => {
            Some(vec![record(60, RData::AAAA(AAAA(Ipv6Addr::from_str("2001:db8::1").expect("address"))))])
        }
        ("shop.example.com.", RecordType::MX) => {
            Some(vec![record(60, RData::MX(MX::new(10, name("Mail.example.com."))))])
        }
        ("shop.example.com.", RecordType::TXT) => {
            Some(vec![record(60, RData::TXT(TXT::new(vec!["v=spf1 ".into(), "-all".into()])))])
        }
        ("www.example.com.", RecordType::CNAME) => {
            Some(vec![record(60, RData::CNAME(CNAME(name("shop.example.com."))))])
        }
        ("www.example.com.", RecordType::A) => Some(vec![
            record(5, RData::CNAME(CNAME(name("shop.example.com.")))),
            Record::from_rdata(name("shop.example.com."), 60, RData::A(A(Ipv4Addr::new(10, 0, 0, 1)))),
        ]),
        ("1.0.0.10.in-addr.arpa.", RecordType::PTR) => {
            Some(vec![record(60, RData::PTR(PTR(name("shop.example.com."))))])
        }
        ("shop.example.com." | "www.example.com.", _) => Some(Vec::new()),
        _ => None,
    }
}

fn answer(request: &[u8], nth: usize) -> Option<Vec<u8>> {
    let request = Message::from_vec(request).ok()?;
    let query = request.queries.first()?.clone();
    let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    response.add_query(query.clone());
    response.metadata.recursion_available = true;
    let who = query.name().to_string();
    match who.as_str() {
        "refused.example.com." => response.metadata.response_code = ResponseCode::Refused,
        "broken.example.com." => response.metadata.response_code = ResponseCode::ServFail,
        "silent.example.com." => return None,
        "later.example.com." if nth > 1 => {
            response.add_answer(Record::from_rdata(
                query.name().clone(),
                60,
                RData::A(A(Ipv4Addr::LOCALHOST)),
            ));
        }
        _ => match records(query.name(), query.query_type()) {
            Some(records) => {
                for record in records {
                    response.add_answer(record);
                }
            }
            None => response.metadata.response_code = ResponseCode::NXDomain,
        },
    }
    response.to_vec().ok()
}

/// A name server on loopback, for UDP and TCP.
async fn name_server() -> String {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        // The same port may be taken for TCP; another one is tried then.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")).await {
            break (udp, tcp);
        }
    };
    let addr = udp.local_addr().expect("address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length], counted.fetch_add(1, Ordering::SeqCst)) {
                let _ = udp.send_to(&answer, from).await;
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let asked = Arc::clone(&asked);
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut request = vec![0; length.into()];
                    if stream.read_exact(&mut request).await.is_err() {
                        return;
                    }
                    if let Some(answer) = answer(&request, asked.fetch_add(1, Ordering::SeqCst)) {
                        let length = u16::try_from(answer.len()).expect("short");
                        let _ = stream.write_u16(length).await;
                        let _ = stream.write_all(&answer).await;
                    }
                }
            });
        }
    });
    addr.to_string()
}

fn probe(name: &str, server: &str, mut options: Value) -> DnsProbe {
    options["server"] = server.into();
    DnsProbe::new(name, serde_json::from_value(options).expect("options")).expect("probe")
}

async fn ask(name: &str, server: &str, options: Value) -> Result<Answered, String> {
    probe(name, server, options).read(&detached()).await.map_err(|error| {
        assert_eq!(error.code.as_str(), "probe-failed", "{error}");
        error.message
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_type_come_sorted_with_the_shortest_ttl() {
    let server = name_server().await;
    let found = ask("shop.example.com", &server, json!({})).await.expect("A");
    assert_eq!(
        (found.records, found.ttl, found.attempts),
        (vec!["10.0.0.1".into(), "10.0.0.2".into()], 60, 1)
    );
    for (name, kind, record) in [
        ("shop.example.com", "AAAA", "2001:db8::1"),
        ("SHOP.example.com.", "MX", "10 mail.example.com"),
        ("shop.example.com", "TXT", "v=spf1 -all"),
        ("www.example.com", "CNAME", "shop.example.com"),
        ("10.0.0.1", "PTR", "shop.example.com"),
        ("www.example.com", "A", "10.0.0.1"),
    ] {
        let found = ask(name, &server, json!({ "type": kind })).await.expect(kind);
        assert_eq!(found.records, [record], "{name} {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expected_records_are_compared_in_any_order_and_spelling() {
    let server = name_server().await;
    let shop = async |options: Value| ask("shop.example.com", &server, options).await;
    shop(json!({ "expect": ["10.0.0.2", "10.0.0.1"] })).await.expect("both");
    let error = shop(json!({ "expect": ["10.0.0.1"] })).await.expect_err("one too many");
    assert!(error.contains("expected exactly 10.0.0.1, got 10.0.0.1, 10.0.0.2 (tried once)"), "{error}");
    shop(json!({ "expect": ["10.0.0.1"], "exact": false })).await.expect("contained");
    shop(json!({ "expect": ["10.0.0.3"], "exact": false })).await.expect_err("not contained");
    shop(json!({ "type": "MX", "expect": ["10  MAIL.example.com."] })).await.expect("spelling");
    shop(json!({ "type": "AAAA", "expect": ["2001:0db8:0::0001"] })).await.expect("spelling");
    shop(json!({ "type": "TXT", "expect": ["V=SPF1 -all"] })).await.expect_err("texts are exact");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_answers_and_a_longest_ttl_can_be_asked_for() {
    let server = name_server().await;
    let shop = async |options: Value| ask("shop.example.com", &server, options).await;
    shop(json!({ "min_answers": 2, "max_ttl": "60s" })).await.expect("passes");
    let error = shop(json!({ "min_answers": 3 })).await.expect_err("too few");
    assert!(error.contains("expected 3 A records or more, got 10.0.0.1, 10.0.0.2"), "{error}");
    let error = shop(json!({ "max_ttl": "30s" })).await.expect_err("too long");
    assert!(error.contains("expected a TTL of 30s at most, got 1m"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_exist_is_told_apart_from_one_without_such_records() {
    let server = name_server().await;
    let error = ask("nowhere.example.com", &server, json!({})).await.expect_err("fails");
    assert!(error.contains("expected 1 A record or more, got no such name"), "{error}");
    let error = ask("shop.example.com", &server, json!({ "type": "SRV" })).await.expect_err("fails");
    assert!(error.contains("got no SRV records"), "{error}");
    for accepts in [json!({ "min_answers": 0 }), json!({ "expect": [] })] {
        let found = ask("nowhere.example.com", &server, accepts).await.expect("accepted");
        assert_eq!((found.records.len(), found.ttl), (0, 0));
    }
    let error = ask("shop.example.com", &server, json!({ "expect": [] })).await.expect_err("it exists");
    assert!(error.contains("expected no A records, got 10.0.0.1, 10.0.0.2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_refuses_fails_or_is_silent_is_said_to() {
    let server = name_server().await;
    let error = ask("refused.example.com", &server, json!({})).await.expect_err("refused");
    assert!(error.contains("refuse"), "{error}");
    let error = ask("broken.example.com", &server, json!({})).await.expect_err("broken");
    assert!(error.contains("the name server failed"), "{error}");
    let error = ask("silent.example.com", &server, json!({ "timeout": "90ms" })).await.expect_err("silent");
    assert!(error.contains("no answer in time") || error.contains("none in that time"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_arrives_later_passes_at_a_later_attempt() {
    let server = name_server().await;
    let found = ask("later.example.com", &server, json!({ "attempts": 50, "interval": "1ms" }))
        .await
        .expect("passes");
    assert!(found.attempts > 1);
    assert_eq!(found.records, ["127.0.0.1"]);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let refused = |name: &str, options: Value| {
        DnsProbe::new(name, serde_json::from_value(options).expect("options")).expect_err("refused").0
    };
    assert_eq!(refused("", json!({})), "name");
    assert_eq!(refused("10.0.0.1", json!({})), "name");
    assert_eq!(refused("a..b", json!({})), "name");
    assert_eq!(refused("shop", json!({ "expect": ["green.example.com"] })), "expect");
    for wrong in [
        json!({ "type": "AXFR" }),
        json!({ "server": "a b" }),
        json!({ "server": "x:0" }),
        json!({ "ttl": 1 }),
    ] {
        assert!(serde_json::from_value::<Options>(wrong.clone()).is_err(), "{wrong}");
    }
    for server in ["10.0.0.2", "10.0.0.2:5353", "::1", "[::1]:53", "ns1.example.com"] {
        serde_json::from_value::<Options>(json!({ "server": server })).expect(server);
    }
}
