//! Probes of a real nginx over TLS.

use crate::lab::{
    contraflow::Contraflow,
    nginx::{NAME, Nginx},
};

/// Runs one statement as a runbook of its own, with these texts exchanged.
fn run(nginx: &Nginx, statement: &str) -> crate::lab::contraflow::Done {
    let contraflow = Contraflow::new(nginx.folder());
    let mut script =
        format!("const RUNBOOK = #{{ name: \"probe\" }};\nlet seen = {statement};\nnote(`${{seen}}`);\n");
    for (name, address) in nginx.addresses() {
        script = script.replace(&format!("<{name}>"), &address);
    }
    contraflow.write("probe.rhai", &script);
    contraflow.run(&["run", "probe.rhai"])
}

#[test]
fn a_valid_certificate_passes_and_every_defect_of_another_is_named() {
    let Some(nginx) = Nginx::start() else { return };
    let tls = |server: &str, more: &str| {
        run(
            &nginx,
            &format!(
                "probe::tls(\"<{server}>\", #{{ ca: \"ca.pem\", server_name: \"{NAME}\", attempts: 1{more} }})"
            ),
        )
    };
    tls("valid", "").exits(0).says(&["1.3", NAME]);
    tls("valid", ", days_left: 60").exits(1).says(&[
        "probe-failed",
        "valid for 60 days more",
        "29 days left",
    ]);
    tls("expired", "").exits(1).says(&["probe-failed", "the certificate expired on 20", "ago"]);
    tls("other-host", "").exits(1).says(&["probe-failed", "other.example.com", NAME]);
    tls("old-tls", "").exits(0).says(&["1.2"]);
    tls("old-tls", ", min_version: \"1.3\"").exits(1).says(&["probe-failed", "TLS 1.3", "TLS 1.2"]);
    // Nobody vouches for it where the authority is not known.
    let unknown = format!("probe::tls(\"<valid>\", #{{ server_name: \"{NAME}\", attempts: 1 }})");
    run(&nginx, &unknown).exits(1).says(&["probe-failed", "ca.example.com"]);
}

#[test]
fn pages_over_tls_are_checked_for_security_headers_and_the_version_of_tls() {
    let Some(nginx) = Nginx::start() else { return };
    let http = |server: &str, options: &str, tls: &str| {
        run(
            &nginx,
            &format!(
                "probe::http(\"https://<{server}>\", #{{ attempts: 1, tls: #{{ ca: \"ca.pem\", server_name: \"{NAME}\"{tls} }}, {options} }}).status"
            ),
        )
    };
    let headers = "security_headers: [\"hsts\", \"csp\"]";
    http("valid", headers, "").exits(0).says(&["200"]);
    http("valid", &format!("path: \"/bare\", {headers}"), "").exits(1).says(&[
        "probe-failed",
        "strict-transport-security",
        "content-security-policy",
        "no such header",
    ]);
    http("valid", &format!("path: \"/weak\", {headers}"), "").exits(1).says(&["max-age", "\"max-age=0\""]);
    http("valid", "status: 200", ", min_version: \"1.3\"").exits(0);
    http("old-tls", "status: 200", ", min_version: \"1.3\"").exits(1).says(&["probe-failed"]);
    http("expired", "status: 200", "").exits(1).says(&["expired"]);
    http("other-host", "status: 200", "").exits(1).says(&["other.example.com"]);
}

#[test]
fn two_thousand_probes_are_two_thousand_requests_and_64_at_a_time() {
    let Some(nginx) = Nginx::start() else { return };
    let many = |list: &str| {
        format!(
            "{{ let all = []; for n in 0..2000 {{ all.push(`http://<plain>/page/${{n}}`); }} {list} probe::all(all, #{{ limit: 64 }}) }}"
        )
    };
    let done = run(&nginx, &many("")).exits(0);
    done.says(&["2000 of 2000 passed"]);
    let asked = nginx.asked("/page/");
    assert_eq!(asked.len(), 2000);
    let different: std::collections::BTreeSet<&String> = asked.iter().collect();
    assert_eq!(different.len(), 2000, "some were asked twice");
    let at_once = nginx.most_at_once();
    assert!((32..=64).contains(&at_once), "{at_once} at once");
    // One that does not answer as it should fails all, and is named.
    run(&nginx, &many("all.push(\"http://<plain>/missing\");")).exits(1).says(&[
        "1 of 2001",
        "/missing",
        "404",
    ]);
}
