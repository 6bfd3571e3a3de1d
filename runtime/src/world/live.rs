//! The live world: does it.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use contraflow_provider::effect_id::EffectId;
use futures_util::FutureExt as _;
use serde_json::Value;

use super::{Known, WaitChannel, Waited, Waiting, World};
use crate::{
    crash,
    effect::{
        AnyAction, AnyChange, AnyRead, AnyWait, On, Polled, Progress, Question, QuestionKind, Reply, Until,
    },
    error::{NextStep, codes},
    event::{Event, Grade, Mode},
    executor::defect,
    provider::ProviderError,
    quantity::Span,
};

/// How often answers from elsewhere are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A look of a guard that takes longer has seen nothing.
const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// Who answers questions.
#[async_trait]
pub trait People: Send + Sync {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Nobody can be asked, with a hint how to answer.
    async fn ask(&self, id: &EffectId, question: &Question) -> Result<Reply, ProviderError>;

    /// Whether nobody else is to be waited for, should this answer not be enough.
    fn speaks_for_all(&self) -> bool {
        false
    }
}

/// Nobody is there: every question fails the run.
#[derive(Debug, Clone, Copy)]
pub struct NoPeople;

#[async_trait]
impl People for NoPeople {
    async fn ask(&self, _: &EffectId, question: &Question) -> Result<Reply, ProviderError> {
        Err(ProviderError::terminal(
            codes::NO_ANSWER,
            format!("nobody is there to answer \"{}\"", question.text),
        )
        .hint("run it in a terminal")
        .next_step(NextStep::LetOthersAnswer))
    }
}

/// Every question is answered yes.
#[derive(Debug, Clone)]
pub struct YesToAll {
    /// In whose name.
    pub by: String,
}

#[async_trait]
impl People for YesToAll {
    async fn ask(&self, id: &EffectId, question: &Question) -> Result<Reply, ProviderError> {
        // Whether an effect happened is not known any better for saying yes, and what was planned is not what was not.
        if matches!(question.kind, QuestionKind::Doubt | QuestionKind::OutsidePlan) {
            return NoPeople.ask(id, question).await;
        }
        let comment = Some("answered by --yes".to_owned());
        Ok(Reply { comment, ..Reply::new(true, &*self.by) })
    }

    fn speaks_for_all(&self) -> bool {
        true
    }
}

/// Nobody is here, but somebody elsewhere will answer.
#[derive(Debug, Clone, Copy)]
pub struct Elsewhere;

#[async_trait]
impl People for Elsewhere {
    async fn ask(&self, _: &EffectId, _: &Question) -> Result<Reply, ProviderError> {
        std::future::pending().await
    }
}

/// Effects happen.
pub struct LiveWorld {
    people: Arc<dyn People>,
}

impl std::fmt::Debug for LiveWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveWorld")
    }
}

impl LiveWorld {
    /// A live world in which `people` answer questions.
    pub fn new(people: Arc<dyn People>) -> Self {
        Self { people }
    }

    /// Asks until the replies come to a verdict.
    async fn hear_out(
        &self,
        on: &On,
        question: &Question,
        channel: &dyn WaitChannel,
        replies: &mut Vec<Reply>,
    ) -> Result<(), ProviderError> {
        // Once the person here has answered, it is for others to add what is still missing.
        let mut here = true;
        if question.verdict(replies).is_none() {
            channel.emit(Event::Asked { id: on.id().clone(), question: question.clone() });
        }
        while question.verdict(replies).is_none() {
            let elsewhere = async {
                loop {
                    on.clock().sleep(LOOK_EVERY).await;
                    if let Some(reply) = channel.next_answer().await {
                        return reply;
                    }
                }
            };
            let answered = match channel.next_answer().await {
                Some(reply) => Ok(reply),
                None => tokio::select! {
                    biased;
                    reply = self.people.ask(on.id(), question), if here => {
                        here = false;
                        reply
                    }
                    reply = elsewhere, if channel.takes_answers() || !here => Ok(reply),
                },
            };
            let reply = match answered {
                Ok(reply) => reply,
                // An approval is waited for: it is others who give it.
                Err(_) if question.kind == QuestionKind::Approve && channel.takes_answers() => continue,
                Err(error) => return Err(error),
            };
            let refused = self.count(on, question, channel, replies, reply).await;
            if !here
                && question.verdict(replies).is_none()
                && (!channel.takes_answers() || self.people.speaks_for_all())
            {
                let why = refused
                    .unwrap_or_else(|| format!("{} different people must say yes", question.rule.at_least));
                return Err(ProviderError::terminal(codes::DENIED, why).next_step(NextStep::LetOthersAnswer));
            }
        }
        Ok(())
    }

    /// Keeps a reply, if it counts. Answers why it does not.
    async fn count(
        &self,
        on: &On,
        question: &Question,
        channel: &dyn WaitChannel,
        replies: &mut Vec<Reply>,
        mut reply: Reply,
    ) -> Option<String> {
        reply.at.get_or_insert_with(|| on.clock().now());
        if let Err(why) = question.admits(&reply, replies) {
            on.note(format!("an answer by {} does not count: {why}", reply.by));
            return Some(why);
        }
        channel.record_reply(&reply).await;
        channel.emit(Event::Replied { id: on.id().clone(), reply: reply.clone() });
        replies.push(reply);
        None
    }

