//! How runs are begun, held, taken over and ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contraflow_runtime::event::RunOutcome;
use contraflow_runtime::journal::{Heartbeat, Holder, Request, RequestKind, RunStatus};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::task::JoinSet;

use super::{found, lost, question, succeeded};
use crate::store::{Place, begin, begun, chain, holds};

pub(in crate::store) async fn a_run_is_found_as_it_was_begun_by_its_id_or_an_end_of_it(place: &Place) {
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

pub(in crate::store) async fn names_of_any_kind_are_kept_as_they_are(place: &Place) {
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

pub(in crate::store) async fn runs_are_listed_newest_first(place: &Place) {
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

pub(in crate::store) async fn whoever_has_an_old_epoch_can_do_nothing(place: &Place) {
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

pub(in crate::store) async fn of_a_hundred_that_acquire_a_run_at_the_same_time_one_gets_it(place: &Place) {
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

pub(in crate::store) async fn once_a_run_is_acquired_nothing_of_its_old_holder_arrives(place: &Place) {
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
        assert_eq!(refused, last + 1, "what was there when the run had been acquired is all that there is");
        new.append(&id, 2, &chain(last + 1, last + 2), true).await.unwrap();
        holds(&*old, &id, last + 2).await;
    }
}

pub(in crate::store) async fn a_holder_is_alive_as_long_as_it_sends_heartbeats(place: &Place) {
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

pub(in crate::store) async fn other_scripts_take_the_place_of_the_first_for_whoever_holds_the_run(
    place: &Place,
) {
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

pub(in crate::store) async fn a_request_is_told_to_the_holder_and_forgotten_once_it_is_acquired(
    place: &Place,
) {
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

pub(in crate::store) async fn a_run_that_ended_has_no_holder_and_one_that_paused_can_be_acquired(
    place: &Place,
) {
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
