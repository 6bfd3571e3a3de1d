//! The contract of stores.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use contraflow_runtime::{
    effect::{Question, QuestionKind, Reply},
    event::RunOutcome,
    journal::{Asked, Heartbeat, Holder, Request, RequestKind, RunStatus, Store, StoreError, Used},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Place, begin, begun, begun_with, chain, chain_of, holds};

/// Tests of all of it, on places that `$place` makes.
macro_rules! contracts {
    ($place:path) => {
        contracts! { $place:
            a_run_is_found_as_it_was_begun_by_its_id_or_an_end_of_it,
            names_of_any_kind_are_kept_as_they_are,
            runs_are_listed_newest_first,
            records_come_back_in_order_whether_they_were_durable_or_not,
            records_of_a_mebibyte_come_back_as_they_were,
            whoever_has_an_old_epoch_can_do_nothing,
            of_a_hundred_that_claim_a_run_at_the_same_time_one_gets_it,
            once_a_run_is_claimed_nothing_of_its_old_holder_arrives,
            a_holder_is_alive_as_long_as_it_sends_heartbeats,
            other_scripts_take_the_place_of_the_first_for_whoever_holds_the_run,
            a_request_is_told_to_the_holder_and_forgotten_with_a_claim,
            a_run_that_ended_has_no_holder_and_one_that_paused_can_be_claimed,
            a_target_is_locked_for_one_run_and_freed_with_its_end,
            of_many_that_lock_a_target_at_the_same_time_one_gets_it,
            a_question_is_shown_answered_and_closed,
            an_answer_that_comes_too_late_is_refused,
            every_answer_is_kept_once_and_in_order,
            old_runs_go_with_their_records_and_scripts_unless_they_can_go_on,
            a_plan_is_used_by_one_run_which_is_bound_to_it,
            of_many_runs_from_one_plan_at_the_same_time_one_is_created,
            what_is_said_to_a_plan_is_kept_in_order,
            a_plan_is_forgotten_once_it_has_expired_and_its_run_is_gone,
            a_healthy_store_has_nothing_to_complain_of,
            many_runners_write_at_the_same_time,
            what_is_told_about_a_store_holds_no_password,
        }
    };
    ($place:path: $($name:ident,)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            if let Some(place) = $place().await {
                crate::store::contract::$name(&place).await;
            }
        }
    )+};
}
pub(super) use contracts;

fn lost<T: std::fmt::Debug>(what: &str, result: Result<T, StoreError>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} was taken"));
    assert!(error.lost, "{what}: {error}");
}

async fn found(store: &dyn Store, id: &str) -> contraflow_runtime::journal::Run {
    let mut found = store.find(id).await.unwrap();
    assert_eq!(found.len(), 1, "{id}: {found:?}");
    found.remove(0)
}

fn succeeded() -> RunStatus {
    RunStatus::Ended(RunOutcome::Succeeded)
}

pub(super) async fn a_run_is_found_as_it_was_begun_by_its_id_or_an_end_of_it(place: &Place) {
    let store = place.open().await;
    let (run, bundle, holder) = begun("blue-green-k3fq7a");
    store.create(&run, &bundle, &holder).await.unwrap();
    begin(&*store, "blue-green-k3fq7a-x").await;
    begin(&*store, "rollback-zzzzzz").await;
    let other = place.open().await;
    for store in [&store, &other] {
        let kept = found(&**store, "blue-green-k3fq7a").await;
        assert!(kept.is_alive());
        assert_eq!(kept.held.as_ref().unwrap().by, holder);
        assert_eq!(contraflow_runtime::journal::Run { held: None, ..kept }, run);
        assert_eq!(found(&**store, "zzzzzz").await.id, "rollback-zzzzzz");
        assert_eq!(found(&**store, "rollback").await.id, "rollback-zzzzzz");
        assert_eq!(store.find("blue-").await.unwrap().len(), 2);
        assert_eq!(store.find("").await.unwrap().len(), 3);
        for nothing in ["green", "blue-green-k3fq7aa", "%", "blue_green", "Blue"] {
            assert_eq!(store.find(nothing).await, Ok(vec![]), "{nothing}");
        }
        assert_eq!(store.bundle(&run.bundle).await, Ok(Some(bundle.clone())));
        assert_eq!(store.bundle("none").await, Ok(None));
        assert_eq!(store.last("blue-green-k3fq7a").await, Ok(None));
        assert_eq!(store.records("blue-green-k3fq7a").await, Ok(vec![]));
    }
}

