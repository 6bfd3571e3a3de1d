//! What ends a run early: errors, `exit`, limits, panics, people. Nothing is forgotten on the way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use contraflow_runtime::{
    effect::{EffectId, Question, Reply},
    event::RunOutcome,
    provider::ProviderError,
    script::ScriptLimits,
    world::People,
};

use crate::lab::{Fault, Lab};

fn code(report: &contraflow_runtime::Report) -> String {
    report.error.as_ref().map(|e| e.code.to_string()).unwrap_or_default()
}

#[test]
fn return_ends_a_run_well() {
    for script in [
        "lab::set(\"a\", 1); return; lab::set(\"a\", 2);",
        "lab::set(\"a\", 1); if true { return 5; } lab::set(\"a\", 2);",
    ] {
        let lab = Lab::new();
        let report = lab.run(script);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{script}: {:?}", report.error);
        assert_eq!(lab.level("a"), 1, "{script}");
    }
    let lab = Lab::new();
    let report =
        lab.run("step(\"s\", || { lab::set(\"a\", 1); return; lab::set(\"a\", 3); }); lab::set(\"a\", 2);");
    assert_eq!((report.outcome, lab.level("a")), (RunOutcome::Succeeded, 2));
}

#[test]
fn exit_is_refused_before_a_run_wherever_it_stands() {
    for script in [
        "lab::set(\"a\", 1); exit();",
        "step(\"s\", || { lab::set(\"a\", 1); exit(1); });",
        "fn f() { if false { exit(0); } }",
        "parallel([|| exit(), || lab::look(\"b\")]);",
        "let x = 1; x.exit();",
        "let f = Fn(\"exit\"); f.call();",
    ] {
        let errors = Lab::new().refused(script);
        assert!(errors[0].message.contains("cannot be left with `exit`"), "{script}: {errors:?}");
        assert!(errors[0].hints[0].contains("fail(") && errors[0].frames[0].line > 0, "{script}: {errors:?}");
    }
}

#[test]
fn exit_that_no_check_could_see_fails_the_run() {
    let lab = Lab::new();
    let report = lab.run(
        "lab::set(\"a\", 1); let end = \"it\"; let f = Fn(\"ex\" + end); f.call(1); lab::set(\"a\", 2);",
    );
    assert_eq!(
        (report.outcome, code(&report)),
        (RunOutcome::RolledBack, "script".into()),
        "{:?}",
        report.error
    );
    assert_eq!(lab.level("a"), 0);
}

#[test]
fn a_limit_says_which_line_was_being_run() {
    for (script, line) in [
        ("fn wait() {\n  while true { }\n}\nwait();", 3),
        ("let a = 1;\nloop { a += 1; }", 3),
        ("step(\"s\", || {\n  let a = 0;\n  while a < 1 { }\n});", 4),
        ("let a = 0;\nfor i in 0..1000000 {\n  if i == 7 { a += 1; }\n}", 4),
    ] {
        let mut lab = Lab::new();
        lab.limits.max_operations = 50_000;
        let report = lab.run(script);
        assert_eq!(code(&report), "limit", "{script}: {:?}", report.error);
        let error = report.error.expect("an error");
        assert_eq!(error.frames.first().map(|frame| frame.line), Some(line), "{script}: {error:?}");
    }
}

#[test]
fn a_catch_gets_a_code_for_every_error_and_can_throw_it_again() {
    let lab = Lab::new();
    for (body, code) in [
        ("let hosts = [\"a\"]; hosts[3]", "script"),
        ("1 / 0", "script"),
        ("\"a\" - 5", "script"),
        ("let m = #{}; m.nothing", "script"),
        ("let nothing = (); sleep(nothing)", "script"),
        ("let f = |x| x; f.call()", "script"),
        ("fail(\"no\")", "failed"),
        ("throw \"no\"", "failed"),
        ("throw 42", "failed"),
        ("throw [1, 2]", "failed"),
        ("throw #{ why: \"no\" }", "failed"),
        ("throw #{ code: \"mine\" }", "mine"),
        ("fn_that_fails()", "script"),
    ] {
        let script = format!(
            "fn fn_that_fails() {{ [][1] }}\nlet seen = \"\"; try {{ {body}; }} catch (e) {{ seen = e.code; log(e.message); }}\n\
             if seen != \"{code}\" {{ fail(seen); }}"
        );
        let report = lab.run(&script);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{body}: {:?}", report.error);
    }
    let report = lab.run("let hosts = [\"a\"];\ntry {\n  hosts[3];\n} catch (e) {\n  throw e;\n}");
    let error = report.error.expect("an error");
    assert_eq!(
        (error.code.as_str(), error.frames[0].line, error.frames[0].column > 0),
        ("script", 4, true),
        "{error:?}"
    );
    let report = lab.run("fn f() {\n  [][1]\n}\ntry { f(); } catch (e) { throw e; }");
    let error = report.error.expect("an error");
    assert_eq!((error.code.as_str(), error.frames[0].line), ("script", 3), "{error:?}");
}

