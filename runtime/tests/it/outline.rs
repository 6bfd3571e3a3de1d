//! What an outline says of a script, and what a program adds to the warnings.

use std::sync::{Arc, Mutex};

use contraflow_runtime::{
    Bundle, Runtime,
    lint::{Lint, Warning},
    script::outline::{Call, Node, Outline},
};
use insta::assert_snapshot;
use rhai::exported_module;

use crate::lab::{HEADER, script};

/// Writes down each outline that it sees, and warns of each bell.
#[derive(Default)]
struct Scribe(Mutex<String>);

fn write(nodes: &[Node], depth: usize, into: &mut String) {
    let indent = "  ".repeat(depth);
    for node in nodes {
        match node {
            Node::Call(Call { name, class, args, place, only_told, .. }) => {
                let class = class.map_or_else(String::new, |class| format!(" {class:?}"));
                let told = if *only_told { " (only told)" } else { "" };
                into.push_str(&format!(
                    "{indent}{}:{}{class} {name} {args:?}{told}\n",
                    place.line, place.column
                ));
            }
            Node::Part(part) => {
                into.push_str(&format!("{indent}{:?}\n", part.kind));
                for (i, body) in part.bodies.iter().enumerate() {
                    if i > 0 {
                        into.push_str(&format!("{indent}and\n"));
                    }
                    write(body, depth + 1, into);
                }
            }
            other => into.push_str(&format!("{indent}{other:?}\n")),
        }
    }
}

impl Lint for Scribe {
    fn name(&self) -> &'static str {
        "too-loud"
    }

    fn about(&self) -> &'static str {
        "a bell is rung"
    }

    fn look(&self, outline: &Outline) -> Vec<Warning> {
        fn bells(nodes: &[Node], into: &mut Vec<Warning>) {
            for node in nodes {
                match node {
                    Node::Call(call) if call.name == "lab::ring" => {
                        into.push(
                            Warning::of_call("too-loud", call, "people sleep")
                                .why("they wake up")
                                .help("knock"),
                        );
                    }
                    Node::Part(part) => part.bodies.iter().for_each(|body| bells(body, into)),
                    _ => {}
                }
            }
        }
        write(&outline.body, 0, &mut self.0.lock().unwrap());
        let mut found = Vec::new();
        bells(&outline.body, &mut found);
        found
    }
}

/// The outline of a script, and what is told of it.
fn outlined(text: &str) -> (String, Vec<Warning>) {
    let scribe = Arc::new(Scribe::default());
    let runtime = Runtime::builder()
        .modules([("lab", Arc::new(exported_module!(script)))])
        .lints([Arc::clone(&scribe) as Arc<dyn Lint>])
        .build();
    let bundle = Bundle::single("lab.rhai", format!("{HEADER}{text}"));
    if let Err(errors) = runtime.check(&bundle) {
        panic!("{errors}\n{text}");
    }
    let warnings = runtime.warnings(&bundle);
    let outline = scribe.0.lock().unwrap().clone();
    (outline, warnings)
}

#[test]
fn functions_and_closures_stand_where_they_are_called_with_what_is_known() {
    let script = r#"
const LAMP = "a";
let bell = "b";
fn light(lamp, level) { lab::set(lamp, level); }
step("one", || light(LAMP, 1));
for level in [1, 2] {
    let level = level;
    step(`two ${level}`, #{ timeout: "1m" }, || light(bell + "c", level));
}
let body = || lab::look("a");
body.call();
note(`it is ${lab::look("b")}`);
parallel([|| lab::ring("c"), || sleep("1s")]);
on_rollback(|| lab::set("a", [1].len()));
"#;
    assert_snapshot!(outlined(script).0, @r#"
    Step { timed: false }
      Function
        5:25 Change lab::set [Text("a"), Int(1)]
    Loop(Loop { ends: Counted, runs: true, tells: false })
      Step { timed: true }
        Function
          5:25 Change lab::set [Text("bc"), OneOf([Int(1), Int(2)])]
    Function
      11:15 Read lab::look [Text("a")]
    13:15 Read lab::look [Text("b")] (only told)
    13:1 note [Unknown]
    Parallel
      14:14 Action lab::ring [Text("c")]
    and
      14:33 sleep [Text("1s")]
    OnRollback
      15:16 Change lab::set [Text("a"), Unknown]
    "#);
}

#[test]
fn ways_through_a_script_and_out_of_it_are_told_apart() {
    assert_snapshot!(outlined(r#"
let n = 0;
let well = false;
while n < 3 {
    n += 1;
    try { lab::expect("a", 1); well = true; break; } catch (e) { if n == 2 { throw e; } }
}
loop { if well { break; } else { continue; } }
do { n -= 1; } until n == 0;
switch n { 1 => lab::look("a"), 2 if well => lab::look("b") }
if well && lab::look("c") == 1 { fail("no"); }
[1, 2].for_each(|lamp| lab::set("a", lamp));
"#).0, @r#"
    Loop(Loop { ends: Counted, runs: false, tells: true })
      Try
        7:11 Check lab::expect [Text("a"), Int(1)]
        Leave(Break { value: false })
      and
        Choice
          Leave(Throw)
        and
    Loop(Loop { ends: Never, runs: true, tells: false })
      Choice
        Leave(Break { value: false })
      and
        Leave(Continue)
    Loop(Loop { ends: Counted, runs: true, tells: true })
    Choice
      11:17 Read lab::look [Text("a")]
    and
      11:46 Read lab::look [Text("b")]
    and
    Choice
      12:12 Read lab::look [Text("c")]
    and
    Choice
      Leave(Throw)
    and
    Closure
      13:24 Change lab::set [Text("a"), Unknown]
    "#);
}

#[test]
fn what_cannot_be_followed_is_there_as_such() {
    assert_snapshot!(outlined(r#"
let jobs = [];
jobs.push(|| lab::set("a", 1));
parallel(jobs);
fn again(n) { if n > 0 { again(n - 1); } }
let pool = "a";
pool = "b";
lab::set(pool, 1);
let f = if jobs.is_empty() { || lab::set("a", 1) } else { || lab::set("b", 1) };
step("either", f);
"#).0, @r#"
    Closure
      4:14 Change lab::set [Text("a"), Int(1)]
    Unknown
    9:1 Change lab::set [Unknown, Int(1)]
    Choice
    and
    Step { timed: false }
      Unknown
    "#);
}

#[test]
fn a_function_that_calls_itself_is_followed_for_a_while() {
    let (outline, _) = outlined("fn again(n) { lab::look(\"a\"); if n > 0 { again(n - 1); } }\nagain(3);");
    assert!(outline.contains("Unknown"), "{outline}");
    assert!(outline.matches("lab::look").count() < 100, "{outline}");
}

#[test]
fn a_program_adds_lints_of_its_own_and_scripts_silence_them() {
    let bell =
        |comment: &str| outlined(&format!("step(\"wake\", || {{\n{comment}\n  lab::ring(\"x\");\n}});")).1;
    let [warning] = &bell("")[..] else { panic!("one bell") };
    assert_eq!(
        (warning.code.as_str(), &*warning.message, &*warning.why),
        ("too-loud", "people sleep", "they wake up")
    );
    assert_eq!((warning.frames[0].line, warning.frames[0].column), (4, 3));
    assert_eq!(bell("// contraflow: allow(too-loud) because it burns"), []);
}

#[test]
fn a_script_that_does_not_parse_has_no_warnings() {
    let runtime = Runtime::builder().build();
    assert_eq!(runtime.warnings(&Bundle::single("lab.rhai", "let = 3;")), []);
}
