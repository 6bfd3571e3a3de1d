//! Databases that can be asked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Fixture, ask, question};
use crate::{
    codes as own,
    contract::describes_itself,
    db::{Question, Rows},
    error::codes,
    provider::ProviderError,
    quantity::Span,
};

/// All of it, each part on a database that `fresh` makes.
///
/// # Panics
/// The contract is broken.
pub async fn holds<F: Fixture>(fresh: impl AsyncFn() -> F) {
    describes_itself(&*fresh().await.database()).await;
    rows_have_the_types_of_their_columns(&fresh().await).await;
    more_rows_than_allowed_are_an_error(&fresh().await).await;
    a_query_cannot_write(&fresh().await).await;
    a_query_that_takes_too_long_is_ended(&fresh().await).await;
}

async fn with_ann(fixture: &dyn Fixture) {
    fixture.database().ready().await.expect("ready");
    fixture.run("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)").await;
    fixture.run("INSERT INTO users VALUES (1, 'ann')").await;
}

async fn answer(fixture: &dyn Fixture, question: Question) -> Result<Rows, ProviderError> {
    fixture.database().queries().expect("the database has queries").query(&question).await
}

async fn rows_have_the_types_of_their_columns(fixture: &dyn Fixture) {
    with_ann(fixture).await;
    let sql = "SELECT id, name, NULL AS none, CAST(0.5 AS DOUBLE PRECISION) AS half FROM users WHERE id = $1 AND name = $2";
    let of = |id: i64| Question { params: vec![json!(id), json!("ann")], ..question(sql) };
    let found = answer(fixture, of(1)).await.expect("rows");
    assert_eq!(json!(found), json!([{ "id": 1, "name": "ann", "none": null, "half": 0.5 }]));
    assert_eq!(answer(fixture, of(2)).await, Ok(Rows::new()));
    let e = ask(fixture.database(), "SELECT 1 AS a, 2 AS a").await.expect_err("the same name twice");
    assert_eq!((e.code.as_str(), &*e.message), (own::QUERY, "two columns are named \"a\""));
    let e = ask(fixture.database(), "SELECT * FROM nowhere").await.expect_err("no such table");
    assert!(e.code.as_str() == own::QUERY && e.message.contains("nowhere"), "{e:?}");
}

async fn more_rows_than_allowed_are_an_error(fixture: &dyn Fixture) {
    with_ann(fixture).await;
    let few = |sql: &str| Question { max_rows: 2, ..question(sql) };
    assert_eq!(answer(fixture, few("VALUES (1), (2)")).await.expect("two").len(), 2);
    let e = answer(fixture, few("VALUES (1), (2), (3)")).await.expect_err("three");
    assert_eq!((e.code.as_str(), &*e.message), (own::QUERY, "the query returns more than 2 rows"));
}

async fn a_query_cannot_write(fixture: &dyn Fixture) {
    with_ann(fixture).await;
    let plain = ["DELETE FROM users", "UPDATE users SET name = 'x'", "DROP TABLE users"];
    for sql in plain.iter().chain(fixture.disguised_writes()) {
        let e = ask(fixture.database(), sql).await.expect_err(sql);
        assert_eq!(e.code.as_str(), own::QUERY, "{sql}: {e:?}");
    }
    let names: Value = fixture.rows("SELECT name FROM users").await;
    assert_eq!(names, json!([{ "name": "ann" }]));
}

async fn a_query_that_takes_too_long_is_ended(fixture: &dyn Fixture) {
    with_ann(fixture).await;
    let begun = Instant::now();
    let slow = Question { timeout: Span::millis(300), ..question(fixture.slow()) };
    let e = answer(fixture, slow).await.expect_err("too slow");
    assert_eq!(e.code.as_str(), codes::TIMEOUT, "{e:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "ended by its limit: {:?}", begun.elapsed());
    assert_eq!(fixture.rows("SELECT id FROM users").await, json!([{ "id": 1 }]));
}