#[test]
fn errors_name_no_types_of_rust() {
    let lab = Lab::new();
    for body in [
        "let a = [1, 2, 3]; let b = a[0..=1]; b + true",
        "throw lab::secret(\"s\")",
        "throw [lab::secret(\"s\")]",
        "throw || 1",
        "let m = #{}; m[lab::secret(\"s\")] = 1",
        "let m = #{}; m[1..2]",
        "\"a\" - 5",
        "let nothing = (); sleep(nothing)",
        "5.x",
        "lab::secret(\"s\") - 1",
        "let n = 5; for x in n { }",
        "(1..3) - (2..=3)",
    ] {
        let caught = format!("try {{ {body}; }} catch (e) {{ fail(`${{e.message}}`); }}");
        for script in [body.to_owned(), caught] {
            let report = lab.run(&script);
            let said =
                report.error.map(|error| format!("{} {:?}", error.message, error.hints)).unwrap_or_default();
            let rust = ["::", "i64", "ImmutableString", "&str", "Fn*", "Dynamic", "anon$", "Error"];
            assert!(!said.is_empty() && !rust.iter().any(|name| said.contains(name)), "{script}: {said}");
        }
    }
}

#[test]
fn a_return_does_not_hide_what_must_stop_the_run() {
    let lab = Lab::new();
    // A text drops the errors of `to_string`; what is unknown must stop the plan all the same.
    let report = lab.plan("let x = lab::ring(\"x\"); let s = `${x}`; return;");
    assert_eq!(code(&report), "unknown-in-plan");
}

#[test]
fn a_panic_after_a_change_was_made_undoes_that_change_too() {
    for script in [
        r#"lab::set("b", 1); lab::set("a", 5);"#,
        r#"lab::set("b", 1); try { lab::set("a", 5); } catch { }"#,
        r#"lab::set("b", 1); step("s", || parallel([|| lab::set("a", 5), || lab::look("c")]));"#,
    ] {
        let lab = Lab::new();
        lab.fault("a", [Fault::DoesItAndPanics]);
        let report = lab.run(script);
        assert_eq!((report.outcome, code(&report)), (RunOutcome::RolledBack, "internal".into()), "{script}");
        assert!(report.error.unwrap().message.contains("lamp exploded"), "{script}");
        assert_eq!((lab.level("a"), lab.level("b")), (0, 0), "{script}");
    }
}

#[test]
fn a_panic_while_undoing_leaves_that_and_says_so() {
    let lab = Lab::new();
    lab.fault("b", [Fault::LostAnswer, Fault::Panics]);
    let report = lab.run(r#"lab::set("a", 1); lab::set("b", 1); lab::set("c", 1); fail("enough");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    let ids: Vec<&str> = report.left.iter().map(|l| &*l.id).collect();
    assert_eq!(ids, ["2:lab.set", "1:lab.set"], "{:?}", report.left);
    assert!(report.left[0].why.contains("lamp exploded"), "{:?}", report.left);

    let lab = Lab::new();
    let report = lab.run(r#"lab::set("a", 1); on_rollback(|| lab::explode()); fail("enough");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    assert_eq!(report.left.len(), 2, "{:?}", report.left);
    assert!(report.left[0].why.contains("has a defect"), "{:?}", report.left);
}

#[test]
fn a_panic_in_a_branch_says_what_it_was() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::set("a", 1); parallel([|| lab::explode(), || lab::set("b", 1)]);"#);
    assert_eq!((report.outcome, code(&report)), (RunOutcome::RolledBack, "internal".into()));
    assert!(report.error.unwrap().message.contains("this primitive has a defect"));
    assert_eq!((lab.level("a"), lab.level("b")), (0, 0));
}

#[test]
fn a_panic_cannot_be_caught() {
    let lab = Lab::new();
    let report = lab.run(r#"try { step("s", || lab::explode()); } catch { } lab::set("a", 1);"#);
    assert_eq!((report.outcome, code(&report)), (RunOutcome::Failed, "internal".into()));
    assert!(lab.log().is_empty());
}

#[test]
fn a_run_that_used_up_its_operations_or_memory_can_still_be_undone() {
    let script = r#"lab::set("a", 1);
        on_rollback(|| { let n = 0; while n < 2000 { n += 1; } lab::set("b", n); });
        on_rollback(|| { let n = 0; while n < 2000 { n += 1; } lab::set("c", n); });
        loop { }"#;
    let lab =
        Lab { limits: ScriptLimits { max_operations: 50_000, ..ScriptLimits::default() }, ..Lab::new() };
    let report = lab.run(script);
    assert_eq!(code(&report), "limit");
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    assert_eq!((lab.level("a"), lab.level("b"), lab.level("c")), (0, 2000, 2000));

    static HELD: AtomicBool = AtomicBool::new(false);
    let lab = Lab {
        limits: ScriptLimits {
            memory: Some(|| if HELD.swap(true, Ordering::Relaxed) { 1 << 30 } else { 0 }),
            max_memory: 64 << 20,
            ..ScriptLimits::default()
        },
        ..Lab::new()
    };
    let report = lab.run(script);
    assert_eq!(code(&report), "limit");
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
}

#[test]
fn a_loop_in_a_rollback_closure_ends() {
    let lab =
        Lab { limits: ScriptLimits { max_operations: 50_000, ..ScriptLimits::default() }, ..Lab::new() };
    let report = lab.run(r#"lab::set("a", 1); on_rollback(|| { loop { } }); fail("enough");"#);
    assert_eq!((report.outcome, code(&report)), (RunOutcome::RollbackIncomplete, "failed".into()));
    assert!(report.left[0].why.contains("operations"), "{:?}", report.left);
}

struct Nobody;

#[async_trait::async_trait]
impl People for Nobody {
    async fn ask(&self, _: &EffectId, _: &Question) -> Result<Reply, ProviderError> {
        std::future::pending().await
    }
}

#[test]
fn the_longest_time_of_a_run_also_ends_sleeps_and_questions() {
    for script in [
        r#"lab::set("a", 1); sleep("1h");"#,
        r#"lab::set("a", 1); confirm("sure?");"#,
        r#"lab::set("a", 1); try { manual("go"); } catch { }"#,
        r#"lab::set("a", 1); parallel([|| sleep("1h"), || confirm("sure?")]);"#,
    ] {
        let lab = Lab {
            people: Some(Arc::new(Nobody)),
            limits: ScriptLimits { max_wall_time: Duration::from_millis(300), ..ScriptLimits::default() },
            ..Lab::new()
        };
        // A watch over the test: should the run go on, this ends it with another error.
        let (stop, begin) = (lab.stop.clone(), Instant::now());
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let watch = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(10));
            }
            stop.cancel();
        });
        let report = lab.run(script);
        over.store(true, Ordering::Relaxed);
        watch.join().unwrap();
        assert_eq!((report.outcome, code(&report)), (RunOutcome::RolledBack, "limit".into()), "{script}");
        assert_eq!(lab.level("a"), 0);
    }
}

