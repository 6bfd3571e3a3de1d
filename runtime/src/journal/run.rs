//! Runs as a store knows them: how they stand, who works on them, what is asked of them.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::RunOutcome;

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Begun and not ended; whether a process still works on it is another question.
    Running,
    /// Ended.
    #[serde(untagged)]
    Ended(RunOutcome),
}

impl RunStatus {
    /// The name used in output and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended(outcome) => outcome.as_str(),
        }
    }

    /// Whether a run that stands like this can go on: its locks and questions are kept.
    pub fn can_go_on(self) -> bool {
        matches!(self, Self::Running | Self::Ended(RunOutcome::Paused | RunOutcome::RollbackIncomplete))
    }

    /// The inverse of [`RunStatus::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        use RunOutcome as O;
        [O::Succeeded, O::Failed, O::RolledBack, O::RollbackIncomplete, O::Paused, O::Aborted]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .map(Self::Ended)
            .or_else(|| (text == "running").then_some(Self::Running))
    }
}

/// A run as the store knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Its id, such as `blue-green-k3fq7a`.
    pub id: String,
    /// Name of the runbook.
    pub runbook: String,
    /// Version of the runbook.
    pub version: String,
    /// Environment.
    pub environment: String,
    /// Parameters with defaults filled in.
    pub params: Value,
    /// Content hash of the script bundle.
    pub bundle: String,
    /// How it stands.
    pub status: RunStatus,
    /// Raised each time another runner takes the run over.
    pub epoch: i64,
    /// Who began it, as `user@host`.
    pub started_by: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, or paused.
    pub ended_at: Option<Timestamp>,
    /// Who works on it, or did when it died.
    pub held: Option<Held>,
    /// Hash of the saved plan that it was started from.
    pub plan: Option<String>,
}

impl Run {
    /// Whether a process works on it.
    pub fn is_alive(&self) -> bool {
        self.status == RunStatus::Running && self.held.as_ref().is_some_and(Held::is_alive)
    }
}

/// A process that works on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who started it, as `user@host`.
    pub who: String,
    /// Machine that it runs on.
    pub host: String,
    /// Its number there.
    pub pid: u32,
}

/// A holder that gives no sign of life for so long counts as dead.
pub const LEASE: Duration = Duration::from_secs(15);

/// How often a holder gives a sign of life.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// A holder, and when it last gave a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Who.
    #[serde(flatten)]
    pub by: Holder,
    /// Milliseconds since its last sign of life, by the clock of the store. Less than zero if that clock was set back.
    pub silent_ms: i64,
}

impl Held {
    /// Whether it is to be taken for alive. On this machine the process itself is looked for; from others it is the sign of life
    /// that counts. Should it be wrong, the epoch keeps the holder from doing any harm.
    pub fn is_alive(&self) -> bool {
        if self.by.host == host() && is_gone(self.by.pid) {
            return false;
        }
        self.silent_ms.unsigned_abs() < u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Holder {
    /// This process, working for `who`.
    pub fn this(who: &str) -> Self {
        Self { who: who.to_owned(), host: host(), pid: std::process::id() }
    }
}

fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_gone(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return true };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)
}

/// What somebody else asks of a run while it goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub kind: RequestKind,
    /// Who.
    pub by: String,
}

/// What can be asked of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Stop at the next safe point, to be resumed later.
    Pause,
    /// End at the next safe point; what was done stays.
    Abort,
    /// End at the next safe point and undo what was done.
    Rollback,
}

impl RequestKind {
    /// The name used in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
        }
    }

    /// The inverse of [`RequestKind::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pause, Self::Abort, Self::Rollback].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// The answer to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heartbeat {
    /// The run is still held; what was asked of it meanwhile.
    Held(Option<Request>),
    /// Another runner has taken it over, or a person has abandoned it.
    Lost,
}
