//! What keeps a store in order.

use std::collections::BTreeSet;

use contraflow_runtime::event::RunOutcome;
use contraflow_runtime::journal::{Holder, RunStatus};
use jiff::{SignedDuration, Timestamp};

use super::{question, succeeded};
use crate::store::{Place, begin, begun_with, chain, holds};

pub(in crate::store) async fn old_runs_go_with_their_records_and_scripts_unless_they_can_go_on(
    place: &Place,
) {
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

pub(in crate::store) async fn a_healthy_store_has_nothing_to_complain_of(place: &Place) {
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

pub(in crate::store) async fn what_is_told_about_a_store_holds_no_password(place: &Place) {
    let store = place.open().await;
    let told = store.describe();
    assert!(!told.is_empty() && !told.contains('@') && !told.contains("password"), "{told}");
}
