//! The commands for a run that has begun: go on, undo, answer, stop, let go.

use std::path::PathBuf;

use clap::{Args, ValueHint};

/// How `contraflow resume` and `contraflow rollback` take a run up.
#[derive(Debug, Clone, Args)]
pub(crate) struct TakeUp {
    /// Run id, its beginning or end, or `last` for your own last run.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Take the run over from a runner that seems to be alive; the other runner can then change nothing more.
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Answer yes to every question.
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) yes: bool,
    /// Wait for answers from `contraflow approve` or `contraflow deny`.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

/// `contraflow resume`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Resume {
    /// Which run, and how.
    #[command(flatten)]
    pub(crate) take_up: TakeUp,
    /// Continue with this script instead of the stored one; it must first do everything that was done.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) from_new_script: Option<PathBuf>,
}

/// `contraflow rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// Which run, and how.
    #[command(flatten)]
    pub(crate) take_up: TakeUp,
    /// If the run is running: request the rollback and do not wait for it.
    #[arg(long, conflicts_with = "take_over")]
    pub(crate) no_wait: bool,
}

/// `contraflow approve` and `contraflow deny`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Answer {
    /// Run id, its beginning or end, or `last` for your own last run.
    #[arg(value_name = "RUN", required_unless_present = "plan")]
    pub(crate) run: Option<String>,
    /// Question id, or the step it is in; required if the run has several open questions.
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Answer for this saved plan, before it runs.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath, conflicts_with_all = ["run", "step", "choose"])]
    pub(crate) plan: Option<PathBuf>,
    /// Record the answer under this name [default: the current user].
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Comment to store with the answer.
    #[arg(short, long, value_name = "TEXT")]
    pub(crate) comment: Option<String>,
    /// The decision, if there are more choices than yes and no.
    #[arg(long, value_name = "WORD")]
    pub(crate) choose: Option<String>,
    /// URL as evidence; may be repeated.
    #[arg(long = "link", value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) links: Vec<String>,
    /// File as evidence: its name, size and checksum are stored; may be repeated.
    #[arg(long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
}

/// `contraflow pause` and `contraflow abort`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Ask {
    /// Run id, its beginning or end, or `last` for your own last run.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Do not wait until it has stopped.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `contraflow abandon`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Abandon {
    /// Run id, its beginning or end, or `last` for your own last run.
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
