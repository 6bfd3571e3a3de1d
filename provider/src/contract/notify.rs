//! The contract of `notify`.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::describes_itself;
use crate::{
    notify::{Message, Notify, Severity},
    on::{On, Surroundings},
    provider::Providers,
};

/// A receiver whose messages the test can read.
#[async_trait]
pub trait Fixture: Sync {
    /// The receiver.
    fn notify(&self) -> &dyn Notify;

    /// The texts of all messages that have arrived, in their order.
    async fn arrived(&self) -> Vec<String>;
}

/// What an effect of that id has at hand, with its own idempotency key.
fn on(id: &str) -> On {
    let nothing = Surroundings::detached(Arc::new(Providers::new("test")));
    On::new(Arc::new(nothing), id, format!("run/{id}"), CancellationToken::new())
}

/// All of it, on a receiver that has no messages yet.
///
/// # Panics
/// The contract is broken.
pub async fn holds(fixture: &dyn Fixture) {
    let notify = fixture.notify();
    describes_itself(notify).await;
    assert_eq!(fixture.arrived().await, Vec::<String>::new(), "a check sends nothing");
    let message = |text: &str, severity| Message { text: text.to_owned(), severity };
    let first = message("cutover to <green> & \"done\" ünïcode", Severity::Critical);
    notify.send(&on("1:notify.send"), &first).await.expect("taken");
    let second = message("a line\nand another", Severity::Info);
    notify.send(&on("2:notify.send"), &second).await.expect("taken");
    let arrived = fixture.arrived().await;
    assert_eq!(arrived.len(), 2, "each message arrives once: {arrived:?}");
    assert!(arrived[0].contains("ünïcode") && arrived[1].contains("another"), "in their order: {arrived:?}");
    if notify.is_idempotent() {
        notify.send(&on("2:notify.send"), &second).await.expect("taken as known");
        assert_eq!(fixture.arrived().await.len(), 2, "a repeated message is recognized by its key");
    }
}