#[test]
fn what_stops_the_whole_run_does_not_wait_for_another_branch_to_wake_up() {
    let lab = Lab::new();
    lab.fault("b", [Fault::Panics]);
    let begin = Instant::now();
    let report = lab.run(
        r#"lab::set("a", 1);
        parallel([|| sleep("20s"), || { sleep("50ms"); lab::set("b", 1) }]);"#,
    );
    assert_eq!((report.outcome, code(&report)), (RunOutcome::RolledBack, "internal".into()));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn a_branch_that_waits_for_its_turn_does_not_begin_after_the_run_was_told_to_stop() {
    let lab = Lab::new();
    lab.fault("a", [Fault::Hangs]);
    let (stop, lamps) = (lab.stop.clone(), lab.lamps.clone());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while lamps.board().log.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.cancel();
        });
        let report = lab.run(r#"parallel([1, 2, 3].map(|n| { || lab::set("a", n) }));"#);
        assert_eq!(code(&report), "cancelled", "{report:?}");
    });
    assert_eq!(lab.log().len(), 1, "{:?}", lab.log());
}

#[test]
fn an_abort_also_ends_the_wait_for_another_try_of_an_undo() {
    let lab = Lab::new();
    lab.fault("a", [Fault::LostAnswer, Fault::After(Duration::from_secs(30))]);
    let (stop, lamps) = (lab.stop.clone(), lab.lamps.clone());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while lamps.board().log.len() < 3 {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(20));
            stop.abort();
        });
        let report = lab.run(r#"lab::set("b", 1); lab::set("a", 1); fail("enough");"#);
        assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
        assert_eq!(report.left.len(), 2, "{:?}", report.left);
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(lab.level("b"), 1);
}

#[test]
fn an_abort_while_a_rollback_closure_runs_undoes_nothing_more() {
    let lab = Lab::new();
    let (stop, lamps) = (lab.stop.clone(), lab.lamps.clone());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while lamps.board().rings.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            stop.abort();
        });
        let report = lab.run(
            r#"lab::set("b", 1);
            on_rollback(|| { lab::ring("x"); loop { } });
            fail("enough");"#,
        );
        assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
        assert_eq!(report.left.len(), 2, "{:?}", report.left);
    });
    assert_eq!(lab.level("b"), 1);
}

#[test]
fn what_a_rollback_closure_may_not_do_is_not_forgotten_by_the_next_one() {
    // The first closure that runs drops an error that cannot be caught: a text with a value that is not known.
    let lab = Lab::new();
    let report = lab.run(
        r#"lab::set("a", 1);
        on_rollback(|| lab::set("b", 1));
        try { parallel([|| fail("one"), || { step("two", || lab::set("nowhere", 1)) }]); } catch (e) { note(e.message); }
        step("three", || { try { step("four", || fail("again")) } catch (e) { throw e; } });"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    let error = report.error.unwrap();
    assert_eq!(error.message, "again");
    let frames: Vec<String> = error.frames.iter().map(|f| format!("{} {}", f.what, f.line)).collect();
    assert_eq!(frames, ["fail 5", "step \"four\" 5", "step \"three\" 5"]);
}
