//! Questions of runs, and what people answered.

use async_trait::async_trait;
use jiff::Timestamp;
use sqlx::Connection as _;

use super::{SqliteStore, now};
use crate::{
    effect::Reply,
    journal::{
        columns::{asked_of, json, parsed},
        store::{Asked, QuestionStore, StoreError},
    },
};

#[async_trait]
impl QuestionStore for SqliteStore {
    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
        let Asked { run, id, question, at, until } = asked;
        let written = self
            .with(false, async |connection| {
                sqlx::query(
                    "INSERT INTO questions (run, id, question, asked_ms, expires_ms)
                     SELECT id, $3, $4, $5, $6 FROM runs WHERE id = $1 AND epoch = $2
                     ON CONFLICT (run, id) DO UPDATE SET question = excluded.question",
                )
                .bind(run)
                .bind(epoch)
                .bind(&**id)
                .bind(json(question))
                .bind(at.as_millisecond())
                .bind(until.map(Timestamp::as_millisecond))
                .execute(connection)
                .await
            })
            .await?
            .rows_affected();
        if written == 0 { Err(StoreError::lost(run)) } else { Ok(()) }
    }

    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        self.with(false, async |connection| {
            let rows = sqlx::query(
                "SELECT * FROM questions WHERE $1 IS NULL OR run = $1 ORDER BY asked_ms, run, id",
            )
            .bind(run)
            .fetch_all(connection)
            .await?;
            rows.iter().map(asked_of).collect()
        })
        .await
    }

    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        self.with(true, async |connection| {
            let answered = sqlx::query(
                "INSERT INTO answers (run, id, n, reply)
                 SELECT run, id, (SELECT count(*) FROM answers a WHERE a.run = q.run AND a.id = q.id), $3
                 FROM questions q WHERE run = $1 AND id = $2 AND (expires_ms IS NULL OR expires_ms > $4)",
            )
            .bind(run)
            .bind(id)
            .bind(json(reply))
            .bind(now())
            .execute(connection)
            .await?;
            Ok(answered.rows_affected() == 1)
        })
        .await
    }

    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        self.with(false, async |connection| {
            let replies: Vec<String> =
                sqlx::query_scalar("SELECT reply FROM answers WHERE run = $1 AND id = $2 ORDER BY n")
                    .bind(run)
                    .bind(id)
                    .fetch_all(connection)
                    .await?;
            replies.iter().map(|reply| parsed("answer", reply)).collect()
        })
        .await
    }

    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        self.with(false, async |connection| {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for table in ["questions", "answers"] {
                let statement = format!(
                    "DELETE FROM {table} WHERE run = $1 AND id = $3
                     AND EXISTS (SELECT 1 FROM runs r WHERE r.id = $1 AND r.epoch = $2)"
                );
                sqlx::query(sqlx::AssertSqlSafe(statement))
                    .bind(run)
                    .bind(epoch)
                    .bind(id)
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        })
        .await
    }
}
