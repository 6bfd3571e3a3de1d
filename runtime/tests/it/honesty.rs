//! A plan never claims what it does not know.

use contraflow_runtime::event::RunOutcome;

use crate::lab::Lab;

#[test]
fn a_plan_stops_wherever_the_way_depends_on_what_is_not_known() {
    let mut wrong = Vec::new();
    for line in [
        // Conditions and operators, also where an error would be caught.
        "do { lab::look(\"a\"); } until x;",
        "try { do { } until x; } catch { lab::set(\"b\", 1); }",
        "try { let t = true; let ok = x && t; } catch { lab::set(\"b\", 1); }",
        "try { let t = true; let ok = t && x; } catch { lab::set(\"b\", 1); }",
        "try { let ok = false || x; if ok { } } catch { lab::set(\"b\", 1); }",
        "try { let y = x ** 2; } catch { lab::set(\"b\", 1); }",
        "try { let y = x << 1; } catch (e) { lab::set(\"b\", 1); }",
        "try { let y = 0..x; } catch { lab::set(\"b\", 1); }",
        "try { let y = x.trim(); } catch { lab::set(\"b\", 1); }",
        "try { let y = max(x, 1); } catch (e) { lab::set(\"b\", 1); }",
        "try { let y = [1, 2][x]; } catch { lab::set(\"b\", 1); }",
        "try { let y = #{ a: 1 }[x]; } catch { lab::set(\"b\", 1); }",
        "try { fail(x) } catch { lab::set(\"b\", 1); }",
        "try { step(x, || 1) } catch { lab::set(\"b\", 1); }",
        "try { if x in 0..3 { } } catch { lab::set(\"b\", 1); }",
        "fn f(v) { if v { 1 } else { 2 } } let y = f(x);",
        "fn f(v) { if v > 3 { 1 } else { 2 } } try { f(x) } catch { lab::set(\"b\", 1); }",
        "if x == x { lab::set(\"b\", 1); }",
        "if x != x { lab::set(\"b\", 1); }",
        "if [x] == [1] { lab::set(\"b\", 1); }",
        "if #{ a: x } == #{ a: 1 } { lab::set(\"b\", 1); }",
        "if x == [1] { lab::set(\"b\", 1); }",
        "if x == #{} { lab::set(\"b\", 1); }",
        "if x == () { lab::set(\"b\", 1); }",
        "if x == 'c' { lab::set(\"b\", 1); }",
        "if x == (0..3) { lab::set(\"b\", 1); }",
        "if x == lab::secret(\"s\") { lab::set(\"b\", 1); }",
        "if lab::secret(\"s\") == x { lab::set(\"b\", 1); }",
        "if (|| 1) == x { lab::set(\"b\", 1); }",
        "if x in [1, 2] { lab::set(\"b\", 1); }",
        "if 1 in x { lab::set(\"b\", 1); }",
        "if x in \"abc\" { lab::set(\"b\", 1); }",
        "if \"a\" in x { lab::set(\"b\", 1); }",
        "if x in #{ a: 1 } { lab::set(\"b\", 1); }",
        "if 2 in [1, x] { lab::set(\"b\", 1); }",
        "if [1, 2].contains(x) { lab::set(\"b\", 1); }",
        "let i = [1, 2].index_of(x);",
        "switch x { 0..5 => 1, _ => 2 }",
        "switch 3 { 3 if x => 1, _ => 2 }",
        "switch 3 { 3 if x == 1 => 1, _ => 2 }",
        "switch #{ a: [x] } { #{ a: [1] } => 1, _ => 2 }",
        "let y = if x { 1 } else { 2 };",
        "let y = (x ?? 3) + 1;",
        "let y = x?.deep?.er; if y == 3 { }",
        "if x[0] == 1 { }",
        "if x[\"a\"].b == 1 { }",
        "if -x == 1 { }",
        // Functions that take what a closure answers for false.
        "let y = [1, 2].filter(|v| x);",
        "let y = [x].filter(|v| v.ok);",
        "if [x].all(|v| v.ok) { }",
        "if [x].some(|v| v.ok) { }",
        "let y = [x].find(|v| v.ok);",
        "let y = [x].find(|v| v.ok, 0);",
        "let y = [x].index_of(|v| v.ok);",
        "let y = [x].index_of(|v| v.ok, 0);",
        "let y = [1, x]; y.retain(|v| x);",
        "let y = [1, x]; y.drain(|v| x);",
        "let y = [1, 2]; y.dedup(|a, b| x);",
        "let y = [1, 2]; y.sort(|a, b| x);",
        "let y = #{ a: x }.filter(|k, v| v);",
        "let y = #{ a: x }; y.retain(|k, v| v);",
        "let y = #{ a: x }; y.drain(|k, v| v);",
        // What it is, as text.
        "if type_of(x) == \"map\" { lab::set(\"b\", 1); }",
        "print(x);",
        "note(`${x}`);",
        "note(`${[x]}`);",
        "note(\"\" + #{ a: x });",
        "lab::ring(#{ a: x }.to_json());",
        "lab::ring([x].to_string());",
        "lab::ring(x.to_string());",
        "let s = \"\"; s += x;",
        "lab::ring(\"x\", #{ undoable: x });",
        "sleep(x);",
        "parallel(x);",
        "parallel([|| { if x { lab::set(\"b\", 1); } }, || 1]);",
        "for (v, i) in x { note(\"x\"); }",
        "for k in x.keys() { }",
        "for k in keys(x) { }",
        "let y = x.len();",
        "let y = parse_int(x);",
        "throw x;",
        "try { throw x; } catch (e) { if e == 1 { lab::set(\"b\", 1); } }",
        "confirm(x);",
    ] {
        let lab = Lab::new();
        let report = lab.plan(&format!("let x = lab::ring(\"x\");\n{line}\nlab::set(\"c\", 9);"));
        let code = report.error.as_ref().map(|e| (e.code.to_string(), e.frames.first().map(|f| f.line)));
        let throws = line == "throw x;";
        if throws && code.as_ref().is_some_and(|c| c.0 == "failed") {
            continue;
        }
        if code != Some(("unknown-in-plan".to_owned(), Some(3))) {
            wrong.push(format!("{line}\n      {code:?} {:?}", report.error.map(|e| e.message)));
        }
    }
    assert!(wrong.is_empty(), "went on, or stopped in another way, after:\n  {}", wrong.join("\n  "));
}

