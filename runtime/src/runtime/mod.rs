//! The entrance for programs: build a [`Runtime`], then check, plan and run bundles.
//!
//! ```
//! use std::{collections::BTreeMap, sync::Arc};
//! use contraflow_runtime::{Bundle, Runtime, event::RunOutcome};
//!
//! let tokio = tokio::runtime::Runtime::new()?;
//! let runtime = Runtime::builder().build();
//! let bundle = Bundle::single("hello.rhai", r#"const RUNBOOK = #{ name: "hello" }; note("hello");"#);
//! let report = tokio.block_on(runtime.plan(&bundle, &BTreeMap::new()))?;
//! assert_eq!(report.outcome, RunOutcome::Succeeded);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod builder;
mod execution;
mod planned;
mod rehearse;
mod takeover;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;
use serde_json::Value;

pub use self::{
    builder::Builder,
    planned::{Approvals, Planned},
    rehearse::{Beginning, Rehearsal},
    takeover::Takeover,
};
use self::{execution::Execution, takeover::given};
use crate::{
    clock::Clock,
    effect::Role,
    error::{RunError, codes},
    event::{LeftOver, RunOutcome, Sink},
    journal::{Holder, Replay, Run, RunStatus, Store},
    kernel::Policy,
    lint::{self, Lint, Warning},
    provider::Providers,
    rehearsal::Invariant,
    script::{self, Bundle, Functions, Given, Header, Prepared, ScriptLimits},
    stop::Stop,
    world::{LiveWorld, NoPeople, People},
};

pub use crate::vocabulary::SANDBOX;

/// Runs runbooks against the targets of one environment.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) functions: Arc<Functions>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) store: Option<Arc<dyn Store>>,
    pub(crate) people: Arc<dyn People>,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) sinks: Arc<[Arc<dyn Sink>]>,
    pub(crate) limits: ScriptLimits,
    pub(crate) params: BTreeMap<String, Value>,
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_by: String,
    pub(crate) invariants: Vec<Arc<dyn Invariant>>,
    pub(crate) lints: Vec<Arc<dyn Lint>>,
    pub(crate) approvals: Approvals,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("providers", &self.inner.providers).finish_non_exhaustive()
    }
}

/// How a run or a plan ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Id of the run.
    pub run: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why, unless it succeeded.
    pub error: Option<RunError>,
    /// What a rollback could not undo.
    pub left: Vec<LeftOver>,
    /// How many targets were changed, or would be.
    pub changes: usize,
    /// How long it took; for a plan, how long a run would take at least.
    pub elapsed_ms: u64,
    /// For a plan, how much longer a run is expected to take until its changes are in effect, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
}

impl Runtime {
    /// Everything that scripts can call.
    pub fn functions(&self) -> &Functions {
        &self.inner.functions
    }

    /// The targets.
    pub fn providers(&self) -> &Providers {
        &self.inner.providers
    }

    /// Checks a bundle without running anything.
    ///
    /// # Errors
    /// Everything that is wrong, each with its place.
    pub fn check(&self, bundle: &Bundle) -> Result<Header, LoadErrors> {
        script::check(bundle, &self.inner.functions).map_err(LoadErrors)
    }

    /// What is probably wrong with a bundle that would run, by place. Nothing is run, and nothing is said about a bundle that does not
    /// parse.
    pub fn warnings(&self, bundle: &Bundle) -> Vec<Warning> {
        lint::warnings(bundle, &self.inner.functions, &self.inner.lints)
    }

    /// Predicts what a run would do. Reads are real; nothing is changed.
    ///
    /// # Errors
    /// The bundle does not load or a parameter is wrong. A plan that fails is a [`Report`].
    pub async fn plan(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
    ) -> Result<Report, LoadErrors> {
        self.plan_until(bundle, params, &Stop::default()).await
    }

    /// [`Runtime::plan`], to be stopped from outside.
    ///
    /// # Errors
    /// As there.
    pub async fn plan_until(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        stop: &Stop,
    ) -> Result<Report, LoadErrors> {
        Ok(self.foresee(bundle, params, stop).await?.report)
    }

