//! `confirm` asks a person whether to go on.

use rhai::{NativeCallContext, plugin::*};
use serde::Serialize;

use crate::{
    effect::{Question, QuestionKind, Reply, Until, Wait},
    error::codes,
    provider::ProviderError,
    script::{ScriptContext as _, ScriptResult},
};

/// A question with yes or no.
#[derive(Debug, Serialize)]
pub(super) struct Confirm {
    text: String,
}

impl Wait for Confirm {
    const ID: &'static str = "confirm";
    type Answer = bool;
    type Memory = ();

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn until(&self) -> Until {
        Until::Answered(Question { kind: QuestionKind::Confirm, text: self.text.clone() })
    }

    fn answer(&self, reply: Option<&Reply>) -> Result<bool, ProviderError> {
        match reply {
            Some(reply) if reply.yes => Ok(true),
            Some(reply) => Err(ProviderError::terminal(
                codes::DENIED,
                format!("{} said no to \"{}\"", reply.by, self.text),
            )),
            None => {
                Err(ProviderError::terminal(codes::NO_ANSWER, format!("nobody answered \"{}\"", self.text)))
            }
        }
    }
}

#[export_module]
pub(super) mod script {
    /// Asks a person; returns `true` on yes. On no it throws `denied`, so that the run is rolled back unless that is caught.
    ///
    /// Without a terminal, and without `--yes`, the question fails the run.
    ///
    /// ```rhai
    /// confirm("retire the old pool?")
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn confirm(cx: NativeCallContext<'_>, question: &str) -> ScriptResult {
        cx.wait(Confirm { text: question.to_owned() })
    }
}
