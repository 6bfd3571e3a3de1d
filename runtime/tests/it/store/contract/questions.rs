//! Questions to people, and their answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contraflow_runtime::event::RunOutcome;
use contraflow_runtime::journal::{Asked, RunStatus};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::{question, reply};
use crate::store::{Place, begin};

fn near(a: Timestamp, b: Timestamp) -> bool {
    a.duration_until(b).abs() < SignedDuration::from_secs(5)
}

pub(in crate::store) async fn a_question_is_shown_answered_and_closed(place: &Place) {
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

pub(in crate::store) async fn an_answer_that_comes_too_late_is_refused(place: &Place) {
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

pub(in crate::store) async fn every_answer_is_kept_once_and_in_order(place: &Place) {
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
