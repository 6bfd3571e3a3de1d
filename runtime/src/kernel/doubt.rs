//! Effects of which the journal has the intent and not the outcome: whoever performed them died, and nobody knows whether they
//! happened.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Call, Kernel,
    change::{Left, Move, NotMoved},
    record::Ending,
    retry::GaveUp,
};
use crate::{
    effect::{AnyAction, AnyChange, Choice, InDoubt, Question, QuestionKind},
    error::{NextStep, RunError, codes},
    event::{Event, Grade},
    journal::{Entry, Outcome, replay::Intent},
    vocabulary::Doubt,
    world::{Foresight, Known},
};

/// Answers to a question about an effect in doubt.
const AGAIN: &str = "again";
const DONE: &str = "done";
const FAIL: &str = "fail";

impl Kernel {
    /// Looks at the target: it has been moved, or not, or it is somewhere else and a person decides.
    pub(super) async fn doubtful_change(
        &self,
        call: &Call,
        change: Arc<dyn AnyChange>,
        intent: Intent,
    ) -> Result<Known, RunError> {
        let target = change.target();
        let Some(moved) = intent.moved else {
            return Err(RunError::new(codes::JOURNAL, format!("the intent of {} has no states", call.id)));
        };
        self.started(call, Some(&target), String::new());
        let order = self.targets.turn(&target);
        let _turn = order.lock().await;
        // Where nothing new may begin, what is found is only put on the undo stack.
        let going = self.may_begin();
        let moved = Move::of(&*change, moved.from, moved.to);
        let Move { from, to, from_text: was, to_text: wanted } = &moved;
        let limits = change.limits();
        let looked = match self.take_target(call, &target).await {
            Ok(()) => self.look_behind_a_fence(call, &*change, &limits, (from, to)).await,
            Err(error) => Err(GaveUp { error, attempts: 1 }),
        };
        let left_open = |e| Ending { target: Some(target.clone()), intended: true, ..e };
        let going = match going.and_then(|()| self.may_begin()) {
            // Another branch paused the run: whoever goes on with it finds out.
            Err(why) if self.is_over(&why) => return self.failed(call, why, left_open).await,
            going => going,
        };
        let now = match (looked, &going) {
            (Ok(((now, _), _)), _) => now,
            // It may have happened, so it is undone.
            (Err(gave_up), Err(_)) if !self.is_over(&gave_up.error) => {
                let moved_or_not = NotMoved::intended(gave_up, Left::Unknown);
                return self
                    .conclude(call, change, moved, Err(moved_or_not), Grade::Observed, Foresight::default())
                    .await;
            }
            (Err(GaveUp { error, .. }), _) if self.is_over(&error) => {
                return self.failed(call, error, left_open).await;
            }
            (Err(GaveUp { error, .. }), _) => {
                let message = format!("it is unknown whether {} was changed: {}", target, error.message);
                let error = RunError::new(codes::IN_DOUBT, message)
                    .hint(format!("make {target} reachable"))
                    .next_step(NextStep::ResumeRun { run: self.facts.run.to_string() });
                return self.failed(call, error, left_open).await;
            }
        };
        let is = change.show(&now);
        if now == *to {
            self.settled(call, Doubt::Happened, format!("{target} is at \"{is}\": it happened")).await;
            let done = match going {
                Ok(()) => self.settle(call, &*change, &limits, to).await,
                Err(_) => Ok(()),
            };
            let done = done.map(|()| 1).map_err(|gave_up| NotMoved::intended(gave_up, Left::Unknown));
            return self.conclude(call, change, moved, done, Grade::Observed, Foresight::default()).await;
        }
        let half_done = change.may_be_half_done(from, to, None);
        if now == *from && !half_done {
            let text = format!("{target} is at \"{is}\": it did not happen");
            self.settled(call, Doubt::NotHappened, text).await;
            let done = match going {
                Ok(()) => self.move_target(call, &*change, &moved, false).await,
                Err(error) => Err(NotMoved::intended(GaveUp { error, attempts: 1 }, Left::Nothing)),
            };
            return self.conclude(call, change, moved, done, Grade::Observed, Foresight::default()).await;
        }
        let text = format!(
            "{target} is at \"{is}\"; the change from \"{was}\" to \"{wanted}\" was interrupted, and it is \
             unknown how far it got"
        );
        let left = || if half_done { Left::HalfDone(now.clone()) } else { Left::At(now.clone()) };
        if let Err(why) = going {
            self.settled(call, Doubt::DecidedFailed, text).await;
            let failed = NotMoved::intended(GaveUp { error: why, attempts: 1 }, left());
            return self
                .conclude(call, change, moved, Err(failed), Grade::Observed, Foresight::default())
                .await;
        }
        let choices = [
            (AGAIN, format!("move it to \"{wanted}\" from its current state")),
            (DONE, format!("accept its current state as \"{wanted}\"")),
            (FAIL, "let the change fail; it is rolled back".to_owned()),
        ];
        let (found, text) = match self.decide(call, text, choices.into()).await {
            Ok(decided) => decided,
            Err(error) if self.is_over(&error) => {
                return self.failed(call, error, left_open).await;
            }
            // Whoever asked was stopped meanwhile: it may have happened, so it is undone.
            Err(error) => {
                let failed = NotMoved::intended(GaveUp { error, attempts: 1 }, left());
                return self
                    .conclude(call, change, moved, Err(failed), Grade::Observed, Foresight::default())
                    .await;
            }
        };
        self.settled(call, found, text.clone()).await;
        let done = match found {
            Doubt::DecidedAgain => {
                let (from, to) = (now.clone(), to.clone());
                let again = Move { from, to, from_text: is, to_text: wanted.clone() };
                self.move_target(call, &*change, &again, false).await
            }
            Doubt::DecidedDone => Ok(1),
            _ => {
                let error = RunError { effect: Some(call.id.clone()), ..RunError::new(codes::FAILED, text) };
                Err(NotMoved::intended(GaveUp { error, attempts: 1 }, left()))
            }
        };
        self.conclude(call, change, moved, done, Grade::Observed, Foresight::default()).await
    }

