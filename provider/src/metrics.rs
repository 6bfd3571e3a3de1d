//! What a provider of `metrics` can do: named measurements.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::provider::{Provider, ProviderError};

/// What a metrics source knows about one metric at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value in base units: a share 0..1, seconds, or a number. `None`: there is no data, which is never a pass. An infinity is
    /// a value: errors without a single good answer are infinitely many for each of those. It stands as the largest number,
    /// which JSON can write; see [`Reading::new`].
    pub value: Option<f64>,
    /// On how many observations it rests, where the source can tell.
    pub samples: Option<u64>,
}

impl Reading {
    /// A value as a source calculates it: NaN is no data, and an infinity the largest number there is.
    pub fn new(value: Option<f64>, samples: Option<u64>) -> Self {
        Self { value, samples }.normal()
    }

    /// The same, of a reading that somebody else made.
    #[must_use]
    pub fn normal(self) -> Self {
        let value = self.value.filter(|value| !value.is_nan()).map(|value| value.clamp(f64::MIN, f64::MAX));
        Self { value, ..self }
    }
}

/// A source of named metrics, such as `error_rate` and `p95` of one service.
#[async_trait]
pub trait Metrics: Provider {
    /// The value of `metric` now: a name bound in the configuration, else a query in the source's own language.
    async fn query(&self, metric: &str) -> Result<Reading, ProviderError>;

    /// The names that are bound.
    fn names(&self) -> Vec<String>;
}

crate::capability!(dyn Metrics, "metrics");
