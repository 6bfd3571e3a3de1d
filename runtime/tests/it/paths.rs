//! Every path of a plan: where answers lead that nobody knows beforehand.

use std::{collections::BTreeMap, sync::Arc};

use contraflow_runtime::{
    Beginning,
    error::codes,
    rehearsal::{Asks, Bounds, Branch, Decision, End, Paths, Progress},
};

use crate::lab::Lab;

fn paths(script: &str) -> Paths {
    within(script, 1000)
}

fn within(script: &str, most: usize) -> Paths {
    bounded(script, Bounds { paths: most, progress: Arc::default() })
}

fn bounded(script: &str, bounds: Bounds) -> Paths {
    let lab = Lab::new();
    let found = lab
        .tokio
        .block_on(lab.runtime().paths(&Lab::bundle(script), &BTreeMap::new(), bounds))
        .unwrap_or_else(|e| panic!("does not load: {:?}", e.0));
    assert!(lab.log().is_empty(), "nothing is touched: {:?}", lab.log());
    assert!(lab.lamps.board().rings.is_empty());
    found
}

/// The tree, a line for each decision and branch.
fn tree(paths: &Paths) -> String {
    fn decisions(list: &[Decision], margin: &str, text: &mut String) {
        for Decision { id, branches, not_played, .. } in list {
            text.push_str(&format!("{margin}{id}{}\n", said(" not played", *not_played)));
            branches.iter().for_each(|branch| one(branch, margin, text));
        }
    }
    fn one(branch: &Branch, margin: &str, text: &mut String) {
        let list = |name: &str, effects: &[contraflow_runtime::rehearsal::PathEffect]| {
            let ids: Vec<&str> = effects.iter().map(|done| &*done.id).collect();
            if ids.is_empty() { String::new() } else { format!(", {name} {}", ids.join(" ")) }
        };
        let why = branch.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        text.push_str(&format!(
            "{margin}  {}: {:?}{why}{}{}{}{}{}\n",
            branch.answers.iter().map(|answer| answer.name()).collect::<Vec<_>>().join(" "),
            branch.end,
            list("does", &branch.does),
            list("skips", &branch.skips),
            list("undone", &branch.undone),
            said(" at least", branch.undone_fewest.unwrap_or(0)),
            said(" too deep", branch.too_deep),
        ));
        decisions(&branch.decisions, &format!("{margin}    "), text);
    }
    fn said(what: &str, n: usize) -> String {
        if n == 0 { String::new() } else { format!(",{what} {n}") }
    }
    let mut text = format!("{:?}\n", paths.end);
    decisions(&paths.decisions, "", &mut text);
    text
}

#[test]
fn what_was_looked_at_before_anything_was_changed_is_known_and_what_follows_a_change_is_decided() {
    let found = paths(
        r#"
        lab::expect("a", 0);
        lab::set("a", 1);
        lab::expect("b", 0);
        lab::expect("a", 1);
        lab::set("b", 2);
        "#,
    );
    insta::assert_snapshot!(tree(&found), @"
    Succeeded
    4:lab.look
      fails: RolledBack, undone rollback/2:lab.set
    ");
    let trunk: Vec<&str> = found.trunk.iter().map(|done| &*done.id).collect();
    assert_eq!(trunk, ["1:lab.look", "2:lab.set", "3:lab.look", "4:lab.look", "5:lab.set"]);
    assert_eq!(found.decisions[0].asks, Asks::Check);
    assert_eq!(found.decisions[0].branches[0].scenarios[0].to_string(), "4:lab.look=fails");
}

#[test]
fn a_check_that_fails_already_is_no_decision() {
    let found = paths(r#"lab::expect("a", 7); lab::set("a", 1); lab::expect("a", 1);"#);
    assert_eq!((found.end, found.decisions.len()), (End::Failed, 0), "{found:?}");
}

#[test]
fn decisions_that_hang_on_another_are_told_below_it_and_no_others() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::set("a", 1);
        try {
            lab::expect("a", 1);
        } catch (error) {
            lab::set("b", 1);
            lab::expect("b", 1);
            confirm("without a?");
            lab::ring("without a");
        }
        approve("go on?", #{ timeout: "1h" });
        lab::set("c", 1);
        "#,
    )), @"
    Succeeded
    2:lab.look
      fails: Succeeded, does 3:lab.set 4:lab.look 5:confirm 6:lab.ring
        4:lab.look
          fails: RolledBack, undone rollback/3:lab.set rollback/1:lab.set
        5:confirm
          denied: RolledBack, undone rollback/3:lab.set rollback/1:lab.set
          no-answer: RolledBack (the run took longer than 24h), undone rollback/3:lab.set rollback/1:lab.set
    3:approve
      denied no-answer: RolledBack, undone rollback/1:lab.set
    ");
}