    /// Follows the rule of the action. `None`: it is to be performed again.
    pub(super) async fn doubtful_action(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
        text: &str,
        intended: u64,
    ) -> Result<Option<Known>, RunError> {
        if let Err(why) = self.may_begin() {
            self.to_be_undone(call, action, &Value::Null, intended, true);
            return Err(why);
        }
        if action.in_doubt() == InDoubt::Repeat {
            let how = "it is repeated: it has the same key, or is harmless twice".to_owned();
            self.settled(call, Doubt::Repeated, how).await;
            return Ok(None);
        }
        let what = format!("\"{text}\" was interrupted, and it is unknown whether it happened");
        let choices = [
            (AGAIN, "do it again".to_owned()),
            (DONE, "count it as done".to_owned()),
            (FAIL, "let it fail".to_owned()),
        ];
        self.started(call, None, text.to_owned());
        let (found, how) = match self.decide(call, what, choices.into()).await {
            Ok(decided) => decided,
            Err(error) => return self.broke_off(call, action, text, error, 1).await.map(Some),
        };
        self.settled(call, found, how.clone()).await;
        let (outcome, result) = match found {
            Doubt::DecidedAgain => return Ok(None),
            Doubt::DecidedDone => {
                let outcome = Outcome::Performed { value: Value::Null, text: text.to_owned() };
                (outcome, Ok(Some(Known::Value(Value::Null))))
            }
            _ => {
                let error = RunError::new(codes::FAILED, how);
                let about = text.to_owned();
                return self.failed(call, error, |e| Ending { intended: true, about, ..e }).await.map(Some);
            }
        };
        let seq = self
            .ended(call, Ending { intended: true, about: text.to_owned(), ..Ending::new(outcome, 1) })
            .await;
        if found == Doubt::DecidedDone {
            self.performed(call, action, &Value::Null, seq);
        }
        result
    }

