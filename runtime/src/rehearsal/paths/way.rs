//! What is told of one trial, and how it differs from another.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use contraflow_provider::effect_id::{EffectId, Segment};
use rhai::Engine;

use super::{Asks, PathEffect};
use crate::{
    error::codes,
    event::{EffectResult, Envelope, Event, Grade, Kind, LeftOver, Sink},
    rehearsal::{
        explorer::{End, millis},
        faults::FaultPoint,
        oracle,
        scenario::{Fault, Scenario},
        trial::{Trial, TrialOptions, TrialSetup},
    },
};

/// A trial with all that happened on it.
pub(super) struct Way {
    pub(super) trial: Trial,
    pub(super) events: Vec<Envelope>,
    pub(super) effects: Vec<PathEffect>,
    guards: Vec<Guard>,
}

/// A guard that began.
struct Guard {
    id: EffectId,
    watching: String,
}

/// Something that is decided, and the scenarios in which it goes another way.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) id: EffectId,
    pub(super) asks: Asks,
    pub(super) effect: String,
    pub(super) what: String,
    /// Where it goes another way, and how.
    pub(super) ways: Vec<(EffectId, Fault)>,
}

/// What a decision that goes another way leads to.
pub(super) struct Turn {
    pub(super) scenario: Scenario,
    pub(super) answer: Fault,
    pub(super) end: End,
    pub(super) why: Option<String>,
    pub(super) does: Vec<PathEffect>,
    pub(super) skips: Vec<PathEffect>,
    pub(super) undone: Vec<PathEffect>,
    pub(super) left: Vec<LeftOver>,
    /// What is decided there and nowhere before.
    pub(super) points: Vec<Point>,
    pub(super) elapsed_ms: u64,
    /// What ended it, as far as it tells trials apart.
    ended_by: Option<String>,
}

impl Way {
    /// Plays a scenario and notes how it goes.
    pub(super) fn play(setup: &TrialSetup, scenario: &Scenario, engine: &mut Engine) -> Self {
        let heard: Arc<Mutex<Vec<Envelope>>> = Arc::default();
        let to = Arc::clone(&heard);
        let sink = move |event: &Envelope| {
            to.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        };
        let wanted = TrialOptions { sinks: vec![Arc::new(sink) as Arc<dyn Sink>], ..TrialOptions::default() };
        let trial = setup.play(scenario, &wanted, engine);
        let mut events = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
        events.iter_mut().for_each(unanswered);
        let fault_points: HashMap<&str, &FaultPoint> =
            trial.fault_points.iter().map(|point| (&*point.id, point)).collect();
        let effects = events.iter().filter_map(|event| effect(event, &fault_points)).collect();
        let guards = events.iter().filter_map(guard).collect();
        Self { trial, events, effects, guards }
    }

    /// All that is decided on it.
    pub(super) fn points(&self) -> Vec<Point> {
        self.points_besides(&HashSet::new(), &HashMap::new())
    }

