//! HAProxy as a route: weights and drain through its runtime API.
//!
//! A pool is a set of servers of one backend. Its share is dealt out over their weights so that it reads back as what was set;
//! shares that are too fine for 256 steps a server are refused (see `spread`). A pool with share 0 has weight 0 on all servers:
//! HAProxy sends it no new sessions and lets the open ones finish; the change is in effect when none is left. Servers that
//! somebody has put into MAINT or DRAIN are left there and not counted; servers that fail their checks are counted, since they may
//! come back at any moment. Backup servers get sessions only when no other server can take any, so they do not count beside
//! others.
//!
//! Weights are a setting, not traffic. So what a backend says of itself is read too (its algorithm, cookies, stick tables, servers
//! that are in no pool, processes that a reload left over), and sessions are counted: new weights are in effect when the counts
//! do not contradict them.
//!
//! HAProxy keeps weights in memory: a reload starts again from its configuration file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use contraflow_provider::registry::Factory;
use contraflow_runtime::{
    effect::Progress,
    error::did_you_mean,
    provider::{Provider, ProviderError},
};

use super::{Addresses, DrainTimer, Measure, Share, Traffic, Weights, still_open};
use crate::{
    codes,
    config::{BadSetting, Building},
};

mod dealing;
mod settings;
mod socket;
mod spread;

use dealing::{Dealing, left_over};
pub use settings::{Servers, Settings};
use socket::{Address, Backend, Process, Server};

