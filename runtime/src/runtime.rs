//! The entrance for programs: build a [`Runtime`], then check, plan and run bundles.
//!
//! ```
//! use std::{collections::BTreeMap, sync::Arc};
//! use cutover_runtime::{Bundle, Runtime, event::RunOutcome};
//!
//! let tokio = tokio::runtime::Runtime::new()?;
//! let runtime = Runtime::builder().build();
//! let bundle = Bundle::single("hello.rhai", r#"const RUNBOOK = #{ name: "hello" }; note("hello");"#);
//! let report = tokio.block_on(runtime.plan(&bundle, &BTreeMap::new()))?;
//! assert_eq!(report.outcome, RunOutcome::Succeeded);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use rhai::Module;
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock},
    effect::{Role, Shared},
    error::{RunError, codes},
    event::{Emitter, Event, LeftOver, Mode, RunOutcome, Sink},
    journal::{
        Beat, Entry, Holder, Journal, Replay, Request, RequestKind, Run, RunStatus, Store, StoreError,
        record::GENESIS, store,
    },
    kernel::{Kernel, Policy, State},
    provider::Providers,
    script::{self, Budget, Bundle, Given, Header, Library, Loaded, Modules, ScriptLimits},
    secret::Vault,
    stop::Stop,
    world::{LiveWorld, NoPeople, People, PredictedWorld, World},
};

/// Stack of the thread that runs a script: a step in a function takes some 70 KB in a debug build.
const STACK: usize = 64 << 20;

/// How often buffered records are handed to the store, so that others can look at a run while it goes on.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// The name of the built-in environment, for which parameters may have values of their own.
pub const SANDBOX: &str = "sandbox";

/// Runs runbooks against the targets of one environment.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    library: Library,
    providers: Arc<Providers>,
    store: Option<Arc<dyn Store>>,
    people: Arc<dyn People>,
    policies: Vec<Arc<dyn Policy>>,
    sinks: Arc<[Arc<dyn Sink>]>,
    limits: ScriptLimits,
    params: BTreeMap<String, Value>,
    roles: Arc<BTreeMap<String, Role>>,
    clock: Arc<dyn Clock>,
    started_by: String,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("providers", &self.inner.providers).finish_non_exhaustive()
    }
}

/// Builds a [`Runtime`].
pub struct Builder {
    modules: Modules,
    globals: Vec<Module>,
    inner: Inner,
    sinks: Vec<Arc<dyn Sink>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Builder")
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
}

impl Runtime {
    /// A runtime without primitives, targets, store or listeners yet.
    pub fn builder() -> Builder {
        Builder {
            modules: Vec::new(),
            globals: Vec::new(),
            sinks: Vec::new(),
            inner: Inner {
                library: Library::new(Vec::new(), []),
                providers: Arc::new(Providers::new(SANDBOX)),
                store: None,
                people: Arc::new(NoPeople),
                policies: Vec::new(),
                sinks: Arc::new([]),
                limits: ScriptLimits::default(),
                params: BTreeMap::new(),
                roles: Arc::default(),
                clock: Arc::new(SystemClock::default()),
                started_by: "unknown".to_owned(),
            },
        }
    }

