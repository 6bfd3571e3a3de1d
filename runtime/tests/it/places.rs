//! Errors point to the text as it was written.

use crate::lab::Lab;

fn first(script: &str) -> (String, usize, usize, String) {
    let lab = Lab::new();
    let error = lab.run(script).error.unwrap_or_else(|| panic!("went well: {script}"));
    let frame = error.frames.first().unwrap_or_else(|| panic!("no place: {error:?}"));
    (frame.what.clone(), frame.line, frame.column, error.message.clone())
}

#[test]
fn places_in_and_behind_conditions_are_those_of_the_original() {
    // One line of header stands before each script.
    for (script, what, line, column) in [
        ("if lab::expect(\"a\", 1) == 1 { }", "lab::expect", 2, 4),
        ("if true { lab::expect(\"a\", 1); }", "lab::expect", 2, 11),
        ("if false { } else if lab::expect(\"a\", 1) == 1 { }", "lab::expect", 2, 22),
        ("while lab::look(\"a\") == 0 { lab::expect(\"a\", 1) }", "lab::expect", 2, 29),
        ("switch lab::look(\"a\") { 0 if lab::expect(\"a\", 1) == 0 => 1, _ => 2 }", "lab::expect", 2, 30),
        ("switch lab::look(\"a\") { 0 => lab::expect(\"a\", 1), _ => 2 }", "lab::expect", 2, 30),
        ("do { } while lab::expect(\"a\", 1) == 1;", "lab::expect", 2, 14),
        ("\tif\ttrue\t{\tlab::expect(\"a\", 1);\t}", "lab::expect", 2, 12),
        ("if\r\n  true\r\n{ lab::expect(\"a\", 1); }\r\n", "lab::expect", 4, 3),
        ("if true &&\n   lab::expect(\"a\", 1) == 1\n{ }", "lab::expect", 3, 4),
        ("if true &&\n   false { } else { lab::expect(\"a\", 1); }", "lab::expect", 3, 21),
        ("let a = \"ü😀\"; if a != \"é\" { lab::expect(\"a\", 1); }", "lab::expect", 2, 29),
        ("let x = `${if true { lab::expect(\"a\", 1) } else { 2 }}`;", "lab::expect", 2, 22),
        ("let x = `line\n${if true { 1 } else { 2 }} ${lab::expect(\"a\", 1)}`;", "lab::expect", 3, 31),
        ("let f = |x| { if x { lab::expect(\"a\", 1) } }; if true { f.call(true); }", "lab::expect", 2, 22),
        ("if true { step(\"s\", || { if true { lab::expect(\"a\", 1) } }) }", "lab::expect", 2, 36),
        ("// if a {\n/* while b { */ if true { lab::expect(\"a\", 1); }", "lab::expect", 3, 27),
        ("let known = 1; if known == 1 { lab::expect(\"a\", 1); }", "lab::expect", 2, 32),
    ] {
        let (found, at_line, at_column, message) = first(script);
        assert_eq!(
            (found.as_str(), at_line, at_column, message.as_str()),
            (what, line, column, "expected 1, got 0"),
            "{script}"
        );
    }
}

#[test]
fn places_of_errors_of_the_language_itself_are_right_too() {
    for (script, line, column) in [
        ("if 1 + [] == 2 { }", 2, 6),
        ("if true { 1 + [] }", 2, 13),
        ("if true { if false { } else { let y = [1]; y[5] } }", 2, 46),
        ("fn f(x) { if x > 1 { x + [] } } if true { f(2) }", 2, 24),
    ] {
        let (_, at_line, at_column, message) = first(script);
        assert_eq!((at_line, at_column), (line, column), "{script}: {message}");
    }
}

#[test]
fn a_caught_error_leaves_no_frames_behind_for_the_next_one() {
    let lab = Lab::new();
    let report = lab.run("try { step(\"x\", || 1 + []) } catch { }\nlet n = 1 + [];");
    let error = report.error.unwrap();
    assert_eq!(error.frames.len(), 1, "{:?}", error.frames);
    let report = lab.run(
        "try { step(\"x\", || 1 + []) } catch { }\nstep(\"y\", || { step(\"z\", || {\n let n = 2 + []; }) });",
    );
    let frames: Vec<String> =
        report.error.unwrap().frames.iter().map(|f| format!("{}:{}", f.what, f.line)).collect();
    assert_eq!(frames[1..], ["step \"z\":3", "step \"y\":3"], "{frames:?}");
}

#[test]
fn a_line_or_a_file_too_long_for_places_is_refused() {
    let lab = Lab::new();
    let long = format!("let s = \"{}\"; if s == \"\" {{ }}", "x".repeat(66_000));
    let errors = lab.refused(&long);
    assert!(errors[0].message.contains("too long"), "{errors:?}");
    let errors = lab.refused(&format!("{}if true {{ }}", "\n".repeat(66_000)));
    assert!(errors[0].message.contains("too many lines"), "{errors:?}");
}
