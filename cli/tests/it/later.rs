//! Runs that are taken up again, answered, stopped and given up from another shell.

use std::time::Duration;

use insta::assert_snapshot;

use crate::harness::{Lab, Running};

const STORY: &str = r#"
    step("first", || { traffic::shift("web", "green", 5); db::migrate("main"); });
    let seen = traffic::weights("web").green;
    on_rollback(|| note(`green had ${seen}`));
    guard(#{ metric: "web.error_rate", above: "50%", every: "200ms" }, || {
        step("soak", || sleep("3s"));
        step("more", || traffic::shift("web", "green", 50));
    });
    approve("retire the old pool?", #{ by: "ops", timeout: "30m" });
    traffic::shift("web", "green", 100);
"#;

fn waits_for_an_answer(lab: &Lab) {
    waits_for_answers(lab, 1);
}

fn waits_for_answers(lab: &Lab, at_least: usize) {
    lab.until(&format!("{at_least} open questions"), |run| {
        run["waits_for"].as_array().is_some_and(|waits| waits.len() >= at_least)
    });
}

#[test]
fn a_run_that_was_killed_is_shown_as_died_resumed_approved_and_rolled_back() {
    let lab = Lab::with(STORY);
    lab.asleep().dies();
    assert_eq!((&lab.runs()[0]["state"], &lab.runs()[0]["alive"]), (&"running".into(), &false.into()));
    let shown = lab.contraflow(&["runs"]).succeeded().stdout;
    assert!(shown.contains("died"), "{shown}");
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(
        shown.contains("its process died") && shown.contains("resume: contraflow resume test-"),
        "{shown}"
    );

    let resumed: Running = lab.start(&mut lab.command(&["resume", "last", "--output", "json"]));
    waits_for_an_answer(&lab);
    let shown = lab.contraflow(&["runs"]).succeeded().stdout;
    assert!(shown.contains("retire the old pool? (by ops, 30m left)") || shown.contains("29m"), "{shown}");
    lab.contraflow(&["approve", "last", "nowhere"]).exits_with(1).complains("no-answer");
    let said = lab.contraflow(&["approve", "last", "--as", "ana", "--comment", "fine"]).succeeded().stdout;
    assert_eq!(said, "yes to \"retire the old pool?\", by ana\n");
    let ended = resumed.wait().succeeded();
    assert_eq!(
        ended.changes(),
        [
            "traffic.shift blue 100, green 0 -> blue 95, green 5",
            "db.migrate no migrations -> 0001, 0002, 0003",
            "traffic.shift blue 95, green 5 -> blue 50, green 50",
            "traffic.shift blue 50, green 50 -> blue 0, green 100",
        ]
    );
    assert!(ended.took < Duration::from_secs(20), "it waited for what was left");
    lab.contraflow(&["verify", "last"]).succeeded();
    lab.contraflow(&["resume", "last"]).exits_with(1).complains("not-resumable");

    let back = lab.contraflow(&["rollback", "last"]).succeeded();
    for line in [
        "green had 5",
        "db.migrate main: 0001, 0002, 0003 -> no migrations",
        "blue 95, green 5 -> blue 100, green 0",
    ] {
        assert!(back.stdout.contains(line), "{line}: {back}");
    }
    assert_eq!(lab.runs()[0]["state"], "rolled_back");
    lab.contraflow(&["rollback", "last"]).exits_with(1).complains("not-resumable");
}

#[test]
fn what_is_resumed_says_where_it_comes_from() {
    let lab =
        Lab::with(r#"step("first", || traffic::shift("web", "green", 5)); sleep("10m"); note("never");"#);
    let running = lab.asleep();
    lab.contraflow(&["pause", "last"]).succeeded();
    running.wait().exits_with(5);
    assert_snapshot!(lab.contraflow(&["rollback", "last"]), @"
    exit 0
    ----- stdout
    ▶ test 0 in sandbox, run test-[ID]
    ▶ taken over for rollback by tester@[HOST], runner 2
    ▸ first
      ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5 (from the journal)
    ✓ first

    ↩ rolling back, 1 to undo: tester@[HOST] requested a rollback
      ~ traffic.shift web: blue 95, green 5 -> blue 100, green 0

    rolled back after [TIME], 1 undone
    ");
    assert_snapshot!(lab.contraflow(&["show", "last"]), @"
    exit 0
    ----- stdout
    test-[ID]  test 0  sandbox  by tester@[HOST]  [WHEN]
    ▶ test 0 in sandbox, run test-[ID]
    ▸ first
      ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
    ✓ first
    … sleep 10m

    paused after [TIME]: run test-[ID] can be resumed: tester@[HOST] paused the run
    ▶ taken over for rollback by tester@[HOST], runner 2

    ↩ rolling back, 1 to undo: tester@[HOST] requested a rollback
      ~ traffic.shift web: blue 95, green 5 -> blue 100, green 0

    rolled back after [TIME], 1 undone
    ");
}

#[test]
fn an_approval_that_is_denied_elsewhere_rolls_back() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5); approve("go on?");"#);
    let running = lab.begin();
    waits_for_an_answer(&lab);
    lab.contraflow(&["deny", "last", "--as", "bo", "--comment", "errors in the logs"]).succeeded();
    let ended = running.wait().exits_with(3).complains("denied");
    assert!(ended.stderr.contains("bo denied \\\"go on?\\\": errors in the logs"), "{ended}");
    lab.contraflow(&["approve", "last"]).exits_with(1).complains("no-answer");
}

#[test]
fn one_of_several_questions_is_named_by_any_part_of_its_id_that_no_other_has() {
    let lab = Lab::with(
        r#"parallel([|| step("east", || approve("east?")), || step("both", || approve("third?")), || step("both", || approve("fourth?"))]);"#,
    );
    let running = lab.begin();
    waits_for_answers(&lab, 3);
    lab.contraflow(&["approve", "last", "east"]).succeeded();
    let refused = lab.contraflow(&["approve", "last", "both"]).exits_with(2);
    let refused =
        refused.says("2 open questions in \"both\"").says("1:par[1]/both/1:approve, 1:par[2]/both/1:approve");
    assert!(!refused.stderr.contains("east"), "{refused}");
    lab.contraflow(&["approve", "last", "1:par[1]"]).succeeded();
    lab.contraflow(&["approve", "last", "1:par[2]/both/1:approve"]).succeeded();
    running.wait().succeeded();
}

#[test]
fn a_step_by_hand_is_answered_with_evidence() {
    let lab = Lab::with(
        r#"let done = manual("silence the pager"); note(`${done.evidence.len()} things by ${done.by}`);"#,
    );
    let running = lab.start(&mut lab.command(&["run", "run.rhai", "--wait", "--output", "json"]));
    waits_for_an_answer(&lab);
    let picture = lab.path("picture.png");
    std::fs::write(&picture, "pixels").expect("written");
    let link = "https://wiki.example.com/changes/42";
    lab.contraflow(&["approve", "last", "--as", "ana", "--link", link, "--file", "picture.png"]).succeeded();
    let ended = running.wait().succeeded();
    assert!(ended.stdout.contains("2 things by ana"), "{ended}");
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(shown.contains(link) && shown.contains("picture.png (sha256 "), "{shown}");
    lab.contraflow(&["approve", "last", "--file", "nowhere.png"]).exits_with(1);
}

#[test]
fn a_run_is_paused_aborted_and_abandoned_from_another_shell() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5); sleep("10m");"#);
    for (word, code, state) in [("pause", 5, "paused"), ("abort", 6, "aborted")] {
        let running = lab.asleep();
        lab.contraflow(&["resume", "last"]).exits_with(1).complains("not-resumable").says("take-over");
        lab.contraflow(&["abandon", "last"]).exits_with(1).complains("not-resumable");
        let said = lab.contraflow(&[word, "last"]).succeeded().stdout;
        assert!(said.ends_with(&format!(": {state}\n")), "{said}");
        let ended = running.wait().exits_with(code);
        assert_eq!(ended.changes().len(), 1, "nothing is undone");
        assert_eq!(lab.runs()[0]["state"], state);
        lab.contraflow(&[word, "last"]).exits_with(1).complains("not-resumable");
    }
    lab.contraflow(&["rollback", "last"]).succeeded();
    let lab = Lab::with(STORY);
    lab.asleep().dies();
    let said = lab.contraflow(&["abandon", "last"]).succeeded().stdout;
    assert!(said.contains("is abandoned"), "{said}");
    assert_eq!(lab.runs()[0]["state"], "aborted");
    lab.contraflow(&["abandon", "last"]).exits_with(1).complains("not-resumable");
    lab.contraflow(&["verify", "last"]).succeeded();
}

