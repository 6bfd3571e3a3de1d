//! How a change is performed.

use std::sync::{Arc, atomic::Ordering};

use serde_json::Value;

use super::{
    AnyChange, Call, Kernel, Request, UndoEntry, Undoing,
    record::Ending,
    retry::{GaveUp, Stop},
};
use crate::{
    effect::{Limits, Progress},
    error::{RunError, codes},
    event::Event,
    journal::{Outcome, record::Moved},
    quantity::Span,
    world::Known,
};

/// A change that did not come into effect.
pub(super) struct NotMoved {
    pub(super) gave_up: GaveUp,
    /// The move may have happened all the same, in whole or in part.
    pub(super) happened: bool,
    pub(super) intended: bool,
}

impl Kernel {
    pub(super) async fn do_change(&self, call: &Call, change: Arc<dyn AnyChange>) -> Result<Known, RunError> {
        let target = change.target();
        if let Some((outcome, attempts, elapsed_ms)) = self.recorded(call)? {
            self.replayed(call, Some(target), String::new, &outcome, attempts, elapsed_ms);
            return self.replay_change(call, change, outcome);
        }
        self.started(call, Some(&target), String::new());
        let order = self.target_lock(&target);
        let _turn = order.lock().await;
        let limits = change.limits();
        let looked = self
            .attempt(call, &limits, Stop::AtOnce, async || self.world.observe(call.on(), &*change).await)
            .await;
        let found = looked.and_then(|((from, grade), attempts)| match change.desired(&from) {
            Ok(to) => Ok((from, to, grade, attempts)),
            Err(error) => {
                Err(GaveUp { error: RunError { effect: Some(call.id.clone()), ..error.into() }, attempts })
            }
        });
        let (from, to, grade, attempts) = match found {
            Ok(found) => found,
            Err(GaveUp { error, attempts }) => {
                return self.failed(call, &*change, error, attempts, None, false).await;
            }
        };
        if from == to {
            let outcome = Outcome::Unchanged { text: change.show(&to), state: to.clone() };
            self.ended(call, Ending { grade, target: Some(target), ..Ending::new(outcome, attempts) }).await;
            return Ok(self.clean(Known::Value(to)));
        }
        let note = match self
            .attempt(call, &Limits { attempts: 1, ..limits }, Stop::AtOnce, async || {
                self.world.foresee(call.on(), &*change, grade, &from, &to).await
            })
            .await
        {
            Ok((note, _)) => note,
            Err(GaveUp { error, attempts }) => {
                return self.failed(call, &*change, error, attempts, None, false).await;
            }
        };
        match self.move_target(call, &*change, &from, &to, false).await {
            Ok(attempts) => {
                self.count_change();
                let outcome = self.moved(call, &change, from, &to, false);
                self.ended(
                    call,
                    Ending {
                        grade,
                        target: Some(target),
                        intended: true,
                        note,
                        ..Ending::new(outcome, attempts)
                    },
                )
                .await;
                Ok(self.clean(Known::Value(to)))
            }
            Err(NotMoved { gave_up: GaveUp { error, attempts }, happened, intended }) => {
                if happened {
                    self.count_change();
                }
                let moved = happened.then_some(Moved { from, to });
                if let Some(Moved { from, to }) = moved.clone() {
                    self.moved(call, &change, from, &to, true);
                }
                self.failed(call, &*change, error, attempts, moved, intended).await
            }
        }
    }

