//! The commands for a run that has begun: go on, undo, answer, stop, let go.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// How `contraflow resume` and `contraflow rollback` take a run up.
#[derive(Debug, Clone, Args)]
pub(crate) struct TakeUp {
    /// Id of the run, its beginning, its end, or `last`.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Take it over from another runner that seems to work on it. That one can then no longer change anything.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Answer yes to every question.
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) yes: bool,
    /// Wait for answers that others give with `contraflow approve`.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

/// `contraflow resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Resume {
    /// Which run, and how.
    #[command(flatten)]
    pub(crate) take_up: TakeUp,
    /// Go on with this script instead of the stored one. Refused unless it first does all that was done.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) from_new_script: Option<PathBuf>,
}

/// `contraflow rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// Which run, and how.
    #[command(flatten)]
    pub(crate) take_up: TakeUp,
    /// Where another process works on the run: ask that one, and do not wait until it has undone.
    #[arg(long, conflicts_with = "take_over")]
    pub(crate) no_wait: bool,
}

/// `contraflow approve` and `contraflow deny`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Answer {
    /// Id of the run, its beginning, its end, or `last`.
    #[arg(value_name = "RUN", required_unless_present = "plan")]
    pub(crate) run: Option<String>,
    /// Id of the question, or the step it is in; needed where the run waits for more than one answer.
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Answer for this saved plan, before it is run.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath, conflicts_with_all = ["run", "step", "choose"])]
    pub(crate) plan: Option<PathBuf>,
    /// In whose name [default: the user].
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What to keep with the answer.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// The decision, where there is more to decide than yes or no.
    #[arg(long, value_name = "WORD")]
    pub(crate) choose: Option<String>,
    /// An address that shows that it was done. May be given again for others.
    #[arg(long = "link", value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) links: Vec<String>,
    /// A file that shows that it was done: its name, size and checksum are kept. May be given again for others.
    #[arg(long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

/// `contraflow pause` and `contraflow abort`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Ask {
    /// Id of the run, its beginning, its end, or `last`.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Do not wait until it has stopped.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `contraflow abandon`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Abandon {
    /// Id of the run, its beginning, its end, or `last`.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

pub(super) const RESUME_EXAMPLES: &str = "\
Examples:
  contraflow resume last
  contraflow resume blue-green-k3fq7a --take-over
  contraflow resume last --from-new-script blue-green.rhai";

pub(super) const ROLLBACK_EXAMPLES: &str = "\
Examples:
  contraflow rollback last
  contraflow rollback blue-green-k3fq7a --no-wait
  contraflow rollback last --output json";

pub(super) const APPROVE_EXAMPLES: &str = "\
Examples:
  contraflow approve last
  contraflow approve blue-green-k3fq7a retire --as ana --comment \"looked at the dashboards\"
  contraflow approve last --file screenshot.png --link https://wiki.example.com/changes/42
  contraflow approve last --choose again
  contraflow approve --plan web.plan --as ana --comment \"looked at the dashboards\"";

pub(super) const DENY_EXAMPLES: &str = "\
Examples:
  contraflow deny last --comment \"errors in the logs\"
  contraflow deny --plan web.plan --comment \"errors in the logs\"";

pub(super) const PAUSE_EXAMPLES: &str = "\
Examples:
  contraflow pause last
  contraflow pause blue-green-k3fq7a --no-wait";

pub(super) const ABORT_EXAMPLES: &str = "\
Examples:
  contraflow abort last
  contraflow abort blue-green-k3fq7a --no-wait";

pub(super) const ABANDON_EXAMPLES: &str = "\
Examples:
  contraflow abandon blue-green-k3fq7a";
