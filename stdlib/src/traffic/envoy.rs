//! Envoy as a route: the weights of a `weighted_clusters`, set through the admin interface or a route file, and measured.
//!
//! A pool is a cluster. There are two ways to set weights, and the settings say which:
//!
//! - `runtime_key_prefix`: `/runtime_modify` sets all keys `PREFIX.CLUSTER` at once. Envoy answers `OK` whether or not any route
//!   reads these keys, so they are looked up in the routes it has loaded, and in the layers above the admin layer. Runtime
//!   values live in memory: an Envoy that is restarted begins with the weights of its configuration.
//! - `rds_file`: the route configuration that Envoy watches (`path_config_source`), in JSON. The new file is moved onto the old
//!   one, which is what Envoy notices, and Envoy is asked until it has loaded it.
//!
//! What is set is read back from what Envoy has loaded (`/config_dump`, `/runtime`). Then the requests that each cluster gets are
//! counted: the weights are in effect when the counts contradict the old weights and fit the new ones, or, with little traffic,
//! when `measure` is over and they contradict nothing. Counts say nothing of clusters that other routes use too.
//!
//! A pool is drained when its cluster has no active or pending request. Connections may stay open: Envoy keeps idle ones for
//! later.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use contraflow_provider::registry::Factory;
use contraflow_runtime::{
    effect::Progress,
    error::{codes as runtime_codes, did_you_mean},
    provider::{Provider, ProviderError},
    quantity::Span,
};
use futures_util::future::try_join_all;
use reqwest::{StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Addresses, DrainTimer, Measure, Traffic, Weights};
use crate::{
    codes,
    config::{BadSetting, Building, Resolve},
    net::{
        self,
        body::{self, Unreadable},
        egress::Egress,
    },
};

/// Longest time for one request to the admin interface.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read. A configuration with thousands of clusters takes some megabytes.
const LONGEST_ANSWER: usize = 64 << 20;
/// Longest time until Envoy has loaded what was set. With a file it takes some hundredths of a second.
const LOADING: Duration = Duration::from_secs(5);

/// Settings of a route through Envoy.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// URL of the admin interface, or several: one for each Envoy that serves the route. All of them get the same weights.
    pub admin: Admin,
    /// The cluster of each pool, by its name in the `weighted_clusters` of the route.
    pub pools: BTreeMap<String, String>,
    /// Sets weights through `/runtime_modify`: the `runtime_key_prefix` of the route. Either this or `rds_file`.
    #[serde(default)]
    pub runtime_key_prefix: Option<String>,
    /// Sets weights in the file that Envoy reads its route configuration from (`path_config_source`), in JSON.
    #[serde(default)]
    pub rds_file: Option<PathBuf>,
    /// URL for probes of the route.
    #[serde(default)]
    pub url: Option<String>,
    /// URLs for probes of single pools.
    #[serde(default)]
    pub pool_urls: BTreeMap<String, String>,
    /// Longest time that requests of a pool without weight may stay open; then the change fails as `not-settled`. Without it,
    /// the time that the change itself has.
    #[serde(default)]
    pub drain_timeout: Option<Span>,
    /// How long requests are counted, at most, before new weights are taken to be in effect. With 0s, nothing is counted.
    #[serde(default = "usual_measure")]
    pub measure: Span,
    /// PEM file with the certificates to trust, in place of the machine's (those of `SSL_CERT_FILE`, where that variable is set).
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// URL of the HTTP proxy to go through, or `none`. Default: what the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` say.
    #[serde(default)]
    pub proxy: Option<String>,
}

/// One admin interface or several.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Admin {
    /// `"http://127.0.0.1:9901"`
    One(String),
    /// `["http://10.0.0.1:9901", "http://10.0.0.2:9901"]`
    Many(Vec<String>),
}

fn usual_measure() -> Span {
    Span::secs(2)
}

/// A route of one Envoy or several.
#[derive(Debug)]
pub struct Envoy {
    route: String,
    instances: Vec<Instance>,
    /// The cluster of each pool.
    pools: BTreeMap<String, String>,
    source: Source,
    addresses: Addresses,
    measure: Measure,
    draining: DrainTimer,
}

/// Where weights are set.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// In the runtime, under this prefix.
    Runtime(String),
    /// In this file.
    File(PathBuf),
}

/// One Envoy at one moment.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The weights that its routes use.
    weights: Option<Weights>,
    /// The values of the admin layer, by key; empty where it has none.
    overrides: BTreeMap<String, String>,
    /// What keeps it from using what would be set: `the runtime layer pinned sets routing.traffic.web.web_green to 30`.
    overruled: Option<String>,
    /// Whether other routes use the clusters too.
    shared: bool,
    /// By pool.
    clusters: BTreeMap<String, Cluster>,
}

/// Figures of one cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cluster {
    /// Hosts that take requests, also degraded ones.
    healthy: u64,
    active: u64,
    /// Requests that wait for a connection.
    pending: u64,
    /// Requests that were sent, without retries.
    dealt: u64,
}

