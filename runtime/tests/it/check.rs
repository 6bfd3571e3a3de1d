//! What is refused before a script runs.

use contraflow_runtime::{Bundle, error::RunError};

use crate::lab::{HEADER, Lab};

fn line(error: &RunError) -> String {
    let place =
        error.frames.first().map(|f| format!("{}:{}:{}", f.source, f.line, f.column)).unwrap_or_default();
    format!("{} {place} {} [{}]", error.code, error.message, error.hints.first().map_or("", String::as_str))
}

#[test]
fn mistakes_are_found_before_the_first_effect() {
    let lab = Lab::new();
    for (script, expected) in [
        (
            "lab::sett(\"a\", 1);",
            "unknown-function lab.rhai:2:6 no function named `lab::sett` [did you mean `lab::set`?]",
        ),
        ("lab::set(\"a\");", "unknown-function lab.rhai:2:6 `lab::set` takes 2 arguments, not 1 []"),
        (
            "labb::set(\"a\", 1);",
            "unknown-function lab.rhai:2:1 no module named `labb` [did you mean `lab`?]",
        ),
        (
            "stepp(\"a\", || 1);",
            "unknown-function lab.rhai:2:1 no function named `stepp` [did you mean `step`?]",
        ),
        (
            "look(\"a\");",
            "unknown-function lab.rhai:2:1 no function named `look` [did you mean `lab::look`?]",
        ),
        (
            "let x = [1]; x.pussh(2);",
            "unknown-function lab.rhai:2:16 no function named `pussh` [did you mean `push`?]",
        ),
        (
            "step(\"a\", || { || nope(1) });",
            "unknown-function lab.rhai:2:19 no function named `nope` [did you mean `note`?]",
        ),
        (
            "let x = y + 1;",
            "unknown-variable lab.rhai:2:9 no variable named `y` here [functions (`fn`) see only their \
             arguments and constants, not outer variables]",
        ),
        (
            "fn f() { params.x }",
            "unknown-variable lab.rhai:2:10 no variable named `params` here [functions see only their \
             arguments: pass what they need of `params`]",
        ),
        (
            "let x = params.nope;",
            "parameter lab.rhai:2:16 the runbook \"lab\" has no parameter `nope` [it has no parameters]",
        ),
        (
            "fn len(x) { 1 }",
            "ambiguous-name lab.rhai:2:4 the function `len` would hide a built-in function with 1 argument \
             [rename it]",
        ),
        (
            "let jobs = []; for h in [1, 2] { jobs.push(|| lab::set(\"a\", h)); }",
            "loop-capture lab.rhai:2:61 this closure captures the loop variable `h`, which will have \
             changed when it runs [put `let h = h;` before the closure, inside the loop]",
        ),
        ("let x = eval(\"1\");", "syntax lab.rhai:2:9 reserved keyword 'eval' is disabled []"),
        ("let = 3;", "syntax lab.rhai:2:5 expecting name of a variable []"),
        (
            "let p = \"x\"; import p as x;",
            "import lab.rhai:2:14 the path of an import must be literal text [all files of a runbook must \
             be known before it runs]",
        ),
    ] {
        let errors: Vec<String> = lab.refused(script).iter().map(line).collect();
        assert!(errors.iter().any(|e| e == expected), "{script}\n  expected {expected}\n  got {errors:#?}");
    }
}

