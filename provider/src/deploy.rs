//! What a provider of `deploy` can do: pools of replicas.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::provider::{Provider, ProviderError};

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
            _ => Err(format!("\"{text}\" is not a pool: expected deployment and pool, such as \"web/blue\"")),
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

crate::capability!(dyn Deploy, "deploy");