    /// Everything that scripts can call.
    pub fn library(&self) -> &Library {
        &self.inner.library
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
        script::check(bundle, &self.inner.library).map_err(LoadErrors)
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
        let prepared = self.prepare(bundle, params)?;
        let world = Arc::new(PredictedWorld::default());
        let part = Part::new(new_id(&prepared.header.name));
        Ok(self.execute(prepared, world, part, stop).await)
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
            let row = Run {
                id: run.clone(),
                runbook: prepared.header.name.clone(),
                version: prepared.header.version.clone(),
                environment: self.inner.providers.environment().to_owned(),
                params: serde_json::to_value(&prepared.params).unwrap_or_default(),
                bundle: bundle.hash(),
                status: RunStatus::Running,
                epoch: 1,
                started_by: self.inner.started_by.clone(),
                started_at: self.inner.clock.now(),
                ended_at: None,
                held: None,
            };
            let holder = Holder::this(&self.inner.started_by);
            store.create(&row, bundle, &holder).await.map_err(|e| LoadErrors(vec![e.into()]))?;
        }
        let part = Part { store: self.inner.store.clone(), ..Part::new(run) };
        Ok(self.execute(prepared, world, part, stop).await)
    }

    /// Goes on with a run that died or was paused: runs its scripts again, answers from the journal what is there, and performs the
    /// rest.
    ///
    /// # Errors
    /// The run has ended or another runner works on it; its journal does not verify; its scripts do not load.
    pub async fn resume(&self, run: &Run, how: Takeover, stop: &Stop) -> Result<Report, LoadErrors> {
        match run.status {
            RunStatus::Running | RunStatus::Ended(RunOutcome::Paused) => {}
            RunStatus::Ended(RunOutcome::RollbackIncomplete) => {
                return Err(not_resumable(run, "could not be rolled back entirely")
                    .hint(format!("go on with that: cutover rollback {}", run.id))
                    .into());
            }
            RunStatus::Ended(outcome) => {
                return Err(not_resumable(run, &format!("has ended: {outcome}")).into());
            }
        }
        self.take_up(run, how, None, stop).await
    }

    /// Undoes what a run has done, whether it died, was paused or ended, or goes on with undoing it.
    ///
    /// # Errors
    /// As for [`Runtime::resume`]; or it was rolled back already.
    pub async fn roll_back(&self, run: &Run, how: Takeover, stop: &Stop) -> Result<Report, LoadErrors> {
        if run.status == RunStatus::Ended(RunOutcome::RolledBack) {
            return Err(not_resumable(run, "was rolled back already").into());
        }
        let why = RunError::new(
            codes::CANCELLED,
            format!("{} asked for the run to be rolled back", self.inner.started_by),
        );
        self.take_up(run, how, Some(why), stop).await
    }

    async fn take_up(
        &self,
        run: &Run,
        how: Takeover,
        only_undo: Option<RunError>,
        stop: &Stop,
    ) -> Result<Report, LoadErrors> {
        let here = self.inner.providers.environment();
        if run.environment != here {
            let why = format!("belongs to environment \"{}\", this is \"{here}\"", run.environment);
            return Err(not_resumable(run, &why).into());
        }
        if let Some(held) = run.held.as_ref().filter(|_| run.is_alive() && !how.take_over) {
            let why = format!(
                "is being worked on: {} on {}, process {}, {} s since its last sign of life",
                held.by.who,
                held.by.host,
                held.by.pid,
                held.silent_ms / 1000
            );
            return Err(not_resumable(run, &why)
                .hint("if you know that it is dead or cut off: --take-over; it can then no longer change anything")
                .into());
        }
        let store = self.store()?;
        let stored = self.stored(&*store, run).await?;
        let bundle = how.new_script.as_ref().unwrap_or(&stored);
        let prepared = self.prepare(bundle, &given(run))?;
        let holder = Holder::this(&self.inner.started_by);
        let claimed = store.claim(&run.id, run.epoch, &holder).await.map_err(RunError::from)?;
        if !claimed {
            return Err(not_resumable(run, "was taken over by another runner just now")
                .hint(format!("see how it stands: cutover show {}", run.id))
                .into());
        }
        let last = store.last(&run.id).await.map_err(RunError::from)?;
        let part = Part {
            replay: last
                .as_ref()
                .map(|last| Replay::read(Arc::clone(&store), &run.id, last.seq))
                .unwrap_or_default(),
            store: Some(store),
            epoch: run.epoch + 1,
            last: last.map_or((0, GENESIS), |last| (last.seq, last.hash)),
            only_undo,
            new_script: how.new_script.filter(|new| new.hash() != run.bundle),
            started_by: Some(run.started_by.clone()),
            ..Part::new(run.id.clone())
        };
        let world = Arc::new(LiveWorld::new(Arc::clone(&self.inner.people)));
        Ok(self.execute(prepared, world, part, stop).await)
    }

    fn store(&self) -> Result<Arc<dyn Store>, RunError> {
        self.inner.store.clone().ok_or_else(|| RunError::new(codes::JOURNAL, "there is no store"))
    }

    async fn stored(&self, store: &dyn Store, run: &Run) -> Result<Bundle, RunError> {
        store.bundle(&run.bundle).await?.ok_or_else(|| {
            RunError::new(codes::JOURNAL, format!("the scripts of {} are not in the store", run.id))
        })
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
        let part = Part {
            replay: Replay::read(store, &run.id, last),
            replay_only: true,
            ..Part::new(run.id.clone())
        };
        Ok(self.execute(prepared, world, part, &Stop::default()).await)
    }

    fn prepare(&self, bundle: &Bundle, given: &BTreeMap<String, Given>) -> Result<Prepared, LoadErrors> {
        let (header, loaded) = script::load(bundle, &self.inner.library).map_err(LoadErrors)?;
        let sandbox = self.inner.providers.environment() == SANDBOX;
        let params = header.params(given, &self.inner.params, sandbox).map_err(|e| LoadErrors(vec![e]))?;
        Ok(Prepared { header, loaded, params, bundle: bundle.clone() })
    }

    async fn execute(&self, prepared: Prepared, world: Arc<dyn World>, part: Part, stop: &Stop) -> Report {
        let Part {
            store,
            replay,
            replay_only,
            run,
            epoch,
            last: (seq, hash),
            only_undo,
            new_script,
            started_by,
        } = part;
        let clock = Arc::clone(&self.inner.clock);
        let vault = Arc::<Vault>::default();
        let emitter =
            Emitter::new(&run, Arc::clone(&self.inner.sinks), Arc::clone(&clock), Arc::clone(&vault));
        let mode = if replay_only { Mode::Replay } else { world.mode() };
        emitter.emit(Event::RunStarted {
            runbook: prepared.header.name.clone(),
            version: prepared.header.version.clone(),
            environment: self.inner.providers.environment().to_owned(),
            mode,
            params: serde_json::to_value(&prepared.params).unwrap_or_default(),
        });
        let journal = Arc::new(Journal::new(store, &run, epoch, seq, hash, Arc::clone(&vault)));
        if epoch > 1 {
            let (by, rollback) = (self.inner.started_by.clone(), only_undo.is_some());
            journal.add(clock.now(), "run", &Entry::Resumed { by: by.clone(), epoch, rollback });
            emitter.emit(Event::Resumed { by, epoch, rollback });
        }
        let kernel = Arc::new(Kernel {
            run: Arc::from(&*run),
            environment: self.inner.providers.environment().to_owned(),
            bundle: Arc::new(prepared.bundle),
            places: Arc::clone(&prepared.loaded.places),
            shared: Arc::new(Shared {
                providers: Arc::clone(&self.inner.providers),
                clock: Arc::clone(&clock),
                vault,
                emitter,
            }),
            world,
            journal: Arc::clone(&journal),
            replay,
            replay_only,
            only_undo,
            new_script: Mutex::new(new_script),
            handle: tokio::runtime::Handle::current(),
            policies: self.inner.policies.clone(),
            budget: Budget::new(self.inner.limits, prepared.header.deadline.map(|span| span.0)),
            // Its own, so that an error can stop all branches.
            cancel: stop.child(),
            stop: stop.clone(),
            live: CancellationToken::new(),
            roles: Arc::clone(&self.inner.roles),
            started_by: started_by.unwrap_or_else(|| self.inner.started_by.clone()),
            state: State::default(),
        });
        let over = CancellationToken::new();
        let helpers: Vec<_> = if journal.is_kept() {
            vec![
                tokio::spawn(flush(Arc::clone(&journal), over.clone())),
                tokio::spawn(beat(Arc::clone(&journal), Arc::clone(&kernel), over.clone())),
            ]
        } else {
            Vec::new()
        };
        // Also if nobody waits for the run any more.
        let over = over.drop_guard();
        let unwatched = Unwatched(Some(stop.clone()));
        let ended = {
            let (kernel, inner) = (Arc::clone(&kernel), Arc::clone(&self.inner));
            let (loaded, params) = (prepared.loaded, prepared.params);
            let (send, receive) = tokio::sync::oneshot::channel();
            let thread =
                std::thread::Builder::new().name("script".into()).stack_size(STACK).spawn(move || {
                    let _ = send.send(kernel.execute(
                        &inner.library,
                        &inner.limits,
                        &loaded,
                        script::to_script(&params),
                    ));
                });
            match thread {
                Ok(_) => receive.await.ok(),
                Err(_) => None,
            }
        };
        unwatched.came_to_its_end();
        drop(over);
        for helper in helpers {
            // Not broken off: the records that it holds would be lost.
            let _ = helper.await;
        }
        let mut ended = ended.unwrap_or_else(|| kernel.died());
        let lost = ended.error.as_ref().is_some_and(|error| error.is(codes::LOST));
        let durable = journal.acted();
        if !replay_only
            && !lost
            && let Err(error) = journal.end(RunStatus::Ended(ended.outcome), clock.now(), durable).await
            && ended.error.is_none()
        {
            // All is done, but the journal does not say so: going on brings it to its end.
            ended.outcome = RunOutcome::Paused;
            ended.error = Some(error);
        }
        kernel.tell_end(&ended);
        let crate::kernel::Ended { outcome, error, left, changes, elapsed_ms } = ended;
        Report { run, outcome, error, left, changes, elapsed_ms }
    }
}

