//! What a script may call what, found before it runs; and what may be called works when it does.

use contraflow_runtime::{Bundle, event::RunOutcome};

use crate::lab::{HEADER, Lab};

/// Scripts that must load and, when run, do what they say.
#[test]
fn these_load_and_run() {
    let mut wrong = Vec::new();
    for script in [
        "let m = #{ f: |x| x + 1 }; if m.f(2) != 3 { fail(\"no\") }",
        "let m = #{ n: 5, f: |x| this.n + x }; if m.f(2) != 7 { fail(\"no\") }",
        "let m = #{}; m.f = |x| x + 1; if m.f(2) != 3 { fail(\"no\") }",
        "let f = Fn(\"twice\"); fn twice(x) { x * 2 } if f.call(3) != 6 { fail(\"no\") }",
        "fn twice(x) { x * 2 } if call(Fn(\"twice\"), 3) != 6 { fail(\"no\") }",
        "fn twice(x) { x * 2 } if [1, 2].map(Fn(\"twice\")) != [2, 4] { fail(\"no\") }",
        "fn outer(n) { let f = |x| x + n; [1, 2].map(f) } if outer(1) != [2, 3] { fail(\"no\") }",
        "fn a(n) { if n == 0 { 0 } else { b(n - 1) } } fn b(n) { if n == 0 { 1 } else { a(n - 1) } } if a(3) != 1 { fail(\"no\") }",
        "private fn hidden() { 4 } if hidden() != 4 { fail(\"no\") }",
        "/// Doc.\nfn documented() { 4 }\nif documented() != 4 { fail(\"no\") }",
        "let x = 1; { let x = 2; if x != 2 { fail(\"no\") } } if x != 1 { fail(\"no\") }",
        "let x = 1; let x = x + 1; step(\"s\", || { let x = x + 1; if x != 3 { fail(\"no\") } });",
        "fn f() { this += 1; } let n = 1; n.f(); if n != 2 { fail(`${n}`) }",
        "let s = 0; for (v, i) in [5, 6] { s += v * i; } if s != 6 { fail(\"no\") }",
        "const MAX = 3; if MAX != 3 { fail(\"no\") }",
        "step(\"s\", lab_step()); fn lab_step() { || lab::set(\"a\", 1) }",
        "let y = switch 3 { 1 | 2 => \"a\", 3..=5 => \"b\", _ => \"c\" }; if y != \"b\" { fail(y) }",
        "if is_def_fn(\"nope\", 1) { fail(\"no\") }",
        "let f = |a, b = 1| a; f.call(1);",
    ] {
        // The last one is no Rhai: it must be refused, not accepted and broken later.
        let lab = Lab::new();
        let checked = lab.runtime().check(&Lab::bundle(script));
        if script.contains("b = 1") {
            assert!(checked.is_err());
            continue;
        }
        if let Err(errors) = checked {
            wrong.push(format!("{script}: refused: {:?}", errors.0));
            continue;
        }
        let report = lab.run(script);
        if report.outcome != RunOutcome::Succeeded {
            wrong.push(format!("{script}: {:?}", report.error));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Mistakes that must be found before a script runs.
#[test]
fn these_are_refused() {
    let mut wrong = Vec::new();
    for (script, code) in [
        ("let f = Fn(\"twcie\"); f.call(3); fn twice(x) { x * 2 }", "unknown-function"),
        ("fn f() { nope() }", "unknown-function"),
        ("fn f() { || nope() }", "unknown-function"),
        ("let m = #{ f: || nope() };", "unknown-function"),
        ("if true { step(\"s\", || [1].map(|x| nope(x))); }", "unknown-function"),
        ("let s = `${nope()}`;", "unknown-function"),
        ("switch 1 { 1 if nope() => 2, _ => 3 }", "unknown-function"),
        ("try { nope() } catch { }", "unknown-function"),
        ("let x = 1; fn f() { x }", "unknown-variable"),
        ("fn f() { let g = || y; }", "unknown-variable"),
        ("fn step(a, b) { 1 }", "ambiguous-name"),
        ("fn known(a) { 1 }", "ambiguous-name"),
        ("fn f(a) { 1 } fn f(b) { 2 }", "syntax"),
        ("let x = 1; let y = x.type_of();", "unknown-function"),
        ("step(\"s\", lab::set(\"a\", 1));", "argument"),
        ("on_rollback(lab::set(\"a\", 1));", "argument"),
        ("parallel([lab::set(\"a\", 1), || 1]);", "argument"),
        ("step(\"s\", step(\"t\", || 1));", "argument"),
    ] {
        let lab = Lab::new();
        match lab.runtime().check(&Lab::bundle(script)) {
            Ok(_) => wrong.push(format!("{script}: was not refused")),
            Err(errors) if !errors.0.iter().any(|e| e.code.as_str() == code) => {
                wrong.push(format!("{script}: {:?}", errors.0));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn bundle(main: &str, others: &[(&str, &str)]) -> Bundle {
    let mut bundle = Bundle::single("main.rhai", format!("{HEADER}{main}"));
    for (name, text) in others {
        bundle.files.insert((*name).to_owned(), (*text).to_owned());
    }
    bundle
}

#[test]
fn imported_functions_are_found_from_steps_functions_and_other_imports() {
    let lib = "import \"deeper\" as deeper; fn up(lamp) { step(\"in lib\", || lift(lamp)) } fn lift(lamp) { deeper::put(lamp, 7) } private fn own() { 1 }";
    let deeper = "const LEVEL = 1; fn put(lamp, n) { lab::set(lamp, n) }";
    let files = [("lib.rhai", lib), ("deeper.rhai", deeper)];
    for main in [
        "import \"lib\" as lib; lib::up(\"a\");",
        "import \"lib\" as lib; step(\"s\", || lib::up(\"a\"));",
        "import \"lib\" as lib; fn f() { lib::up(\"a\") } f();",
        "import \"lib\" as lib; fn f() { step(\"s\", || lib::up(\"a\")) } parallel([|| f()]);",
        "import \"lib\" as lib; lab::set(\"b\", 1); on_rollback(|| lib::up(\"a\")); if true { try { fail(\"x\") } catch { lib::up(\"a\") } }",
    ] {
        let lab = Lab::new();
        let report = lab.tokio.block_on(lab.runtime().run(&bundle(main, &files), &Default::default()));
        let report = report.unwrap_or_else(|e| panic!("{main}: {:?}", e.0));
        assert_eq!(
            (report.outcome, lab.level("a")),
            (RunOutcome::Succeeded, 7),
            "{main}: {:?}",
            report.error
        );
    }
    let lab = Lab::new();
    let errors =
        lab.runtime().check(&bundle("import \"lib\" as lib; lib::own();", &files)).expect_err("is private").0;
    assert_eq!(errors[0].code.as_str(), "unknown-function", "{errors:?}");
}

#[test]
fn an_imported_constant_performs_no_effect() {
    let lab = Lab::new();
    for text in ["export const X = lab::set(\"a\", 1);", "export const X = [1].map(|x| lab::set(\"a\", x));"]
    {
        let checked = lab.runtime().check(&bundle("import \"lib\" as lib;", &[("lib.rhai", text)]));
        assert_eq!(checked.expect_err(text).0[0].code.as_str(), "import", "{text}");
    }
    let fine =
        "export const X = 60 * 60; export const Y = [1, #{ a: -2.5 }, \"x\"]; const Z = \"a\" + \"b\";";
    lab.runtime().check(&bundle("import \"lib\" as lib;", &[("lib.rhai", fine)])).unwrap();
}

#[test]
fn a_header_may_share_its_line_and_stand_anywhere_at_the_top_level() {
    let lab = Lab::new();
    for text in [
        "const RUNBOOK = #{ name: \"x\" }; lab::set(\"a\", 1);",
        "fn f() { 1 }\nconst RUNBOOK = #{ name: \"x\" };",
        "//! Words.\r\nconst RUNBOOK = #{\r\n  name: \"x\",\r\n};\r\n",
        "const RUNBOOK = #{ name: \"x\" + \"y\" };",
    ] {
        let header = lab
            .runtime()
            .check(&Bundle::single("m.rhai", text))
            .unwrap_or_else(|e| panic!("{text}: {:?}", e.0));
        assert!(header.name.starts_with('x'));
    }
    for text in [
        "if true { const RUNBOOK = #{ name: \"x\" }; }",
        "fn f() { const RUNBOOK = #{ name: \"x\" }; }",
        "let RUNBOOK = #{ name: \"x\" };",
        "const RUNBOOK = #{ name: \"x\" }; const RUNBOOK = #{ name: \"y\" };",
        "const RUNBOOK = #{ name: \"x\", params: #{ n: #{ type: \"int\", \"default\": 1.5 } } };",
        "const RUNBOOK = #{ name: \"x\", params: #{ n: #{ type: \"int\", min: 5, \"default\": 1 } } };",
        "const RUNBOOK = #{ name: \"x\", params: #{ n: #{ type: \"int\", min: 5, max: 1 } } };",
        "const RUNBOOK = #{ name: \"x\", params: #{ n: #{ type: \"string\", choices: [1] } } };",
        "const RUNBOOK = #{ name: \"x\", params: [] };",
        "const RUNBOOK = 5;",
        "const RUNBOOK = #{};",
    ] {
        match lab.runtime().check(&Bundle::single("m.rhai", text)) {
            Ok(header) => panic!("was not refused: {text}: {header:?}"),
            Err(errors) => {
                assert!(errors.0.iter().all(|e| !e.message.contains("i64")), "{text}: {:?}", errors.0)
            }
        }
    }
}

#[test]
fn deep_nesting_ends_with_an_error_and_not_with_the_process() {
    let lab = Lab::new();
    let report = lab.run("let a = []; for i in 0..3000 { a = [a]; } lab::ring(\"x\", #{ undoable: a });");
    assert_eq!(report.error.unwrap().code.as_str(), "argument");
    let report = lab.run(
        "let a = []; for i in 0..3000 { a = [a]; } if a == [] { fail(\"no\") } switch a { [] => 1, _ => 2 }",
    );
    assert!(matches!(report.outcome, RunOutcome::Succeeded | RunOutcome::Failed));
}
