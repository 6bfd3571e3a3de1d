//! What several test crates share.

use std::sync::Arc;

pub(crate) use contraflow_provider::contract::{
    eventually,
    traffic::{self as traffic_contract, get, weights},
};
use contraflow_runtime::{
    effect::{Change, On, Progress},
    provider::Providers,
};
use contraflow_stdlib::traffic::{Share, Traffic, shift};

/// The effect `traffic::shift` on a route with the pools `blue` and `green` that is as at its start.
pub(crate) async fn the_shift_effect_works_on(traffic: Arc<dyn Traffic>) {
    let mut providers = Providers::new("test");
    providers.bind::<dyn Traffic>("web", Arc::clone(&traffic));
    let on = On::detached(Arc::new(providers));
    let percent = Share::try_from(30_i64).expect("a share");
    let options = shift::Options::default();
    let shift = shift::Shift { route: "web".to_owned(), pool: "green".to_owned(), percent, options };
    let from = shift.observe(&on).await.expect("observed");
    let to = shift.desired(&from).expect("desired");
    assert_eq!(to, weights(70, 30));
    shift.apply(&on, &from, &to).await.expect("applied");
    eventually("settled", || async { (traffic.settled(&to).await == Ok(Progress::Settled)).then_some(()) })
        .await;
    // Again: nothing to do.
    let now = shift.observe(&on).await.expect("observed");
    assert_eq!(shift.desired(&now).as_ref(), Ok(&now));
    // Undo.
    shift.apply(&on, &to, &from).await.expect("undone");
    assert_eq!(traffic.weights().await, Ok(from));
}
