//! What is told of one course, and how it differs from another.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use rhai::Engine;

use super::{Asks, Done};
use crate::{
    error::codes,
    event::{EffectResult, Envelope, Event, Grade, Kind, LeftOver, Sink},
    rehearsal::{
        course::{Course, Stage, Wanted},
        explorer::{End, millis},
        faults::Site,
        judge,
        scenario::{Fault, Scenario},
    },
};

const ROLLBACK: &str = "rollback/";

/// A course with all that happened on it.
pub(super) struct Way {
    pub(super) course: Course,
    pub(super) events: Vec<Envelope>,
    pub(super) deeds: Vec<Done>,
    guards: Vec<Guard>,
}

/// A guard that began.
struct Guard {
    id: String,
    watching: String,
}

/// Something that is decided, and the scenarios in which it goes another way.
#[derive(Debug, Clone)]
pub(super) struct Point {
    pub(super) id: String,
    pub(super) asks: Asks,
    pub(super) effect: String,
    pub(super) what: String,
    /// Where it goes another way, and how.
    pub(super) ways: Vec<(String, Fault)>,
}

/// What a decision that goes another way leads to.
pub(super) struct Turn {
    pub(super) scenario: Scenario,
    pub(super) answer: String,
    pub(super) end: End,
    pub(super) why: Option<String>,
    pub(super) does: Vec<Done>,
    pub(super) skips: Vec<Done>,
    pub(super) undone: Vec<Done>,
    pub(super) left: Vec<LeftOver>,
    /// What is decided there and nowhere before.
    pub(super) points: Vec<Point>,
    pub(super) elapsed_ms: u64,
    /// What ended it, as far as it tells courses apart.
    ended_by: Option<String>,
}

