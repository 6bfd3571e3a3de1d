//! How a change is performed.

use std::sync::{Arc, atomic::Ordering};

use serde_json::Value;

use super::{
    Call, Kernel, Request, UndoEntry, Undoing, cursor,
    enforcement::Agreed,
    record::{Ending, Past},
    retry::{GaveUp, Interruption},
};
use crate::{
    effect::{AnyChange, Limits, Progress, Undo},
    error::{NextStep, RunError, codes},
    event::{Event, Grade},
    journal::{Outcome, record::Moved, replay::Ended},
    quantity::{Span, moment},
    target::Target,
    world::{Foresight, Known},
};

/// A move of a target, with its states for people.
pub(super) struct Move {
    pub(super) from: Value,
    pub(super) to: Value,
    pub(super) from_text: String,
    pub(super) to_text: String,
}

impl Move {
    pub(super) fn of(change: &dyn AnyChange, from: Value, to: Value) -> Self {
        let (from_text, to_text) = (change.show(&from), change.show(&to));
        Self { from, to, from_text, to_text }
    }
}

/// A change that did not come into effect.
pub(super) struct NotMoved {
    pub(super) gave_up: GaveUp,
    pub(super) left: Left,
    pub(super) intended: bool,
}

impl NotMoved {
    /// A move that was intended and failed with that error.
    pub(super) fn intended(gave_up: GaveUp, left: Left) -> Self {
        Self { gave_up, left, intended: true }
    }
}

/// What a move that failed left behind.
pub(super) enum Left {
    /// Nothing: it is known that nothing happened, and that nothing can happen any more.
    Nothing,
    /// The target is there now, neither where it was nor where it was to be moved.
    At(Value),
    /// The move may have happened, in whole or in part.
    Unknown,
    /// The target shows that state, but more of the move may be done than it shows.
    HalfDone(Value),
}

impl Kernel {
    pub(super) async fn do_change(&self, call: &Call, change: Arc<dyn AnyChange>) -> Result<Known, RunError> {
        let target = change.target();
        match self.past(call)? {
            Past::Ended(ended) => {
                self.replayed(call, Some(target), String::new, &ended);
                return self.replay_change(call, change, ended).await;
            }
            Past::Doubt(intent) => return self.doubtful_change(call, change, intent).await,
            Past::New => {}
        }
        self.started(call, Some(&target), String::new());
        let order = self.targets.turn(&target);
        let _turn = order.lock().await;
        if let Err(error) = self.take_target(call, &target).await {
            return self.failed(call, error, |e| Ending { target: Some(target.clone()), ..e }).await;
        }
        let limits = change.limits();
        let mut agreed = None;
        let (planned, grade) = loop {
            let looked = self
                .attempt(call, &limits, Interruption::AtOnce, async || {
                    self.world.observe(call.on(), &*change).await
                })
                .await;
            let found = looked.and_then(|((from, grade), attempts)| match change.desired(&from) {
                Ok(to) => Ok((from, to, grade, attempts)),
                Err(error) => {
                    let error = RunError { effect: Some(call.id.clone()), ..error.into() };
                    Err(GaveUp { error, attempts })
                }
            });
            let (from, to, grade, attempts) = match found {
                Ok(found) => found,
                Err(GaveUp { error, attempts }) => {
                    return self
                        .failed(call, error, |e| Ending { attempts, target: Some(target.clone()), ..e })
                        .await;
                }
            };
            if from == to {
                let outcome = Outcome::Unchanged { text: change.show(&to), state: to.clone() };
                self.ended(call, Ending { grade, target: Some(target), ..Ending::new(outcome, attempts) })
                    .await;
                return Ok(self.clean(Known::Value(to)));
            }
            let planned = Move::of(&*change, from, to);
            match self.ask_outside(call, &target, &planned, &mut agreed).await {
                Ok(Agreed::Planned) => break (planned, grade),
                Ok(Agreed::Just) => {}
                Err(error) => {
                    return self.failed(call, error, |e| Ending { target: Some(target.clone()), ..e }).await;
                }
            }
        };
        let foresight = match self
            .attempt(call, &Limits { attempts: 1, ..limits }, Interruption::AtOnce, async || {
                self.world.foresee(call.on(), &*change, grade, &planned.from, &planned.to).await
            })
            .await
        {
            Ok((foresight, _)) => foresight,
            Err(GaveUp { error, attempts }) => {
                return self
                    .failed(call, error, |e| Ending { attempts, target: Some(target.clone()), ..e })
                    .await;
            }
        };
        let moved = self.move_target(call, &*change, &planned, false).await;
        if let (Ok(_), Some(estimate)) = (&moved, foresight.estimate) {
            cursor::expect(estimate.span());
        }
        self.conclude(call, change, planned, moved, grade, foresight).await
    }

