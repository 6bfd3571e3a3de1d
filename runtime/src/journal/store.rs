//! Where journals are kept.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Sealed;
use crate::{
    effect::{Question, Reply},
    error::NextStep,
    event::RunOutcome,
    script::Bundle,
};

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

/// Why a store could not do what was asked. The message is a fragment without a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hints: Vec<String>,
    /// The same as data, where a program can say how.
    pub next: Vec<NextStep>,
    /// Whether the run belongs to another runner now.
    pub lost: bool,
}

impl StoreError {
    /// An error without hints yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new(), next: Vec::new(), lost: false }
    }

    /// Another runner has the run now.
    pub fn lost(run: &str) -> Self {
        Self { lost: true, ..Self::new(format!("another runner has taken over the run {run}")) }
            .next_step(NextStep::ShowRun { run: run.to_owned() })
    }

    /// Adds what to do next, as data.
    #[must_use]
    pub fn next_step(mut self, step: NextStep) -> Self {
        self.next.push(step);
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
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

/// A target that a run has for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// Environment of the target.
    pub environment: String,
    /// The target, as `noun/name`.
    pub target: String,
    /// The run.
    pub run: String,
    /// Who began that run.
    pub started_by: String,
    /// Since when.
    pub since: Timestamp,
}

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// The run.
    pub run: String,
    /// Id of the wait.
    pub id: String,
    /// What is asked.
    pub question: Question,
    /// Since when.
    pub at: Timestamp,
    /// When it can no longer be answered.
    pub until: Option<Timestamp>,
}

/// A saved plan that a run uses up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// Hash of the plan.
    pub plan: String,
    /// When it expires. That it was used is remembered at least until then.
    pub until: Timestamp,
    /// What the run is bound to, as text.
    pub binding: String,
}

/// Keeps runs, their records and their scripts.
#[async_trait]
pub trait Store: Send + Sync {
    /// Keeps a new run, its scripts and who works on it. Not necessarily durable before the first durable append.
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError>;

    /// The same for a run from a plan, which is used up with it. Of many runs from one plan, one is created. Else nothing is written,
    /// and the answer is the run that has used it.
    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError>;

    /// The run that has used a plan.
    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError>;

    /// What a run from a plan is bound to: [`Used::binding`].
    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError>;

    /// Keeps what somebody says to a plan, which expires at `until`.
    async fn approve(&self, plan: &str, until: Timestamp, reply: &Reply) -> Result<(), StoreError>;

    /// What was said to a plan so far, oldest first.
    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError>;

    /// Forgets what was said to a plan that was found not to hold any more.
    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError>;

    /// Takes a run over if its epoch still is `epoch`: raises it by one, marks the run as running and forgets what was asked of
    /// it. Of many that try at the same moment, one gets `true`.
    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError>;

    /// Exchanges the scripts of a run.
    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError>;

    /// Gives a sign of life.
    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError>;

    /// Asks something of a run that goes on. Its holder learns it with its next sign of life.
    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError>;

    /// Appends records that follow the last one of the run. With `durable`, they and all before them survive a power failure
    /// once this returns, also where there are no records. Refused if the run's epoch is not `epoch`: another runner has taken it
    /// over.
    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError>;

    /// Sets how the run stands and that nobody works on it. Frees its locks and forgets its questions, unless it can go on.
    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError>;

    /// Takes a target for a run. `None`: it has it now, or had it. Else who has it.
    async fn lock(
        &self,
        run: &str,
        epoch: i64,
        environment: &str,
        target: &str,
    ) -> Result<Option<Lock>, StoreError>;

    /// All locks, oldest first.
    async fn locks(&self) -> Result<Vec<Lock>, StoreError>;

    /// Shows a question to whoever can answer it.
    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError>;

    /// The open questions of a run, or of all runs, oldest first.
    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError>;

    /// Answers a question of a run. `false`: it is not open, or its time is over.
    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError>;

    /// The answers to a question so far, oldest first.
    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError>;

    /// Closes a question: it was answered, or nobody waits for the answer any more.
    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError>;

    /// The latest runs, newest first.
    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError>;

    /// The runs whose id is `id`, or starts or ends with it.
    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError>;

    /// The last record of a run.
    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError>;

    /// The next records of a run behind `after`, in order; as many as suit the store. None: there are no more.
    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError>;

    /// All records of a run, in order.
    async fn records(&self, run: &str) -> Result<Vec<Sealed>, StoreError> {
        let mut records: Vec<Sealed> = Vec::new();
        loop {
            let page = self.page(run, records.last().map_or(0, |last| last.seq)).await?;
            if page.is_empty() {
                return Ok(records);
            }
            records.extend(page);
        }
    }

    /// The script bundle of that hash.
    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError>;

    /// Removes runs that ended before `before` and cannot go on, with their records, and scripts that no run needs any more. Plans that
    /// expired before then are forgotten, with what was said to them.
    /// Answers how many runs.
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Looks for damage below the level of records, as far as the database can tell. Empty: none found.
    async fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Where it is, for people. Without credentials.
    fn describe(&self) -> String;
}