#[test]
fn answers_that_lead_to_the_same_course_are_one_branch() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::set("a", 1);
        approve("go on?", #{ timeout: "1h" });
        approve("really?", #{ timeout: "1h", on_timeout: "approve" });
        confirm("sure?");
        lab::set("b", 1);
        "#,
    )), @"
    Succeeded
    2:approve
      denied no-answer: RolledBack, undone rollback/1:lab.set
    3:approve
      denied: RolledBack, undone rollback/1:lab.set
      no-answer: Succeeded
    4:confirm
      denied: RolledBack, undone rollback/1:lab.set
      no-answer: RolledBack (the run took longer than 24h), undone rollback/1:lab.set
    ");
}

#[test]
fn a_gate_that_does_not_pass_leads_to_what_the_script_does_then() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        step("one", || {
            lab::set("a", 1);
            try { lab::wait_for("a", 1); } catch (error) { lab::ring("late: " + error.message); lab::set("a", 5); }
        });
        lab::set("b", 1);
        "#,
    )), @"
    Succeeded
    one/2:lab.await
      times-out: Succeeded, does one/3:lab.ring one/4:lab.set
    ");
}

#[test]
fn a_gate_that_comes_twice_is_told_apart_from_itself() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        for n in [1, 2] {
            lab::set("a", n);
            try { lab::wait_for("a", 1); } catch (error) { }
        }
        lab::set("b", 1);
        "#,
    )), @"
    Succeeded
    2:lab.await
      times-out: Succeeded
    4:lab.await
      times-out: Succeeded
    ");
}

#[test]
fn a_guard_is_one_decision_however_often_it_can_be_breached() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::set("a", 1);
        lab::guard("c", 3, || {
            for n in [1, 2, 3] { lab::set("b", n); sleep("1m"); }
            try { lab::guard("b", 9, || lab::ring("inner")); } catch (error) { lab::set("c", 1); }
        });
        "#,
    )), @"
    Succeeded
    2:guard
      breach: RolledBack, undone rollback/2:guard/5:lab.set rollback/2:guard/3:lab.set rollback/2:guard/1:lab.set rollback/1:lab.set, at least 2
    2:guard/7:guard
      breach: Succeeded, does 2:guard/8:lab.set
    ");
}

#[test]
fn a_guard_that_leads_elsewhere_later_on_has_a_branch_for_each() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::guard("c", 3, || {
            lab::set("a", 1);
            point_of_no_return("customers were told");
            for n in [1, 2] { lab::set("b", n); }
        });
        "#,
    )), @"
    Succeeded
    1:guard
      breach: RolledBack, undone rollback/1:guard/1:lab.set
      breach: RollbackIncomplete, undone rollback/1:guard/4:lab.set rollback/1:guard/3:lab.set, at least 1
    ");
}

