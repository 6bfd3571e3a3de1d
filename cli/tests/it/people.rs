//! Questions, with and without somebody to answer them.

use insta::assert_snapshot;

use crate::harness::Lab;

const ASK: &str = r#"confirm("retire the old pool?"); traffic::shift("web", "green", 5);"#;

#[test]
fn without_a_terminal_a_question_fails_and_says_what_to_do() {
    let lab = Lab::with(ASK);
    assert_snapshot!(lab.contraflow(&["run", "run.rhai"]), @r#"
    exit 1
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ? retire the old pool?
    ✗ confirm retire the old pool?: nobody is there to answer "retire the old pool?"

    failed after [TIME], nothing to undo
    ----- stderr
    error[no-answer]: nobody is there to answer "retire the old pool?"
      at run.rhai:2:1
       2 | confirm("retire the old pool?"); traffic::shift("web", "green", 5);
         | ^^^^^^^
      help: run it in a terminal
      help: answer every question with --yes, or use --wait and answer with contraflow approve RUN
    "#);
    assert_eq!(lab.runs()[0]["state"], "failed");
}

#[test]
fn yes_answers_every_question() {
    let lab = Lab::with(&format!("{ASK} if !manual(\"silence the pager\").yes {{ fail(\"no\") }}"));
    let ended = lab.contraflow(&["run", "run.rhai", "--yes", "--output", "json"]).succeeded();
    let replies = ended.events("replied");
    assert_eq!(replies.len(), 2);
    assert!(replies.iter().all(|event| event["reply"]["yes"] == true));
    assert!(replies[0]["reply"]["by"].as_str().expect("who").starts_with("tester@"));
}

#[test]
fn yes_at_the_terminal_goes_on_and_is_kept_with_its_comment() {
    let lab = Lab::with(ASK);
    let ended = lab.at_terminal(&["run", "run.rhai"], "y looked at the dashboard\n").succeeded();
    assert!(
        ended.stdout.contains("? retire the old pool?") && ended.stdout.contains("[y/N]"),
        "{}",
        ended.stdout
    );
    let shown = lab.contraflow(&["show", "last", "--events"]).succeeded();
    let reply = &shown.events("replied")[0]["reply"];
    assert_eq!((&reply["yes"], &reply["comment"]), (&true.into(), &"looked at the dashboard".into()));
}

#[test]
fn no_at_the_terminal_ends_the_run() {
    for typed in ["n\n", "\n", "NO\n"] {
        let lab = Lab::with(ASK);
        let ended = lab.at_terminal(&["run", "run.rhai"], typed).exits_with(1);
        assert!(ended.stdout.contains("error[denied]"), "{typed:?}: {}", ended.stdout);
    }
}

#[test]
fn an_answer_that_is_none_is_asked_for_again() {
    let lab = Lab::with(ASK);
    let ended = lab.at_terminal(&["run", "run.rhai"], "maybe\nyes please? no\nYES\n").succeeded();
    assert_eq!(ended.stdout.matches("[y/N]").count(), 2, "{}", ended.stdout);
    assert!(ended.stdout.contains("answer y or n"), "{}", ended.stdout);
}

#[test]
fn the_end_of_the_input_is_no_answer() {
    let lab = Lab::with(ASK);
    // Ctrl-D at the beginning of a line.
    let ended = lab.at_terminal(&["run", "run.rhai"], "\u{4}").exits_with(1);
    assert!(ended.stdout.contains("error[no-answer]"), "{}", ended.stdout);
}
