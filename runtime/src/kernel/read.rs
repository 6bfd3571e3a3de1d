//! How a read is performed.

use super::{
    AnyRead, Call, Ending, Kernel,
    change::unfit,
    retry::{GaveUp, Stop},
};
use crate::{error::RunError, journal::Outcome, world::Known};

impl Kernel {
    pub(super) async fn do_read(&self, call: &Call, read: &dyn AnyRead) -> Result<Known, RunError> {
        if let Some((outcome, attempts, elapsed_ms)) = self.recorded(call)? {
            self.replayed(call, None, || read.describe(), &outcome, attempts, elapsed_ms);
            return match outcome {
                Outcome::Answered { value, .. } => Ok(Known::Value(value)),
                Outcome::Failed { error, .. } => Err(error),
                _ => Err(unfit(call)),
            };
        }
        if !self.shared.emitter.is_silent() {
            self.started(call, None, read.describe());
        }
        let limits = read.limits();
        match self.attempt(call, &limits, Stop::AtOnce, async || self.world.read(call.on(), read).await).await
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
                let outcome = Outcome::Failed { error: error.clone(), happened: None };
                self.ended(call, Ending { about: read.describe(), ..Ending::new(outcome, attempts) }).await;
                Err(error)
            }
        }
    }
}