    /// Whether an action that is to be undone has happened. What can be done again can be undone in any case.
    pub(super) async fn has_happened(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
    ) -> Result<bool, RunError> {
        if action.in_doubt() == InDoubt::Repeat {
            return Ok(true);
        }
        let text = action.describe();
        let what = format!("\"{text}\" was interrupted, and it is unknown whether it must be undone");
        let choices = [
            (DONE, "it happened: undo it".to_owned()),
            (FAIL, "it did not happen: there is nothing to undo".to_owned()),
        ];
        let (found, how) = self.decide(call, what, choices.into()).await?;
        self.settled(call, found, how.clone()).await;
        if found == Doubt::DecidedDone {
            return Ok(true);
        }
        let outcome = Outcome::Performed { value: Value::Null, text: how };
        self.ended(call, Ending { about: text, ..Ending::new(outcome, 1) }).await;
        Ok(false)
    }

    /// Whether an action whose taking back was broken off is taken back. What can be done again is taken back again.
    pub(super) async fn was_taken_back(
        &self,
        call: &Call,
        action: &Arc<dyn AnyAction>,
        text: &str,
    ) -> Result<bool, RunError> {
        if action.in_doubt() == InDoubt::Repeat {
            let how = "the undo is repeated: it has the same key, or is harmless twice".to_owned();
            self.settled(call, Doubt::Repeated, how).await;
            return Ok(false);
        }
        let what = format!("\"{text}\" was interrupted, and it is unknown whether it happened");
        let choices = [(AGAIN, "do it again".to_owned()), (DONE, "count it as done".to_owned())];
        let (found, how) = self.decide(call, what, choices.into()).await?;
        self.settled(call, found, how.clone()).await;
        if found != Doubt::DecidedDone {
            return Ok(false);
        }
        let outcome = Outcome::Performed { value: Value::Null, text: how };
        self.ended(call, Ending { about: text.to_owned(), intended: true, ..Ending::new(outcome, 1) }).await;
        Ok(true)
    }

    /// Keeps and tells how a doubt was settled.
    pub(super) async fn settled(&self, call: &Call, resolution: Doubt, text: String) {
        self.keep_async(&call.id, &Entry::DoubtResolved { resolution, text: text.clone() }).await;
        self.emit(Event::DoubtResolved { id: call.id.clone(), resolution, text });
    }

    /// Lets a person decide.
    async fn decide(
        &self,
        call: &Call,
        text: String,
        choices: Vec<(&str, String)>,
    ) -> Result<(Doubt, String), RunError> {
        let names = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
        let choices = choices.into_iter().map(|(name, text)| Choice { name: name.to_owned(), text });
        let question =
            Question { choices: choices.collect(), ..Question::new(QuestionKind::Doubt, text.clone()) };
        let replies = match self.ask(call, question).await {
            Ok(replies) => replies,
            Err(error) if error.is(codes::NO_ANSWER) => {
                let error = RunError::new(codes::IN_DOUBT, text)
                    .next_step(NextStep::Answer {
                        run: self.facts.run.to_string(),
                        question: call.id.clone(),
                        choices: names,
                    })
                    .next_step(NextStep::ResumeRun { run: self.facts.run.to_string() });
                return Err(RunError { effect: Some(call.id.clone()), ..error });
            }
            Err(error) => return Err(error),
        };
        let Some(reply) = replies.last() else {
            return Err(RunError::new(codes::INTERNAL, "a question was answered by nobody"));
        };
        Ok(match (reply.yes, reply.choice.as_deref()) {
            (true, Some(AGAIN)) => (Doubt::DecidedAgain, format!("{} decided to do it again", reply.by)),
            (true, Some(DONE)) => (Doubt::DecidedDone, format!("{} decided to count it as done", reply.by)),
            _ => (Doubt::DecidedFailed, format!("{} decided that it failed", reply.by)),
        })
    }
}
