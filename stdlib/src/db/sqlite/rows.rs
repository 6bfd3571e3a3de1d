//! Reading rows from an SQLite database.

use std::collections::BTreeMap;

use contraflow_runtime::provider::ProviderError;
use serde_json::{Number, Value};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Row as _, Sqlite as Driver, TypeInfo as _, ValueRef as _,
    error::BoxDynError,
    sqlite::{SqliteArguments, SqliteRow, SqliteValueRef},
};

use super::{Ended, Mode, PATIENCE, Sqlite, Stop, primary_code, run_within, said};
use crate::{
    codes,
    db::{Question, Rows},
};

/// Answers a question on a connection that cannot write.
pub(super) async fn query(database: &Sqlite, question: &Question) -> Result<Rows, ProviderError> {
    let mut connection = database.connect(Mode::Read, PATIENCE).await?;
    database.run(&mut connection, "PRAGMA query_only = 1").await?;
    let stop = Stop::of(&mut connection).await.map_err(|e| database.failed(&e))?;
    let mut arguments = SqliteArguments::default();
    for value in &question.params {
        bind(&mut arguments, value)?;
    }
    let mut rows = Rows::new();
    let sql = sqlx::query_with::<Driver, _>(AssertSqlSafe(question.sql.clone()), arguments).persistent(false);
    let take = |row: SqliteRow| {
        if rows.len() >= question.max_rows as usize {
            return Err(question.too_many_rows());
        }
        rows.push(read(&row)?);
        Ok(())
    };
    match run_within(&mut connection, &stop, sql, question.timeout.0, take).await {
        Ok(()) => Ok(rows),
        Err((_, Ended::Refused(e))) => Err(e),
        Err((_, Ended::TooSlow)) => Err(question.too_slow()),
        Err((_, Ended::Failed(e))) => Err(match primary_code(&e) {
            Some(5 | 6) => database.failed(&e),
            Some(8) => {
                ProviderError::terminal(codes::QUERY, format!("a query must be read-only: {}", said(&e)))
                    .hint("write changes as a migration")
            }
            _ => ProviderError::terminal(codes::QUERY, said(&e)),
        }),
    }
}

fn bind(arguments: &mut SqliteArguments, value: &Value) -> Result<(), ProviderError> {
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

fn decode<'r, T: sqlx::Decode<'r, Driver>>(value: SqliteValueRef<'r>) -> Result<T, BoxDynError> {
    T::decode(value)
}

fn read(row: &SqliteRow) -> Result<BTreeMap<String, Value>, ProviderError> {
    let mut map = BTreeMap::new();
    for (i, column) in row.columns().iter().enumerate() {
        let name = column.name();
        let failed = |e: String| ProviderError::terminal(codes::QUERY, format!("column \"{name}\": {e}"));
        let value = row.try_get_raw(i).map_err(|e| failed(e.to_string()))?;
        let stored = value.type_info().name().to_owned();
        let declared = column.type_info().name();
        let value = if value.is_null() {
            Ok(Value::Null)
        } else {
            match (&*stored, declared) {
                ("INTEGER", "BOOLEAN") => {
                    let bool_or_int =
                        |int| if matches!(int, 0 | 1) { Value::Bool(int == 1) } else { int.into() };
                    decode::<i64>(value).map(bool_or_int)
                }
                ("INTEGER", _) => decode::<i64>(value).map(Value::from),
                // Infinity has no form in JSON.
                ("REAL", _) => decode::<f64>(value)
                    .map(|f| Number::from_f64(f).map_or_else(|| Value::String(f.to_string()), Value::Number)),
                ("TEXT", _) => decode::<String>(value).map(Value::String),
                _ => {
                    return Err(failed(format!("{stored} cannot be represented in a script"))
                        .hint(format!("ask for hex({name}) or length({name})")));
                }
            }
        };
        if map.insert(name.to_owned(), value.map_err(|e| failed(e.to_string()))?).is_some() {
            return Err(Question::same_name(name));
        }
    }
    Ok(map)
}
