//! Tries every effect with every way in which it can go wrong, and checks how the run ends each time.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use contraflow_provider::effect_id::EffectId;
use rhai::Engine;
use serde::Serialize;

use super::{
    faults::FaultPoint,
    invariant::Violation,
    oracle,
    scenario::{Fault, Scenario},
    trial::{Trial, TrialOptions, TrialSetup},
    worker_pool::WorkerPool,
};
use crate::{error::NextStep, event::Kind, lock::lock, script, stop::Stop};

/// What is to be explored.
#[derive(Debug, Clone, Default)]
pub struct Explore {
    /// Also every two faults at once.
    pub pairs: bool,
    /// Most scenarios.
    pub scenarios: Option<usize>,
    /// Longest time.
    pub time: Option<Duration>,
    /// How far it is, for whoever watches.
    pub progress: Arc<Progress>,
}

/// How far a rehearsal is.
#[derive(Debug, Default)]
pub struct Progress {
    played: AtomicUsize,
    known: AtomicUsize,
    stopped: AtomicBool,
}

impl Progress {
    /// How many scenarios have been played, and how many are known so far.
    pub fn get(&self) -> (usize, usize) {
        (self.played.load(Ordering::Relaxed), self.known.load(Ordering::Relaxed))
    }

    /// Plays no further scenario: what was found so far is all.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether somebody wants it to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn add_known(&self, scenarios: usize) {
        self.known.fetch_add(scenarios, Ordering::Relaxed);
    }

    pub(super) fn add_played(&self) {
        self.played.fetch_add(1, Ordering::Relaxed);
    }
}

/// How a rehearsed run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It came to its end.
    Succeeded,
    /// It failed with nothing to undo.
    Failed,
    /// Everything it had done was undone.
    RolledBack,
    /// Something is left that a person has to undo.
    RollbackIncomplete,
    /// It stopped and cannot go on by itself.
    Paused,
    /// It was given up.
    Aborted,
    /// It waits for a person forever.
    Waits,
    /// The scenario does not say what it would need to go on.
    Unknown,
}

/// One scenario and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// What went wrong.
    pub scenario: Scenario,
    /// How the run ended.
    pub end: End,
    /// Why, unless it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The same as data, where a program can say how.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<NextStep>,
    /// What could not be undone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
    /// Simulated time that it took.
    pub elapsed_ms: u64,
    /// Whether all that was to go wrong did: the run may not have come to it.
    pub struck: bool,
    /// What must hold and did not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

/// An effect and how it can go wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its id.
    pub id: EffectId,
    /// Its kind.
    pub kind: Kind,
    /// Its name, such as `traffic.shift`.
    pub effect: String,
    /// What it is about.
    pub what: String,
    /// The faults that were to be tried on it.
    pub faults: Vec<Fault>,
}

/// What a rehearsal found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// The effects that the run comes to, as planned or when something goes wrong.
    pub effects: Vec<Row>,
    /// Every scenario that was tried, in the order of exploration.
    pub tried: Vec<Tried>,
    /// Scenarios that were not tried because the budget was used up; those that would have followed from them are not counted.
    pub not_tried: usize,
    /// Records in the journal when all goes as planned.
    pub records: usize,
    /// Simulated time when all goes as planned.
    pub planned_ms: u64,
}

impl Findings {
    /// The scenarios in which something did not hold.
    pub fn violated(&self) -> impl Iterator<Item = &Tried> {
        self.tried.iter().filter(|tried| !tried.violations.is_empty())
    }

    /// What did not hold, each with its scenario, for tests of runbooks.
    pub fn violations(&self) -> Vec<String> {
        let told = |tried: &Tried| {
            let line = |v: &Violation| format!("{}: {}: {}", tried.scenario, v.invariant, v.why);
            tried.violations.iter().map(line).collect::<Vec<_>>()
        };
        self.violated().flat_map(told).collect()
    }
}

/// Most faults in one scenario that are looked for: one that makes the run give up, one on the way back, one of the process.
pub(super) const DEEPEST: usize = 2;

/// Scenarios that are played before it is seen what follows from them: until then the effects that they came to are in memory.
const CHUNK: usize = 1024;

/// What is kept of a trial once it was checked.
struct Played {
    tried: Tried,
    /// The effects that it came to, if more may follow from them.
    fault_points: Vec<FaultPoint>,
}

impl Played {
    fn of(scenario: &Scenario, trial: Trial, happy: &Trial, alive: Option<&Trial>) -> Self {
        let tried = oracle::tried(scenario.clone(), &trial, happy, alive);
        Self { tried, fault_points: if leads_on(scenario) { trial.fault_points } else { Vec::new() } }
    }
}

/// Whether more is tried of what a scenario comes to.
fn leads_on(scenario: &Scenario) -> bool {
    scenario.faults.len() < DEEPEST && scenario.crash.is_none()
}

