//! The words that effects, events, journals and plans have in common.
//!
//! **Invariant:** this module knows none of those who use it.

use std::{fmt, time::Duration};

use contraflow_provider::effect_id::EffectId;
use serde::{Deserialize, Serialize};

/// The name of the built-in environment, for which parameters may have values of their own.
pub const SANDBOX: &str = "sandbox";

/// In which world a run happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Effects happen.
    Live,
    /// Nothing is changed; states are carried forward in an overlay.
    Plan,
    /// Nothing is touched and time is simulated; a scenario says what goes wrong.
    Rehearsal,
    /// Every effect is answered from a journal; no provider is touched.
    Replay,
}

/// The kind of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Moves a target between states.
    Change,
    /// Does something that cannot be read back.
    Action,
    /// Looks.
    Read,
    /// Waits.
    Wait,
}

/// How sure a line of a plan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Seen for real, just now.
    Observed,
    /// Follows from what earlier lines of the plan would do, or is taken for granted because it cannot be known.
    Assumed,
    /// Seen for real, but an earlier line of the plan would have changed it.
    Stale,
    /// Only a real run can tell.
    Unknown,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// All of it was done.
    Succeeded,
    /// It failed, and there was nothing to undo.
    Failed,
    /// It failed, and all it had done was undone.
    RolledBack,
    /// It failed, and some of what it had done is still there: a person is needed.
    RollbackIncomplete,
    /// It stopped and can go on.
    Paused,
    /// A person ended it.
    Aborted,
}

impl RunOutcome {
    /// The name used in output and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::RollbackIncomplete => "rollback_incomplete",
            Self::Paused => "paused",
            Self::Aborted => "aborted",
        }
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How loud a note is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteLevel {
    /// Belongs in the record of the run.
    Note,
    /// Detail.
    Log,
}

/// Something that a rollback could not undo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftOver {
    /// Id of the effect or closure.
    pub id: EffectId,
    /// What is left, such as `traffic.shift traffic/web is "blue 95, green 5"`.
    pub what: String,
    /// How to undo it by hand.
    pub by_hand: String,
    /// Why it was not undone.
    pub why: String,
}

/// Whether a change can be undone by applying the state that was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// Yes.
    Possible,
    /// No, and why: a point of no return.
    Impossible(String),
}

/// What became of an effect whose outcome the journal did not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// It had happened.
    Happened,
    /// It had not happened.
    NotHappened,
    /// It is done again: the receiver knows its key, or twice does no harm.
    Repeated,
    /// A person decided to do it again.
    DecidedAgain,
    /// A person decided to count it as done.
    DecidedDone,
    /// A person decided that it fails.
    DecidedFailed,
}

/// How long a change is expected to take until it is in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// In milliseconds.
    pub ms: u64,
    /// What this rests on.
    pub basis: Basis,
}

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The change itself says so, or its target.
    Target,
    /// The same move of the same target took so long in earlier runs of the runbook in this environment: the median.
    EarlierRuns,
}

impl Estimate {
    pub(crate) fn new(span: Duration, basis: Basis) -> Self {
        Self { ms: u64::try_from(span.as_millis()).unwrap_or(u64::MAX), basis }
    }

    /// The time as such.
    pub fn span(&self) -> Duration {
        Duration::from_millis(self.ms)
    }
}
