//! Where journals are kept: one trait for each thing that is kept there, and [`Store`] for all of them.

use async_trait::async_trait;
use contraflow_provider::effect_id::EffectId;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    record::Sealed,
    run::{Heartbeat, Holder, Request, Run, RunStatus},
};
use crate::{
    bundle::Bundle,
    effect::{Question, Reply},
    error::NextStep,
};

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
    pub id: EffectId,
    /// What is asked.
    pub question: Question,
    /// Since when.
    pub at: Timestamp,
    /// When the question can no longer be answered.
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

/// Keeps runs and their scripts: how they stand, who works on them, what is asked of them.
#[async_trait]
pub trait RunStore: Send + Sync {
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

    /// Takes a run over if its epoch still is `epoch`: raises it by one, marks the run as running and forgets what was asked of
    /// it. Of many that try at the same moment, one gets `true`.
    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError>;

    /// Exchanges the scripts of a run.
    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError>;

    /// Gives a sign of life.
    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError>;

    /// Asks something of a run that goes on. Its holder learns it with its next sign of life.
    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError>;

    /// Sets how the run stands and that nobody works on it. Frees its locks and forgets its questions, unless it can go on.
    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError>;

    /// The latest runs, newest first.
    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError>;

    /// The runs whose id is `id`, or starts or ends with it.
    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError>;

    /// The script bundle of that hash.
    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError>;
}

/// Keeps the records of runs.
#[async_trait]
pub trait RecordStore: Send + Sync {
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
}

/// Keeps which run has which target for itself.
#[async_trait]
pub trait LockStore: Send + Sync {
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
}

/// Keeps what runs ask people, and the answers.
#[async_trait]
pub trait QuestionStore: Send + Sync {
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
}

/// Keeps which saved plans were used, and what was said to them.
#[async_trait]
pub trait PlanStore: Send + Sync {
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
}

/// Keeps the store itself in order.
#[async_trait]
pub trait Maintenance: Send + Sync {
    /// Removes runs that ended before `before` and cannot go on, with their records, and scripts that no run needs any more. Plans that
    /// expired before then are forgotten, with what was said to them.
    /// Answers how many runs.
    async fn prune(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// Looks for damage below the level of records, as far as the database can tell. Empty: none found.
    async fn check(&self) -> Result<Vec<String>, StoreError>;

    /// Where it is, for people. Without credentials.
    fn describe(&self) -> String;
}

/// A store of everything that runs need. Whoever needs less asks for one of its parts.
pub trait Store: RunStore + RecordStore + LockStore + QuestionStore + PlanStore + Maintenance {}

impl<T> Store for T where
    T: RunStore + RecordStore + LockStore + QuestionStore + PlanStore + Maintenance + ?Sized
{
}
