//! A run that died is taken up again and comes to the same end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use contraflow_runtime::{
    Bundle, Report, Stop, Takeover,
    error::{NextStep, RunError},
    event::RunOutcome,
    journal::{Run, RunStatus, Sealed, Store, StoreError, record::verify},
};
use jiff::Timestamp;

use crate::{
    gate::{Gate, Gated},
    lab::{Fault, Lab},
};

/// Where a runner dies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kill {
    BeforeAppend(usize),
    AfterAppend(usize),
    AfterApply(usize),
}

/// Whether the runner is dead: nothing of it reaches the store any more.
#[derive(Clone, Default)]
pub struct Death {
    dead: Arc<AtomicBool>,
    appends: Arc<AtomicUsize>,
    applies: Arc<AtomicUsize>,
    at: Option<Kill>,
}

impl Death {
    pub fn at(kill: Kill) -> Self {
        Self { at: Some(kill), ..Self::default() }
    }

    fn strike(&self, reached: Kill) {
        if self.at == Some(reached) {
            self.dead.store(true, Ordering::Relaxed);
        }
    }

    pub fn struck(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Gate for Death {
    async fn before(&self, _: &[Sealed], _: bool) -> Result<(), StoreError> {
        self.strike(Kill::BeforeAppend(self.appends.load(Ordering::Relaxed)));
        self.open()
    }

    async fn after(&self) -> Result<(), StoreError> {
        let n = self.appends.fetch_add(1, Ordering::Relaxed);
        self.strike(Kill::AfterAppend(n));
        self.open()
    }

    fn open(&self) -> Result<(), StoreError> {
        if self.struck() { Err(StoreError::lost("the run")) } else { Ok(()) }
    }
}

fn bundle(script: &str) -> Bundle {
    Lab::bundle(script)
}

/// A store that is dead to a runner once that has died.
pub fn mortal(lab: &Lab, death: &Death) -> Arc<dyn Store> {
    let hook = death.clone();
    lab.lamps.board().after = Some(Arc::new(move || {
        let n = hook.applies.fetch_add(1, Ordering::Relaxed);
        hook.strike(Kill::AfterApply(n));
    }));
    Arc::new(Gated { inner: Arc::clone(&lab.store), gate: death.clone() })
}

/// Runs until the runner dies. `None`: it came to its end before.
pub fn run_and_die(lab: &Lab, script: &str, kill: Kill) -> Option<Run> {
    let death = Death::at(kill);
    let store = mortal(lab, &death);
    let report = lab.tokio.block_on(lab.runtime_on(store).run(&bundle(script), &BTreeMap::new())).unwrap();
    lab.lamps.board().after = None;
    if !death.struck() {
        return None;
    }
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    Some(run)
}

pub fn again(lab: &Lab, run: &Run) -> Report {
    // The dead runner was this very process.
    let how = Takeover { take_over: true, ..Takeover::default() };
    lab.tokio.block_on(lab.runtime().resume(run, how, &Stop::default())).unwrap()
}

fn found(lab: &Lab, run: &str) -> Run {
    lab.tokio.block_on(lab.store.find(run)).unwrap().remove(0)
}

const STORY: &str = r#"
let seen = lab::look("a");
step("one", || { lab::set("a", seen + 1); lab::ring("first"); });
on_rollback(|| lab::ring(`was ${seen}`));
parallel([
    || { lab::set("b", 2); lab::set("b", 3); },
    || step("bell", || { lab::ring("second"); lab::look("a") }),
    || { sleep("1ms"); lab::set("c", 4); },
]);
try { lab::expect("a", 77); } catch (e) { note(e.message); }
for i in 0..3 { let i = i; step("again", || lab::set("a", 10 + i)); }
lab::set("a", 12);
lab::ring("last");
"#;

/// Levels, applies in any order, and rings by key.
fn end(lab: &Lab) -> (BTreeMap<String, i64>, Vec<String>, BTreeSet<String>) {
    let mut log = lab.log();
    log.sort();
    let board = lab.lamps.board();
    (board.lamps.clone(), log, board.rings.iter().cloned().collect())
}

fn killed_everywhere(script: &str, outcome: RunOutcome, faults: &dyn Fn(&Lab)) {
    let whole = Lab::new();
    faults(&whole);
    let report = whole.run(script);
    assert_eq!(report.outcome, outcome, "{:?}", report.error);
    let wanted = end(&whole);
    let (mut points, mut n) = (0, 0);
    loop {
        let mut reached = false;
        for kill in [Kill::BeforeAppend(n), Kill::AfterAppend(n), Kill::AfterApply(n)] {
            let lab = Lab::new();
            faults(&lab);
            let Some(run) = run_and_die(&lab, script, kill) else { continue };
            reached = true;
            points += 1;
            let report = again(&lab, &run);
            assert_eq!(report.outcome, outcome, "{kill:?}: {:?}", report.error);
            assert_eq!(end(&lab), wanted, "{kill:?}");
            let records = lab.tokio.block_on(lab.store.records(&run.id)).unwrap();
            verify(&records).unwrap();
            assert_eq!(found(&lab, &run.id).status, RunStatus::Ended(outcome), "{kill:?}");
        }
        if !reached {
            break;
        }
        n += 1;
    }
    assert!(points > 20, "only {points} places to die");
}

#[test]
fn a_run_killed_anywhere_comes_to_the_same_end_and_applies_nothing_twice() {
    killed_everywhere(STORY, RunOutcome::Succeeded, &|_| {});
}

#[test]
fn a_rollback_killed_anywhere_undoes_everything_once() {
    killed_everywhere(&format!("{STORY} fail(\"enough\");"), RunOutcome::RolledBack, &|_| {});
}

#[test]
fn an_outcome_that_a_newer_version_wrote_pauses_the_run_and_nothing_is_done() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); lab::set("b", 2);"#;
    let run = run_and_die(&lab, script, Kill::AfterApply(0)).unwrap();
    lab.tokio.block_on(async {
        let intent = lab.store.last(&run.id).await.unwrap().unwrap();
        let at = Timestamp::from_millisecond(intent.at_ms).unwrap();
        let body = r#"{"outcome":{"kind":"dream"}}"#.to_owned();
        let outcome = Sealed::seal(intent.seq + 1, at, &intent.id, body, &intent.hash);
        lab.store.append(&run.id, run.epoch, &[outcome], true).await.unwrap();
    });
    let before = end(&lab);
    let report = again(&lab, &run);
    assert_eq!(report.outcome, RunOutcome::Paused);
    let error = report.error.unwrap();
    assert_eq!(error.code.as_str(), "journal");
    assert!(error.message.contains("cannot be read: unknown variant `dream`"), "{}", error.message);
    assert_eq!(end(&lab), before);
}