pub(super) async fn names_of_any_kind_are_kept_as_they_are(place: &Place) {
    let store = place.open().await;
    for id in ["o'neill\"; DROP TABLE runs; --", "größe-雪-🚦", "back\\slash %s $1 ?1", " spaces "] {
        let (mut run, bundle, _) = begun(id);
        run.runbook = format!("{id}/runbook");
        run.environment = format!("{id}/environment");
        run.started_by = format!("{id}@host");
        run.params = json!({ id: [id, null, 1.5, { "deep": "line\nbreak\u{0}\u{1f}" }] });
        let holder = Holder { who: id.to_owned(), host: id.to_owned(), pid: 1 };
        store.create(&run, &bundle, &holder).await.unwrap();
        store.append(id, 1, &chain(1, 3), true).await.unwrap();
        holds(&*store, id, 3).await;
        let mut kept = found(&*store, id).await;
        assert_eq!(kept.held.take().unwrap().by, holder);
        assert_eq!(kept, run);
        assert_eq!(store.lock(id, 1, id, &format!("traffic/{id}")).await, Ok(None));
        let locks = store.locks().await.unwrap();
        assert_eq!((&*locks[0].environment, &*locks[0].target), (id, &*format!("traffic/{id}")));
        store.end(id, 1, succeeded(), Timestamp::now()).await.unwrap();
    }
    assert_eq!(store.check().await, Ok(vec![]));
}

pub(super) async fn runs_are_listed_newest_first(place: &Place) {
    let store = place.open().await;
    let now = Timestamp::now();
    for (id, ago) in [("b", 20), ("d", 0), ("a", 30), ("c", 10)] {
        let (mut run, bundle, holder) = begun(id);
        run.started_at = now - SignedDuration::from_mins(ago);
        store.create(&run, &bundle, &holder).await.unwrap();
    }
    let ids = async |limit: u32| -> Vec<String> {
        store.runs(limit).await.unwrap().into_iter().map(|run| run.id).collect()
    };
    assert_eq!(ids(2).await, ["d", "c"]);
    assert_eq!(ids(u32::MAX).await, ["d", "c", "b", "a"]);
}

pub(super) async fn records_come_back_in_order_whether_they_were_durable_or_not(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    let all = chain(1, 5000);
    let (mut rest, mut n) = (&all[..], 0);
    while !rest.is_empty() {
        n += 1;
        let (part, behind) = rest.split_at([1, 3, 700, 2, 1, 40, 1500][n % 7].min(rest.len()));
        store.append("r", 1, part, n % 3 == 0).await.unwrap();
        if n % 5 == 0 {
            store.append("r", 1, &[], true).await.unwrap();
            store.append("r", 1, &[], false).await.unwrap();
        }
        let last = store.last("r").await.unwrap();
        assert_eq!(last.as_ref(), part.last());
        rest = behind;
    }
    let other = place.open().await;
    holds(&*other, "r", 5000).await;
    for after in [0, 1, 1999, 2000, 4999] {
        let page = other.page("r", after).await.unwrap();
        assert_eq!(page[0].seq, after + 1);
        assert_eq!(page[..], all[usize::try_from(after).unwrap()..][..page.len()]);
    }
    assert_eq!(other.page("r", 5000).await, Ok(vec![]));
    assert_eq!(other.page("none", 0).await, Ok(vec![]));
}

pub(super) async fn records_of_a_mebibyte_come_back_as_they_were(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    let body = |seq: u64| format!("{{\"note\":\"{}\"}}", format!("{seq} µ \\\" ").repeat((1 << 20) / 8));
    let all = chain_of(1, 20, body);
    store.append("r", 1, &all[..1], false).await.unwrap();
    store.append("r", 1, &all[1..12], false).await.unwrap();
    store.append("r", 1, &all[12..], true).await.unwrap();
    let kept = store.records("r").await.unwrap();
    assert!(kept == all, "{} records came back altered", kept.len());
}

