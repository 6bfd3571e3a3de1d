//! The live world: does it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

use super::{Known, Waited, World};
use crate::{
    effect::{On, Polled, Progress, Question, Reply, Until},
    error::codes,
    event::{Event, Grade, Mode},
    kernel::{AnyAction, AnyChange, AnyRead, AnyWait},
    provider::ProviderError,
};

/// Who answers questions.
#[async_trait]
pub trait People: Send + Sync {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// Nobody can be asked, with a hint how to answer.
    async fn ask(&self, id: &str, question: &Question) -> Result<Reply, ProviderError>;
}

/// Nobody is there: every question fails the run.
#[derive(Debug, Clone, Copy)]
pub struct NoPeople;

#[async_trait]
impl People for NoPeople {
    async fn ask(&self, _: &str, question: &Question) -> Result<Reply, ProviderError> {
        Err(ProviderError::terminal(
            codes::NO_ANSWER,
            format!("nobody is there to answer \"{}\"", question.text),
        )
        .hint("run it in a terminal, or let --yes answer yes to every question"))
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
    async fn ask(&self, _: &str, _: &Question) -> Result<Reply, ProviderError> {
        Ok(Reply { yes: true, by: self.by.clone(), comment: Some("answered by --yes".to_owned()) })
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

    async fn until_over(
        &self,
        on: &On,
        wait: &dyn AnyWait,
        waited: Duration,
    ) -> Result<Waited, ProviderError> {
        let clock = on.clock();
        let start = clock.monotonic();
        let known = |answer| Waited {
            answer: Known::Value(answer),
            grade: Grade::Observed,
            at_least: Duration::ZERO,
            reply: None,
        };
        match wait.until() {
            Until::Elapsed(span) => {
                clock.sleep(span.saturating_sub(waited)).await;
                wait.answer(None).map(known)
            }
            Until::Answered(question) => {
                on.emit(Event::Asked { id: on.id().to_owned(), question: question.clone() });
                let reply = self.people.ask(on.id(), &question).await?;
                on.emit(Event::Replied { id: on.id().to_owned(), reply: reply.clone() });
                wait.answer(Some(&reply)).map(|answer| Waited { reply: Some(reply), ..known(answer) })
            }
            Until::Polled { every, .. } => {
                let mut memory = wait.memory();
                loop {
                    let so_far = waited + clock.monotonic().saturating_sub(start);
                    match wait.poll(on, &mut memory, so_far).await? {
                        Polled::Over(answer) => return Ok(known(answer)),
                        Polled::Waiting(what) => on.progress(0, 0, what),
                    }
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

    async fn apply(
        &self,
        on: &On,
        change: &dyn AnyChange,
        from: &Value,
        to: &Value,
    ) -> Result<(), ProviderError> {
        change.apply(on, from, to).await
    }

    async fn settled(&self, on: &On, change: &dyn AnyChange, to: &Value) -> Result<Progress, ProviderError> {
        change.settled(on, to).await
    }

    async fn foresee(
        &self,
        _: &On,
        _: &dyn AnyChange,
        _: Grade,
        _: &Value,
        _: &Value,
    ) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    async fn perform(&self, on: &On, action: &dyn AnyAction) -> Result<(Known, Grade), ProviderError> {
        Ok((Known::Value(action.perform(on).await?), Grade::Observed))
    }

    async fn take_back(&self, on: &On, action: &dyn AnyAction, output: &Value) -> Result<(), ProviderError> {
        action.undo(on, output).await
    }

    async fn read(&self, on: &On, read: &dyn AnyRead) -> Result<(Known, Grade), ProviderError> {
        Ok((Known::Value(read.read(on).await?), Grade::Observed))
    }

    async fn wait(&self, on: &On, wait: &dyn AnyWait, waited: Duration) -> Result<Waited, ProviderError> {
        let Some(deadline) = wait.deadline() else { return self.until_over(on, wait, waited).await };
        tokio::select! {
            biased;
            over = self.until_over(on, wait, waited) => over,
            () = on.clock().sleep(deadline.saturating_sub(waited)) => wait.on_timeout().map(|answer| Waited {
                answer: Known::Value(answer),
                grade: Grade::Observed,
                at_least: Duration::ZERO,
                reply: None,
            }),
        }
    }
}
