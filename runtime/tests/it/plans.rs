//! Saved plans: what is run is what was planned, once, and nothing else without asking.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use contraflow_runtime::{
    Approvals, Bundle, Report, Runtime, SavedPlan, Stop, Takeover,
    effect::Reply,
    error::{NextStep, RunError},
    event::{Event, RunOutcome},
    journal::Run,
    world::YesToAll,
};

use crate::{
    lab::Lab,
    resume::{Death, Kill, mortal},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Sees what a plan cannot: a lamp that the plan has changed is looked at as it was.
const SURPRISE: &str = r#"
    lab::set("a", 1);
    step("more", || if lab::look("a") == 1 { lab::set("b", 2); });
    lab::set("c", 3);
"#;

fn save(lab: &Lab, script: &str) -> SavedPlan {
    save_with(lab, &lab.runtime(), script).unwrap()
}

fn save_with(lab: &Lab, runtime: &Runtime, script: &str) -> Result<SavedPlan, RunError> {
    let bundle = Lab::bundle(script);
    let planned = lab.tokio.block_on(runtime.foresee(&bundle, &BTreeMap::new(), &Stop::default())).unwrap();
    let plan = runtime.save(&planned, &bundle, DAY)?;
    // As it comes out of its file.
    SavedPlan::parse(&plan.to_json())
}

fn run(lab: &Lab, plan: &SavedPlan) -> Report {
    lab.tokio.block_on(lab.runtime().run_plan(plan, &Stop::default())).unwrap()
}

fn refused(lab: &Lab, plan: &SavedPlan) -> RunError {
    refused_by(lab, &lab.runtime(), plan)
}

fn refused_by(lab: &Lab, runtime: &Runtime, plan: &SavedPlan) -> RunError {
    let log = lab.log();
    let error = lab.tokio.block_on(runtime.run_plan(plan, &Stop::default())).unwrap_err().0.remove(0);
    assert_eq!(lab.log(), log, "something was changed");
    error
}

fn found(lab: &Lab, id: &str) -> Run {
    lab.tokio.block_on(lab.store.find(id)).unwrap().remove(0)
}

fn resume(lab: &Lab, id: &str) -> Report {
    let how = Takeover { take_over: true, ..Takeover::default() };
    lab.tokio.block_on(lab.runtime().resume(&found(lab, id), how, &Stop::default())).unwrap()
}

/// Answers the one question that the run has.
fn answer(lab: &Lab, id: &str, yes: bool) {
    let asked = lab.tokio.block_on(lab.store.asked(Some(id))).unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let reply = Reply::new(yes, "ana");
    assert!(lab.tokio.block_on(lab.store.answer(id, &asked[0].id, &reply)).unwrap());
}

fn told(error: &RunError) -> String {
    let hints = error.hints.iter().map(|hint| format!("\n  {hint}")).collect::<String>();
    format!("{}: {}{hints}", error.code, error.message)
}

#[test]
fn what_was_planned_is_run_from_the_plan_alone() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1); lab::set("a", 2); lab::ring("done"); lab::set("b", 0);"#);
    let changes: Vec<String> = plan
        .foreseen
        .changes
        .iter()
        .map(|c| format!("{} {}: {} -> {}", c.id, c.target, c.from_text, c.to_text))
        .collect();
    assert_eq!(
        changes,
        [
            "1:lab.set lab/a: level 0 -> level 1",
            "2:lab.set lab/a: level 1 -> level 2",
            "4:lab.set lab/b: level 0 -> level 0"
        ]
    );
    assert_eq!(plan.foreseen.actions[0].text, "ring done");
    assert_eq!((&*plan.runbook, &*plan.environment, &*plan.created_by), ("lab", "lab", "starter@lab"));
    assert_eq!(lab.log().len(), 0);
    let report = run(&lab, &plan);
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!((lab.level("a"), lab.lamps.board().rings.len()), (2, 1));
    let begun = lab.events.lock().unwrap().iter().filter(|e| e.run == report.run).count();
    let modes = lab.events.lock().unwrap();
    assert!(begun > 0 && modes.iter().all(|e| !matches!(&e.event, Event::Asked { .. })));
}

