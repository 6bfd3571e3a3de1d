//! What plans look like.

use contraflow_runtime::{
    Approvals,
    error::RunError,
    event::Mode,
    plan::{Foreseen, PlannedQuestion},
    target::Target,
};
use insta::assert_snapshot;

use super::*;
use crate::{
    needs::{Held, Need},
    report::samples::{self, Buffer, Story},
};

fn shown(events: &[Envelope]) -> String {
    let buffer = Buffer::default();
    let plan = PlanReport::new(Out::new(buffer.clone()), Theme::PLAIN);
    events.iter().for_each(|event| plan.event(event));
    buffer.text()
}

#[test]
fn a_plan_shows_changes_grades_and_the_point_of_no_return() {
    assert_snapshot!(shown(&samples::plan()), @r#"
    Plan of blue-green 1.0.0 in sandbox
      hold = 15s, service = web, to = green

    ▸ preflight
      ✓ probe.http web/green/health: 200 in 12ms                        observed
    ▸ warm
      [0] ✓ probe.http web/blue/health: 200 in 8ms                      observed
      [1] ✓ probe.http web/green/health: 200 in 9ms                     observed
    ▸ migrate
      ~ db.migrate main: 2 applied -> 3 applied (about 40s)             observed
        · tried in a transaction that was rolled back
        ! point of no return: 0003_x has no down file
    ▸ shift 25%
      ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25       observed
      … metrics.hold web 15s: error_rate 0.02% (< 0.1%) (at least 15s)  assumed
      · probe.http web/green/health                                     assumed
      ✓ traffic.weights web: blue 100, green 0                          stale
      ~ traffic.shift web: blue 75, green 25 -> blue 0, green 100       assumed
    ? core.confirm retire the old pool?                                 assumed
    > exec.run ./retire.sh                                              unknown
    > notify.send ops: cutover to green done                            observed

    Plan: 3 changes, 2 actions, 1 question; at least 15m, and about 40s until 1 of 3 changes is in effect; 4 lines assumed, 1 stale, 1 unknown. Point of no return: step "migrate".
    "#);
}

#[test]
fn a_plan_without_changes_says_so() {
    let nothing = Story::new(Mode::Plan).probe("1:probe.http", "200 in 12ms");
    assert_snapshot!(shown(&nothing.end(RunOutcome::Succeeded, None, 12, 0)), @r#"
    Plan of blue-green 1.0.0 in sandbox
      hold = 15s, service = web, to = green

    ✓ probe.http web/green/health: 200 in 12ms  observed

    Plan: nothing to do.
    "#);
    let only_actions = Story::new(Mode::Plan).notify("1:notify.send", "hello");
    let text = shown(&only_actions.end(RunOutcome::Succeeded, None, 0, 0));
    assert!(text.ends_with("\nPlan: no changes, 1 action.\n"), "{text}");
}

#[test]
fn a_plan_that_stopped_shows_what_it_knew_and_why_it_stopped() {
    let why =
        RunError::new("unknown-in-plan", "this needs the result of exec.run, which a plan does not have");
    let events = Story::new(Mode::Plan)
        .open("shift")
        .shift("shift/1:traffic.shift", 0, 25)
        .close("shift", false, 0)
        .end(RunOutcome::Failed, Some(why), 0, 1);
    assert_snapshot!(shown(&events), @r#"
    Plan of blue-green 1.0.0 in sandbox
      hold = 15s, service = web, to = green

    ▸ shift
      ~ traffic.shift web: blue 100, green 0 -> blue 75, green 25  observed

    Plan stopped: this needs the result of exec.run, which a plan does not have. 1 change planned so far.
    "#);
}

#[test]
fn branches_come_in_their_own_order_and_two_parallels_stay_apart() {
    let probe = |story: Story, id: &str| story.probe(id, id);
    let ids = [
        "1:par[1]/1:x.y",
        "1:par[0]/1:x.y",
        "1:par[10]/1:x.y",
        "1:par[2]/1:x.y",
        "2:par[1]/1:x.y",
        "2:par[0]/1:x.y",
    ];
    let events = ids.into_iter().fold(Story::new(Mode::Plan), probe).end(RunOutcome::Succeeded, None, 0, 0);
    let text = shown(&events);
    let order: Vec<&str> = text
        .lines()
        .filter_map(|l| l.split_once("health: "))
        .map(|(_, r)| &r[..r.find('/').expect("id")])
        .collect();
    assert_eq!(order, ["1:par[0]", "1:par[1]", "1:par[2]", "1:par[10]", "2:par[0]", "2:par[1]"]);
}

#[test]
fn nothing_is_shown_before_the_plan_is_complete() {
    let events = samples::plan();
    assert_eq!(shown(&events[..events.len() - 1]), "");
}

#[test]
fn a_change_at_the_top_is_its_own_point_of_no_return() {
    let events = Story::new(Mode::Plan)
        .finish(
            Kind::Change,
            "1:db.migrate",
            Some("db/main"),
            (1, 0),
            samples::changed("0 applied", "1 applied", Some("0001_x has no down file")),
        )
        .end(RunOutcome::Succeeded, None, 0, 1);
    assert!(shown(&events).ends_with("Plan: 1 change. Point of no return: db.migrate main.\n"));
}

#[test]
fn what_failed_has_no_grade_and_says_why_once() {
    let why = RunError::new("probe-failed", "expected status 2xx, got 503");
    let failed = EffectResult::Failed { error: why.clone() };
    let events = Story::new(Mode::Plan)
        .probe("1:probe.http", "200 in 12ms")
        .begin(Kind::Read, "2:probe.http", None, "web/green/ready")
        .finish(Kind::Read, "2:probe.http", None, (1, 0), failed)
        .end(RunOutcome::Failed, Some(why), 12, 0);
    assert_snapshot!(shown(&events), @"
    Plan of blue-green 1.0.0 in sandbox
      hold = 15s, service = web, to = green

    ✓ probe.http web/green/health: 200 in 12ms  observed
    ✗ probe.http web/green/ready: expected status 2xx, got 503

    Plan stopped. No changes planned so far.
    ");
}

#[test]
fn in_a_terminal_long_lines_are_folded_and_grades_stay_in_their_column() {
    let buffer = Buffer::default();
    let plan = PlanReport::new(Out::new(buffer.clone()), Theme { width: Some(60), ..Theme::PLAIN });
    samples::plan().iter().for_each(|event| plan.event(event));
    let text = buffer.text();
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    assert_snapshot!(text, @r#"
    Plan of blue-green 1.0.0 in sandbox
      hold = 15s, service = web, to = green

    ▸ preflight
      ✓ probe.http web/green/health: 200 in 12ms        observed
    ▸ warm
      [0] ✓ probe.http web/blue/health: 200 in 8ms      observed
      [1] ✓ probe.http web/green/health: 200 in 9ms     observed
    ▸ migrate
      ~ db.migrate main: 2 applied -> 3 applied (about  observed
          40s)
        · tried in a transaction that was rolled back
        ! point of no return: 0003_x has no down file
    ▸ shift 25%
      ~ traffic.shift web: blue 100, green 0 -> blue    observed
          75, green 25
      … metrics.hold web 15s: error_rate 0.02% (<       assumed
          0.1%) (at least 15s)
      · probe.http web/green/health                     assumed
      ✓ traffic.weights web: blue 100, green 0          stale
      ~ traffic.shift web: blue 75, green 25 -> blue    assumed
          0, green 100
    ? core.confirm retire the old pool?                 assumed
    > exec.run ./retire.sh                              unknown
    > notify.send ops: cutover to green done            observed

    Plan: 3 changes, 2 actions, 1 question; at least 15m, and
        about 40s until 1 of 3 changes is in effect; 4 lines
        assumed, 1 stale, 1 unknown. Point of no return: step
        "migrate".
    "#);
}

#[test]
fn below_a_plan_stands_what_it_needs_and_who_has_to_agree() {
    let need = |noun: &str, name: &str, reachable: bool, says: &str| Need {
        target: Target::new(noun, name),
        provider: "webhook".to_owned(),
        at: "https://chat.example.com".to_owned(),
        reachable,
        says: says.to_owned(),
    };
    let needs = [
        need("notify", "ops", false, "connection refused"),
        need("secrets", "deploy-token", true, "set"),
        need("traffic", "web", true, "2 pools"),
    ];
    let question = |text: &str, by: &str, at_least| PlannedQuestion {
        id: "1:approve".into(),
        text: text.to_owned(),
        by: by.to_owned(),
        at_least,
    };
    let questions = vec![
        question("retire the old pool?", "release-manager", 2),
        question("look at it", "", 1),
        question("go on?", "ops", 1),
    ];
    let foreseen = Foreseen { questions, ..Foreseen::default() };
    let approvals = Approvals { by: vec!["release-manager".to_owned(), "ana".to_owned()], at_least: 1 };
    let held = [Held {
        target: "traffic/web".to_owned(),
        run: "web-k3fq7a".to_owned(),
        state: "rollback incomplete".to_owned(),
        started_by: "ana@build".to_owned(),
    }];
    let foot = foot::Foot {
        foreseen: &foreseen,
        needs: &needs,
        held: &held,
        approvals: &approvals,
        saved: None,
        program: "contraflow",
    };
    assert_snapshot!(foot.show(Theme::PLAIN), @r#"
    Needs: notify/ops, secret deploy-token, traffic/web.
      ✗ notify/ops cannot be reached: connection refused (webhook, https://chat.example.com)
    ! traffic/web is locked by run web-k3fq7a (rollback incomplete, started by ana@build); contraflow show web-k3fq7a
    Asks: 2 of release-manager ("retire the old pool?"); ops ("go on?").
    Approval: 1 of release-manager or ana, before a saved plan runs.
    "#);
    let folded = foot.show(Theme { width: Some(60), ..Theme::PLAIN });
    assert!(folded.lines().all(|line| line.chars().count() <= 60), "{folded}");
    let nothing = foot::Foot {
        foreseen: &Foreseen::default(),
        needs: &[],
        held: &[],
        approvals: &Approvals::default(),
        saved: None,
        program: "contraflow",
    };
    assert_eq!(nothing.show(Theme::PLAIN), "");
}
