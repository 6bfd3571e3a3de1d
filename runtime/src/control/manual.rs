//! `manual` asks a person to do something by hand.

use rhai::{NativeCallContext, plugin::*};
use serde::Serialize;

use crate::{
    effect::{Question, QuestionKind, Reply, Until, Wait},
    error::codes,
    provider::ProviderError,
    script::{ScriptContext as _, ScriptResult},
};

/// Something to do by hand.
#[derive(Debug, Serialize)]
pub(super) struct Manual {
    text: String,
}

impl Wait for Manual {
    const ID: &'static str = "manual";
    type Answer = Reply;
    type Memory = ();

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn until(&self) -> Until {
        Until::Answered(Question { kind: QuestionKind::Manual, text: self.text.clone() })
    }

    fn answer(&self, reply: Option<&Reply>) -> Result<Reply, ProviderError> {
        match reply {
            Some(reply) if reply.yes => Ok(reply.clone()),
            Some(reply) => {
                let why = reply.comment.as_deref().map(|comment| format!(": {comment}")).unwrap_or_default();
                Err(ProviderError::terminal(
                    codes::DENIED,
                    format!("{} could not do \"{}\"{why}", reply.by, self.text),
                ))
            }
            None => Err(ProviderError::terminal(codes::NO_ANSWER, format!("nobody did \"{}\"", self.text))),
        }
    }

    fn show(&self, answer: &Reply) -> String {
        format!(
            "done by {}{}",
            answer.by,
            answer.comment.as_deref().map(|c| format!(" ({c})")).unwrap_or_default()
        )
    }
}

#[export_module]
pub(super) mod script {
    /// Asks a person to do something by hand and waits until they say it is done; returns `#{ yes, by, comment }`.
    ///
    /// ```rhai
    /// manual("silence the pager for web").yes
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn manual(cx: NativeCallContext<'_>, instruction: &str) -> ScriptResult {
        cx.wait(Manual { text: instruction.to_owned() })
    }
}