impl Envoy {
    /// The route named `route` of these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn new(route: &str, settings: Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let bad = |key: &str, message: String| BadSetting::new(key, message);
        let admins = match settings.admin {
            Admin::One(url) => vec![url],
            Admin::Many(urls) => urls,
        };
        if admins.is_empty() {
            return Err(bad(
                "admin",
                "expected at least one URL, such as \"http://127.0.0.1:9901\"".to_owned(),
            ));
        }
        let egress = Egress::new(settings.ca.as_deref(), settings.proxy.as_deref(), at)?;
        let instances = admins.iter().map(|url| Instance::new(url, egress.clone())).collect::<Result<_, _>>();
        let source = match (settings.runtime_key_prefix, settings.rds_file) {
            (Some(prefix), None) if prefix.is_empty() => {
                return Err(bad("runtime_key_prefix", "it is empty".to_owned()));
            }
            (Some(prefix), None) => Source::Runtime(prefix),
            (None, Some(file)) => Source::File(file),
            (None, None) => {
                return Err(bad(
                    "runtime_key_prefix",
                    "expected either `runtime_key_prefix` or `rds_file`: one says how weights are set"
                        .to_owned(),
                ));
            }
            (Some(_), Some(_)) => {
                return Err(bad(
                    "rds_file",
                    "expected either `runtime_key_prefix` or `rds_file`, not both: values of the runtime \
                     override the file"
                        .to_owned(),
                ));
            }
        };
        if settings.pools.is_empty() {
            return Err(bad("pools", "name at least one pool, such as { blue = \"web_blue\" }".to_owned()));
        }
        let mut taken = BTreeMap::new();
        for (pool, cluster) in &settings.pools {
            if let Some(other) = taken.insert(cluster, pool) {
                return Err(bad(
                    "pools",
                    format!("the cluster {cluster} is listed twice: in {other} and in {pool}"),
                ));
            }
        }
        let names = settings.pools.keys().map(String::as_str);
        let addresses = Addresses::new(route, names, settings.url, settings.pool_urls)?;
        Ok(Self {
            route: route.to_owned(),
            instances: instances.map_err(|message| bad("admin", message))?,
            pools: settings.pools,
            source,
            addresses,
            measure: Measure::new(settings.measure.into()),
            draining: DrainTimer::new(settings.drain_timeout),
        })
    }

    /// Looks at all Envoys.
    async fn look(&self) -> Result<Vec<Seen>, ProviderError> {
        let file = match &self.source {
            Source::Runtime(_) => None,
            Source::File(path) => Some(RouteFile::read(path).await?),
        };
        try_join_all(self.instances.iter().map(|at| self.look_at(at, file.as_ref()))).await
    }

    async fn look_at(&self, at: &Instance, file: Option<&RouteFile>) -> Result<Seen, ProviderError> {
        let (loaded, fixed, runtime, bootstrap, clusters) = tokio::try_join!(
            at.get("/config_dump", &[("resource", "dynamic_route_configs")]),
            at.get("/config_dump", &[("resource", "static_route_configs")]),
            at.get("/runtime", &[]),
            at.get("/config_dump", &[("mask", "bootstrap.layered_runtime")]),
            self.clusters(at),
        )?;
        let layers = Layers::read(&runtime, &bootstrap);
        let mut seen = Seen { clusters, ..Seen::default() };
        let (mut mine, mut others, mut elsewhere) = (Vec::new(), Vec::new(), BTreeSet::new());
        for config in [&loaded, &fixed].into_iter().flat_map(|dump| list(&dump["configs"])) {
            let config = &config["route_config"];
            let mut splits = Vec::new();
            walk(config, &mut splits, &mut elsewhere);
            for split in splits {
                let is_mine = match (&self.source, file) {
                    (Source::File(_), Some(file)) => {
                        file.names().any(|name| config["name"] == name) && self.splits_these_clusters(split)
                    }
                    (Source::Runtime(prefix), _) => split["runtime_key_prefix"] == prefix.as_str(),
                    (Source::File(_), None) => false,
                };
                if is_mine { mine.push(split) } else { others.push(split) }
            }
        }
        elsewhere.extend(others.iter().flat_map(|split| names(split)));
        seen.shared = self.pools.values().any(|cluster| elsewhere.contains(&**cluster));
        if mine.is_empty() {
            return Err(self.no_route(at, &others));
        }
        for split in mine {
            let weights = self.effective(at, split, &layers)?;
            if seen.weights.as_ref().is_some_and(|other| *other != weights) {
                return Err(ProviderError::terminal(
                    codes::TRAFFIC,
                    format!("the routes of {} in the Envoy at {at} have different weights", self.route),
                )
                .hint("give them the same weights in Envoy's configuration first"));
            }
            seen.weights = Some(weights);
            let prefix = split["runtime_key_prefix"].as_str().unwrap_or_default();
            for cluster in self.pools.values() {
                let key = format!("{prefix}.{cluster}");
                let by_admin = layers.by_admin(&key);
                let overruled = match &self.source {
                    Source::Runtime(_) => layers.above_admin(&key),
                    Source::File(_) if prefix.is_empty() => None,
                    Source::File(_) => layers.last(&key),
                };
                if let Some((layer, value)) = overruled {
                    seen.overruled = Some(format!("the runtime layer {layer} sets {key} to {value}"));
                }
                seen.overrides.insert(key, by_admin.to_owned());
            }
        }
        if matches!(self.source, Source::Runtime(_)) && layers.admin.is_none() {
            return Err(no_admin_layer(at));
        }
        Ok(seen)
    }

    fn splits_these_clusters(&self, split: &Value) -> bool {
        names(split).collect::<BTreeSet<_>>() == self.pools.values().map(String::as_str).collect()
    }

    /// The weights that Envoy uses for a split.
    fn effective(&self, at: &Instance, split: &Value, layers: &Layers<'_>) -> Result<Weights, ProviderError> {
        let refuse = |message: String| ProviderError::terminal(codes::TRAFFIC, message);
        let known: Vec<&str> = names(split).collect();
        for (pool, cluster) in &self.pools {
            if !known.contains(&&**cluster) {
                let error = refuse(format!(
                    "the route in the Envoy at {at} has no cluster named \"{cluster}\", which is the pool {pool} of {}",
                    self.route
                ));
                return Err(match did_you_mean(cluster, known.iter().copied()) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => error.hint(format!("clusters of the route: {}", known.join(", "))),
                });
            }
        }
        if let Some(extra) = known.iter().find(|name| !self.pools.values().any(|cluster| cluster == *name)) {
            return Err(refuse(format!(
                "the route in the Envoy at {at} also splits traffic to the cluster {extra}, which is not a \
                 pool of {}",
                self.route
            ))
            .hint(format!("add it to `pools` under its own name: {{ …, canary = \"{extra}\" }}")));
        }
        let prefix = split["runtime_key_prefix"].as_str();
        let weight = |cluster: &str| {
            let set = prefix.and_then(|prefix| layers.last(&format!("{prefix}.{cluster}")));
            // What is no number, Envoy does not use either.
            set.and_then(|(_, value)| value.parse().ok()).or_else(|| {
                list(&split["clusters"]).find(|entry| entry["name"] == cluster)?["weight"].as_u64()
            })
        };
        let raw = self.pools.iter().map(|(pool, cluster)| (&**pool, weight(cluster).unwrap_or(0))).collect();
        Weights::normalized(&raw).ok_or_else(|| {
            refuse(format!("no pool of {} has weight in the Envoy at {at}", self.route))
                .hint("give one weight by hand, in the runtime or in the route's `weighted_clusters`")
        })
    }

    fn no_route(&self, at: &Instance, others: &[&Value]) -> ProviderError {
        let error = |message| ProviderError::terminal(codes::TRAFFIC, message);
        match &self.source {
            Source::Runtime(prefix) => {
                let known: BTreeSet<&str> =
                    others.iter().filter_map(|split| split["runtime_key_prefix"].as_str()).collect();
                let error = error(format!(
                    "no route in the Envoy at {at} has the runtime_key_prefix \"{prefix}\": weights set under it would \
                     change nothing"
                ));
                match did_you_mean(prefix, known.iter().copied()) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None if known.is_empty() => error.hint(format!(
                        "add `runtime_key_prefix: {prefix}` to the `weighted_clusters` of the route, or set weights by \
                         `rds_file`"
                    )),
                    None => error.hint(format!(
                        "prefixes there: {}",
                        known.into_iter().collect::<Vec<_>>().join(", ")
                    )),
                }
            }
            Source::File(path) => {
                let clusters: Vec<&str> = self.pools.values().map(String::as_str).collect();
                error(format!(
                    "the Envoy at {at} has loaded no route from {} that splits traffic over {}",
                    path.display(),
                    clusters.join(", ")
                ))
                .hint(
                    "is this file the `path_config_source` of the route's `rds`, and are these its clusters?",
                )
            }
        }
    }

    /// The figures of each pool's cluster.
    async fn clusters(&self, at: &Instance) -> Result<BTreeMap<String, Cluster>, ProviderError> {
        let mut stat_names: BTreeMap<&str, String> =
            self.pools.iter().map(|(pool, cluster)| (&**pool, cluster.clone())).collect();
        let mut figures = at.figures(stat_names.values()).await?;
        let known = |figures: &BTreeMap<String, u64>, name: &str| {
            figures.contains_key(&format!("{}.membership_total", stat_name(name)))
        };
        if !stat_names.values().all(|name| known(&figures, name)) {
            // Named otherwise in its statistics (`alt_stat_name`), or not there at all.
            let all = at.get("/clusters", &[("format", "json")]).await?;
            for (pool, cluster) in &self.pools {
                let found = list(&all["cluster_statuses"]).find(|one| one["name"] == cluster.as_str());
                let found = found.ok_or_else(|| {
                    let error = ProviderError::terminal(
                        codes::TRAFFIC,
                        format!(
                            "the Envoy at {at} has no cluster named \"{cluster}\", which is the pool {pool}"
                        ),
                    );
                    let names = list(&all["cluster_statuses"]).filter_map(|one| one["name"].as_str());
                    match did_you_mean(cluster, names) {
                        Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                        None => error.hint(format!("see the clusters there: curl {at}/clusters")),
                    }
                })?;
                if let Some(name) = found["observability_name"].as_str() {
                    stat_names.insert(pool, name.to_owned());
                }
            }
            figures = at.figures(stat_names.values()).await?;
        }
        stat_names
            .into_iter()
            .map(|(pool, name)| {
                if !known(&figures, &name) {
                    return Err(at.not_understood("/stats", &format!("nothing about the cluster {name}")));
                }
                // Those about requests may be made with the first request only (`enable_deferred_creation_stats`).
                let read =
                    |figure| figures.get(&format!("{}.{figure}", stat_name(&name))).copied().unwrap_or(0);
                let cluster = Cluster {
                    healthy: read("membership_healthy") + read("membership_degraded"),
                    active: read("upstream_rq_active"),
                    pending: read("upstream_rq_pending_active"),
                    dealt: read("upstream_rq_total").saturating_sub(read("upstream_rq_retry")),
                };
                Ok((pool.to_owned(), cluster))
            })
            .collect()
    }

    /// What the hosts of a pool without a healthy one are, such as `10.0.0.21:8080 fails its health check`.
    async fn ailments(&self, at: &Instance, pool: &str) -> String {
        let Ok(all) = at.get("/clusters", &[("format", "json")]).await else {
            return "none of its hosts is healthy".to_owned();
        };
        let cluster = list(&all["cluster_statuses"])
            .find(|one| self.pools.get(pool).is_some_and(|c| one["name"] == c.as_str()));
        let hosts: Vec<String> = cluster
            .into_iter()
            .flat_map(|cluster| list(&cluster["host_statuses"]))
            .map(|host| format!("{} {}", host_address(host), ailment(&host["health_status"])))
            .collect();
        if hosts.is_empty() { "its cluster has no hosts".to_owned() } else { hosts.join(", ") }
    }

    /// Sets weights in all Envoys, or in none.
    async fn put(&self, want: &Weights, seen: &[Seen]) -> Result<Vec<Seen>, ProviderError> {
        match &self.source {
            Source::Runtime(prefix) => {
                let values: BTreeMap<String, String> = self
                    .pools
                    .iter()
                    .map(|(pool, cluster)| (format!("{prefix}.{cluster}"), points(want, pool).to_string()))
                    .collect();
                for (n, at) in self.instances.iter().enumerate() {
                    if let Err(error) = at.modify(&values).await {
                        // That one too: its answer may have been lost after it was done.
                        return Err(self.take_back(&seen[..=n], error).await);
                    }
                }
                match self.loaded(want).await {
                    Ok(now) => Ok(now),
                    Err(error) => Err(self.take_back(seen, error).await),
                }
            }
            Source::File(path) => {
                let file = RouteFile::read(path).await?;
                let weights: BTreeMap<&str, u32> =
                    self.pools.iter().map(|(pool, cluster)| (&**cluster, points(want, pool))).collect();
                file.with_weights(&weights)?.write().await?;
                match self.loaded(want).await {
                    Ok(now) => Ok(now),
                    Err(mut error) => {
                        if file.write().await.is_err() {
                            error.message =
                                format!("{}; {} could not be restored", error.message, path.display());
                        }
                        Err(error)
                    }
                }
            }
        }
    }

    /// Restores the runtime values of the first Envoys.
    async fn take_back(&self, before: &[Seen], mut error: ProviderError) -> ProviderError {
        let mut left = Vec::new();
        for (at, before) in self.instances.iter().zip(before) {
            if at.modify(&before.overrides).await.is_err() {
                left.push(format!("curl -X POST '{}'", at.url("/runtime_modify", &before.overrides)));
            }
        }
        // A first one that could not be reached has changed nothing, as far as anybody knows.
        if !left.is_empty() && before.len() > 1 {
            error.message =
                format!("{}; weights that were set before it could not be restored", error.message);
            error = error.hint(format!("to restore them by hand: {}", left.join("; ")));
        }
        error
    }

    /// Waits until all Envoys have loaded `want`.
    async fn loaded(&self, want: &Weights) -> Result<Vec<Seen>, ProviderError> {
        let begun = Instant::now();
        loop {
            let seen = self.look().await?;
            let Some((at, other)) = self.instances.iter().zip(&seen).find(|(_, seen)| !self.has(seen, want))
            else {
                return Ok(seen);
            };
            if begun.elapsed() >= LOADING {
                let weights = shown(other);
                let error = ProviderError::terminal(
                    codes::TRAFFIC,
                    format!("{want} was set for {}, but the Envoy at {at} still uses {weights}", self.route),
                );
                return Err(match &self.source {
                    Source::Runtime(_) => error.hint("does something else set these runtime values at the same time?"),
                    Source::File(path) => error.hint(format!(
                        "is {} the `path_config_source` of the route's `rds`? Envoy's log and its counter update_rejected \
                         say whether it refused the file",
                        path.display()
                    )),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn has(&self, seen: &Seen, want: &Weights) -> bool {
        self.pools.keys().all(|pool| {
            seen.weights.as_ref().is_some_and(|weights| points(weights, pool) == points(want, pool))
        })
    }

    /// Counts from now on.
    fn count_from(&self, n: usize, seen: &Seen, old: Option<Weights>) {
        // Those that wait are counted when they are sent, and were given to their cluster before.
        let dealt = seen.clusters.iter().map(|(pool, c)| (pool.clone(), c.dealt + c.pending)).collect();
        self.measure.count_from(n, dealt, old);
    }

    /// Whether the requests that an Envoy deals out say that it uses `want`; if not, what is being waited for.
    fn measured(&self, n: usize, seen: &Seen, want: &Weights) -> Result<(), String> {
        if seen.shared {
            return Ok(());
        }
        let dealt = seen.clusters.iter().map(|(pool, c)| (pool.clone(), c.dealt)).collect();
        self.measure.fits(n, &dealt, want, 0.0)
    }
}

impl Factory for Envoy {
    type Capability = dyn Traffic;
    type Settings = Settings;

    const KIND: &'static str = "envoy";
    const ABOUT: &'static str = "A route's `weighted_clusters` in one Envoy or several. A pool is a cluster. Weights are set through the \
        admin interface (`runtime_key_prefix`; a restart of Envoy brings back those of its configuration) or in a route file that \
        Envoy watches (`rds_file`).";
    const CAPABILITIES: &'static [&'static str] = &[
        "counts requests to see whether new weights are in effect",
        "waits until requests to a drained pool have ended",
        "gives no weight to a pool without a healthy host",
        "sets several Envoys alike, or none",
    ];
    const EXAMPLE: &'static str = r#"[env.production.traffic.web]
provider = "envoy"
admin = "http://127.0.0.1:9901"              # or a list: one for each Envoy that serves the route
runtime_key_prefix = "routing.traffic.web"   # as in the route; or: rds_file = "/etc/envoy/routes/web.json"
pools = { blue = "web_blue", green = "web_green" }
url = "https://shop.example.com"
"#;

    /// A relative path of a file is taken from the folder of the configuration.
    fn build(at: &Building<'_>, mut settings: Settings) -> Result<Arc<dyn Traffic>, BadSetting> {
        settings.rds_file = settings.rds_file.map(|path| at.path(&path.to_string_lossy()));
        Ok(Arc::new(Self::new(&at.name, settings, at)?))
    }
}

#[async_trait]
impl Provider for Envoy {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        let admins: Vec<String> = self.instances.iter().map(ToString::to_string).collect();
        let how = match &self.source {
            Source::Runtime(prefix) => prefix.clone(),
            Source::File(path) => path.display().to_string(),
        };
        format!("{}, {how}", admins.join(" "))
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let mut versions = BTreeSet::new();
        for at in &self.instances {
            let info = at.get("/server_info", &[]).await?;
            // `COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
            let version =
                info["version"].as_str().and_then(|v| v.split('/').nth(1)).unwrap_or("of unknown version");
            versions.insert(version.to_owned());
        }
        let seen = self.look().await?;
        let weights = self.agreed(&seen)?;
        let (n, pools) = (self.instances.len(), self.pools.len());
        let mut text = format!(
            "{}Envoy {}, {pools} pool{}: {weights}",
            if n == 1 { String::new() } else { format!("{n} × ") },
            versions.into_iter().collect::<Vec<_>>().join(" and "),
            if pools == 1 { "" } else { "s" }
        );
        if let Some(why) = seen.iter().find_map(|seen| seen.overruled.as_ref()) {
            text.push_str(&format!("; weights cannot be set: {why}"));
        } else if seen.iter().any(|seen| seen.shared) {
            text.push_str("; other routes use these clusters too, so requests are not counted");
        }
        Ok(text)
    }
}

impl Envoy {
    /// Whether `want` could not be set, or would raise a pool that nothing serves.
    async fn refuse(&self, seen: &[Seen], want: &Weights) -> Result<(), ProviderError> {
        for (at, seen) in self.instances.iter().zip(seen) {
            if let Some(why) = &seen.overruled {
                return Err(ProviderError::terminal(
                    codes::TRAFFIC,
                    format!("weights of {} that are set in the Envoy at {at} would change nothing: {why}", self.route),
                )
                .hint(match self.source {
                    Source::Runtime(_) => "take the key out of that layer, or put the admin layer last",
                    Source::File(_) => {
                        "remove it from the runtime (`/runtime_modify?KEY=` in the admin layer), or set weights there: \
                         `runtime_key_prefix` in place of `rds_file`"
                    }
                }));
            }
            for pool in self.pools.keys() {
                let has = seen.weights.as_ref().map_or(0, |weights| points(weights, pool));
                if points(want, pool) > has && seen.clusters[pool].healthy == 0 {
                    return Err(ProviderError::terminal(
                        codes::TRAFFIC,
                        format!(
                            "{pool} of {} would get {}, but no host of it takes traffic: {}",
                            self.route,
                            want.share(pool),
                            self.ailments(at, pool).await
                        ),
                    )
                    .hint(format!("see why: curl {at}/clusters")));
                }
            }
        }
        Ok(())
    }

    /// The weights that all Envoys have.
    fn agreed(&self, seen: &[Seen]) -> Result<Weights, ProviderError> {
        let mut all = self.instances.iter().zip(seen).map(|(at, seen)| (at, seen.weights.as_ref()));
        let Some((_, Some(first))) = all.next() else {
            return Err(ProviderError::terminal(runtime_codes::INTERNAL, "an Envoy without weights"));
        };
        let Some((at, other)) = all.find(|(_, weights)| *weights != Some(first)) else {
            return Ok(first.clone());
        };
        let other = other.map(ToString::to_string).unwrap_or_default();
        let error = ProviderError::terminal(
            codes::TRAFFIC,
            format!(
                "the Envoys of {} have different weights: {first} at {}, {other} at {at}",
                self.route, self.instances[0]
            ),
        );
        Err(match &self.source {
            Source::Runtime(prefix) => {
                let keys = self
                    .pools
                    .iter()
                    .map(|(pool, cluster)| (format!("{prefix}.{cluster}"), points(first, pool).to_string()))
                    .collect();
                error.hint(format!(
                    "to align them by hand: curl -X POST '{}'",
                    at.url("/runtime_modify", &keys)
                ))
            }
            Source::File(path) => error.hint(format!("do all of them read {}?", path.display())),
        })
    }
}

#[async_trait]
impl Traffic for Envoy {
    async fn weights(&self) -> Result<Weights, ProviderError> {
        self.agreed(&self.look().await?)
    }

    async fn set_weights(&self, want: &Weights) -> Result<(), ProviderError> {
        want.check(&self.route, self.pools.keys().map(String::as_str))?;
        let seen = self.look().await?;
        self.refuse(&seen, want).await?;
        self.draining.reset();
        let now = self.put(want, &seen).await?;
        for (n, (before, now)) in seen.into_iter().zip(&now).enumerate() {
            self.count_from(n, now, before.weights);
        }
        Ok(())
    }

    async fn would_take(&self, want: &Weights) -> Result<(), ProviderError> {
        self.refuse(&self.look().await?, want).await
    }

    async fn settled(&self, want: &Weights) -> Result<Progress, ProviderError> {
        let waiting = |done, total, message| Ok(Progress::Waiting { done, total, message });
        let seen = self.look().await?;
        let (used, unused): (Vec<&String>, Vec<&String>) =
            self.pools.keys().partition(|pool| points(want, pool) > 0);
        for (at, seen) in self.instances.iter().zip(&seen) {
            if !self.has(seen, want) {
                return waiting(0, 0, format!("weights are {}, not {want}", shown(seen)));
            }
            if let Some(pool) = used.iter().find(|pool| seen.clusters[**pool].healthy == 0) {
                return waiting(
                    0,
                    0,
                    format!("no host of {pool} is healthy: {}", self.ailments(at, pool).await),
                );
            }
        }
        let open = |pool: &&String| -> u64 {
            seen.iter().map(|seen| seen.clusters[*pool]).map(|cluster| cluster.active + cluster.pending).sum()
        };
        if let Some(busy) = unused.iter().find(|pool| open(pool) > 0) {
            let drained = unused.iter().filter(|pool| open(pool) == 0).count();
            let n = open(busy);
            let message = format!("{n} request{} still on {busy}", if n == 1 { "" } else { "s" });
            return self.draining.waiting(&self.route, drained, unused.len(), message).map_err(|error| {
                error.hint("raise `drain_timeout` of the route, or end those requests at the servers")
            });
        }
        self.draining.reset();
        for (n, seen) in seen.iter().enumerate() {
            if let Err(message) = self.measured(n, seen, want) {
                return waiting(0, 0, message);
            }
        }
        Ok(Progress::Settled)
    }

    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError> {
        self.addresses.of(pool)
    }
}

/// The admin interface of one Envoy.
#[derive(Debug)]
struct Instance {
    base: String,
    egress: Egress,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(net::without_credentials(&self.base).trim_end_matches('/'))
    }
}

impl Instance {
    fn new(url: &str, egress: Egress) -> Result<Self, String> {
        let parsed = Url::parse(url).map_err(|e| format!("\"{url}\" is not a URL: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(format!("expected a URL with http or https, not {}", parsed.scheme()));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err("expected a base URL, without ? and #".to_owned());
        }
        Ok(Self { base: url.trim_end_matches('/').to_owned(), egress })
    }

    /// A URL for people.
    fn url(&self, path: &str, query: &BTreeMap<String, String>) -> String {
        address(&self.to_string(), path, query.iter().map(|(key, value)| (&**key, &**value)))
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, ProviderError> {
        let url = address(&self.base, path, query.iter().copied());
        let link = self.egress.link(&url).await?;
        let sent = link.client.get(&url).timeout(PATIENCE).send().await;
        let mut response = sent.map_err(|e| {
            link.no_answer(&e, &self.base, true)
                .hint("is `admin` where Envoy's admin interface listens (`admin.address` in its bootstrap)?")
        })?;
        if !response.status().is_success() {
            return Err(net::refused(response, &format!("{self}{path}")).await);
        }
        let read = body::read(&mut response, LONGEST_ANSWER).await.map_err(|error| match error {
            Unreadable::Request(e) => link.no_answer(&e, &self.base, true),
            Unreadable::Packed(why) => {
                ProviderError::terminal(runtime_codes::PROVIDER, format!("{self}{path}: {why}"))
            }
        })?;
        let text = body::text(response.headers(), &read.bytes);
        serde_json::from_str(&text).map_err(|_| self.not_understood(path, &text))
    }

    fn not_understood(&self, path: &str, answer: &str) -> ProviderError {
        let start: String = answer.lines().next().unwrap_or("nothing").chars().take(200).collect();
        ProviderError::terminal(
            runtime_codes::PROVIDER,
            format!("{self}{path} answered something else: {start}"),
        )
        .hint("is `admin` the address of Envoy's admin interface, and not of a listener?")
    }

    /// Sets values of the admin layer, all at once. An empty one removes what is set.
    async fn modify(&self, values: &BTreeMap<String, String>) -> Result<(), ProviderError> {
        let url =
            address(&self.base, "/runtime_modify", values.iter().map(|(key, value)| (&**key, &**value)));
        // The same values again change nothing, so it may be repeated.
        let link = self.egress.link(&url).await?;
        let sent = link.client.post(&url).timeout(PATIENCE).send().await;
        let response = sent.map_err(|e| link.no_answer(&e, &self.base, true))?;
        if response.status().is_success() {
            return Ok(());
        }
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Err(no_admin_layer(self));
        }
        Err(net::refused(response, &format!("{self}/runtime_modify")).await)
    }

    /// Figures of these clusters, as `CLUSTER.FIGURE`.
    async fn figures(
        &self,
        clusters: impl Iterator<Item = &String>,
    ) -> Result<BTreeMap<String, u64>, ProviderError> {
        let clusters: Vec<String> = clusters.map(|name| regex::escape(&stat_name(name))).collect();
        let filter = format!(
            r"^cluster\.({})\.(upstream_rq_(active|pending_active|total|retry)|membership_(total|healthy|degraded))$",
            clusters.join("|")
        );
        let stats = self.get("/stats", &[("format", "json"), ("filter", &filter)]).await?;
        Ok(list(&stats["stats"])
            .filter_map(|stat| {
                Some((stat["name"].as_str()?.strip_prefix("cluster.")?.to_owned(), stat["value"].as_u64()?))
            })
            .collect())
    }
}

fn address<'a>(base: &str, path: &str, query: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let url = format!("{base}{path}");
    let mut query = query.peekable();
    if query.peek().is_none() {
        return url;
    }
    // The base was parsed before.
    Url::parse_with_params(&url, query).map_or(url, String::from)
}

fn no_admin_layer(at: &Instance) -> ProviderError {
    ProviderError::terminal(
        codes::TRAFFIC,
        format!("the Envoy at {at} has no admin layer in its runtime, so no weights can be set there"),
    )
    .hint("add `layered_runtime: { layers: [{ name: admin, admin_layer: {} }] }` to its bootstrap, or set weights by `rds_file`")
}

/// The layers of the runtime, as `/runtime` and the bootstrap say.
struct Layers<'a> {
    names: Vec<&'a str>,
    entries: &'a Value,
    /// Which one `/runtime_modify` sets.
    admin: Option<usize>,
}