#[test]
fn a_plan_is_refused_where_something_has_moved_and_shows_both_sides() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1); step("more", || { lab::set("b", 2); lab::set("c", 3); });"#);
    lab.lamps.board().lamps.insert("b".into(), 70);
    assert_eq!(
        told(&refused(&lab, &plan)),
        "\
saved-plan: the plan no longer holds: one thing has changed since it was made; nothing was changed
  lab/b  planned: level 0   now: level 70"
    );
    lab.lamps.board().lamps.insert("b".into(), 0);
    assert_eq!(run(&lab, &plan).outcome, RunOutcome::Succeeded, "a refused plan is not used up");
}

#[test]
fn a_plan_is_refused_if_the_script_would_now_do_something_else() {
    let lab = Lab::new();
    let script = r#"if lab::look("c") == 0 { lab::ring("first"); lab::set("a", 1); } else { lab::set("b", lab::look("c")); }"#;
    let plan = save(&lab, script);
    lab.lamps.board().lamps.insert("c".into(), 5);
    assert_eq!(
        told(&refused(&lab, &plan)),
        "\
saved-plan: the plan no longer holds: 2 things have changed since it was made; nothing was changed
  lab/a     planned: level 0 -> level 1   now: lab.set lab/b: level 0 -> level 5
  lab.ring  planned: ring first           now: nothing"
    );
}

#[test]
fn a_plan_is_refused_if_it_can_no_longer_be_planned() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::expect("b", 0); lab::set("a", 1);"#);
    lab.lamps.board().lamps.insert("b".into(), 9);
    assert_eq!(
        told(&refused(&lab, &plan)),
        "\
provider: the plan no longer holds: expected 0, got 9
  nothing was changed"
    );
}

#[test]
fn what_is_at_its_end_already_is_fine() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1); lab::set("b", 2);"#);
    lab.lamps.board().lamps.insert("b".into(), 2);
    assert_eq!(run(&lab, &plan).outcome, RunOutcome::Succeeded);
    assert_eq!(lab.log(), ["a 0 -> 1"]);
}

#[test]
fn what_is_outside_the_plan_pauses_until_somebody_decides() {
    let lab = Lab::new();
    let plan = save(&lab, SURPRISE);
    let report = run(&lab, &plan);
    assert_eq!(report.outcome, RunOutcome::Paused);
    let error = report.error.unwrap();
    assert!(
        matches!(&error.next[..], [NextStep::Answer { question, .. }, NextStep::ResumeRun { .. }] if question.ends_with("lab.set")),
        "{error:?}"
    );
    assert_eq!(
        (error.code.as_str(), &*error.message),
        ("outside-plan", "lab.set lab/b: level 0 -> level 2 is not in the plan")
    );
    assert_eq!(lab.log(), ["a 0 -> 1"]);
    // Still nobody has decided, and the run is still bound.
    assert_eq!(resume(&lab, &report.run).outcome, RunOutcome::Paused);
    answer(&lab, &report.run, true);
    let resumed = resume(&lab, &report.run);
    assert_eq!(resumed.outcome, RunOutcome::Succeeded, "{:?}", resumed.error);
    assert_eq!(lab.log(), ["a 0 -> 1", "b 0 -> 2", "c 0 -> 3"]);
}

#[test]
fn whoever_denies_what_is_outside_the_plan_lets_it_fail() {
    let lab = Lab::new();
    let report = run(&lab, &save(&lab, SURPRISE));
    answer(&lab, &report.run, false);
    let resumed = resume(&lab, &report.run);
    assert_eq!(resumed.outcome, RunOutcome::RolledBack);
    let error = resumed.error.unwrap();
    assert_eq!(
        (error.code.as_str(), &*error.message),
        ("denied", "ana denied an effect outside the plan, lab.set lab/b: level 0 -> level 2")
    );
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0"]);
}

