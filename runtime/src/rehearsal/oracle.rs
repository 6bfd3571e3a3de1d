//! What must hold at the end of every rehearsed run.

use std::collections::BTreeMap;

use contraflow_provider::effect_id::EffectId;

use super::{
    explorer::{End, Tried, millis},
    invariant::Violation,
    scenario::{Fault, Scenario},
    trial::Trial,
};
use crate::{
    error::codes,
    event::{Kind, RunOutcome},
};

/// How a trial ended.
pub(super) fn end(trial: &Trial) -> End {
    match trial.outcome {
        _ if trial.is_unknown() => End::Unknown,
        None => End::Waits,
        Some(RunOutcome::Succeeded) => End::Succeeded,
        Some(RunOutcome::Failed) => End::Failed,
        Some(RunOutcome::RolledBack) => End::RolledBack,
        Some(RunOutcome::RollbackIncomplete) => End::RollbackIncomplete,
        Some(RunOutcome::Paused) => End::Paused,
        Some(RunOutcome::Aborted) => End::Aborted,
    }
}

/// What became of a scenario. `happy`: how it goes if nothing goes wrong; `alive`: how the scenario goes if nobody dies in it.
pub(crate) fn tried(scenario: Scenario, trial: &Trial, happy: &Trial, alive: Option<&Trial>) -> Tried {
    Tried {
        end: end(trial),
        why: trial.error.as_ref().map(|error| error.message.clone()),
        hints: trial.error.as_ref().map(|error| error.hints.clone()).unwrap_or_default(),
        next: trial.error.as_ref().map(|error| error.next.clone()).unwrap_or_default(),
        left: trial.left.iter().map(|left| left.what.clone()).collect(),
        elapsed_ms: millis(trial.elapsed),
        struck: trial.struck,
        violations: violations(&scenario, trial, happy, alive),
        scenario,
    }
}

