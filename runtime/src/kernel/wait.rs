//! How a wait is performed.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Call, Kernel,
    change::unfit,
    cursor,
    record::{Ending, Past},
};
use crate::{
    effect::{AnyWait, Question, Reply, Until},
    error::RunError,
    event::Event,
    journal::{
        Asked, Entry, Outcome,
        replay::{Intent, Looked},
    },
    world::{Known, WaitChannel, Waited, Waiting},
};

impl Kernel {
    pub(super) async fn do_wait(&self, call: &Call, wait: &dyn AnyWait) -> Result<Known, RunError> {
        let text = wait.describe();
        let before = match self.past(call)? {
            Past::Ended(ended) => {
                self.replayed(call, None, || text, &ended);
                return match ended.outcome {
                    Outcome::Answered { value, .. } => Ok(Known::Value(value)),
                    Outcome::Failed { error, .. } => Err(error),
                    _ => Err(unfit(call)),
                };
            }
            Past::Doubt(intent) => {
                self.may_begin()?;
                Some(intent)
            }
            Past::New => None,
        };
        self.sketch_needs(|| wait.depends_on());
        self.started(call, None, text.clone());
        let (intended, result) = self.wait_for(call, wait, &text, before).await;
        match result {
            Ok(mut waited) => {
                waited.answer = self.clean(waited.answer);
                cursor::plan(waited.at_least);
                let (value, found) = match &waited.answer {
                    // A plan has nobody who answered.
                    Known::Value(value) if !self.world.hears_people() => (value.clone(), String::new()),
                    Known::Value(value) => (value.clone(), wait.show(value)),
                    Known::Unknown => (Value::Null, String::new()),
                };
                let outcome = Outcome::Answered { value, text: found, grade: waited.grade };
                let ending = Ending {
                    grade: waited.grade,
                    about: text,
                    at_least: waited.at_least,
                    intended: true,
                    ..Ending::new(outcome, 1)
                };
                self.ended(call, ending).await;
                // What comes behind it will not happen.
                match self.life.budget.would_be_late(cursor::planned()).filter(|_| self.sums_up_time()) {
                    Some(late) => Err(RunError { effect: Some(call.id.clone()), ..late }),
                    None => Ok(waited.answer),
                }
            }
            Err(error) => {
                let error = RunError { effect: Some(call.id.clone()), ..error };
                let outcome = Outcome::Failed { error: error.clone(), possibly_applied: None };
                self.ended(call, Ending { intended, about: text, ..Ending::new(outcome, 1) }).await;
                Err(error)
            }
        }
    }

    /// Waits for what was left of it. Answers also whether an intent is in the journal.
    async fn wait_for(
        &self,
        call: &Call,
        wait: &dyn AnyWait,
        text: &str,
        before: Option<Intent>,
    ) -> (bool, Result<Waited, RunError>) {
        let now = self.shared.clock.now();
        let since = before.as_ref().map_or(now, |intent| intent.at);
        let (looked, replies) = match before {
            Some(_) => self.earlier.replay.take_wait(&call.id),
            // Durable, so that a resumed run knows since when it waits.
            None => match self.intend(call, None, None, text).await {
                Ok(()) => (Looked::default(), Vec::new()),
                Err(error) => return (false, Err(error)),
            },
        };
        // A clock that was set back makes it wait longer, never shorter.
        let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        let until = wait.until();
        let waited = match until {
            // Time during which nobody looked counts for nothing.
            Until::Polled { .. } => looked.waited,
            Until::Elapsed(_) | Until::Answered(_) => passed,
        };
        let question = match until {
            Until::Answered(question) => Some(question),
            Until::Elapsed(_) | Until::Polled { .. } => None,
        };
        let waiting = self.waiting(call, waited, looked.memory, replies, question.is_some());
        let work = async {
            if let Some(question) = question {
                let until = wait.deadline().and_then(|span| since.checked_add(span).ok());
                self.announce(call, question, since, until).await?;
            }
            self.world.wait(call.on(), wait, waiting.as_waiting()).await.map_err(RunError::from)
        };
        let result = tokio::select! {
            biased;
            error = self.broken_off(call) => Err(error),
            result = work => result,
        };
        let settled = result.as_ref().map_or_else(|error| !self.is_over(error), |_| true);
        if waiting.channel.asked && settled && self.world.hears_people() {
            // What cannot be closed now is forgotten with the run.
            let _ = self.journal.close(&call.id).await;
        }
        (true, result)
    }