pub(super) async fn whoever_has_an_old_epoch_can_do_nothing(place: &Place) {
    let store = place.open().await;
    let run = begin(&*store, "r").await;
    let me = Holder::this("ann@laptop");
    store.append("r", 1, &chain(1, 2), true).await.unwrap();
    let asked = question("r", "w", None);
    store.ask(1, &asked).await.unwrap();
    assert_eq!(store.acquire("r", 1, &me).await, Ok(true));
    lost("append", store.append("r", 1, &chain(3, 3), false).await);
    lost("durable append", store.append("r", 1, &chain(3, 3), true).await);
    lost("empty append", store.append("r", 1, &[], true).await);
    lost("lock", store.lock("r", 1, "production", "traffic/web").await);
    lost("question", store.ask(1, &question("r", "v", None)).await);
    lost("end", store.end("r", 1, succeeded(), Timestamp::now()).await);
    store.close("r", 1, "w").await.unwrap();
    assert_eq!(store.asked(Some("r")).await.unwrap().len(), 1, "it is still open");
    assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Lost));
    assert_eq!(store.acquire("r", 1, &me).await, Ok(false));
    assert_eq!(store.locks().await, Ok(vec![]));
    holds(&*store, "r", 2).await;
    assert_eq!(found(&*store, "r").await.status, run.status);

    // A lock that the run has is of no use to whoever lost the run.
    assert_eq!(store.lock("r", 2, "production", "traffic/web").await, Ok(None));
    lost("own lock", store.lock("r", 1, "production", "traffic/web").await);
    store.append("r", 2, &chain(3, 3), true).await.unwrap();

    lost("append to nothing", store.append("none", 1, &chain(1, 1), true).await);
    lost("end of nothing", store.end("none", 1, succeeded(), Timestamp::now()).await);
    assert_eq!(store.heartbeat("none", 1).await, Ok(Heartbeat::Lost));
    assert_eq!(store.acquire("none", 1, &me).await, Ok(false));
}

pub(super) async fn of_a_hundred_that_claim_a_run_at_the_same_time_one_gets_it(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    for epoch in 1..=3 {
        let mut tasks = JoinSet::new();
        let mut stores = Vec::new();
        for _ in 0..5 {
            stores.push(place.open().await);
        }
        for n in 0..100 {
            let store = Arc::clone(&stores[n % stores.len()]);
            let holder = Holder { who: format!("{n}"), ..Holder::this("") };
            tasks.spawn(async move { (store.acquire("r", epoch, &holder).await.unwrap(), n) });
        }
        let won: Vec<usize> =
            tasks.join_all().await.into_iter().filter_map(|(won, n)| won.then_some(n)).collect();
        assert_eq!(won.len(), 1);
        let run = found(&*store, "r").await;
        assert_eq!((run.epoch, run.held.unwrap().by.who), (epoch + 1, won[0].to_string()));
    }
}

pub(super) async fn once_a_run_is_claimed_nothing_of_its_old_holder_arrives(place: &Place) {
    let (old, new) = (place.open().await, place.open().await);
    for round in 0..10 {
        let id = format!("r{round}");
        begin(&*old, &id).await;
        let written = Arc::new(AtomicU64::new(0));
        let writer = {
            let (old, id, written) = (Arc::clone(&old), id.clone(), Arc::clone(&written));
            tokio::spawn(async move {
                let records = chain(1, 20_000);
                for (record, n) in records.iter().zip(0..) {
                    match old.append(&id, 1, std::slice::from_ref(record), n % 4 == 0).await {
                        Ok(()) => written.store(record.seq, Ordering::SeqCst),
                        Err(error) => return (error, record.seq),
                    }
                }
                panic!("never refused");
            })
        };
        while written.load(Ordering::SeqCst) < 3 * round {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(new.acquire(&id, 1, &Holder::this("bob@desk")).await, Ok(true));
        let last = new.last(&id).await.unwrap().map_or(0, |last| last.seq);
        let (error, refused) = writer.await.unwrap();
        assert!(error.lost, "{error}");
        assert_eq!(refused, last + 1, "what was there when the claim returned is all that there is");
        new.append(&id, 2, &chain(last + 1, last + 2), true).await.unwrap();
        holds(&*old, &id, last + 2).await;
    }
}

pub(super) async fn a_holder_is_alive_as_long_as_it_sends_heartbeats(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    let silent = async || found(&*store, "r").await.held.unwrap().silent_ms;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = silent().await;
    assert!((300..10_000).contains(&before), "{before}");
    assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Held(None)));
    let after = silent().await;
    assert!((0..300).contains(&after), "{after}");
    assert!(found(&*store, "r").await.is_alive());
}

pub(super) async fn other_scripts_take_the_place_of_the_first_for_whoever_holds_the_run(place: &Place) {
    let store = place.open().await;
    let first = begin(&*store, "r").await;
    let other = contraflow_runtime::Bundle::single("other.rhai", "note(\"other\");");
    store.rebind("r", 1, &other).await.unwrap();
    store.rebind("r", 1, &other).await.unwrap();
    assert_eq!(found(&*store, "r").await.bundle, other.hash());
    assert_eq!(store.bundle(&other.hash()).await.unwrap().unwrap().files, other.files);
    assert!(store.bundle(&first.bundle).await.unwrap().is_some(), "the first ones are kept");
    assert_eq!(store.acquire("r", 1, &Holder::this("ann@laptop")).await, Ok(true));
    lost("scripts", store.rebind("r", 1, &other).await);
}

