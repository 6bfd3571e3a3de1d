//! Saved plans: what a plan foresaw, kept in a file, so that exactly this is run later.
//!
//! **Invariant:** a plan is known by the hash of all that it says. What is approved, used up and run is that hash; a plan with
//! another word in it is another plan.

mod binding;
mod course;
mod draft;
mod estimate;

use std::collections::BTreeMap;

use contraflow_provider::{config::reword_text, effect_id::EffectId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

pub use self::course::Course;
pub(crate) use self::{
    binding::{Binding, compare},
    draft::Draft,
    estimate::Earlier,
};
pub use crate::vocabulary::{Basis, Estimate};
use crate::{
    bundle::{Bundle, Given},
    error::{NextStep, RunError, codes},
    quantity::moment,
    target::Target,
    vocabulary::{Grade, Undo},
};

/// Version of the form of a plan. Raised whenever a program that knows only the old form could take the new one for something else.
pub const PLAN_VERSION: u32 = 1;

/// Largest file that is read as a plan.
pub const MAX_PLAN: u64 = 128 << 20;

/// A plan as it is kept. Read back, it is the same or refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPlan {
    /// [`PLAN_VERSION`].
    pub v: u32,
    /// SHA-256 over all the rest, in hexadecimal.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it, as `user@host`.
    pub created_by: String,
    /// From when on it can no longer be run.
    pub expires_at: Timestamp,
    /// Name of the runbook.
    pub runbook: String,
    /// Version of the runbook.
    pub version: String,
    /// Environment that it was made for.
    pub environment: String,
    /// Parameters with defaults filled in.
    pub params: BTreeMap<String, Value>,
    /// What a run would do.
    pub foreseen: Foreseen,
    /// How the plan went, for those who read it.
    #[serde(default, skip_serializing_if = "Course::is_empty")]
    pub course: Course,
    /// Content hash of the scripts.
    pub bundle_hash: String,
    /// The scripts themselves.
    pub bundle: Bundle,
}

/// What a run would do, as far as a plan knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreseen {
    /// Changes, in the order of the plan. Those that change nothing are among them: `from` is `to`.
    pub changes: Vec<PlannedChange>,
    /// Actions, in the order of the plan.
    pub actions: Vec<PlannedAction>,
    /// Questions to people.
    pub questions: Vec<PlannedQuestion>,
    /// Where there is no way back.
    pub no_return: Vec<PlannedNoReturn>,
    /// Targets that are looked at or changed, as `noun/name`. Secrets are among them: `secrets/NAME`.
    pub targets: Vec<Target>,
    /// How long a run takes at least.
    pub at_least_ms: u64,
    /// How much longer it is expected to take until its changes are in effect, as far as [`PlannedChange::estimate`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
}

/// One change of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedChange {
    /// Id of the effect.
    pub id: EffectId,
    /// Its name, `noun.verb`.
    pub effect: String,
    /// What it changes.
    pub target: Target,
    /// State before.
    pub from: Value,
    /// State after.
    pub to: Value,
    /// Fingerprint of all that the script asks for, which may not differ in a run.
    pub fingerprint: String,
    /// `from` for people.
    pub from_text: String,
    /// `to` for people.
    pub to_text: String,
    /// How sure this is.
    pub grade: Grade,
    /// Whether it can be undone.
    pub undo: Undo,
    /// How long it is expected to take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
}

impl PlannedChange {
    /// Whether anything is changed.
    pub fn moves(&self) -> bool {
        self.from != self.to
    }
}

/// One action of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedAction {
    /// Id of the effect.
    pub id: EffectId,
    /// Its name, `noun.verb`.
    pub effect: String,
    /// What it does, for people.
    pub text: String,
    /// What of it may not differ in a run: a fingerprint of all that the script asks for, or where a message goes.
    pub binds: String,
}

/// One question of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedQuestion {
    /// Id of the wait.
    pub id: EffectId,
    /// The question.
    pub text: String,
    /// Who was asked for, in words: roles, and people by name. Empty: anybody.
    pub by: String,
    /// How many different people must say yes.
    pub at_least: u32,
}

/// A place behind which there is no way back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNoReturn {
    /// Id of the effect or the mark.
    pub id: EffectId,
    /// Why.
    pub why: String,
}

impl SavedPlan {
    /// The plan with its hash.
    pub(crate) fn sealed(mut self) -> Self {
        self.id = self.hash();
        self
    }

    /// SHA-256 over all that it says but the hash itself.
    fn hash(&self) -> String {
        let bare = Self { id: String::new(), ..self.clone() };
        // Plain data of this crate's own always encodes; maps are sorted, numbers are read back as they were.
        let text = serde_json::to_string(&bare).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The text of its file.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// `saved-plan`: it is no plan, was made by a newer version, or was altered since it was saved.
    pub fn parse(text: &str) -> Result<Self, RunError> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let refused = |why: String| RunError::new(codes::SAVED_PLAN, why);
        let Version { v } = serde_json::from_str(text)
            .map_err(|e| refused(format!("this is not a saved plan: {}", reword_text(&e.to_string()).0)))?;
        if v != PLAN_VERSION {
            let why =
                format!("the plan has format version {v}, but this program reads version {PLAN_VERSION}");
            return Err(refused(why).hint("make a new plan with this program").next_step(NextStep::MakePlan));
        }
        let plan: Self = serde_json::from_str(text).map_err(|e| {
            refused(format!("the plan cannot be read: {}", reword_text(&e.to_string()).0))
                .next_step(NextStep::MakePlan)
        })?;
        if plan.hash() != plan.id || plan.bundle.hash() != plan.bundle_hash {
            return Err(
                refused("the plan was altered after it was saved".to_owned()).next_step(NextStep::MakePlan)
            );
        }
        if !plan.course.is_empty() && !plan.course.agrees_with(&plan.foreseen) {
            let why = "what the plan shows is not what it would do".to_owned();
            return Err(refused(why).next_step(NextStep::MakePlan));
        }
        Ok(plan)
    }

    /// The parameters as they are given to a run.
    pub(crate) fn given(&self) -> BTreeMap<String, Given> {
        self.params.iter().map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect()
    }

    /// Whether it may be approved or run in that environment at that time.
    ///
    /// # Errors
    /// `saved-plan`: it has expired, or was made for another environment.
    pub fn usable(&self, environment: &str, now: Timestamp) -> Result<(), RunError> {
        if self.environment != environment {
            let why = format!(
                "the plan was made for the environment \"{}\", but this is \"{environment}\"",
                self.environment
            );
            return Err(RunError::new(codes::SAVED_PLAN, why));
        }
        if now >= self.expires_at {
            let why = format!("the plan expired at {}", moment(self.expires_at));
            return Err(RunError::new(codes::SAVED_PLAN, why).next_step(NextStep::MakePlan));
        }
        Ok(())
    }
}
