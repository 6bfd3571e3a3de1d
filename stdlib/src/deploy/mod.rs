//! `deploy`: pools of replicas.

use std::fmt;

use async_trait::async_trait;
use cutover_runtime::provider::{Capability, Provider, ProviderError, Providers};
use rhai::Module;
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Entry};

/// How many replicas a pool should have. Its `Display` is what plans show: `3 replicas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Replicas(pub u32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replica{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// Something that runs pools of replicas, such as one service with a blue and a green pool.
#[async_trait]
pub trait Deploy: Provider {
    /// How many replicas `pool` is set to.
    async fn replicas(&self, pool: &str) -> Result<Replicas, ProviderError>;

    /// How many replicas of `pool` can take traffic now.
    async fn ready(&self, pool: &str) -> Result<u32, ProviderError>;

    /// Sets how many replicas `pool` should have.
    async fn scale(&self, pool: &str, want: Replicas) -> Result<(), ProviderError>;
}

impl Capability for dyn Deploy {
    const NOUN: &'static str = "deploy";
}

/// The script module `deploy`.
pub fn module() -> Module {
    Module::new()
}

/// Binds a deployment from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let _ = into;
    Err(entry.unknown_provider(&[]))
}
