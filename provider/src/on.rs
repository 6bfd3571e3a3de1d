//! What an effect and the providers it asks have at hand.

use std::{fmt, ops::Deref, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, SystemClock},
    effect_id::EffectId,
    provider::{ProviderError, Providers},
    secret::Vault,
};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How far a change has come into effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It is in effect.
    Settled,
    /// Not yet. `total` 0 means not known.
    Waiting {
        /// How much is done.
        done: u64,
        /// Of how much.
        total: u64,
        /// What is being waited for, such as `3 connections still on blue`.
        message: String,
    },
}

/// Takes what effects say while they work. `id` is that of the effect in its run. Whoever implements it scrubs secrets.
pub trait Reporter: Send + Sync {
    /// How far an effect is. `total` 0 means not known.
    fn progress(&self, id: &EffectId, done: u64, total: u64, message: String);

    /// A line that something else printed, such as a child process.
    fn output(&self, id: &EffectId, stream: Stream, line: &str);

    /// Something that belongs in the record of the run.
    fn note(&self, id: &EffectId, text: String);
}

/// Nobody listens.
impl Reporter for () {
    fn progress(&self, _: &EffectId, _: u64, _: u64, _: String) {}
    fn output(&self, _: &EffectId, _: Stream, _: &str) {}
    fn note(&self, _: &EffectId, _: String) {}
}

/// Knows whether the run is still in the hands of whoever performs its effects.
#[async_trait]
pub trait Ownership: Send + Sync {
    /// Asks the run store.
    ///
    /// # Errors
    /// Another runner has taken the run over, or that cannot be found out.
    async fn confirm(&self) -> Result<(), ProviderError>;
}

/// Nobody can take over what is no run.
#[async_trait]
impl Ownership for () {
    async fn confirm(&self) -> Result<(), ProviderError> {
        Ok(())
    }
}

/// What all effects of a run have in common.
#[derive(Clone)]
pub struct Surroundings {
    /// The targets.
    pub providers: Arc<Providers>,
    /// The run's time.
    pub clock: Arc<dyn Clock>,
    /// The secrets that the run has read.
    pub vault: Arc<Vault>,
    /// Takes what effects say.
    pub reporter: Arc<dyn Reporter>,
    /// Knows whether the run is still this runner's.
    pub ownership: Arc<dyn Ownership>,
}

impl Surroundings {
    /// Targets outside any run: real time, no secrets, nobody who listens.
    pub fn detached(providers: Arc<Providers>) -> Self {
        Self {
            providers,
            clock: Arc::new(SystemClock::default()),
            vault: Arc::default(),
            reporter: Arc::new(()),
            ownership: Arc::new(()),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("providers", &self.providers).finish_non_exhaustive()
    }
}

/// What an effect has at hand while it works: the targets, time, secrets, and a way to say how it goes.
///
/// Derefs to [`Providers`], so `on.get::<dyn Traffic>("web")` finds a target.
#[derive(Debug, Clone)]
pub struct On {
    shared: Arc<Surroundings>,
    id: EffectId,
    key: Arc<str>,
    cancel: CancellationToken,
}

impl Deref for On {
    type Target = Providers;

    fn deref(&self) -> &Providers {
        &self.shared.providers
    }
}

impl On {
    /// What the effect `id` has at hand; `key` is its idempotency key, and `cancel` fires when it should stop.
    pub fn new(
        shared: Arc<Surroundings>,
        id: impl Into<EffectId>,
        key: impl Into<Arc<str>>,
        cancel: CancellationToken,
    ) -> Self {
        Self { shared, id: id.into(), key: key.into(), cancel }
    }

    /// What an effect has at hand outside any run, for tests of providers and effects: real time, no secrets, nobody who listens.
    pub fn detached(providers: Arc<Providers>) -> Self {
        Self::outside(Surroundings::detached(providers))
    }

    /// What an effect has at hand outside any run.
    pub fn outside(surroundings: Surroundings) -> Self {
        Self::new(Arc::new(surroundings), "detached", "detached", CancellationToken::new())
    }

    /// What all effects of the run have in common.
    pub fn surroundings(&self) -> &Surroundings {
        &self.shared
    }

    /// The run's time. The only clock and the only sleep that an effect may use.
    pub fn clock(&self) -> &dyn Clock {
        &*self.shared.clock
    }

    /// The bytes of secrets.
    pub fn vault(&self) -> &Vault {
        &self.shared.vault
    }

    /// Id of the effect in its run, such as `preflight/1:probe.http`.
    pub fn id(&self) -> &EffectId {
        &self.id
    }

    /// A key that is the same when this effect is sent again after a crash and differs from every other effect's, for receivers
    /// that take one (`Idempotency-Key`, `dedup_key`).
    pub fn idempotency_key(&self) -> &str {
        &self.key
    }

    /// Fires when the effect should stop: its deadline passed or the run is being stopped. An effect's future is also dropped
    /// then; what needs more than that to end (a process group) watches this.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Makes sure that the run is still this runner's. To be asked before each part of a move that has several.
    ///
    /// # Errors
    /// Another runner has taken the run over, or that cannot be found out.
    pub async fn confirm(&self) -> Result<(), ProviderError> {
        self.shared.ownership.confirm().await
    }

    /// Says how far it is. `total` 0 means not known.
    pub fn progress(&self, done: u64, total: u64, message: impl Into<String>) {
        self.shared.reporter.progress(&self.id, done, total, message.into());
    }

    /// Passes on a line that something else printed, such as a child process. Secrets are scrubbed.
    pub fn output(&self, stream: Stream, line: &str) {
        self.shared.reporter.output(&self.id, stream, line);
    }

    /// Says something that belongs in the record of the run, such as that a server is older than what was tested.
    pub fn note(&self, text: impl Into<String>) {
        self.shared.reporter.note(&self.id, text.into());
    }
}
