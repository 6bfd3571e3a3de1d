//! How an action is performed.

use std::sync::Arc;

use serde_json::Value;

use super::{
    AnyAction, Call, Ending, Kernel, Request, UndoEntry, Undoing,
    change::unfit,
    retry::{GaveUp, Stop},
};
use crate::{error::RunError, event::Event, journal::Outcome, world::Known};

impl Kernel {
    pub(super) async fn do_action(&self, call: &Call, action: Arc<dyn AnyAction>) -> Result<Known, RunError> {
        if let Some((outcome, attempts, elapsed_ms)) = self.recorded(call)? {
            self.replayed(call, None, || action.describe(), &outcome, attempts, elapsed_ms);
            return match outcome {
                Outcome::Performed { value, .. } => {
                    self.performed(call, &action, &value);
                    Ok(Known::Value(value))
                }
                Outcome::Failed { error, .. } => Err(error),
                _ => Err(unfit(call)),
            };
        }
        let text = action.describe();
        self.started(call, None, text.clone());
        let mut ready = self.ask_policies(&Request {
            environment: &self.environment,
            id: &call.id,
            kind: call.kind,
            effect: call.effect,
            target: None,
            states: None,
            text: &text,
            rollback: false,
        });
        if ready.is_ok() {
            ready = self.intend(call, None, None, &text).await;
        }
        if let Err(error) = ready {
            let error = RunError { effect: Some(call.id.clone()), ..error };
            let outcome = Outcome::Failed { error: error.clone(), happened: None };
            self.ended(call, Ending { about: text, ..Ending::new(outcome, 1) }).await;
            return Err(error);
        }
        self.emit(Event::Applying { id: call.id.clone(), from_text: String::new(), to_text: text.clone() });
        let limits = action.limits();
        match self
            .attempt(call, &limits, Stop::WhenDone, async || self.world.perform(call.on(), &*action).await)
            .await
        {
            Ok(((known, grade), attempts)) => {
                let known = self.clean(known);
                let value = match &known {
                    Known::Value(value) => {
                        self.performed(call, &action, value);
                        value.clone()
                    }
                    Known::Unknown => Value::Null,
                };
                let outcome = Outcome::Performed { value, text: text.clone() };
                self.ended(
                    call,
                    Ending { grade, intended: true, about: text, ..Ending::new(outcome, attempts) },
                )
                .await;
                Ok(known)
            }
            Err(GaveUp { error, attempts }) => {
                let outcome = Outcome::Failed { error: error.clone(), happened: None };
                self.ended(call, Ending { intended: true, about: text, ..Ending::new(outcome, attempts) })
                    .await;
                Err(error)
            }
        }
    }

    fn performed(&self, call: &Call, action: &Arc<dyn AnyAction>, output: &Value) {
        if action.undoable() {
            self.push_undo(UndoEntry {
                id: call.id.clone(),
                what: format!("{} {}", action.effect(), action.describe()),
                doing: Undoing::Action {
                    action: Arc::clone(action),
                    input: call.input.clone(),
                    output: output.clone(),
                },
            });
        }
    }
}
