//! What a [`Runtime`] is made of.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rhai::Module;
use serde_json::Value;

use super::{Approvals, Inner, Runtime, SANDBOX};
use crate::{
    clock::{Clock, SystemClock},
    control,
    effect::Role,
    event::Sink,
    journal::Store,
    kernel::Policy,
    lint::Lint,
    provider::Providers,
    rehearsal::Invariant,
    script::{Functions, Modules, ScriptLimits},
    world::{NoPeople, People},
};

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

impl Runtime {
    /// A runtime without primitives, targets, store or listeners yet.
    pub fn builder() -> Builder {
        Builder {
            modules: Vec::new(),
            globals: Vec::new(),
            sinks: Vec::new(),
            inner: Inner {
                functions: Arc::new(Functions::new(control::module(), Vec::new(), [])),
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
                invariants: Vec::new(),
                lints: Vec::new(),
                approvals: Approvals::default(),
            },
        }
    }
}

impl Builder {
    /// Adds all that a library brings for scripts. What it brings for the configuration is in its
    /// [registry](crate::Library::registry).
    #[must_use]
    pub fn library(mut self, library: &crate::Library) -> Self {
        self.modules.extend(library.modules().iter().cloned());
        self.globals.extend(library.global_words().iter().cloned());
        self.inner.lints.extend(library.lints().iter().cloned());
        self.inner.invariants.extend(library.invariants().iter().cloned());
        self
    }

    /// Adds what must hold at every moment of a rehearsal.
    #[must_use]
    pub fn invariants(mut self, invariants: impl IntoIterator<Item = Arc<dyn Invariant>>) -> Self {
        self.inner.invariants.extend(invariants);
        self
    }

    /// Adds what looks for defects in runbooks, besides what the runtime itself looks for.
    #[must_use]
    pub fn lints(mut self, lints: impl IntoIterator<Item = Arc<dyn Lint>>) -> Self {
        self.inner.lints.extend(lints);
        self
    }

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

    /// Sets who has to agree to plans before they are run. Without, nobody has to.
    #[must_use]
    pub fn approvals(mut self, approvals: Approvals) -> Self {
        self.inner.approvals = approvals;
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
        self.inner.functions = Arc::new(Functions::new(control::module(), self.modules, self.globals));
        self.inner.sinks = self.sinks.into();
        Runtime { inner: Arc::new(self.inner) }
    }
}
