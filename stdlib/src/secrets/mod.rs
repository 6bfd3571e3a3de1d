//! `secrets`: values that scripts use and never see.

use async_trait::async_trait;
use cutover_runtime::provider::{Capability, Provider, ProviderError, Providers};
use rhai::Module;

use crate::config::{ConfigError, Entry};

/// Where one secret is kept. Each secret is a target of its own: `[env.production.secrets.deploy-token]`.
#[async_trait]
pub trait Secrets: Provider {
    /// The secret's value. Errors never hold any of it.
    async fn value(&self) -> Result<zeroize::Zeroizing<String>, ProviderError>;
}

impl Capability for dyn Secrets {
    const NOUN: &'static str = "secrets";
}

/// The script module `secrets`.
pub fn module() -> Module {
    Module::new()
}

/// Binds a secret from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let _ = into;
    Err(entry.unknown_provider(&[]))
}
