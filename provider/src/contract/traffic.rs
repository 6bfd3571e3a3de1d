//! The contract of `traffic`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{describes_itself, eventually, is_unknown};
use crate::{
    codes, http,
    on::Progress,
    traffic::{Share, Traffic, Weights},
};

/// Weights of the pools blue and green.
pub fn weights(blue: u32, green: u32) -> Weights {
    percent(f64::from(blue), f64::from(green))
}

/// Weights of the pools blue and green that need not be whole percentages.
///
/// # Panics
/// One of them is not a share.
pub fn percent(blue: f64, green: f64) -> Weights {
    Weights::try_from([("blue", blue), ("green", green)]).expect("shares")
}

/// Status and body of a `GET`, and between them the pool that answered it.
///
/// # Errors
/// There was no answer.
pub async fn get(url: &str) -> Result<(u16, String, String), reqwest::Error> {
    let response = http::client(url).expect("a client").get(url).send().await?;
    let pool = response.headers().get("x-pool").and_then(|pool| pool.to_str().ok()).unwrap_or("").to_owned();
    Ok((response.status().as_u16(), pool, response.text().await?))
}

/// How many of `n` requests to `url` were answered by `pool`.
///
/// # Panics
/// One was not answered.
pub async fn answered_by(pool: &str, url: &str, n: usize) -> usize {
    let mut found = 0;
    for _ in 0..n {
        found += usize::from(get(url).await.expect("an answer").1 == pool);
    }
    found
}

/// A route with the pools `blue` (100) and `green` (0) that answers `/`, `/health` and `/slow?ms=…` and names the pool in the
/// header `x-pool`.
#[async_trait]
pub trait Fixture: Sync {
    /// The provider.
    fn traffic(&self) -> Arc<dyn Traffic>;

    /// Takes all servers of a pool away, or brings them back; returns when the provider can know.
    async fn serve_pool(&self, pool: &str, up: bool);

    /// How far the number of requests that a pool gets out of `n` may be from its share of them. By default as far as with a
    /// round robin, which may be anywhere in its turn when the count begins and ends.
    fn tolerance(&self, n: usize, share: f64) -> f64 {
        let _ = (n, share);
        2.0
    }
}

/// All of it, on a fixture that is as at its start.
///
/// # Panics
/// The contract is broken.
pub async fn holds(fixture: &dyn Fixture) {
    let traffic = fixture.traffic();
    let route = traffic.address(None).await.expect("the route has an address");
    assert!(!route.ends_with('/'), "{route}");

    begins_with_all_on_blue(&*traffic).await;
    addresses_lead_to_the_pools(&*traffic).await;
    weights_read_back_exactly(&*traffic).await;
    bad_weights_change_nothing(&*traffic).await;
    requests_are_split_by_weight(fixture, &route).await;
    a_pool_without_weight_is_drained(&*traffic, &route).await;
    a_pool_that_serves_nothing_gets_no_weight(fixture).await;
}

async fn settle(traffic: &dyn Traffic, want: &Weights) {
    eventually("settled", || async { (traffic.settled(want).await == Ok(Progress::Settled)).then_some(()) })
        .await;
}

async fn begins_with_all_on_blue(traffic: &dyn Traffic) {
    let check = describes_itself(traffic).await;
    assert!(check.contains("2 pools") && check.contains("blue 100, green 0"), "{check}");
    assert_eq!(traffic.weights().await, Ok(weights(100, 0)));
}

async fn addresses_lead_to_the_pools(traffic: &dyn Traffic) {
    for pool in ["blue", "green"] {
        let address = traffic.address(Some(pool)).await.expect("an address");
        let (status, by, _) = get(&format!("{address}/health")).await.expect("an answer");
        assert_eq!((status, &*by), (200, pool));
    }
    let error = traffic.address(Some("gren")).await.expect_err("no such pool");
    is_unknown(&error, "green");
}

