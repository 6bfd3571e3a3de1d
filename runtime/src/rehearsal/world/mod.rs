//! The rehearsed world: nothing outside is touched, states are kept in memory, and a scenario says what goes wrong.

mod acts;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use rhai::Dynamic;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    faults::{FaultPoint, Planned, lost, refused},
    initial_state::{self, InitialState},
    scenario::{Fault, Scenario},
    simulation::Simulation,
};
use crate::{
    effect::{AnyChange, AnyRead, AnyWait, On, Question, Reply},
    error::codes,
    event::Kind,
    journal::MemoryJournal,
    kernel::cursor,
    lock::lock,
    provider::ProviderError,
};

/// The world of one process of a rehearsed run.
pub struct RehearsedWorld {
    pub(crate) simulation: Arc<Simulation>,
    pub(crate) initial_state: Arc<InitialState>,
    pub(crate) journal: Arc<MemoryJournal>,
    faults: Vec<Planned>,
    /// Where each guard waits to be breached.
    guards: Mutex<BTreeMap<EffectId, CancellationToken>>,
    /// The effects that the run came to, in order.
    fault_points: Mutex<Vec<FaultPoint>>,
    /// Ids of changes that never come into effect.
    unsettled: Mutex<BTreeSet<EffectId>>,
    /// Checks that do not pass from here on, by effect and what they look at: one that is only repeated does not pass either.
    bad: Mutex<BTreeMap<(&'static str, String), ProviderError>>,
}

/// How soon others notice something.
const MOMENT: Duration = Duration::from_millis(1);

impl RehearsedWorld {
    /// A world in which that goes wrong.
    pub(crate) fn new(
        scenario: &Scenario,
        initial_state: Arc<InitialState>,
        simulation: Arc<Simulation>,
        journal: Arc<MemoryJournal>,
    ) -> Self {
        Self {
            simulation,
            initial_state,
            journal,
            faults: scenario.faults.iter().map(Planned::new).collect(),
            guards: Mutex::default(),
            fault_points: Mutex::default(),
            unsettled: Mutex::default(),
            bad: Mutex::default(),
        }
    }

    /// The same world for the process that goes on after this one died: what has struck does not strike again.
    pub(crate) fn after_death(&self, journal: Arc<MemoryJournal>) -> Self {
        Self {
            simulation: Arc::clone(&self.simulation),
            initial_state: Arc::clone(&self.initial_state),
            journal,
            faults: self.faults.iter().map(Planned::left).collect(),
            guards: Mutex::default(),
            fault_points: Mutex::new(lock(&self.fault_points).clone()),
            unsettled: Mutex::new(lock(&self.unsettled).clone()),
            bad: Mutex::new(lock(&self.bad).clone()),
        }
    }

    /// The effects that the run came to, which are given away.
    pub(crate) fn take_fault_points(&self) -> Vec<FaultPoint> {
        std::mem::take(&mut lock(&self.fault_points))
    }

    /// Whether all that was to go wrong did.
    pub(crate) fn all_struck(&self) -> bool {
        self.faults.iter().all(|planned| planned.struck.load(Ordering::Relaxed))
    }

    /// Notes how an effect can go wrong at the point it has come to. Answers how it does.
    fn at(
        &self,
        on: &On,
        kind: Kind,
        open: bool,
        effect: &'static str,
        what: impl Fn() -> String,
        faults: impl Fn() -> Vec<Fault>,
    ) -> Option<&Fault> {
        let possible = faults();
        let planned = self.faults.iter().find(|planned| {
            planned.id == *on.id() && !planned.is_over() && possible.contains(&planned.fault)
        });
        let mut fault_points = lock(&self.fault_points);
        match fault_points.iter_mut().rev().find(|point| point.id == *on.id()) {
            Some(point) => {
                point.open |= open;
                point.faults.extend(
                    possible.into_iter().filter(|fault| !point.faults.contains(fault)).collect::<Vec<_>>(),
                );
            }
            None => {
                fault_points.push(FaultPoint {
                    id: on.id().clone(),
                    kind,
                    effect,
                    what: what(),
                    faults: possible,
                    open,
                });
            }
        }
        drop(fault_points);
        let planned = planned?;
        planned.struck.store(true, Ordering::Relaxed);
        on.note(format!("rehearsed here: {}", planned.fault.describe()));
        Some(&planned.fault)
    }

    /// Why a check does not pass that did not pass before. What is undone looks anew.
    fn is_bad(&self, on: &On, read: &dyn AnyRead) -> Option<ProviderError> {
        let bad = lock(&self.bad);
        if bad.is_empty() || on.id().is_rollback() {
            return None;
        }
        bad.get(&(read.effect(), read.describe())).cloned()
    }

    /// What a plan would know of a polled wait that needs no time and looks at nothing that was changed. `None`: nothing.
    fn foreseen(&self, wait: &dyn AnyWait, at_least: Duration) -> Result<Option<Value>, ProviderError> {
        if self.is_touched(&wait.depends_on()) {
            return Ok(None);
        }
        let found = self.initial_state.polled(wait)?;
        Ok(found.filter(|_| at_least.is_zero()))
    }

    /// The guards around this place that can be breached.
    fn breaches(on: &On) -> impl Iterator<Item = Fault> {
        // What is undone is not guarded.
        let undoing = on.id().is_rollback();
        let parts = if undoing { Vec::new() } else { cursor::cancel_scopes() };
        parts.into_iter().filter(|scope| scope.id.is_guard()).map(|scope| Fault::Breach(scope.id.clone()))
    }

    fn token(&self, guard: &str) -> CancellationToken {
        lock(&self.guards).entry(guard.into()).or_default().clone()
    }

    /// A guard finds something, and whoever it guards has a moment to notice.
    async fn breach(&self, on: &On, guard: &str) {
        self.token(guard).cancel();
        on.clock().sleep(MOMENT).await;
    }

    /// The process dies.
    fn die(&self) -> ProviderError {
        self.journal.cut();
        ProviderError::terminal(codes::LOST, "the process dies here")
    }

    /// Does something, or what a fault makes of it.
    async fn act(&self, on: &On, fault: Option<&Fault>, act: impl FnOnce()) -> Result<(), ProviderError> {
        match fault {
            Some(Fault::Refused) => return Err(refused(on)),
            Some(Fault::TimesOut) => std::future::pending().await,
            _ => act(),
        }
        match fault {
            Some(Fault::LostAnswer) => Err(lost(on)),
            Some(Fault::Killed) => Err(self.die()),
            _ => Ok(()),
        }
    }

    fn set(&self, on: &On, change: &dyn AnyChange, to: &Value) {
        let mut simulated = self.simulation.state();
        let key = initial_state::key(change);
        if !on.id().is_rollback()
            && let Some(from) = simulated.states.get(&key)
            && change.undo(from, to) != crate::effect::Undo::Possible
        {
            simulated.one_way.push(on.id().clone());
        }
        simulated.set(on.id(), &key, to);
        simulated.touched.insert(change.target());
        simulated.touched.extend(change.touches());
    }

    fn view(&self) -> Dynamic {
        initial_state::view(&self.simulation.state().states)
    }

    fn is_touched(&self, targets: &[crate::target::Target]) -> bool {
        let simulated = self.simulation.state();
        targets.iter().any(|target| simulated.touched.contains(target))
    }

    /// The answers of as many people as must say yes.
    fn yes(question: &Question) -> Vec<Reply> {
        let people = question.rule.at_least.max(1);
        (1..=people).map(|n| Reply::new(true, format!("person-{n}"))).collect()
    }
}
