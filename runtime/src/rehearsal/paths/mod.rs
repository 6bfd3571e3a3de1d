//! Every path of a plan: what the run does where an answer that nobody knows beforehand is not the one that is assumed.
//!
//! The trials are those of a rehearsal. What differs is what is tried: not what can break, but what can be answered.
//!
//! **Invariant:** as in a plan, what was looked at for real before anything was changed is known and has no other path,
//! and no branch
//! is taken on a value that nobody knows.

mod explore;
mod way;

use std::sync::Arc;

use contraflow_provider::effect_id::EffectId;
use serde::Serialize;

pub(crate) use self::explore::Pathfinder;
use super::{
    explorer::{End, Progress},
    scenario::{Fault, Scenario},
};
use crate::event::{Envelope, Kind, LeftOver};

/// How far paths are explored.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Most ways that are played, besides the one on which all is as assumed.
    pub paths: usize,
    /// How far it is, for whoever watches.
    pub progress: Arc<Progress>,
}

/// Where a run can lead.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Paths {
    /// What it does if all is as assumed.
    pub trunk: Vec<PathEffect>,
    /// How it ends then.
    pub end: End,
    /// Why, unless it succeeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What is decided on the way.
    pub decisions: Vec<Decision>,
    /// Ways that were played, besides the trunk.
    pub played: usize,
    /// Ways that are known and were not played: the bound was reached, or somebody ended it.
    pub not_played: usize,
    /// Ways that are known and stand behind as many other decisions as are followed.
    pub too_deep: usize,
    /// How the trunk goes.
    #[serde(skip)]
    pub events: Vec<Envelope>,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Asks {
    /// A check whose answer depends on what the run changes before.
    Check,
    /// A gate that is looked at while time passes.
    Gate,
    /// A person.
    Question,
    /// A guard, at any time while it watches.
    Guard,
}

/// Something whose answer a plan does not know.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// Id of the effect or guard.
    pub id: EffectId,
    /// What decides.
    pub asks: Asks,
    /// Name of the effect, such as `metrics.hold`; `guard`.
    pub effect: String,
    /// What it is about.
    pub what: String,
    /// Where the other answers lead. Those that lead to the same trial are one.
    pub branches: Vec<Branch>,
    /// Other answers that were not played.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_played: usize,
}

/// One trial that the run takes if a decision goes another way, and everything else is as assumed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Branch {
    /// The answers that lead there: `fails`, `no-data`, `times-out`, `denied`, `no-answer`, `breach`.
    pub answers: Vec<Fault>,
    /// Each of them as a scenario that `contraflow rehearse --only` plays.
    pub scenarios: Vec<Scenario>,
    /// How the run ends.
    pub end: End,
    /// Why, where the decision itself does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it does that it would not have done otherwise, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub does: Vec<PathEffect>,
    /// If it succeeds: what it does not do that it would have done otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skips: Vec<PathEffect>,
    /// What is undone, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<PathEffect>,
    /// The fewest that are undone, where that depends on when a guard is breached; `undone` is the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_fewest: Option<usize>,
    /// What a person has to undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftOver>,
    /// What is decided there and nowhere before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<Decision>,
    /// Ways behind decisions there that were not followed: too deep.
    #[serde(skip_serializing_if = "is_zero")]
    pub too_deep: usize,
    /// Simulated time until it ends.
    pub elapsed_ms: u64,
}

/// An effect and what it comes to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PathEffect {
    /// Its id.
    pub id: EffectId,
    /// Its kind.
    pub kind: Kind,
    /// Its name, such as `traffic.shift`.
    pub effect: String,
    /// What it is about.
    pub what: String,
    /// What it comes to, for people. May be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whether it fails.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// Whether it answers a value that is taken for granted: what the script would do with another is not explored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub value_assumed: bool,
    /// How it ended.
    #[serde(skip)]
    pub event: Envelope,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Paths {
    /// All branches, each before those that hang on it.
    pub fn branches(&self) -> Vec<&Branch> {
        let mut all = Vec::new();
        collect(&self.decisions, &mut all);
        all
    }
}

impl Branch {
    /// Whether an effect on it decides how it goes on.
    pub fn decides_at(&self, effect: &PathEffect) -> bool {
        self.decisions.iter().any(|decision| decision.id == effect.id)
    }
}

fn collect<'p>(decisions: &'p [Decision], all: &mut Vec<&'p Branch>) {
    for branch in decisions.iter().flat_map(|decision| &decision.branches) {
        all.push(branch);
        collect(&branch.decisions, all);
    }
}
