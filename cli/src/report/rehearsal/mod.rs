//! What a rehearsal found: for people, for browsers, for CI systems and for programs.
//!
//! **Invariant:** none of them shows how long the rehearsal itself took: the same findings are the same bytes.

mod deaths;
mod doc;
mod html;
pub(crate) mod human;
mod junit;
mod matrix;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::HashMap;

use contraflow_runtime::{
    effect::EffectId,
    event::Envelope,
    rehearsal::{End, Findings, Scenario, Tried, Violation},
};

pub(crate) use self::{
    doc::{json, one_json},
    html::html,
    junit::junit,
    timeline::Recorder,
};

use super::theme::{Tone, symbol};

/// What was rehearsed.
#[derive(Debug, Clone)]
pub(crate) struct Rehearsed {
    /// Name of the runbook.
    pub(crate) runbook: String,
    /// Its version.
    pub(crate) version: String,
    /// Environment.
    pub(crate) environment: String,
    /// The scenario file, if there was one.
    pub(crate) scenario: Option<String>,
    /// Whether the rest was looked at.
    pub(crate) looked: bool,
    /// The command that plays one scenario, without its name.
    pub(crate) command: String,
}

/// Violations that say the same.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// What must hold.
    pub(crate) invariant: String,
    /// The effect after which it did not.
    pub(crate) after: Option<EffectId>,
    /// What was the case instead, in the shortest scenario.
    pub(crate) why: String,
    /// The shortest scenario that shows it.
    pub(crate) scenario: Scenario,
    /// How many others do.
    pub(crate) others: usize,
    /// How that scenario goes.
    pub(crate) events: Vec<Envelope>,
}

impl Group {
    /// The violations of all scenarios, each kind once, in the order of exploration.
    pub(crate) fn all(findings: &Findings) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for tried in findings.violated() {
            for violation in &tried.violations {
                let scenario = &tried.scenario;
                let same = |group: &&mut Self| {
                    group.invariant == violation.invariant && group.after == violation.after
                };
                match groups.iter_mut().find(same) {
                    Some(group) => {
                        group.others += 1;
                        if size(scenario) < size(&group.scenario) {
                            group.scenario = scenario.clone();
                            group.why.clone_from(&violation.why);
                        }
                    }
                    None => groups.push(Self {
                        invariant: violation.invariant.clone(),
                        after: violation.after.clone(),
                        why: violation.why.clone(),
                        scenario: scenario.clone(),
                        others: 0,
                        events: Vec::new(),
                    }),
                }
            }
        }
        groups
    }

    /// What was the case instead, and after what.
    pub(crate) fn told(&self) -> String {
        match (&self.after, &*self.why) {
            (Some(after), "") => format!("after {after}"),
            (Some(after), why) => format!("{why}, after {after}"),
            (None, "") => "violated".to_owned(),
            (None, why) => why.to_owned(),
        }
    }
}

/// How much goes wrong in a scenario: the fewer, the easier to understand.
fn size(scenario: &Scenario) -> (usize, usize) {
    let faults =
        scenario.faults.len() + usize::from(scenario.crash.is_some()) + usize::from(scenario.backwards);
    (faults, scenario.to_string().len())
}

/// A sign that says how something ended, its tone, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) sign: &'static str,
    pub(crate) tone: Tone,
    pub(crate) meaning: &'static str,
    /// The name of its colour in a browser.
    pub(crate) class: &'static str,
}

impl Mark {
    const VIOLATION: Self = Self {
        sign: symbol::FAIL,
        tone: Tone::Bad,
        meaning: "VIOLATION: an invariant does not hold",
        class: "violation",
    };
    const NOT_TRIED: Self = Self { sign: "_", tone: Tone::Warn, meaning: "not tried", class: "untried" };
    const CANNOT: Self = Self { sign: symbol::LOG, tone: Tone::Dim, meaning: "not possible", class: "" };

    pub(crate) fn of_end(end: End) -> Self {
        let (sign, tone, meaning, class) = match end {
            End::Succeeded => (symbol::PASS, Tone::Good, "succeeded", "good"),
            End::RolledBack => (symbol::UNDO, Tone::Active, "rolled back", "back"),
            End::Failed => ("–", Tone::Plain, "failed with nothing to undo", "failed"),
            End::RollbackIncomplete => {
                (symbol::WARN, Tone::Warn, "needs a person: rollback incomplete", "person")
            }
            End::Paused => ("‖", Tone::Warn, "paused", "paused"),
            End::Aborted => ("×", Tone::Warn, "aborted", "paused"),
            End::Waits => (symbol::WAIT, Tone::Warn, "waits for a person", "waits"),
            End::Unknown => (symbol::ASK, Tone::Warn, "a value is missing", "unknown"),
        };
        Self { sign, tone, meaning, class }
    }

