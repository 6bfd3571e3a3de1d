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
        Until::Answered(Question::new(QuestionKind::Confirm, &*self.text))
    }

    fn answer(&self, replies: &[Reply]) -> Result<bool, ProviderError> {
        yes(replies, |reply| format!("{} said no to \"{}\"", reply.by, self.text)).map(|()| true)
    }
}

/// Whether everybody said yes.
///
/// # Errors
/// `denied`, in the words of `told`, with the comment of whoever said no.
pub(super) fn yes(replies: &[Reply], told: impl FnOnce(&Reply) -> String) -> Result<(), ProviderError> {
    let Some(no) = replies.iter().find(|reply| !reply.yes) else { return Ok(()) };
    let why = no.comment.as_deref().map(|comment| format!(": {comment}")).unwrap_or_default();
    Err(ProviderError::terminal(codes::DENIED, format!("{}{why}", told(no))))
}

#[export_module]
pub(super) mod script {
    /// Asks a person; returns `true` on yes. On no it throws `denied`; if nothing catches it, the run is rolled back.
    ///
    /// Answered at the terminal, or with `contraflow approve` and `contraflow deny`. Without a terminal it fails the
    /// run, unless the run was started with `--yes` or `--wait`.
    ///
    /// ```rhai
    /// confirm("retire the old pool?")
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn confirm(cx: NativeCallContext<'_>, question: &str) -> ScriptResult {
        cx.wait(Confirm { text: question.to_owned() })
    }
}
