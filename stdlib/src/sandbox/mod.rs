//! The built-in environment: real servers on loopback, inside the process.
//!
//! Two pools of HTTP servers (`blue`, `green`) behind a weighted router, load on it, metrics, message sinks and an SQLite
//! database. Nothing of it is simulated but its business: weights split real requests, a scaled-down pool refuses real
//! connections. Everything starts when it is first used and ends when the [`Sandbox`] is dropped.
//!
//! **Invariant:** background tasks hold no [`Sandbox`], so dropping the last handle stops them all.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};

use contraflow_runtime::provider::{ProviderError, Providers};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_util::sync::{CancellationToken, DropGuard};

mod balancer;
mod database;
mod fault;
mod http;
mod main_db;
mod metrics;
mod pool;
mod router;
mod sink;
mod targets;
mod window;

pub use fault::{Fault, FaultError, What};
pub use sink::Received;

use crate::{
    db::Database, deploy::Deploy, metrics::Metrics, notify::Notify, secrets::Secrets, traffic::Traffic,
};

/// The pools. At the start the first one has all traffic.
const POOLS: [&str; 2] = ["blue", "green"];
/// What runs in each pool.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct SandboxOptions {
    /// Faults from the start.
    pub faults: Vec<Fault>,
    /// Requests a second that are sent through the router. 0: none.
    pub load: u32,
    /// Replicas in each pool at the start.
    pub replicas: u32,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self { faults: Vec::new(), load: 100, replicas: 3 }
    }
}

/// The built-in environment.
#[derive(Debug)]
pub struct Sandbox {
    options: SandboxOptions,
    balancer: Arc<balancer::Balancer>,
    faults: Arc<fault::Faults>,
    load: Arc<router::Load>,
    inbox: Arc<sink::Inbox>,
    folder: PathBuf,
    world: OnceCell<World>,
    sinks: OnceCell<SocketAddr>,
    database: OnceCell<TempDir>,
    stop: CancellationToken,
    _stop: DropGuard,
}

/// The servers that are running.
#[derive(Debug)]
struct World {
    router: Arc<router::Router>,
    route: SocketAddr,
    metrics: SocketAddr,
    started: Instant,
}

