//! What a kernel is made of.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use contraflow_provider::{effect_id::EffectId, on::Ownership};
use serde_json::Value;

use super::{
    Facts, Kernel, Policy,
    earlier::Earlier,
    enforcement::{Enforcement, Planning},
    lifecycle::Lifecycle,
    targets::Targets,
    undo_stack::UndoStack,
};
use crate::{
    budget::{Budget, ScriptLimits},
    bundle::Bundle,
    clock::Clock,
    effect::{Role, Surroundings},
    error::RunError,
    event::{Emitter, Event, Mode, Sink},
    executor::Executor,
    journal::{Entry, Journal, Keeper, Replay},
    plan::Draft,
    provider::Providers,
    secret::Vault,
    stop::Stop,
    world::World,
};

/// What distinguishes one run from another.
pub(crate) struct Setup<'s> {
    pub(crate) run: &'s str,
    /// Name and version of the runbook.
    pub(crate) runbook: (&'s str, &'s str),
    pub(crate) params: &'s BTreeMap<String, Value>,
    /// The run's own deadline.
    pub(crate) deadline: Option<Duration>,
    pub(crate) limits: ScriptLimits,
    /// Who began the run, and who runs it now.
    pub(crate) people: (&'s str, &'s str),
    /// Names of those who have a role.
    pub(crate) roles: Arc<BTreeMap<String, Role>>,
    pub(crate) providers: Arc<Providers>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) sinks: Arc<[Arc<dyn Sink>]>,
    pub(crate) world: Arc<dyn World>,
    pub(crate) executor: Executor,
    pub(crate) policies: Vec<Arc<dyn Policy>>,
    pub(crate) keeper: Keeper,
    /// Which runner of the run it is, from 1.
    pub(crate) epoch: i64,
    /// Place and hash of the last record.
    pub(crate) last: (u64, [u8; 32]),
    pub(crate) replay: Replay,
    /// Nothing may happen that is not in `replay`.
    pub(crate) replay_only: bool,
    /// Nothing new may begin: what was done is to be undone, for this reason.
    pub(crate) only_undo: Option<RunError>,
    /// Other scripts than those that made the journal.
    pub(crate) new_script: Option<Bundle>,
    /// The plan that the run must keep to.
    pub(crate) enforcement: Option<Enforcement>,
    /// Where a plan collects what it foresees.
    pub(crate) draft: Option<Arc<Draft>>,
    pub(crate) stop: &'s Stop,
    /// Whoever listens has heard already that the run begins.
    pub(crate) is_announced: bool,
}

impl Kernel {
    /// The kernel of one runner of a run, with a journal that goes on where it ended. Says that the run begins.
    pub(crate) fn new(setup: Setup<'_>) -> Self {
        let environment = setup.providers.environment().to_owned();
        let (started_by, runs_it) = setup.people;
        let emitter =
            Emitter::new(setup.run, setup.sinks, Arc::clone(&setup.clock), Arc::clone(&setup.vault));
        if !setup.is_announced && !emitter.is_silent() {
            emitter.emit(Event::RunStarted {
                runbook: setup.runbook.0.to_owned(),
                version: setup.runbook.1.to_owned(),
                environment: environment.clone(),
                mode: if setup.replay_only { Mode::Replay } else { setup.world.mode() },
                params: serde_json::to_value(setup.params).unwrap_or_default(),
                plan: setup.enforcement.as_ref().map(|enforcement| enforcement.binding.plan.clone()),
            });
        }
        let (seq, hash) = setup.last;
        let vault = Arc::clone(&setup.vault);
        let journal = Arc::new(Journal::new(setup.keeper, setup.run, setup.epoch, seq, hash, vault));
        if setup.epoch > 1 {
            let (by, epoch, rollback) = (runs_it.to_owned(), setup.epoch, setup.only_undo.is_some());
            journal.add(
                setup.clock.now(),
                &EffectId::of_run(),
                &Entry::Resumed { by: by.clone(), epoch, rollback },
            );
            emitter.emit(Event::Resumed { by, epoch, rollback });
        }
        Self {
            life: Lifecycle::new(
                setup.stop,
                Budget::new(setup.limits, setup.deadline, Arc::clone(&setup.clock)),
            ),
            facts: Facts {
                run: setup.run.into(),
                environment,
                roles: setup.roles,
                started_by: started_by.to_owned(),
            },
            shared: Arc::new(Surroundings {
                providers: setup.providers,
                clock: setup.clock,
                vault: setup.vault,
                reporter: Arc::new(emitter.clone()),
                ownership: Arc::clone(&journal) as Arc<dyn Ownership>,
            }),
            emitter,
            world: setup.world,
            journal,
            earlier: Earlier::new(setup.replay, setup.replay_only, setup.only_undo, setup.new_script),
            executor: setup.executor,
            policies: setup.policies,
            plan: Planning { enforcement: setup.enforcement, draft: setup.draft },
            undo: UndoStack::default(),
            targets: Targets::default(),
            changes: AtomicUsize::default(),
        }
    }
}