    /// Lets others answer a question.
    async fn announce(
        &self,
        call: &Call,
        question: Question,
        at: jiff::Timestamp,
        until: Option<jiff::Timestamp>,
    ) -> Result<(), RunError> {
        if let Some(draft) = &self.plan.draft {
            draft.question(&call.id, &question);
        }
        if !self.world.hears_people() {
            return Ok(());
        }
        let run = self.facts.run.to_string();
        self.journal.ask(&Asked { run, id: call.id.clone(), question, at, until }).await
    }

    /// Asks people something about an effect, besides what the effect itself may wait for.
    pub(super) async fn ask(&self, call: &Call, question: Question) -> Result<Vec<Reply>, RunError> {
        let (_, replies) = self.earlier.replay.take_wait(&call.id);
        let waiting = self.waiting(call, Duration::ZERO, None, replies, true);
        self.announce(call, question.clone(), self.shared.clock.now(), None).await?;
        let work = self.world.ask(call.on(), &question, waiting.as_waiting());
        let result = tokio::select! {
            biased;
            error = self.broken_off(call) => Err(error),
            replies = work => replies.map_err(RunError::from),
        };
        if result.is_ok() {
            self.journal.close(&call.id).await?;
        }
        result
    }

    pub(super) fn waiting<'k>(
        &'k self,
        call: &'k Call,
        waited: Duration,
        memory: Option<Value>,
        replies: Vec<Reply>,
        asked: bool,
    ) -> Before<'k> {
        // Answers that were heard before are heard again, and do not count twice.
        let seen = AtomicUsize::new(0);
        Before { waited, memory, replies, channel: KernelChannel { kernel: self, call, asked, seen } }
    }
}

/// What is known of a wait from before, with its way back to the kernel.
pub(super) struct Before<'k> {
    waited: Duration,
    memory: Option<Value>,
    replies: Vec<Reply>,
    channel: KernelChannel<'k>,
}

impl Before<'_> {
    pub(super) fn as_waiting(&self) -> Waiting<'_> {
        Waiting {
            waited: self.waited,
            memory: self.memory.clone(),
            replies: self.replies.clone(),
            channel: &self.channel,
        }
    }
}

/// Where a wait tells how it goes, and gets answers from elsewhere.
pub(super) struct KernelChannel<'k> {
    kernel: &'k Kernel,
    call: &'k Call,
    asked: bool,
    /// Answers in the store that were taken.
    seen: AtomicUsize,
}

#[async_trait]
impl WaitChannel for KernelChannel<'_> {
    fn emit(&self, event: Event) {
        self.kernel.emit(event);
    }

    async fn checkpoint(&self, waited: Duration, memory: Value) {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        if self.kernel.journal.is_kept() {
            self.kernel.keep_for_later(&self.call.id, &Entry::Checkpoint { waited_ms, memory });
        }
    }

    async fn record_reply(&self, reply: &Reply) {
        self.kernel.keep_for_later(&self.call.id, &Entry::Replied { reply: reply.clone() });
    }

    fn takes_answers(&self) -> bool {
        self.asked && self.kernel.journal.is_kept() && self.kernel.world.hears_people()
    }

    async fn next_answer(&self) -> Option<Reply> {
        if !self.takes_answers() {
            return None;
        }
        // A store that cannot be read now is asked again: it may be restarting.
        let answers = self.kernel.journal.answers(&self.call.id).await.unwrap_or_default();
        let reply = answers.into_iter().nth(self.seen.load(Ordering::Relaxed))?;
        self.seen.fetch_add(1, Ordering::Relaxed);
        Some(reply)
    }
}