async fn weights_read_back_exactly(traffic: &dyn Traffic) {
    for green in (0..=100).rev().step_by(7).chain([1, 99, 0, 100, 50]) {
        let want = weights(100 - green, green);
        traffic.set_weights(&want).await.expect("set");
        assert_eq!(traffic.weights().await.as_ref(), Ok(&want));
        traffic.set_weights(&want).await.expect("set again");
        assert_eq!(traffic.weights().await, Ok(want));
    }
    // Canaries below one percent.
    for want in [percent(99.5, 0.5), percent(97.5, 2.5)] {
        assert_eq!(traffic.would_take(&want).await, Ok(()));
        traffic.set_weights(&want).await.expect("set");
        assert_eq!(traffic.weights().await, Ok(want));
    }
    // A pool that is not named gets nothing.
    traffic.set_weights(&Weights([("blue".to_owned(), Share::ALL)].into())).await.expect("set");
    assert_eq!(traffic.weights().await, Ok(weights(100, 0)));
}

async fn bad_weights_change_nothing(traffic: &dyn Traffic) {
    traffic.set_weights(&weights(90, 10)).await.expect("set");
    for wrong in [weights(90, 20), weights(0, 0), weights(50, 49), percent(99.9, 0.11)] {
        let error = traffic.set_weights(&wrong).await.expect_err("not 100");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(error.message.contains("not to 100%"), "{error}");
    }
    let unknown = Weights([("bleu".to_owned(), Share::ALL)].into());
    let error = traffic.set_weights(&unknown).await.expect_err("no such pool");
    is_unknown(&error, "blue");
    assert_eq!(traffic.weights().await, Ok(weights(90, 10)));
}

async fn requests_are_split_by_weight(fixture: &dyn Fixture, route: &str) {
    let traffic = fixture.traffic();
    for green in [0, 5, 20, 50, 100] {
        let want = weights(100 - green, green);
        traffic.set_weights(&want).await.expect("set");
        settle(&*traffic, &want).await;
        let share = f64::from(green) / 100.0;
        let got = answered_by("green", route, 200).await;
        let off = (got as f64 - 200.0 * share).abs();
        assert!(off <= fixture.tolerance(200, share), "{green} percent of 200 requests: {got}");
        assert!((1..100).contains(&green) || off == 0.0, "{green} percent of 200 requests: {got}");
    }
}

async fn a_pool_without_weight_is_drained(traffic: &dyn Traffic, route: &str) {
    traffic.set_weights(&weights(100, 0)).await.expect("set");
    settle(traffic, &weights(100, 0)).await;
    let url = format!("{route}/slow?ms=1200");
    let open = tokio::spawn(async move { get(&url).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    traffic.set_weights(&weights(0, 100)).await.expect("set");
    match traffic.settled(&weights(0, 100)).await.expect("an answer") {
        Progress::Waiting { message, .. } => {
            assert!(message.starts_with("1 ") && message.ends_with(" still on blue"), "{message}");
        }
        Progress::Settled => panic!("settled with a connection open"),
    }
    // New requests go to the other pool meanwhile, and the open one is answered.
    assert_eq!(answered_by("green", route, 20).await, 20);
    let (status, by, _) = open.await.expect("not cancelled").expect("an answer");
    assert_eq!((status, &*by), (200, "blue"));
    settle(traffic, &weights(0, 100)).await;
}

async fn a_pool_that_serves_nothing_gets_no_weight(fixture: &dyn Fixture) {
    let traffic = fixture.traffic();
    traffic.set_weights(&weights(100, 0)).await.expect("set");
    fixture.serve_pool("green", false).await;
    let error = traffic.set_weights(&weights(75, 25)).await.expect_err("nothing serves");
    assert_eq!(error.code.as_str(), codes::TRAFFIC);
    assert!(error.message.contains("green of web would get 25%") && !error.hints.is_empty(), "{error:?}");
    // A plan knows it before anything is changed.
    let planned = traffic.would_take(&weights(75, 25)).await.expect_err("nothing serves");
    assert!(planned.message.contains("green of web would get 25%"), "{planned:?}");
    assert_eq!(traffic.weights().await, Ok(weights(100, 0)));
    fixture.serve_pool("green", true).await;
    traffic.set_weights(&weights(75, 25)).await.expect("serves again");
    // A pool that has lost its servers may give up weight, also bit by bit.
    fixture.serve_pool("green", false).await;
    match traffic.settled(&weights(75, 25)).await.expect("an answer") {
        Progress::Waiting { message, .. } => assert!(message.contains("green"), "{message}"),
        Progress::Settled => panic!("settled with weight on a pool that serves nothing"),
    }
    traffic.set_weights(&weights(90, 10)).await.expect("less");
    traffic.set_weights(&weights(100, 0)).await.expect("nothing");
    fixture.serve_pool("green", true).await;
}
