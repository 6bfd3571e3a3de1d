//! What several test crates share.

use std::{future::Future, time::Duration};

use contraflow_stdlib::traffic::Weights;

pub(crate) mod traffic_contract;

/// Weights of the pools blue and green.
pub(crate) fn weights(blue: u32, green: u32) -> Weights {
    Weights([("blue".to_owned(), blue), ("green".to_owned(), green)].into())
}

/// Asks again and again until the answer is there, for at most ten seconds.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    for _ in 0..500 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within ten seconds");
}

/// The body of a `GET` and the pool that answered it.
pub(crate) async fn get(url: &str) -> Result<(u16, String, String), reqwest::Error> {
    let response = contraflow_stdlib::net::client(url).expect("a client").get(url).send().await?;
    let pool = response.headers().get("x-pool").and_then(|pool| pool.to_str().ok()).unwrap_or("").to_owned();
    Ok((response.status().as_u16(), pool, response.text().await?))
}

/// How many of `n` requests to `url` were answered by `pool`.
pub(crate) async fn answered_by(pool: &str, url: &str, n: usize) -> usize {
    let mut found = 0;
    for _ in 0..n {
        found += usize::from(get(url).await.expect("an answer").1 == pool);
    }
    found
}