#[test]
fn branches_of_a_parallel_have_decisions_of_their_own() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::set("a", 1);
        parallel([
            || { lab::set("b", 1); lab::expect("b", 1); },
            || { try { lab::expect("a", 1); } catch (error) { lab::set("c", 1); } },
        ]);
        "#,
    )), @"
    Succeeded
    2:par[0]/2:lab.look
      fails: RolledBack, undone rollback/2:par[0]/1:lab.set rollback/1:lab.set
    2:par[1]/1:lab.look
      fails: Succeeded, does 2:par[1]/2:lab.set
    ");
}

#[test]
fn an_end_that_needs_a_person_is_told_with_what_is_left() {
    let found = paths(r#"lab::set("b", 1); lab::set("a", 666); confirm("sure?");"#);
    insta::assert_snapshot!(tree(&found), @"
    Succeeded
    3:confirm
      denied: RollbackIncomplete
      no-answer: RollbackIncomplete (the run took longer than 24h)
    ");
    let left: Vec<&str> = found.decisions[0].branches[0].left.iter().map(|left| &*left.why).collect();
    assert_eq!(left[0], "the lamp has melted");
}

#[test]
fn what_is_decided_on_the_way_back_hangs_on_what_led_there() {
    insta::assert_snapshot!(tree(&paths(
        r#"
        lab::set("a", 1);
        on_rollback(|| { lab::ring("going back"); lab::expect("a", 1); });
        lab::set("b", 1);
        lab::expect("b", 1);
        "#,
    )), @"
    Succeeded
    4:lab.look
      fails: RolledBack, does rollback/2:on_rollback/1:lab.ring rollback/2:on_rollback/2:lab.look, undone rollback/3:lab.set rollback/1:lab.set
        rollback/2:on_rollback/2:lab.look
          fails: RollbackIncomplete, undone rollback/3:lab.set
    ");
}

#[test]
fn a_value_that_is_only_taken_for_granted_has_no_other_way_and_is_marked() {
    let found = paths(
        r#"
        let before = lab::look("a");
        lab::set("a", 1);
        let after = lab::look("a");
        if after > 10 { lab::set("b", 1); }
        "#,
    );
    let marked: Vec<(&str, bool)> = found.trunk.iter().map(|done| (&*done.id, done.value_assumed)).collect();
    assert_eq!(marked, [("1:lab.look", false), ("2:lab.set", false), ("3:lab.look", true)]);
    assert!(found.decisions.is_empty());
}

#[test]
fn no_branch_is_taken_on_a_value_that_nobody_knows() {
    let found = paths(
        r#"
        lab::set("a", 1);
        try { lab::expect("a", 1); } catch (error) {
            let rings = lab::ring("how many?");
            if rings > 3 { lab::set("b", 1); }
        }
        "#,
    );
    let branch = &found.decisions[0].branches[0];
    assert_eq!((found.end, branch.end), (End::Succeeded, End::Unknown));
    assert!(branch.why.as_ref().is_some_and(|why| why.contains("lab.ring")), "{branch:?}");
    // As in a plan, where a rehearsal would take what the check answers when all is well.
    let script = r#"lab::set("a", 1); if lab::expect("a", 1) > 0 { lab::set("b", 1); }"#;
    assert_eq!(paths(script).end, End::Unknown);
    assert!(Lab::new().plan(script).error.is_some_and(|error| error.is(codes::UNKNOWN_IN_PLAN)));
}

#[test]
fn a_question_that_nobody_answers_and_that_has_no_deadline_waits_as_long_as_the_run_may_take() {
    let script = r#"lab::set("a", 1); confirm("sure?");"#;
    insta::assert_snapshot!(tree(&paths(script)), @"
    Succeeded
    2:confirm
      denied: RolledBack, undone rollback/1:lab.set
      no-answer: RolledBack (the run took longer than 24h), undone rollback/1:lab.set
    ");
}

#[test]
fn what_cannot_be_found_out_by_looking_is_an_error_of_the_plan_and_no_path() {
    let found = paths(r#"lab::set("nowhere", 1);"#);
    assert_eq!((found.end, found.decisions.len()), (End::Failed, 0));
    assert!(found.why.is_some_and(|why| why.contains("no lamp named")));
}

#[test]
fn a_way_ends_as_the_rehearsal_of_its_scenario_does() {
    let script = r#"
        lab::set("a", 1);
        on_rollback(|| { lab::expect("a", 1); lab::ring("undo"); });
        try { lab::expect("a", 1); } catch (error) { lab::set("b", 1); confirm("without a?"); }
        lab::guard("c", 3, || {
            lab::set("b", 2);
            point_of_no_return("told");
            parallel([|| lab::expect("b", 2), || { lab::set("c", 1); lab::wait_for("c", 1) }]);
        });
        approve("good?", #{ timeout: "1h", on_timeout: "approve" });
        lab::set("a", 666);
        confirm("and now?");
    "#;
    let found = paths(script);
    let branches = found.branches();
    let scenarios: usize = branches.iter().map(|branch| branch.scenarios.len()).sum();
    assert_eq!((scenarios, found.not_played), (found.played, 0));
    let mut ends: Vec<End> = branches.iter().map(|branch| branch.end).collect();
    ends.sort();
    ends.dedup();
    assert_eq!(ends, [End::Succeeded, End::RolledBack, End::RollbackIncomplete], "{}", tree(&found));
    let lab = Lab::new();
    let _on = lab.tokio.enter();
    let beginning = Beginning { look: true, ..Beginning::default() };
    let rehearsal = lab.runtime().rehearsal(&Lab::bundle(script), &BTreeMap::new(), &beginning).unwrap();
    for branch in branches {
        for scenario in &branch.scenarios {
            let tried = lab.tokio.block_on(rehearsal.play(scenario.clone(), Vec::new())).unwrap();
            assert!(tried.struck, "{scenario}");
            assert_eq!(tried.end, branch.end, "{scenario}");
        }
    }
}

/// A question that is asked anew after each no.
const LOOP: &str = r#"
    lab::set("a", 1);
    for n in [1, 2, 3, 4] {
        try { confirm(`try ${n}?`); break; } catch (error) { lab::ring(`no ${n}`); }
    }
"#;

#[test]
fn decisions_are_followed_two_deep_and_what_lies_deeper_is_counted() {
    let found = paths(LOOP);
    insta::assert_snapshot!(tree(&found), @"
    Succeeded
    2:confirm
      denied: Succeeded, does 3:lab.ring 4:confirm
        4:confirm
          denied: Succeeded, does 5:lab.ring 6:confirm, too deep 2
          no-answer: RolledBack (the run took longer than 24h), undone rollback/1:lab.set
      no-answer: RolledBack (the run took longer than 24h), undone rollback/1:lab.set
    ");
    assert_eq!((found.played, found.not_played, found.too_deep), (4, 0, 2));
}

#[test]
fn no_more_ways_are_played_than_allowed_and_the_others_are_counted() {
    let script = r#"
        lab::set("a", 1);
        for n in [1, 2, 3] { lab::expect("a", 1); confirm(`go on with ${n}?`); }
    "#;
    let all = paths(script);
    for most in [0, 1, 4, all.played] {
        let some = within(script, most);
        assert_eq!(some.played, most);
        assert_eq!(some.played + some.not_played, all.played, "{most}: {}", tree(&some));
        assert_eq!(some.decisions.len(), all.decisions.len(), "what was not played is known all the same");
        let missing: usize = some.decisions.iter().map(|decision| decision.not_played).sum();
        assert_eq!(missing, some.not_played);
    }
    let progress = Arc::<Progress>::default();
    progress.stop();
    let none = bounded(script, Bounds { paths: 1000, progress });
    assert_eq!((none.played, none.not_played), (0, all.played));
}

#[test]
fn the_same_runbook_has_the_same_paths_each_time() {
    let json = || serde_json::to_string(&paths(LOOP)).unwrap();
    let first = json();
    assert!((0..5).all(|_| json() == first));
}
