//! What effects come to in the rehearsed world.

use std::time::Duration;

use async_trait::async_trait;
use contraflow_provider::effect_id::{EffectId, Segment};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{MOMENT, RehearsedWorld, lock};
use crate::{
    effect::{AnyAction, AnyChange, AnyRead, AnyWait, On, Progress, Question, QuestionKind, Reply, Until},
    error::codes,
    event::{Event, Grade, Kind, Mode},
    provider::ProviderError,
    rehearsal::{
        faults::{bad_end, unreachable},
        initial_state::{self, Told},
        scenario::Fault,
    },
    world::{Known, Waited, Waiting, World},
};

#[async_trait]
impl World for RehearsedWorld {
    fn mode(&self) -> Mode {
        Mode::Rehearsal
    }

    fn may_not_know(&self) -> bool {
        true
    }

    fn no_return(&self, id: &EffectId) {
        self.simulation.state().no_return.push(id.clone());
    }

    fn invariant(&self, id: &EffectId) -> Option<usize> {
        let mut simulated = self.simulation.state();
        let moves = simulated.history.len();
        Some(*simulated.invariant_since.entry(id.clone()).or_insert(moves))
    }

    async fn observe(&self, on: &On, change: &dyn AnyChange) -> Result<(Value, Grade), ProviderError> {
        let what = || change.target().to_string();
        if self.at(on, Kind::Change, false, change.effect(), what, || vec![Fault::Unreachable]).is_some() {
            return Err(unreachable(on));
        }
        let key = initial_state::key(change);
        if let Some(state) = self.simulation.state().states.get(&key) {
            return Ok((state.clone(), Grade::Observed));
        }
        let state = self.initial_state.state(change, &key)?;
        self.simulation.state().found(&key, &state);
        Ok((state, Grade::Observed))
    }

    async fn apply(
        &self,
        on: &On,
        change: &dyn AnyChange,
        _: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        let faults = || {
            let always =
                [Fault::Refused, Fault::LostAnswer, Fault::TimesOut, Fault::NeverSettles, Fault::Killed];
            always.into_iter().chain(Self::breaches(on)).collect()
        };
        let fault = self.at(on, Kind::Change, false, change.effect(), || change.target().to_string(), faults);
        match fault {
            Some(Fault::NeverSettles) => {
                lock(&self.unsettled).insert(on.id().clone());
            }
            Some(Fault::Breach(guard)) => self.token(guard).cancel(),
            _ => {}
        }
        self.act(on, fault, || self.set(on, change, to)).await
    }

    async fn settled(&self, on: &On, change: &dyn AnyChange, _: &Value) -> Result<Progress, ProviderError> {
        let breached = lock(&self.guards).values().any(CancellationToken::is_cancelled);
        if breached {
            on.clock().sleep(MOMENT).await;
        }
        if !lock(&self.unsettled).contains(on.id()) {
            return Ok(Progress::Settled);
        }
        // Looks that take nearly as long as they may: same outcome after fewer of them.
        on.clock().sleep(change.limits().timeout * 9 / 10).await;
        Ok(Progress::Waiting { done: 0, total: 0, message: "rehearsed: it never settles".to_owned() })
    }

    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError> {
        let faults = || {
            let always = [Fault::Refused, Fault::LostAnswer, Fault::TimesOut, Fault::Killed];
            always.into_iter().chain(Self::breaches(on)).collect()
        };
        let done = || {
            let mut simulated = self.simulation.state();
            simulated.performed.insert(on.id().clone());
            simulated.touched.extend(action.touches());
        };
        let fault = self.at(on, Kind::Action, false, action.effect(), || action.describe(), faults);
        if let Some(Fault::Breach(guard)) = fault {
            self.breach(on, guard).await;
        }
        self.act(on, fault, done).await?;
        let told = self.initial_state.told(
            action.effect(),
            &action.describe(),
            || action.input(),
            || self.view(),
        )?;
        let told = match told {
            None => self.initial_state.written(action.effect(), action.input())?.map(Told::Value),
            told => told,
        };
        Ok(match told {
            Some(Told::Value(value)) => (Known::Value(value), Grade::Observed),
            Some(Told::Fails(why)) => return Err(ProviderError::terminal(codes::PROVIDER, why)),
            Some(Told::Passes) | None => match action.planned() {
                Some(value) => (Known::Value(value), Grade::Assumed),
                None => (Known::Unknown, Grade::Unknown),
            },
        })
    }

