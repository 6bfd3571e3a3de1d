//! Servers and commands that do not do as they should.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use insta::assert_snapshot;

use crate::harness::{Ended, Lab};

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

/// A server that answers every connection with these bytes and keeps what it was asked.
pub(crate) fn server(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            // The head, and as much of a body as it announces.
            while let Ok(read) = stream.read(&mut part) {
                request.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&request);
                let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                    });
                    body.len() >= length.unwrap_or(0)
                });
                if read == 0 || whole {
                    break;
                }
            }
            let _ = stream.write_all(answer(&String::from_utf8_lossy(&request)).as_bytes());
        }
    });
    address
}

/// An answer in HTTP.
pub(crate) fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn with_config(config: &str, body: &str) -> Lab {
    let lab = Lab::with(body);
    lab.write("contraflow.toml", format!("default_env = \"test\"\n{config}"));
    lab
}

#[test]
fn a_database_that_is_not_there() {
    let port = closed_port();
    let config = format!(
        "[env.test.db.main]\nprovider = \"postgres\"\nurl = \"postgres://me:hunter2@127.0.0.1:{port}/shop\"\n"
    );
    let lab = with_config(&config, "note(db::query(\"main\", \"SELECT 1\").to_string());");
    let ended = lab.contraflow(&["run", "run.rhai"]);
    assert!(!ended.to_string().contains("hunter2"));
    assert_snapshot!(ended, @r#"
    exit 1
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ↻ db.query main: SELECT 1: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111) (try 1 of 4, next in [TIME])
    ↻ db.query main: SELECT 1: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111) (try 2 of 4, next in [TIME])
    ↻ db.query main: SELECT 1: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111) (try 3 of 4, next in [TIME])
    ✗ db.query main: SELECT 1: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111) (tried 4 times)

    failed after [TIME], nothing to undo
    ----- stderr
    error[unreachable]: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111) (tried 4 times)
      at run.rhai:2:6
       2 | note(db::query("main", "SELECT 1").to_string());
         |      ^^^^^^^^^
    "#);
    assert_snapshot!(lab.contraflow(&["targets", "--check"]).columns(), @"
    exit 1
    ----- stdout
    TARGET  PROVIDER  AT  CHECK
    db/main  postgres  postgres://127.0.0.1:[PORT]/shop  failed: postgres://127.0.0.1:[PORT]/shop: error communicating with database: Connection refused (os error 111)
    ");
    lab.contraflow(&["plan", "run.rhai"]).exits_with(1).complains("unreachable");
}

#[test]
fn a_load_balancer_that_is_not_there() {
    let config = "[env.test.traffic.web]\nprovider = \"haproxy\"\nsocket = \"unix:none.sock\"\nbackend = \"web\"\npools = { blue = [\"b1\"], green = [\"g1\"] }\n";
    let lab = with_config(config, "traffic::shift(\"web\", \"green\", 5);");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ↻ traffic.shift web: HAProxy at unix:[DIR]/none.sock: no such file (try 1 of 4, next in [TIME])
    ↻ traffic.shift web: HAProxy at unix:[DIR]/none.sock: no such file (try 2 of 4, next in [TIME])
    ↻ traffic.shift web: HAProxy at unix:[DIR]/none.sock: no such file (try 3 of 4, next in [TIME])
    ✗ traffic.shift web: HAProxy at unix:[DIR]/none.sock: no such file (tried 4 times)

    failed after [TIME], nothing to undo
    ----- stderr
    error[unreachable]: HAProxy at unix:[DIR]/none.sock: no such file (tried 4 times)
      at run.rhai:2:1
       2 | traffic::shift("web", "green", 5);
         | ^^^^^^^^^^^^^^
      help: is HAProxy running here, with `stats socket [DIR]/none.sock mode 660 level admin` in its global section?
    "#);
}

#[test]
fn a_message_sink_that_answers_500() {
    let address = server(|_| http("500 Internal Server Error", "out of order"));
    let config = format!("[env.test.notify.ops]\nprovider = \"webhook\"\nurl = \"http://{address}/hook\"\n");
    let lab = with_config(&config, "notify::send(\"ops\", \"hello\");");
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in test, run test-[ID]
    ↻ notify.send ops: hello: http://127.0.0.1:[PORT]/… answered 500 Internal Server Error: out of order (try 1 of 4, next in [TIME])
    ↻ notify.send ops: hello: http://127.0.0.1:[PORT]/… answered 500 Internal Server Error: out of order (try 2 of 4, next in [TIME])
    ↻ notify.send ops: hello: http://127.0.0.1:[PORT]/… answered 500 Internal Server Error: out of order (try 3 of 4, next in [TIME])
    ✗ notify.send ops: hello: http://127.0.0.1:[PORT]/… answered 500 Internal Server Error: out of order (tried 4 times)

    failed after [TIME], nothing to undo
    ----- stderr
    error[notify]: http://127.0.0.1:[PORT]/… answered 500 Internal Server Error: out of order (tried 4 times)
      at run.rhai:2:1
       2 | notify::send("ops", "hello");
         | ^^^^^^^^^^^^
    "#);
}

