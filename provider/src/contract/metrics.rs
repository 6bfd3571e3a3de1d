//! The contract of `metrics`.

use async_trait::async_trait;

use super::describes_itself;
use crate::metrics::Metrics;

/// A source with a metric of a known value and one without data.
#[async_trait]
pub trait Fixture: Sync {
    /// The source.
    fn metrics(&self) -> &dyn Metrics;

    /// A name that is bound, with the value that it has and stays at.
    fn known(&self) -> (&str, f64);

    /// A name or query that has no data.
    fn silent(&self) -> &str;
}

/// All of it.
///
/// # Panics
/// The contract is broken.
pub async fn holds(fixture: &dyn Fixture) {
    let metrics = fixture.metrics();
    describes_itself(metrics).await;
    let (name, value) = fixture.known();
    let names = metrics.names();
    assert!(names.iter().any(|known| known == name), "{name} is among the names: {names:?}");
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(names, sorted, "names are sorted and each is there once");
    let reading = metrics.query(name).await.expect("an answer");
    let read = reading.value.expect("data");
    assert!((read - value).abs() <= value.abs() * 1e-6, "{name} is {value}: {read}");
    let silent = metrics.query(fixture.silent()).await.expect("no data is an answer");
    assert_eq!(silent.value, None, "no data is never a number");
}