/// Everything that did not hold.
pub(super) fn violations(
    scenario: &Scenario,
    trial: &Trial,
    happy: &Trial,
    alive: Option<&Trial>,
) -> Vec<Violation> {
    let mut violations = trial.violations.clone();
    let mut add = |invariant: &str, after: Option<EffectId>, why: String| {
        violations.push(Violation { invariant: invariant.to_owned(), after, why });
    };
    let ended = end(trial);
    let why = || trial.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
    if scenario.is_as_planned() {
        if ended != End::Succeeded && ended != End::Unknown {
            let at = trial.error.as_ref().and_then(|error| error.effect.clone());
            add("succeeds when nothing goes wrong", at, why());
        }
        for (par, key, branches) in races(trial) {
            let text =
                format!("branches {branches} of {par} change {key}: the result depends on which is later");
            add("parallel branches change different targets", None, text);
        }
    }
    if matches!(ended, End::RolledBack | End::Failed) {
        for (key, first) in &trial.first {
            let now = trial.end.get(key);
            if now != Some(first) {
                let now = now.map(ToString::to_string).unwrap_or_default();
                let last = trial.moves.iter().rev().find(|(_, moved)| moved == key).map(|(id, _)| id.clone());
                add("a rollback restores every target", last, format!("{key} was {first} and is {now}"));
            }
        }
    }
    let internal = trial.error.as_ref().is_some_and(|error| error.is(codes::INTERNAL));
    if matches!(ended, End::Paused | End::Aborted) || internal {
        add("ends or can be resumed", trial.error.as_ref().and_then(|e| e.effect.clone()), why());
    }
    let silent = scenario.faults.iter().any(|(_, fault)| *fault == Fault::NoAnswer);
    let limit = trial.error.as_ref().is_some_and(|error| error.is(codes::LIMIT));
    if (ended == End::Waits || silent && limit) && !trial.moves.is_empty() {
        let at = scenario.faults.last().map(|(id, _)| id.clone());
        add(
            "every question has a deadline",
            at,
            "nobody answers, the run stays partially applied, and no timeout ends the wait".to_owned(),
        );
    }
    if ended == End::RollbackIncomplete
        && !scenario.disturbs_rollback()
        && let Some(left) = trial.left.first()
    {
        let (one_way, declared) = (trial.one_way.contains(&left.id), trial.no_return.contains(&left.id));
        let no = scenario.faults.iter().find(|(_, fault)| is_no(fault));
        match no {
            _ if !one_way && !declared => {
                add("can be rolled back", Some(left.id.clone()), format!("{}: {}", left.what, left.why));
            }
            // Whoever declares a point of no return knows that what comes behind it cannot be undone; to ask there is in vain.
            Some((id, fault)) if one_way || *fault == Fault::Denied => {
                let text = format!("{}, too late: {} cannot be undone", fault.describe(), left.what);
                add("asks before the point of no return", Some(id.clone()), text);
            }
            _ => {}
        }
    }
    let raced = scenario.backwards && !races(happy).is_empty();
    let alive = if scenario.only_dies() { Some(happy) } else { alive };
    if let Some(alive) = alive
        && !scenario.is_as_planned()
        && !raced
    {
        let name = match scenario.backwards {
            true => "same outcome in any branch order",
            false => "same outcome after a crash",
        };
        if ended != end(alive) && !ended_unknown(ended, alive) {
            add(name, None, format!("{ended:?} instead of {:?}: {}", end(alive), why()));
        } else if trial.end != alive.end {
            let key = alive.end.iter().find(|(key, state)| trial.end.get(*key) != Some(state));
            let text = key.map_or_else(String::new, |(key, state)| {
                let is = trial.end.get(key).map(ToString::to_string).unwrap_or_default();
                format!("{key} is {is} instead of {state}")
            });
            add(name, None, text);
        }
    }
    if scenario.dies() {
        let mut counts: BTreeMap<&(EffectId, String), usize> = BTreeMap::new();
        trial.moves.iter().for_each(|moved| *counts.entry(moved).or_default() += 1);
        if let Some(((id, key), times)) = counts.iter().find(|(_, times)| **times > 1) {
            add("applies each change once", Some(id.clone()), format!("{key} was changed {times} times"));
        }
    }
    if ended == End::Succeeded && trial.struck && !scenario.disturbs_rollback() {
        // All that would have been done is done; there may be more, such as further tries.
        let unimpressed = goes_the_same_way(happy, trial);
        for (id, fault) in scenario.faults.iter().filter(|_| unimpressed) {
            let kind = trial.fault_points.iter().find(|point| point.id == *id).map(|point| point.kind);
            let text = || format!("{}, but the run continues as if nothing had happened", fault.describe());
            if is_no(fault) && trial.end == happy.end {
                add("acts on failed checks", Some(id.clone()), text());
            } else if kind == Some(Kind::Change) && !matches!(fault, Fault::Killed | Fault::LostAnswer) {
                add("acts on failed changes", Some(id.clone()), text());
            }
        }
    }
    violations
}

fn ended_unknown(ended: End, happy: &Trial) -> bool {
    ended == End::Unknown || end(happy) == End::Unknown
}

/// Whether it is an answer that should make a difference.
fn is_no(fault: &Fault) -> bool {
    matches!(fault, Fault::Verdict(_) | Fault::Denied | Fault::Breach(_))
}

/// Whether a trial comes to all effects of another, in that order. Their ids may differ: a note in between shifts them.
fn goes_the_same_way(other: &Trial, trial: &Trial) -> bool {
    let mut theirs = trial.fault_points.iter().filter(|point| !point.id.is_rollback());
    other
        .fault_points
        .iter()
        .all(|point| theirs.any(|one| one.effect == point.effect && one.what == point.what))
}

/// Targets that several branches of one `parallel` change.
fn races(trial: &Trial) -> Vec<(String, String, String)> {
    let mut changed: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (id, key) in &trial.moves {
        for (parallel, branch) in id.branches() {
            let branches = changed.entry((parallel, key)).or_default();
            if !branches.contains(&branch) {
                branches.push(branch);
            }
        }
    }
    let several = changed.into_iter().filter(|(_, branches)| branches.len() > 1);
    several
        .map(|((par, key), branches)| {
            let branches: Vec<String> = branches.iter().map(ToString::to_string).collect();
            (par.to_owned(), key.to_owned(), branches.join(" and "))
        })
        .collect()
}