#[test]
fn a_run_that_two_take_up_at_the_same_moment_goes_on_in_one() {
    let lab = Lab::new();
    let run = run_and_die(&lab, STORY, Kill::AfterApply(3)).unwrap();
    let runtimes: Vec<_> = (0..8).map(|_| lab.runtime()).collect();
    let reports = lab.tokio.block_on(async {
        let tries = runtimes.iter().map(|runtime| {
            let (runtime, run) = (runtime.clone(), run.clone());
            tokio::spawn(async move {
                let how = Takeover { take_over: true, ..Takeover::default() };
                runtime.resume(&run, how, &Stop::default()).await
            })
        });
        let mut reports = Vec::new();
        for one in tries.collect::<Vec<_>>() {
            reports.push(one.await.unwrap());
        }
        reports
    });
    let went_on: Vec<_> = reports.iter().flatten().collect();
    assert_eq!(went_on.len(), 1, "{reports:?}");
    assert_eq!(went_on[0].outcome, RunOutcome::Succeeded);
    for refused in reports.iter().filter_map(|report| report.as_ref().err()) {
        assert_eq!(refused.0[0].code.as_str(), "not-resumable", "{refused:?}");
    }
}

#[test]
fn a_runner_that_lost_its_run_can_neither_write_nor_apply() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); lab::wait_for("b", 1); lab::set("c", 1);"#;
    let report = std::thread::scope(|scope| {
        let runner = scope.spawn(|| lab.run(script));
        while lab.level("a") != 1 {
            std::thread::yield_now();
        }
        let run = lab.tokio.block_on(lab.store.runs(1)).unwrap().remove(0);
        let holder = contraflow_runtime::journal::Holder::this("thief");
        assert!(lab.tokio.block_on(lab.store.acquire(&run.id, run.epoch, &holder)).unwrap());
        lab.lamps.board().lamps.insert("b".into(), 1);
        runner.join().unwrap()
    });
    assert_eq!(report.error.as_ref().map(|e| e.code.as_str()), Some("lost"), "{report:?}");
    assert_eq!(lab.level("c"), 0);
    assert_eq!(lab.level("a"), 1, "a runner that lost its run does not undo it either");
}

