//! How decisions and where they lead are put in words.

use contraflow_runtime::{
    event::{EffectResult, Event, Kind, WaitsFor},
    rehearsal::{Asks, Branch, Decision, End, Fault, PathEffect},
};

use crate::report::{effect, format::count};

/// Most things of a list that are named.
const NAMED: usize = 3;

/// When a run takes a branch: `it fails, is inconclusive or has no data`.
pub(super) fn condition(decision: &Decision, branch: &Branch) -> String {
    if decision.asks == Asks::Guard {
        return breached(decision, branch);
    }
    let all = decision.branches.len() == 1 && decision.not_played == 0 && branch.answers.len() > 1;
    if all && decision.asks != Asks::Question {
        return "it does not pass".to_owned();
    }
    let mut told: Vec<String> = Vec::new();
    for answer in &branch.answers {
        let predicate = match answer {
            Fault::NoAnswer => {
                told.push("nobody answers".to_owned());
                continue;
            }
            Fault::Denied => "is denied".to_owned(),
            Fault::TimesOut => "does not pass in time".to_owned(),
            Fault::Verdict(name) => name.predicate(),
            other => format!("is {other}"),
        };
        told.push(if told.is_empty() { format!("it {predicate}") } else { predicate });
    }
    listed(&told, "or")
}

fn breached(decision: &Decision, branch: &Branch) -> String {
    let places: Vec<&str> =
        branch.scenarios.iter().filter_map(|s| s.faults.last().map(|(id, _)| &**id)).collect();
    if decision.branches.len() > 1 {
        let named = named(places.into_iter().map(str::to_owned).collect(), "or");
        return format!("it is breached at {named}");
    }
    match places.len() {
        1 => "it is breached".to_owned(),
        n => format!("it is breached, at any of {}", count(n, "effect")),
    }
}

/// Where a branch leads, at a glance.
pub(super) fn outcome(branch: &Branch) -> String {
    let why = branch.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match branch.end {
        End::Succeeded => succeeds(branch),
        End::RolledBack => format!("rolled back{why}{}", undone(branch, "; ")),
        End::Failed => format!("fails, with nothing to undo{why}"),
        End::RollbackIncomplete => {
            format!("needs a person: {} left{}", branch.left.len(), undone(branch, ", "))
        }
        End::Waits if branch.undone.is_empty() => "waits for a person forever".to_owned(),
        End::Waits => format!("waits for a person forever{}", undone(branch, "; ")),
        End::Paused => format!("pauses{why}"),
        End::Aborted => format!("is aborted{why}"),
        End::Unknown => format!("unknown from there{why}"),
    }
}

/// Whether an answer that is not as assumed changes nothing, though it may take longer: nobody might have asked.
pub(super) fn is_in_vain(branch: &Branch) -> bool {
    let looks = |done: &PathEffect| match &done.event.event {
        Event::EffectEnded { waits_for, .. } if done.kind == Kind::Wait => {
            *waits_for != Some(WaitsFor::People)
        }
        _ => done.kind == Kind::Read,
    };
    branch.end == End::Succeeded
        && branch.does.iter().all(looks)
        && branch.skips.iter().all(|done| done.kind == Kind::Read)
}

fn succeeds(branch: &Branch) -> String {
    if is_in_vain(branch) {
        return "succeeds: it makes no difference".to_owned();
    }
    let without: Vec<String> =
        branch.skips.iter().filter(|done| done.kind != Kind::Read).map(label).collect();
    match without.is_empty() {
        true => "succeeds on another path".to_owned(),
        false => format!("succeeds, without {}", named(times(without), "and")),
    }
}

/// What is undone: `4 undone: traffic.shift web (3 times), db.migrate main`.
fn undone(branch: &Branch, before: &str) -> String {
    let most = branch.undone.len();
    let names = named(times(branch.undone.iter().map(label).collect()), "and");
    match branch.undone_fewest {
        Some(fewest) => format!("{before}{fewest} to {most} undone: {names}"),
        None if most == 0 => String::new(),
        None => format!("{before}{most} undone: {names}"),
    }
}

/// Name of an effect and what it is about.
pub(super) fn label(done: &PathEffect) -> String {
    let Event::EffectEnded { effect, target, about, result, .. } = &done.event.event else {
        return done.effect.clone();
    };
    match result {
        EffectResult::Performed { text } if about.is_empty() => format!("{effect} {text}"),
        _ => effect::label(effect, target.as_ref(), about),
    }
}

/// Each once, with how often it was there.
fn times(names: Vec<String>) -> Vec<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for name in names {
        match counted.iter_mut().find(|(known, _)| *known == name) {
            Some((_, n)) => *n += 1,
            None => counted.push((name, 1)),
        }
    }
    let told = |(name, n)| if n == 1 { name } else { format!("{name} ({n} times)") };
    counted.into_iter().map(told).collect()
}

/// The first few of them.
fn named(mut names: Vec<String>, and: &str) -> String {
    let more = names.len().saturating_sub(NAMED);
    if more > 0 {
        names.truncate(NAMED);
        names.push(format!("{more} more"));
    }
    listed(&names, and)
}

/// `a, b and c`.
fn listed(parts: &[String], and: &str) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} {and} {last}", first.join(", ")),
    }
}