#[test]
fn a_server_that_talks_nonsense() {
    let address = server(|_| "220 smtp.example.com ESMTP\r\n".to_owned());
    let lab = Lab::with(&format!("probe::http(\"http://{address}/\", #{{ attempts: 1 }});"));
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ✗ probe.http GET http://127.0.0.1:[PORT]/: expected status 2xx, got the answer is not HTTP (tried once)

    failed after [TIME], nothing to undo
    ----- stderr
    error[probe-failed]: GET http://127.0.0.1:[PORT]/: expected status 2xx, got the answer is not HTTP (tried once)
      at run.rhai:2:1
       2 | probe::http("http://127.0.0.1:[PORT]/", #{ attempts: 1 });
         | ^^^^^^^^^^^
    "#);
}

#[test]
fn a_certificate_that_has_expired() {
    let lab = Lab::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).expect("a certificate");
    lab.write("ca.pem", certificate.pem());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate with its key");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), Ok(mut tls)) = (stream, rustls::ServerConnection::new(Arc::clone(&config)))
            else {
                return;
            };
            // Whoever does not trust it hangs up.
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        }
    });
    let at = |ended: Ended| ended.to_string().replace(&port.to_string(), "[PORT]");
    lab.runbook(&format!("probe::tls(\"localhost:{port}\", #{{ ca: \"ca.pem\", attempts: 1 }});"));
    let text = at(lab.contraflow(&["run", "run.rhai"]).exits_with(1));
    assert!(text.contains("expired"), "{text}");
    lab.runbook(&format!(
        "http::get(\"https://localhost:{port}/\", #{{ tls: #{{ ca: \"ca.pem\" }}, attempts: 1 }});"
    ));
    let text = at(lab.contraflow(&["run", "run.rhai"]).exits_with(1));
    assert!(text.contains("expired"), "{text}");
}

fn commands(body: &str) -> Lab {
    let lab = Lab::with(body);
    lab.write(
        "contraflow.toml",
        "[env.sandbox.exec]\nallow = [\"sh -c *\", \"head\", \"yes\", \"sleep\"]\nshell = true\n",
    );
    lab
}

#[test]
fn a_command_that_is_not_allowed() {
    assert_snapshot!(Lab::with("exec::run([\"rm\", \"-rf\", \"/srv\"]);").contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ✗ exec.run rm -rf /srv: no command is allowed in environment "sandbox"

    failed after [TIME], nothing to undo
    ----- stderr
    error[exec]: no command is allowed in environment "sandbox"
      at run.rhai:2:1
       2 | exec::run(["rm", "-rf", "/srv"]);
         | ^^^^^^^^^
      help: list the commands that runbooks may run in contraflow.toml: [env.sandbox.exec] allow = ["git"]
    "#);
    assert_snapshot!(commands("exec::run([\"rm\", \"-rf\", \"/srv\"]);").contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ✗ exec.run rm -rf /srv: `rm -rf /srv` is not allowed in environment "sandbox"

    failed after [TIME], nothing to undo
    ----- stderr
    error[exec]: `rm -rf /srv` is not allowed in environment "sandbox"
      at run.rhai:2:1
       2 | exec::run(["rm", "-rf", "/srv"]);
         | ^^^^^^^^^
      help: to allow it, add it to `allow` of [env.sandbox.exec] in contraflow.toml
      help: allowed there now: `sh -c *`, `head`, `yes`, `sleep`
    "#);
}

#[test]
fn a_command_that_hangs_is_ended_with_all_that_it_started() {
    let lab = commands(r#"exec::shell("sleep 61.5 & echo begun; wait", #{ timeout: "1s", grace: "1s" });"#);
    let ended = lab.contraflow(&["run", "run.rhai"]);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    assert_snapshot!(ended, @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    … exec.run sh -c 'sleep 61.5 & echo begun; wait'
      │ begun
    ✗ exec.run sh -c 'sleep 61.5 & echo begun; wait': `sh -c 'sleep 61.5 & echo begun; wait'` did not end within 1s and was stopped:
      │   begun

    failed after [TIME], nothing to undo
    ----- stderr
    error[timeout]: `sh -c 'sleep 61.5 & echo begun; wait'` did not end within 1s and was stopped:
          begun
      at run.rhai:2:1
       2 | exec::shell("sleep 61.5 & echo begun; wait", #{ timeout: "1s", grace: "1s" });
         | ^^^^^^^^^^^
      help: its effects until then remain; to give it more time, pass `timeout`
    "#);
    let all = std::process::Command::new("ps").args(["-eo", "args"]).output().expect("ps");
    assert!(!String::from_utf8_lossy(&all.stdout).contains("sleep 61.5"));
}

#[test]
fn a_command_that_prints_a_gigabyte_takes_no_memory() {
    let lab = commands(
        r#"let out = exec::run(["head", "-c", "1000000000", "/dev/zero"], #{ timeout: "15s" }); note("" + out.stdout.len());"#,
    );
    let ended = lab.contraflow(&["run", "run.rhai", "--output", "json"]).succeeded();
    assert!(ended.peak < 300 << 20, "{} MiB", ended.peak >> 20);
    let kept: usize = ended.events("note")[0]["text"].as_str().expect("a text").parse().expect("a number");
    assert!((64 << 10..65 << 10).contains(&kept), "{kept}");
    assert!(ended.stdout.len() < 5 << 20, "{}", ended.stdout.len());
}

#[test]
fn a_command_that_prints_lines_without_end_takes_no_memory() {
    let lab = commands(r#"exec::run(["yes"], #{ timeout: "3s" });"#);
    let mut command = lab.command(&["run", "run.rhai"]);
    let started = std::time::Instant::now();
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let (code, peak) = crate::harness::await_end(&mut child, started);
    assert_eq!(code, 1);
    assert!(peak < 300 << 20, "{} MiB", peak >> 20);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    let store = std::fs::metadata(lab.state().join("contraflow.db")).expect("there").len();
    assert!(store < 50 << 20, "{} MiB in the journal", store >> 20);
}