impl<'a> Layers<'a> {
    fn read(runtime: &'a Value, bootstrap: &Value) -> Self {
        let configured = &bootstrap["configs"][0]["bootstrap"]["layered_runtime"]["layers"];
        Self {
            names: list(&runtime["layers"]).filter_map(Value::as_str).collect(),
            entries: &runtime["entries"],
            admin: list(configured).position(|layer| layer.get("admin_layer").is_some()),
        }
    }

    fn values(&self, key: &str) -> impl DoubleEndedIterator<Item = (usize, &'a str)> {
        let values = self.entries[key]["layer_values"].as_array().map(Vec::as_slice).unwrap_or_default();
        values.iter().map(|value| value.as_str().unwrap_or_default()).enumerate()
    }

    fn by_admin(&self, key: &str) -> &'a str {
        self.values(key).find(|(n, _)| Some(*n) == self.admin).map_or("", |(_, value)| value)
    }

    /// The layer that counts, and its value.
    fn last(&self, key: &str) -> Option<(&'a str, &'a str)> {
        let (n, value) = self.values(key).rfind(|(_, value)| !value.is_empty())?;
        Some((self.names.get(n).copied().unwrap_or("?"), value))
    }

    /// A layer that counts more than the admin layer, and its value.
    fn above_admin(&self, key: &str) -> Option<(&'a str, &'a str)> {
        let (n, _) = self.values(key).rfind(|(_, value)| !value.is_empty())?;
        self.admin.is_some_and(|admin| n > admin).then(|| self.last(key)).flatten()
    }
}

