//! Locks of targets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contraflow_runtime::event::RunOutcome;
use contraflow_runtime::journal::{Holder, RunStatus};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::{found, succeeded};
use crate::store::{Place, begin};

pub(in crate::store) async fn a_target_is_locked_for_one_run_and_freed_with_its_end(place: &Place) {
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

pub(in crate::store) async fn of_many_that_lock_a_target_at_the_same_time_one_gets_it(place: &Place) {
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