pub(super) async fn a_request_is_told_to_the_holder_and_forgotten_with_a_claim(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    begin(&*store, "r").await;
    assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Held(None)));
    let mut last = None;
    for kind in [RequestKind::Pause, RequestKind::Abort, RequestKind::Rollback] {
        let request = Request { kind, by: "bob \"the builder\"".to_owned() };
        other.request("r", &request).await.unwrap();
        last = Some(request);
        assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Held(last.clone())));
    }
    assert_eq!(store.heartbeat("r", 1).await, Ok(Heartbeat::Held(last)), "until it is heard");
    assert_eq!(other.acquire("r", 1, &Holder::this("bob@desk")).await, Ok(true));
    assert_eq!(other.heartbeat("r", 2).await, Ok(Heartbeat::Held(None)));
    // Nobody is there to be asked.
    other.end("r", 2, RunStatus::Ended(RunOutcome::Paused), Timestamp::now()).await.unwrap();
    other.request("r", &Request { kind: RequestKind::Abort, by: "bob".to_owned() }).await.unwrap();
    assert_eq!(other.acquire("r", 2, &Holder::this("bob@desk")).await, Ok(true));
    assert_eq!(other.heartbeat("r", 3).await, Ok(Heartbeat::Held(None)));
}

pub(super) async fn a_run_that_ended_has_no_holder_and_one_that_paused_can_be_claimed(place: &Place) {
    let store = place.open().await;
    let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
    let outcomes = [
        RunOutcome::Succeeded,
        RunOutcome::Failed,
        RunOutcome::RolledBack,
        RunOutcome::RollbackIncomplete,
        RunOutcome::Paused,
        RunOutcome::Aborted,
    ];
    for outcome in outcomes {
        let id = outcome.as_str();
        begin(&*store, id).await;
        store.append(id, 1, &chain(1, 2), false).await.unwrap();
        store.end(id, 1, RunStatus::Ended(outcome), at).await.unwrap();
        let run = store.find(id).await.unwrap().remove(0);
        assert_eq!((run.status, run.ended_at, run.held), (RunStatus::Ended(outcome), Some(at), None));
        assert_eq!(store.heartbeat(id, 1).await, Ok(Heartbeat::Lost), "{id}");
    }
    assert_eq!(store.acquire("paused", 1, &Holder::this("bob@desk")).await, Ok(true));
    let run = found(&*store, "paused").await;
    assert_eq!((run.status, run.ended_at, run.epoch), (RunStatus::Running, None, 2));
    assert_eq!(run.held.unwrap().by.who, "bob@desk");
    store.append("paused", 2, &chain(3, 4), true).await.unwrap();
    holds(&*store, "paused", 4).await;
}

pub(super) async fn a_target_is_locked_for_one_run_and_freed_with_its_end(place: &Place) {
    let (one, two) = (place.open().await, place.open().await);
    begin(&*one, "a").await;
    begin(&*two, "b").await;
    assert_eq!(one.locks().await, Ok(vec![]));
    assert_eq!(one.lock("a", 1, "production", "traffic/web").await, Ok(None));
    assert_eq!(one.lock("a", 1, "production", "traffic/web").await, Ok(None), "it has it already");
    let held = two.lock("b", 1, "production", "traffic/web").await.unwrap().unwrap();
    assert_eq!((&*held.run, &*held.started_by, &*held.environment), ("a", "ann@laptop", "production"));
    assert_eq!(held.target, "traffic/web");
    assert!(held.since.duration_until(Timestamp::now()).abs() < SignedDuration::from_mins(1));
    // Another target, and the same in another environment.
    assert_eq!(two.lock("b", 1, "production", "traffic/api").await, Ok(None));
    assert_eq!(two.lock("b", 1, "staging", "traffic/web").await, Ok(None));
    let all = |locks: Vec<contraflow_runtime::journal::Lock>| -> BTreeSet<String> {
        locks.into_iter().map(|l| format!("{} {} {}", l.environment, l.target, l.run)).collect()
    };
    assert_eq!(
        all(one.locks().await.unwrap()),
        ["production traffic/api b", "production traffic/web a", "staging traffic/web b"]
            .map(str::to_owned)
            .into()
    );
    for outcome in [RunOutcome::Paused, RunOutcome::RollbackIncomplete] {
        let epoch = found(&*one, "a").await.epoch;
        one.end("a", epoch, RunStatus::Ended(outcome), Timestamp::now()).await.unwrap();
        assert_eq!(two.lock("b", 1, "production", "traffic/web").await.unwrap().unwrap().run, "a");
        assert_eq!(one.acquire("a", epoch, &Holder::this("bob@desk")).await, Ok(true));
    }
    one.end("a", 3, RunStatus::Ended(RunOutcome::RolledBack), Timestamp::now()).await.unwrap();
    assert_eq!(two.lock("b", 1, "production", "traffic/web").await, Ok(None));
    two.end("b", 1, succeeded(), Timestamp::now()).await.unwrap();
    assert_eq!(two.locks().await, Ok(vec![]));
}