    /// What is decided on it apart from the effects that another way has as well, and as many guards of the same kind.
    fn points_besides(&self, common: &HashSet<&str>, known: &HashMap<&str, usize>) -> Vec<Point> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let new: HashMap<&str, &Guard> = self
            .guards
            .iter()
            .filter(|guard| {
                let times = seen.entry(&guard.watching).or_default();
                *times += 1;
                *times > known.get(&*guard.watching).copied().unwrap_or(0)
            })
            .map(|guard| (&*guard.id, guard))
            .collect();
        let mut points: Vec<Point> = Vec::new();
        let mut guards: HashMap<&str, usize> = HashMap::new();
        for point in &self.trial.fault_points {
            for fault in &point.faults {
                let Fault::Breach(id) = fault else { continue };
                let Some(guard) = new.get(&**id) else { continue };
                let at = *guards.entry(&guard.id).or_insert_with(|| {
                    points.push(guard.point());
                    points.len() - 1
                });
                points[at].ways.push((point.id.clone(), fault.clone()));
            }
            if point.open && !common.contains(&*point.id) {
                points.extend(decision_point(point));
            }
        }
        points
    }

    fn guards_by_what(&self) -> HashMap<&str, usize> {
        let mut by_what = HashMap::new();
        self.guards.iter().for_each(|guard| *by_what.entry(&*guard.watching).or_default() += 1);
        by_what
    }

    /// How this way differs from the one that it comes from, where the last of its faults struck.
    pub(super) fn turn(self, from: &Self, scenario: &Scenario) -> Turn {
        let (at, fault) = scenario.faults.last().cloned().unwrap_or((EffectId::default(), Fault::Killed));
        let does: Vec<&PathEffect> = besides(&self.effects, &from.effects, &at);
        let new: HashSet<&str> = does.iter().map(|effect| &*effect.id).collect();
        let common = self.effects.iter().map(|effect| &*effect.id).filter(|id| !new.contains(id)).collect();
        let points = self.points_besides(&common, &from.guards_by_what());
        let forward: HashSet<&str> =
            self.effects.iter().filter(|effect| !effect.id.is_rollback()).map(|effect| &*effect.id).collect();
        let undoes = |effect: &PathEffect| effect.id.undoes().is_some_and(|id| forward.contains(id));
        let undone = |effect: &&PathEffect| {
            undoes(effect)
                && matches!(
                    result(effect),
                    Some(EffectResult::Changed { .. } | EffectResult::Performed { .. })
                )
        };
        let end = oracle::end(&self.trial);
        let error = self.trial.error.as_ref();
        // What was decided says why, unless the script found words of its own.
        let own = error.filter(|error| {
            let decided = scenario.faults.iter().any(|(id, _)| error.effect.as_ref() == Some(id));
            let breached = matches!(fault, Fault::Breach(_)) && error.is(codes::GUARD_BREACHED);
            error.is(codes::LIMIT) || !decided && !breached
        });
        let skips = match end {
            End::Succeeded => besides(&from.effects, &self.effects, &at),
            _ => Vec::new(),
        };
        Turn {
            answer: fault.clone(),
            scenario: scenario.clone(),
            end,
            ended_by: own.map(|error| error.code.as_str().to_owned()),
            why: own.map(|error| error.message.clone()),
            does: does.into_iter().filter(|effect| !undoes(effect)).cloned().collect(),
            skips: skips.into_iter().cloned().collect(),
            undone: self.effects.iter().filter(undone).cloned().collect(),
            left: self.trial.left.clone(),
            points,
            elapsed_ms: millis(self.trial.elapsed),
        }
    }
}

impl Turn {
    /// Whether it leads to the same trial as another answer to the same question. How far the run has come by the time that a
    /// guard is breached makes no difference: all the more is undone.
    pub(super) fn is_like(&self, other: &Self, asks: Asks) -> bool {
        let same = |a: &[PathEffect], b: &[PathEffect]| a.iter().map(trial_key).eq(b.iter().map(trial_key));
        let ids = |turn: &Self| turn.points.iter().map(|point| point.id.clone()).collect::<Vec<_>>();
        let left = |turn: &Self| turn.left.iter().map(|left| left.id.clone()).collect::<Vec<_>>();
        let alike = self.end == other.end
            && self.ended_by == other.ended_by
            && same(&self.does, &other.does)
            && ids(self) == ids(other);
        alike
            && (asks == Asks::Guard
                || same(&self.skips, &other.skips)
                    && same(&self.undone, &other.undone)
                    && left(self) == left(other))
    }
}

impl Guard {
    fn point(&self) -> Point {
        Point {
            id: self.id.clone(),
            asks: Asks::Guard,
            effect: EffectId::GUARD.to_owned(),
            what: self.watching.clone(),
            ways: Vec::new(),
        }
    }
}

/// What is decided at an effect whose answer nobody knows.
fn decision_point(point: &FaultPoint) -> Option<Point> {
    let decides = |fault: &&Fault| match fault {
        Fault::Verdict(_) | Fault::Denied | Fault::NoAnswer => true,
        Fault::TimesOut => point.kind == Kind::Wait,
        // What breaks is for rehearsals; a guard decides for itself.
        Fault::Unreachable
        | Fault::Refused
        | Fault::LostAnswer
        | Fault::NeverSettles
        | Fault::Killed
        | Fault::Breach(_) => false,
    };
    let ways: Vec<_> =
        point.faults.iter().filter(decides).map(|fault| (point.id.clone(), fault.clone())).collect();
    let asks = match point.kind {
        Kind::Wait if point.faults.contains(&Fault::Denied) => Asks::Question,
        Kind::Wait => Asks::Gate,
        Kind::Read | Kind::Change | Kind::Action => Asks::Check,
    };
    (!ways.is_empty()).then(|| Point {
        id: point.id.clone(),
        asks,
        effect: point.effect.to_owned(),
        what: point.what.clone(),
        ways,
    })
}

