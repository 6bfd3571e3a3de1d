//! HAProxy as a route: weights and drain through its runtime API.
//!
//! A pool is a set of servers of one backend. Its share is dealt out over their weights so that it reads back as what was set;
//! shares that are too fine for 256 steps a server are refused (see `spread`). A pool with share 0 has weight 0 on all servers:
//! HAProxy sends it no new sessions and lets the open ones finish; the change is in effect when none is left. Servers that
//! somebody has put into MAINT or DRAIN are left there and not counted; servers that fail their checks are counted, since they may
//! come back at any moment.
//!
//! HAProxy keeps weights in memory: a reload starts again from its configuration file.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use contraflow_provider::registry::Factory;
use contraflow_runtime::{
    effect::Progress,
    error::did_you_mean,
    provider::{Provider, ProviderError},
};

use super::{Addresses, DrainTimer, Share, Traffic, Weights, still_open};
use crate::{
    codes,
    config::{BadSetting, Building},
};

mod settings;
mod socket;
mod spread;

pub use settings::{Servers, Settings};
use socket::{Address, Server};

/// One backend of an HAProxy.
#[derive(Debug)]
pub struct HaProxy {
    route: String,
    socket: Address,
    backend: String,
    pools: BTreeMap<String, Vec<String>>,
    addresses: Addresses,
    draining: DrainTimer,
}

/// The servers of the backend, at one moment.
type Seen = BTreeMap<String, Server>;

/// One server's weight, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    server: String,
    from: u32,
    to: u32,
}

