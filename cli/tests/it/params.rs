//! Parameters, from the command line and from files.

use insta::assert_snapshot;

use crate::harness::Lab;

const RUNBOOK: &str = r#"const RUNBOOK = #{
    name: "test",
    params: #{
        to: #{ type: "string", "default": "green", choices: ["blue", "green"] },
        percent: #{ type: "int", "default": 25, min: 1, max: 100 },
        hold: #{ type: "duration", "default": "15m" },
        limit: #{ type: "percent", "default": "1%" },
        really: #{ type: "bool", "default": false },
        ticket: #{ type: "string" },
    },
};
note(`${params.to} ${params.percent} ${params.hold} ${params.limit} ${params.really} ${params.ticket.len()}`);
"#;

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("run.rhai", RUNBOOK);
    lab
}

#[test]
fn values_have_the_types_that_the_header_says() {
    let lab = lab();
    let args = ["run", "run.rhai", "--output", "json"];
    let note = |more: &[&str]| {
        let ended = lab.cutover(&[&args, more].concat()).succeeded();
        ended.events("note")[0]["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(note(&["-p", "ticket=x"]), "green 25 15m 1% false 1");
    lab.write("p.toml", "ticket = \"abc\"\npercent = 7\nreally = true\nhold = \"2s\"\n");
    assert_eq!(note(&["--params", "p.toml"]), "green 7 2s 1% true 3");
    assert_eq!(note(&["--params", "p.toml", "-p", "percent=8", "-p", "ticket="]), "green 8 2s 1% true 0");
    let huge = format!("ticket={}", "x".repeat(100_000));
    assert_eq!(note(&["-p", &huge]), "green 25 15m 1% false 100000");
}

#[test]
fn what_is_wrong_with_a_parameter_is_said_before_anything_runs() {
    let lab = lab();
    let run = |more: &[&str]| lab.cutover(&[&["run", "run.rhai"], more].concat());
    assert_snapshot!(run(&[]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percnt=3"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percent=101"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percent=many"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "hold=90"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "to=teal"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "limit=2"]), @"");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "really=maybe"]), @"");
    assert_snapshot!(run(&["-p", "ticket"]), @"");
    lab.write("bad.toml", "ticket = \"a\"\npercent = = 3\n");
    assert_snapshot!(run(&["--params", "bad.toml"]), @"");
    lab.write("table.toml", "ticket = { a = 1 }\n");
    assert_snapshot!(run(&["--params", "table.toml"]), @"");
    assert_snapshot!(run(&["--params", "none.toml"]), @"");
    assert!(lab.runs().is_empty());
}

#[test]
fn a_huge_parameter_is_refused_and_not_printed() {
    let lab = lab();
    // More than an argument may have: 128 KiB.
    lab.write("huge.toml", format!("ticket = \"{}\"\n", "x".repeat(5 << 20)));
    let ended = lab.cutover(&["run", "run.rhai", "--params", "huge.toml"]);
    assert!([1, 2].contains(&ended.code), "{}", ended.code);
    assert!(ended.stdout.len() + ended.stderr.len() < 20_000, "{}", ended.stdout.len());
    assert!(ended.stderr.contains("ticket") || ended.stderr.contains("error["), "{}", ended.stderr);
    let huge = format!("percent={}", "9".repeat(100_000));
    let ended = lab.cutover(&["run", "run.rhai", "-p", "ticket=x", "-p", &huge]).exits_with(2);
    assert!(ended.stderr.len() < 20_000, "{}", ended.stderr.len());
}
