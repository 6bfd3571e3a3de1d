//! `checklist` has a person tick off points.

use rhai::{Array, NativeCallContext, plugin::*};
use serde::Serialize;

use super::{confirm::yes, manual::Done};
use crate::{
    effect::{Question, QuestionKind, Reply, Until, Wait},
    error::codes,
    provider::ProviderError,
    script::{ScriptContext as _, ScriptResult},
};

/// Points to tick off.
#[derive(Debug, Serialize)]
pub(super) struct Checklist {
    items: Vec<String>,
}

impl Wait for Checklist {
    const ID: &'static str = "checklist";
    type Answer = Done;
    type Memory = ();

    fn describe(&self) -> String {
        match self.items.as_slice() {
            [one] => one.clone(),
            items => format!("{} points: {}", items.len(), items.join("; ")),
        }
    }

    fn until(&self) -> Until {
        let text = format!("{} points to check", self.items.len());
        let question = Question::new(QuestionKind::Checklist, text);
        Until::Answered(Question { items: self.items.clone(), ..question })
    }

    fn answer(&self, replies: &[Reply]) -> Result<Done, ProviderError> {
        yes(replies, |reply| format!("{} could not tick off the checklist", reply.by))?;
        let nobody = || ProviderError::terminal(codes::NO_ANSWER, "nobody ticked off the checklist");
        replies.last().cloned().map(Done::from).ok_or_else(nobody)
    }

    fn show(&self, done: &Done) -> String {
        format!("all {} {done}", self.items.len())
    }
}

#[export_module]
pub(super) mod script {
    /// Asks a person to tick off points, one by one, and waits until all are done; returns
    /// `#{ yes, by, comment, evidence, at }`. A no throws `denied`.
    ///
    /// ```rhai
    /// checklist(["on-call is informed", "dashboards are open"]).yes
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn checklist(cx: NativeCallContext<'_>, items: Array) -> ScriptResult {
        let items: Vec<String> = cx.arg("items", items)?;
        if items.is_empty() {
            return Err(cx.bad_argument("items", "expected at least one point"));
        }
        cx.wait(super::Checklist { items })
    }
}
