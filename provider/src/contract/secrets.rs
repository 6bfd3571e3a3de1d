//! The contract of `secrets`.

use async_trait::async_trait;

use super::describes_itself;
use crate::{error::codes, secrets::Secrets};

/// A secret whose value the test can set.
#[async_trait]
pub trait Fixture: Sync {
    /// The secret.
    fn secret(&self) -> &dyn Secrets;

    /// Sets what is kept. `None`: it is removed.
    async fn keep(&self, value: Option<&str>);
}

/// All of it.
///
/// # Panics
/// The contract is broken.
pub async fn holds(fixture: &dyn Fixture) {
    let secret = fixture.secret();
    for value in ["first-hunter2", "second \"hunter2\" ünïcode"] {
        fixture.keep(Some(value)).await;
        assert_eq!(secret.value().await.expect("a value").as_str(), value, "a rotated secret is seen");
        let check = describes_itself(secret).await;
        let shown = format!("{check} {}", secret.describe());
        assert!(!shown.contains("hunter2"), "nothing of the value is shown");
    }
    fixture.keep(Some("  ")).await;
    let empty = secret.value().await.expect_err("nothing in it");
    assert_eq!(empty.code.as_str(), codes::SECRET, "{empty:?}");
    fixture.keep(None).await;
    let gone = secret.value().await.expect_err("not there");
    assert_eq!(gone.code.as_str(), codes::SECRET, "{gone:?}");
    assert!(!format!("{gone:?}").contains("hunter2"), "nothing of an earlier value is shown");
    assert!(secret.check().await.is_err(), "a check finds that it is not there");
}