/// How often it is looked whether the time is up, or somebody has had enough.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Breaks off what is being played once the budget is used up: one scenario alone may take longer than all of it.
struct Watchdog {
    over: Arc<(Mutex<bool>, Condvar)>,
}

impl Watchdog {
    fn watch(explore: &Explore, begun: Instant, stop: &Stop) -> Self {
        let over = Arc::<(Mutex<bool>, Condvar)>::default();
        let (watched, progress) = (Arc::clone(&over), Arc::clone(&explore.progress));
        let (longest, stop) = (explore.time, stop.clone());
        let watch = move || {
            let mut is_over = lock(&watched.0);
            while !*is_over {
                if progress.is_stopped() || longest.is_some_and(|longest| begun.elapsed() >= longest) {
                    return stop.abort();
                }
                is_over =
                    watched.1.wait_timeout(is_over, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        // Without it, the budget holds between two scenarios.
        let _ = thread::Builder::new().name("budget".into()).spawn(watch);
        Self { over }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *lock(&self.over.0) = true;
        self.over.1.notify_all();
    }
}

/// Explores.
pub(crate) struct Explorer<'s> {
    setup: &'s TrialSetup,
    explore: Explore,
    begun: Instant,
    /// Breaks off the scenarios that are being played.
    stop: Stop,
    /// Effects that are known, with the faults that were planned for them.
    planned: HashSet<(EffectId, Fault)>,
    rows: BTreeMap<EffectId, usize>,
    findings: Findings,
    /// The scenario with the longest way back so far, and how many effects that has.
    way_back: Option<(usize, Scenario)>,
    /// Two faults at once, still to be tried.
    pairs: Vec<Scenario>,
    worker_pool: WorkerPool<'s>,
}

impl<'s> Explorer<'s> {
    pub(crate) fn new(setup: &'s TrialSetup, explore: Explore) -> Self {
        let findings =
            Findings { effects: Vec::new(), tried: Vec::new(), not_tried: 0, records: 0, planned_ms: 0 };
        Self {
            setup,
            explore,
            begun: Instant::now(),
            stop: Stop::default(),
            planned: HashSet::new(),
            rows: BTreeMap::new(),
            findings,
            way_back: None,
            pairs: Vec::new(),
            worker_pool: WorkerPool::new(setup),
        }
    }

    /// Tries everything there is to try.
    pub(crate) fn explore(mut self) -> Findings {
        let _watchdog = Watchdog::watch(&self.explore, self.begun, &self.stop);
        let happy = self.setup.play(&Scenario::default(), &self.recorded(), &mut self.setup.engine());
        self.findings.records = happy.records.0;
        self.findings.planned_ms = millis(happy.elapsed);
        let as_planned = Scenario::default();
        let tried = oracle::tried(as_planned.clone(), &happy, &happy, None);
        if self.stop.is_aborted() {
            let by_hand = self.explore.progress.is_stopped();
            self.findings.tried.push(broken_off(tried, by_hand));
            self.findings.not_tried += 1;
            return self.findings;
        }
        self.findings.tried.push(tried);
        let mut next = self.follow(&as_planned, &happy.fault_points);
        next.extend((1..happy.records.0).map(Scenario::crash));
        if happy.fault_points.iter().any(|point| point.id.branches().next().is_some()) {
            next.push(Scenario { backwards: true, ..Scenario::default() });
        }
        while !next.is_empty() {
            next = self.round(&next, &happy, None);
            if next.is_empty()
                && let Some((deaths, alive)) = self.deaths_on_the_way_back()
            {
                next = self.round(&deaths, &happy, Some(&alive));
            }
            if next.is_empty() {
                next = self.pairs_not_tried();
            }
        }
        self.findings
    }

    /// Tries scenarios. Answers those that follow from what was found. `alive`: the trial of all of them if nobody died.
    fn round(&mut self, scenarios: &[Scenario], happy: &Trial, alive: Option<&Trial>) -> Vec<Scenario> {
        let mut next = Vec::new();
        for some in scenarios.chunks(CHUNK) {
            let played = self.play_all(some, happy, alive);
            for (scenario, played) in some.iter().zip(played) {
                let Some(Played { tried, fault_points }) = played else { continue };
                if leads_on(scenario) {
                    next.extend(self.follow(scenario, &fault_points));
                    self.remember(scenario, &fault_points);
                }
                self.findings.tried.push(tried);
            }
        }
        next
    }

    /// Remembers what else may follow from a scenario of one fault: the longest way back, and second faults.
    fn remember(&mut self, scenario: &Scenario, fault_points: &[FaultPoint]) {
        if self.explore.pairs {
            self.pairs.extend(pairs_of(scenario, fault_points));
        }
        let undone = fault_points.iter().filter(|point| point.id.is_rollback()).count();
        let longest = self.way_back.as_ref().map_or(0, |(most, _)| *most);
        if undone > longest && !scenario.dies() {
            self.way_back = Some((undone, scenario.clone()));
        }
    }

    /// The longest way back, with the process dying at each of its records.
    fn deaths_on_the_way_back(&mut self) -> Option<(Vec<Scenario>, Trial)> {
        let (_, scenario) = self.way_back.take()?;
        let alive = self.setup.play(&scenario, &self.recorded(), &mut self.setup.engine());
        if self.stop.is_aborted() {
            return None;
        }
        let (records, since) = alive.records;
        let deaths = since.unwrap_or(records)..records;
        Some((deaths.map(|n| Scenario { crash: Some(n), ..scenario.clone() }).collect(), alive))
    }

    /// A trial of which the number of records is wanted.
    fn recorded(&self) -> TrialOptions {
        TrialOptions { records: true, stop: self.stop.clone(), ..TrialOptions::default() }
    }

    fn pairs_not_tried(&mut self) -> Vec<Scenario> {
        let tried: HashSet<&Scenario> = self.findings.tried.iter().map(|tried| &tried.scenario).collect();
        let mut pairs = std::mem::take(&mut self.pairs);
        pairs.retain(|pair| !tried.contains(pair));
        pairs
    }

    /// What can go wrong with the effects of a trial that have not been seen before, in the same circumstances.
    fn follow(&mut self, scenario: &Scenario, fault_points: &[FaultPoint]) -> Vec<Scenario> {
        let mut next = Vec::new();
        for point in fault_points {
            self.row(point);
            for fault in &point.faults {
                let new = !self.planned.contains(&(point.id.clone(), fault.clone()));
                if new && !scenario.faults.iter().any(|(id, _)| *id == point.id) {
                    self.planned.insert((point.id.clone(), fault.clone()));
                    next.push(scenario.and(point.id.clone(), fault.clone()));
                }
            }
        }
        next
    }

    fn row(&mut self, point: &FaultPoint) {
        let at = *self.rows.entry(point.id.clone()).or_insert_with(|| {
            let FaultPoint { id, kind, effect, what, .. } = point;
            let row = Row {
                id: id.clone(),
                kind: *kind,
                effect: (*effect).to_owned(),
                what: what.clone(),
                faults: Vec::new(),
            };
            self.findings.effects.push(row);
            self.findings.effects.len() - 1
        });
        let row = &mut self.findings.effects[at];
        for fault in &point.faults {
            if !row.faults.iter().any(|known| known.is_like(fault)) {
                row.faults.push(fault.clone());
            }
        }
    }

    /// Whether the budget allows for another scenario.
    fn may_try(&self, more: usize) -> bool {
        self.explore.scenarios.is_none_or(|most| self.findings.tried.len() + more < most)
            && self.explore.time.is_none_or(|longest| self.begun.elapsed() < longest)
            && !self.explore.progress.is_stopped()
            && !self.stop.is_aborted()
    }

    /// Plays and checks scenarios on all cores. The answers come in the order of the scenarios. `None`: the budget did not allow
    /// for it.
    fn play_all(
        &mut self,
        scenarios: &[Scenario],
        happy: &Trial,
        alive: Option<&Trial>,
    ) -> Vec<Option<Played>> {
        let all = self.worker_pool.all(
            scenarios,
            &self.explore.progress,
            |n| self.may_try(n),
            |scenario, engine| {
                let options = TrialOptions { stop: self.stop.clone(), ..TrialOptions::default() };
                let trial = self.setup.play(scenario, &options, engine);
                // What was broken off says nothing about the runbook.
                (!self.stop.is_aborted()).then(|| Played::of(scenario, trial, happy, alive))
            },
        );
        let all: Vec<Option<Played>> = all.into_iter().map(Option::flatten).collect();
        self.findings.not_tried += all.iter().filter(|played| played.is_none()).count();
        all
    }
}

/// A run that was broken off before it came to its end as planned.
fn broken_off(tried: Tried, by_hand: bool) -> Tried {
    let why = if by_hand { "the rehearsal was stopped" } else { "the budget was used up" };
    Tried {
        end: End::Unknown,
        why: Some(format!("{why} before the run came to its end as planned")),
        hints: vec![
            "look for a loop that waits for what nobody does in a rehearsal, or allow more time".to_owned(),
        ],
        next: Vec::new(),
        left: Vec::new(),
        violations: Vec::new(),
        ..tried
    }
}

/// The same fault, and one more at each effect that comes later.
fn pairs_of(scenario: &Scenario, fault_points: &[FaultPoint]) -> Vec<Scenario> {
    let Some((id, _)) = scenario.faults.first() else { return Vec::new() };
    let later = fault_points.iter().skip_while(|point| point.id != *id).skip(1);
    later
        .flat_map(|point| point.faults.iter().map(|fault| scenario.and(point.id.clone(), fault.clone())))
        .collect()
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl TrialSetup {
    /// An interpreter, which can be used for one trial after the other.
    pub(crate) fn engine(&self) -> Engine {
        script::build(&self.functions, &self.limits, std::sync::Arc::clone(&self.prepared.loaded.imports))
    }
}
