//! What a run from a plan may do, and how two plans of the same thing differ.

use std::collections::BTreeMap;

use contraflow_provider::effect_id::EffectId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Foreseen, PlannedChange, SavedPlan};
use crate::{
    error::{NextStep, RunError, codes},
    target::Target,
};

/// What a run may do without asking. Kept with the run, so that it holds for whoever goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Binding {
    /// Hash of the plan.
    pub(crate) plan: String,
    changes: BTreeMap<EffectId, Move>,
    actions: BTreeMap<EffectId, BoundAction>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Move {
    effect: String,
    target: Target,
    from: Value,
    to: Value,
    fingerprint: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BoundAction {
    effect: String,
    binds: String,
}

impl Binding {
    pub(crate) fn of(plan: &SavedPlan) -> Self {
        let Foreseen { changes, actions, .. } = &plan.foreseen;
        let moves = changes.iter().map(|change| {
            let PlannedChange { id, effect, target, from, to, fingerprint, .. } = change.clone();
            (id, Move { effect, target, from, to, fingerprint })
        });
        let bound_actions = actions.iter().map(|action| {
            (action.id.clone(), BoundAction { effect: action.effect.clone(), binds: action.binds.clone() })
        });
        Self { plan: plan.id.clone(), changes: moves.collect(), actions: bound_actions.collect() }
    }

    /// Whether the plan has that move.
    pub(crate) fn has_move(
        &self,
        id: &str,
        effect: &str,
        fingerprint: &str,
        target: &Target,
        (from, to): (&Value, &Value),
    ) -> bool {
        self.changes.get(id).is_some_and(|planned| {
            planned.effect == effect
                && planned.fingerprint == fingerprint
                && planned.target == *target
                && planned.from == *from
                && planned.to == *to
        })
    }

    /// Whether the plan has that action.
    pub(crate) fn has_action(&self, id: &str, effect: &str, binds: &str) -> bool {
        self.actions.get(id).is_some_and(|planned| planned.effect == effect && planned.binds == binds)
    }
}

/// One thing that is not what it was when a plan was made.
struct Difference {
    id: EffectId,
    what: String,
    planned: String,
    now: String,
}

/// Whether what was planned is what would be done now. A change that is at its end already is fine.
///
/// # Errors
/// `saved-plan`, with both sides of all that differs.
pub(crate) fn compare(planned: &Foreseen, now: &Foreseen) -> Result<(), RunError> {
    let mut found = Vec::new();
    let by_id = |foreseen: &Foreseen| -> BTreeMap<EffectId, PlannedChange> {
        foreseen.changes.iter().map(|change| (change.id.clone(), change.clone())).collect()
    };
    let (before, after) = (by_id(planned), by_id(now));
    for change in &planned.changes {
        found.extend(moved(change, after.get(&change.id)));
    }
    for change in now.changes.iter().filter(|change| change.moves() && !before.contains_key(&change.id)) {
        found.push(Difference {
            id: change.id.clone(),
            what: change.target.to_string(),
            planned: "nothing".to_owned(),
            now: whole(change),
        });
    }
    for action in &planned.actions {
        match now.actions.iter().find(|other| other.id == action.id && other.effect == action.effect) {
            Some(other) if other.binds == action.binds => {}
            other => found.push(Difference {
                id: action.id.clone(),
                what: action.effect.clone(),
                planned: action.text.clone(),
                now: other.map_or_else(|| "nothing".to_owned(), |other| other.text.clone()),
            }),
        }
    }
    for action in &now.actions {
        if !planned.actions.iter().any(|other| other.id == action.id && other.effect == action.effect) {
            found.push(Difference {
                id: action.id.clone(),
                what: action.effect.clone(),
                planned: "nothing".to_owned(),
                now: action.text.clone(),
            });
        }
    }
    if found.is_empty() { Ok(()) } else { Err(refusal(&found)) }
}

fn whole(change: &PlannedChange) -> String {
    format!("{} -> {}", change.from_text, change.to_text)
}

/// How a planned change differs from the one that would be made now.
fn moved(planned: &PlannedChange, now: Option<&PlannedChange>) -> Option<Difference> {
    let differs = |before: String, after: String| {
        let (id, what) = (planned.id.clone(), planned.target.to_string());
        Some(Difference { id, what, planned: before, now: after })
    };
    let Some(now) = now else {
        // What would have changed nothing is not missed.
        return if planned.moves() { differs(whole(planned), "nothing".to_owned()) } else { None };
    };
    if now.effect != planned.effect || now.target != planned.target {
        return differs(whole(planned), format!("{} {}: {}", now.effect, now.target, whole(now)));
    }
    let is_there = !now.moves() && now.to == planned.to;
    if is_there {
        return None;
    }
    if now.from == planned.from && now.to == planned.to {
        let other = || differs(whole(planned), "the same states, but with a different input".to_owned());
        return if now.fingerprint == planned.fingerprint { None } else { other() };
    }
    if now.from == planned.from {
        return differs(whole(planned), whole(now));
    }
    differs(planned.from_text.clone(), now.from_text.clone())
}

/// Both sides of each, in columns.
fn refusal(found: &[Difference]) -> RunError {
    const MOST: usize = 12;
    let width = |column: fn(&Difference) -> &str| {
        found.iter().take(MOST).map(|one| column(one).chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(|one| &one.what), width(|one| &one.planned));
    let lines = found
        .iter()
        .take(MOST)
        .map(|one| format!("{:first$}  planned: {:second$}   now: {}", one.what, one.planned, one.now));
    let n = found.len();
    let what = if n == 1 {
        "one thing has changed since it".to_owned()
    } else {
        format!("{n} things have changed since it")
    };
    let mut error = RunError::new(
        codes::SAVED_PLAN,
        format!("the plan no longer holds: {what} was made; nothing was changed"),
    );
    error.hints = lines.collect();
    if n > MOST {
        error.hints.push(format!("and {} more", n - MOST));
    }
    let sides = found
        .iter()
        .map(|one| json!({ "id": one.id, "what": one.what, "planned": one.planned, "now": one.now }));
    error.detail = Some(json!({ "moved": sides.collect::<Vec<_>>() }));
    error.next_step(NextStep::MakePlan)
}