#[test]
fn a_script_that_does_something_else_is_stopped_and_the_run_can_still_go_on() {
    let lab = Lab::new();
    let run = run_and_die(&lab, STORY, Kill::AfterApply(3)).unwrap();
    let how = Takeover { take_over: true, new_script: Some(bundle(&STORY.replace("seen + 1", "seen + 2"))) };
    let report = lab.tokio.block_on(lab.runtime().resume(&run, how, &Stop::default())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Paused);
    let error = report.error.unwrap();
    assert_eq!(error.code.as_str(), "diverged");
    assert!(
        error.hints.iter().any(|hint| hint.starts_with("journal:") && hint.contains("\"to\":1")),
        "{error:?}"
    );
    assert!(
        error.hints.iter().any(|hint| hint.starts_with("script:") && hint.contains("\"to\":2")),
        "{error:?}"
    );
    let report = again(&lab, &found(&lab, &run.id));
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn another_script_goes_on_only_if_it_first_did_all_that_was_done() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); lab::set("b", 2); fail("a mistake in the script");"#;
    let run = run_and_die(&lab, script, Kill::AfterApply(1)).unwrap();
    let take = |text: &str| Takeover { take_over: true, new_script: Some(bundle(text)) };
    let shorter = take(r#"lab::set("a", 1); lab::ring("too early"); lab::set("b", 2);"#);
    let report = lab.tokio.block_on(lab.runtime().resume(&run, shorter, &Stop::default())).unwrap();
    assert_eq!(report.error.map(|e| e.code.as_str().to_owned()), Some("diverged".into()));
    assert!(lab.lamps.board().rings.is_empty());
    let mended = take(r#"lab::set("a", 1); lab::set("b", 2); lab::set("c", 3);"#);
    let run = found(&lab, &run.id);
    let report = lab.tokio.block_on(lab.runtime().resume(&run, mended, &Stop::default())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_ne!(found(&lab, &run.id).bundle, run.bundle, "from then on it is that script's run");
}

#[test]
fn a_succeeded_run_is_rolled_back_later_in_reverse() {
    let lab = Lab::new();
    let report = lab.run(STORY);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let run = found(&lab, &report.run);
    let back =
        lab.tokio.block_on(lab.runtime().roll_back(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!(back.outcome, RunOutcome::RolledBack, "{back:?}");
    assert_eq!(["a", "b", "c"].map(|lamp| lab.level(lamp)), [0, 0, 0]);
    assert!(lab.lamps.board().rings.iter().any(|ring| ring.starts_with("was 0")));
    let twice = lab
        .tokio
        .block_on(lab.runtime().roll_back(&found(&lab, &report.run), Takeover::default(), &Stop::default()))
        .unwrap_err();
    assert!(twice.0[0].message.contains("rolled back already"), "{twice:?}");
}

#[test]
fn a_failed_undo_is_tried_again_and_rollback_goes_on_from_there_later() {
    let lab = Lab::new();
    lab.fault("a", [Fault::None, Fault::Terminal, Fault::Terminal, Fault::Terminal]);
    let report = lab.run(r#"lab::set("b", 1); lab::set("a", 1); lab::set("c", 1); fail("no");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    assert_eq!(["a", "b", "c"].map(|lamp| lab.level(lamp)), [1, 1, 0]);
    assert_eq!(report.left.len(), 2, "{:?}", report.left);
    let run = found(&lab, &report.run);
    let back =
        lab.tokio.block_on(lab.runtime().roll_back(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!(back.outcome, RunOutcome::RolledBack, "{back:?}");
    assert_eq!(["a", "b", "c"].map(|lamp| lab.level(lamp)), [0, 0, 0]);
    assert_eq!(lab.log().iter().filter(|line| *line == "c 1 -> 0").count(), 1, "{:?}", lab.log());
}

#[test]
fn an_action_that_may_have_happened_is_asked_about_and_decided_once() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); lab::ring("ask me"); lab::set("b", 1);"#;
    let run = run_and_die(&lab, script, Kill::AfterApply(1)).unwrap();
    let report = again(&lab, &run);
    assert_eq!(report.outcome, RunOutcome::Paused);
    let error = report.error.unwrap();
    assert_eq!(error.code.as_str(), "in-doubt");
    assert!(
        matches!(&error.next[..], [NextStep::Answer { choices, .. }, NextStep::ResumeRun { .. }] if !choices.is_empty()),
        "{error:?}"
    );
    let asked = lab.tokio.block_on(lab.store.asked(Some(&run.id))).unwrap();
    assert_eq!(asked.len(), 1);
    let reply = contraflow_runtime::effect::Reply {
        choice: Some("done".into()),
        ..contraflow_runtime::effect::Reply::new(true, "ana")
    };
    assert!(lab.tokio.block_on(lab.store.answer(&run.id, &asked[0].id, &reply)).unwrap());
    let report = again(&lab, &found(&lab, &run.id));
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(lab.lamps.board().rings.len(), 1);
    assert_eq!(lab.level("b"), 1);
}

#[test]
fn a_change_that_was_broken_off_half_way_is_decided_by_a_person() {
    for (choice, outcome, level) in [
        ("again", RunOutcome::Succeeded, 5),
        ("done", RunOutcome::Succeeded, 3),
        ("fail", RunOutcome::RolledBack, 0),
        // `contraflow deny`: a no needs no choice.
        ("", RunOutcome::RolledBack, 0),
    ] {
        let lab = Lab::new();
        let run = run_and_die(&lab, r#"lab::set("a", 5); lab::set("b", 1);"#, Kill::AfterApply(0)).unwrap();
        lab.lamps.board().lamps.insert("a".into(), 3);
        let report = again(&lab, &run);
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        assert!(report.error.unwrap().message.contains("is at \"level 3\""));
        let reply = contraflow_runtime::effect::Reply {
            choice: Some(choice.to_owned()).filter(|choice| !choice.is_empty()),
            ..contraflow_runtime::effect::Reply::new(!choice.is_empty(), "ana")
        };
        assert!(lab.tokio.block_on(lab.store.answer(&run.id, "1:lab.set", &reply)).unwrap());
        let report = again(&lab, &found(&lab, &run.id));
        assert_eq!(report.outcome, outcome, "{choice}: {:?}", report.error);
        assert_eq!(lab.level("a"), level, "{choice}");
    }
}

#[test]
fn a_change_that_is_not_atomic_is_decided_by_a_person_although_the_target_is_where_it_was() {
    for (choice, outcome, level) in [
        ("again", RunOutcome::Succeeded, 5),
        ("done", RunOutcome::Succeeded, 0),
        ("fail", RunOutcome::RollbackIncomplete, 0),
    ] {
        let lab = Lab::new();
        lab.lamps.board().lamps.insert("lava".into(), 0);
        let script = r#"lab::set("lava", 5);"#;
        let run = run_and_die(&lab, script, Kill::AfterApply(0)).unwrap();
        lab.lamps.board().lamps.insert("lava".into(), 0);
        let report = again(&lab, &run);
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        asks(&report.error.unwrap(), "1:lab.set", &["again", "done", "fail"]);
        let reply = contraflow_runtime::effect::Reply {
            choice: Some(choice.to_owned()),
            ..contraflow_runtime::effect::Reply::new(true, "ana")
        };
        assert!(lab.tokio.block_on(lab.store.answer(&run.id, "1:lab.set", &reply)).unwrap());
        let report = again(&lab, &found(&lab, &run.id));
        assert_eq!(report.outcome, outcome, "{choice}: {:?}", report.error);
        assert_eq!(lab.level("lava"), level, "{choice}");
    }
}

/// A store that is out of reach once the first intent is in it.
struct OutOfReach(AtomicBool);

#[async_trait]
impl Gate for OutOfReach {
    async fn before(&self, records: &[Sealed], durable: bool) -> Result<(), StoreError> {
        self.open()?;
        if durable && !records.is_empty() {
            self.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    fn open(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(StoreError::new("the store does not answer")),
            false => Ok(()),
        }
    }
}

#[test]
fn a_runner_that_cannot_ask_whose_the_run_is_sends_nothing_again() {
    let lab = Lab::new();
    lab.fault("a", [Fault::Retryable, Fault::None]);
    let store = Arc::new(Gated { inner: Arc::clone(&lab.store), gate: OutOfReach(AtomicBool::new(false)) });
    let bundle = bundle(r#"lab::set("a", 5);"#);
    let report = lab.tokio.block_on(lab.runtime_on(store).run(&bundle, &BTreeMap::new())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
    assert_eq!(lab.log(), ["a 0 -> 5"], "it was sent once");
}

#[test]
fn an_action_that_a_person_says_has_happened_is_undone_with_the_rest() {
    let lab = Lab::new();
    let script = r#"lab::ring("ask me", #{ undoable: true }); lab::set("a", 1); fail("no");"#;
    let run = run_and_die(&lab, script, Kill::AfterAppend(0)).unwrap();
    again(&lab, &run);
    let reply = contraflow_runtime::effect::Reply {
        choice: Some("done".into()),
        ..contraflow_runtime::effect::Reply::new(true, "ana")
    };
    assert!(lab.tokio.block_on(lab.store.answer(&run.id, "1:lab.ring", &reply)).unwrap());
    let report = again(&lab, &found(&lab, &run.id));
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.error);
    assert!(lab.log().iter().any(|line| line == "unring unseen"), "{:?}", lab.log());
}

#[test]
fn an_action_in_doubt_is_undone_with_the_rest_once_a_person_says_that_it_happened() {
    for (choice, undone) in [("done", true), ("fail", false)] {
        let lab = Lab::new();
        let script = r#"lab::set("a", 1); lab::ring("ask me", #{ undoable: true });"#;
        let run = run_and_die(&lab, script, Kill::AfterAppend(1)).unwrap();
        let back = |run: &Run| {
            let how = Takeover { take_over: true, ..Takeover::default() };
            lab.tokio.block_on(lab.runtime().roll_back(run, how, &Stop::default())).unwrap()
        };
        let report = back(&run);
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        assert_eq!(lab.level("a"), 1, "what came before it may be what it stands on");
        let id = "rollback/2:lab.ring";
        asks(&report.error.unwrap(), "rollback/2:lab.ring", &["done", "fail"]);
        let reply = contraflow_runtime::effect::Reply {
            choice: Some(choice.into()),
            ..contraflow_runtime::effect::Reply::new(true, "ana")
        };
        assert!(lab.tokio.block_on(lab.store.answer(&run.id, id, &reply)).unwrap());
        let report = back(&found(&lab, &run.id));
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
        assert_eq!(lab.level("a"), 0);
        assert_eq!(lab.log().iter().any(|line| line == "unring unseen"), undone, "{:?}", lab.log());
    }
}

#[test]
fn a_closure_that_failed_is_called_again_by_the_next_rollback() {
    let lab = Lab::new();
    lab.fault("c", [Fault::None, Fault::Terminal]);
    let report =
        lab.run(r#"lab::set("a", 1); lab::set("c", 5); on_rollback(|| { lab::ring("undo"); lab::set("c", 2); }); fail("no");"#);
    assert_eq!(report.outcome, RunOutcome::RollbackIncomplete);
    let run = found(&lab, &report.run);
    let back =
        lab.tokio.block_on(lab.runtime().roll_back(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!(back.outcome, RunOutcome::RolledBack, "{back:?}");
    assert_eq!(lab.lamps.board().rings.len(), 1, "what it did before is not done again");
    assert_eq!(["a", "c"].map(|lamp| lab.level(lamp)), [0, 0]);
}

#[test]
fn a_guard_watches_again_where_a_run_died_in_a_sleep() {
    let lab = Lab::new();
    let script = r#"
        lab::set("a", 1);
        lab::guard("c", 3, || { for i in 0..50 { lab::look("a"); } sleep("1m"); });
    "#;
    let run = run_and_die(&lab, script, Kill::AfterAppend(1)).unwrap();
    lab.lamps.board().lamps.insert("c".into(), 9);
    let begun = std::time::Instant::now();
    let report = again(&lab, &run);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "nobody watched");
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
    assert_eq!(report.error.map(|error| error.code.as_str().to_owned()), Some("guard-breached".into()));
    assert_eq!(lab.level("a"), 0);
}

#[test]
fn a_run_that_did_nothing_is_rolled_back_with_nothing_to_undo() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::look("a"); fail("no");"#);
    assert_eq!(report.outcome, RunOutcome::Failed);
    let run = found(&lab, &report.run);
    let back =
        lab.tokio.block_on(lab.runtime().roll_back(&run, Takeover::default(), &Stop::default())).unwrap();
    assert_eq!((back.outcome, back.left.len()), (RunOutcome::RolledBack, 0));
    assert_eq!(found(&lab, &run.id).status, RunStatus::Ended(RunOutcome::RolledBack));
}

#[test]
fn a_run_that_cannot_have_again_what_it_needs_is_paused_and_nothing_is_undone_in_part() {
    let lab = Lab::new();
    let script =
        r#"lab::set("a", 1); lab::key(); lab::set("b", 1); on_rollback(|| lab::ring("undo")); fail("no");"#;
    let run = run_and_die(&lab, script, Kill::AfterApply(1)).unwrap();
    let back = |run: &Run| {
        let how = Takeover { take_over: true, ..Takeover::default() };
        lab.tokio.block_on(lab.runtime().roll_back(run, how, &Stop::default())).unwrap()
    };
    lab.lamps.board().locked = true;
    for report in [again(&lab, &run), back(&found(&lab, &run.id))] {
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        let error = report.error.unwrap();
        assert_eq!(error.code.as_str(), "not-resumable");
        assert_eq!(error.message, "the key is no longer available: the drawer is locked");
        assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [1, 1]);
    }
    lab.lamps.board().locked = false;
    assert_eq!(back(&found(&lab, &run.id)).outcome, RunOutcome::RolledBack);
    assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [0, 0]);
}

#[test]
fn a_script_that_ends_before_what_its_journal_says_is_paused_and_nothing_is_undone_in_part() {
    let lab = Lab::new();
    for rest in [
        r#"lab::set("b", 1); fail("no");"#,
        r#"on_rollback(|| lab::ring("undo")); lab::look("c"); fail("no");"#,
    ] {
        let script = |first: &str| format!(r#"lab::set("a", 1); {first} {rest}"#);
        let run = run_and_die(&lab, &script(""), Kill::AfterAppend(2)).unwrap();
        let how = Takeover { take_over: true, new_script: Some(bundle(&script("fail(\"early\");"))) };
        let report = lab.tokio.block_on(lab.runtime().resume(&run, how, &Stop::default())).unwrap();
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        let error = report.error.unwrap();
        assert_eq!(error.code.as_str(), "diverged");
        assert!(error.message.ends_with("which is in the journal: early"), "{error:?}");
        assert_eq!(lab.level("a"), 1);
        let report = again(&lab, &found(&lab, &run.id));
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
        assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [0, 0]);
    }
}

#[test]
fn another_script_goes_on_within_branches_once_each_did_all_that_was_done() {
    let script = |first: &str, second: &str| {
        format!(
            r#"parallel([
            || {{ lab::set("a", 1); lab::wait_for("c", 1); {first} }},
            || {{ for i in 0..40 {{ lab::look("b"); }} lab::set("b", 2); lab::wait_for("c", 1); {second} }},
        ]);"#
        )
    };
    for _ in 0..10 {
        let lab = Lab::new();
        let run = run_and_die(&lab, &script("fail(\"a mistake\");", ""), Kill::AfterApply(1)).unwrap();
        lab.lamps.board().lamps.insert("c".into(), 1);
        let take = |text: &str| Takeover { take_over: true, new_script: Some(bundle(text)) };
        let other = take(&script("lab::set(\"c\", 3);", "").replace("\"b\", 2", "\"b\", 7"));
        let report = lab.tokio.block_on(lab.runtime().resume(&run, other, &Stop::default())).unwrap();
        assert_eq!(report.error.map(|e| e.code.as_str().to_owned()), Some("diverged".into()));
        assert_eq!(lab.level("c"), 1);
        let mended = take(&script("", "lab::set(\"b\", 3);"));
        let run = found(&lab, &run.id);
        let report = lab.tokio.block_on(lab.runtime().resume(&run, mended, &Stop::default())).unwrap();
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        assert_eq!(lab.level("b"), 3);
    }
}

#[test]
fn an_action_that_was_broken_off_is_taken_back_with_the_rest() {
    let timed_out = r#"lab::set("a", 1); lab::ring("for ever", #{ undoable: true });"#;
    let stopped = r#"lab::set("a", 1); step("short", #{ timeout: "50ms" }, || lab::ring("for ever", #{ undoable: true }));"#;
    for script in [timed_out, stopped] {
        let lab = Lab::new();
        let report = lab.run(script);
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
        assert!(lab.log().iter().any(|line| line == "unring unseen"), "{script}: {:?}", lab.log());
        assert_eq!(lab.level("a"), 0);
        let run = found(&lab, &report.run);
        let replayed = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
        assert_eq!((replayed.outcome, replayed.left.len()), (RunOutcome::RolledBack, 0), "{replayed:?}");
    }
}

#[test]
fn a_taking_back_that_was_broken_off_is_asked_about_where_twice_would_do_harm() {
    for (choice, times) in [("done", 1), ("again", 2)] {
        let lab = Lab::new();
        let script = r#"lab::set("a", 1); lab::ring("ask me", #{ undoable: true }); fail("no");"#;
        let run = run_and_die(&lab, script, Kill::AfterApply(2)).unwrap();
        let report = again(&lab, &run);
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        asks(&report.error.unwrap(), "rollback/2:lab.ring", &["again", "done"]);
        let reply = contraflow_runtime::effect::Reply {
            choice: Some(choice.into()),
            ..contraflow_runtime::effect::Reply::new(true, "ana")
        };
        assert!(lab.tokio.block_on(lab.store.answer(&run.id, "rollback/2:lab.ring", &reply)).unwrap());
        let report = again(&lab, &found(&lab, &run.id));
        assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
        assert_eq!(lab.level("a"), 0);
        let undone = lab.log().iter().filter(|line| line.starts_with("unring")).count();
        assert_eq!(undone, times, "{choice}: {:?}", lab.log());
    }
}

#[test]
fn a_change_that_was_undone_just_before_a_death_is_told_as_undone() {
    let lab = Lab::new();
    let run = run_and_die(&lab, r#"lab::set("a", 1); fail("no");"#, Kill::AfterApply(1)).unwrap();
    let report = again(&lab, &run);
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{report:?}");
    assert!(
        lab.lines().contains(&"rollback/1:lab.set observed: level 1 -> level 0".to_owned()),
        "{:?}",
        lab.lines()
    );
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0"]);
}

#[test]
fn a_branch_that_pauses_the_run_leaves_open_what_others_had_begun() {
    for _ in 0..2 {
        let lab = Lab::new();
        lab.fault("b", [Fault::Hangs, Fault::None]);
        // The second branch has so much to answer first that the other has paused the run by then.
        let script = r#"parallel([
            || { sleep("200ms"); lab::set("a", 5); },
            || { for i in 0..400 { lab::look("c"); } lab::set("b", 5); },
        ]);"#;
        let run = run_and_die(&lab, script, Kill::AfterApply(0)).unwrap();
        lab.lamps.board().lamps.insert("a".into(), 3);
        let report = again(&lab, &run);
        assert_eq!(report.outcome, RunOutcome::Paused, "{report:?}");
        let reply = contraflow_runtime::effect::Reply {
            choice: Some("again".into()),
            ..contraflow_runtime::effect::Reply::new(true, "ana")
        };
        assert!(lab.tokio.block_on(lab.store.answer(&run.id, "1:par[0]/2:lab.set", &reply)).unwrap());
        // On a busy machine the other branch may not have come that far.
        lab.lamps.board().faults.clear();
        let report = again(&lab, &found(&lab, &run.id));
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        assert_eq!(["a", "b"].map(|lamp| lab.level(lamp)), [5, 5]);
    }
}

/// The error says which question has to be answered first, and with what.
fn asks(error: &RunError, id: &str, answers: &[&str]) {
    match &error.next[..] {
        [NextStep::Answer { question, choices, .. }, NextStep::ResumeRun { .. }] => {
            assert!(question == id && choices == answers, "{error:?}");
        }
        _ => panic!("{error:?}"),
    }
}