    async fn take_back(&self, on: &On, action: &dyn AnyAction, _: &Value) -> Result<(), ProviderError> {
        let faults = || vec![Fault::Refused, Fault::LostAnswer, Fault::TimesOut, Fault::Killed];
        let fault = self.at(on, Kind::Action, false, action.effect(), || action.describe(), faults);
        self.act(on, fault, || {
            self.simulation.state().taken_back.insert(on.id().clone());
        })
        .await
    }

    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError> {
        let verdicts = read.verdicts();
        let faults = || {
            let bad = verdicts.iter().map(|verdict| Fault::Verdict(verdict.name.clone()));
            std::iter::once(Fault::Unreachable).chain(bad).chain(Self::breaches(on)).collect()
        };
        let what = || read.describe();
        let touched = self.is_touched(&read.depends_on());
        let repeated = self.is_bad(on, read);
        let open = touched && repeated.is_none();
        match self.at(on, Kind::Read, open, read.effect(), what, faults) {
            Some(Fault::Unreachable) => return Err(unreachable(on)),
            Some(Fault::Verdict(name)) => {
                let error = bad_end(on, verdicts, Some(name));
                lock(&self.bad).insert((read.effect(), read.describe()), error.clone());
                return Err(error);
            }
            Some(Fault::Breach(guard)) => self.breach(on, guard).await,
            _ => {}
        }
        if let Some(error) = repeated {
            return Err(error);
        }
        let fails = |why: String| {
            let end = bad_end(on, read.verdicts(), None);
            ProviderError { message: why, ..end }.about(read.describe())
        };
        let well = || match read.assumed().filter(|_| !self.initial_state.plans) {
            Some(value) => (Known::Value(value), Grade::Assumed),
            None => (Known::Unknown, Grade::Assumed),
        };
        match self.initial_state.told(read.effect(), &read.describe(), || read.input(), || self.view())? {
            Some(Told::Value(value)) => return Ok((Known::Value(value), Grade::Observed)),
            Some(Told::Passes) => return Ok(well()),
            Some(Told::Fails(why)) => return Err(fails(why)),
            None => {}
        }
        if touched && read.is_check() {
            return Ok(well());
        }
        if let Some(target) = read.depends_on().into_iter().next() {
            let key = initial_state::read_key(&target, read);
            let state = self.simulation.state().states.get(&key).cloned();
            if let Some(state) = state
                && let Some(value) = self.initial_state.answer_after(read, &state)
            {
                let grade =
                    if touched && self.initial_state.plans { Grade::Assumed } else { Grade::Observed };
                return Ok((Known::Value(value), grade));
            }
        }
        Ok(match self.initial_state.answer(read)? {
            Some(value) => (Known::Value(value), if touched { Grade::Stale } else { Grade::Observed }),
            None => well(),
        })
    }