#[test]
fn a_yes_to_everything_is_none_to_what_is_outside_the_plan() {
    let mut lab = Lab::new();
    lab.people = Some(Arc::new(YesToAll { by: "eager".into() }));
    let report = run(&lab, &save(&lab, SURPRISE));
    assert_eq!(report.outcome, RunOutcome::Paused);
    assert!(report.error.unwrap().is("outside-plan"));
}

#[test]
fn a_yes_holds_for_what_was_asked_and_not_for_what_it_has_become() {
    let lab = Lab::new();
    let report = run(&lab, &save(&lab, SURPRISE));
    answer(&lab, &report.run, true);
    lab.lamps.board().lamps.insert("b".into(), 50);
    let resumed = resume(&lab, &report.run);
    assert_eq!(resumed.outcome, RunOutcome::Paused);
    assert!(resumed.error.unwrap().message.contains("level 50 -> level 2"));
}

#[test]
fn an_action_that_is_not_in_the_plan_asks_too() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1); lab::ring(`level ${lab::look("a")}`);"#);
    let report = run(&lab, &plan);
    assert_eq!(report.outcome, RunOutcome::Paused);
    assert_eq!(report.error.unwrap().message, "lab.ring ring level 1 is not in the plan");
    answer(&lab, &report.run, true);
    assert_eq!(resume(&lab, &report.run).outcome, RunOutcome::Succeeded);
    assert_eq!(lab.lamps.board().rings.len(), 1);
}

#[test]
fn a_run_that_died_anywhere_is_still_bound_and_asks_once() {
    let mut kills = 0;
    for n in 0..20 {
        for kill in [Kill::BeforeAppend(n), Kill::AfterAppend(n), Kill::AfterApply(n)] {
            let lab = Lab::new();
            let plan = save(&lab, SURPRISE);
            let death = Death::at(kill);
            let runtime = lab.runtime_on(mortal(&lab, &death));
            let mut report = lab.tokio.block_on(runtime.run_plan(&plan, &Stop::default())).unwrap();
            lab.lamps.board().after = None;
            kills += usize::from(death.struck());
            if report.outcome != RunOutcome::Paused {
                report = resume(&lab, &report.run);
                assert_eq!(report.outcome, RunOutcome::Paused, "{kill:?}: {:?}", report.error);
            }
            answer(&lab, &report.run, true);
            // It dies once more, somewhere behind the decision.
            let death = Death::at(kill);
            let runtime = lab.runtime_on(mortal(&lab, &death));
            let how = Takeover { take_over: true, ..Takeover::default() };
            let died = found(&lab, &report.run);
            let mut end = lab.tokio.block_on(runtime.resume(&died, how, &Stop::default())).unwrap();
            lab.lamps.board().after = None;
            if end.outcome != RunOutcome::Succeeded {
                end = resume(&lab, &report.run);
            }
            assert_eq!(end.outcome, RunOutcome::Succeeded, "{kill:?}: {:?}", end.error);
            assert_eq!((lab.level("a"), lab.level("b"), lab.level("c")), (1, 2, 3), "{kill:?}");
        }
    }
    assert!(kills > 3, "{kills}");
}

#[test]
fn what_undoes_is_never_outside() {
    let lab = Lab::new();
    let script = r#"
        on_rollback(|| { lab::set("c", 9); lab::ring("undone"); });
        lab::set("a", 1);
        if lab::look("a") == 1 { fail("no good"); }
    "#;
    let report = run(&lab, &save(&lab, script));
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.error);
    assert_eq!(lab.log(), ["a 0 -> 1", "a 1 -> 0", "c 0 -> 9"]);
}

#[test]
fn a_step_named_rollback_is_no_way_around_the_plan() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); step("rollback", || if lab::look("a") == 1 { lab::set("b", 2); });"#;
    let report = run(&lab, &save(&lab, script));
    assert!(report.error.unwrap().is("outside-plan"));
}