pub(super) async fn of_many_that_lock_a_target_at_the_same_time_one_gets_it(place: &Place) {
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(place.open().await);
    }
    for n in 0..40 {
        begin(&*stores[0], &format!("r{n}")).await;
    }
    for round in 0..3 {
        let target = format!("traffic/{round}");
        let mut tasks = JoinSet::new();
        for n in 0..40 {
            let (store, target) = (Arc::clone(&stores[n % stores.len()]), target.clone());
            tasks.spawn(async move {
                let run = format!("r{n}");
                (store.lock(&run, 1, "production", &target).await.unwrap().map(|lock| lock.run), run)
            });
        }
        let all = tasks.join_all().await;
        let won: Vec<_> = all.iter().filter_map(|(held, run)| held.is_none().then_some(run)).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert!(all.iter().filter_map(|(held, _)| held.as_ref()).all(|held| held == won[0]));
    }
    // While some take it and let go of it all the time, it is never had twice, and nobody is told that its run is lost.
    let had = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for (store, n) in stores.into_iter().zip(0..) {
        let had = Arc::clone(&had);
        tasks.spawn(async move {
            for turn in 0..25 {
                let run = format!("t{n}-{turn}");
                begin(&*store, &run).await;
                if store.lock(&run, 1, "production", "traffic/turns").await.unwrap().is_none() {
                    assert!(!had.swap(true, Ordering::SeqCst), "two have it");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    had.store(false, Ordering::SeqCst);
                }
                store.end(&run, 1, succeeded(), Timestamp::now()).await.unwrap();
            }
        });
    }
    tasks.join_all().await;
}

fn question(run: &str, id: &str, until: Option<Timestamp>) -> Asked {
    Asked {
        run: run.to_owned(),
        id: id.to_owned(),
        question: Question::new(QuestionKind::Confirm, format!("go on with \"{id}\"?")),
        at: Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap(),
        until,
    }
}

fn reply(yes: bool, comment: Option<&str>) -> Reply {
    Reply { comment: comment.map(str::to_owned), ..Reply::new(yes, "bob@desk") }
}

fn near(a: Timestamp, b: Timestamp) -> bool {
    a.duration_until(b).abs() < SignedDuration::from_secs(5)
}

pub(super) async fn a_question_is_shown_answered_and_closed(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    begin(&*store, "r").await;
    begin(&*store, "s").await;
    let asked = question("r", "go-on/1:confirm", Some(Timestamp::now() + SignedDuration::from_hours(1)));
    assert_eq!(other.answer("r", &asked.id, &reply(true, None)).await, Ok(false), "not asked yet");
    store.ask(1, &asked).await.unwrap();
    store.ask(1, &question("s", "w", None)).await.unwrap();
    let shown = other.asked(Some("r")).await.unwrap().remove(0);
    assert!(near(shown.at, asked.at) && near(shown.until.unwrap(), asked.until.unwrap()), "{shown:?}");
    assert_eq!(Asked { at: asked.at, until: asked.until, ..shown }, asked);
    let all: Vec<String> = other.asked(None).await.unwrap().into_iter().map(|asked| asked.run).collect();
    assert_eq!(all, ["r", "s"]);
    assert_eq!(other.asked(Some("s")).await.unwrap()[0].until, None);

    assert_eq!(store.answers("r", &asked.id).await, Ok(vec![]));
    assert_eq!(other.answer("r", &asked.id, &reply(false, Some("not \"now\""))).await, Ok(true));
    assert_eq!(other.answer("r", &asked.id, &reply(true, None)).await, Ok(true));
    // Asked again after a resume: its answers and its time stay.
    store.ask(1, &Asked { until: None, ..asked.clone() }).await.unwrap();
    assert!(other.asked(Some("r")).await.unwrap()[0].until.is_some());
    assert_eq!(
        store.answers("r", &asked.id).await,
        Ok(vec![reply(false, Some("not \"now\"")), reply(true, None)])
    );
    assert_eq!(store.answers("s", "w").await, Ok(vec![]));

    store.close("r", 1, &asked.id).await.unwrap();
    store.close("r", 1, &asked.id).await.unwrap();
    assert_eq!(other.asked(Some("r")).await, Ok(vec![]));
    assert_eq!(other.answer("r", &asked.id, &reply(true, None)).await, Ok(false));
    assert_eq!(store.answers("r", &asked.id).await, Ok(vec![]), "they would count for the next question");

    // A run that can go on keeps its questions, one that ended does not.
    assert_eq!(other.answer("s", "w", &reply(true, None)).await, Ok(true));
    store.end("s", 1, RunStatus::Ended(RunOutcome::Paused), Timestamp::now()).await.unwrap();
    assert_eq!(other.asked(None).await.unwrap().len(), 1);
    store.end("s", 1, RunStatus::Ended(RunOutcome::Aborted), Timestamp::now()).await.unwrap();
    assert_eq!(other.asked(None).await, Ok(vec![]));
    assert_eq!(store.answers("s", "w").await, Ok(vec![]));
}