#[test]
fn a_run_that_is_at_work_undoes_itself_when_another_shell_asks_for_it() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5); sleep("10m");"#);
    let running = lab.asleep();
    let said = lab.contraflow(&["rollback", "last", "--no-wait"]).succeeded().stdout;
    assert!(said.starts_with("requested: run test-"), "{said}");
    let ended = running.wait().exits_with(3).complains("cancelled");
    assert!(ended.stderr.contains("told the run to stop and roll back"), "{ended}");
    assert_eq!(ended.changes().len(), 2, "it is undone where it was done: {ended}");

    let running = lab.asleep();
    let asked = lab.contraflow(&["rollback", "last", "--output", "json"]).succeeded();
    assert_eq!(asked.json()[0]["state"], "rolled_back");
    assert_eq!(asked.json().len(), 1, "nothing is undone here");
    running.wait().exits_with(3);
    lab.contraflow(&["rollback", "last"]).exits_with(1).complains("not-resumable");
}

#[test]
fn whoever_asks_a_run_to_undo_itself_learns_that_it_could_not() {
    let lab = Lab::with(
        r#"traffic::shift("web", "green", 5); on_rollback(|| fail("the key is lost")); sleep("10m");"#,
    );
    let running = lab.asleep();
    assert_snapshot!(lab.contraflow(&["rollback", "last"]), @"
    exit 4
    ----- stdout
    run test-[ID]: rollback incomplete; see what is left: contraflow show test-[ID]
    ");
    running.wait().exits_with(4);
}

#[test]
fn a_run_that_had_done_nothing_when_it_is_asked_to_undo_itself_is_rolled_back_too() {
    let lab = Lab::with(r#"sleep("10m");"#);
    let running = lab.asleep();
    lab.contraflow(&["rollback", "last"]).succeeded();
    running.wait().exits_with(6);
    assert_eq!(lab.runs()[0]["state"], "rolled_back");
}

#[test]
fn another_script_goes_on_only_where_it_agrees_with_what_was_done() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5); sleep("10m"); fail("a mistake");"#);
    let running = lab.asleep();
    lab.contraflow(&["pause", "last"]).succeeded();
    running.wait().exits_with(5);
    lab.write("other.rhai", r#"const RUNBOOK = #{ name: "test" }; traffic::shift("web", "green", 7);"#);
    let refused = lab
        .contraflow(&["resume", "last", "--from-new-script", "other.rhai"])
        .exits_with(5)
        .complains("diverged");
    assert!(refused.stderr.contains("journal:") && refused.stderr.contains("script:"), "{refused}");
    lab.write("mended.rhai", r#"const RUNBOOK = #{ name: "test" }; traffic::shift("web", "green", 5); traffic::shift("web", "green", 100);"#);
    let ended = lab.contraflow(&["resume", "last", "--from-new-script", "mended.rhai"]);
    ended.complains("diverged");
    lab.write(
        "mended.rhai",
        r#"const RUNBOOK = #{ name: "test" }; traffic::shift("web", "green", 5); sleep("10m");"#,
    );
    let resumed = lab.start(&mut lab.command(&[
        "resume",
        "last",
        "--from-new-script",
        "mended.rhai",
        "--output",
        "json",
    ]));
    resumed.sleeps();
    lab.contraflow(&["pause", "last"]).succeeded();
    resumed.wait().exits_with(5);
}

#[test]
fn what_was_answered_waits_no_longer_for_people_but_for_the_run() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5); approve("go on?"); note("on");"#);
    let running = lab.begin();
    waits_for_an_answer(&lab);
    lab.contraflow(&["pause", "last"]).succeeded();
    running.wait().exits_with(5);
    lab.contraflow(&["approve", "last", "--as", "bo"]).succeeded();
    let waits = lab.runs()[0]["waits_for"].clone();
    assert_eq!((&waits[0]["answered"], &waits[0]["answered_by"][0]), (&true.into(), &"bo".into()));
    let shown = lab.contraflow(&["runs"]).succeeded().stdout;
    assert!(shown.contains("go on? (answered: yes by bo; ready to resume)"), "{shown}");
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(
        shown.contains("✓ answered, yes by bo: go on?") && !shown.contains("contraflow approve"),
        "{shown}"
    );
    let late = lab.contraflow(&["deny", "last", "--as", "cy"]).exits_with(1).complains("no-answer");
    assert!(late.stderr.contains("already answered by bo"), "{late}");
    lab.contraflow(&["resume", "last"]).succeeded();
}

#[test]
fn last_is_the_last_run_of_whoever_asks() {
    let lab = Lab::with(r#"traffic::shift("web", "green", 5);"#);
    lab.contraflow(&["run", "run.rhai"]).succeeded();
    let mine = lab.runs()[0]["run"].as_str().expect("an id").to_owned();
    lab.end(lab.command(&["run", "run.rhai"]).env("USER", "nobody")).succeeded();
    let theirs = lab.runs()[0]["run"].as_str().expect("an id").to_owned();
    assert_ne!(mine, theirs);
    let shown = lab.contraflow(&["show", "last"]).succeeded().stdout;
    assert!(shown.contains(&mine) && !shown.contains(&theirs), "{shown}");
    // Whoever has started nothing has no last run, and is told of the newest.
    let none = lab.end(lab.command(&["rollback", "last"]).env("USER", "ana")).exits_with(1);
    assert!(none.stderr.contains("ana@") && none.stderr.contains(&theirs), "{}", none.stderr);
    assert_eq!(lab.runs()[0]["state"], "succeeded");
}
