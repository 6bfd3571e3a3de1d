//! The primitives of Contraflow and the providers behind them.
//!
//! One folder per noun. In it `mod.rs` holds the noun's script module; each primitive is one file, each provider is one file that
//! declares itself. [`library`] lists all of them; the capability traits are in `contraflow-provider`.

pub use contraflow_provider::http as net;
use contraflow_provider::registry::Noun;
use contraflow_runtime::Library;
use rhai::Module;

pub mod config;
pub mod db;
pub mod deploy;
pub mod exec;
pub mod guard;
pub mod http;
mod invariants;
mod lints;
pub mod metrics;
pub mod notify;
pub mod probe;
pub mod sandbox;
pub mod secrets;
pub mod traffic;

/// Error codes of this library.
pub mod codes {
    pub use contraflow_provider::codes::*;

    /// A probe that did not find what it expected.
    pub const PROBE_FAILED: &str = "probe-failed";
    /// A gate whose condition did not hold.
    pub const GATE_FAILED: &str = "gate-failed";
    /// A gate that had no data or too little to decide.
    pub const GATE_INCONCLUSIVE: &str = "gate-inconclusive";
    /// A command that is not allowed, could not start or did not succeed.
    pub const EXEC: &str = "exec";
}

/// What scripts call without a module name: the word `guard`, and what can be done with a secret.
fn words() -> Module {
    let mut module = secrets::secret_type();
    guard::add_to(&mut module);
    module
}

/// A code with its page.
macro_rules! page {
    ($library:expr, $($code:literal),+ $(,)?) => {
        $library$(.page($code, include_str!(concat!("../errors/", $code, ".md"))))+
    };
}

/// All of this library: one line for each noun, provider, code and lint.
pub fn library() -> Library {
    let library = Library::new("stdlib")
        .words(words())
        .module("db", db::module())
        .module("deploy", deploy::module())
        .module("exec", exec::module())
        .module("http", http::module())
        .module("metrics", metrics::module())
        .module("notify", notify::module())
        .module("probe", probe::module())
        .module("secrets", secrets::module())
        .module("traffic", traffic::module())
        .noun(Noun::of::<dyn traffic::Traffic>("Routes that split traffic over pools by weight"))
        .provider::<traffic::envoy::Envoy>()
        .provider::<traffic::haproxy::HaProxy>()
        .noun(Noun::of::<dyn deploy::Deploy>("Deployments: pools of replicas"))
        .noun(Noun::of::<dyn metrics::Metrics>("Sources of metrics"))
        .provider::<metrics::prometheus::Prometheus>()
        .noun(Noun::of::<dyn db::Database>("Databases: migrations, queries, backups"))
        .provider::<db::Sqlite>()
        .noun(Noun::of::<dyn notify::Notify>("Destinations for messages"))
        .provider::<notify::console::Console>()
        .provider::<notify::slack::Slack>()
        .provider::<notify::webhook::Webhook>()
        .noun(Noun::of::<dyn secrets::Secrets>("Secrets, one target each"))
        .provider::<secrets::env::Env>()
        .provider::<secrets::file::File>()
        .section::<exec::ExecPolicy>()
        .lint(lints::retire::RetireWithoutEvidence)
        .lint(lints::rollback::RollbackWithoutCapacity)
        .invariant(invariants::WholeWeights)
        .invariant(invariants::Capacity);
    #[cfg(feature = "postgres")]
    let library = library.provider::<db::Postgres>();
    #[cfg(not(feature = "postgres"))]
    let library = library.absent("db", "postgres", "postgres");
    page!(
        library,
        "config",
        "probe-failed",
        "gate-failed",
        "gate-inconclusive",
        "migration",
        "backup",
        "query",
        "exec",
        "notify",
        "traffic",
        "deploy",
        "http-status",
    )
}
