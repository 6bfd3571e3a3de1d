//! What a plan foresees, collected while it is made.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use contraflow_provider::effect_id::EffectId;

use super::{Course, Foreseen, PlannedAction, PlannedChange, PlannedNoReturn, PlannedQuestion};
use crate::{
    effect::{Question, Undo},
    error::{RunError, codes},
    event::{Envelope, scrub_fields},
    secret::Vault,
    target::Target,
};

/// Filled by the kernel, effect by effect, and by the events of the plan.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    foreseen: Foreseen,
    course: Course,
    targets: BTreeSet<Target>,
    /// It had to be thrown away.
    lost: bool,
}

impl Draft {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change(&self, change: PlannedChange) {
        let mut content = self.content();
        if let Undo::Impossible(why) = &change.undo {
            let mark = PlannedNoReturn { id: change.id.clone(), why: why.clone() };
            content.foreseen.no_return.push(mark);
        }
        content.targets.insert(change.target.clone());
        content.foreseen.changes.push(change);
    }

    pub(crate) fn action(&self, action: PlannedAction) {
        self.content().foreseen.actions.push(action);
    }

    pub(crate) fn question(&self, id: &EffectId, question: &Question) {
        self.content().foreseen.questions.push(PlannedQuestion {
            id: id.clone(),
            text: question.text.clone(),
            by: question.rule.told(),
            at_least: question.rule.at_least,
        });
    }

    pub(crate) fn no_return(&self, id: &EffectId, why: &str) {
        self.content().foreseen.no_return.push(PlannedNoReturn { id: id.clone(), why: why.to_owned() });
    }

    pub(crate) fn event(&self, envelope: &Envelope) {
        self.content().course.push(envelope);
    }

    pub(crate) fn needs(&self, targets: impl IntoIterator<Item = Target>) {
        self.content().targets.extend(targets);
    }

    /// Removes the bytes of secrets, also of those that were read after they had been seen.
    pub(crate) fn scrub(&self, vault: &Vault) {
        if vault.is_empty() {
            return;
        }
        let mut content = self.content();
        let clean = serde_json::to_value((&content.foreseen, &content.course)).and_then(|mut json| {
            scrub_fields(&mut json, vault);
            serde_json::from_value(json)
        });
        match clean {
            Ok((foreseen, course)) => (content.foreseen, content.course) = (foreseen, course),
            // Scrubbing exchanges no word of this crate's own, so what was a plan still is one.
            Err(_) => *content = Content { lost: true, ..Content::default() },
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// Secrets could not be removed from it.
    pub(crate) fn take(
        &self,
        at_least_ms: u64,
        estimate_ms: Option<u64>,
    ) -> Result<(Foreseen, Course), RunError> {
        let Content { foreseen, course, targets, lost } = std::mem::take(&mut *self.content());
        if lost {
            return Err(RunError::new(codes::INTERNAL, "secrets could not be removed from the plan"));
        }
        let foreseen =
            Foreseen { targets: targets.into_iter().collect(), at_least_ms, estimate_ms, ..foreseen };
        // What failed and was caught is told and binds nothing: without what was told, what binds is shown as a list.
        let course = if course.agrees_with(&foreseen) { course } else { Course::default() };
        Ok((foreseen, course))
    }
}
