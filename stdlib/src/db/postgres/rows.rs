//! Reading rows from a PostgreSQL database.

use std::collections::BTreeMap;

use contraflow_runtime::provider::ProviderError;
use futures_util::StreamExt as _;
use serde_json::Value;
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Postgres as Driver, Row as _, TypeInfo as _, ValueRef as _,
    postgres::{PgArguments, PgRow},
};

use super::{Postgres, failed, is_lost, said, state, values};
use crate::{
    codes,
    db::{Question, Rows},
};

/// Answers a question in a read-only transaction that is rolled back. The extended protocol takes no second statement.
pub(super) async fn query(database: &Postgres, question: &Question) -> Result<Rows, ProviderError> {
    let mut connected = database.connect().await?;
    let options = &database.address().await?.options;
    // A value from -1 up would end at once; 0 would mean no limit.
    let limit = question.timeout.0.as_millis().max(1);
    let begin =
        format!("BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}");
    sqlx::raw_sql(AssertSqlSafe(begin))
        .execute(&mut connected.connection)
        .await
        .map_err(|e| failed(options, &e))?;
    let mut arguments = PgArguments::default();
    for value in &question.params {
        bind(&mut arguments, value)?;
    }
    // A named statement: types that the driver has to look up would replace an unnamed one.
    let sql = sqlx::query_with::<Driver, _>(AssertSqlSafe(question.sql.clone()), arguments);
    let mut rows = Rows::new();
    {
        let mut stream = sql.fetch(&mut connected.connection);
        while let Some(row) = stream.next().await {
            let row = row.map_err(|e| refused(question, options, &e))?;
            // Dropping the connection also ends what is still on its way.
            if rows.len() >= question.max_rows as usize {
                return Err(question.too_many_rows());
            }
            rows.push(read(&row)?);
        }
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut connected.connection).await.map_err(|e| failed(options, &e))?;
    connected.close().await;
    Ok(rows)
}

fn refused(
    question: &Question,
    options: &sqlx::postgres::PgConnectOptions,
    error: &sqlx::Error,
) -> ProviderError {
    let refused = |message: String| ProviderError::terminal(codes::QUERY, message);
    match state(error) {
        "25006" => refused(format!("a query must be read-only: {}", said(error)))
            .hint("write changes as a migration"),
        "57014" | "55P03" => question.too_slow(),
        // A placeholder bound as text or number where the server wants another type.
        "42883" | "42804" if !question.params.is_empty() => refused(said(error))
            .hint("give the placeholder a type: `$1::uuid`, `$1::timestamptz`, `$1::jsonb`"),
        _ if is_lost(error) => failed(options, error),
        _ => refused(said(error)),
    }
}

fn bind(arguments: &mut PgArguments, value: &Value) -> Result<(), ProviderError> {
    let added = match value {
        Value::Null => arguments.add(None::<String>),
        Value::Bool(flag) => arguments.add(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(int) => arguments.add(int),
            None => arguments.add(number.as_f64()),
        },
        Value::String(text) => arguments.add(text.clone()),
        Value::Array(_) | Value::Object(_) => arguments.add(value.to_string()),
    };
    added.map_err(|e| ProviderError::terminal(codes::QUERY, format!("`params`: {e}")))
}

fn read(row: &PgRow) -> Result<BTreeMap<String, Value>, ProviderError> {
    let mut map = BTreeMap::new();
    for (i, column) in row.columns().iter().enumerate() {
        let name = column.name();
        let kind = column.type_info();
        let value = row.try_get_raw(i).map_err(|e| ProviderError::terminal(codes::QUERY, e.to_string()))?;
        let value = if value.is_null() {
            Some(Value::Null)
        } else {
            value.as_bytes().ok().and_then(|bytes| values::read(kind, bytes))
        };
        let Some(value) = value else {
            let message = format!(
                "column \"{name}\" is of type {}, which scripts cannot represent",
                kind.name().to_lowercase()
            );
            return Err(ProviderError::terminal(codes::QUERY, message).hint(format!("cast it: {name}::text")));
        };
        if map.insert(name.to_owned(), value).is_some() {
            return Err(Question::same_name(name));
        }
    }
    Ok(map)
}