    /// The mark of a scenario.
    pub(crate) fn of(tried: &Tried) -> Self {
        if tried.violations.is_empty() { Self::of_end(tried.end) } else { Self::VIOLATION }
    }

    /// All of them, in the order of a legend.
    fn all() -> impl Iterator<Item = Self> {
        let ends = [
            End::Succeeded,
            End::RolledBack,
            End::Failed,
            End::RollbackIncomplete,
            End::Waits,
            End::Paused,
            End::Aborted,
            End::Unknown,
        ];
        ends.into_iter().map(Self::of_end).chain([Self::VIOLATION, Self::NOT_TRIED, Self::CANNOT])
    }
}

/// What was tried, by name: what does not hold without a fault either is not its doing.
struct Known<'f> {
    planned: Option<&'f Tried>,
    all: HashMap<&'f Scenario, &'f Tried>,
}

impl<'f> Known<'f> {
    fn of(findings: &'f Findings) -> Self {
        let all = findings.tried.iter().map(|tried| (&tried.scenario, tried)).collect();
        Self { planned: planned(findings), all }
    }

    /// The violations that what goes wrong last brings about.
    fn new_in<'t>(&self, tried: &'t Tried) -> impl Iterator<Item = &'t Violation> {
        let before = without_last(&tried.scenario).and_then(|scenario| self.all.get(&scenario).copied());
        let others =
            [self.planned, before].into_iter().flatten().filter(|other| other.scenario != tried.scenario);
        let known: Vec<&str> =
            others.flat_map(|other| &other.violations).map(|violation| &*violation.invariant).collect();
        tried.violations.iter().filter(move |violation| !known.contains(&&*violation.invariant))
    }

    fn is_new_in(&self, tried: &Tried) -> bool {
        self.new_in(tried).next().is_some()
    }

    /// The mark of what goes wrong last in a scenario.
    fn mark(&self, tried: &Tried) -> Mark {
        if self.is_new_in(tried) { Mark::VIOLATION } else { Mark::of_end(tried.end) }
    }
}

/// The scenario without what goes wrong last in it.
fn without_last(scenario: &Scenario) -> Option<Scenario> {
    let mut before = scenario.clone();
    if before.crash.take().is_none() && !std::mem::take(&mut before.backwards) {
        before.faults.pop()?;
    }
    Some(before)
}

/// The run as planned, which is played first.
fn planned(findings: &Findings) -> Option<&Tried> {
    findings.tried.first().filter(|tried| tried.scenario.is_as_planned())
}

/// How many scenarios ended in each way: `12 succeeded, 3 rolled back`.
fn counted(findings: &Findings) -> String {
    let mut told: Vec<String> = Vec::new();
    for (end, one, more) in [
        (End::Succeeded, "succeeded", "succeeded"),
        (End::RolledBack, "rolled back", "rolled back"),
        (End::Failed, "failed with nothing to undo", "failed with nothing to undo"),
        (End::RollbackIncomplete, "needs a person", "need a person"),
        (End::Waits, "waits for a person", "wait for a person"),
        (End::Paused, "paused", "paused"),
        (End::Aborted, "aborted", "aborted"),
        (End::Unknown, "unknown", "unknown"),
    ] {
        match findings.tried.iter().filter(|tried| tried.end == end).count() {
            0 => {}
            1 => told.push(format!("1 {one}")),
            n => told.push(format!("{n} {more}")),
        }
    }
    told.join(", ")
}

/// Missing values, each once, with the first scenario that needs it and how many others do.
fn unknown(findings: &Findings) -> Vec<(&str, &Tried, usize)> {
    let mut found: Vec<(&str, &Tried, usize)> = Vec::new();
    for tried in findings.tried.iter().filter(|tried| tried.end == End::Unknown) {
        let why = tried.why.as_deref().unwrap_or_default();
        match found.iter_mut().find(|(known, ..)| *known == why) {
            Some((.., others)) => *others += 1,
            None => found.push((why, tried, 0)),
        }
    }
    found
}