impl HaProxy {
    /// The route named `route` of these settings. Nothing is asked yet.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn new(route: &str, settings: Settings) -> Result<Self, BadSetting> {
        let socket = settings.socket.parse().map_err(|message: String| BadSetting::new("socket", message))?;
        let pools = settings.check()?;
        let names = pools.keys().map(String::as_str);
        let addresses = Addresses::new(route, names, settings.url, settings.pool_urls)?;
        Ok(Self {
            route: route.to_owned(),
            socket,
            backend: settings.backend,
            pools,
            addresses,
            draining: DrainTimer::new(settings.drain_timeout),
        })
    }

    /// Asks for all servers of the backend and finds those of the pools among them.
    async fn look(&self) -> Result<Seen, ProviderError> {
        let seen = self.socket.servers(&self.backend).await?;
        for (pool, servers) in &self.pools {
            if let Some(missing) = servers.iter().find(|server| !seen.contains_key(*server)) {
                let error = ProviderError::terminal(
                    codes::TRAFFIC,
                    format!(
                        "the backend {} of HAProxy has no server named \"{missing}\", which is in the pool {pool}",
                        self.backend
                    ),
                );
                return Err(match did_you_mean(missing, seen.keys().map(String::as_str)) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => {
                        let names: Vec<&str> = seen.keys().map(String::as_str).collect();
                        error.hint(format!("servers of {}: {}", self.backend, names.join(", ")))
                    }
                });
            }
        }
        Ok(seen)
    }

    /// The servers of a pool whose weights count: those in service, or all where none is.
    fn counted<'a>(&'a self, pool: &str, seen: &Seen) -> Vec<&'a str> {
        let all = || self.pools.get(pool).into_iter().flatten().map(String::as_str);
        let in_service: Vec<&str> = all().filter(|server| seen[*server].in_service()).collect();
        if in_service.is_empty() { all().collect() } else { in_service }
    }

    /// The share of each pool.
    fn read(&self, seen: &Seen) -> Result<Weights, ProviderError> {
        let sums = self
            .pools
            .keys()
            .map(|pool| {
                let sum = self.counted(pool, seen).iter().map(|server| u64::from(seen[*server].weight)).sum();
                (&**pool, sum)
            })
            .collect();
        Weights::normalized(&sums).ok_or_else(|| {
            ProviderError::terminal(
                codes::TRAFFIC,
                format!(
                    "no server of the pools of {} has weight in HAProxy's backend {}",
                    self.route, self.backend
                ),
            )
            .hint(format!(
                "give one weight by hand: echo \"set server {}/{} weight 1\" | socat stdio {}",
                self.backend,
                self.pools.values().flatten().next().map_or("SERVER", String::as_str),
                self.socket_for_socat(),
            ))
        })
    }

    fn socket_for_socat(&self) -> String {
        match &self.socket {
            Address::Unix(path) => path.display().to_string(),
            Address::Tcp(_) => self.socket.to_string(),
        }
    }

    /// What each server of a pool is, such as `green1 is DOWN, green2 is in MAINT`.
    fn statuses(&self, pool: &str, seen: &Seen) -> String {
        let servers = self.pools.get(pool).into_iter().flatten();
        let shown: Vec<String> = servers.map(|s| format!("{s} is {}", seen[s].status())).collect();
        shown.join(", ")
    }

    fn is_up(&self, pool: &str, seen: &Seen) -> bool {
        self.pools.get(pool).into_iter().flatten().any(|server| seen[server].is_up())
    }

    /// The changes of weights that lead to `want`, in an order in which the capacity in use never drops: all raises come
    /// before all lowers. Among raises the pools whose share shrinks come first, among lowers those whose share grows, so
    /// that a change of scale sends nothing extra to a pool that is new to the traffic.
    ///
    /// # Errors
    /// Shares that the weights of these servers cannot express.
    fn steps(&self, seen: &Seen, now: &Weights, want: &Weights) -> Result<Vec<Step>, ProviderError> {
        let weights = self.spread(seen, want)?;
        let mut steps = Vec::new();
        for (pool, servers) in &self.pools {
            // A server that somebody took out of service gets what its siblings have, for when it comes back.
            let usual = self.counted(pool, seen).first().and_then(|s| weights.get(s)).copied().unwrap_or(0);
            let basis_points = |weights: &Weights| i64::from(weights.share(pool).basis_points());
            let growth = basis_points(want) - basis_points(now);
            for server in servers {
                let (from, to) = (seen[server].weight, weights.get(&**server).copied().unwrap_or(usual));
                if from != to {
                    let raise = to > from;
                    steps.push((
                        (!raise, if raise { growth } else { -growth }),
                        Step { server: server.clone(), from, to },
                    ));
                }
            }
        }
        steps.sort_by_key(|(order, _)| *order);
        Ok(steps.into_iter().map(|(_, step)| step).collect())
    }

    /// The weight of every server that counts.
    fn spread<'a>(&'a self, seen: &Seen, want: &Weights) -> Result<BTreeMap<&'a str, u32>, ProviderError> {
        let pools: Vec<spread::Pool<'_>> =
            self.pools.keys().map(|pool| (&**pool, want.share(pool), self.counted(pool, seen))).collect();
        spread::spread(&pools).ok_or_else(|| {
            let nearest: Vec<String> = spread::nearest(&pools).iter().map(ToString::to_string).collect();
            ProviderError::terminal(
                codes::TRAFFIC,
                format!(
                    "HAProxy cannot split {} as {want}: weights of servers are whole numbers from 0 to 256",
                    self.route
                ),
            )
            .hint(format!("the nearest possible split: {}", nearest.join("; or ")))
            .hint("more servers in a pool allow finer shares")
        })
    }

    /// Takes all `steps`. On an error those taken are taken back.
    async fn take(&self, steps: &[Step]) -> Result<(), ProviderError> {
        for (i, step) in steps.iter().enumerate() {
            if let Err(error) = self.socket.set_weight(&self.backend, &step.server, step.to).await {
                // The failed one too: its answer may have been lost after it was done.
                return Err(self.take_back(&steps[..=i], error).await);
            }
        }
        Ok(())
    }

    async fn take_back(&self, steps: &[Step], mut error: ProviderError) -> ProviderError {
        let mut left = Vec::new();
        for step in steps.iter().rev() {
            if self.socket.set_weight(&self.backend, &step.server, step.from).await.is_err() {
                left.push(format!("set server {}/{} weight {}", self.backend, step.server, step.from));
            }
        }
        // A first command that was refused has changed nothing, and there is nothing to restore.
        if !left.is_empty() && steps.len() > 1 {
            error.message =
                format!("{}; some weights were already set and could not be restored", error.message);
            error = error.hint(format!("to restore them by hand: {}", left.join("; ")));
        }
        error
    }
}

impl Factory for HaProxy {
    type Capability = dyn Traffic;
    type Settings = Settings;

