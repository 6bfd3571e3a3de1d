//! Saved plans and what is said to them.

use std::sync::Arc;

use contraflow_runtime::effect::Reply;
use contraflow_runtime::journal::{RunStatus, Used};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::{found, succeeded};
use crate::store::{Place, begin, begun, begun_with, chain, holds};

fn used(plan: &str, until: Timestamp) -> Used {
    Used { plan: plan.to_owned(), until, binding: format!("{{\"of\":\"{plan} é\"}}") }
}

pub(in crate::store) async fn a_plan_is_used_by_one_run_which_is_bound_to_it(place: &Place) {
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

pub(in crate::store) async fn of_many_runs_from_one_plan_at_the_same_time_one_is_created(place: &Place) {
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

pub(in crate::store) async fn what_is_said_to_a_plan_is_kept_in_order(place: &Place) {
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

pub(in crate::store) async fn a_plan_is_forgotten_once_it_has_expired_and_its_run_is_gone(place: &Place) {
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