struct Prepared {
    header: Header,
    loaded: Loaded,
    params: BTreeMap<String, Value>,
    bundle: Bundle,
}

/// What distinguishes one execution of a script from another.
struct Part {
    store: Option<Arc<dyn Store>>,
    replay: Replay,
    replay_only: bool,
    run: String,
    epoch: i64,
    /// Place and hash of the last record.
    last: (u64, [u8; 32]),
    only_undo: Option<RunError>,
    new_script: Option<Bundle>,
    /// Who began the run, if that is not whoever runs it now.
    started_by: Option<String>,
}

impl Part {
    fn new(run: String) -> Self {
        Self {
            store: None,
            replay: Replay::default(),
            replay_only: false,
            run,
            epoch: 1,
            last: (0, GENESIS),
            only_undo: None,
            new_script: None,
            started_by: None,
        }
    }
}

/// How a run is taken up again.
#[derive(Debug, Clone, Default)]
pub struct Takeover {
    /// Even if another runner seems to work on it. That one can then no longer write or apply anything.
    pub take_over: bool,
    /// With these scripts instead of the stored ones. Refused unless all that is recorded still matches.
    pub new_script: Option<Bundle>,
}

fn not_resumable(run: &Run, why: &str) -> RunError {
    RunError::new(codes::NOT_RESUMABLE, format!("run {} {why}", run.id))
}