#[test]
fn a_plan_is_used_once() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    let first = run(&lab, &plan);
    lab.lamps.board().lamps.insert("a".into(), 0);
    let error = refused(&lab, &plan);
    assert_eq!(error.message, format!("the plan was already used by run {}", first.run));
    assert_eq!(lab.level("a"), 0);
}

#[test]
fn of_many_that_run_one_plan_at_the_same_time_one_does() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    let runtime = lab.runtime();
    let ended = lab.tokio.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (runtime, plan) = (runtime.clone(), plan.clone());
            tasks.spawn(async move { runtime.run_plan(&plan, &Stop::default()).await });
        }
        tasks.join_all().await
    });
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 1);
    assert_eq!(lab.log(), ["a 0 -> 1"]);
    assert_eq!(lab.tokio.block_on(lab.store.runs(100)).unwrap().len(), 1);
}

#[test]
fn a_plan_expires() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    lab.off.store(24 * 3600 + 1, std::sync::atomic::Ordering::Relaxed);
    let error = refused(&lab, &plan);
    assert!(error.is("saved-plan") && error.message.starts_with("the plan expired at "), "{error}");
}

#[test]
fn a_plan_is_for_one_environment() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    let error = refused_by(&lab, &Runtime::builder().store(lab.store.clone()).build(), &plan);
    assert_eq!(error.message, r#"the plan was made for the environment "lab", but this is "sandbox""#);
}

#[test]
fn a_plan_that_was_altered_is_refused() {
    let lab = Lab::new();
    let text = save(&lab, r#"lab::set("a", 1);"#).to_json();
    for (from, to) in [
        ("level 1", "level 9"),
        ("starter@lab", "someone@lab"),
        ("lab::set", "lab::set "),
        ("\"to\": 1", "\"to\": 2"),
        ("\"v\": 1", "\"v\": 2"),
        ("\"created_by\"", "\"more\": 1, \"created_by\""),
        ("{", ""),
    ] {
        let altered = text.replacen(from, to, 1);
        assert_ne!(altered, text, "{from}");
        let error = SavedPlan::parse(&altered).unwrap_err();
        assert!(error.is("saved-plan"), "{from}: {error}");
    }
    assert!(SavedPlan::parse(&text).is_ok());
}

#[test]
fn a_plan_that_is_not_complete_is_not_saved() {
    let lab = Lab::new();
    let script = r#"lab::set("a", 1); if lab::ring("x") == 1 { lab::set("b", 1); }"#;
    let error = save_with(&lab, &lab.runtime(), script).unwrap_err();
    assert!(error.is("unknown-in-plan") && error.message.starts_with("the plan is incomplete: "), "{error}");
}

#[test]
fn a_plan_holds_no_secret() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::blab("token"); lab::ring(lab::blab("other").echo); lab::set("a", 1);"#);
    let text = plan.to_json();
    for name in ["token", "other"] {
        assert!(!text.contains(&crate::lab::secret_value(name)), "{text}");
    }
    assert_eq!(run(&lab, &plan).outcome, RunOutcome::Succeeded);
}

#[test]
fn a_plan_knows_what_it_needs_whom_it_asks_and_where_there_is_no_way_back() {
    let lab = Lab::new();
    let plan = save(
        &lab,
        r#"lab::look("c"); lab::set("a", 666); approve("go on?", #{ by: "managers", at_least: 2 });
           point_of_no_return("that was it"); sleep("10m");"#,
    );
    let foreseen = &plan.foreseen;
    let targets: Vec<String> = foreseen.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["lab/a", "lab/c"]);
    let question = &foreseen.questions[0];
    assert_eq!((&*question.text, &*question.by, question.at_least), ("go on?", "managers", 2));
    let marks: Vec<&str> = foreseen.no_return.iter().map(|mark| &*mark.why).collect();
    assert_eq!(marks, ["the lamp has melted", "that was it"]);
    assert_eq!(foreseen.at_least_ms, 600_000);
}

