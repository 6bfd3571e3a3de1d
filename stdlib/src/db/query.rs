//! `db::query` reads rows and cannot write.

use contraflow_runtime::{
    effect::{Limits, On, Read},
    error::codes as runtime_codes,
    provider::ProviderError,
    quantity::Span,
    script::{Reads, ScriptContext, ScriptResult},
    secret::SecretText,
    target::Target,
};
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Dialect, Question, Rows, sql};
use crate::codes;

/// Options of `db::query`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Values for the placeholders `$1`, `$2`; may be secrets.
    #[schemars(with = "Vec<serde_json::Value>")]
    pub params: Vec<Param>,
    /// Time limit for all of it, with the connection and further tries; the database then stops the query.
    pub timeout: Span,
    /// More rows are an error, not a truncated result.
    pub max_rows: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { params: Vec::new(), timeout: Span::secs(30), max_rows: 1000 }
    }
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Param {
    /// A secret, bound as text.
    Secret(SecretText),
    /// Anything else. Arrays and maps are bound as JSON text.
    Plain(Value),
}

/// Reads rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// The database.
    pub database: String,
    /// One statement.
    pub sql: String,
    /// Values for its placeholders.
    pub params: Vec<Param>,
    /// Longest time.
    pub timeout: Span,
    /// Most rows.
    pub max_rows: u32,
}

/// What a query may begin with. The database itself refuses writes as well; this keeps out what it would not see as one.
fn is_allowed(keyword: &str, dialect: Dialect) -> bool {
    let common = ["SELECT", "WITH", "VALUES", "EXPLAIN"];
    let own: &[&str] = match dialect {
        Dialect::Sqlite => &[],
        Dialect::Postgres => &["TABLE", "SHOW"],
    };
    common.contains(&keyword) || own.contains(&keyword)
}

/// Refuses what is not one statement that reads.
///
/// # Errors
/// `query`, with what was found.
pub(crate) fn check(sql: &str, dialect: Dialect) -> Result<(), ProviderError> {
    let refused = |message: String| ProviderError::terminal(codes::QUERY, message);
    let found = sql::statements(sql, dialect);
    let [one] = &*found else {
        return Err(refused(format!("a query must be one statement, but this is {}", found.len())));
    };
    if is_allowed(one.keyword(), dialect) {
        return Ok(());
    }
    Err(refused(format!("a query must be read-only, but this is `{}`", sql::brief(one.text)))
        .hint("write changes as a migration; a query begins with SELECT, WITH, VALUES or EXPLAIN"))
}

impl Read for Query {
    const ID: &'static str = "db.query";
    type Value = Rows;

    fn describe(&self) -> String {
        format!("{}: {}", self.database, sql::brief(&self.sql))
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("db", &self.database)]
    }

    async fn read(&self, on: &On) -> Result<Rows, ProviderError> {
        let database = super::ready(on, &self.database).await?;
        check(&self.sql, database.dialect())?;
        let value = |param: &Param| -> Result<Value, ProviderError> {
            let mut value = match param {
                Param::Plain(value) => value.clone(),
                Param::Secret(secret) => serde_json::to_value(secret).unwrap_or_default(),
            };
            let filled = on.vault().fill(&mut value);
            filled.map_err(|e| ProviderError::terminal(runtime_codes::SECRET, e.to_string()))?;
            Ok(value)
        };
        let params = self.params.iter().map(value).collect::<Result<_, _>>()?;
        let question =
            Question { sql: self.sql.clone(), params, timeout: self.timeout, max_rows: self.max_rows };
        database.queries()?.query(&question).await
    }

    fn show(&self, rows: &Rows) -> String {
        format!("{} row{}", rows.len(), if rows.len() == 1 { "" } else { "s" })
    }

    fn limits(&self) -> Limits {
        // The database ends the query and says so; the kernel's deadline, a little later, is for one that does not answer. Further
        // tries are within it.
        let all = self.timeout.0.saturating_add(Span::secs(1).0);
        Limits { timeout: all, total: Some(all), ..Limits::default() }
    }
}

fn start(cx: &NativeCallContext<'_>, database: &str, sql: &str, options: Options) -> ScriptResult {
    let Options { params, timeout, max_rows } = options;
    cx.read(Query { database: database.to_owned(), sql: sql.to_owned(), params, timeout, max_rows })
}

/// The script functions.
#[export_module]
pub mod script {
    /// Reads rows from a database; returns an array of maps, at most 1000.
    ///
    /// The query cannot write: it runs in a read-only transaction that is rolled back (PostgreSQL), on a connection opened
    /// for reading (SQLite). It is one statement that begins with SELECT, WITH, VALUES or EXPLAIN. Numbers, booleans, text,
    /// JSON and arrays come as such; times, UUIDs and numerics as text.
    ///
    /// ```rhai
    /// db::query("main", "SELECT 1 AS one, 'a' AS letter") == [#{ one: 1, letter: "a" }]
    /// ```
    #[rhai_fn(name = "query", return_raw, volatile)]
    pub fn query(cx: NativeCallContext<'_>, database: &str, sql: &str) -> Reads {
        start(&cx, database, sql, Options::default())
    }

    /// ```rhai
    /// db::query("main", "SELECT $1 AS n", #{ params: [3], max_rows: 1 })[0].n == 3
    /// ```
    #[rhai_fn(name = "query", return_raw, volatile)]
    pub fn query_with(cx: NativeCallContext<'_>, database: &str, sql: &str, options: Map) -> Reads {
        let options = cx.options(options)?;
        start(&cx, database, sql, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_statement_that_reads_is_let_through() {
        for sql in ["SELECT 1", " -- why\n select ';' ;", "(SELECT 1) UNION (SELECT 2)", "EXPLAIN SELECT 1"] {
            assert_eq!(check(sql, Dialect::Postgres), Ok(()), "{sql}");
        }
        for (sql, message) in [
            ("", "a query must be one statement, but this is 0"),
            ("SELECT 1; DELETE FROM a", "a query must be one statement, but this is 2"),
            ("DELETE FROM a", "a query must be read-only, but this is `DELETE FROM a`"),
            ("VACUUM INTO 'x'", "a query must be read-only, but this is `VACUUM INTO 'x'`"),
            ("COPY a TO '/tmp/x'", "a query must be read-only, but this is `COPY a TO '/tmp/x'`"),
            ("PRAGMA query_only = 0", "a query must be read-only, but this is `PRAGMA query_only = 0`"),
        ] {
            let e = check(sql, Dialect::Sqlite).expect_err(sql);
            assert_eq!((e.code.as_str(), &*e.message), (codes::QUERY, message));
        }
    }
}
