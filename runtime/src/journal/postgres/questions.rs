//! Questions of runs, and what people answered.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    PostgresStore, durably, key,
    link::{Work, is_there, tried},
    now,
};
use crate::{
    effect::Reply,
    journal::{
        columns::{asked_of, json, parsed},
        store::{Asked, QuestionStore, StoreError},
    },
};

#[async_trait]
impl QuestionStore for PostgresStore {
    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
        let Asked { run, id, question, at, until } = asked;
        let question = json(question);
        let written = tried!(self.link.tries(Work::Quick), |connection, _| {
            // Times go as distances from now and become times by the clock of the server, which decides when they are over.
            let now = Timestamp::now().as_millisecond();
            let done: Option<String> = sqlx::query_scalar(concat!(
                "WITH mine AS (SELECT id FROM contraflow.runs WHERE id = $1 AND epoch = $2 FOR SHARE)
                 INSERT INTO contraflow.questions (run, id, question, asked_ms, expires_ms)
                 SELECT id, $3, $4, ",
                now!(),
                " + $5, ",
                now!(),
                " + $6 FROM mine
                 ON CONFLICT (run, id) DO UPDATE SET question = excluded.question
                 RETURNING ",
                durably!()
            ))
            .bind(run)
            .bind(epoch)
            .bind(&**id)
            .bind(&question)
            .bind(at.as_millisecond() - now)
            .bind(until.map(|until| until.as_millisecond() - now))
            .fetch_optional(connection)
            .await?;
            Ok(done.is_some())
        });
        if written.await? { Ok(()) } else { Err(self.refused(run).await) }
    }

    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        let asked = tried!(self.link.tries(Work::Quick), |connection, _| {
            let rows = sqlx::query(
                "SELECT * FROM contraflow.questions WHERE $1::text IS NULL OR run = $1 ORDER BY asked_ms, run, id",
            )
            .bind(run)
            .fetch_all(connection)
            .await?;
            rows.iter().map(asked_of).collect()
        });
        asked.await
    }

    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        let (reply, key) = (json(reply), key());
        let answered = tried!(self.link.tries(Work::Quick), |connection, again| {
            let done: Result<Option<String>, _> = sqlx::query_scalar(concat!(
                "INSERT INTO contraflow.answers (run, id, reply, idempotency_key)
                 SELECT run, id, $3, $4 FROM contraflow.questions
                 WHERE run = $1 AND id = $2 AND (expires_ms IS NULL OR expires_ms > ",
                now!(),
                ")
                 RETURNING ",
                durably!()
            ))
            .bind(run)
            .bind(id)
            .bind(&reply)
            .bind(key)
            .fetch_optional(connection)
            .await;
            match done {
                Ok(done) => Ok(done.is_some()),
                Err(error) if again && is_there(&error) => Ok(true),
                Err(error) => Err(error),
            }
        });
        answered.await
    }

    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        let answers = tried!(self.link.tries(Work::Quick), |connection, _| {
            let replies: Vec<String> = sqlx::query_scalar(
                "SELECT reply FROM contraflow.answers WHERE run = $1 AND id = $2 ORDER BY n",
            )
            .bind(run)
            .bind(id)
            .fetch_all(connection)
            .await?;
            replies.iter().map(|reply| parsed("answer", reply)).collect()
        });
        answers.await
    }

    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        let closed = tried!(self.link.tries(Work::Quick), |connection, _| {
            sqlx::query(concat!(
                "DELETE FROM contraflow.questions WHERE run = $1 AND id = $3
                 AND EXISTS (SELECT 1 FROM contraflow.runs WHERE id = $1 AND epoch = $2)
                 RETURNING ",
                durably!()
            ))
            .bind(run)
            .bind(epoch)
            .bind(id)
            .execute(connection)
            .await
            .map(drop)
        });
        closed.await
    }
}