pub(super) async fn an_answer_that_comes_too_late_is_refused(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    let soon = Timestamp::now() + SignedDuration::from_millis(700);
    store.ask(1, &question("r", "soon", Some(soon))).await.unwrap();
    store
        .ask(1, &question("r", "past", Some(Timestamp::now() - SignedDuration::from_secs(5))))
        .await
        .unwrap();
    assert_eq!(store.answer("r", "soon", &reply(true, None)).await, Ok(true));
    assert_eq!(store.answer("r", "past", &reply(true, None)).await, Ok(false));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(store.answer("r", "soon", &reply(true, None)).await, Ok(false));
    assert_eq!(store.answers("r", "soon").await.unwrap().len(), 1);
}

pub(super) async fn every_answer_is_kept_once_and_in_order(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    begin(&*store, "r").await;
    store.ask(1, &question("r", "w", None)).await.unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..40 {
        let store = Arc::clone(if n % 2 == 0 { &store } else { &other });
        tasks.spawn(async move {
            assert_eq!(store.answer("r", "w", &reply(true, Some(&n.to_string()))).await, Ok(true));
        });
    }
    tasks.join_all().await;
    let kept = store.answers("r", "w").await.unwrap();
    let different: BTreeSet<_> = kept.iter().map(|reply| reply.comment.clone()).collect();
    assert_eq!((kept.len(), different.len()), (40, 40));
    for n in 40..45 {
        other.answer("r", "w", &reply(false, Some(&n.to_string()))).await.unwrap();
    }
    let last: Vec<_> = store.answers("r", "w").await.unwrap().split_off(40);
    let comments: Vec<_> = last.iter().map(|reply| reply.comment.as_deref().unwrap()).collect();
    assert_eq!(comments, ["40", "41", "42", "43", "44"]);
}

