//! What a plan needs, and whether it can be reached.

use std::{sync::Arc, time::Duration};

use contraflow_runtime::{
    journal::{RunStatus, Store},
    plan::Foreseen,
    provider::Providers,
    target::Target,
};
use serde::Serialize;

/// Longest wait for an answer. All are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

/// A target or a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Need {
    /// Which one.
    pub(crate) target: Target,
    /// What stands behind it.
    pub(crate) provider: String,
    /// Where it is.
    pub(crate) at: String,
    /// Whether it answered.
    pub(crate) reachable: bool,
    /// What it answered, or why it cannot be reached.
    pub(crate) says: String,
}

impl Need {
    /// Asks all that a plan needs, of what is bound, in the order of their names.
    pub(crate) async fn look(foreseen: &Foreseen, providers: &Providers) -> Vec<Self> {
        let mut asked = Vec::new();
        for binding in providers.bindings() {
            let target = Target::new(binding.noun, &binding.name);
            if !foreseen.targets.contains(&target) {
                continue;
            }
            let provider = Arc::clone(&binding.provider);
            let check = tokio::spawn(async move { tokio::time::timeout(PATIENCE, provider.check()).await });
            asked.push((target, binding, check));
        }
        let mut needs = Vec::new();
        for (target, binding, check) in asked {
            let (reachable, says) = match check.await {
                Ok(Ok(Ok(text))) => (true, text),
                Ok(Ok(Err(error))) => (false, error.message),
                Ok(Err(_)) => (false, format!("no answer within {}s", PATIENCE.as_secs())),
                Err(_) => (false, "the check ended without an answer".to_owned()),
            };
            let (provider, at) = (binding.provider.kind().to_owned(), binding.provider.describe());
            needs.push(Self { target, provider, at, reachable, says });
        }
        needs.sort_by(|a, b| a.target.cmp(&b.target));
        needs
    }

    /// Its name for people: secrets are called by what they are.
    pub(crate) fn name(&self) -> String {
        match self.target.noun() {
            "secrets" => format!("secret {}", self.target.name()),
            _ => self.target.to_string(),
        }
    }
}

/// A target that another run keeps for itself: whoever runs the plan now is refused there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    /// Which target.
    pub(crate) target: String,
    /// Which run.
    pub(crate) run: String,
    /// How that run stands: `running`, `died`, `paused`, `rollback incomplete`.
    pub(crate) state: String,
    /// Who began it.
    pub(crate) started_by: String,
}

impl Held {
    /// What of `wanted` is kept by runs in an environment. Nothing, if the store does not say.
    pub(crate) async fn look(
        store: &dyn Store,
        environment: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        for lock in store.locks().await.unwrap_or_default() {
            if lock.environment != environment || !wanted(&lock.target) {
                continue;
            }
            let found = store.find(&lock.run).await.unwrap_or_default();
            let state = match found.iter().find(|run| run.id == lock.run) {
                Some(run) if run.status == RunStatus::Running && !run.is_alive() => "died".to_owned(),
                Some(run) => run.status.as_str().replace('_', " "),
                None => "unknown".to_owned(),
            };
            all.push(Self { target: lock.target, run: lock.run, state, started_by: lock.started_by });
        }
        all.sort_by(|a, b| a.target.cmp(&b.target));
        all
    }

    /// How the run stands and who began it.
    pub(crate) fn told(&self) -> String {
        format!("{}, started by {}", self.state, self.started_by)
    }
}
