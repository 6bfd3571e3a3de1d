//! What a plan says, and that it touches nothing.

use contraflow_runtime::event::RunOutcome;

use crate::lab::Lab;

#[test]
fn a_plan_carries_states_forward_and_changes_nothing() {
    let lab = Lab::new();
    let report = lab.plan(
        r#"lab::set("a", 1);
        let level = lab::set("a", 2);
        if level != 2 { fail("state was not carried") }
        lab::set("b", 0);
        lab::ring("x");"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(
        lab.lines(),
        [
            "1:lab.set observed: level 0 -> level 1",
            "2:lab.set assumed: level 1 -> level 2",
            "3:lab.set observed: level 0 unchanged",
            "4:lab.ring unknown: ring x",
        ]
    );
    assert_eq!(report.changes, 2);
    assert!(lab.log().is_empty() && lab.lamps.board().rings.is_empty());
}

#[test]
fn a_check_of_something_that_would_have_changed_is_assumed_and_a_value_is_stale() {
    let lab = Lab::new();
    let report = lab.plan(
        r#"lab::expect("a", 0);
        lab::set("a", 1);
        lab::expect("a", 1);
        if lab::look("a") != 0 { fail("a stale read answers what is there now") }
        lab::wait_for("a", 1);
        lab::expect("b", 0);"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(
        lab.lines(),
        [
            "1:lab.look observed: a: 0",
            "2:lab.set observed: level 0 -> level 1",
            "3:lab.look assumed: a",
            "4:lab.look stale: a: 0",
            "5:lab.await assumed: a at 1",
            "6:lab.look observed: b: 0",
        ]
    );
    assert_eq!(report.elapsed_ms, 60_000);
}

#[test]
fn a_check_that_fails_now_fails_the_plan() {
    let lab = Lab::new();
    let report = lab.plan(r#"lab::expect("a", 3); lab::set("a", 1);"#);
    assert_eq!(report.outcome, RunOutcome::Failed);
    assert_eq!(report.error.unwrap().message, "expected 3, got 0");
}

#[test]
fn a_plan_stops_where_it_would_need_what_only_a_run_can_tell() {
    let lab = Lab::new();
    for line in [
        "if x { lab::set(\"b\", 1); }",
        "if x == 1 { lab::set(\"b\", 1); }",
        "let s = `${x}`;",
        "let s = \"\" + x;",
        "let s = x + 1;",
        "lab::set(\"a\", x);",
        "lab::ring(x);",
        "if !x { lab::set(\"b\", 1); }",
        "let y = x.field.deeper; if y > 3 { fail(\"x\") }",
        "try { if x { fail(\"x\") } } catch { lab::set(\"b\", 1); }",
        "while x { lab::set(\"b\", 1); }",
        "switch [x] { [1] => 2, _ => 3 }",
        "for i in x { log(\"x\"); }",
        "switch x { 1 => 2, _ => 3 }",
        "try { if x == 1 { fail(\"x\") } } catch { lab::set(\"b\", 1); }",
    ] {
        let report = lab.plan(&format!("let x = lab::ring(\"x\");\n{line}\nlab::set(\"c\", 9);"));
        let error = report.error.unwrap_or_else(|| panic!("went on after: {line}"));
        assert_eq!(
            (error.code.as_str(), error.frames.first().map(|f| f.line)),
            ("unknown-in-plan", Some(3)),
            "{line}: {error:?}"
        );
        assert!(error.hints.iter().any(|h| h.contains("assume")), "{line}");
    }
    let report = lab.plan("let x = lab::ring(\"x\"); let y = [x]; let z = #{ x: x }; lab::set(\"c\", 9);");
    assert_eq!(report.outcome, RunOutcome::Succeeded, "passing it on is fine: {:?}", report.error);
}

#[test]
fn time_of_a_plan_adds_up_and_branches_count_once() {
    let lab = Lab::new();
    let report = lab.plan(
        r#"sleep("1m"); parallel([|| sleep("2m"), || { sleep("30s"); sleep("1m") }]); confirm("sure?");"#,
    );
    assert_eq!((report.outcome, report.elapsed_ms), (RunOutcome::Succeeded, 180_000), "{:?}", report.error);
}

#[test]
fn a_plan_leaves_no_run_in_the_store() {
    let lab = Lab::new();
    lab.plan(r#"lab::set("a", 1);"#);
    let runs = lab.tokio.block_on(lab.store.runs(10)).unwrap();
    assert!(runs.is_empty());
}