#[test]
fn what_only_looks_like_a_mistake_is_let_through() {
    let lab = Lab::new();
    for script in [
        "for h in [1, 2] { let h = h; step(`s${h}`, || lab::set(\"a\", h)); }",
        "for h in [1, 2] { if h > 1 { let h = h; step(`s${h}`, || lab::set(\"a\", h)); } }",
        "let jobs = [1, 2].map(|h| { || lab::set(\"a\", h) }); parallel(jobs);",
        "for h in [1] { step(`s${h}`, || 1); }",
        "fn f(x) { x + 1 } let y = f(1); let z = y.f();",
        "let f = |x| x + 1; let y = f.call(2);",
        "let m = #{ a: 1 }; if \"a\" in m { m.a += 1; }",
        "let s = \"abc\"; let t = s.sub_string(1); print(t.len());",
    ] {
        let checked = lab.runtime().check(&Lab::bundle(script));
        assert!(checked.is_ok(), "{script}: {:?}", checked.unwrap_err().0);
    }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn load(files: &[(&str, &str)]) -> Result<(), Vec<RunError>> {
    let folder = folder(files);
    let bundle = Bundle::load(&folder.path().join("main.rhai")).map_err(|e| vec![e])?;
    Lab::new().runtime().check(&bundle).map(drop).map_err(|e| e.0)
}

#[test]
fn imports_are_part_of_the_bundle_and_run() {
    let main = format!(
        "{HEADER}import \"lib/lights\" as lights;\nstep(\"s\", || lights::up(\"a\"));\nif lights::TOP != 9 {{ fail(\"no\") }}"
    );
    let folder = folder(&[
        ("main.rhai", &main),
        ("lib/lights.rhai", "export const TOP = 9; fn up(lamp) { lab::set(lamp, 9) }"),
    ]);
    let bundle = Bundle::load(&folder.path().join("main.rhai")).unwrap();
    assert_eq!(bundle.files.len(), 2);
    let lab = Lab::new();
    let report = lab.tokio.block_on(lab.runtime().run(&bundle, &std::collections::BTreeMap::new())).unwrap();
    assert_eq!(report.outcome, contraflow_runtime::event::RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(lab.level("a"), 9);
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_script() {
    let main = format!("\u{feff}{HEADER}import \"a\" as a;\na::x();");
    assert_eq!(load(&[("main.rhai", &main), ("a.rhai", "\u{feff}fn x() { 1 }")]), Ok(()));
    let bundle = contraflow_runtime::Bundle::single("main.rhai", format!("\u{feff}{HEADER}"));
    assert!(Lab::new().runtime().check(&bundle).is_ok());
}

#[test]
fn imports_cannot_leave_the_folder_or_go_in_circles() {
    for path in ["../x", "/etc/passwd", "a/../../x", "./x", "x.rhai", ""] {
        let main = format!("{HEADER}import \"{path}\" as x;");
        let errors = load(&[("main.rhai", &main)]).unwrap_err();
        assert_eq!(errors[0].code.as_str(), "import", "{path}: {errors:?}");
    }
    let outside = folder(&[("secret.rhai", "fn f() { 1 }")]);
    let main = format!("{HEADER}import \"link\" as x;");
    let inside = folder(&[("main.rhai", &main)]);
    std::os::unix::fs::symlink(outside.path().join("secret.rhai"), inside.path().join("link.rhai")).unwrap();
    let error = Bundle::load(&inside.path().join("main.rhai")).unwrap_err();
    assert_eq!(error.message, "\"link\" leads out of the runbook's folder");

    let main = format!("{HEADER}import \"a\" as a;");
    let errors =
        load(&[("main.rhai", &main), ("a.rhai", "import \"b\" as b;"), ("b.rhai", "import \"a\" as a;")])
            .unwrap_err();
    assert_eq!(
        errors[0].message,
        "scripts import each other in a cycle: main.rhai -> a.rhai -> b.rhai -> a.rhai"
    );
    let errors = load(&[("main.rhai", &format!("{HEADER}import \"main\" as m;"))]).unwrap_err();
    assert!(errors[0].message.contains("cycle"), "{errors:?}");
}

#[test]
fn no_name_may_mean_two_things_across_imports() {
    let main = format!("{HEADER}import \"a\" as a;\nimport \"b\" as b;\nfn inner(x) {{ x }}");
    let errors =
        load(&[("main.rhai", &main), ("a.rhai", "fn inner(x) { 1 }"), ("b.rhai", "import \"a\" as b;")])
            .unwrap_err();
    let lines: Vec<String> = errors.iter().map(line).collect();
    assert!(
        lines.iter().any(|l| l.contains("the function `inner` with 1 argument is also defined in a.rhai")),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|l| l.contains("`b` is \"b\" here and \"a\" in b.rhai")
            || l.contains("`b` is \"a\" here and \"b\"")),
        "{lines:#?}"
    );
}

#[test]
fn an_import_may_only_define_things() {
    let main = format!("{HEADER}import \"a\" as a;");
    let errors = load(&[("main.rhai", &main), ("a.rhai", "lab::set(\"a\", 1);")]).unwrap_err();
    assert_eq!(errors[0].message, "an imported script may define only functions and constants");
}

#[test]
fn files_that_are_no_scripts_are_refused() {
    let missing = Bundle::load(std::path::Path::new("/nowhere/x.rhai")).unwrap_err();
    assert!(missing.message.starts_with("cannot read /nowhere/x.rhai"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let is_folder = Bundle::load(folder.path()).unwrap_err();
    assert!(is_folder.message.contains("it is a folder"), "{is_folder}");
    let path = folder.path().join("x.rhai");
    std::fs::write(&path, [0x61, 0xff, 0xfe]).unwrap();
    assert!(Bundle::load(&path).unwrap_err().message.contains("not UTF-8"));
    std::fs::write(&path, [0xff, 0xfe, 0x61, 0]).unwrap();
    assert!(Bundle::load(&path).unwrap_err().message.contains("it is UTF-16 text: save it as UTF-8"));
    std::fs::write(&path, "a".repeat(300 * 1024)).unwrap();
    assert!(Bundle::load(&path).unwrap_err().message.contains("larger than 256 KiB"));
}

#[test]
fn misspelt_options_and_unusable_values_are_found_where_they_stand() {
    let lab = Lab::new();
    for (script, expected) in [
        (
            "step(\"a\", #{ timout: \"5m\" }, || 1);",
            "argument lab.rhai:2:14 unknown option `timout`, expected `timeout` [did you mean `timeout`?]",
        ),
        (
            "if false { step(\"a\", #{ timout: \"5m\" }, || 1); }",
            "argument lab.rhai:2:25 unknown option `timout`, expected `timeout` [did you mean `timeout`?]",
        ),
        (
            "on_rollback(|| step(\"a\", #{ timout: params }, || 1));",
            "argument lab.rhai:2:29 unknown option `timout`, expected `timeout` [did you mean `timeout`?]",
        ),
        (
            "fn f() { step(\"a\", #{\n    timeout: \"5x\" }, || 1) }",
            "argument lab.rhai:3:14 `timeout`: bad duration \"5x\": expected a number with ms, s, m, h or \
             d, such as \"90s\" or \"1h30m\" []",
        ),
        (
            "approve(\"go?\", #{ timeout: params, at_least: \"two\" });",
            "argument lab.rhai:2:46 `at_least`: invalid type: the text \"two\", expected a whole number, 0 or more []",
        ),
        (
            "approve(\"go?\", #{ by: [\"a\", 1] });",
            "argument lab.rhai:2:23 `by`: expected a name or a list of names []",
        ),
        (
            "parallel([|| 1], #{ on_failure: \"cancle\" });",
            "argument lab.rhai:2:33 `on_failure`: unknown value `cancle`, expected `cancel` or `finish` [did you mean `cancel`?]",
        ),
        (
            "sleep(\"5 minute\");",
            "argument lab.rhai:2:7 `span`: bad duration \"5 minute\": expected a number with ms, s, m, h or \
             d, such as \"90s\" or \"1h30m\" []",
        ),
        (
            "sleep(30);",
            "argument lab.rhai:2:7 `span`: 30 has no unit: expected a duration string such as \"90s\" []",
        ),
    ] {
        let errors: Vec<String> = lab.refused(script).iter().map(line).collect();
        assert!(errors.iter().any(|e| e == expected), "{script}\n  expected {expected}\n  got {errors:#?}");
    }
}

#[test]
fn every_mistake_in_a_map_of_options_is_told() {
    let errors = Lab::new().refused("approve(\"go?\", #{ timout: \"5m\", at_least: -1, by: \"me\" });");
    let errors: Vec<String> = errors.iter().map(line).collect();
    assert_eq!(errors.len(), 2, "{errors:#?}");
}

#[test]
fn options_that_only_a_run_can_know_are_let_through() {
    let lab = Lab::new();
    for script in [
        "let timeout = \"5x\"; step(\"a\", #{ timeout: timeout }, || 1);",
        "let options = #{ timout: \"5m\" }; step(\"a\", options, || 1);",
        "step(\"a\", #{ timeout: `${1 + 4}m` }, || 1);",
        "step(\"a\", #{ timeout: () }, || 1);",
        "approve(\"go?\", #{ by: [\"a\", \"b\" + 1] });",
    ] {
        let checked = lab.runtime().check(&Lab::bundle(script));
        assert!(checked.is_ok(), "{script}: {:?}", checked.unwrap_err().0);
    }
}

#[test]
fn a_closure_that_takes_other_arguments_than_it_is_called_with_is_refused() {
    let lab = Lab::new();
    for script in [
        "on_rollback(|error| note(`undo because ${error}`));",
        "let x = 1; on_rollback(|error| note(`undo ${x}`));",
        "step(\"a\", |x| x);",
        "step(\"a\", #{ timeout: \"1s\" }, |x, y| x);",
        "parallel([|| 1, |x| x]);",
        "parallel(#{ a: |x| x });",
        "invariant(\"a\", || true);",
    ] {
        let errors = lab.refused(script);
        assert_eq!(
            (errors[0].code.as_str(), errors[0].frames[0].line),
            ("argument", 2),
            "{script}: {errors:?}"
        );
        assert!(errors[0].message.contains("calls this closure with"), "{script}: {errors:?}");
    }
    // What no check can see is refused where it is registered, and not when it is needed.
    let report = lab
        .run("let undo = |error| note(error);\nlab::set(\"a\", 1);\non_rollback(undo);\nlab::set(\"a\", 2);");
    let error = report.error.expect("an error");
    assert_eq!((error.code.as_str(), error.frames[0].line), ("argument", 4), "{error:?}");
    assert_eq!(lab.level("a"), 0);
    for script in [
        "let x = 1; on_rollback(|| note(`undo ${x}`)); step(\"a\", || x); parallel([|| x, || 1]);",
        "let x = 1; let undo = || note(`undo ${x}`); on_rollback(undo); invariant(\"a\", |world| x == 1);",
    ] {
        let report = lab.run(script);
        assert!(report.error.is_none(), "{script}: {:?}", report.error);
    }
}
