//! What a provider of `traffic` can do: routes and the weights of their pools.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    on::Progress,
    provider::{Provider, ProviderError},
};

mod measure;
mod route;
mod share;

pub use measure::Measure;
pub use route::{Addresses, DrainTimer};
pub use share::{Share, apportion, still_open, unknown_pool};

/// Share of a route's traffic that each pool gets. The shares add up to 100 %.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Weights(pub BTreeMap<String, Share>);

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (pool, share)) in self.0.iter().enumerate() {
            let weight = share.percent();
            write!(f, "{}{pool} {weight}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A route: something that splits traffic over pools by weight.
#[async_trait]
pub trait Traffic: Provider {
    /// The weights that are set now, normalized so that they add up to 100 %.
    async fn weights(&self) -> Result<Weights, ProviderError>;

    /// Sets all weights at once, or none.
    ///
    /// # Errors
    /// `traffic` where the weights do not add up to 100 %, cannot be expressed on this route, or would raise a pool that has
    /// nothing to serve with; `unknown-target` for a pool that the route does not have.
    async fn set_weights(&self, want: &Weights) -> Result<(), ProviderError>;

    /// Whether the route would take these weights as it is now: its weights are fine enough, what raises a pool finds servers there,
    /// and the way in which it deals requests out can split them. Asked in plans, so that all this is found before anything is
    /// changed.
    ///
    /// # Errors
    /// `traffic`: it would not; the hints say what to do, such as the nearest weights that it can express.
    async fn would_take(&self, want: &Weights) -> Result<(), ProviderError> {
        let _ = want;
        Ok(())
    }

    /// What keeps traffic from being dealt as `want` says although these weights can be set, a sentence each: an algorithm that
    /// follows weights only roughly, users who are kept on their server, a server that is down. Shown in plans, and noted in
    /// runs.
    async fn caveats(&self, want: &Weights) -> Result<Vec<String>, ProviderError> {
        let _ = want;
        Ok(Vec::new())
    }

    /// Whether `want` is in effect: read back, and no connections left on pools without weight where the provider can see them.
    async fn settled(&self, want: &Weights) -> Result<Progress, ProviderError>;

    /// Base URL at which probes reach the route (`None`) or one of its pools, without a slash at the end.
    ///
    /// # Errors
    /// An unknown pool, or no address is configured.
    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError>;
}

crate::capability!(dyn Traffic, "traffic");
