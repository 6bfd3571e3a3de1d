//! One rehearsed run, from its start to its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use contraflow_provider::effect_id::EffectId;
use rhai::{Dynamic, Engine};

use super::{
    faults::FaultPoint,
    initial_state::InitialState,
    invariant::{self, Invariant, Violation},
    scenario::Scenario,
    simulation::{Simulation, States},
    world::RehearsedWorld,
};
use crate::{
    budget::ScriptLimits,
    clock::Clock as _,
    error::{RunError, codes},
    event::{LeftOver, RunOutcome, Sink},
    executor::{Executor, VirtualClock},
    journal::{Keeper, MemoryJournal, Replay, record::GENESIS},
    kernel::{Ended, Kernel, Setup},
    provider::Providers,
    question::Role,
    script::{Functions, Prepared, Session},
    secret::Vault,
    stop::Stop,
};

/// What all trials of a rehearsal have in common.
pub(crate) struct TrialSetup {
    pub(crate) functions: Arc<Functions>,
    pub(crate) limits: ScriptLimits,
    pub(crate) providers: Arc<Providers>,
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    pub(crate) started_by: String,
    pub(crate) prepared: Prepared,
    pub(crate) params: Dynamic,
    pub(crate) initial_state: Arc<InitialState>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) invariants: Vec<Arc<dyn Invariant>>,
}

/// What a trial records besides how it ends.
#[derive(Default)]
pub(crate) struct TrialOptions {
    /// Whoever listens to its events.
    pub(crate) sinks: Vec<Arc<dyn Sink>>,
    /// How many records it makes.
    pub(crate) records: bool,
    /// Breaks it off from outside.
    pub(crate) stop: Stop,
}

/// How one rehearsed run went.
pub(crate) struct Trial {
    /// `None`: it waits without end.
    pub(crate) outcome: Option<RunOutcome>,
    pub(crate) error: Option<RunError>,
    pub(crate) left: Vec<LeftOver>,
    pub(crate) violations: Vec<Violation>,
    /// Simulated time.
    pub(crate) elapsed: Duration,
    /// The effects that it came to.
    pub(crate) fault_points: Vec<FaultPoint>,
    /// Whether all that was to go wrong did.
    pub(crate) struck: bool,
    /// Records in its journal, and how many there were when undoing began; where they were wanted.
    pub(crate) records: (usize, Option<usize>),
    /// How targets stood before, and how they stand.
    pub(crate) first: States,
    pub(crate) end: States,
    /// Ids of changes that have no way back.
    pub(crate) one_way: Vec<EffectId>,
    /// Ids of the points of no return that the script declares.
    pub(crate) no_return: Vec<EffectId>,
    /// Moves, as effect and key.
    pub(crate) moves: Vec<(EffectId, String)>,
}

/// How long it takes until somebody goes on with a run whose process has died.
const TAKEN_UP_AFTER: Duration = Duration::from_secs(60);

impl TrialSetup {
    /// Runs one trial to its end on this thread.
    pub(crate) fn play(&self, scenario: &Scenario, options: &TrialOptions, engine: &mut Engine) -> Trial {
        let clock = Arc::new(VirtualClock::default());
        let simulation = Arc::new(Simulation::new(&self.initial_state.given));
        let journal = Arc::new(match scenario.crash {
            Some(records) => MemoryJournal::ending_at(records),
            None if scenario.dies() || options.records => MemoryJournal::default(),
            None => MemoryJournal::forgetful(),
        });
        let mut world = Arc::new(RehearsedWorld::new(
            scenario,
            Arc::clone(&self.initial_state),
            Arc::clone(&simulation),
            journal,
        ));
        let (mut replay, mut epoch) = (Replay::default(), 1);
        let (session, ended) = loop {
            let session = Arc::new(self.session(scenario, options, &clock, &world, replay, epoch));
            let ended = session.execute(engine, &self.prepared.loaded, self.params.clone());
            if !world.journal.is_cut() {
                break (session, ended);
            }
            clock.die();
            session.release();
            clock.set(clock.monotonic() + TAKEN_UP_AFTER);
            let records = world.journal.take();
            replay = Replay::of(records.iter().cloned());
            world = Arc::new(world.after_death(Arc::new(MemoryJournal::after(records))));
            epoch += 1;
        };
        session.kernel.tell_end(&ended);
        let records = (world.journal.len(), world.journal.undoing_since());
        let violations = invariant::broken(
            session.take_invariants(),
            engine,
            &world.simulation.state(),
            scenario.is_as_planned(),
        );
        // Guards still watch, for a run that is over.
        clock.die();
        session.release();
        let mut trial = self.trial(violations, &world, &clock, ended, records);
        trial.struck &= scenario.crash.is_none() || epoch > 1;
        trial
    }

