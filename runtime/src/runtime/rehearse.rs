//! Rehearsing a bundle.

use std::{collections::BTreeMap, sync::Arc, thread};

use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};

use super::{LoadErrors, Runtime, STACK};
use crate::{
    effect::{On, Surroundings},
    error::{RunError, codes},
    event::Sink,
    rehearsal::{
        Bounds, Explore, Explorer, Findings, Paths, Scenario, SceneFile, Stage,
        course::Wanted,
        explorer::Tried,
        judge,
        paths::Pathfinder,
        scene::{Looker, Scene, Unusable},
    },
    script::{self, Bundle, Given, Header},
    secret::Vault,
};

/// What a rehearsal starts from.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    /// States, answers and parameters that are written down.
    pub file: SceneFile,
    /// What the file does not say is looked at for real, once. Nothing is changed.
    pub look: bool,
}

/// One bundle in a simulated world: what it starts from is looked at once, whatever is played.
pub struct Rehearsal {
    stage: Arc<Stage>,
}

impl Rehearsal {
    /// The header of the runbook.
    pub fn header(&self) -> &Header {
        &self.stage.prepared.header
    }

    /// Tries every effect with every way in which it can go wrong.
    ///
    /// # Errors
    /// The thread for it cannot be had.
    pub async fn explore(&self, explore: Explore) -> Result<Findings, LoadErrors> {
        let stage = Arc::clone(&self.stage);
        on_a_thread(move || Explorer::new(&stage, explore).explore()).await
    }

    /// Plays one scenario; `sinks` hear how it goes.
    ///
    /// # Errors
    /// The thread for it cannot be had.
    pub async fn play(&self, scenario: Scenario, sinks: Vec<Arc<dyn Sink>>) -> Result<Tried, LoadErrors> {
        let stage = Arc::clone(&self.stage);
        on_a_thread(move || {
            let mut engine = stage.engine();
            let happy = stage.play(&Scenario::default(), &Wanted::default(), &mut engine);
            let alive = (scenario.crash.is_some() && !scenario.faults.is_empty())
                .then(|| stage.play(&scenario.without_crash(), &Wanted::default(), &mut engine));
            let course = stage.play(&scenario, &Wanted { sinks, records: false }, &mut engine);
            judge::tried(scenario, &course, &happy, alive.as_ref())
        })
        .await
    }

    /// The parameters, with defaults filled in.
    pub fn params(&self) -> &BTreeMap<String, Value> {
        &self.stage.prepared.params
    }

    /// What was looked at so far, as a scenario from which the same rehearsal can be repeated.
    pub fn snapshot(&self) -> SceneFile {
        self.stage.scene.snapshot()
    }

    /// The states that could not be looked at, by key, and why.
    pub fn unseen(&self) -> BTreeMap<String, String> {
        self.stage.scene.unseen()
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
        Ok(Rehearsal { stage: Arc::new(self.stage(bundle, params, beginning, false)?) })
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
        let mut stage = self.stage(bundle, params, &beginning, true)?;
        // What must hold is for rehearsals.
        stage.invariants = Vec::new();
        on_a_thread(move || Pathfinder::new(&stage, bounds).find()).await
    }

    fn stage(
        &self,
        bundle: &Bundle,
        params: &BTreeMap<String, Given>,
        beginning: &Beginning,
        plans: bool,
    ) -> Result<Stage, LoadErrors> {
        let mut given: BTreeMap<String, Given> = beginning
            .file
            .params
            .iter()
            .map(|(name, value)| (name.clone(), Given::Value(value.clone())))
            .collect();
        given.extend(params.iter().map(|(name, value)| (name.clone(), value.clone())));
        let prepared = self.prepare(bundle, &given)?;
        let vault = Arc::<Vault>::default();
        let look = |handle| Looker {
            handle,
            on: On::outside(Surroundings {
                vault: Arc::clone(&vault),
                ..Surroundings::detached(Arc::clone(&self.inner.providers))
            }),
        };
        let looker = beginning.look.then(Handle::try_current).transpose().map_err(|_| {
            RunError::new(
                codes::ARGUMENT,
                "a rehearsal that looks at targets is prepared on a runtime of tokio",
            )
        })?;
        let looker = looker.map(look);
        let unusable = |Unusable { answer, why }| RunError {
            detail: Some(serde_json::json!({ "answer": answer })),
            ..RunError::new(codes::ARGUMENT, format!("the scenario cannot be used: {why}"))
        };
        let mut scene = Scene::new(&beginning.file, looker).map_err(unusable)?;
        scene.plans = plans;
        let params = script::to_script(&prepared.params);
        Ok(Stage {
            inner: Arc::clone(&self.inner),
            prepared,
            params,
            scene: Arc::new(scene),
            vault,
            invariants: self.inner.invariants.clone(),
        })
    }
}

/// A rehearsal takes as much of the stack as a run, and blocks.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadErrors> {
    let (send, receive) = oneshot::channel();
    let thread = thread::Builder::new().name("rehearsal".into()).stack_size(STACK);
    let failed = || RunError::new(codes::INTERNAL, "the rehearsal's thread could not run to its end");
    thread.spawn(move || drop(send.send(work()))).map_err(|_| failed())?;
    receive.await.map_err(|_| failed().into())
}
