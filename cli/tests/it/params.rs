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
        let ended = lab.contraflow(&[&args, more].concat()).succeeded();
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
    let run = |more: &[&str]| lab.contraflow(&[&["run", "run.rhai"], more].concat());
    assert_snapshot!(run(&[]), @"
    exit 2
    ----- stderr
    error[parameter]: the parameter `ticket` is required
      help: give it with --param ticket=…: text
    ");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percnt=3"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the runbook "test" has no parameter `percnt`
      help: did you mean `percent`?
    "#);
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percent=101"]), @"
    exit 2
    ----- stderr
    error[parameter]: the parameter `percent` is 101: expected a whole number, 1 to 100
    ");
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "percent=many"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `percent` is "many": expected a whole number, 1 to 100
    "#);
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "hold=90"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `hold` is "90": expected a duration such as "90s"
    "#);
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "to=teal"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `to` is "teal": expected one of "blue", "green"
    "#);
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "limit=2"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `limit` is "2": expected a percentage such as "0.1%"
    "#);
    assert_snapshot!(run(&["-p", "ticket=x", "-p", "really=maybe"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `really` is "maybe": expected true or false
    "#);
    assert_snapshot!(run(&["-p", "ticket"]), @"
    exit 2
    ----- stderr
    error: invalid value 'ticket' for '--param <NAME=VALUE>': expected NAME=VALUE, such as hold=10s; the value may be empty

    For more information, try '--help'.
    ");
    lab.write("bad.toml", "ticket = \"a\"\npercent = = 3\n");
    assert_snapshot!(run(&["--params", "bad.toml"]), @"
    exit 2
    ----- stderr
    error[parameter]: bad.toml is not TOML: extra `=`, expected nothing
      at bad.toml:2:11
       2 | percent = = 3
         |           ^
    ");
    lab.write("table.toml", "ticket = { a = 1 }\n");
    assert_snapshot!(run(&["--params", "table.toml"]), @r#"
    exit 2
    ----- stderr
    error[parameter]: the parameter `ticket` is {"a":1}: expected text
    "#);
    assert_snapshot!(run(&["--params", "none.toml"]), @"
    exit 2
    ----- stderr
    error[parameter]: cannot read none.toml: No such file or directory (os error 2)
    ");
    assert!(lab.runs().is_empty());
}

#[test]
fn a_huge_parameter_is_not_printed() {
    let lab = lab();
    // More than an argument may have: 128 KiB.
    lab.write("huge.toml", format!("ticket = \"{}\"\n", "x".repeat(5 << 20)));
    let ended = lab.contraflow(&["run", "run.rhai", "--params", "huge.toml"]).succeeded();
    assert!(
        ended.stdout.contains("x… (5242880 characters)") && ended.stdout.len() < 2000,
        "{}",
        ended.stdout.len()
    );
    assert!(ended.peak < 300 << 20, "{} MiB", ended.peak >> 20);
    let huge = format!("percent={}", "9".repeat(100_000));
    let ended = lab.contraflow(&["run", "run.rhai", "-p", "ticket=x", "-p", &huge]).exits_with(2);
    assert!(
        ended.stderr.contains("`percent` is \"999") && ended.stderr.len() < 2000,
        "{}",
        ended.stderr.len()
    );
}
