//! What every provider of a noun has to keep, as suites that a provider's tests run against a real server.
//!
//! A suite panics, with what was expected, where the contract is broken. It takes a fixture: the provider, and what the test
//! can do to the world behind it.

#![expect(clippy::expect_used, reason = "a broken contract fails the test that runs the suite")]

use std::{future::Future, time::Duration};

use crate::{
    error::codes,
    provider::{Provider, ProviderError},
};

pub mod db;
pub mod deploy;
pub mod metrics;
pub mod notify;
pub mod secrets;
pub mod traffic;

/// Asks again and again until the answer is there, for at most ten seconds.
///
/// # Panics
/// It is not.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    for _ in 0..500 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: not within ten seconds");
}

/// What holds for any provider whose server is there: it says what it is and where, in one line each, and that it can be used.
///
/// # Panics
/// It does not.
pub async fn describes_itself<P: Provider + ?Sized>(provider: &P) -> String {
    let kind = provider.kind();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(
        !kind.is_empty() && kind.chars().all(plain),
        "a kind has small letters, digits and `-`: {kind:?}"
    );
    let describe = provider.describe();
    assert!(!describe.is_empty() && !describe.contains('\n'), "one line on where it points: {describe:?}");
    let check = provider.check().await.expect("it can be reached");
    assert!(!check.is_empty() && !check.contains('\n'), "one line on what answered: {check:?}");
    check
}

/// The error for a name that the provider does not have: its code, and what was probably meant.
fn is_unknown(error: &ProviderError, meant: &str) {
    assert_eq!(error.code.as_str(), codes::UNKNOWN_TARGET, "{error:?}");
    assert_eq!(error.hints, [format!("did you mean \"{meant}\"?")], "{error:?}");
}
