//! Rehearsing a bundle.

use std::{collections::BTreeMap, sync::Arc, thread};

use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};

use super::{LoadErrors, Runtime};
use crate::{
    effect::{On, Surroundings},
    error::{RunError, codes},
    event::Sink,
    rehearsal::{
        Bounds, Explore, Explorer, Findings, InitialStateFile, Paths, Scenario, TrialSetup,
        explorer::Tried,
        initial_state::{InitialState, Observer, Unusable},
        oracle,
        paths::Pathfinder,
        trial::TrialOptions,
    },
    script::{self, Bundle, Given, Header, STACK},
    secret::Vault,
};

/// What a rehearsal starts from.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// States, answers and parameters that are written down.
    pub file: InitialStateFile,
    /// What the file does not say is looked at for real, once. Nothing is changed.
    pub look: bool,
}

/// One bundle in a simulated world: what it starts from is looked at once, whatever is played.
pub struct Rehearsal {
    setup: Arc<TrialSetup>,
}

impl Rehearsal {
    /// The header of the runbook.
    pub fn header(&self) -> &Header {
        &self.setup.prepared.header
    }

    /// Tries every effect with every way in which it can go wrong.
    ///
    /// # Errors
    /// The thread for it cannot be had.
    pub async fn explore(&self, explore: Explore) -> Result<Findings, LoadErrors> {
        let setup = Arc::clone(&self.setup);
        on_a_thread(move || Explorer::new(&setup, explore).explore()).await
    }

    /// Plays one scenario; `sinks` hear how it goes.
    ///
    /// # Errors
    /// The thread for it cannot be had.
    pub async fn play(&self, scenario: Scenario, sinks: Vec<Arc<dyn Sink>>) -> Result<Tried, LoadErrors> {
        let setup = Arc::clone(&self.setup);
        on_a_thread(move || {
            let mut engine = setup.engine();
            let happy = setup.play(&Scenario::default(), &TrialOptions::default(), &mut engine);
            let alive = (scenario.crash.is_some() && !scenario.faults.is_empty())
                .then(|| setup.play(&scenario.without_crash(), &TrialOptions::default(), &mut engine));
            let trial =
                setup.play(&scenario, &TrialOptions { sinks, ..TrialOptions::default() }, &mut engine);
            oracle::tried(scenario, &trial, &happy, alive.as_ref())
        })
        .await
    }

    /// The parameters, with defaults filled in.
    pub fn params(&self) -> &BTreeMap<String, Value> {
        &self.setup.prepared.params
    }

    /// What was looked at so far, as a scenario from which the same rehearsal can be repeated, with these values of parameters. The
    /// bytes of secrets are not in it.
    pub fn snapshot(&self, params: BTreeMap<String, Value>) -> InitialStateFile {
        self.setup.initial_state.snapshot(params, &self.setup.vault)
    }

    /// The states that could not be looked at, by key, and why.
    pub fn unseen(&self) -> BTreeMap<String, String> {
        let unseen = self.setup.initial_state.unseen().into_iter();
        unseen.map(|(key, why)| (key, self.setup.vault.scrub(&why).into_owned())).collect()
    }
}

impl Runtime {
    /// Prepares to rehearse a bundle: to try its effects with every way in which they can go wrong, in a simulated world. Nothing
    /// outside is changed.
    ///
    /// # Errors
    /// The bundle does not load, a parameter is wrong, or the scenario cannot be used.
    pub fn rehearsal(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        beginning: &Beginning,
    ) -> Result<Rehearsal, LoadErrors> {
        Ok(Rehearsal { setup: Arc::new(self.setup(bundle, params, beginning, false)?) })
    }

    /// Where a run can lead: what it does where an answer that a plan cannot know is not the one that is assumed. What is there now
    /// is looked at, once; nothing is changed.
    ///
    /// # Errors
    /// The bundle does not load or a parameter is wrong.
    pub async fn paths(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        bounds: Bounds,
    ) -> Result<Paths, LoadErrors> {
        let beginning = Beginning { look: true, ..Beginning::default() };
        let mut setup = self.setup(bundle, params, &beginning, true)?;
        // What must hold is for rehearsals.
        setup.invariants = Vec::new();
        on_a_thread(move || Pathfinder::new(&setup, bounds).find()).await
    }

    fn setup(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        beginning: &Beginning,
        plans: bool,
    ) -> Result<TrialSetup, LoadErrors> {
        let mut given: BTreeMap<String, Given> = beginning
            .file
            .params
            .iter()
            .map(|(name, value)| (name.clone(), Given::Value(value.clone())))
            .collect();
        given.extend(params.iter().map(|(name, value)| (name.clone(), value.clone())));
        let prepared = self.prepare(bundle, &given)?;
        let vault = Arc::<Vault>::default();
        let look = |handle| Observer {
            handle,
            on: On::outside(Surroundings {
                vault: Arc::clone(&vault),
                ..Surroundings::detached(Arc::clone(&self.inner.providers))
            }),
        };
        let observer = beginning.look.then(Handle::try_current).transpose().map_err(|_| {
            RunError::new(
                codes::ARGUMENT,
                "a rehearsal that looks at targets is prepared on a runtime of tokio",
            )
        })?;
        let observer = observer.map(look);
        let unusable = |Unusable { answer, why }| RunError {
            detail: Some(serde_json::json!({ "answer": answer })),
            ..RunError::new(codes::ARGUMENT, format!("the scenario file is not valid: {why}"))
        };
        let mut initial_state = InitialState::new(&beginning.file, observer).map_err(unusable)?;
        initial_state.plans = plans;
        let params = script::to_script(&prepared.params);
        Ok(TrialSetup {
            functions: Arc::clone(&self.inner.functions),
            limits: self.inner.limits,
            providers: Arc::clone(&self.inner.providers),
            roles: Arc::clone(&self.inner.roles),
            started_by: self.inner.started_by.clone(),
            prepared,
            params,
            initial_state: Arc::new(initial_state),
            vault,
            invariants: self.inner.invariants.clone(),
        })
    }
}

/// A rehearsal takes as much of the stack as a run, and blocks.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadErrors> {
    let (send, receive) = oneshot::channel();
    let thread = thread::Builder::new().name("rehearsal".into()).stack_size(STACK);
    let failed = || RunError::new(codes::INTERNAL, "the rehearsal's thread stopped unexpectedly");
    thread.spawn(move || drop(send.send(work()))).map_err(|_| failed())?;
    receive.await.map_err(|_| failed().into())
}