    /// Records what a move came to, and puts it on the undo stack if it happened.
    pub(super) async fn conclude(
        &self,
        call: &Call,
        change: Arc<dyn AnyChange>,
        Move { from, to, from_text, to_text }: Move,
        moved: Result<u32, NotMoved>,
        grade: Grade,
        foresight: Foresight,
    ) -> Result<Known, RunError> {
        match moved {
            Ok(attempts) => {
                let undo = change.undo(&from, &to);
                let states = (from.clone(), to.clone());
                let outcome =
                    Outcome::Changed { from: states.0, to: states.1, from_text, to_text, undo: undo.clone() };
                let ending = Ending {
                    grade,
                    target: Some(change.target()),
                    intended: true,
                    foresight,
                    ..Ending::new(outcome, attempts)
                };
                let seq = self.ended(call, ending).await;
                self.moved(call, &change, Moved::new(from, to.clone()), undo, false, seq);
                Ok(self.clean(Known::Value(to)))
            }
            Err(NotMoved { gave_up: GaveUp { error, attempts }, left, intended }) => {
                let moved = match left {
                    Left::Nothing => None,
                    // Undone is what was done, not what was wanted.
                    Left::At(now) => Some(Moved::new(from, now)),
                    Left::Unknown => Some(Moved::new(from, to)),
                    Left::HalfDone(now) => Some(Moved { half_done: true, ..Moved::new(from, now) }),
                };
                let outcome = Outcome::Failed { error: error.clone(), possibly_applied: moved.clone() };
                let ending =
                    Ending { target: Some(change.target()), intended, ..Ending::new(outcome, attempts) };
                let seq = self.ended(call, ending).await;
                if let Some(moved) = moved {
                    let undo = change.undo(&moved.from, &moved.to);
                    self.moved(call, &change, moved, undo, true, seq);
                }
                Err(error)
            }
        }
    }

    /// Takes the target for this run, so that no other run moves it meanwhile.
    pub(super) async fn take_target(&self, call: &Call, target: &Target) -> Result<(), RunError> {
        // What lives in this process no other run can reach.
        let shared = self.world.locks_targets() && !self.shared.providers.is_ephemeral();
        if !shared || self.targets.is_taken(target) {
            return Ok(());
        }
        let name = target.to_string();
        let held = self.journal.lock(&self.facts.environment, &name).await;
        let error = match held {
            Ok(None) => {
                self.targets.taken(target);
                return Ok(());
            }
            Ok(Some(held)) => RunError::new(
                codes::LOCKED,
                format!(
                    "{name} is locked by run {} (started by {}) since {}",
                    held.run,
                    held.started_by,
                    moment(held.since)
                ),
            )
            .next_step(NextStep::ShowRun { run: held.run.clone() })
            .next_step(NextStep::RecoverRun { run: held.run }),
            Err(error) => error,
        };
        Err(RunError { effect: Some(call.id.clone()), ..error })
    }

