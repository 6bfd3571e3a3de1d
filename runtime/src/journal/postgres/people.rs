//! Questions of runs, and what people answered.

use jiff::Timestamp;

use super::{
    PostgresStore, durably,
    link::{Work, is_there, tried},
    mark, now,
};
use crate::{
    effect::Reply,
    journal::{
        columns::{asked_of, json, parsed},
        store::{Asked, StoreError},
    },
};

pub(super) async fn ask(store: &PostgresStore, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
    let Asked { run, id, question, at, until } = asked;
    let question = json(question);
    let written = tried!(store.link.tries(Work::Quick), |connection, _| {
        // Times go as distances from now and become times by the clock of the server, which decides when they are over.
        let now = Timestamp::now().as_millisecond();
        let done: Option<String> = sqlx::query_scalar(concat!(
            "WITH mine AS (SELECT id FROM contraflow.runs WHERE id = $1 AND epoch = $2 FOR SHARE)
             INSERT INTO contraflow.questions (run, id, question, at_ms, until_ms)
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
        .bind(id)
        .bind(&question)
        .bind(at.as_millisecond() - now)
        .bind(until.map(|until| until.as_millisecond() - now))
        .fetch_optional(connection)
        .await?;
        Ok(done.is_some())
    });
    if written.await? { Ok(()) } else { Err(store.refused(run).await) }
}

pub(super) async fn asked(store: &PostgresStore, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
    let asked = tried!(store.link.tries(Work::Quick), |connection, _| {
        let rows = sqlx::query(
            "SELECT * FROM contraflow.questions WHERE $1::text IS NULL OR run = $1 ORDER BY at_ms, run, id",
        )
        .bind(run)
        .fetch_all(connection)
        .await?;
        rows.iter().map(asked_of).collect()
    });
    asked.await
}

pub(super) async fn answer(
    store: &PostgresStore,
    run: &str,
    id: &str,
    reply: &Reply,
) -> Result<bool, StoreError> {
    let (reply, mark) = (json(reply), mark());
    let answered = tried!(store.link.tries(Work::Quick), |connection, again| {
        let done: Result<Option<String>, _> = sqlx::query_scalar(concat!(
            "INSERT INTO contraflow.answers (run, id, reply, mark)
             SELECT run, id, $3, $4 FROM contraflow.questions
             WHERE run = $1 AND id = $2 AND (until_ms IS NULL OR until_ms > ",
            now!(),
            ")
             RETURNING ",
            durably!()
        ))
        .bind(run)
        .bind(id)
        .bind(&reply)
        .bind(mark)
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

pub(super) async fn answers(store: &PostgresStore, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
    let answers = tried!(store.link.tries(Work::Quick), |connection, _| {
        let replies: Vec<String> =
            sqlx::query_scalar("SELECT reply FROM contraflow.answers WHERE run = $1 AND id = $2 ORDER BY n")
                .bind(run)
                .bind(id)
                .fetch_all(connection)
                .await?;
        replies.iter().map(|reply| parsed("answer", reply)).collect()
    });
    answers.await
}

pub(super) async fn close(store: &PostgresStore, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
    let closed = tried!(store.link.tries(Work::Quick), |connection, _| {
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