    /// Runs a bundle.
    ///
    /// # Errors
    /// The bundle does not load, a parameter is wrong, or the store cannot keep the run. A run that fails is a [`Report`].
    pub async fn run(&self, bundle: &Bundle, params: &BTreeMap<String, Given>) -> Result<Report, LoadErrors> {
        self.run_until(bundle, params, &Stop::default()).await
    }

    /// [`Runtime::run`], to be stopped from outside.
    ///
    /// # Errors
    /// As there.
    pub async fn run_until(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        stop: &Stop,
    ) -> Result<Report, LoadErrors> {
        let prepared = self.prepare(bundle, params)?;
        let world = Arc::new(LiveWorld::new(Arc::clone(&self.inner.people)));
        let run = new_id(&prepared.header.name);
        if let Some(store) = &self.inner.store {
            let row = self.row(&prepared, &run);
            let holder = Holder::this(&self.inner.started_by);
            store.create(&row, bundle, &holder).await.map_err(|e| LoadErrors(vec![e.into()]))?;
        }
        let execution = Execution { store: self.inner.store.clone(), ..Execution::new(run) };
        Ok(self.execute(prepared, world, execution, stop).await)
    }

    /// Runs the stored scripts of a run again and answers every effect from its journal: no provider is touched. Shows that the
    /// journal holds all that a run depends on.
    ///
    /// # Errors
    /// The store has no such run, its journal does not verify, or its scripts do not load.
    pub async fn replay(&self, run: &Run) -> Result<Report, LoadErrors> {
        let store = self.store()?;
        let bundle = self.stored(&*store, run).await?;
        let prepared = self.prepare(&bundle, &given(run))?;
        let last = store.last(&run.id).await.map_err(RunError::from)?.map_or(0, |last| last.seq);
        let world = Arc::new(LiveWorld::new(Arc::new(NoPeople)));
        let execution = Execution {
            replay: Replay::read(store, &run.id, last),
            replay_only: true,
            ..Execution::new(run.id.clone())
        };
        Ok(self.execute(prepared, world, execution, &Stop::default()).await)
    }

    fn store(&self) -> Result<Arc<dyn Store>, RunError> {
        self.inner.store.clone().ok_or_else(|| RunError::new(codes::JOURNAL, "there is no store"))
    }

    async fn stored(&self, store: &dyn Store, run: &Run) -> Result<Bundle, RunError> {
        store.bundle(&run.bundle).await?.ok_or_else(|| {
            RunError::new(codes::JOURNAL, format!("the scripts of {} are missing from the store", run.id))
        })
    }

    /// A run that begins now.
    fn row(&self, prepared: &Prepared, run: &str) -> Run {
        Run {
            id: run.to_owned(),
            runbook: prepared.header.name.clone(),
            version: prepared.header.version.clone(),
            environment: self.inner.providers.environment().to_owned(),
            params: serde_json::to_value(&prepared.params).unwrap_or_default(),
            bundle: prepared.bundle.hash(),
            status: RunStatus::Running,
            epoch: 1,
            started_by: self.inner.started_by.clone(),
            started_at: self.inner.clock.now(),
            ended_at: None,
            held: None,
            plan: None,
        }
    }

    fn prepare(&self, bundle: &Bundle, given: &BTreeMap<String, Given>) -> Result<Prepared, LoadErrors> {
        let (header, loaded) = script::load(bundle, &self.inner.functions).map_err(LoadErrors)?;
        let sandbox = self.inner.providers.environment() == SANDBOX;
        let params = header.params(given, &self.inner.params, sandbox).map_err(|e| LoadErrors(vec![e]))?;
        Ok(Prepared { header, loaded, params, bundle: Arc::new(bundle.clone()) })
    }
}

/// An id that people can type: the runbook's name and six letters.
fn new_id(name: &str) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let tail: String = (0..6).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())])).collect();
    format!("{name}-{tail}")
}

/// Why a bundle cannot be run at all: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct LoadErrors(pub Vec<RunError>);

impl From<RunError> for LoadErrors {
    fn from(error: RunError) -> Self {
        Self(vec![error])
    }
}
