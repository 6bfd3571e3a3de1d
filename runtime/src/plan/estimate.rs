//! How long changes are expected to take: as the target says, or as the same moves took in earlier runs.
//!
//! **Invariant:** an estimate is kept apart from what is certain, and says what it rests on.

use std::{collections::HashMap, time::Duration};

use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

use crate::{
    effect::AnyChange,
    journal::{
        Store,
        record::{Entry, Outcome, Record},
    },
    target::Target,
    vocabulary::Kind,
};

/// So many earlier runs are looked at, the newest ones.
const RUNS: usize = 10;

/// Among so many runs of the store they are looked for.
const AMONG: u32 = 500;

/// So many records are read for it, of all runs together.
const RECORDS: usize = 20_000;

/// A plan waits no longer than this for what is only there to estimate.
const PATIENCE: Duration = Duration::from_secs(2);

/// A move of a target: which effect, of what, from where, to where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Move {
    effect: String,
    target: Target,
    from: String,
    to: String,
}

/// How long moves took in earlier runs, in milliseconds each.
#[derive(Debug, Default)]
pub(crate) struct Earlier(HashMap<Move, Vec<u64>>);

impl Earlier {
    /// What the store knows of earlier runs of that runbook in that environment. What cannot be read is not known.
    pub(crate) async fn learn(store: &dyn Store, runbook: &str, environment: &str) -> Self {
        let mut earlier = Self::default();
        // What was learnt until then counts.
        let _ = tokio::time::timeout(PATIENCE, earlier.read(store, runbook, environment)).await;
        earlier
    }

    async fn read(&mut self, store: &dyn Store, runbook: &str, environment: &str) {
        let Ok(runs) = store.runs(AMONG).await else { return };
        let same = runs.iter().filter(|run| run.runbook == runbook && run.environment == environment);
        let mut left = RECORDS;
        for run in same.take(RUNS) {
            let (mut after, mut open) = (0, HashMap::new());
            while left > 0 {
                let Ok(page) = store.page(&run.id, after).await else { return };
                let Some(last) = page.last() else { break };
                after = last.seq;
                left = left.saturating_sub(page.len());
                page.iter().filter_map(|sealed| sealed.open().ok()).for_each(|it| self.take(&mut open, it));
            }
        }
    }

    /// Takes the next record of a run. `open` has since when changes of that run are being made.
    ///
    /// The time is that from the intent to the outcome: looking, waiting for a turn and asking people do not count. A move that a
    /// runner died in says nothing.
    fn take(&mut self, open: &mut HashMap<EffectId, i64>, Record { at, id, entry, .. }: Record) {
        match entry {
            Entry::Intent { kind: Kind::Change, .. } => {
                open.insert(id, at.as_millisecond());
            }
            Entry::DoubtResolved { .. } => {
                open.remove(&id);
            }
            Entry::Resumed { .. } => open.clear(),
            Entry::Outcome {
                effect,
                target: Some(target),
                result: Outcome::Changed { from, to, .. },
                ..
            } => {
                let took = open.remove(&id).map(|since| at.as_millisecond().saturating_sub(since));
                // A clock that was set back says nothing either.
                if let Some(took) = took.and_then(|took| u64::try_from(took).ok()) {
                    let (from, to) = (from.to_string(), to.to_string());
                    self.0.entry(Move { effect, target, from, to }).or_default().push(took);
                }
            }
            _ => {}
        }
    }

    /// How long that move took: the median.
    pub(crate) fn median(&self, change: &dyn AnyChange, from: &Value, to: &Value) -> Option<Duration> {
        let (effect, target) = (change.effect().to_owned(), change.target());
        let mut took =
            self.0.get(&Move { effect, target, from: from.to_string(), to: to.to_string() })?.clone();
        took.sort_unstable();
        let middle = took.len() / 2;
        let upper = *took.get(middle)?;
        let lower = if took.len() % 2 == 0 { *took.get(middle.checked_sub(1)?)? } else { upper };
        Some(Duration::from_millis(lower.midpoint(upper)))
    }
}