    fn trial(
        &self,
        mut violations: Vec<Violation>,
        world: &RehearsedWorld,
        clock: &VirtualClock,
        ended: Ended,
        records: (usize, Option<usize>),
    ) -> Trial {
        // The world ends with the run.
        let simulated = std::mem::take(&mut *world.simulation.state());
        simulated.review::<()>(|moment, states| {
            for invariant in &self.invariants {
                let name = invariant.name();
                if let Err(why) = invariant.holds(states)
                    && !violations.iter().any(|known| known.invariant == name)
                {
                    violations.push(Violation {
                        invariant: name.to_owned(),
                        after: moment.map(|moment| moment.id.clone()),
                        why,
                    });
                }
            }
            None
        });
        Trial {
            outcome: (!clock.was_stuck()).then_some(ended.outcome),
            error: ended.error,
            left: ended.left,
            violations,
            elapsed: clock.monotonic(),
            fault_points: world.take_fault_points(),
            struck: world.all_struck(),
            records,
            first: simulated.first,
            end: simulated.states,
            one_way: simulated.one_way,
            no_return: simulated.no_return,
            moves: simulated.history.into_iter().map(|moment| (moment.id, moment.key)).collect(),
        }
    }

    /// The session of one process of a rehearsed run.
    fn session(
        &self,
        scenario: &Scenario,
        options: &TrialOptions,
        clock: &Arc<VirtualClock>,
        world: &Arc<RehearsedWorld>,
        replay: Replay,
        epoch: i64,
    ) -> Session {
        let Prepared { header, loaded, bundle, params } = &self.prepared;
        let last = u64::try_from(world.journal.len()).unwrap_or(u64::MAX);
        let kernel = Kernel::new(Setup {
            run: "rehearsal",
            runbook: (&header.name, &header.version),
            params,
            deadline: header.deadline.map(|span| span.0),
            limits: self.limits,
            people: (&self.started_by, "somebody"),
            roles: Arc::clone(&self.roles),
            providers: Arc::clone(&self.providers),
            clock: Arc::clone(clock) as _,
            vault: Arc::clone(&self.vault),
            sinks: options.sinks.clone().into(),
            world: Arc::clone(world) as _,
            executor: Executor::Virtual { clock: Arc::clone(clock), backwards: scenario.backwards },
            // A policy speaks about what happens for real.
            policies: Vec::new(),
            keeper: Keeper::Memory(Arc::clone(&world.journal)),
            epoch,
            last: (last, GENESIS),
            replay,
            replay_only: false,
            only_undo: None,
            new_script: None,
            enforcement: None,
            draft: None,
            stop: &options.stop,
            is_announced: epoch > 1,
        });
        Session::new(Arc::new(kernel), Arc::clone(bundle), Arc::clone(&loaded.places))
    }
}

impl Trial {
    /// Whether the rehearsal could not go on because the scenario does not say what it would need.
    pub(crate) fn is_unknown(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.is(codes::UNKNOWN_IN_PLAN))
    }
}
