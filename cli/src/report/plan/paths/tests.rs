//! What the paths of a plan look like.

use std::{collections::BTreeMap, sync::Arc};

use contraflow_runtime::{
    Bundle, Runtime,
    rehearsal::{Bounds, Paths},
};
use insta::assert_snapshot;
use unicode_width::UnicodeWidthStr as _;

use super::*;

/// The paths of a script that asks people alone.
fn paths(body: &str, most: usize) -> Paths {
    let bundle = Bundle::single("t.rhai", format!("const RUNBOOK = #{{ name: \"test\" }};\n{body}"));
    let tokio = tokio::runtime::Runtime::new().expect("a runtime");
    let bounds = Bounds { paths: most, progress: Arc::default() };
    let runtime = Runtime::builder().build();
    let found = tokio.block_on(runtime.paths(&bundle, &BTreeMap::new(), bounds));
    found.unwrap_or_else(|errors| panic!("{errors}"))
}

const QUESTIONS: &str = r#"
step("ask", || {
    try {
        approve("is the announcement out?", #{ timeout: "1h" });
    } catch (error) {
        note("it is not");
        manual("write the announcement");
        approve("is it out now?", #{ by: "press", at_least: 2 });
    }
});
sleep("5m");
try { confirm("clean up?"); sleep("1m"); } catch (error) {}
"#;

#[test]
fn branches_hang_on_the_lines_that_decide() {
    assert_snapshot!(show(&paths(QUESTIONS, 100), Theme::PLAIN), @"
    All paths of test 0 in sandbox

    ▸ ask
      ? approve is the announcement out? (within 1h)
        └ if it is denied or nobody answers: ✓ succeeds on another path
            ? manual write the announcement
              ├ if it is denied: – fails, with nothing to undo
              └ if nobody answers: – fails, with nothing to undo: the run took longer than 24h
            ? approve is it out now? (by 2 of press)
              ├ if it is denied: – fails, with nothing to undo
              └ if nobody answers: – fails, with nothing to undo: the run took longer than 24h
    … sleep 5m (at least 5m)
    ? confirm clean up?
      ├ if it is denied: ✓ succeeds, without sleep 1m
      └ if nobody answers: – fails, with nothing to undo: the run took longer than 24h
    … sleep 1m (at least 1m)

    As assumed: ✓ succeeded; no changes; at least 6m.
    Otherwise: 4 decisions, 7 other paths: 2 succeed, 5 fail with nothing to undo.
    ");
}

#[test]
fn what_was_not_explored_is_said_where_it_is_missing_and_below() {
    assert_snapshot!(show(&paths(QUESTIONS, 1), Theme::PLAIN), @"
    All paths of test 0 in sandbox

    ▸ ask
      ? approve is the announcement out? (within 1h)
        ├ if it is denied: ✓ succeeds on another path
        │   ? manual write the announcement
        │     └ 2 other answers not explored
        │   ? approve is it out now? (by 2 of press)
        │     └ 2 other answers not explored
        └ 1 other answer not explored
    … sleep 5m (at least 5m)
    ? confirm clean up?
      └ 2 other answers not explored
    … sleep 1m (at least 1m)

    As assumed: ✓ succeeded; no changes; at least 6m.
    Otherwise: 4 decisions, 1 other path: 1 succeeds.
    Not explored: 7 answers, stopped by --paths or interrupted.
    ");
    let often = r#"for n in [1, 2, 3] { try { confirm(`try ${n}?`); break; } catch (error) {} }"#;
    assert_snapshot!(show(&paths(often, 100), Theme::PLAIN), @"
    All paths of test 0 in sandbox

    ? confirm try 1?
      ├ if it is denied: ✓ succeeds on another path
      │   ? confirm try 2?
      │     ├ if it is denied: ✓ succeeds on another path
      │     │   ? confirm try 3?
      │     │   · 2 answers after that not explored
      │     └ if nobody answers: – fails, with nothing to undo: the run took longer than 24h
      └ if nobody answers: – fails, with nothing to undo: the run took longer than 24h

    As assumed: ✓ succeeded; no changes.
    Otherwise: 2 decisions, 4 other paths: 2 succeed, 2 fail with nothing to undo.
    Not explored: 2 answers, more than two levels deep.
    ");
}

#[test]
fn a_run_that_has_to_assume_nothing_says_so() {
    assert_snapshot!(show(&paths("sleep(\"5m\");", 100), Theme::PLAIN), @"
    All paths of test 0 in sandbox

    … sleep 5m (at least 5m)

    As assumed: ✓ succeeded; no changes; at least 5m.
    Otherwise: no check, gate, guard or question has an assumed answer.
    ");
}

#[test]
fn no_row_is_wider_than_the_terminal_and_no_word_is_lost() {
    let found = paths(QUESTIONS, 100);
    let words = |text: &str| {
        let letters = text.replace(['│', '├', '└'], " ");
        letters.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    let wide = words(&show(&found, Theme::PLAIN));
    for width in [40, 50, 60, 72, 80, 100, 120] {
        let text = show(&found, Theme { width: Some(width), ..Theme::PLAIN });
        let widest = text.lines().map(|row| row.width()).max();
        assert!(widest <= Some(width), "{width}:\n{text}");
        assert_eq!(words(&text), wide, "{width}");
    }
    assert_snapshot!(show(&found, Theme { width: Some(50), ..Theme::PLAIN }), @"
    All paths of test 0 in sandbox

    ▸ ask
      ? approve is the announcement out? (within 1h)
        └ if it is denied or nobody answers: ✓
            succeeds on another path
            ? manual write the announcement
              ├ if it is denied: – fails, with nothing
                  to undo
              └ if nobody answers: – fails, with
                  nothing to undo: the run took longer
                  than 24h
            ? approve is it out now? (by 2 of press)
              ├ if it is denied: – fails, with nothing
                  to undo
              └ if nobody answers: – fails, with
                  nothing to undo: the run took longer
                  than 24h
    … sleep 5m (at least 5m)
    ? confirm clean up?
      ├ if it is denied: ✓ succeeds, without sleep 1m
      └ if nobody answers: – fails, with nothing to
          undo: the run took longer than 24h
    … sleep 1m (at least 1m)

    As assumed: ✓ succeeded; no changes; at least 6m.
    Otherwise: 4 decisions, 7 other paths: 2 succeed,
        5 fail with nothing to undo.
    ");
}

#[test]
fn colours_end_where_they_begin_and_are_all_that_differs() {
    let found = paths(QUESTIONS, 100);
    let coloured = show(&found, Theme { colour: true, live: false, width: None });
    assert!(coloured.contains("\u{1b}["), "{coloured}");
    let styles = regex::Regex::new("\u{1b}\\[[0-9;]*m").expect("a pattern");
    assert_eq!(styles.replace_all(&coloured, ""), show(&found, Theme::PLAIN));
}