/// A plan has nobody who answered.
fn unanswered(envelope: &mut Envelope) {
    if let Event::EffectEnded { kind: Kind::Wait, result: EffectResult::Answered { text }, .. } =
        &mut envelope.event
    {
        text.clear();
    }
}

fn guard(envelope: &Envelope) -> Option<Guard> {
    let Event::GuardStarted { id, watching, .. } = &envelope.event else { return None };
    Some(Guard { id: id.clone(), watching: watching.join("; ") })
}

fn effect(envelope: &Envelope, fault_points: &HashMap<&str, &FaultPoint>) -> Option<PathEffect> {
    let Event::EffectEnded { id, kind, effect, target, about, grade, result, .. } = &envelope.event else {
        return None;
    };
    let text = match result {
        EffectResult::Changed { from_text, to_text, .. } => format!("{from_text} -> {to_text}"),
        EffectResult::Unchanged { text, .. } => format!("{text}, unchanged"),
        EffectResult::Answered { text } => text.clone(),
        EffectResult::Failed { error } => error.message.clone(),
        EffectResult::Performed { .. } => String::new(),
    };
    let what = match (target, result) {
        (Some(target), _) => target.to_string(),
        (None, EffectResult::Performed { text }) => text.clone(),
        (None, _) => about.clone(),
    };
    let checked = |point: &&FaultPoint| point.faults.iter().any(|fault| matches!(fault, Fault::Verdict(_)));
    let failed = matches!(result, EffectResult::Failed { .. });
    let guessed = *kind == Kind::Read && matches!(grade, Grade::Assumed | Grade::Stale) && !failed;
    Some(PathEffect {
        id: id.clone(),
        kind: *kind,
        effect: effect.clone(),
        what,
        text,
        failed,
        value_assumed: guessed && !fault_points.get(&**id).is_some_and(checked),
        event: envelope.clone(),
    })
}

fn result(effect: &PathEffect) -> Option<&EffectResult> {
    match &effect.event.event {
        Event::EffectEnded { result, .. } => Some(result),
        _ => None,
    }
}

/// The steps, branches and guards around an effect, its name, what it is about, and what it came to.
type Key<'e> = (Vec<(&'e str, Option<usize>)>, &'e str, &'e str, &'e str);

/// What an effect is, wherever in its step it stands and wherever its target comes from: an effect more or less before it, or before
/// what it stands in, moves it, and leaves it what it is.
fn key(effect: &PathEffect) -> Key<'_> {
    let came_to = match result(effect) {
        Some(EffectResult::Changed { to_text: state, .. } | EffectResult::Unchanged { text: state, .. }) => {
            state
        }
        _ => &effect.text,
    };
    let mut around: Vec<_> = effect
        .id
        .parts()
        .map(|part| match part.segment {
            Segment::Effect(name) => (name, None),
            Segment::Branch { index, .. } => ("", Some(index)),
            _ => (part.text, None),
        })
        .collect();
    around.pop();
    (around, &effect.effect, &effect.what, came_to)
}

/// What an effect is on a trial: words in a message may tell the one answer from the other, and change nothing.
fn trial_key(effect: &PathEffect) -> (&str, &str) {
    (&effect.id, if effect.kind == Kind::Change { &effect.text } else { "" })
}

/// The effects that others do not have. The one in which both differ in the first place counts for neither.
fn besides<'d>(effects: &'d [PathEffect], others: &[PathEffect], but: &str) -> Vec<&'d PathEffect> {
    let mut there: HashMap<Key<'_>, usize> = HashMap::new();
    let others = others.iter().filter(|effect| effect.id != but);
    others.for_each(|effect| *there.entry(key(effect)).or_default() += 1);
    let mut new = Vec::new();
    for effect in effects.iter().filter(|effect| effect.id != but) {
        match there.get_mut(&key(effect)) {
            Some(times) if *times > 0 => *times -= 1,
            _ => new.push(effect),
        }
    }
    new
}
