//! Settings of a route through HAProxy, checked before anything is asked.

use std::collections::BTreeMap;

use contraflow_provider::{config::BadSetting, quantity::Span};
use schemars::JsonSchema;
use serde::Deserialize;

/// Settings of a route through HAProxy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the runtime API listens: `unix:PATH`, a path, or `tcp:HOST:PORT`.
    pub socket: String,
    /// The backend whose servers are weighted.
    pub backend: String,
    /// Server names of each pool in the backend.
    pub pools: BTreeMap<String, Servers>,
    /// URL for probes of the route.
    #[serde(default)]
    pub url: Option<String>,
    /// URLs for probes of single pools.
    #[serde(default)]
    pub pool_urls: BTreeMap<String, String>,
    /// How long connections of a pool without weight may stay open; then the change fails as `not-settled`. Default:
    /// the time limit of the change.
    #[serde(default)]
    pub drain_timeout: Option<Span>,
    /// How long sessions are counted, at most, before new weights are taken to be in effect. With 0s, nothing is counted.
    #[serde(default = "usual_measure")]
    pub measure: Span,
}

fn usual_measure() -> Span {
    Span::secs(1)
}

/// One server or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Servers {
    /// `"blue1"`
    One(String),
    /// `["blue1", "blue2"]`
    Many(Vec<String>),
}

impl Settings {
    /// The servers of each pool.
    pub(super) fn check(&self) -> Result<BTreeMap<String, Vec<String>>, BadSetting> {
        let bad = |key: &str, message: String| Err(BadSetting::new(key, message));
        if !is_name(&self.backend) {
            return bad("backend", format!("\"{}\" is not a valid backend name", self.backend));
        }
        let mut pools = BTreeMap::new();
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for (pool, servers) in &self.pools {
            let servers = match servers {
                Servers::One(server) => vec![server.clone()],
                Servers::Many(servers) => servers.clone(),
            };
            if servers.is_empty() {
                return bad("pools", format!("the pool {pool} has no servers"));
            }
            for server in &servers {
                if !is_name(server) {
                    return bad(
                        "pools",
                        format!("\"{server}\" in the pool {pool} is not a valid server name"),
                    );
                }
                if let Some(other) = taken.insert(server.clone(), pool.clone()) {
                    return bad(
                        "pools",
                        format!("the server {server} is listed twice: in {other} and in {pool}"),
                    );
                }
            }
            pools.insert(pool.clone(), servers);
        }
        if pools.is_empty() {
            return bad("pools", "name at least one pool, such as { blue = \"blue1\" }".to_owned());
        }
        Ok(pools)
    }
}

/// Whether HAProxy allows it as a name, and it therefore cannot smuggle a second command into the socket.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}
