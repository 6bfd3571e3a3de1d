//! Hostile and broken scripts end with a clear error and nothing else.

use std::time::{Duration, Instant};

use contraflow_runtime::{event::RunOutcome, script::ScriptLimits};

use crate::lab::Lab;

fn tight() -> Lab {
    Lab {
        limits: ScriptLimits {
            max_operations: 3_000_000,
            max_wall_time: Duration::from_secs(20),
            ..ScriptLimits::default()
        },
        ..Lab::new()
    }
}

#[test]
fn hostile_scripts_are_stopped() {
    for (script, code) in [
        ("loop { }", "limit"),
        ("loop { try { loop { } } catch { } }", "limit"),
        ("let n = 0; [1, 2, 3].map(|x| { loop { n += 1; } });", "limit"),
        (
            "let a = []; a.pad(90000, 1); a.for_each(|| { let n = 0; for i in 0..1000000 { n += 1; } });",
            "limit",
        ),
        ("fn f(n) { f(n + 1) } f(0);", "limit"),
        ("fn f(n) { step(`s${n}`, || f(n + 1)) } f(0);", "limit"),
        ("let s = \"aaaaaaaaaa\"; for i in 0..10 { s.replace(\"a\", s); }", "limit"),
        ("let s = \"x\"; loop { s += s; }", "limit"),
        ("let a = [1]; loop { a += a; }", "limit"),
        ("let x = blob(4000000000);", "limit"),
        ("parallel([|| { loop { } }, || { loop { } }]);", "limit"),
        ("throw #{ a: [1, 2] };", "failed"),
        ("let x = (); x.y.z = 3;", "script"),
        ("let a = [1, 2]; a[7]", "script"),
        ("let m = #{ a: 1 }; m.b", "script"),
        ("1 / 0", "script"),
        ("timestamp()", "script"),
        ("let span = 5; sleep(span);", "argument"),
        ("let span = \"5 parsecs\"; sleep(span);", "argument"),
        ("parallel([1, 2]);", "argument"),
    ] {
        let lab = tight();
        let start = Instant::now();
        let report = lab.run(script);
        assert_eq!(report.outcome, RunOutcome::Failed, "{script}");
        let error = report.error.unwrap();
        assert_eq!(error.code.as_str(), code, "{script}: {error}");
        assert!(!error.message.contains("Dynamic") && !error.message.contains("i64"), "{script}: {error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{script} took {:?}", start.elapsed());
    }
}

#[test]
fn a_limit_cannot_be_caught() {
    let lab = tight();
    let report = lab.run(r#"try { loop { } } catch { } lab::set("a", 1);"#);
    assert_eq!(report.error.unwrap().code.as_str(), "limit");
    assert!(lab.log().is_empty());
}

#[test]
fn memory_is_bounded_where_it_can_be_measured() {
    use std::sync::atomic::{AtomicU64, Ordering};
    static HELD: AtomicU64 = AtomicU64::new(0);
    let lab = Lab {
        limits: ScriptLimits {
            memory: Some(|| HELD.fetch_add(1 << 20, Ordering::Relaxed)),
            max_memory: 64 << 20,
            ..ScriptLimits::default()
        },
        ..Lab::new()
    };
    let report = lab.run("loop { }");
    assert!(report.error.unwrap().message.contains("64MiB of memory"));
}

#[test]
fn a_script_may_hold_what_ten_thousand_probes_find_out() {
    let report = Lab::new().run(
        r#"
        let found = [];
        for i in 0..10000 {
            let text = "https://shop.example.com/a/path/of/some/length/" + i;
            found.push(#{ ok: true, probe: text, error: "", latency_ms: 1.5, value: #{ url: text, status: 200, attempts: 1, latency_ms: 1.5 } });
        }
        let copy = found + [];
        if copy.len() != 10000 { throw "lost some" }
        "#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}
