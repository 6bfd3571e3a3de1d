//! Records of runs.

use contraflow_runtime::journal::Heartbeat;
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::succeeded;
use crate::store::{Place, begin, chain, chain_of, holds};

pub(in crate::store) async fn records_come_back_in_order_whether_they_were_durable_or_not(place: &Place) {
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

pub(in crate::store) async fn records_of_a_mebibyte_come_back_as_they_were(place: &Place) {
    let store = place.open().await;
    begin(&*store, "r").await;
    let body = |seq: u64| format!("{{\"note\":\"{}\"}}", format!("{seq} µ \\\" ").repeat((1 << 20) / 8));
    let all = chain_of(1, 20, body);
    store.append("r", 1, &all[..1], false).await.unwrap();
    store.append("r", 1, &all[1..12], false).await.unwrap();
    store.append("r", 1, &all[12..], true).await.unwrap();
    let kept = store.records("r").await.unwrap();
    assert!(kept == all, "{} records came back altered", kept.len());
    // Not all at once: a page has some mebibytes, whatever its records are.
    let page = store.page("r", 0).await.unwrap();
    assert!((4..16).contains(&page.len()), "{} records in a page", page.len());
}

pub(in crate::store) async fn many_runners_write_at_the_same_time(place: &Place) {
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