    const KIND: &'static str = "haproxy";
    const ABOUT: &'static str = "One backend of an HAProxy, through its runtime API. A pool is a set of \
        servers of the backend. Weights are kept in HAProxy's memory: a reload restores those of its \
        configuration file.";
    const CAPABILITIES: &'static [&'static str] = &[
        "waits until connections of a drained pool are closed",
        "gives no weight to a pool without a server that is up",
    ];
    const EXAMPLE: &'static str = r#"[env.production.traffic.web]
provider = "haproxy"
socket = "unix:/run/haproxy.sock"            # or "tcp:127.0.0.1:9999"; needs `level admin`
backend = "web"
pools = { blue = ["blue1", "blue2"], green = "green1" }
url = "https://shop.example.com"
pool_urls = { green = "http://10.0.0.8:8080" }
drain_timeout = "2m"
"#;

    /// A relative path of a socket is taken from the folder of the file.
    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Traffic>, BadSetting> {
        let mut route = Self::new(&at.name, settings)?;
        if let Address::Unix(path) = &mut route.socket
            && path.is_relative()
            && let Some(text) = path.to_str()
        {
            *path = at.path(text);
        }
        Ok(Arc::new(route))
    }
}

#[async_trait]
impl Provider for HaProxy {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        format!("{}, backend {}", self.socket, self.backend)
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let info = self.socket.ask("show info").await?;
        let version =
            info.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or("of unknown version");
        let seen = self.look().await?;
        let weights = self.read(&seen)?;
        let pools = self.pools.len();
        let mut text =
            format!("HAProxy {version}, {pools} pool{}: {weights}", if pools == 1 { "" } else { "s" });
        let mine: Vec<&String> = self.pools.values().flatten().collect();
        let others: Vec<&str> = seen
            .iter()
            .filter(|(name, server)| server.weight > 0 && server.in_service() && !mine.contains(name))
            .map(|(name, _)| &**name)
            .collect();
        if !others.is_empty() {
            text.push_str(&format!("; {} also has weight but is in no pool", others.join(", ")));
        }
        Ok(text)
    }
}

#[async_trait]
impl Traffic for HaProxy {
    async fn weights(&self) -> Result<Weights, ProviderError> {
        self.read(&self.look().await?)
    }

    async fn set_weights(&self, want: &Weights) -> Result<(), ProviderError> {
        want.check(&self.route, self.pools.keys().map(String::as_str))?;
        let seen = self.look().await?;
        // With no weight anywhere there is nothing to compare with: every pool that gets some is raised.
        let now = self.read(&seen).unwrap_or_else(|_| Weights(BTreeMap::new()));
        let steps = self.steps(&seen, &now, want)?;
        for pool in self.pools.keys() {
            if want.share(pool) > now.share(pool) && !self.is_up(pool, &seen) {
                return Err(ProviderError::terminal(
                    codes::TRAFFIC,
                    format!(
                        "{pool} of {} would get {}, but no server of it takes traffic: {}",
                        self.route,
                        want.share(pool),
                        self.statuses(pool, &seen)
                    ),
                )
                .hint(
                    "find out why its health checks fail, or end maintenance: `set server BACKEND/SERVER \
                    state ready`",
                ));
            }
        }
        self.draining.reset();
        self.take(&steps).await?;
        let read = self.weights().await?;
        let asked: BTreeMap<&String, Share> =
            self.pools.keys().map(|pool| (pool, want.share(pool))).collect();
        if read.0.iter().any(|(pool, share)| asked.get(pool) != Some(share)) {
            let error = ProviderError::terminal(
                codes::TRAFFIC,
                format!("HAProxy accepted the weights {want} for {} but reads back {read}", self.route),
            )
            .hint("something else changes weights or server states in this backend at the same time");
            return Err(self.take_back(&steps, error).await);
        }
        Ok(())
    }

    async fn can_express(&self, want: &Weights) -> Result<(), ProviderError> {
        self.spread(&self.look().await?, want).map(|_| ())
    }