/// The parameters of a run as they were given.
fn given(run: &Run) -> BTreeMap<String, Given> {
    let params = run.params.as_object().into_iter().flatten();
    params.map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect()
}

/// Hands buffered records to the store now and then.
async fn flush(journal: Arc<Journal>, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        if journal.flush().await.is_err() {
            // Whoever needs the journal next is told why it failed.
            return;
        }
    }
}

/// Gives signs of life, and does what others ask of the run.
async fn beat(journal: Arc<Journal>, kernel: Arc<Kernel>, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(store::BEAT) => {}
        }
        match journal.beat().await {
            Ok(Beat::Held(Some(Request { kind, by }))) => match kind {
                RequestKind::Pause => kernel.stop.pause(&by),
                RequestKind::Abort => kernel.stop.end(&by),
                RequestKind::Rollback => kernel.stop.cancel_by(&by),
            },
            Ok(Beat::Lost) => {
                kernel.end_with(StoreError::lost(&kernel.run).into());
                return;
            }
            // A store out of reach shows itself where it is needed.
            Ok(Beat::Held(None)) | Err(_) => {}
        }
    }
}

/// Pauses a run that nobody waits for any more.
struct Unwatched(Option<Stop>);

impl Unwatched {
    fn came_to_its_end(mut self) {
        self.0.take();
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop.pause_now("the program that ran it");
        }
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

impl Builder {
    /// Adds script modules, such as those of a library of primitives.
    #[must_use]
    pub fn modules(mut self, modules: impl IntoIterator<Item = (&'static str, Arc<Module>)>) -> Self {
        self.modules.extend(modules);
        self
    }

    /// Adds functions that scripts call without a module name.
    #[must_use]
    pub fn global(mut self, module: Module) -> Self {
        self.globals.push(module);
        self
    }

    /// Sets the environment and its targets.
    #[must_use]
    pub fn providers(mut self, providers: Providers) -> Self {
        self.inner.providers = Arc::new(providers);
        self
    }

    /// Keeps journals there. Without a store, nothing is kept.
    #[must_use]
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.inner.store = Some(store);
        self
    }

    /// Sets who answers questions. Without, every question fails the run.
    #[must_use]
    pub fn people(mut self, people: Arc<dyn People>) -> Self {
        self.inner.people = people;
        self
    }

    /// Adds a policy. All must allow an effect.
    #[must_use]
    pub fn policy(mut self, policy: Arc<dyn Policy>) -> Self {
        self.inner.policies.push(policy);
        self
    }

    /// Adds a listener for events.
    #[must_use]
    pub fn sink(mut self, sink: Arc<dyn Sink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Sets what a script may use up.
    #[must_use]
    pub fn limits(mut self, limits: ScriptLimits) -> Self {
        self.inner.limits = limits;
        self
    }

    /// Sets the environment's values of parameters, which stand between those of the script and those of the caller.
    #[must_use]
    pub fn params(mut self, params: BTreeMap<String, Value>) -> Self {
        self.inner.params = params;
        self
    }

    /// Sets who has which role, for approvals.
    #[must_use]
    pub fn roles(mut self, roles: BTreeMap<String, Role>) -> Self {
        self.inner.roles = Arc::new(roles);
        self
    }

    /// Sets where the time of runs comes from. Without, it is the machine's.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.inner.clock = clock;
        self
    }

    /// Sets who runs, as kept with each run.
    #[must_use]
    pub fn started_by(mut self, who: impl Into<String>) -> Self {
        self.inner.started_by = who.into();
        self
    }

    /// The runtime.
    pub fn build(mut self) -> Runtime {
        self.inner.library = Library::new(self.modules, self.globals);
        self.inner.sinks = self.sinks.into();
        Runtime { inner: Arc::new(self.inner) }
    }
}
