//! `metrics`: named measurements, and gates on them.

use async_trait::async_trait;
use cutover_runtime::provider::{Capability, Provider, ProviderError, Providers};
use rhai::Module;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Entry};

/// What a metrics source knows about one metric at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The value in base units: a share 0..1, seconds, or a number. `None`: there is no data, which is never a pass.
    pub value: Option<f64>,
    /// On how many observations it rests, where the source can tell.
    pub samples: Option<u64>,
}

/// A source of named metrics, such as `error_rate` and `p95` of one service.
#[async_trait]
pub trait Metrics: Provider {
    /// The value of `metric` now: a name bound in the configuration, else a query in the source's own language.
    async fn query(&self, metric: &str) -> Result<Reading, ProviderError>;

    /// The names that are bound.
    fn names(&self) -> Vec<String>;
}

impl Capability for dyn Metrics {
    const NOUN: &'static str = "metrics";
}

/// The script module `metrics`.
pub fn module() -> Module {
    Module::new()
}

/// Binds a metrics source from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let _ = into;
    Err(entry.unknown_provider(&[]))
}