/// A route configuration in a file: a `DiscoveryResponse` in JSON.
struct RouteFile {
    path: PathBuf,
    text: String,
    content: Value,
}

impl RouteFile {
    async fn read(path: &Path) -> Result<Self, ProviderError> {
        let fail = |why: String| {
            ProviderError::terminal(codes::TRAFFIC, format!("the route file {}: {why}", path.display()))
        };
        let text = tokio::fs::read_to_string(path).await.map_err(|e| fail(net::io_reason(&e)))?;
        let content: Value =
            serde_json::from_str(contraflow_provider::text::without_mark(&text)).map_err(|e| {
                fail(format!("not JSON: {e}"))
                    .hint("Envoy reads files in YAML and in JSON; weights can be set in JSON")
            })?;
        if list(&content["resources"]).next().is_none() {
            return Err(fail("it has no `resources`".to_owned()).hint(
                "it is a DiscoveryResponse: { \"resources\": [ { \"@type\": …RouteConfiguration, … } ] }",
            ));
        }
        Ok(Self { path: path.to_owned(), text, content })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        list(&self.content["resources"]).filter_map(|resource| resource["name"].as_str())
    }

    /// The same with these weights, where a route splits traffic over exactly these clusters.
    fn with_weights(&self, weights: &BTreeMap<&str, u32>) -> Result<Self, ProviderError> {
        let mut content = self.content.clone();
        let changed = change(&mut content, weights);
        if changed == 0 {
            return Err(ProviderError::terminal(
                codes::TRAFFIC,
                format!(
                    "no route in {} splits traffic over exactly these clusters: {}",
                    self.path.display(),
                    weights.keys().copied().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
        let text = format!("{content:#}\n");
        Ok(Self { path: self.path.clone(), text, content })
    }

    /// Moves the content onto the file: Envoy sees all of it or nothing, and notices only what is moved there.
    async fn write(&self) -> Result<(), ProviderError> {
        let (path, text) = (self.path.clone(), self.text.clone());
        let written = tokio::task::spawn_blocking(move || replace(&path, &text)).await;
        written.map_err(io::Error::other).flatten().map_err(|e| {
            ProviderError::terminal(
                codes::TRAFFIC,
                format!("the route file {} cannot be replaced: {}", self.path.display(), net::io_reason(&e)),
            )
            .hint("a file beside it is written and moved onto it, so its folder must be writable")
        })
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let before = std::fs::symlink_metadata(path)?;
    if before.is_symlink() {
        return Err(io::Error::other("it is a symbolic link; name the file itself"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".contraflow").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    // Envoy may run as another user.
    file.as_file().set_permissions(before.permissions())?;
    let now = file.as_file().metadata()?;
    if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
        std::os::unix::fs::chown(file.path(), Some(before.uid()), Some(before.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Sets weights in each `weighted_clusters` of exactly these clusters; how many there are.
fn change(value: &mut Value, weights: &BTreeMap<&str, u32>) -> usize {
    match value {
        Value::Array(items) => items.iter_mut().map(|item| change(item, weights)).sum(),
        Value::Object(fields) => fields
            .iter_mut()
            .map(|(key, value)| {
                if key != "weighted_clusters"
                    || names(value).collect::<BTreeSet<_>>() != weights.keys().copied().collect()
                {
                    return change(value, weights);
                }
                if value.get("total_weight").is_some() {
                    value["total_weight"] = 10_000.into();
                }
                for entry in value["clusters"].as_array_mut().into_iter().flatten() {
                    let weight = entry["name"].as_str().and_then(|name| weights.get(name)).copied();
                    entry["weight"] = weight.unwrap_or(0).into();
                }
                1
            })
            .sum(),
        _ => 0,
    }
}

/// Finds each `weighted_clusters` in a route configuration, and each cluster that is named anywhere else.
fn walk<'a>(value: &'a Value, splits: &mut Vec<&'a Value>, elsewhere: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, splits, elsewhere)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (&**key, value) {
                    ("weighted_clusters", split) => splits.push(split),
                    ("cluster", Value::String(name)) => {
                        elsewhere.insert(name);
                    }
                    _ => walk(value, splits, elsewhere),
                }
            }
        }
        _ => {}
    }
}

/// The clusters of a `weighted_clusters`.
fn names(split: &Value) -> impl Iterator<Item = &str> {
    list(&split["clusters"]).filter_map(|entry| entry["name"].as_str())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

/// A cluster's name as statistics have it.
fn stat_name(cluster: &str) -> String {
    cluster.replace(':', "_")
}

/// The share of a pool in hundredths of a percent.
fn points(weights: &Weights, pool: &str) -> u32 {
    weights.share(pool).basis_points()
}

fn shown(seen: &Seen) -> String {
    seen.weights.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// `10.0.0.21:8080`
fn host_address(host: &Value) -> String {
    let socket = &host["address"]["socket_address"];
    match (socket["address"].as_str(), socket["port_value"].as_u64()) {
        (Some(address), Some(port)) => format!("{address}:{port}"),
        _ => host["address"]["pipe"]["path"].as_str().unwrap_or("a host").to_owned(),
    }
}

/// Why a host takes no requests, from its `health_status`.
fn ailment(status: &Value) -> String {
    let is = |flag: &str| status[flag] == true;
    match status["eds_health_status"].as_str() {
        _ if is("pending_active_hc") => "has not passed a health check yet".to_owned(),
        _ if is("failed_active_health_check") && is("active_hc_timeout") => {
            "does not answer its health check".to_owned()
        }
        _ if is("failed_active_health_check") => "fails its health check".to_owned(),
        _ if is("failed_outlier_check") => "is ejected after errors (outlier detection)".to_owned(),
        Some(status) if status != "HEALTHY" && status != "UNKNOWN" => {
            format!("is {status} by its endpoint configuration")
        }
        _ => "is not healthy".to_owned(),
    }
}
