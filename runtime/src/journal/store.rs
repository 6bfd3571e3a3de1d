//! Where journals are kept.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Sealed;
use crate::{event::RunOutcome, script::Bundle};

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
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Why a store could not do what was asked. The message is a fragment without a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hints: Vec<String>,
}

impl StoreError {
    /// An error without hints yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new() }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// Keeps runs, their records and their scripts.
#[async_trait]
pub trait Store: Send + Sync {
    /// Keeps a new run and its scripts. Not necessarily durable before the first durable append.
    async fn create(&self, run: &Run, bundle: &Bundle) -> Result<(), StoreError>;

    /// Appends records that follow the last one of the run. With `durable`, they and all before them survive a power failure
    /// once this returns. Refused if the run's epoch is not `epoch`: another runner has taken it over.
    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError>;

    /// Sets how the run stands.
    async fn end(&self, run: &str, epoch: i64, status: RunStatus, at: Timestamp) -> Result<(), StoreError>;

    /// The latest runs, newest first.
    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError>;

    /// The runs whose id is `id`, or starts or ends with it.
    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError>;

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

    /// Where it is, for people.
    fn describe(&self) -> String;
}