#[test]
fn what_is_not_known_may_be_passed_on() {
    for line in [
        "let y = [x, 1]; y.push(x); let n = y.len(); if n != 3 { fail(\"no\") }",
        "let y = #{ a: x }; if \"a\" in y { lab::set(\"b\", 1); }",
        "let y = #{ a: x }.keys(); if y != [\"a\"] { fail(\"no\") }",
        "let f = || x; let y = f.call();",
        "fn id(v) { v } let y = id(x);",
        "let y = parallel([|| x, || 2]); if y[1] != 2 { fail(\"no\") }",
        "let y = step(\"s\", || x);",
        "let y = x.a.b[3].c;",
        "let y = x ?? 5;",
        "if is_def_var(\"x\") { lab::set(\"b\", 1); }",
        "try { fail(\"no\") } catch (e) { if e.message != \"no\" { fail(\"what\") } }",
        "try { 1 + [] } catch { lab::set(\"b\", 1); }",
        "try { 1 + [] } catch (e) { if e.message == \"\" { fail(\"what\") } }",
        "let y = [1, 2, 3].filter(|v| v > 1); if y != [2, 3] { fail(\"no\") }",
        "let y = [1, 2, 3].filter(|v, i| i > 1); if y != [3] { fail(\"no\") }",
        "let y = [1, 2, 3].filter(|| this > 2); if y != [3] { fail(\"no\") }",
        "let y = #{ a: 1, b: 2 }.filter(|k, v| v > 1); if y != #{ b: 2 } { fail(\"no\") }",
        "if ![1, 2].all(|v| v > 0) || [1, 2].some(|v| v > 2) { fail(\"no\") }",
        "if [1, 2].find(|v| v > 1) != 2 || [1, 2].index_of(|v| v > 1) != 1 { fail(\"no\") }",
        "if [1, 2, 1].index_of(|v| v == 1, 1) != 2 || [1, 2, 3].find(|v| v > 0, 1) != 2 { fail(\"no\") }",
        "let y = [1, 2, 3, 4]; let z = y.drain(|v| v > 2); if y != [1, 2] || z != [3, 4] { fail(`${y} ${z}`) }",
        "let y = [1, 2, 3, 4]; let z = y.retain(|v| v > 2); if y != [3, 4] || z != [1, 2] { fail(`${y} ${z}`) }",
        "let y = [1, 1, 2]; y.dedup(|a, b| a == b); if y != [1, 2] { fail(`${y}`) }",
        "let y = [3, 1, 2]; y.sort(|a, b| a - b); if y != [1, 2, 3] { fail(`${y}`) }",
        "if type_of([1]) != \"array\" || type_of(1 + (2 * 3)) != \"i64\" { fail(\"no\") }",
        "if #{ a: [1, #{ b: \"ü\" }] }.to_json() != `{\"a\":[1,{\"b\":\"ü\"}]}` { fail(\"no\") }",
        "const L = [1, 2]; if L.filter(|v| v > 1) != [2] || !L.some(|v| v == 2) { fail(\"no\") }",
    ] {
        let lab = Lab::new();
        let report = lab.plan(&format!("let x = lab::ring(\"x\");\n{line}\nlab::set(\"c\", 9);"));
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{line}: {:?}", report.error);
        let report = lab.run(&format!(
            "let x = lab::ring(\"x\");\n{}\nlab::set(\"c\", 9);",
            line.replace("x.a.b[3].c", "x")
        ));
        assert_eq!(report.outcome, RunOutcome::Succeeded, "run of {line}: {:?}", report.error);
    }
}

