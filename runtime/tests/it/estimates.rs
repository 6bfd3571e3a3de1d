//! How long a plan expects changes to take, and what that rests on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, atomic::Ordering},
};

use contraflow_runtime::{
    Bundle, Stop,
    event::{Event, RunOutcome},
    plan::{Basis, Foreseen},
};

use crate::{
    lab::{HEADER, Lab},
    resume::{Kill, again, run_and_die},
};

/// Runs a script in which each change takes so many seconds, one after the other, and puts the lamps back as they were.
fn took(lab: &Lab, script: &str, seconds: &[i64]) {
    let left = Mutex::new(VecDeque::from(seconds.to_vec()));
    let off = Arc::clone(&lab.off);
    lab.lamps.board().after = Some(Arc::new(move || {
        off.fetch_add(left.lock().unwrap().pop_front().unwrap_or(0), Ordering::Relaxed);
    }));
    assert_eq!(lab.run(script).outcome, RunOutcome::Succeeded);
    let mut board = lab.lamps.board();
    board.after = None;
    board.lamps.values_mut().for_each(|level| *level = 0);
}

fn foreseen(lab: &Lab, script: &str) -> Foreseen {
    of(lab, &Lab::bundle(script))
}

fn of(lab: &Lab, bundle: &Bundle) -> Foreseen {
    let work = lab.runtime();
    let planned = lab.tokio.block_on(work.foresee(bundle, &BTreeMap::new(), &Stop::default())).unwrap();
    assert_eq!(planned.report.error, None);
    assert_eq!(planned.report.estimate_ms, planned.foreseen.estimate_ms);
    planned.foreseen
}

/// Seconds and basis, by change.
fn estimates(foreseen: &Foreseen) -> Vec<Option<(u64, Basis)>> {
    foreseen.changes.iter().map(|change| change.estimate.map(|it| (it.ms / 1000, it.basis))).collect()
}

fn seconds(foreseen: &Foreseen) -> Option<u64> {
    foreseen.estimate_ms.map(|ms| ms / 1000)
}

#[test]
fn a_move_is_expected_to_take_what_it_took_in_earlier_runs_the_median() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); sleep("1ms"); lab::set("b", 2);"#;
    assert_eq!(seconds(&foreseen(&lab, script)), None, "nothing is known before the first run");
    for (a, b) in [(10, 3), (50, 4), (30, 900)] {
        took(&lab, script, &[a, b]);
    }
    let plan = foreseen(&lab, script);
    let earlier = |seconds| Some((seconds, Basis::EarlierRuns));
    assert_eq!(estimates(&plan), [earlier(30), earlier(4)]);
    assert_eq!((plan.at_least_ms, seconds(&plan)), (1, Some(34)), "what is certain stays apart");
    took(&lab, script, &[40, 4]);
    assert_eq!(estimates(&foreseen(&lab, script))[0], earlier(35), "of four, between the two in the middle");
}

#[test]
fn another_move_another_target_and_another_runbook_say_nothing() {
    let lab = Lab::new();
    took(&lab, r#"lab::set("a", 1);"#, &[30]);
    let plan = foreseen(&lab, r#"lab::set("b", 1); lab::set("a", 2); lab::set("a", 1);"#);
    assert_eq!(estimates(&plan), [None, None, None], "2 -> 1 is not 0 -> 1");
    let other = Bundle::single("lab.rhai", HEADER.replace("\"lab\"", "\"other\"") + r#"lab::set("a", 1);"#);
    assert_eq!(estimates(&of(&lab, &other)), [None]);
}

#[test]
fn what_the_target_says_itself_counts_more_than_earlier_runs() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 700); lab::set("a", 1);"#;
    took(&lab, script, &[10, 20]);
    let plan = foreseen(&lab, script);
    assert_eq!(estimates(&plan), [Some((10, Basis::EarlierRuns)), Some((90, Basis::Target))]);
    assert_eq!(seconds(&plan), Some(100));
}

#[test]
fn of_branches_the_longest_counts_and_estimates_fill_what_is_waited_for_anyway() {
    let lab = Lab::new();
    took(&lab, r#"lab::set("a", 1); lab::set("b", 1); lab::set("c", 1);"#, &[30, 10, 50]);
    let both = foreseen(&lab, r#"parallel([|| lab::set("a", 1), || lab::set("b", 1)]); lab::set("c", 1);"#);
    assert_eq!((both.at_least_ms, seconds(&both)), (0, Some(80)));
    let held = foreseen(&lab, r#"parallel([|| lab::set("a", 1), || sleep("20s")]);"#);
    assert_eq!((held.at_least_ms, seconds(&held)), (20_000, Some(10)), "20s of the 30s pass anyway");
    let long = foreseen(&lab, r#"parallel([|| lab::set("a", 1), || sleep("10m")]);"#);
    assert_eq!((long.at_least_ms, seconds(&long)), (600_000, None), "nothing is added");
}

#[test]
fn a_deadline_is_held_against_what_is_certain_alone() {
    let lab = Lab::new();
    took(&lab, r#"lab::set("a", 1);"#, &[3600]);
    let plan = foreseen(&lab, r#"step("quick", #{ timeout: "1m" }, || lab::set("a", 1));"#);
    assert_eq!(seconds(&plan), Some(3600));
}

#[test]
fn a_move_that_the_runner_died_in_says_nothing() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1);"#;
    took(&lab, script, &[30]);
    // The clock goes on while nobody works on the run.
    let died = run_and_die(&lab, script, Kill::AfterApply(0)).unwrap();
    lab.off.fetch_add(900, Ordering::Relaxed);
    let report = again(&lab, &died);
    assert_eq!(report.outcome, RunOutcome::Succeeded);
    lab.lamps.board().lamps.insert("a".into(), 0);
    assert_eq!(estimates(&foreseen(&lab, script)), [Some((30, Basis::EarlierRuns))]);
}

#[test]
fn a_store_that_cannot_be_read_takes_nothing_from_a_plan() {
    let lab = Lab::new();
    took(&lab, r#"lab::set("a", 1);"#, &[30]);
    std::fs::remove_dir_all(lab.folder.path()).unwrap();
    let report = lab.plan(r#"lab::set("a", 1);"#);
    assert_eq!((report.outcome, report.changes), (RunOutcome::Succeeded, 1));
}

#[test]
fn listeners_are_told_of_estimates_and_of_their_sum() {
    let lab = Lab::new();
    took(&lab, r#"lab::set("a", 1);"#, &[30]);
    lab.events.lock().unwrap().clear();
    foreseen(&lab, r#"lab::set("a", 1);"#);
    let events = lab.events.lock().unwrap();
    let told = serde_json::to_value(&*events).unwrap();
    let ended = told.as_array().unwrap().iter().find(|event| event["event"] == "effect_ended").unwrap();
    assert_eq!(ended["estimate"]["basis"], "earlier_runs");
    let Some(Event::RunEnded { estimate_ms: Some(ms), elapsed_ms: 0, .. }) = events.last().map(|e| &e.event)
    else {
        panic!("no estimate: {events:?}");
    };
    assert_eq!(ms / 1000, 30);
}