    /// What a rollback changes is not counted: it is there to make up for what was.
    fn count_change(&self) {
        if !self.state.rolling_back.load(Ordering::Relaxed) {
            self.state.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts the undo of a move on the stack and answers the outcome to record.
    fn moved(
        &self,
        call: &Call,
        change: &Arc<dyn AnyChange>,
        from: Value,
        to: &Value,
        failed: bool,
    ) -> Outcome {
        let undo = change.undo(&from, to);
        let (from_text, to_text) = (change.show(&from), change.show(to));
        self.push_undo(UndoEntry {
            id: call.id.clone(),
            what: format!("{} {}: {from_text} -> {to_text}", change.effect(), change.target()),
            doing: Undoing::Change {
                change: Arc::clone(change),
                input: call.input.clone(),
                from: from.clone(),
                to: to.clone(),
                undo: undo.clone(),
                failed,
            },
        });
        Outcome::Changed { from, to: to.clone(), from_text, to_text, undo }
    }

    async fn failed(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        error: RunError,
        attempts: u32,
        happened: Option<Moved>,
        intended: bool,
    ) -> Result<Known, RunError> {
        let outcome = Outcome::Failed { error: error.clone(), happened };
        self.ended(
            call,
            Ending { target: Some(change.target()), intended, ..Ending::new(outcome, attempts) },
        )
        .await;
        Err(error)
    }

    fn replay_change(
        &self,
        call: &Call,
        change: Arc<dyn AnyChange>,
        outcome: Outcome,
    ) -> Result<Known, RunError> {
        match outcome {
            Outcome::Unchanged { state, .. } => Ok(Known::Value(state)),
            Outcome::Changed { from, to, .. } => {
                self.count_change();
                self.moved(call, &change, from, &to, false);
                Ok(Known::Value(to))
            }
            Outcome::Failed { error, happened } => {
                if let Some(Moved { from, to }) = happened {
                    self.count_change();
                    self.moved(call, &change, from, &to, true);
                }
                Err(error)
            }
            Outcome::Performed { .. } | Outcome::Answered { .. } => Err(unfit(call)),
        }
    }

    /// Intent, apply, settle. Answers how often it was tried.
    pub(super) async fn move_target(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
        rollback: bool,
    ) -> Result<u32, NotMoved> {
        let target = change.target();
        let (from_text, to_text) = (change.show(from), change.show(to));
        let text = format!("{from_text} -> {to_text}");
        let refused = |error: RunError, intended| NotMoved {
            gave_up: GaveUp { error: RunError { effect: Some(call.id.clone()), ..error }, attempts: 1 },
            happened: false,
            intended,
        };
        self.ask_policies(&Request {
            environment: &self.environment,
            id: &call.id,
            kind: call.kind,
            effect: call.effect,
            target: Some(&target),
            states: Some((from, to)),
            text: &text,
            rollback,
        })
        .map_err(|e| refused(e, false))?;
        self.intend(call, Some(&target), Some((from, to)), &text).await.map_err(|e| refused(e, false))?;
        self.emit(Event::Applying { id: call.id.clone(), from_text, to_text });
        let limits = change.limits();
        let applied = self
            .attempt(call, &limits, Stop::WhenDone, async || {
                self.world.apply(call.on(), change, from, to).await
            })
            .await;
        let attempts = match applied {
            Ok(((), attempts)) => attempts,
            Err(gave_up) => match self.look_again(call, change, &limits).await {
                // The answer was lost, not the request. A defect is told all the same.
                Some(now) if now == *to && !gave_up.error.is(codes::INTERNAL) => gave_up.attempts,
                Some(now) if now == *from => {
                    return Err(NotMoved { gave_up, happened: false, intended: true });
                }
                _ => return Err(NotMoved { gave_up, happened: true, intended: true }),
            },
        };
        match self.settle(call, change, &limits, to).await {
            Ok(()) => Ok(attempts),
            Err(gave_up) => Err(NotMoved { gave_up, happened: true, intended: true }),
        }
    }

    async fn look_again(&self, call: &Call, change: &dyn AnyChange, limits: &Limits) -> Option<Value> {
        let looked = self
            .attempt(call, limits, Stop::WhenDone, async || self.world.observe(call.on(), change).await)
            .await;
        looked.ok().map(|((state, _), _)| state)
    }

    /// Waits until what was set is in effect.
    async fn settle(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        limits: &Limits,
        to: &Value,
    ) -> Result<(), GaveUp> {
        let clock = &self.shared.clock;
        let start = clock.monotonic();
        loop {
            let (progress, attempts) = self
                .attempt(call, limits, Stop::AtOnce, async || self.world.settled(call.on(), change, to).await)
                .await?;
            let Progress::Waiting { done, total, message } = progress else { return Ok(()) };
            if clock.monotonic().saturating_sub(start) >= limits.settle {
                let error = RunError::new(
                    codes::NOT_SETTLED,
                    format!(
                        "{} was set but did not come into effect within {}: {message}",
                        change.target(),
                        Span(limits.settle)
                    ),
                );
                return Err(GaveUp { error: RunError { effect: Some(call.id.clone()), ..error }, attempts });
            }
            call.on().progress(done, total, message);
            tokio::select! {
                biased;
                error = self.broken_off(call) => return Err(GaveUp { error, attempts }),
                () = clock.sleep(limits.settle_every) => {}
            }
        }
    }
}

/// The journal has an outcome that an effect of this kind cannot have.
pub(super) fn unfit(call: &Call) -> RunError {
    RunError::new(
        codes::DIVERGED,
        format!("the journal's outcome for {} does not fit a {:?}", call.id, call.kind).to_lowercase(),
    )
}
