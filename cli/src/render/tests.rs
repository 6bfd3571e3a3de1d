//! What errors look like.

use insta::assert_snapshot;

use super::*;

const SCRIPT: &str = "\
let to = params.to;
step(\"preflight\", || {
    probe::http(\"web/\" + to, #{ path: \"/health\" });
});
";

fn sources() -> Sources {
    [
        ("blue-green.rhai", SCRIPT),
        ("contraflow.toml", "[env.a.db.main]\nprovider = \"sqlite\"\nmax-conections = 3\n"),
        ("tabs.rhai", "if true {\n\t\"切替\" + nosuch\n}"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into()
}

fn probe() -> RunError {
    RunError::new("probe-failed", "web/green answered 503 Service Unavailable, wanted 200")
        .at("probe::http", "blue-green.rhai", 3, 5)
        .at("step \"preflight\"", "blue-green.rhai", 2, 1)
        .hint("look at the log of green")
        .hint("or wait longer: `attempts: 20`")
}

fn config() -> RunError {
    RunError::new("config", "unknown setting `max-conections`")
        .at("max-conections", "contraflow.toml", 3, 1)
        .hint("did you mean `max-connections`?")
}

fn framed(error: &RunError) -> String {
    super::error(error, &sources(), Layout::Framed { theme: Theme::PLAIN, width: 80 })
}

/// A script of three lines, of which the second has 100,000 characters, the name `here` in their middle.
fn long() -> Sources {
    let half = "ü + ".repeat(12_500);
    [("long.rhai".to_owned(), format!("let a = 1;\nlet b = {half}here + {half}1;\nlet c = 3;\n"))].into()
}

#[test]
fn of_a_long_line_only_the_part_around_the_place_is_shown() {
    let at =
        |line, column| RunError::new("unknown-variable", "there is none").at("", "long.rhai", line, column);
    assert_snapshot!(super::error(&at(2, 50_009), &long(), Layout::Plain), @"
    error[unknown-variable]: there is none
      at long.rhai:2:50009
       2 | … ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + here + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + ü + …
         |                                                                                   ^^^^
    ");
    for layout in [Layout::Plain, Layout::Framed { theme: Theme::PLAIN, width: 80 }] {
        for (line, column) in [(1, 5), (2, 1), (2, 100_014), (2, 100_015), (2, 200_000), (3, 5)] {
            let text = super::error(&at(line, column), &long(), layout);
            assert!(text.len() < 1200, "{line}:{column}: {}", text.len());
        }
    }
}

fn plain(error: &RunError) -> String {
    super::error(error, &sources(), Layout::Plain)
}

#[test]
fn a_terminal_shows_the_line_in_a_frame_the_way_to_it_and_what_to_do() {
    assert_snapshot!(framed(&probe()), @r#"
    error[probe-failed]

      × web/green answered 503 Service Unavailable, wanted 200
       ╭─[blue-green.rhai:3:5]
     2 │ step("preflight", || {
     3 │     probe::http("web/" + to, #{ path: "/health" });
       ·     ───────────
     4 │ });
       ╰────
      in step "preflight" at blue-green.rhai:2:1
      help: look at the log of green
      help: or wait longer: `attempts: 20`
    "#);
}

#[test]
fn plain_text_says_the_same() {
    assert_snapshot!(plain(&probe()), @r#"
    error[probe-failed]: web/green answered 503 Service Unavailable, wanted 200
      at blue-green.rhai:3:5
       3 |     probe::http("web/" + to, #{ path: "/health" });
         |     ^^^^^^^^^^^
      in step "preflight" at blue-green.rhai:2:1
      help: look at the log of green
      help: or wait longer: `attempts: 20`
    "#);
}

#[test]
fn an_error_of_the_configuration_points_at_the_key() {
    assert_snapshot!(framed(&config()), @r#"
    error[config]

      × unknown setting `max-conections`
       ╭─[contraflow.toml:3:1]
     2 │ provider = "sqlite"
     3 │ max-conections = 3
       · ──────────────
       ╰────
      help: did you mean `max-connections`?
    "#);
    assert_snapshot!(plain(&config()), @r#"
    error[config]: unknown setting `max-conections`
      at contraflow.toml:3:1
       3 | max-conections = 3
         | ^^^^^^^^^^^^^^
      help: did you mean `max-connections`?
    "#);
}

#[test]
fn without_the_text_the_place_is_named() {
    let error = RunError::new("import", "cannot be read").at("import", "lib/nosuch.rhai", 7, 3).at(
        "step \"a\"",
        "",
        0,
        0,
    );
    assert_snapshot!(plain(&error), @r#"
    error[import]: cannot be read
      at lib/nosuch.rhai:7:3
      in step "a"
    "#);
    assert_snapshot!(framed(&error), @r#"
    error[import]

      × cannot be read
      at lib/nosuch.rhai:7:3
      in step "a"
    "#);
}

#[test]
fn without_a_place_there_is_only_the_message() {
    let error = RunError::new("journal", "disk is full\nat /var/lib").hint("free some space");
    assert_snapshot!(plain(&error), @r#"
    error[journal]: disk is full
        at /var/lib
      help: free some space
    "#);
}

#[test]
fn tabs_and_wide_characters_keep_the_mark_under_the_name() {
    let error = RunError::new("unknown-variable", "no variable `nosuch`").at("", "tabs.rhai", 2, 9);
    assert_snapshot!(plain(&error), @r#"
    error[unknown-variable]: no variable `nosuch`
      at tabs.rhai:2:9
       2 |     "切替" + nosuch
         |              ^^^^^^
    "#);
    assert_snapshot!(framed(&error), @r#"
    error[unknown-variable]

      × no variable `nosuch`
       ╭─[tabs.rhai:2:13]
     1 │ if true {
     2 │     "切替" + nosuch
       ·              ──────
     3 │ }
       ╰────
    "#);
}

#[test]
fn several_errors_are_set_apart() {
    let text = errors([&config(), &config()], &sources(), Layout::Plain);
    assert_eq!(text.matches("error[config]").count(), 2);
    assert_eq!(text.matches("\n\n").count(), 1);
    assert_eq!(errors([&config(), &config()], &sources(), Layout::Json).lines().count(), 2);
}

#[test]
fn programs_get_one_object_with_every_field() {
    let text = error(&probe(), &sources(), Layout::Json);
    let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let back: RunError = serde_json::from_value(read["error"].clone()).expect("error");
    assert_eq!(back, probe());
    assert_eq!(text.matches('\n').count(), 1);
}

#[test]
fn the_mark_covers_the_name_that_stands_there() {
    for (text, toml, want) in [
        ("probe::http(x)", false, "probe::http"),
        ("a::b::c", false, "a::b::c"),
        ("a::", false, "a"),
        ("größe + 1", false, "größe"),
        ("\"a \\\" b\" + x", false, "\"a \\\" b\""),
        ("\"open", false, "\"open"),
        ("+ 1", false, "+"),
        ("切(", false, "切"),
        ("max-size = 1", true, "max-size"),
        ("max-size = 1", false, "max"),
        ("", false, ""),
    ] {
        assert_eq!(&text[..word(text, toml)], want, "{text}");
    }
}

#[test]
fn a_place_outside_the_text_does_no_harm() {
    for (line, column) in [(1, 200), (4, 4), (5, 1), (99, 1), (99, 99), (2, 0), (usize::MAX, usize::MAX)] {
        let error = RunError::new("script", "x").at("f", "blue-green.rhai", line, column);
        assert!(plain(&error).starts_with("error[script]: x\n"), "{line}:{column}");
        assert!(framed(&error).contains("error[script]"), "{line}:{column}");
    }
    let whole = RunError::new("script", "x").at("f", "blue-green.rhai", 3, 0);
    assert!(plain(&whole).contains("| ^".replace('^', "    ^^^").as_str()), "{}", plain(&whole));
}

#[test]
fn text_from_outside_cannot_reach_the_terminal() {
    let texts = [("x.rhai".to_owned(), "let a = \"\u{1b}[2J\u{202e}\";".to_owned())].into();
    let error = RunError::new("script", "bad \u{1b}[31mred").at("f\u{7}", "x.rhai", 1, 5).hint("\u{9b}2J");
    for layout in [Layout::Plain, Layout::Framed { theme: Theme::PLAIN, width: 80 }] {
        let text = super::error(&error, &texts, layout);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }
}

#[test]
fn frames_are_for_terminals_that_can_draw_them() {
    let terminal = Theme { live: true, ..Theme::PLAIN };
    let layout = |output, theme, name: &'static str, locale: &'static str| {
        Layout::from(output, theme, 80, |asked| (asked == name).then(|| locale.to_owned()))
    };
    let framed = Layout::Framed { theme: terminal, width: 80 };
    assert_eq!(layout(Output::Human, terminal, "LANG", "en_US.UTF-8"), framed);
    assert_eq!(layout(Output::Human, terminal, "LC_ALL", "C.utf8"), framed);
    assert_eq!(layout(Output::Human, terminal, "LANG", "C"), Layout::Plain);
    assert_eq!(layout(Output::Human, Theme::PLAIN, "LANG", "en_US.UTF-8"), Layout::Plain);
    assert_eq!(layout(Output::Json, terminal, "LANG", "en_US.UTF-8"), Layout::Json);
}

#[test]
fn a_warning_looks_like_an_error_that_says_why() {
    let warning = Warning {
        code: "unguarded-write".into(),
        message: "`deploy::scale` acts after the point of no return".to_owned(),
        why: "nothing stops the run".to_owned(),
        frames: probe().frames,
        help: vec!["put it into a guard".to_owned()],
    };
    assert_snapshot!(warnings([&warning], &sources(), Layout::Framed { theme: Theme::PLAIN, width: 80 }), @r#"
    warning[unguarded-write]

      ⚠ `deploy::scale` acts after the point of no return
       ╭─[blue-green.rhai:3:5]
     2 │ step("preflight", || {
     3 │     probe::http("web/" + to, #{ path: "/health" });
       ·     ───────────
     4 │ });
       ╰────
      in step "preflight" at blue-green.rhai:2:1
      why: nothing stops the run
      help: put it into a guard
    "#);
    assert_snapshot!(warnings([&warning, &warning], &sources(), Layout::Plain), @r#"
    warning[unguarded-write]: `deploy::scale` acts after the point of no return
      at blue-green.rhai:3:5
       3 |     probe::http("web/" + to, #{ path: "/health" });
         |     ^^^^^^^^^^^
      in step "preflight" at blue-green.rhai:2:1
      why: nothing stops the run
      help: put it into a guard

    warning[unguarded-write]: `deploy::scale` acts after the point of no return
      at blue-green.rhai:3:5
       3 |     probe::http("web/" + to, #{ path: "/health" });
         |     ^^^^^^^^^^^
      in step "preflight" at blue-green.rhai:2:1
      why: nothing stops the run
      help: put it into a guard
    "#);
}