#[test]
fn a_plan_of_branches_writes_nothing_and_carries_what_they_change() {
    let lab = Lab::new();
    let report = lab.plan(
        r#"parallel([|| lab::set("a", 1), || lab::set("b", 2)]);
        if lab::set("a", 1) != 1 { fail("no") }
        lab::expect("b", 2);"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(lab.lines()[2..], ["2:lab.set assumed: level 1 unchanged", "3:lab.look assumed: b"]);
    assert!(lab.log().is_empty());
}

#[test]
fn a_plan_stops_where_the_run_would_be_ended_for_having_taken_too_long() {
    for (script, changes) in [
        (r#"lab::set("a", 1); sleep("23h"); lab::set("b", 1); sleep("2h"); lab::set("c", 1);"#, 2),
        (r#"try { lab::set("a", 1); sleep("25h"); } catch { } lab::set("b", 1);"#, 1),
        // 144 sleeps fit; the first lamp is at 0 already.
        (r#"for n in 0..1000 { sleep("10m"); lab::set("a", n); }"#, 143),
        (r#"lab::set("a", 1); parallel([|| sleep("20h"), || sleep("25h")]);"#, 1),
        // Each alone is short enough, and all in a row are not.
        (r#"lab::set("a", 1); sleep("13h"); parallel([|| sleep("12h"), || sleep("1h")]);"#, 1),
    ] {
        let lab = Lab::new();
        let report = lab.plan(script);
        let error = report.error.unwrap();
        assert_eq!(error.message, "the run would take longer than 24h", "{script}");
        assert_eq!((report.outcome, report.changes), (RunOutcome::Failed, changes), "{script}");
    }
    let lab = Lab::new();
    assert_eq!(lab.plan(r#"lab::set("a", 1); sleep("24h");"#).outcome, RunOutcome::Succeeded);
}