pub(super) async fn old_runs_go_with_their_records_and_scripts_unless_they_can_go_on(place: &Place) {
    let store = place.open().await;
    let now = Timestamp::now();
    let old = now - SignedDuration::from_hours(48);
    let at = async |id: &str, script: &str, end: Option<(RunOutcome, Timestamp)>| {
        let (mut run, bundle, holder) = begun_with(id, script);
        run.started_at = old - SignedDuration::from_hours(1);
        store.create(&run, &bundle, &holder).await.unwrap();
        store.append(id, 1, &chain(1, 5), true).await.unwrap();
        if let Some((outcome, at)) = end {
            store.end(id, 1, RunStatus::Ended(outcome), at).await.unwrap();
        }
        bundle.hash()
    };
    let only_old = at("old", "// only old ones", Some((RunOutcome::Succeeded, old))).await;
    at("old-2", "// only old ones", Some((RunOutcome::RolledBack, old))).await;
    let shared = at("old-3", "// shared", Some((RunOutcome::Failed, old))).await;
    at("new", "// shared", Some((RunOutcome::Succeeded, now))).await;
    at("old-paused", "// paused", Some((RunOutcome::Paused, old))).await;
    at("old-incomplete", "// incomplete", Some((RunOutcome::RollbackIncomplete, old))).await;
    at("running", "// running", None).await;
    assert_eq!(store.prune(now - SignedDuration::from_hours(100)).await, Ok(0));
    assert_eq!(store.prune(now - SignedDuration::from_hours(24)).await, Ok(3));
    assert_eq!(store.prune(now - SignedDuration::from_hours(24)).await, Ok(0));
    let left: BTreeSet<String> = store.runs(100).await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(left, ["new", "old-incomplete", "old-paused", "running"].map(str::to_owned).into());
    for id in &left {
        holds(&*store, id, 5).await;
    }
    assert_eq!(store.records("old").await, Ok(vec![]));
    assert_eq!(store.bundle(&only_old).await, Ok(None));
    assert!(store.bundle(&shared).await.unwrap().is_some());
    assert_eq!(store.acquire("old-paused", 1, &Holder::this("bob@desk")).await, Ok(true));
    assert_eq!(store.check().await, Ok(vec![]));

    // Beginning a run with a script that is just being removed.
    let (one, two) = (place.open().await, place.open().await);
    let pruning = tokio::spawn(async move {
        for _ in 0..60 {
            two.prune(Timestamp::now()).await.unwrap();
        }
    });
    let mut n = 0;
    while !pruning.is_finished() {
        n += 1;
        let id = format!("again-{n}");
        let (run, bundle, holder) = begun_with(&id, "// the same");
        one.create(&run, &bundle, &holder).await.unwrap();
        assert_eq!(one.bundle(&run.bundle).await, Ok(Some(bundle)));
        one.end(&id, 1, succeeded(), now - SignedDuration::from_secs(1)).await.unwrap();
    }
    pruning.await.unwrap();
    assert_eq!(store.check().await, Ok(vec![]));
}

fn used(plan: &str, until: Timestamp) -> Used {
    Used { plan: plan.to_owned(), until, binding: format!("{{\"of\":\"{plan} é\"}}") }
}

pub(super) async fn a_plan_is_used_by_one_run_which_is_bound_to_it(place: &Place) {
    let store = place.open().await;
    let now = Timestamp::now();
    let (run, bundle, holder) = begun("r1");
    assert_eq!(store.plan_used("p").await, Ok(None));
    assert_eq!(store.create_planned(&run, &bundle, &holder, &used("p", now)).await, Ok(None));
    let (other, scripts, _) = begun_with("r2", "// another script");
    assert_eq!(
        store.create_planned(&other, &scripts, &holder, &used("p", now)).await,
        Ok(Some("r1".to_owned()))
    );
    let again = place.open().await;
    assert_eq!(again.find("r2").await, Ok(vec![]), "nothing of the second is kept");
    assert_eq!(again.bundle(&scripts.hash()).await, Ok(None));
    assert_eq!(found(&*again, "r1").await.status, RunStatus::Running);
    assert_eq!(again.plan_used("p").await, Ok(Some("r1".to_owned())));
    assert_eq!(again.binding("r1").await, Ok(Some(used("p", now).binding)));
    assert_eq!(found(&*again, "r1").await.plan.as_deref(), Some("p"));
    assert_eq!(store.create_planned(&other, &scripts, &holder, &used("q", now)).await, Ok(None));
    begin(&*store, "r3").await;
    assert_eq!(store.binding("r3").await, Ok(None));
    let plans: Vec<_> = store.runs(10).await.unwrap().into_iter().map(|run| (run.id, run.plan)).collect();
    assert!(
        plans.contains(&("r2".to_owned(), Some("q".to_owned()))) && plans.contains(&("r3".to_owned(), None)),
        "{plans:?}"
    );
    store.append("r1", 1, &chain(1, 3), true).await.unwrap();
    holds(&*again, "r1", 3).await;
}

pub(super) async fn of_many_runs_from_one_plan_at_the_same_time_one_is_created(place: &Place) {
    let store = place.open().await;
    for round in 0..3 {
        let plan = format!("p{round}");
        let mut tasks = JoinSet::new();
        let mut stores = Vec::new();
        for _ in 0..5 {
            stores.push(place.open().await);
        }
        for n in 0..50 {
            let (store, plan) = (Arc::clone(&stores[n % stores.len()]), plan.clone());
            tasks.spawn(async move {
                let id = format!("{plan}-r{n}");
                let (run, bundle, holder) = begun(&id);
                let used = used(&plan, Timestamp::now());
                (store.create_planned(&run, &bundle, &holder, &used).await.unwrap(), id)
            });
        }
        let all = tasks.join_all().await;
        let won: Vec<&String> = all.iter().filter(|(before, _)| before.is_none()).map(|(_, id)| id).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert!(all.iter().all(|(before, _)| before.as_ref().is_none_or(|id| id == won[0])));
        assert_eq!(store.find(&format!("{plan}-")).await.unwrap().len(), 1);
    }
}

