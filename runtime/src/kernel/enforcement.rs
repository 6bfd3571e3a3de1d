//! What a saved plan has to do with an effect: while a plan is made, what it foresees is collected; a run from one asks before it
//! does anything else.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Call, Kernel, change::Move, hex, record::Ending};
use crate::{
    effect::{AnyAction, Question, QuestionKind, Rule, Undo},
    error::{NextStep, RunError, codes},
    event::Kind,
    journal::Outcome,
    plan::{Binding, Draft, PlannedAction, PlannedChange},
    target::Target,
};

/// The plan that a run must keep to, and who decides about what is not in it.
#[derive(Debug, Clone)]
pub(crate) struct Enforcement {
    pub(crate) binding: Binding,
    /// Who decides about what is outside the plan.
    pub(crate) rule: Rule,
}

/// What a run has to do with plans.
pub(crate) struct Planning {
    /// The plan that the run must keep to.
    pub(super) enforcement: Option<Enforcement>,
    /// Where a plan collects what it foresees.
    pub(crate) draft: Option<Arc<Draft>>,
}

impl Kernel {
    /// Collects what a plan foresees of a change or an action.
    pub(super) fn sketch(&self, call: &Call, ending: &Ending) {
        let (Some(draft), Some(target), Kind::Change) = (&self.plan.draft, &ending.target, call.kind) else {
            return;
        };
        let change = |from: &Value, to: &Value, from_text: &str, to_text: &str, undo: &Undo| PlannedChange {
            id: call.id.clone(),
            effect: call.effect.to_owned(),
            target: target.clone(),
            from: self.scrubbed(from),
            to: self.scrubbed(to),
            fingerprint: call.fingerprint.clone(),
            from_text: from_text.to_owned(),
            to_text: to_text.to_owned(),
            grade: ending.grade,
            undo: undo.clone(),
            estimate: ending.foresight.estimate,
        };
        match &ending.outcome {
            Outcome::Changed { from, to, from_text, to_text, undo } => {
                draft.change(change(from, to, from_text, to_text, undo));
            }
            Outcome::Unchanged { state, text } => {
                draft.change(change(state, state, text, text, &Undo::Possible));
            }
            Outcome::Performed { .. } | Outcome::Answered { .. } | Outcome::Failed { .. } => {}
        }
    }

    /// The same for an action.
    pub(super) fn sketch_action(&self, call: &Call, action: &dyn AnyAction, text: &str) {
        if let Some(draft) = &self.plan.draft {
            draft.needs(action.touches());
            draft.action(PlannedAction {
                id: call.id.clone(),
                effect: call.effect.to_owned(),
                text: text.to_owned(),
                binds: self.binds(call, action),
            });
        }
    }

    /// Collects what a plan needs.
    pub(super) fn sketch_needs(&self, targets: impl FnOnce() -> Vec<Target>) {
        if let Some(draft) = &self.plan.draft {
            draft.needs(targets());
        }
    }

    /// Asks, unless the plan has this move, there is no plan, or this very move was `agreed` to.
    pub(super) async fn ask_outside(
        &self,
        call: &Call,
        target: &Target,
        Move { from, to, from_text, to_text }: &Move,
        agreed: &mut Option<(Value, Value)>,
    ) -> Result<Agreed, RunError> {
        let Some(enforcement) = self.binding() else { return Ok(Agreed::Planned) };
        let states = (&self.scrubbed(from), &self.scrubbed(to));
        if enforcement.binding.has_move(&call.id, call.effect, &call.fingerprint, target, states) {
            return Ok(Agreed::Planned);
        }
        let now = (from.clone(), to.clone());
        if agreed.as_ref() == Some(&now) {
            return Ok(Agreed::Planned);
        }
        let text = format!("{} {target}: {} -> {}", call.effect, from_text, to_text);
        let exactly = [&*call.fingerprint, target.as_str(), &from.to_string(), &to.to_string()];
        self.decide_outside(call, enforcement, &text, &exactly).await?;
        *agreed = Some(now);
        Ok(Agreed::Just)
    }

    /// The same for an action.
    pub(super) async fn ask_outside_action(
        &self,
        call: &Call,
        action: &dyn AnyAction,
        text: &str,
    ) -> Result<(), RunError> {
        let Some(enforcement) = self.binding() else { return Ok(()) };
        if enforcement.binding.has_action(&call.id, call.effect, &self.binds(call, action)) {
            return Ok(());
        }
        self.decide_outside(call, enforcement, &format!("{} {text}", call.effect), &[&call.fingerprint]).await
    }

    /// What of an action may not differ: all of its input, by its fingerprint, unless it says less.
    fn binds(&self, call: &Call, action: &dyn AnyAction) -> String {
        match action.binds() {
            Some(binds) => self.shared.vault.scrub(&binds).into_owned(),
            None => call.fingerprint.clone(),
        }
    }

    /// The plan that says what may be done now. What undoes is never outside: it was agreed to with what it undoes.
    fn binding(&self) -> Option<&Enforcement> {
        self.plan.enforcement.as_ref().filter(|_| !self.life.is_rolling_back())
    }

    /// Lets a person decide about something that the plan does not have. The answer holds for exactly this: its id has a
    /// fingerprint of it, so that an answer from before a crash is not taken for one to something else.
    async fn decide_outside(
        &self,
        call: &Call,
        enforcement: &Enforcement,
        what: &str,
        exactly: &[&str],
    ) -> Result<(), RunError> {
        let mut hash = Sha256::new();
        for part in exactly {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let id = call.id.outside_plan(&hex(&hash.finalize()[..4]));
        let asking = self.call(call.kind, call.effect, call.input.clone(), id)?;
        let what = self.shared.vault.scrub(what).into_owned();
        let text = format!("{what} is not in the plan. Do it?");
        let question =
            Question { rule: enforcement.rule.clone(), ..Question::new(QuestionKind::OutsidePlan, text) };
        let placed = |error: RunError| RunError { effect: Some(call.id.clone()), ..error };
        let replies = match self.ask(&asking, question).await {
            Ok(replies) => replies,
            Err(error) if error.is(codes::NO_ANSWER) => {
                let error = RunError::new(codes::OUTSIDE_PLAN, format!("{what} is not in the plan"));
                return Err(placed(error)
                    .next_step(NextStep::Answer {
                        run: self.facts.run.to_string(),
                        question: call.id.clone(),
                        choices: Vec::new(),
                    })
                    .next_step(NextStep::ResumeRun { run: self.facts.run.to_string() }));
            }
            Err(error) => return Err(error),
        };
        match replies.iter().find(|reply| !reply.yes) {
            None => Ok(()),
            Some(no) => {
                let why = no.comment.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                let message = format!("{} denied an effect outside the plan, {what}{why}", no.by);
                Err(placed(RunError::new(codes::DENIED, message)))
            }
        }
    }

    /// A state as plans keep it.
    fn scrubbed(&self, state: &Value) -> Value {
        let mut state = state.clone();
        self.shared.vault.scrub_json(&mut state);
        state
    }
}

/// Whether an effect may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreed {
    /// It is in the plan, there is none, or somebody agreed.
    Planned,
    /// Somebody agreed just now, which may have taken long: the target is to be looked at again.
    Just,
}