#[test]
fn without_roles_a_name_is_told_to_be_that_of_a_person() {
    let lab = Lab::new();
    let script = r#"approve("go on?", #{ by: "managers" });"#;
    let runtime = lab.builder(lab.store.clone()).roles(BTreeMap::new()).build();
    assert_eq!(save_with(&lab, &runtime, script).unwrap().foreseen.questions[0].by, "the person managers");
    assert_eq!(save(&lab, script).foreseen.questions[0].by, "managers");
}

fn approved_by(lab: &Lab, plan: &SavedPlan, replies: &[Reply]) {
    for reply in replies {
        lab.tokio.block_on(lab.store.approve(&plan.id, plan.expires_at, reply)).unwrap();
    }
}

/// A runtime that wants two managers to agree.
fn strict(lab: &Lab) -> Runtime {
    lab.builder(lab.store.clone())
        .approvals(Approvals { by: vec!["managers".to_owned()], at_least: 2 })
        .build()
}

#[test]
fn where_approvals_are_wanted_a_plan_runs_only_with_those_that_count() {
    let lab = Lab::new();
    let runtime = strict(&lab);
    let plan = save(&lab, SURPRISE);
    approved_by(&lab, &plan, &["ana", "ana@desk", "cy", "starter"].map(|by| Reply::new(true, by)));
    assert_eq!(
        told(&refused_by(&lab, &runtime, &plan)),
        "\
denied-by-policy: the plan has 1 of the 2 approvals by managers that this environment requires
  not counted: ana has already said yes: 2 different people must
  not counted: cy may not answer; these may: managers
  not counted: starter started the run: somebody else must answer"
    );
    approved_by(&lab, &plan, &[Reply::new(true, "bo")]);
    let report = lab.tokio.block_on(runtime.run_plan(&plan, &Stop::default())).unwrap();
    // What is outside the plan is decided by those who would have approved it.
    assert_eq!(report.outcome, RunOutcome::Paused, "{:?}", report.error);
    let asked = lab.tokio.block_on(lab.store.asked(Some(&report.run))).unwrap().remove(0);
    assert_eq!((&*asked.question.rule.by, asked.question.rule.at_least), ("managers", 2));
}

#[test]
fn an_approval_is_of_one_plan_and_one_no_is_a_no() {
    let lab = Lab::new();
    let runtime = strict(&lab);
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    approved_by(&lab, &plan, &["ana", "bo"].map(|by| Reply::new(true, by)));
    // The same script, planned again, is another plan.
    let other = save(&lab, r#"lab::set("a", 1);"#);
    assert_ne!(plan.id, other.id);
    assert!(refused_by(&lab, &runtime, &other).is("denied-by-policy"));
    let no = Reply { comment: Some("freeze".into()), ..Reply::new(false, "ana") };
    approved_by(&lab, &plan, &[no]);
    assert_eq!(refused_by(&lab, &runtime, &plan).message, "ana denied the plan: freeze");
}

#[test]
fn an_approved_plan_that_no_longer_holds_is_refused_all_the_same() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    approved_by(&lab, &plan, &["ana", "bo"].map(|by| Reply::new(true, by)));
    lab.lamps.board().lamps.insert("a".into(), 7);
    let error = refused_by(&lab, &strict(&lab), &plan);
    assert!(error.is("saved-plan") && error.message.contains("no longer holds"), "{error}");
    // Nor when what had moved is back.
    lab.lamps.board().lamps.insert("a".into(), 0);
    let error = refused_by(&lab, &strict(&lab), &plan);
    assert!(error.is("denied-by-policy") && error.message.contains("0 of the 2"), "{error}");
    approved_by(&lab, &plan, &["ana", "bo"].map(|by| Reply::new(true, by)));
    let report = lab.tokio.block_on(strict(&lab).run_plan(&plan, &Stop::default())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn the_scripts_of_a_plan_are_those_that_were_planned() {
    let lab = Lab::new();
    let plan = save(&lab, r#"lab::set("a", 1);"#);
    assert_eq!(plan.bundle, Bundle { ..Lab::bundle(r#"lab::set("a", 1);"#) });
    let report = run(&lab, &plan);
    assert_eq!(found(&lab, &report.run).bundle, plan.bundle_hash);
}