    async fn settled(&self, want: &Weights) -> Result<Progress, ProviderError> {
        let waiting = |done, total, message| Ok(Progress::Waiting { done, total, message });
        let seen = self.look().await?;
        let read = self.read(&seen)?;
        if self.pools.keys().any(|pool| read.share(pool) != want.share(pool)) {
            return waiting(0, 0, format!("weights are {read}, not {want}"));
        }
        let (used, unused): (Vec<&String>, Vec<&String>) =
            self.pools.keys().partition(|pool| !want.share(pool).is_none());
        for pool in &used {
            if !self.is_up(pool, &seen) {
                return waiting(0, 0, format!("no server of {pool} is up: {}", self.statuses(pool, &seen)));
            }
            let starting = |server: &&String| seen[*server].is_up() && seen[*server].is_starting();
            if let Some(server) = self.pools.get(*pool).into_iter().flatten().find(starting) {
                return waiting(0, 0, format!("{server} of {pool} is still starting"));
            }
        }
        let open =
            |pool: &String| -> u64 { self.pools.get(pool).into_iter().flatten().map(|s| seen[s].open).sum() };
        let drained = unused.iter().filter(|pool| open(pool) == 0).count();
        let Some(busy) = unused.iter().find(|pool| open(pool) > 0) else {
            self.draining.reset();
            return Ok(Progress::Settled);
        };
        let message = still_open(open(busy), busy);
        self.draining.waiting(&self.route, drained, unused.len(), message).map_err(|error| {
            error.hint(
                "raise `drain_timeout` of the route, or end those sessions by hand: `shutdown sessions server \
                 BACKEND/SERVER`",
            )
        })
    }

    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError> {
        self.addresses.of(pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Result<Settings, String> {
        toml_edit::de::from_str(toml).map_err(|e| e.to_string())
    }

    fn route(pools: &str) -> Result<HaProxy, String> {
        let settings = settings(&format!("socket = \"/run/h.sock\"\nbackend = \"web\"\npools = {pools}"))?;
        HaProxy::new("web", settings).map_err(|e| e.to_string())
    }

    fn seen(servers: &[(&str, u32, u32, u32)]) -> Seen {
        servers
            .iter()
            .map(|(name, weight, operation, admin)| {
                let server =
                    Server { backend: 1, weight: *weight, operation: *operation, admin: *admin, open: 0 };
                ((*name).to_owned(), server)
            })
            .collect()
    }

    fn weights(blue: u32) -> Weights {
        percent(f64::from(100 - blue))
    }

    /// Weights with that many percent for green.
    fn percent(green: f64) -> Weights {
        Weights::try_from([("blue", 100.0 - green), ("green", green)]).expect("shares")
    }

    #[test]
    fn settings_take_one_server_or_several_and_refuse_what_cannot_work() {
        let web = route(r#"{ blue = ["b1", "b2"], green = "g1" }"#).expect("usable");
        assert_eq!(web.pools["blue"], ["b1", "b2"]);
        assert_eq!(web.describe(), "unix:/run/h.sock, backend web");
        for (pools, why) in [
            ("{}", "name at least one pool"),
            (r#"{ blue = [] }"#, "the pool blue has no servers"),
            (r#"{ blue = "b1", green = "b1" }"#, "the server b1 is listed twice"),
            (r#"{ blue = "b1; shutdown sessions server x/y" }"#, "is not a valid server name"),
        ] {
            let error = route(pools).expect_err(pools);
            assert!(error.contains(why), "{error}");
        }
        let error = settings("socket = \"s\"\nbackend = \"web\"\npool = {}").expect_err("misspelt");
        assert!(error.contains("unknown field `pool`"), "{error}");
    }

    #[tokio::test]
    async fn addresses_come_from_the_settings() {
        let toml = "socket = \"s\"\nbackend = \"web\"\npools = { blue = \"b1\", green = \"g1\" }\n\
                    url = \"http://shop/\"\npool_urls = { green = \"http://green:8080\" }";
        let web = HaProxy::new("web", settings(toml).expect("settings")).expect("usable");
        assert_eq!(web.address(None).await.as_deref(), Ok("http://shop"));
        assert_eq!(web.address(Some("green")).await.as_deref(), Ok("http://green:8080"));
        let error = web.address(Some("blue")).await.expect_err("none configured");
        assert_eq!(error.message, "no address is configured for blue of web");
        let error = web.address(Some("gren")).await.expect_err("unknown");
        assert_eq!(error.hints, ["did you mean \"green\"?"]);
    }

    #[test]
    fn all_raises_come_before_all_lowers_and_the_pool_in_use_first() {
        let web = route(r#"{ blue = "b1", green = "g1" }"#).expect("usable");
        // Weights of a configuration file that knows nothing of us.
        let seen = seen(&[("b1", 1, 2, 0), ("g1", 0, 2, 0)]);
        let now = web.read(&seen).expect("weight");
        assert_eq!(now, weights(100));
        let steps = web.steps(&seen, &now, &weights(95)).expect("expressed");
        let shown: Vec<String> = steps.iter().map(|s| format!("{} {}->{}", s.server, s.from, s.to)).collect();
        assert_eq!(shown, ["b1 1->190", "g1 0->10"]);
    }

    #[test]
    fn no_share_overshoots_between_two_settings() {
        let web = route(r#"{ blue = ["b1", "b2"], green = ["g1", "g2", "g3"] }"#).expect("usable");
        let start =
            seen(&[("b1", 1, 2, 0), ("b2", 1, 2, 0), ("g1", 0, 2, 0), ("g2", 0, 2, 0), ("g3", 0, 2, 0)]);
        let mut at = start.clone();
        for step in web.steps(&start, &weights(100), &weights(100)).expect("expressed") {
            at.get_mut(&step.server).expect("known").weight = step.to;
        }
        let green = |at: &Seen| {
            let sum = |p: char| {
                at.iter().filter(|(n, _)| n.starts_with(p)).map(|(_, s)| f64::from(s.weight)).sum::<f64>()
            };
            100.0 * sum('g') / (sum('g') + sum('b'))
        };
        let mut random = fastrand::Rng::with_seed(3);
        let mut now = weights(100);
        for _ in 0..500 {
            let want = weights(random.u32(0..=100));
            let (from, to) = (now.share("green").percent(), want.share("green").percent());
            for step in web.steps(&at, &now, &want).expect("expressed") {
                at.get_mut(&step.server).expect("known").weight = step.to;
                let share = green(&at);
                assert!(share >= from.min(to) - 0.01 && share <= from.max(to) + 0.01, "{from} {share} {to}");
            }
            assert_eq!(web.read(&at), Ok(want.clone()));
            now = want;
        }
    }

    #[test]
    fn a_share_that_is_too_fine_is_refused_with_the_nearest() {
        let web = route(r#"{ blue = "b1", green = "g1" }"#).expect("usable");
        let seen = seen(&[("b1", 200, 2, 0), ("g1", 0, 2, 0)]);
        let steps = web.steps(&seen, &weights(100), &percent(0.5)).expect("expressed");
        let shown: Vec<String> = steps.iter().map(|s| format!("{} {}->{}", s.server, s.from, s.to)).collect();
        assert_eq!(shown, ["g1 0->1", "b1 200->199"]);
        let error = web.steps(&seen, &weights(100), &percent(0.1)).expect_err("too fine");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert_eq!(
            error.message,
            "HAProxy cannot split web as blue 99.9, green 0.1: weights of servers are whole numbers from 0 to 256"
        );
        assert_eq!(
            error.hints,
            [
                "the nearest possible split: blue 99.61, green 0.39",
                "more servers in a pool allow finer shares"
            ]
        );
    }

    #[test]
    fn a_server_in_maintenance_is_not_counted_and_one_that_is_down_is() {
        let web = route(r#"{ blue = ["b1", "b2"], green = ["g1", "g2"] }"#).expect("usable");
        let half = seen(&[("b1", 5, 2, 0), ("b2", 5, 0, 1), ("g1", 5, 2, 0), ("g2", 5, 0, 0)]);
        assert_eq!(web.read(&half), Ok(percent(66.67)));
        let mut at = half.clone();
        for step in web.steps(&half, &percent(66.67), &weights(50)).expect("expressed") {
            at.get_mut(&step.server).expect("known").weight = step.to;
        }
        assert_eq!(web.read(&at), Ok(weights(50)));
        // With its siblings' weight, not with what was there before.
        assert_eq!(at["b1"].weight, at["b2"].weight);
        // A pool that is out of service as a whole still has the weight that was set.
        let out = seen(&[("b1", 5, 0, 1), ("b2", 5, 0, 1), ("g1", 0, 2, 0), ("g2", 0, 2, 0)]);
        assert_eq!(web.read(&out), Ok(weights(100)));
    }
}