/// One backend of an HAProxy.
#[derive(Debug)]
pub struct HaProxy {
    route: String,
    socket: Address,
    backend: String,
    pools: BTreeMap<String, Vec<String>>,
    addresses: Addresses,
    draining: DrainTimer,
    measure: Measure,
    /// Weights that were found when others were set.
    before: Mutex<BTreeSet<Weights>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
            measure: Measure::new(settings.measure.into()),
            before: Mutex::default(),
        })
    }

    /// Asks for all servers of the backend and finds those of the pools among them.
    async fn look(&self) -> Result<Backend, ProviderError> {
        let seen = self.socket.backend(&self.backend).await?;
        for (pool, servers) in &self.pools {
            if let Some(missing) = servers.iter().find(|server| !seen.servers.contains_key(*server)) {
                let error = ProviderError::terminal(
                    codes::TRAFFIC,
                    format!(
                        "the backend {} of HAProxy has no server named \"{missing}\", which is in the pool {pool}",
                        self.backend
                    ),
                );
                return Err(match did_you_mean(missing, seen.servers.keys().map(String::as_str)) {
                    Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                    None => {
                        let names: Vec<&str> = seen.servers.keys().map(String::as_str).collect();
                        error.hint(format!("servers of {}: {}", self.backend, names.join(", ")))
                    }
                });
            }
        }
        Ok(seen)
    }

    fn servers(&self, pool: &str) -> impl Iterator<Item = &str> + Clone {
        self.pools.get(pool).into_iter().flatten().map(String::as_str)
    }

    /// Whether all servers of a pool are `backup`.
    fn is_backup(&self, pool: &str, seen: &Backend) -> bool {
        self.servers(pool).all(|server| seen.servers[server].backup)
    }

    /// The servers of a pool whose weights count: those in service, or all where none is; of those that are no backup, where there
    /// are any.
    fn counted<'a>(&'a self, pool: &str, seen: &Backend) -> Vec<&'a str> {
        let backups_too = self.is_backup(pool, seen);
        let all = || self.servers(pool).filter(|server| backups_too || !seen.servers[*server].backup);
        let in_service: Vec<&str> = all().filter(|server| seen.servers[*server].in_service()).collect();
        if in_service.is_empty() { all().collect() } else { in_service }
    }

    /// The sum of weights of each pool over those of its counted servers that `count`.
    fn sums(&self, seen: &Backend, count: impl Fn(&Server) -> bool) -> BTreeMap<&str, u64> {
        // HAProxy looks at backup servers only where no other has weight.
        let counts = |server: &Server| count(server) && server.weight > 0;
        let only_backups = !seen.servers.values().any(|server| !server.backup && counts(server));
        let weight = |server: &str| {
            let server = &seen.servers[server];
            if counts(server) && (only_backups || !server.backup) { u64::from(server.weight) } else { 0 }
        };
        self.pools
            .keys()
            .map(|pool| (&**pool, self.counted(pool, seen).into_iter().map(weight).sum()))
            .collect()
    }

    /// The share of each pool.
    fn read(&self, seen: &Backend) -> Result<Weights, ProviderError> {
        let sums = self.sums(seen, |_| true);
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
    fn statuses(&self, pool: &str, seen: &Backend) -> String {
        let shown: Vec<String> =
            self.servers(pool).map(|s| format!("{s} is {}", seen.servers[s].status())).collect();
        shown.join(", ")
    }

    fn is_up(&self, pool: &str, seen: &Backend) -> bool {
        self.counted(pool, seen).into_iter().any(|server| seen.servers[server].is_up())
    }

    /// The changes of weights that lead to `want`, in an order in which the capacity in use never drops: all raises come
    /// before all lowers. Among raises the pools whose share shrinks come first, among lowers those whose share grows, so
    /// that a change of scale sends nothing extra to a pool that is new to the traffic.
    ///
    /// # Errors
    /// Shares that the weights of these servers cannot express.
    fn steps(&self, seen: &Backend, now: &Weights, want: &Weights) -> Result<Vec<Step>, ProviderError> {
        let weights = self.spread(seen, want)?;
        let mut steps = Vec::new();
        for (pool, servers) in &self.pools {
            // A server that somebody took out of service gets what its siblings have, for when it comes back; but nothing
            // while traffic is split, since it would bring its pool more than its share.
            let sibling = self.counted(pool, seen).first().and_then(|s| weights.get(s)).copied().unwrap_or(0);
            let usual = |server: &Server| {
                if server.in_service() || want.share(pool) == Share::ALL { sibling } else { 0 }
            };
            let basis_points = |weights: &Weights| i64::from(weights.share(pool).basis_points());
            let growth = basis_points(want) - basis_points(now);
            for server in servers {
                let is = &seen.servers[server];
                let (from, to) = (is.weight, weights.get(&**server).copied().unwrap_or_else(|| usual(is)));
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
    fn spread<'a>(&'a self, seen: &Backend, want: &Weights) -> Result<BTreeMap<&'a str, u32>, ProviderError> {
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

    /// Why `want` is not set: it could not be, or traffic would not follow it.
    async fn refuse(&self, seen: &Backend, now: &Weights, want: &Weights) -> Result<(), ProviderError> {
        let refused = |why: String| Err(ProviderError::terminal(codes::TRAFFIC, why));
        let Process { processes, stopping, .. } = self.socket.process().await?;
        if processes > 1 {
            return refused(format!(
                "HAProxy at {} runs as {processes} processes with weights of their own (`nbproc`), and the socket reaches one",
                self.socket
            ))
            .map_err(|e| e.hint("use threads in place of processes: `nbthread` in the global section"));
        }
        if stopping {
            return refused(format!(
                "HAProxy at {} is stopping: it is the process of before a reload, and gets no new traffic",
                self.socket
            ))
            .map_err(|e| e.hint("is `socket` that of the new process?"));
        }
        let is_split = want.0.values().filter(|share| !share.is_none()).count() > 1;
        // What was there before may be put back, however it came about.
        let is_known = lock(&self.before).contains(want);
        if Dealing::of(seen.algorithm.as_deref()) == Dealing::FirstWithRoom && is_split && !is_known {
            return refused(format!(
                "{} cannot be split as {want}: the backend {} uses `balance first`, which gives every session to the first \
                 server that has room",
                self.route, self.backend
            ))
            .map_err(|e| e.hint("use an algorithm that follows weights, such as `balance roundrobin`"));
        }
        let beside_others = seen.servers.values().any(|server| !server.backup);
        for pool in self.pools.keys() {
            let share = want.share(pool);
            if self.is_backup(pool, seen) && beside_others && !share.is_none() && is_split && !is_known {
                let servers: Vec<&str> = self.servers(pool).collect();
                return refused(format!(
                    "{pool} of {} would get {share}, but {} backup ({}): HAProxy uses them only when no other server is left",
                    self.route,
                    if servers.len() == 1 { "its server is a" } else { "all its servers are" },
                    servers.join(", ")
                ))
                .map_err(|e| {
                    e.hint(format!("take `backup` from these servers in the backend {}", self.backend))
                });
            }
            if share > now.share(pool) && !self.is_up(pool, seen) {
                return refused(format!(
                    "{pool} of {} would get {share}, but no server of it takes traffic: {}",
                    self.route,
                    self.statuses(pool, seen)
                ))
                .map_err(|e| {
                    e.hint(
                        "find out why its health checks fail, or end maintenance: `set server BACKEND/SERVER \
                         state ready`",
                    )
                });
            }
        }
        Ok(())
    }

    /// The share of each pool that HAProxy really deals out: servers that are down get nothing.
    fn effective(&self, seen: &Backend) -> Option<Weights> {
        Weights::normalized(&self.sums(seen, Server::is_up))
    }

    /// What keeps traffic from being dealt as weights say, of those that are set now.
    fn caveats_of(&self, seen: &Backend, want: &Weights, is_sticky: bool, left_over: &[u32]) -> Vec<String> {
        let mut all = Vec::new();
        let algorithm = seen.algorithm.as_deref();
        all.extend(Dealing::of(algorithm).caveat(&self.backend, algorithm.unwrap_or_default()));
        let kept = |by: String| {
            format!(
                "users stay on their server by {by}: weights decide for new users only, and a pool without weight keeps its users"
            )
        };
        all.extend(seen.cookie.as_ref().map(|name| kept(format!("the cookie {name}"))));
        all.extend(is_sticky.then(|| kept("a stick table".to_owned())));
        for pool in self.pools.keys() {
            if self.is_backup(pool, seen) {
                all.push(format!(
                    "{pool} has only backup servers, which HAProxy uses when no other server is left"
                ));
            }
            let share = want.share(pool);
            let away: Vec<&str> = self.servers(pool).filter(|s| !seen.servers[*s].is_up()).collect();
            if share.is_none() || away.is_empty() {
                continue;
            }
            let shown: Vec<String> =
                away.iter().map(|s| format!("{s} is {}", seen.servers[*s].status())).collect();
            let (mut down, out): (Vec<&str>, Vec<&str>) =
                away.iter().partition(|s| seen.servers[**s].in_service());
            down.retain(|s| !seen.servers[*s].backup);
            if !out.is_empty() && share != Share::ALL {
                all.push(format!(
                    "{}: servers that are out of service get no weight while traffic is split, also when they come back",
                    shown.join(", ")
                ));
            } else if !down.is_empty() && share != Share::ALL {
                all.push(format!("{}: {pool} gets less than its share until it is back", shown.join(", ")));
            }
        }
        let mine: Vec<&String> = self.pools.values().flatten().collect();
        let others: Vec<&str> = seen
            .servers
            .iter()
            .filter(|(name, server)| {
                server.weight > 0 && server.in_service() && !server.backup && !mine.contains(name)
            })
            .map(|(name, _)| &**name)
            .collect();
        if !others.is_empty() {
            all.push(format!("{} also has weight but is in no pool", others.join(", ")));
        }
        if !left_over.is_empty() {
            all.push(format!(
                "{}, which still serves connections with the weights that it had",
                left_over_process(left_over)
            ));
        }
        all
    }

    /// Processes of before a reload that still serve connections.
    async fn left_over(&self) -> Result<Vec<u32>, ProviderError> {
        Ok(self.socket.process().await?.pid.map(left_over).unwrap_or_default())
    }

    /// Sessions that each pool was given since HAProxy started.
    fn dealt(&self, seen: &Backend) -> BTreeMap<String, u64> {
        let sum = |pool: &String| self.servers(pool).map(|server| seen.servers[server].dealt).sum();
        self.pools.keys().map(|pool| (pool.clone(), sum(pool))).collect()
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
        configuration file. Weights share out traffic exactly with `balance roundrobin`, and closely with `random`; with hashes \
        they share out the values that are hashed, with `leastconn` only servers that are busy, and with `first` nothing, \
        so that a split is refused. Pools of `backup` servers get no share beside others.";
    const CAPABILITIES: &'static [&'static str] = &[
        "counts sessions to see whether new weights are in effect",
        "says what keeps traffic from following weights: the algorithm, cookies, stick tables, backup servers",
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
        let process = self.socket.process().await?;
        let seen = self.look().await?;
        let weights = self.read(&seen)?;
        let pools = self.pools.len();
        let mut text = format!(
            "HAProxy {}, {pools} pool{}: {weights}",
            process.version,
            if pools == 1 { "" } else { "s" }
        );
        for pool in self.pools.keys().filter(|pool| !self.is_up(pool, &seen)) {
            text.push_str(&format!("; no server of {pool} takes traffic: {}", self.statuses(pool, &seen)));
        }
        let sticky = self.socket.has_sticky_table(&self.backend).await;
        let left_over = process.pid.map(left_over).unwrap_or_default();
        for caveat in self.caveats_of(&seen, &weights, sticky, &left_over) {
            text.push_str(&format!("; {caveat}"));
        }
        Ok(text)
    }
}

/// `process 7 is left over from a reload`
fn left_over_process(pids: &[u32]) -> String {
    let shown: Vec<String> = pids.iter().map(ToString::to_string).collect();
    match &*shown {
        [one] => format!("the HAProxy process {one} is left over from a reload"),
        _ => format!("the HAProxy processes {} are left over from a reload", shown.join(", ")),
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
        self.refuse(&seen, &now, want).await?;
        lock(&self.before).insert(now.clone());
        self.draining.reset();
        self.take(&steps).await?;
        let after = self.look().await?;
        let read = self.read(&after)?;
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
        self.measure.count_from(0, self.dealt(&after), Some(now));
        Ok(())
    }

    async fn would_take(&self, want: &Weights) -> Result<(), ProviderError> {
        want.check(&self.route, self.pools.keys().map(String::as_str))?;
        let seen = self.look().await?;
        self.spread(&seen, want)?;
        let now = self.read(&seen).unwrap_or_else(|_| Weights(BTreeMap::new()));
        self.refuse(&seen, &now, want).await
    }

    async fn caveats(&self, want: &Weights) -> Result<Vec<String>, ProviderError> {
        let seen = self.look().await?;
        let sticky = self.socket.has_sticky_table(&self.backend).await;
        Ok(self.caveats_of(&seen, want, sticky, &self.left_over().await?))
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
            let starting =
                |server: &&String| seen.servers[*server].is_up() && seen.servers[*server].is_starting();
            if let Some(server) = self.pools.get(*pool).into_iter().flatten().find(starting) {
                return waiting(0, 0, format!("{server} of {pool} is still starting"));
            }
        }
        let open = |pool: &String| -> u64 { self.servers(pool).map(|s| seen.servers[s].open).sum() };
        let drained = unused.iter().filter(|pool| open(pool) == 0).count();
        let message = match unused.iter().find(|pool| open(pool) > 0) {
            Some(busy) => still_open(open(busy), busy),
            None => {
                // What a process of before a reload has open is not counted by the new one.
                let left_over = if unused.is_empty() { Vec::new() } else { self.left_over().await? };
                if left_over.is_empty() {
                    self.draining.reset();
                    let slack = Dealing::of(seen.algorithm.as_deref()).slack();
                    let expected = self.effective(&seen).unwrap_or(read);
                    return match self.measure.fits(0, &self.dealt(&seen), &expected, slack) {
                        Ok(()) => Ok(Progress::Settled),
                        Err(message) => waiting(0, 0, message),
                    };
                }
                format!("{} and may have connections", left_over_process(&left_over))
            }
        };
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

    fn seen(servers: &[(&str, u32, u32, u32)]) -> Backend {
        let servers = servers.iter().map(|(name, weight, operation, admin)| {
            let server =
                Server { weight: *weight, operation: *operation, admin: *admin, ..Server::default() };
            ((*name).to_owned(), server)
        });
        Backend { servers: servers.collect(), algorithm: Some("roundrobin".to_owned()), cookie: None }
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
            at.servers.get_mut(&step.server).expect("known").weight = step.to;
        }
        let green = |at: &Backend| {
            let sum = |p: char| {
                at.servers
                    .iter()
                    .filter(|(n, _)| n.starts_with(p))
                    .map(|(_, s)| f64::from(s.weight))
                    .sum::<f64>()
            };
            100.0 * sum('g') / (sum('g') + sum('b'))
        };
        let mut random = fastrand::Rng::with_seed(3);
        let mut now = weights(100);
        for _ in 0..500 {
            let want = weights(random.u32(0..=100));
            let (from, to) = (now.share("green").percent(), want.share("green").percent());
            for step in web.steps(&at, &now, &want).expect("expressed") {
                at.servers.get_mut(&step.server).expect("known").weight = step.to;
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
            at.servers.get_mut(&step.server).expect("known").weight = step.to;
        }
        assert_eq!(web.read(&at), Ok(weights(50)));
        // It gets nothing while traffic is split, so that its pool keeps its share when it comes back.
        at.servers.get_mut("b2").expect("known").admin = 0;
        assert_eq!(web.read(&at), Ok(weights(50)));
        assert_eq!(at.servers["b2"].weight, 0);
        // With all traffic on its pool it gets what its siblings have.
        for step in web.steps(&half, &percent(66.67), &weights(100)).expect("expressed") {
            at.servers.get_mut(&step.server).expect("known").weight = step.to;
        }
        assert_eq!((at.servers["b2"].weight > 0, at.servers["b2"].weight), (true, at.servers["b1"].weight));
        // A pool that is out of service as a whole still has the weight that was set.
        let out = seen(&[("b1", 5, 0, 1), ("b2", 5, 0, 1), ("g1", 0, 2, 0), ("g2", 0, 2, 0)]);
        assert_eq!(web.read(&out), Ok(weights(100)));
    }

    #[test]
    fn backup_servers_do_not_count_beside_others() {
        let web = route(r#"{ blue = "b1", green = ["g1", "g2"] }"#).expect("usable");
        let mut seen = seen(&[("b1", 100, 2, 0), ("g1", 100, 2, 0), ("g2", 100, 2, 0)]);
        seen.servers.get_mut("g2").expect("known").backup = true;
        assert_eq!(web.read(&seen), Ok(weights(50)));
        seen.servers.get_mut("g1").expect("known").backup = true;
        assert_eq!(web.read(&seen), Ok(weights(100)));
        assert!(
            web.caveats_of(&seen, &weights(100), false, &[])
                .concat()
                .starts_with("green has only backup servers")
        );
        // They are used when no other server has weight.
        seen.servers.get_mut("b1").expect("known").weight = 0;
        assert_eq!(web.read(&seen), Ok(weights(0)));
    }

    #[test]
    fn what_keeps_traffic_from_following_weights_is_said() {
        let web = route(r#"{ blue = ["b1", "b2"], green = "g1" }"#).expect("usable");
        let mut seen = seen(&[("b1", 5, 2, 0), ("b2", 5, 0, 0), ("g1", 5, 2, 0), ("x1", 5, 2, 0)]);
        seen.algorithm = Some("leastconn".to_owned());
        seen.cookie = Some("SRV".to_owned());
        let all = web.caveats_of(&seen, &weights(50), true, &[7, 8]);
        for (caveat, start) in all.iter().zip([
            "the backend web uses `balance leastconn`",
            "users stay on their server by the cookie SRV",
            "users stay on their server by a stick table",
            "b2 is DOWN: blue gets less than its share",
            "x1 also has weight but is in no pool",
            "the HAProxy processes 7, 8 are left over from a reload",
        ]) {
            assert!(caveat.starts_with(start), "{all:?}");
        }
        assert_eq!(all.len(), 6, "{all:?}");
        // What is really dealt: a third for a pool of which half is down.
        assert_eq!(web.effective(&seen), Some(weights(50)));
        seen.servers.get_mut("b2").expect("known").admin = 1;
        assert!(web.caveats_of(&seen, &weights(50), false, &[])[2].starts_with("b2 is in MAINT"), "{all:?}");
    }
}
