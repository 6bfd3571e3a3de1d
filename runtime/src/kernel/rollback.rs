//! Undoing what a run has done, in reverse, through the same kernel.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

use super::{
    Call, Kernel,
    change::{Left, Move, NotMoved, unfit},
    cursor,
    record::{Ending, Past},
    retry::{GaveUp, Interruption},
    undo_stack::{UndoEntry, Undoing},
};
use crate::{
    effect::{AnyAction, AnyChange, Undo},
    error::{RunError, codes},
    event::{Event, Kind, LeftOver, NoteLevel},
    executor::defect,
    journal::{Entry, Outcome, replay::Intent},
    vocabulary::Doubt,
};

/// Whoever keeps the closures with which the script undoes something.
pub(crate) trait UndoClosures {
    /// Calls one of them.
    fn call(&self, closure: usize) -> Result<(), RunError>;
}

/// How often an undo is tried.
const UNDO_TRIES: u32 = 3;

/// Time between the first two tries of an undo; longer with each further one.
const UNDO_PAUSE: Duration = Duration::from_millis(250);

impl Kernel {
    /// Undoes everything on the stack. Answers what is left.
    pub(crate) fn rollback(&self, closures: &dyn UndoClosures, why: &RunError) -> Vec<LeftOver> {
        self.life.begin_rollback();
        let mut entries = self.undo.take();
        self.emit(Event::RollbackStarted { error: why.clone(), entries: entries.len() });
        // Once: a resumed rollback goes on.
        if !matches!(self.earlier.replay.undoing(), Ok(Some(_))) {
            self.keep(
                &EffectId::of_rollback(),
                &Entry::RollbackStarted { error: why.clone(), entries: entries.len() },
            );
        }
        let mut left = Vec::new();
        while let Some(entry) = entries.pop() {
            let undone = if self.life.stop.is_aborted() || self.life.stop.pausing().is_some() {
                Err(self.life.stop.why())
            } else {
                self.undo_or_try_again(closures, &entry)
            };
            let Err(mut error) = undone else { continue };
            self.scrub(&mut error);
            if self.is_over(&error) {
                // Whoever goes on with the run goes on here.
                self.end_with(error);
                break;
            }
            // What came before may be what this one stands on, so nothing more is undone.
            left.push(entry.left(error.message));
            left.extend(
                entries.drain(..).rev().map(|earlier| {
                    earlier.left(format!("it comes before {}, which is not undone", entry.id))
                }),
            );
        }
        if !self.life.is_pausing() {
            self.keep(&EffectId::of_rollback(), &Entry::RollbackEnded { left: left.clone() });
        }
        self.emit(Event::RollbackEnded { left: left.clone() });
        left
    }

    /// Undoes one thing; a few times, should it fail: whatever was in the way may be gone a moment later.
    fn undo_or_try_again(&self, closures: &dyn UndoClosures, entry: &UndoEntry) -> Result<(), RunError> {
        let mut tries = 1;
        loop {
            let undone = catch_unwind(AssertUnwindSafe(|| self.undo(closures, entry)))
                .unwrap_or_else(|panic| Err(defect(&*panic)));
            let Err(error) = undone else { return Ok(()) };
            let in_vain = match &entry.doing {
                Undoing::Change { undo, half_done, .. } => *undo != Undo::Possible || *half_done,
                Undoing::Action { .. } => false,
                // Half of it may have been done, and it is not for us to know whether it may be repeated.
                Undoing::Closure { .. } | Undoing::NoReturn(_) => true,
            };
            let refused = [codes::DENIED_BY_POLICY, codes::DIVERGED, codes::INTERNAL, codes::CANCELLED];
            if in_vain
                || tries == UNDO_TRIES
                || self.earlier.replay_only
                || self.is_over(&error)
                || refused.contains(&error.code.as_str())
                || self.life.stop.is_aborted()
            {
                return Err(error);
            }
            let pause = UNDO_PAUSE * tries;
            self.emit(Event::Retrying {
                id: entry.id.rollback(),
                attempt: tries,
                attempts: UNDO_TRIES,
                wait_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                error,
            });
            self.block_on(async {
                tokio::select! {
                    () = self.life.stop.aborted() => {}
                    () = self.shared.clock.sleep(pause) => {}
                }
            });
            tries += 1;
        }
    }

    fn undo(&self, closures: &dyn UndoClosures, entry: &UndoEntry) -> Result<(), RunError> {
        let id = entry.id.rollback();
        match &entry.doing {
            Undoing::Change { undo: Undo::Impossible(why), .. } | Undoing::NoReturn(why) => {
                Err(RunError::new(codes::UNDO_FAILED, why.clone()))
            }
            Undoing::Change { change, input, from, to, failed, half_done, .. } => {
                let call = self.call(Kind::Change, change.effect(), input.clone(), id)?;
                self.block_on(self.undo_change(&call, change, from, to, (*failed, *half_done)))
            }
            Undoing::Action { action, input, output, doubtful } => {
                let call = self.call(Kind::Action, action.effect(), input.clone(), id)?;
                self.block_on(self.undo_action(&call, action, output, *doubtful))
            }
            Undoing::Closure { closure, .. } => {
                let place = cursor::Cursor::new(id, cursor::frames(), cursor::cancel());
                let (result, _) = cursor::enter(place, || closures.call(*closure));
                // An interpreter drops some errors; what cannot be caught counts all the same.
                self.life.take_fatal().map_or(result, Err)
            }
        }
    }