impl Sandbox {
    /// A sandbox. Cheap: nothing runs until it is used. It has to be used within a tokio runtime, always the same one.
    pub fn new(options: SandboxOptions) -> Arc<Self> {
        let balancer = Arc::new(balancer::Balancer::new());
        let faults = Arc::new(fault::Faults::new(&options.faults, Arc::clone(&balancer)));
        let stop = CancellationToken::new();
        Arc::new(Self {
            load: router::Load::new(options.load),
            inbox: sink::Inbox::new(Arc::clone(&faults)),
            options,
            balancer,
            faults,
            folder: database::folder(),
            world: OnceCell::new(),
            sinks: OnceCell::new(),
            database: OnceCell::new(),
            _stop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Binds its targets: traffic, deploy and metrics `web`, database `main`, notify `ops` and `oncall`, the secret
    /// `deploy-token`. The sandbox itself is kept as an extension.
    pub fn bind(self: &Arc<Self>, providers: &mut Providers) {
        providers.live_in_this_process();
        let route = Arc::new(targets::Route(Arc::clone(self)));
        providers.bind::<dyn Traffic>("web", route);
        let deployment = Arc::new(targets::Deployment(Arc::clone(self)));
        providers.bind::<dyn Deploy>("web", deployment);
        let source = Arc::new(metrics::Source(Arc::clone(self)));
        providers.bind::<dyn Metrics>("web", source);
        for name in sink::SINKS {
            let sink = Arc::new(sink::Sink { name, sandbox: Arc::clone(self) });
            providers.bind::<dyn Notify>(name, sink);
        }
        let main = Arc::new(main_db::Main::new(Arc::clone(self)));
        providers.bind::<dyn Database>("main", main);
        let token = Arc::new(targets::Token);
        providers.bind::<dyn Secrets>("deploy-token", token);
        providers.extend(Arc::clone(self));
    }

    /// Makes the database and its migrations, once.
    ///
    /// # Errors
    /// `unreachable`: the temporary folder cannot be written.
    pub async fn ready(&self) -> Result<(), ProviderError> {
        self.database.get_or_try_init(|| database::create(&self.folder)).await.map(drop)
    }

    /// The SQLite file. It is there after [`Sandbox::ready`]; its folder is removed with the sandbox.
    pub fn database_path(&self) -> PathBuf {
        database::file(&self.folder)
    }

    /// The folder of migrations, `migrations` next to the database. It is there after [`Sandbox::ready`].
    pub fn migrations_dir(&self) -> PathBuf {
        database::migrations(&self.folder)
    }

    /// Base URL of the router, without a slash at the end.
    ///
    /// # Errors
    /// `unreachable`: the servers could not start.
    pub async fn route_url(&self) -> Result<String, ProviderError> {
        Ok(format!("http://{}", self.world().await?.route))
    }

    /// URL of the metrics in Prometheus text format.
    ///
    /// # Errors
    /// `unreachable`: the servers could not start.
    pub async fn metrics_url(&self) -> Result<String, ProviderError> {
        Ok(format!("http://{}/metrics", self.world().await?.metrics))
    }

    /// URL to which messages for the sink `name` are posted.
    ///
    /// # Errors
    /// `unreachable`: the server could not start.
    pub async fn sink_url(&self, name: &str) -> Result<String, ProviderError> {
        let address = self.sinks.get_or_try_init(|| self.start_sinks()).await?;
        Ok(format!("http://{address}/{name}"))
    }

    /// What the message sinks have got, oldest first. A message sent twice with one key is there once.
    pub fn messages(&self) -> Vec<Received> {
        self.inbox.messages()
    }

    /// Switches a fault on. It takes the place of faults of the same kind on the same server, so `green.error_rate=0%` ends
    /// one.
    pub fn set_fault(&self, fault: Fault) {
        self.faults.set(fault);
    }

    /// Switches all faults off.
    pub fn clear_faults(&self) {
        self.faults.clear();
    }

    /// The faults that are set, whether their condition holds or not.
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.list()
    }

    /// Sets how many requests a second are sent through the router.
    pub fn set_load(&self, per_second: u32) {
        self.load.set(per_second);
    }

    /// How many requests the load has sent so far.
    pub fn load_sent(&self) -> u64 {
        self.load.sent()
    }

    async fn world(&self) -> Result<&World, ProviderError> {
        self.world.get_or_try_init(|| self.start()).await
    }

    async fn start(&self) -> Result<World, ProviderError> {
        // If the start fails halfway, what runs already ends with it.
        let stop = self.stop.child_token();
        let undo = stop.clone().drop_guard();
        self.faults.start();
        let mut pools = std::collections::BTreeMap::new();
        for (name, version) in POOLS.into_iter().zip(VERSIONS) {
            let (faults, stop) = (Arc::clone(&self.faults), stop.clone());
            pools.insert(name, pool::Pool::start(name, version, self.options.replicas, faults, stop).await?);
        }
        let router = Arc::new(router::Router { pools, balancer: Arc::clone(&self.balancer) });
        let (listener, route) = http::listen().await?;
        let faults = Arc::clone(&self.faults);
        let down = fault::Faults::is_router_down;
        http::serve_unless(listener, route, Arc::clone(&router), faults, down, stop.clone());
        let started = Instant::now();
        let (listener, metrics) = http::listen().await?;
        let page = Arc::new(metrics::Page { router: Arc::clone(&router), started });
        http::serve(listener, page, CancellationToken::new(), stop.clone());
        Arc::clone(&self.load).start(route, stop).await;
        undo.disarm();
        Ok(World { router, route, metrics, started })
    }

    async fn start_sinks(&self) -> Result<SocketAddr, ProviderError> {
        self.faults.start();
        let (listener, address) = http::listen().await?;
        let (inbox, faults) = (Arc::clone(&self.inbox), Arc::clone(&self.faults));
        http::serve_unless(listener, address, inbox, faults, fault::Faults::is_sink_down, self.stop.clone());
        Ok(address)
    }
}
