//! What the benchmarks have in common: a runtime whose targets cost nothing, so that what is measured is Contraflow itself.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use contraflow_runtime::{
    Beginning, Bundle, Report, Runtime, Stop, Takeover,
    effect::{Change, On, Read},
    event::RunOutcome,
    journal::{SqliteStore, Store},
    provider::{ProviderError, Providers},
    rehearsal::{Explore, Scenario},
    script::{ScriptContext as _, ScriptLimits, ScriptResult},
    target::Target,
};
use rhai::{Module, NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};

/// A counter that changes move and reads look at.
#[derive(Default)]
struct Counter(AtomicI64, Mutex<Option<Stop>>);

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Level(i64);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}", self.0)
    }
}

#[derive(Serialize)]
struct Set {
    to: i64,
}

fn counter(on: &On) -> Result<Arc<Counter>, ProviderError> {
    on.extension().ok_or_else(|| ProviderError::terminal("internal", "no counter"))
}

impl Change for Set {
    const ID: &'static str = "bench.set";
    type State = Level;

    fn target(&self) -> Target {
        Target::new("bench", "counter")
    }

    async fn observe(&self, on: &On) -> Result<Level, ProviderError> {
        Ok(Level(counter(on)?.0.load(Ordering::Relaxed)))
    }

    fn desired(&self, _: &Level) -> Result<Level, ProviderError> {
        Ok(Level(self.to))
    }

    async fn apply(&self, on: &On, _: &Level, to: &Level) -> Result<(), ProviderError> {
        counter(on)?.0.store(to.0, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Serialize)]
struct Look {
    n: i64,
}

impl Read for Look {
    const ID: &'static str = "bench.look";
    type Value = i64;

    fn describe(&self) -> String {
        "counter".into()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("bench", "counter")]
    }

    async fn read(&self, on: &On) -> Result<i64, ProviderError> {
        if self.n < 0
            && let Ok(mut stop) = counter(on)?.1.lock()
            && let Some(stop) = stop.take()
        {
            stop.pause("the benchmark");
        }
        Ok(self.n)
    }
}

/// Script functions of the benchmarks.
#[expect(unreachable_pub, reason = "rhai registers only the functions of a module that are `pub`")]
#[export_module]
mod script {
    #[rhai_fn(return_raw, volatile)]
    pub fn set(cx: NativeCallContext<'_>, to: i64) -> ScriptResult {
        cx.change(Set { to })
    }

    #[rhai_fn(return_raw, volatile)]
    pub fn look(cx: NativeCallContext<'_>, n: i64) -> ScriptResult {
        cx.read(Look { n })
    }
}

/// A runtime with a store and nothing that takes time.
pub struct Bench {
    runtime: Runtime,
    tokio: tokio::runtime::Runtime,
    counter: Arc<Counter>,
    /// The store.
    pub store: Arc<dyn Store>,
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bench")
    }
}

impl Bench {
    /// A runtime with its store in `folder`.
    ///
    /// # Panics
    /// The folder cannot be used.
    #[expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]
    pub fn new(folder: &Path) -> Self {
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(tokio.block_on(SqliteStore::open(folder)).unwrap());
        let mut providers = Providers::new("bench");
        let counter = Arc::new(Counter::default());
        providers.extend(Arc::clone(&counter));
        let mut module = Module::new();
        rhai::combine_with_exported_module!(&mut module, "bench", script);
        let runtime = Runtime::builder()
            .modules([("bench", Arc::new(module))])
            .providers(providers)
            .limits(ScriptLimits {
                max_operations: u64::MAX,
                max_wall_time: Duration::MAX / 4,
                ..ScriptLimits::default()
            })
            .store(Arc::clone(&store))
            .build();
        Self { runtime, tokio, counter, store }
    }

    /// Runs a script to its end.
    ///
    /// # Panics
    /// It did not succeed.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn run(&self, script: &str) -> Report {
        let bundle =
            Bundle::single("bench.rhai", format!("const RUNBOOK = #{{ name: \"bench\" }};\n{script}"));
        let report = self.tokio.block_on(self.runtime.run(&bundle, &BTreeMap::new())).unwrap();
        assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
        report
    }

    /// Begins a run that is paused at its first `bench::look(-1)`.
    ///
    /// # Panics
    /// It was not paused.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn begin(&self, script: &str) -> Report {
        let bundle =
            Bundle::single("bench.rhai", format!("const RUNBOOK = #{{ name: \"bench\" }};\n{script}"));
        let stop = self.pausing();
        let report = self.tokio.block_on(self.runtime.run_until(&bundle, &BTreeMap::new(), &stop)).unwrap();
        assert_eq!(report.outcome, RunOutcome::Paused, "{:?}", report.error);
        report
    }

    /// Takes up a paused run, up to the first effect that is not in its journal, where it is paused again.
    ///
    /// # Panics
    /// It was not paused.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn resume(&self, run: &str) -> Report {
        let stop = self.pausing();
        self.tokio.block_on(async {
            let run = self.store.find(run).await.unwrap().remove(0);
            let report = self.runtime.resume(&run, Takeover::default(), &stop).await.unwrap();
            assert_eq!(report.outcome, RunOutcome::Paused, "{:?}", report.error);
            report
        })
    }

    #[expect(clippy::unwrap_used, reason = "see above")]
    fn pausing(&self) -> Stop {
        let stop = Stop::default();
        *self.counter.1.lock().unwrap() = Some(stop.clone());
        stop
    }

    /// Rehearses a script against every fault, or every two. Answers how many scenarios were tried.
    ///
    /// # Panics
    /// Something did not hold.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn rehearse(&self, script: &str, pairs: bool) -> usize {
        let bundle =
            Bundle::single("bench.rhai", format!("const RUNBOOK = #{{ name: \"bench\" }};\n{script}"));
        let beginning = Beginning { look: true, ..Beginning::default() };
        let explore = Explore { pairs, ..Explore::default() };
        let _on = self.tokio.enter();
        let rehearsal = self.runtime.rehearsal(&bundle, &BTreeMap::new(), &beginning).unwrap();
        let findings = self.tokio.block_on(rehearsal.explore(explore)).unwrap();
        assert_eq!(findings.violated().count(), 0);
        findings.tried.len()
    }

    /// Rehearses a script as planned, once.
    ///
    /// # Panics
    /// Something did not hold.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn rehearse_once(&self, script: &str) {
        let header = r#"const RUNBOOK = #{ name: "bench", deadline: "30d" };"#;
        let bundle = Bundle::single("bench.rhai", format!("{header}\n{script}"));
        let beginning = Beginning { look: true, ..Beginning::default() };
        let _on = self.tokio.enter();
        let rehearsal = self.runtime.rehearsal(&bundle, &BTreeMap::new(), &beginning).unwrap();
        let played = self.tokio.block_on(rehearsal.play(Scenario::default(), Vec::new())).unwrap();
        assert_eq!(played.violations, []);
    }

    /// Answers a finished run from its journal again.
    ///
    /// # Panics
    /// It did not succeed.
    #[expect(clippy::unwrap_used, reason = "see above")]
    pub fn replay(&self, run: &str) -> Report {
        self.tokio.block_on(async {
            let run = self.store.find(run).await.unwrap().remove(0);
            let report = self.runtime.replay(&run).await.unwrap();
            assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
            report
        })
    }
}
