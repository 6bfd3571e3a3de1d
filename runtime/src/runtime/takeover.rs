//! Taking up a run that has begun: to go on with it, or to undo it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Execution, LoadErrors, Report, Runtime};
use crate::{
    error::{NextStep, RunError, codes},
    event::RunOutcome,
    journal::{Holder, Replay, Run, RunStatus, record::GENESIS},
    plan::Binding,
    script::{Bundle, Given},
    stop::Stop,
    world::LiveWorld,
};

/// How a run is taken up again.
#[derive(Debug, Clone, Default)]
pub struct Takeover {
    /// Even if another runner seems to work on it. That one can then no longer write or apply anything.
    pub take_over: bool,
    /// With these scripts instead of the stored ones. Refused unless all that is recorded still matches.
    pub new_script: Option<Bundle>,
}

impl Runtime {
    /// Goes on with a run that died or was paused: runs its scripts again, answers from the journal what is there, and performs the
    /// rest.
    ///
    /// # Errors
    /// The run has ended or another runner works on it; its journal does not verify; its scripts do not load.
    pub async fn resume(&self, run: &Run, how: Takeover, stop: &Stop) -> Result<Report, LoadErrors> {
        match run.status {
            RunStatus::Running | RunStatus::Ended(RunOutcome::Paused) => {}
            RunStatus::Ended(RunOutcome::RollbackIncomplete) => {
                return Err(not_resumable(run, "could not be rolled back completely")
                    .next_step(NextStep::RollBackRun { run: run.id.clone() })
                    .into());
            }
            RunStatus::Ended(outcome) => {
                let stands = outcome.as_str().replace('_', " ");
                return Err(not_resumable(run, &format!("has ended: {stands}")).into());
            }
        }
        self.take_up(run, how, None, stop).await
    }

    /// Undoes what a run has done, whether it died, was paused or ended, or goes on with undoing it.
    ///
    /// # Errors
    /// As for [`Runtime::resume`]; or it was rolled back already.
    pub async fn roll_back(&self, run: &Run, how: Takeover, stop: &Stop) -> Result<Report, LoadErrors> {
        if run.status == RunStatus::Ended(RunOutcome::RolledBack) {
            return Err(not_resumable(run, "was rolled back already").into());
        }
        let why = RunError::new(codes::CANCELLED, format!("{} requested a rollback", self.inner.started_by));
        self.take_up(run, how, Some(why), stop).await
    }

    async fn take_up(
        &self,
        run: &Run,
        how: Takeover,
        only_undo: Option<RunError>,
        stop: &Stop,
    ) -> Result<Report, LoadErrors> {
        let here = self.inner.providers.environment();
        if run.environment != here {
            let why = format!("belongs to environment \"{}\", but this is \"{here}\"", run.environment);
            return Err(not_resumable(run, &why).into());
        }
        if let Some(held) = run.held.as_ref().filter(|_| run.is_alive() && !how.take_over) {
            let why = format!(
                "is running: {} on {}, process {}, last heartbeat {} s ago",
                held.by.who,
                held.by.host,
                held.by.pid,
                held.silent_ms / 1000
            );
            return Err(not_resumable(run, &why)
                .hint(
                    "if you know that it is dead or cut off, add --take-over; it can then change nothing \
                    more",
                )
                .into());
        }
        let store = self.store()?;
        let stored = self.stored(&*store, run).await?;
        let bundle = how.new_script.as_ref().unwrap_or(&stored);
        let prepared = self.prepare(bundle, &given(run))?;
        let binding = store.binding(&run.id).await.map_err(RunError::from)?;
        let binding: Option<Binding> =
            binding.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| {
                RunError::new(codes::JOURNAL, format!("the plan of {} cannot be read: {e}", run.id))
            })?;
        let holder = Holder::this(&self.inner.started_by);
        let acquired = store.acquire(&run.id, run.epoch, &holder).await.map_err(RunError::from)?;
        if !acquired {
            return Err(not_resumable(run, "was just taken over by another runner")
                .next_step(NextStep::ShowRun { run: run.id.clone() })
                .into());
        }
        let last = store.last(&run.id).await.map_err(RunError::from)?;
        let execution = Execution {
            replay: last
                .as_ref()
                .map(|last| Replay::read(Arc::clone(&store), &run.id, last.seq))
                .unwrap_or_default(),
            store: Some(store),
            epoch: run.epoch + 1,
            last: last.map_or((0, GENESIS), |last| (last.seq, last.hash)),
            only_undo,
            new_script: how.new_script.filter(|new| new.hash() != run.bundle),
            started_by: Some(run.started_by.clone()),
            enforcement: binding.map(|binding| self.enforcement(binding, &run.started_by)),
            ..Execution::new(run.id.clone())
        };
        let world = Arc::new(LiveWorld::new(Arc::clone(&self.inner.people)));
        Ok(self.execute(prepared, world, execution, stop).await)
    }
}

fn not_resumable(run: &Run, why: &str) -> RunError {
    RunError::new(codes::NOT_RESUMABLE, format!("run {} {why}", run.id))
}

/// The parameters of a run as they were given.
pub(super) fn given(run: &Run) -> BTreeMap<String, Given> {
    let params = run.params.as_object().into_iter().flatten();
    params.map(|(name, value)| (name.clone(), Given::Value(value.clone()))).collect()
}
