//! `deploy`: pools of replicas.

use std::fmt;

use async_trait::async_trait;
use contraflow_runtime::provider::{Capability, Provider, ProviderError, Providers};
use rhai::{Module, combine_with_exported_module};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::{ConfigError, Entry};

pub mod replicas;
pub mod scale;

/// How many replicas a pool should have. Its `Display` is what plans show: `3 replicas`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Replicas(pub u32);

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} replica{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// A pool as scripts name it: the deployment and the pool, `web/blue`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolName {
    deployment: String,
    pool: String,
}

impl PoolName {
    /// Name of the target that is bound.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Name of the pool in it.
    pub fn pool(&self) -> &str {
        &self.pool
    }
}

impl TryFrom<&str> for PoolName {
    type Error = String;

    /// Split at the first `/`.
    fn try_from(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((deployment, pool)) if !deployment.is_empty() && !pool.is_empty() => {
                Ok(Self { deployment: deployment.to_owned(), pool: pool.to_owned() })
            }
            _ => Err(format!("\"{text}\" names no pool: want deployment and pool, such as \"web/blue\"")),
        }
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.deployment, self.pool)
    }
}

impl Serialize for PoolName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PoolName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::try_from(&*String::deserialize(from)?).map_err(de::Error::custom)
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
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "scale", scale::script);
    combine_with_exported_module!(&mut module, "replicas", replicas::script);
    module
}

/// Binds a deployment from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let _ = into;
    Err(entry.unknown_provider(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_named_by_deployment_and_pool_split_at_the_first_slash() {
        let name = PoolName::try_from("web/blue/a").expect("a pool");
        assert_eq!((name.deployment(), name.pool(), &*name.to_string()), ("web", "blue/a", "web/blue/a"));
        for wrong in ["web", "web/", "/blue", ""] {
            assert!(PoolName::try_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_script_functions_are_found_with_and_without_options() {
        let mut engine = rhai::Engine::new();
        engine.register_static_module("deploy", module().into());
        for call in [
            r#"deploy::scale("web/blue", 2)"#,
            r#"deploy::scale("web/blue", 2, #{ settle: "1s" })"#,
            r#"deploy::replicas("web/blue")"#,
        ] {
            // Outside a run nothing can be done, but the function is there.
            let error = engine.eval::<rhai::Dynamic>(call).expect_err("outside a run");
            assert!(!matches!(*error, rhai::EvalAltResult::ErrorFunctionNotFound(..)), "{call}: {error}");
        }
        assert!(matches!(
            *engine.eval::<rhai::Dynamic>("deploy::scale()").expect_err("no such function"),
            rhai::EvalAltResult::ErrorFunctionNotFound(..)
        ));
    }
}
