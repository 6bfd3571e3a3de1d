//! The predicted world: reads are real, changes are kept in an overlay, and every answer says how sure it is.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;

use super::{Foresight, Known, Waited, Waiting, World};
use crate::{
    effect::{AnyAction, AnyChange, AnyRead, AnyWait, On, Polled, Progress, Question, Reply, Until},
    event::{Event, Grade, Mode},
    plan::{Basis, Earlier, Estimate},
    provider::{ProviderError, Retry},
    target::Target,
};

/// Nothing is changed; what would be is carried forward.
#[derive(Debug, Default)]
pub struct PredictedWorld {
    overlay: Mutex<Overlay>,
    /// How long moves took before.
    earlier: Earlier,
}

/// What a state is carried forward for: a target, for the changes of one noun, in one of its subresources.
type Carried = (Target, &'static str, String);

#[derive(Debug, Default)]
struct Overlay {
    /// States that changes would have left behind.
    states: HashMap<Carried, Value>,
    /// Targets of which it is no longer known what they would answer.
    touched: BTreeSet<Target>,
    /// What may have made later targets ready: the nouns of changes, and of actions that may alter anything.
    altered: BTreeSet<&'static str>,
}

impl PredictedWorld {
    /// One that knows how long moves took in earlier runs.
    pub(crate) fn knowing(earlier: Earlier) -> Self {
        Self { earlier, ..Self::default() }
    }

    /// How long a move may take: what the target says of this one counts more than how others went.
    async fn estimate(&self, on: &On, change: &dyn AnyChange, from: &Value, to: &Value) -> Option<Estimate> {
        if let Some(span) = change.estimate(on, from, to).await {
            return Some(Estimate::new(span, Basis::Target));
        }
        self.earlier.median(change, from, to).map(|span| Estimate::new(span, Basis::EarlierRuns))
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_touched(&self, targets: &[Target]) -> bool {
        let overlay = self.overlay();
        targets.iter().any(|target| overlay.touched.contains(target))
    }

    /// Whether something of another noun may have made ready what a change of this noun meets.
    fn may_be_ready_by_then(&self, change: &dyn AnyChange) -> bool {
        self.overlay().altered.iter().any(|noun| *noun != family(change.effect()))
    }

    /// The state that an earlier change of the same family left, such as `traffic.set` after `traffic.shift`.
    fn carried(&self, change: &dyn AnyChange) -> Option<Value> {
        self.overlay().states.get(&carried_for(change)).cloned()
    }
}

fn carried_for(change: &dyn AnyChange) -> Carried {
    (change.target(), family(change.effect()), change.subresource())
}

/// Changes of one noun share the states of its targets.
fn family(effect: &'static str) -> &'static str {
    effect.split_once('.').map_or(effect, |(noun, _)| noun)
}

#[async_trait]
impl World for PredictedWorld {
    fn mode(&self) -> Mode {
        Mode::Plan
    }

    fn sums_up_time(&self) -> bool {
        true
    }

    fn may_not_know(&self) -> bool {
        true
    }

    fn locks_targets(&self) -> bool {
        false
    }

    fn hears_people(&self) -> bool {
        false
    }

    fn undoes(&self) -> bool {
        false
    }

    async fn observe(&self, on: &On, change: &dyn AnyChange) -> Result<(Value, Grade), ProviderError> {
        if let Some(state) = self.carried(change) {
            return Ok((state, Grade::Assumed));
        }
        let grade = if self.is_touched(&[change.target()]) { Grade::Stale } else { Grade::Observed };
        Ok((change.observe(on).await?, grade))
    }

    async fn apply(
        &self,
        _: &On,
        change: &dyn AnyChange,
        _: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        let mut overlay = self.overlay();
        overlay.states.insert(carried_for(change), to.clone());
        overlay.altered.insert(family(change.effect()));
        overlay.touched.insert(change.target());
        overlay.touched.extend(change.touches());
        Ok(())
    }

    async fn settled(&self, _: &On, _: &dyn AnyChange, _: &Value) -> Result<Progress, ProviderError> {
        Ok(Progress::Settled)
    }

    async fn foresee(
        &self,
        on: &On,
        change: &dyn AnyChange,
        grade: Grade,
        from: &Value,
        to: &Value,
    ) -> Result<Foresight, ProviderError> {
        let refusal = match change.ready(on, to).await {
            Ok(()) => None,
            Err(error) if error.retry == Retry::Never && self.may_be_ready_by_then(change) => {
                Some(format!("as things are now, a run would be refused this: {}", error.message))
            }
            Err(error) => return Err(error),
        };
        // Trying it without effect says something only where it would start from what is really there.
        let note = if grade == Grade::Observed { change.rehearse(on, from, to).await? } else { None };
        let note = match (refusal, note) {
            (Some(refusal), Some(note)) => Some(format!("{refusal}; {note}")),
            (refusal, note) => refusal.or(note),
        };
        Ok(Foresight { note, estimate: self.estimate(on, change, from, to).await })
    }

    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError> {
        action.rehearse(on).await?;
        let mut overlay = self.overlay();
        if action.alters() {
            overlay.altered.insert(family(action.effect()));
        }
        overlay.touched.extend(action.touches());
        drop(overlay);
        Ok(match action.planned() {
            Some(value) => (Known::Value(value), Grade::Assumed),
            None => (Known::Unknown, Grade::Unknown),
        })
    }

    async fn take_back(&self, _: &On, _: &dyn AnyAction, _: &Value) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError> {
        let touched = self.is_touched(&read.depends_on());
        if touched && read.is_check() {
            return Ok((Known::Unknown, Grade::Assumed));
        }
        if let Some(target) = read.depends_on().into_iter().next().filter(|_| touched) {
            let carried =
                self.overlay().states.get(&(target, family(read.effect()), read.subresource())).cloned();
            if let Some(state) = carried
                && let Some(value) = read.read_after(on, &state).await?
            {
                return Ok((Known::Value(value), Grade::Assumed));
            }
        }
        let value = read.read(on).await?;
        Ok((Known::Value(value), if touched { Grade::Stale } else { Grade::Observed }))
    }

    async fn wait(&self, on: &On, wait: &dyn AnyWait, waiting: Waiting<'_>) -> Result<Waited, ProviderError> {
        let assumed = |answer, at_least| Waited { answer, grade: Grade::Assumed, at_least };
        match wait.until() {
            Until::Elapsed(span) => Ok(assumed(Known::Value(wait.answer(&[])?), span)),
            Until::Answered(question) => {
                let replies = self.ask(on, &question, waiting).await?;
                Ok(assumed(Known::Value(wait.answer(&replies)?), Duration::ZERO))
            }
            Until::Polled { at_least, .. } => {
                if self.is_touched(&wait.depends_on()) {
                    return Ok(assumed(Known::Unknown, at_least));
                }
                // One look, so that a gate that could not even be asked is found now.
                let mut memory = wait.memory(None);
                Ok(match wait.poll(on, &mut memory, Duration::ZERO).await? {
                    Polled::Over(answer) if at_least.is_zero() => {
                        Waited { grade: Grade::Observed, ..assumed(Known::Value(answer), at_least) }
                    }
                    Polled::Over(_) | Polled::Waiting(_) => assumed(Known::Unknown, at_least),
                })
            }
        }
    }

    async fn watch(&self, _: &On, _: &dyn AnyWait) -> ProviderError {
        // A plan looks once, where the guard begins.
        std::future::pending().await
    }

    async fn ask(
        &self,
        on: &On,
        question: &Question,
        waiting: Waiting<'_>,
    ) -> Result<Vec<Reply>, ProviderError> {
        waiting.channel.emit(Event::Asked { id: on.id().to_owned(), question: question.clone() });
        Ok(vec![Reply::new(true, "assumed")])
    }
}
