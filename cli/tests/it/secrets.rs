//! A secret that goes everywhere it may go is nowhere to be read.

use std::{
    fs,
    process::Command,
    sync::{Arc, Mutex},
};

use crate::{
    harness::Lab,
    outside::{http, server},
};

/// Long, and with characters that look different in JSON, in a URL and in a shell.
const SECRET: &str = r#"s3cr"et\v/alue+42&x"#;

/// What it looks like in other writings.
fn forms() -> Vec<String> {
    let json = serde_json::to_string(SECRET).expect("text");
    let percent: String = SECRET
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("%{:02X}", u32::from(c)) })
        .collect();
    vec![
        SECRET.to_owned(),
        json.trim_matches('"').to_owned(),
        percent.clone(),
        percent.to_lowercase(),
        base64(SECRET),
    ]
}

fn base64(text: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", "printf %s \"$1\" | base64 -w0", "sh", text])
        .output()
        .expect("base64");
    String::from_utf8(output.stdout).expect("text").trim_end_matches('=').to_owned()
}

fn holds(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

#[test]
fn a_secret_is_in_no_output_no_log_and_no_journal() {
    let got = Arc::<Mutex<Vec<String>>>::default();
    let keep = Arc::clone(&got);
    let address = server(move |request| {
        keep.lock().expect("a lock").push(request.to_owned());
        // As it came, as JSON has it and in base64.
        http("200 OK", &format!("{request}\n{}\n", forms().join("\n")))
    });
    let lab = Lab::with(&format!(
        r#"
        let token = secrets::get("token");
        let given = #{{ env: #{{ TOKEN: token }} }};
        let out = exec::run(["sh", "-c", "cat; echo; env | grep TOKEN; printf '%s\n' \"$TOKEN\" >&2"], given + #{{ stdin: token }});
        note("command: " + out.stdout + out.stderr);
        let answer = http::request("POST", "http://{address}/", #{{
            headers: #{{ authorization: secrets::text("Bearer {{t}}", #{{ t: token }}) }}, body: token, status: 200,
        }});
        note("server: " + answer.body);
        try {{ exec::run(["sh", "-c", "printf '%s\n' \"$TOKEN\" >&2; printf %s \"$TOKEN\" | base64 -w0; exit 3"], given); }}
        catch (e) {{ note("caught: " + e.message); }}
        exec::run(["sh", "-c", "printf 'failed with %s\n' \"$TOKEN\"; exit 4"], given);
        "#,
    ));
    lab.write(
        "contraflow.toml",
        "[env.test.exec]\nallow = [\"sh -c *\"]\nshell = true\n\
         [env.test.secrets.token]\nprovider = \"env\"\nvariable = \"TOKEN_OF_TEST\"\n",
    );
    let command = |args: &[&str]| {
        let mut command = lab.command(&[args, &["--env", "test"]].concat());
        command.env("TOKEN_OF_TEST", SECRET);
        lab.end(&mut command)
    };
    let runs = [
        command(&["run", "run.rhai"]),
        command(&["run", "run.rhai", "--output", "json"]),
        command(&["run", "run.rhai", "-vvv"]),
        command(&["plan", "run.rhai", "-vvv"]),
    ];
    for run in &runs[..3] {
        assert_eq!(run.code, 1, "{run}");
        assert!(run.stderr.contains("failed with <secret token>"), "{run}");
        assert!(run.stdout.contains("server: POST / HTTP/1.1"), "{run}");
    }
    let asked = got.lock().expect("a lock").clone();
    assert_eq!(asked.len(), 3, "each run asked once, the plan did not: {asked:?}");
    assert!(
        asked
            .iter()
            .all(|request| request.contains(&format!("Bearer {SECRET}")) && request.ends_with(SECRET)),
        "{asked:?}"
    );

    let mut shown: Vec<(String, Vec<u8>)> = Vec::new();
    for run in runs {
        shown.push(("stdout".to_owned(), run.stdout.into()));
        shown.push(("stderr".to_owned(), run.stderr.into()));
    }
    for args in [
        &["show", "last"][..],
        &["show", "last", "--records"],
        &["show", "last", "--events"],
        &["show", "last", "--records", "--output", "json"],
        &["runs", "--output", "json"],
    ] {
        shown.push((args.join(" "), lab.contraflow(args).succeeded().stdout.into()));
    }
    let mut kept = 0;
    for name in crate::harness::names(&lab.state()) {
        let bytes = fs::read(lab.state().join(&name)).expect("a file");
        kept += bytes.len();
        shown.push((name, bytes));
    }
    assert!(kept > 10_000, "the journal, in whichever of its files, was searched: {kept} bytes");
    for (place, bytes) in &shown {
        for form in forms() {
            assert!(!holds(bytes, &form), "{form} is in {place}: {}", String::from_utf8_lossy(bytes));
        }
    }
}