    async fn until_over(
        &self,
        on: &On,
        wait: &dyn AnyWait,
        waiting: &Waiting<'_>,
        replies: &mut Vec<Reply>,
    ) -> Result<Waited, ProviderError> {
        let clock = on.clock();
        let start = clock.monotonic();
        let known = |answer| Waited {
            answer: Known::Value(answer),
            grade: Grade::Observed,
            at_least: Duration::ZERO,
        };
        match wait.until() {
            Until::Elapsed(span) => {
                clock.sleep(span.saturating_sub(waiting.waited)).await;
                wait.answer(&[]).map(known)
            }
            Until::Answered(question) => {
                self.hear_out(on, &question, waiting.channel, replies).await?;
                wait.answer(replies).map(known)
            }
            Until::Polled { every, .. } => {
                let Waiting { waited, memory, channel, .. } = waiting;
                let mut memory = wait.memory(memory.as_ref());
                loop {
                    let so_far = *waited + clock.monotonic().saturating_sub(start);
                    match wait.poll(on, &mut memory, so_far).await? {
                        Polled::Over(answer) => return Ok(known(answer)),
                        Polled::Waiting(what) => on.progress(0, 0, what),
                    }
                    channel.checkpoint(so_far, wait.keep(&memory)).await;
                    clock.sleep(every).await;
                }
            }
        }
    }
}

#[async_trait]
impl World for LiveWorld {
    fn mode(&self) -> Mode {
        Mode::Live
    }

    async fn observe(&self, on: &On, change: &dyn AnyChange) -> Result<(Value, Grade), ProviderError> {
        Ok((change.observe(on).await?, Grade::Observed))
    }

    async fn fence(
        &self,
        on: &On,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        change.fence(on, from, to).await
    }

    async fn apply(
        &self,
        on: &On,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        crash::point("apply-before");
        let done = change.apply(on, from, to).await;
        crash::point("apply-after");
        done
    }

    async fn settled(&self, on: &On, change: &dyn AnyChange, to: &Value) -> Result<Progress, ProviderError> {
        change.settled(on, to).await
    }

    async fn bring_back(&self, on: &On, change: &dyn AnyChange, to: &Value) -> Result<(), ProviderError> {
        let now = change.observe(on).await?;
        if now == *to { Ok(()) } else { change.apply(on, &now, to).await }
    }

    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError> {
        crash::point("apply-before");
        let done = action.perform(on).await;
        crash::point("apply-after");
        Ok((Known::Value(done?), Grade::Observed))
    }

    async fn take_back(&self, on: &On, action: &dyn AnyAction, output: &Value) -> Result<(), ProviderError> {
        crash::point("apply-before");
        let done = action.undo(on, output).await;
        crash::point("apply-after");
        done
    }

    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError> {
        Ok((Known::Value(read.read(on).await?), Grade::Observed))
    }

    async fn wait(&self, on: &On, wait: &dyn AnyWait, waiting: Waiting<'_>) -> Result<Waited, ProviderError> {
        let mut waiting = waiting;
        let mut replies = std::mem::take(&mut waiting.replies);
        let Some(deadline) = wait.deadline() else {
            return self.until_over(on, wait, &waiting, &mut replies).await;
        };
        let left = deadline.saturating_sub(waiting.waited);
        tokio::select! {
            biased;
            over = self.until_over(on, wait, &waiting, &mut replies) => return over,
            () = on.clock().sleep(left) => {}
        }
        let mut answer = None;
        if let Until::Answered(question) = wait.until() {
            // What was answered in time counts, even if nobody was there to hear it.
            while let Some(reply) = waiting.channel.next_answer().await {
                self.count(on, &question, waiting.channel, &mut replies, reply).await;
            }
            answer = question.verdict(&replies).map(|_| wait.answer(&replies));
        }
        let answer = answer.unwrap_or_else(|| wait.on_timeout())?;
        Ok(Waited { answer: Known::Value(answer), grade: Grade::Observed, at_least: Duration::ZERO })
    }

    async fn watch(&self, on: &On, watch: &dyn AnyWait) -> ProviderError {
        let clock = on.clock();
        let every = match watch.until() {
            Until::Polled { every, .. } => every,
            Until::Elapsed(span) => span,
            Until::Answered(_) => LONGEST_LOOK,
        };
        let mut memory = watch.memory(None);
        let start = clock.monotonic();
        loop {
            let waited = clock.monotonic().saturating_sub(start);
            let look = AssertUnwindSafe(watch.poll(on, &mut memory, waited)).catch_unwind();
            let seen = tokio::select! {
                seen = look => seen.unwrap_or_else(|panic| Err(defect(&*panic).into())),
                () = clock.sleep(LONGEST_LOOK) => {
                    let text = format!("{}: no answer within {}", watch.describe(), Span(LONGEST_LOOK));
                    Err(ProviderError::terminal(codes::TIMEOUT, text))
                }
            };
            match seen {
                Ok(Polled::Waiting(_)) => {}
                Ok(Polled::Over(_)) => {
                    return ProviderError::terminal(codes::GUARD_BREACHED, watch.describe());
                }
                Err(error) => return error,
            }
            clock.sleep(every).await;
        }
    }

    async fn ask(
        &self,
        on: &On,
        question: &Question,
        waiting: Waiting<'_>,
    ) -> Result<Vec<Reply>, ProviderError> {
        let Waiting { mut replies, channel, .. } = waiting;
        self.hear_out(on, question, channel, &mut replies).await?;
        Ok(replies)
    }
}
