//! How a wait is performed.

use std::time::Duration;

use super::{AnyWait, Call, Ending, Kernel, change::unfit, cursor};
use crate::{
    error::RunError,
    journal::{Entry, Outcome},
    world::Known,
};

impl Kernel {
    pub(super) async fn do_wait(&self, call: &Call, wait: &dyn AnyWait) -> Result<Known, RunError> {
        if let Some((outcome, attempts, elapsed_ms)) = self.recorded(call)? {
            self.replayed(call, None, || wait.describe(), &outcome, attempts, elapsed_ms);
            return match outcome {
                Outcome::Answered { value, .. } => Ok(Known::Value(value)),
                Outcome::Failed { error, .. } => Err(error),
                _ => Err(unfit(call)),
            };
        }
        let text = wait.describe();
        self.started(call, None, text.clone());
        // Durable, so that a resumed run knows since when it waits.
        let intended = self.intend(call, None, None, &text).await;
        let (intended, result) = match intended {
            Err(error) => (false, Err(error)),
            Ok(()) => {
                let result = tokio::select! {
                    biased;
                    result = self.world.wait(call.on(), wait, Duration::ZERO) => result.map_err(RunError::from),
                    error = self.broken_off(call) => Err(error),
                };
                (true, result)
            }
        };
        match result {
            Ok(mut waited) => {
                waited.answer = self.clean(waited.answer);
                cursor::plan(waited.at_least);
                if let Some(reply) = waited.reply {
                    self.keep_async(&call.id, &Entry::Replied { reply }).await;
                }
                let (value, found) = match &waited.answer {
                    Known::Value(value) => (value.clone(), wait.show(value)),
                    Known::Unknown => (serde_json::Value::Null, String::new()),
                };
                let outcome = Outcome::Answered { value, text: found, grade: waited.grade };
                let ending = Ending {
                    grade: waited.grade,
                    about: text,
                    at_least: waited.at_least,
                    intended: true,
                    ..Ending::new(outcome, 1)
                };
                self.ended(call, ending).await;
                Ok(waited.answer)
            }
            Err(error) => {
                let error = RunError { effect: Some(call.id.clone()), ..error };
                let outcome = Outcome::Failed { error: error.clone(), happened: None };
                self.ended(call, Ending { intended, about: text, ..Ending::new(outcome, 1) }).await;
                Err(error)
            }
        }
    }
}
