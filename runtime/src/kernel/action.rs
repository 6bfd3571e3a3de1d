//! How an action is performed.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Call, Kernel, Request, UndoEntry, Undoing,
    change::unfit,
    record::{Ending, Past},
    retry::{GaveUp, Interruption},
};
use crate::{
    effect::AnyAction,
    error::{RunError, codes},
    event::Event,
    journal::Outcome,
    world::Known,
};

impl Kernel {
    pub(super) async fn do_action(&self, call: &Call, action: Arc<dyn AnyAction>) -> Result<Known, RunError> {
        let text = action.describe();
        // An intent that the journal has was in the plan, or somebody agreed to it.
        let mut again = false;
        match self.past(call)? {
            Past::Ended(ended) => {
                self.replayed(call, None, || text, &ended);
                return match ended.outcome {
                    Outcome::Performed { value, .. } => {
                        self.performed(call, &action, &value, ended.seq);
                        Ok(Known::Value(value))
                    }
                    Outcome::Failed { error, .. } => {
                        if may_have_happened(&*action, &error) {
                            self.to_be_undone(call, &action, &Value::Null, ended.seq, true);
                        }
                        Err(error)
                    }
                    _ => Err(unfit(call)),
                };
            }
            Past::Doubt(intent) => {
                if let Some(known) = self.doubtful_action(call, &action, &text, intent.seq).await? {
                    return Ok(known);
                }
                again = true;
            }
            Past::New => {}
        }
        self.started(call, None, text.clone());
        self.sketch_action(call, &*action, &text);
        let mut ready = self.ask_policies(&Request {
            environment: &self.facts.environment,
            id: &call.id,
            kind: call.kind,
            effect: call.effect,
            target: None,
            states: None,
            text: &text,
            rollback: false,
        });
        if ready.is_ok() && !again {
            ready = self.ask_outside_action(call, &*action, &text).await;
        }
        if ready.is_ok() {
            ready = self.intend(call, None, None, &text).await;
        }
        if let Err(error) = ready {
            return self.failed(call, error, |e| Ending { about: text, ..e }).await;
        }
        self.emit(Event::Applying { id: call.id.clone(), from_text: String::new(), to_text: text.clone() });
        let limits = action.limits();
        match self
            .attempt(call, &limits, Interruption::WhenDone, async || {
                self.world.perform(call.on(), &*action).await
            })
            .await
        {
            Ok(((known, grade), attempts)) => {
                let known = self.clean(known);
                let value = match &known {
                    Known::Value(value) => value.clone(),
                    Known::Unknown => Value::Null,
                };
                let outcome = Outcome::Performed { value, text: text.clone() };
                let ending = Ending { grade, intended: true, about: text, ..Ending::new(outcome, attempts) };
                let seq = self.ended(call, ending).await;
                if let Known::Value(value) = &known {
                    self.performed(call, &action, value, seq);
                }
                Ok(known)
            }
            Err(GaveUp { error, attempts }) => self.broke_off(call, &action, &text, error, attempts).await,
        }
    }

    /// Records that an action failed; if nobody knows how far it got, it is to be undone.
    pub(super) async fn broke_off(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
        text: &str,
        error: RunError,
        attempts: u32,
    ) -> Result<Known, RunError> {
        if may_have_happened(&**action, &error) && !self.is_over(&error) {
            self.to_be_undone(call, action, &Value::Null, u64::MAX, true);
        }
        self.failed(call, error, |e| Ending { attempts, intended: true, about: text.to_owned(), ..e }).await
    }

    pub(super) fn performed(&self, call: &Call, action: &Arc<dyn AnyAction>, output: &Value, seq: u64) {
        self.to_be_undone(call, action, output, seq, false);
    }

    /// Puts an action on the undo stack. `doubtful`: nobody knows whether it happened.
    pub(super) fn to_be_undone(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
        output: &Value,
        seq: u64,
        doubtful: bool,
    ) {
        if action.undoable() {
            self.push_undo(UndoEntry {
                seq: call.place(seq),
                id: call.id.clone(),
                doing: Undoing::Action {
                    action: Arc::clone(action),
                    input: call.input.clone(),
                    output: output.clone(),
                    doubtful,
                },
            });
        }
    }
}

/// Whether an action that failed with that error may have done some or all of what it was to do: nobody waited for its answer, or it
/// says so itself.
fn may_have_happened(action: &dyn AnyAction, error: &RunError) -> bool {
    error.is(codes::TIMEOUT) || !error.is_catchable() || action.may_be_half_done(error)
}
