//! How a read is performed.

use super::{
    Call, Kernel,
    change::unfit,
    record::{Ending, Past},
    retry::{GaveUp, Interruption},
};
use crate::{effect::AnyRead, error::RunError, journal::Outcome, world::Known};

impl Kernel {
    pub(super) async fn do_read(&self, call: &Call, read: &dyn AnyRead) -> Result<Known, RunError> {
        if let Past::Ended(ended) = self.past(call)? {
            self.replayed(call, None, || read.describe(), &ended);
            return match ended.outcome {
                Outcome::Answered { value, .. } => {
                    if read.again_on_resume() && !self.earlier.replay_only {
                        let limits = read.limits();
                        let again = async || self.world.read(call.on(), read).await;
                        let read_again = self.attempt(call, &limits, Interruption::WhenDone, again).await;
                        read_again.map_err(|e| self.not_resumable(call, &read.describe(), e.error))?;
                    }
                    Ok(Known::Value(value))
                }
                Outcome::Failed { error, .. } => Err(error),
                _ => Err(unfit(call)),
            };
        }
        self.sketch_needs(|| read.depends_on());
        if !self.emitter.is_silent() {
            self.started(call, None, read.describe());
        }
        let limits = read.limits();
        match self
            .attempt(call, &limits, Interruption::AtOnce, async || self.world.read(call.on(), read).await)
            .await
        {
            Ok(((known, grade), attempts)) => {
                let known = self.clean(known);
                let (value, text) = match &known {
                    Known::Value(value) => (value.clone(), read.show(value)),
                    Known::Unknown => (serde_json::Value::Null, String::new()),
                };
                let outcome = Outcome::Answered { value, text, grade };
                self.ended(call, Ending { grade, about: read.describe(), ..Ending::new(outcome, attempts) })
                    .await;
                Ok(known)
            }
            Err(GaveUp { error, attempts }) => {
                let outcome = Outcome::Failed { error: error.clone(), possibly_applied: None };
                self.ended(call, Ending { about: read.describe(), ..Ending::new(outcome, attempts) }).await;
                Err(error)
            }
        }
    }
}
