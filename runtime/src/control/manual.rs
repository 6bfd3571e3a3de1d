//! `manual` asks a person to do something by hand.

use std::fmt;

use rhai::{NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};

use super::confirm::yes;
use crate::{
    effect::{Evidence, Question, QuestionKind, Reply, Until, Wait},
    error::codes,
    provider::ProviderError,
    script::{ScriptContext as _, ScriptResult},
};

/// Something to do by hand.
#[derive(Debug, Serialize)]
pub(super) struct Manual {
    text: String,
}

/// What was done by hand, and what shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    yes: bool,
    by: String,
    comment: Option<String>,
    evidence: Vec<Evidence>,
    at: Option<String>,
}

impl Wait for Manual {
    const ID: &'static str = "manual";
    type Answer = Done;
    type Memory = ();

    fn describe(&self) -> String {
        self.text.clone()
    }

    fn until(&self) -> Until {
        Until::Answered(Question::new(QuestionKind::Manual, &*self.text))
    }

    fn answer(&self, replies: &[Reply]) -> Result<Done, ProviderError> {
        yes(replies, |reply| format!("{} could not do \"{}\"", reply.by, self.text))?;
        let nobody = || ProviderError::terminal(codes::NO_ANSWER, format!("nobody did \"{}\"", self.text));
        replies.last().cloned().map(Done::from).ok_or_else(nobody)
    }

    fn show(&self, done: &Done) -> String {
        done.to_string()
    }
}

impl From<Reply> for Done {
    fn from(reply: Reply) -> Self {
        let Reply { yes, by, comment, evidence, at, .. } = reply;
        Self { yes, by, comment, evidence, at: at.map(|at| at.to_string()) }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "done by {}", self.by)?;
        if let Some(comment) = &self.comment {
            write!(f, " ({comment})")?;
        }
        self.evidence.iter().try_for_each(|evidence| match evidence {
            Evidence::Text(words) => write!(f, ", \"{words}\""),
            Evidence::Link(link) => write!(f, ", {link}"),
            Evidence::File { path, sha256, .. } => {
                write!(f, ", {path} (sha256 {})", sha256.get(..12).unwrap_or(sha256))
            }
        })
    }
}

#[export_module]
pub(super) mod script {
    /// Asks a person to do something by hand and waits until they say it is done; returns
    /// `#{ yes, by, comment, evidence, at }`. A no throws `denied`.
    ///
    /// An answer with `contraflow approve` can have evidence: `--comment`, `--link`, `--file`. Of a file, the name,
    /// size and checksum are stored.
    ///
    /// ```rhai
    /// manual("silence the pager for web").yes
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn manual(cx: NativeCallContext<'_>, instruction: &str) -> ScriptResult {
        cx.wait(Manual { text: instruction.to_owned() })
    }
}
