//! Scripts that want all of the machine: each ends by itself, with a clear word, in a bounded time and with bounded memory.

use std::time::Duration;

use crate::harness::{Ended, Lab};

/// Most memory that the process may ever hold.
const BOUND: u64 = 1 << 30;

/// Runs a script that takes too much of something.
fn run(body: &str) -> Ended {
    let lab = Lab::with(body);
    bounded(body, lab.contraflow(&["run", "run.rhai"]))
}

fn bounded(what: &str, ended: Ended) -> Ended {
    let what = &what[..what.len().min(200)];
    assert!([1, 2].contains(&ended.code), "{what}: {}", ended.code);
    assert!(ended.peak < BOUND, "{what}: {} MiB", ended.peak >> 20);
    // Some seconds, and much more on a machine that does other things as well; without a limit it would take for ever.
    assert!(ended.took < Duration::from_secs(120), "{what}: {:?}", ended.took);
    assert!(ended.stdout.len() + ended.stderr.len() < 50_000, "{what}: {} bytes", ended.stderr.len());
    assert!(!ended.stderr.contains("panicked"), "{what}: {ended}");
    ended
}

/// With few operations, so that what only burns time ends soon.
fn burns(body: &str) -> Ended {
    let lab = Lab::with(body);
    lab.write("contraflow.toml", "[limits]\nmax_operations = 500_000\n");
    bounded(body, lab.contraflow(&["run", "run.rhai"])).complains("limit")
}

#[test]
fn loops_and_callbacks_are_counted() {
    burns("let n = 0; loop { n += 1; }");
    burns("loop { }");
    burns("let a = []; a.pad(1000, 0); loop { a.for_each(|| { let m = 0; while m < 100000 { m += 1; } }); }");
    burns("fn f() { try { f(); } catch { } f(); } f();");
    burns("let n = 0; loop { try { loop { n += 1; } } catch { } }");
    burns("step(\"a\", || { loop { } });");
    burns("parallel([|| { loop { } }, || { loop { } }]);");
    // Few operations, each of which takes long.
    burns("let a = []; loop { a.push(1); }");
    burns("let a = []; a.pad(200000, 0); loop { if a == [1] { break; } a.len(); }");
}

#[test]
fn recursion_has_an_end() {
    run("fn f(n) { f(n + 1) } f(0);").complains("limit");
    run("fn f(n) { step(\"s\" + n, || f(n + 1)) } f(0);").complains("limit");
    run("let f = |g| g.call(g); f.call(f);");
}

#[test]
fn memory_bombs_end_at_a_limit() {
    for bomb in [
        "let m = #{}; let s = \"x\"; for i in 0..19 { s += s; } for i in 0..1000000 { m[\"k\" + i] = s + i; }",
        "let s = \"xxxxxxxxxxxxxxxx\"; loop { s += s; }",
        "let s = \"a\"; loop { s.replace(\"a\", s + s); }",
        "let a = []; let s = \"x\"; for i in 0..18 { s += s; } loop { a.push(s + a.len()); }",
        "let a = [0]; loop { a += a; }",
        "let a = []; a.pad(4000000000, 0);",
        "let s = \"\"; s.pad(4000000000, \"x\");",
        "let b = blob(4000000000);",
        "let a = [1]; for i in 0..60 { a = [a, a]; } note(a.len());",
        "let m = #{ a: 1 }; for i in 0..60 { m = #{ a: m, b: m }; } note(m.len());",
        "let f = |x| x; let all = [1]; loop { let g = f; f = || [g, all]; all += all; }",
        "let a = []; for i in 0..2000 { a.push(i); } loop { let b = a; b.push(0); a = [b, a]; }",
        "let s = \"x\"; for i in 0..19 { s += s; } let a = []; loop { a.push(s.to_upper()); a.push(s.to_chars()); }",
    ] {
        run(bomb).complains("limit");
    }
}

#[test]
fn memory_bombs_in_branches_and_steps_end_too() {
    run("fn bomb() { let a = []; let s = \"x\"; for i in 0..18 { s += s; } loop { a.push(s + a.len()); } }
        parallel([|| bomb(), || bomb(), || bomb()]);")
    .complains("limit");
    // Written out as it comes, not kept.
    let lab =
        Lab::with("let s = \"x\"; for i in 0..18 { s += s; } for i in 0..60 { note(s + i); } fail(\"end\");");
    let ended = lab.contraflow(&["run", "run.rhai"]).exits_with(1);
    assert!(ended.peak < 200 << 20, "{} MiB", ended.peak >> 20);
}

#[test]
fn scripts_that_take_long_to_read_are_refused() {
    run(&format!("let x = {}1{};", "(".repeat(100_000), ")".repeat(100_000)));
    run(&format!("let x = [{}];", "0,".repeat(120_000)));
    run(&(0..16_000).map(|n| format!("fn f{n}() {{}}")).collect::<String>());
    run(&format!("let x = 1{};", " + 1".repeat(60_000)));
    run(&format!("{}{}", "if true {".repeat(20_000), "}".repeat(20_000)));
    run(&format!("let f = {}1;", "|| ".repeat(20_000)));
}

#[test]
fn what_a_script_must_not_reach_is_not_there() {
    for script in [
        "eval(\"1\");",
        "print(timestamp());",
        "let f = Fn(\"eval\"); f.call(\"1\");",
        "import \"/etc/passwd\" as x;",
    ] {
        run(script).says("error[");
    }
}

#[test]
fn no_escape_of_a_header_or_a_user_reaches_the_terminal() {
    let lab = Lab::new();
    let hostile = r#"\x1b[2J\x1b[1;31mOWNED\x1b]0;title\x07"#;
    lab.write(
        "run.rhai",
        format!(
            "const RUNBOOK = #{{ name: \"test\", version: \"{hostile}\" }};\n\
             step(\"{hostile}\", || {{ note(\"{hostile}\"); traffic::shift(\"web\", \"green\", 5); }});"
        ),
    );
    let calls: [&[&str]; 10] = [
        &["check", "run.rhai"],
        &["plan", "run.rhai", "--save", "p.plan"],
        &["plan", "--show", "p.plan"],
        &["run", "run.rhai"],
        &["show", "last"],
        &["show", "last", "--records"],
        &["runs"],
        &["rehearse", "run.rhai"],
        &["run", "\u{1b}[2J.rhai"],
        &["\u{1b}[2J"],
    ];
    for args in calls {
        let ended = lab.end(lab.command(args).env("USER", "\u{1b}[31mbo"));
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!said.is_empty() && !said.contains(['\u{1b}', '\u{7}']), "{args:?}: {said:?}");
    }
}