    /// What a rollback changes is not counted: it is there to make up for what was.
    fn count_change(&self) {
        if !self.life.is_rolling_back() {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a move and puts its undo on the stack.
    fn moved(
        &self,
        call: &Call,
        change: &Arc<dyn AnyChange>,
        Moved { from, to, half_done }: Moved,
        undo: Undo,
        failed: bool,
        seq: u64,
    ) {
        self.count_change();
        self.push_undo(UndoEntry {
            seq: call.place(seq),
            id: call.id.clone(),
            doing: Undoing::Change {
                change: Arc::clone(change),
                input: call.input.clone(),
                from,
                to,
                undo,
                failed,
                half_done,
            },
        });
    }

    async fn replay_change(
        &self,
        call: &Call,
        change: Arc<dyn AnyChange>,
        ended: Ended,
    ) -> Result<Known, RunError> {
        let Ended { seq, outcome, .. } = ended;
        match outcome {
            Outcome::Unchanged { state, .. } => Ok(Known::Value(state)),
            Outcome::Changed { from, to, undo, .. } => {
                self.bring_back(call, &*change, &to).await?;
                self.moved(call, &change, Moved::new(from, to.clone()), undo, false, seq);
                Ok(Known::Value(to))
            }
            Outcome::Failed { error, possibly_applied } => {
                if let Some(moved) = possibly_applied {
                    let undo = change.undo(&moved.from, &moved.to);
                    self.moved(call, &change, moved, undo, true, seq);
                }
                Err(error)
            }
            Outcome::Performed { .. } | Outcome::Answered { .. } => Err(unfit(call)),
        }
    }

    /// Targets that live in this process are new in each: those of a resumed run are put where its journal says they were.
    pub(super) async fn bring_back(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        to: &Value,
    ) -> Result<(), RunError> {
        if self.earlier.replay_only || !self.shared.providers.is_ephemeral() {
            return Ok(());
        }
        let limits = change.limits();
        let moved = self
            .attempt(call, &limits, Interruption::WhenDone, async || {
                self.world.bring_back(call.on(), change, to).await
            })
            .await;
        moved.map(drop).map_err(|e| self.not_resumable(call, &change.target().to_string(), e.error))
    }

    /// Intent, apply, settle. Answers how often it was tried.
    pub(super) async fn move_target(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        Move { from, to, from_text, to_text }: &Move,
        rollback: bool,
    ) -> Result<u32, NotMoved> {
        let target = change.target();
        let text = format!("{from_text} -> {to_text}");
        let refused = |error: RunError, intended| NotMoved {
            gave_up: GaveUp { error: RunError { effect: Some(call.id.clone()), ..error }, attempts: 1 },
            left: Left::Nothing,
            intended,
        };
        self.ask_policies(&Request {
            environment: &self.facts.environment,
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
        if !self.emitter.is_silent() {
            let (from_text, to_text) = (from_text.clone(), to_text.clone());
            self.emit(Event::Applying { id: call.id.clone(), from_text, to_text });
        }
        let limits = change.limits();
        let applied = self
            .attempt(call, &limits, Interruption::WhenDone, async || {
                self.world.apply(call.on(), change, from, to).await
            })
            .await;
        let attempts = match applied {
            Ok(((), attempts)) => attempts,
            // Nothing is found out about it now: whoever goes on with the run looks.
            Err(gave_up) if self.is_over(&gave_up.error) => {
                return Err(NotMoved::intended(gave_up, Left::Nothing));
            }
            Err(gave_up) => match self.look_again(call, change, &limits, (from, to)).await {
                // The answer was lost, not the request. A defect is told all the same.
                Some(now) if now == *to && !gave_up.error.is(codes::INTERNAL) => gave_up.attempts,
                Some(now) => {
                    let left = if change.may_be_half_done(from, to, Some(&gave_up.error)) {
                        Left::HalfDone(now)
                    } else if now == *from {
                        Left::Nothing
                    } else {
                        Left::At(now)
                    };
                    return Err(NotMoved::intended(gave_up, left));
                }
                None => return Err(NotMoved::intended(gave_up, Left::Unknown)),
            },
        };
        match self.settle(call, change, &limits, to).await {
            Ok(()) => Ok(attempts),
            Err(gave_up) => Err(NotMoved::intended(gave_up, Left::Unknown)),
        }
    }

    /// Whether this runner has no more business with an effect that broke off with that error.
    pub(super) fn is_over(&self, error: &RunError) -> bool {
        error.is_pause() || error.is(codes::LOST) || error.is(codes::ABORTED)
    }

    /// Where a target is whose move broke off, once nothing of the move can land any more. `None`: that cannot be found out.
    async fn look_again(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        limits: &Limits,
        moved: (&Value, &Value),
    ) -> Option<Value> {
        self.look_behind_a_fence(call, change, limits, moved).await.ok().map(|((state, _), _)| state)
    }

    /// Looks at a target whose move broke off, once nothing of the move can land any more.
    pub(super) async fn look_behind_a_fence(
        &self,
        call: &Call,
        change: &dyn AnyChange,
        limits: &Limits,
        (from, to): (&Value, &Value),
    ) -> Result<((Value, Grade), u32), GaveUp> {
        self.attempt(call, limits, Interruption::WhenDone, async || {
            self.world.fence(call.on(), change, from, to).await?;
            self.world.observe(call.on(), change).await
        })
        .await
    }

    /// Waits until what was set is in effect.
    pub(super) async fn settle(
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
                .attempt(call, limits, Interruption::AtOnce, async || {
                    self.world.settled(call.on(), change, to).await
                })
                .await?;
            let Progress::Waiting { done, total, message } = progress else { return Ok(()) };
            if clock.monotonic().saturating_sub(start) >= limits.settle {
                let error = RunError::new(
                    codes::NOT_SETTLED,
                    format!(
                        "{} was set but did not take effect within {}: {message}",
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