pub(super) async fn what_is_said_to_a_plan_is_kept_in_order(place: &Place) {
    let (store, other) = (place.open().await, place.open().await);
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    let mut all = Vec::new();
    for (n, by) in ["ana", "o'neill\"", "bo", "ana"].iter().enumerate() {
        let reply = Reply { comment: Some(format!("{n}")), ..Reply::new(n != 2, *by) };
        [&store, &other][n % 2].approve("p", until, &reply).await.unwrap();
        all.push(reply);
    }
    store.approve("q", until, &Reply::new(true, "cy")).await.unwrap();
    assert_eq!(other.approvals("p").await, Ok(all));
    assert_eq!(other.approvals("q").await.unwrap().len(), 1);
    assert_eq!(other.approvals("none").await, Ok(vec![]));
    other.void_approvals("p").await.unwrap();
    other.void_approvals("none").await.unwrap();
    assert_eq!(store.approvals("p").await, Ok(vec![]));
    assert_eq!(store.approvals("q").await.unwrap().len(), 1);
    let again = Reply::new(true, "ana");
    store.approve("p", until, &again).await.unwrap();
    assert_eq!(other.approvals("p").await, Ok(vec![again]));
}

pub(super) async fn a_plan_is_forgotten_once_it_has_expired_and_its_run_is_gone(place: &Place) {
    let store = place.open().await;
    let now = Timestamp::now();
    let (past, future) = (now - SignedDuration::from_hours(9), now + SignedDuration::from_hours(9));
    for (id, until, ended) in [("gone", past, true), ("stays", past, false), ("valid", future, true)] {
        let (run, bundle, holder) = begun(id);
        assert_eq!(store.create_planned(&run, &bundle, &holder, &used(id, until)).await, Ok(None));
        store.approve(id, until, &Reply::new(true, "ana")).await.unwrap();
        if ended {
            store.end(id, 1, succeeded(), past).await.unwrap();
        }
    }
    store.approve("unused", past, &Reply::new(true, "ana")).await.unwrap();
    assert_eq!(store.prune(now - SignedDuration::from_hours(1)).await, Ok(2));
    let known = async |plan: &str| {
        (store.plan_used(plan).await.unwrap().is_some(), store.approvals(plan).await.unwrap().len())
    };
    assert_eq!(known("gone").await, (false, 0));
    assert_eq!(known("stays").await, (true, 1), "its run can be resumed");
    assert_eq!(known("valid").await, (true, 1), "it could be used again");
    assert_eq!(known("unused").await, (false, 0));
}

pub(super) async fn a_healthy_store_has_nothing_to_complain_of(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.check().await, Ok(vec![]));
    begin(&*store, "r").await;
    store.append("r", 1, &chain(1, 3000), true).await.unwrap();
    store.ask(1, &question("r", "w", None)).await.unwrap();
    store.lock("r", 1, "production", "traffic/web").await.unwrap();
    assert_eq!(store.check().await, Ok(vec![]));
    store.end("r", 1, succeeded(), Timestamp::now()).await.unwrap();
    assert_eq!(place.open().await.check().await, Ok(vec![]));
}

pub(super) async fn many_runners_write_at_the_same_time(place: &Place) {
    let mut tasks = JoinSet::new();
    for n in 0..8 {
        let store = place.open().await;
        tasks.spawn(async move {
            let id = format!("r{n}");
            begin(&*store, &id).await;
            for (part, turn) in chain(1, 600).chunks(7).zip(0..) {
                store.append(&id, 1, part, turn % 5 == 0).await.unwrap();
                if turn % 10 == 0 {
                    assert_eq!(store.heartbeat(&id, 1).await, Ok(Heartbeat::Held(None)));
                }
            }
            store.append(&id, 1, &[], true).await.unwrap();
            store.end(&id, 1, succeeded(), Timestamp::now()).await.unwrap();
        });
    }
    tasks.join_all().await;
    let store = place.open().await;
    for n in 0..8 {
        holds(&*store, &format!("r{n}"), 600).await;
    }
    assert!(store.runs(100).await.unwrap().iter().all(|run| run.status == succeeded()));
}

pub(super) async fn what_is_told_about_a_store_holds_no_password(place: &Place) {
    let store = place.open().await;
    let told = store.describe();
    assert!(!told.is_empty() && !told.contains('@') && !told.contains("password"), "{told}");
}