    async fn wait(&self, on: &On, wait: &dyn AnyWait, waiting: Waiting<'_>) -> Result<Waited, ProviderError> {
        let until = wait.until();
        let verdicts = wait.verdicts();
        let faults = || {
            let own: Vec<Fault> = match &until {
                Until::Elapsed(_) => Vec::new(),
                Until::Answered(_) => vec![Fault::Denied, Fault::NoAnswer],
                Until::Polled { .. } => {
                    let bad = verdicts.iter().map(|verdict| Fault::Verdict(verdict.name.clone()));
                    let late = wait.deadline().map(|_| Fault::TimesOut);
                    std::iter::once(Fault::Unreachable).chain(bad).chain(late).collect()
                }
            };
            own.into_iter().chain(Self::breaches(on)).collect()
        };
        let clock = on.clock();
        let grade = if self.initial_state.plans { Grade::Assumed } else { Grade::Observed };
        let known = |answer| Waited { answer, grade, at_least: Duration::ZERO };
        let left = |span: Duration| span.saturating_sub(waiting.waited);
        let seen = match &until {
            Until::Polled { at_least, .. } if self.initial_state.plans => self.foreseen(wait, *at_least)?,
            _ => None,
        };
        let open = seen.is_none() && !matches!(until, Until::Elapsed(_));
        let fault = self.at(on, Kind::Wait, open, wait.effect(), || wait.describe(), faults);
        match (&until, fault) {
            (_, Some(Fault::Breach(guard))) => {
                if let Until::Elapsed(span) | Until::Polled { at_least: span, .. } = &until {
                    clock.sleep(left(*span) / 2).await;
                }
                self.breach(on, guard).await;
            }
            (_, Some(Fault::Unreachable)) => return Err(unreachable(on)),
            (Until::Polled { at_least, .. }, Some(Fault::Verdict(name))) => {
                clock.sleep(left(*at_least) / 2).await;
                return Err(bad_end(on, verdicts, Some(name)));
            }
            (_, Some(Fault::NoAnswer | Fault::TimesOut)) => {
                return match wait.deadline() {
                    Some(deadline) => {
                        clock.sleep(left(deadline)).await;
                        wait.on_timeout().map(|answer| known(Known::Value(answer)))
                    }
                    None => std::future::pending().await,
                };
            }
            (Until::Answered(question), Some(Fault::Denied)) => {
                let replies = vec![Reply::new(false, "person-1")];
                waiting.channel.emit(Event::Asked { id: on.id().clone(), question: question.clone() });
                waiting.channel.record_reply(&replies[0]).await;
                return wait.answer(&replies).map(|answer| known(Known::Value(answer)));
            }
            _ => {}
        }
        match until {
            Until::Elapsed(span) => {
                clock.sleep(left(span)).await;
                wait.answer(&[]).map(|answer| known(Known::Value(answer)))
            }
            Until::Answered(question) => {
                let replies = self.ask(on, &question, waiting).await?;
                wait.answer(&replies).map(|answer| known(Known::Value(answer)))
            }
            Until::Polled { .. } if seen.is_some() => {
                let answer = seen.map_or(Known::Unknown, Known::Value);
                Ok(Waited { grade: Grade::Observed, ..known(answer) })
            }
            Until::Polled { at_least, .. } if self.initial_state.plans => {
                clock.sleep(left(at_least)).await;
                Ok(known(Known::Unknown))
            }
            Until::Polled { at_least, .. } => {
                if let Err(error) = self.initial_state.polled(wait) {
                    // What it finds once something was changed is not what is found now; that it cannot be asked at all stays.
                    let own = verdicts.iter().any(|verdict| verdict.error.code == error.code);
                    if !own || !self.is_touched(&wait.depends_on()) {
                        return Err(error);
                    }
                }
                let told = self.initial_state.told(
                    wait.effect(),
                    &wait.describe(),
                    || wait.input(),
                    || self.view(),
                )?;
                clock.sleep(left(at_least)).await;
                Ok(match told {
                    Some(Told::Value(value)) => known(Known::Value(value)),
                    Some(Told::Fails(why)) => {
                        let end = bad_end(on, verdicts, None);
                        return Err(ProviderError { message: why, ..end }.about(wait.describe()));
                    }
                    Some(Told::Passes) | None => known(wait.assumed().map_or(Known::Unknown, Known::Value)),
                })
            }
        }
    }

    async fn watch(&self, on: &On, watch: &dyn AnyWait) -> ProviderError {
        // Each guard can watch several things; which of them finds something makes no difference.
        let guard = match on.id().last().segment {
            Segment::Watch { guard, .. } => guard,
            _ => on.id(),
        };
        self.token(guard).cancelled().await;
        ProviderError::terminal(codes::GUARD_BREACHED, format!("rehearsed: {}", watch.describe()))
    }

    async fn ask(
        &self,
        on: &On,
        question: &Question,
        waiting: Waiting<'_>,
    ) -> Result<Vec<Reply>, ProviderError> {
        waiting.channel.emit(Event::Asked { id: on.id().clone(), question: question.clone() });
        let mut replies = Self::yes(question);
        if question.kind == QuestionKind::Doubt {
            // Whoever is asked has found out what is true.
            let simulated = self.simulation.state();
            let can_repeat = question.choices.iter().any(|choice| choice.name == "again");
            let happened = match on.id().undoes() {
                // Whether it was taken back, or whether there is something to take back.
                Some(_) if can_repeat => simulated.taken_back.contains(on.id()),
                Some(id) => simulated.performed.contains(id),
                None => simulated.performed.contains(on.id()),
            };
            drop(simulated);
            let not = if can_repeat { "again" } else { "fail" };
            replies[0].choice = Some(if happened { "done" } else { not }.to_owned());
        }
        for reply in &replies {
            waiting.channel.record_reply(reply).await;
            waiting.channel.emit(Event::Replied { id: on.id().clone(), reply: reply.clone() });
        }
        Ok(replies)
    }
}