impl Way {
    /// Plays a scenario and notes how it goes.
    pub(super) fn play(stage: &Stage, scenario: &Scenario, engine: &mut Engine) -> Self {
        let heard: Arc<Mutex<Vec<Envelope>>> = Arc::default();
        let to = Arc::clone(&heard);
        let sink = move |event: &Envelope| {
            to.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        };
        let wanted = Wanted { sinks: vec![Arc::new(sink) as Arc<dyn Sink>], records: false };
        let course = stage.play(scenario, &wanted, engine);
        let mut events = std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
        events.iter_mut().for_each(unanswered);
        let sites: HashMap<&str, &Site> = course.sites.iter().map(|site| (&*site.id, site)).collect();
        let deeds = events.iter().filter_map(|event| deed(event, &sites)).collect();
        let guards = events.iter().filter_map(guard).collect();
        Self { course, events, deeds, guards }
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
        for site in &self.course.sites {
            for fault in &site.faults {
                let Fault::Breach(id) = fault else { continue };
                let Some(guard) = new.get(&**id) else { continue };
                let at = *guards.entry(&guard.id).or_insert_with(|| {
                    points.push(guard.point());
                    points.len() - 1
                });
                points[at].ways.push((site.id.clone(), fault.clone()));
            }
            if site.open && !common.contains(&*site.id) {
                points.extend(point(site));
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
        let (at, fault) = scenario.faults.last().cloned().unwrap_or((String::new(), Fault::Killed));
        let does: Vec<&Done> = besides(&self.deeds, &from.deeds, &at);
        let new: HashSet<&str> = does.iter().map(|deed| &*deed.id).collect();
        let common = self.deeds.iter().map(|deed| &*deed.id).filter(|id| !new.contains(id)).collect();
        let points = self.points_besides(&common, &from.guards_by_what());
        let forward: HashSet<&str> =
            self.deeds.iter().map(|deed| &*deed.id).filter(|id| !id.starts_with(ROLLBACK)).collect();
        let undoes = |deed: &Done| deed.id.strip_prefix(ROLLBACK).is_some_and(|id| forward.contains(id));
        let undone = |deed: &&Done| {
            undoes(deed)
                && matches!(result(deed), Some(EffectResult::Changed { .. } | EffectResult::Performed { .. }))
        };
        let end = judge::end(&self.course);
        let error = self.course.error.as_ref();
        // What was decided says why, unless the script found words of its own.
        let own = error.filter(|error| {
            let decided = scenario.faults.iter().any(|(id, _)| error.effect.as_ref() == Some(id));
            let breached = matches!(fault, Fault::Breach(_)) && error.is(codes::GUARD_BREACHED);
            error.is(codes::LIMIT) || !decided && !breached
        });
        let skips = match end {
            End::Succeeded => besides(&from.deeds, &self.deeds, &at),
            _ => Vec::new(),
        };
        Turn {
            answer: match &fault {
                Fault::Breach(_) => fault.name().to_owned(),
                other => other.to_string(),
            },
            scenario: scenario.clone(),
            end,
            ended_by: own.map(|error| error.code.as_str().to_owned()),
            why: own.map(|error| error.message.clone()),
            does: does.into_iter().filter(|deed| !undoes(deed)).cloned().collect(),
            skips: skips.into_iter().cloned().collect(),
            undone: self.deeds.iter().filter(undone).cloned().collect(),
            left: self.course.left.clone(),
            points,
            elapsed_ms: millis(self.course.elapsed),
        }
    }
}

impl Turn {
    /// Whether it leads to the same course as another answer to the same question. How far the run has come by the time that a
    /// guard is breached makes no difference: all the more is undone.
    pub(super) fn is_like(&self, other: &Self, asks: Asks) -> bool {
        let same = |a: &[Done], b: &[Done]| a.iter().map(course_key).eq(b.iter().map(course_key));
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
            effect: "guard".to_owned(),
            what: self.watching.clone(),
            ways: Vec::new(),
        }
    }
}

/// What is decided at an effect whose answer nobody knows.
fn point(site: &Site) -> Option<Point> {
    let decides = |fault: &&Fault| match fault {
        Fault::Verdict(_) | Fault::Denied | Fault::NoAnswer => true,
        Fault::TimesOut => site.kind == Kind::Wait,
        // What breaks is for rehearsals; a guard decides for itself.
        Fault::Unreachable
        | Fault::Refused
        | Fault::LostAnswer
        | Fault::NeverSettles
        | Fault::Killed
        | Fault::Breach(_) => false,
    };
    let ways: Vec<_> =
        site.faults.iter().filter(decides).map(|fault| (site.id.clone(), fault.clone())).collect();
    let asks = match site.kind {
        Kind::Wait if site.faults.contains(&Fault::Denied) => Asks::Question,
        Kind::Wait => Asks::Gate,
        Kind::Read | Kind::Change | Kind::Action => Asks::Check,
    };
    (!ways.is_empty()).then(|| Point {
        id: site.id.clone(),
        asks,
        effect: site.effect.to_owned(),
        what: site.what.clone(),
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

fn deed(envelope: &Envelope, sites: &HashMap<&str, &Site>) -> Option<Done> {
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
    let judged = |site: &&Site| site.faults.iter().any(|fault| matches!(fault, Fault::Verdict(_)));
    let failed = matches!(result, EffectResult::Failed { .. });
    let guessed = *kind == Kind::Read && matches!(grade, Grade::Assumed | Grade::Stale) && !failed;
    Some(Done {
        id: id.clone(),
        kind: *kind,
        effect: effect.clone(),
        what,
        text,
        failed,
        value_assumed: guessed && !sites.get(&**id).is_some_and(judged),
        event: envelope.clone(),
    })
}

fn result(deed: &Done) -> Option<&EffectResult> {
    match &deed.event.event {
        Event::EffectEnded { result, .. } => Some(result),
        _ => None,
    }
}

/// What a deed is, wherever in its step it stands and wherever its target comes from: an effect more or less before it moves it,
/// and leaves it what it is.
fn key(deed: &Done) -> (&str, &str, &str, &str) {
    let scope = deed.id.rsplit_once('/').map_or("", |(scope, _)| scope);
    let came_to = match result(deed) {
        Some(EffectResult::Changed { to_text: state, .. } | EffectResult::Unchanged { text: state, .. }) => {
            state
        }
        _ => &deed.text,
    };
    (scope, &deed.effect, &deed.what, came_to)
}

/// What a deed is on a course: words in a message may tell the one answer from the other, and change nothing.
fn course_key(deed: &Done) -> (&str, &str) {
    (&deed.id, if deed.kind == Kind::Change { &deed.text } else { "" })
}

/// The deeds that others do not have. The one in which both differ in the first place counts for neither.
fn besides<'d>(deeds: &'d [Done], others: &[Done], but: &str) -> Vec<&'d Done> {
    let mut there: HashMap<(&str, &str, &str, &str), usize> = HashMap::new();
    let others = others.iter().filter(|deed| deed.id != but);
    others.for_each(|deed| *there.entry(key(deed)).or_default() += 1);
    let mut new = Vec::new();
    for deed in deeds.iter().filter(|deed| deed.id != but) {
        match there.get_mut(&key(deed)) {
            Some(times) if *times > 0 => *times -= 1,
            _ => new.push(deed),
        }
    }
    new
}
