//! `traffic`: routes and the weights of their pools.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::Progress,
    provider::{Capability, Provider, ProviderError, Providers},
};
use rhai::{Module, combine_with_exported_module};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Entry};

pub mod haproxy;
pub mod set;
pub mod share;
pub mod shift;
pub mod weights;

pub use share::Share;
pub(crate) use share::still_open;

/// Share of a route's traffic that each pool gets, in percent. The shares add up to 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weights(pub BTreeMap<String, u32>);

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (pool, weight)) in self.0.iter().enumerate() {
            write!(f, "{}{pool} {weight}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A route: something that splits traffic over pools by weight.
#[async_trait]
pub trait Traffic: Provider {
    /// The weights that are set now, normalized to percent.
    async fn weights(&self) -> Result<Weights, ProviderError>;

    /// Sets all weights at once, or none.
    ///
    /// # Errors
    /// `traffic` where the weights do not add up to 100 or would raise a pool that has nothing to serve with; `unknown-target`
    /// for a pool that the route does not have.
    async fn set_weights(&self, want: &Weights) -> Result<(), ProviderError>;

    /// Whether `want` is in effect: read back, and no connections left on pools without weight where the provider can see them.
    async fn settled(&self, want: &Weights) -> Result<Progress, ProviderError>;

    /// Base URL at which probes reach the route (`None`) or one of its pools, without a slash at the end.
    ///
    /// # Errors
    /// An unknown pool, or no address is configured.
    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError>;
}

impl Capability for dyn Traffic {
    const NOUN: &'static str = "traffic";
}

/// The script module `traffic`.
pub fn module() -> Module {
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "shift", shift::script);
    combine_with_exported_module!(&mut module, "set", set::script);
    combine_with_exported_module!(&mut module, "weights", weights::script);
    module
}

/// Binds a route from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    match &*entry.provider {
        "haproxy" => {
            let provider = Arc::new(haproxy::HaProxy::from_entry(entry)?);
            into.bind::<dyn Traffic>(&entry.name, Arc::clone(&provider) as _, provider);
            Ok(())
        }
        _ => Err(entry.unknown_provider(&["haproxy"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_functions_are_found_with_and_without_options() {
        let mut engine = rhai::Engine::new();
        engine.register_static_module("traffic", module().into());
        for call in [
            r#"traffic::shift("web", "green", 25)"#,
            r#"traffic::shift("web", "green", "25%", #{ drain: "1s" })"#,
            r#"traffic::set("web", #{ green: 100 })"#,
            r#"traffic::set("web", #{ green: 100 }, #{ timeout: "1s" })"#,
            r#"traffic::weights("web")"#,
        ] {
            // Outside a run nothing can be done, but the function is there.
            let error = engine.eval::<rhai::Dynamic>(call).expect_err("outside a run");
            assert!(!matches!(*error, rhai::EvalAltResult::ErrorFunctionNotFound(..)), "{call}: {error}");
        }
        assert!(matches!(
            *engine.eval::<rhai::Dynamic>("traffic::shift()").expect_err("no such function"),
            rhai::EvalAltResult::ErrorFunctionNotFound(..)
        ));
    }
}
