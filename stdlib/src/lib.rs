//! The primitives of Contraflow and the providers behind them.
//!
//! One folder per noun. In it `mod.rs` holds the capability trait, the noun's script module and the binding of its targets
//! from the configuration; each primitive is one file, each provider is one file.

use std::sync::Arc;

use contraflow_runtime::{lint::Lint, rehearsal::Invariant};
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
pub mod net;
pub mod notify;
pub mod probe;
pub mod sandbox;
pub mod secrets;
pub mod traffic;

/// Error codes of this library.
pub mod codes {
    /// A configuration file that cannot be used.
    pub const CONFIG: &str = "config";
    /// A probe that did not find what it expected.
    pub const PROBE_FAILED: &str = "probe-failed";
    /// A gate whose condition did not hold.
    pub const GATE_FAILED: &str = "gate-failed";
    /// A gate that had no data or too little to decide.
    pub const GATE_INCONCLUSIVE: &str = "gate-inconclusive";
    /// A migration that cannot be applied or was changed after it was.
    pub const MIGRATION: &str = "migration";
    /// A backup that could not be made or read back.
    pub const BACKUP: &str = "backup";
    /// A query that a database refused.
    pub const QUERY: &str = "query";
    /// A command that is not allowed, could not start or did not succeed.
    pub const EXEC: &str = "exec";
    /// A message that was not accepted.
    pub const NOTIFY: &str = "notify";
    /// A route that cannot take the weights it was given.
    pub const TRAFFIC: &str = "traffic";
    /// A pool that cannot be scaled as asked.
    pub const DEPLOY: &str = "deploy";
    /// A server that refused a request (HTTP 4xx).
    pub const HTTP_STATUS: &str = "http-status";

    /// All of them, for documentation.
    pub const ALL: &[&str] = &[
        CONFIG,
        PROBE_FAILED,
        GATE_FAILED,
        GATE_INCONCLUSIVE,
        MIGRATION,
        BACKUP,
        QUERY,
        EXEC,
        NOTIFY,
        TRAFFIC,
        DEPLOY,
        HTTP_STATUS,
    ];
}

/// What scripts call without a module name: the word `guard`, and what can be done with a secret.
pub fn words() -> Module {
    let mut module = secrets::secret_type();
    guard::add_to(&mut module);
    module
}

/// What must hold at every moment of a rehearsal.
pub fn invariants() -> Vec<Arc<dyn Invariant>> {
    vec![Arc::new(invariants::WholeWeights), Arc::new(invariants::Capacity)]
}

/// What looks for defects in runbooks, besides the lints of the runtime.
pub fn lints() -> Vec<Arc<dyn Lint>> {
    vec![Arc::new(lints::retire::RetireWithoutEvidence), Arc::new(lints::rollback::RollbackWithoutCapacity)]
}

/// The script modules of this library: one line per noun.
pub fn modules() -> Vec<(&'static str, Arc<Module>)> {
    [
        ("db", db::module()),
        ("deploy", deploy::module()),
        ("exec", exec::module()),
        ("http", http::module()),
        ("metrics", metrics::module()),
        ("notify", notify::module()),
        ("probe", probe::module()),
        ("secrets", secrets::module()),
        ("traffic", traffic::module()),
    ]
    .map(|(name, module)| (name, Arc::new(module)))
    .into()
}