    /// Moves the target back to where it was, wherever it is now.
    async fn undo_change(
        &self,
        call: &Call,
        change: &Arc<dyn AnyChange>,
        back_to: &Value,
        left_at: &Value,
        (failed, half_done): (bool, bool),
    ) -> Result<(), RunError> {
        let target = change.target();
        let past = self.past(call)?;
        if let Past::Ended(ended) = &past {
            match &ended.outcome {
                Outcome::Changed { to: state, .. } | Outcome::Unchanged { state, .. } => {
                    self.replayed(call, Some(target), String::new, ended);
                    return self.bring_back(call, &**change, state).await;
                }
                Outcome::Failed { error, .. } if self.earlier.replay_only => return Err(error.clone()),
                // A rollback that is taken up again tries again.
                Outcome::Failed { .. } => {}
                _ => return Err(unfit(call)),
            }
        }
        // What it was about to be moved from when the run died.
        let intended_before = match past {
            Past::Doubt(Intent { moved: Some(moved), .. }) if moved.to == *back_to => Some(moved.from),
            _ => None,
        };
        let changed = |Move { from, to, from_text, to_text }| Outcome::Changed {
            from,
            to,
            from_text,
            to_text,
            undo: Undo::Possible,
        };
        self.started(call, Some(&target), String::new());
        let order = self.targets.turn(&target);
        let _turn = order.lock().await;
        if let Err(error) = self.take_target(call, &target).await {
            let outcome = Outcome::Failed { error: error.clone(), possibly_applied: None };
            self.ended(call, Ending { target: Some(target), ..Ending::new(outcome, 1) }).await;
            return Err(error);
        }
        let limits = change.limits();
        let moved = match self
            .attempt(call, &limits, Interruption::WhenDone, async || {
                self.world.observe(call.on(), &**change).await
            })
            .await
        {
            Err(gave_up) => Err(NotMoved { gave_up, left: Left::Unknown, intended: false }),
            // It was undone just before the run died.
            Ok(((now, _), attempts)) if now == *back_to && intended_before.is_some() => {
                let text = format!("{target} is at \"{}\": it was already undone", change.show(&now));
                self.settled(call, Doubt::Happened, text).await;
                let from = intended_before.unwrap_or_default();
                let settled = self.settle(call, &**change, &limits, back_to).await;
                let back = Move::of(&**change, from, now);
                settled
                    .map(|()| (changed(back), attempts, true))
                    .map_err(|gave_up| NotMoved::intended(gave_up, Left::Unknown))
            }
            // Neither the state nor a move says what else there is to undo.
            Ok(((now, _), attempts)) if half_done => {
                let text = format!("{target} is \"{}\", but part of a change may be done", change.show(&now));
                let gave_up = GaveUp { error: RunError::new(codes::UNDO_FAILED, text), attempts };
                Err(NotMoved { gave_up, left: Left::Unknown, intended: false })
            }
            Ok(((now, _), attempts)) if now == *back_to => {
                Ok((Outcome::Unchanged { text: change.show(&now), state: now }, attempts, false))
            }
            Ok(((now, _), _)) => {
                if now != *left_at {
                    let (is, was) = (change.show(&now), change.show(left_at));
                    let text = if failed {
                        format!("{target} is \"{is}\": the change to \"{was}\" failed")
                    } else {
                        format!(
                            "{target} was moved meanwhile: it is \"{is}\", but this run had set \"{was}\""
                        )
                    };
                    self.keep_async(&call.id, &Entry::Note { level: NoteLevel::Note, text: text.clone() })
                        .await;
                    self.emit(Event::Note {
                        id: call.id.clone(),
                        level: NoteLevel::Note,
                        text,
                        replayed: false,
                    });
                }
                let back = Move::of(&**change, now, back_to.clone());
                let moved = self.move_target(call, &**change, &back, true).await;
                moved.map(|attempts| (changed(back), attempts, true))
            }
        };
        let (outcome, attempts, intended, result) = match moved {
            Ok((outcome, attempts, intended)) => (outcome, attempts, intended, Ok(())),
            Err(NotMoved { gave_up: GaveUp { error, attempts }, intended, .. }) => (
                Outcome::Failed { error: error.clone(), possibly_applied: None },
                attempts,
                intended,
                Err(error),
            ),
        };
        self.ended(call, Ending { target: Some(target), intended, ..Ending::new(outcome, attempts) }).await;
        result
    }

    async fn undo_action(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
        output: &Value,
        doubtful: bool,
    ) -> Result<(), RunError> {
        let past = self.past(call)?;
        let in_doubt = matches!(past, Past::Doubt(_));
        if let Past::Ended(ended) = &past {
            match &ended.outcome {
                Outcome::Performed { .. } => {
                    self.replayed(call, None, || action.describe(), ended);
                    return Ok(());
                }
                Outcome::Failed { error, .. } if self.earlier.replay_only => return Err(error.clone()),
                Outcome::Failed { .. } => {}
                _ => return Err(unfit(call)),
            }
        }
        if doubtful && !self.has_happened(call, action).await? {
            return Ok(());
        }
        let text = format!("undo {}", action.describe());
        if in_doubt && self.was_taken_back(call, action, &text).await? {
            return Ok(());
        }
        self.started(call, None, text.clone());
        let limits = action.limits();
        let (intended, done) = match self.intend(call, None, None, &text).await {
            Err(error) => (false, Err(GaveUp { error, attempts: 1 })),
            Ok(()) => {
                let work = async || self.world.take_back(call.on(), &**action, output).await;
                (true, self.attempt(call, &limits, Interruption::WhenDone, work).await)
            }
        };
        let (outcome, attempts, result) = match done {
            Ok(((), attempts)) => (Outcome::Performed { value: Value::Null, text }, attempts, Ok(())),
            Err(GaveUp { error, attempts }) => {
                (Outcome::Failed { error: error.clone(), possibly_applied: None }, attempts, Err(error))
            }
        };
        self.ended(call, Ending { intended, about: action.describe(), ..Ending::new(outcome, attempts) })
            .await;
        result
    }
}
