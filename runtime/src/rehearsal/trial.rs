//! One rehearsed run, from its start to its end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rhai::{Dynamic, Engine};
use tokio_util::sync::CancellationToken;

use super::{
    clock::VirtualClock,
    faults::FaultPoint,
    initial_state::InitialState,
    invariant::{Invariant, Violation},
    scenario::Scenario,
    simulation::{Simulation, States},
    world::RehearsedWorld,
};
use crate::{
    clock::Clock as _,
    effect::Surroundings,
    error::{RunError, codes},
    event::{Emitter, Event, LeftOver, Mode, RunOutcome, Sink},
    executor::Executor,
    journal::{Entry, Journal, Keeper, MemoryJournal, Replay, record::GENESIS},
    kernel::{Ended, Kernel, State},
    runtime::{Inner, Prepared},
    script::Budget,
    secret::Vault,
    stop::Stop,
};

/// What all trials of a rehearsal have in common.
pub(crate) struct TrialSetup {
    pub(crate) inner: Arc<Inner>,
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
    pub(crate) one_way: Vec<String>,
    /// Ids of the points of no return that the script declares.
    pub(crate) no_return: Vec<String>,
    /// Moves, as effect and key.
    pub(crate) moves: Vec<(String, String)>,
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
        let (kernel, ended) = loop {
            let kernel = Arc::new(self.kernel(scenario, options, &clock, &world, replay, epoch));
            let ended = kernel.execute(engine, &self.prepared.loaded, self.params.clone());
            if !world.journal.is_cut() {
                break (kernel, ended);
            }
            clock.die();
            kernel.release();
            clock.set(clock.monotonic() + TAKEN_UP_AFTER);
            let records = world.journal.take();
            replay = Replay::of(records.iter().cloned());
            world = Arc::new(world.after_death(Arc::new(MemoryJournal::after(records))));
            epoch += 1;
        };
        kernel.tell_end(&ended);
        let records = (world.journal.len(), world.journal.undoing_since());
        let script_invariants = kernel.broken_invariants(engine, &world, scenario.is_as_planned());
        // Guards still watch, for a run that is over.
        clock.die();
        kernel.release();
        let mut trial = self.trial(script_invariants, &world, &clock, ended, records);
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

    fn kernel(
        &self,
        scenario: &Scenario,
        options: &TrialOptions,
        clock: &Arc<VirtualClock>,
        world: &Arc<RehearsedWorld>,
        replay: Replay,
        epoch: i64,
    ) -> Kernel {
        const RUN: &str = "rehearsal";
        let Prepared { header, loaded, bundle, params } = &self.prepared;
        let environment = self.inner.providers.environment().to_owned();
        let stop = Stop::default();
        let time: Arc<dyn crate::clock::Clock> = Arc::clone(clock) as _;
        let emitter = Emitter::new(RUN, options.sinks.clone(), Arc::clone(&time), Arc::clone(&self.vault));
        if epoch == 1 && !emitter.is_silent() {
            emitter.emit(Event::RunStarted {
                runbook: header.name.clone(),
                version: header.version.clone(),
                environment: environment.clone(),
                mode: Mode::Rehearsal,
                params: serde_json::to_value(params).unwrap_or_default(),
                plan: None,
            });
        }
        let keeper = Keeper::Memory(Arc::clone(&world.journal));
        let last = u64::try_from(world.journal.len()).unwrap_or(u64::MAX);
        let journal = Journal::new(keeper, RUN, epoch, last, GENESIS, Arc::clone(&self.vault));
        if epoch > 1 {
            let (by, rollback) = ("somebody".to_owned(), false);
            journal.add(time.now(), "run", &Entry::Resumed { by: by.clone(), epoch, rollback });
            emitter.emit(Event::Resumed { by, epoch, rollback });
        }
        Kernel {
            run: RUN.into(),
            environment,
            bundle: Arc::clone(bundle),
            places: Arc::clone(&loaded.places),
            budget: Budget::new(self.inner.limits, header.deadline.map(|span| span.0), Arc::clone(&time)),
            shared: Arc::new(Surroundings {
                providers: Arc::clone(&self.inner.providers),
                clock: time,
                vault: Arc::clone(&self.vault),
                reporter: Arc::new(emitter.clone()),
            }),
            emitter,
            world: Arc::clone(world) as _,
            journal: Arc::new(journal),
            replay,
            replay_only: false,
            only_undo: None,
            new_script: Mutex::default(),
            executor: Executor::Virtual { clock: Arc::clone(clock), backwards: scenario.backwards },
            // A policy speaks about what happens for real.
            policies: Vec::new(),
            cancel: stop.child(),
            stop,
            live: CancellationToken::new(),
            roles: Arc::clone(&self.inner.roles),
            started_by: self.inner.started_by.clone(),
            state: State::default(),
        }
    }
}

impl Trial {
    /// Whether the rehearsal could not go on because the scenario does not say what it would need.
    pub(crate) fn is_unknown(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.is(codes::UNKNOWN_IN_PLAN))
    }
}
