//! Queries: what a provider is asked, and what it answers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{codes as own, error::codes, provider::ProviderError, quantity::Span};

/// Rows, by column name.
pub type Rows = Vec<BTreeMap<String, Value>>;

/// What a provider is asked: one statement with its values, secrets filled in.
///
/// The statement begins with a word that reads, such as `SELECT` or `WITH`: others are refused before a provider is asked. It may
/// still write, in a function or a common table expression, and the database has to refuse that.
#[derive(Clone)]
pub struct Question {
    /// One statement.
    pub sql: String,
    /// Values for its placeholders `$1`, `$2`. Arrays and objects are bound as JSON text.
    pub params: Vec<Value>,
    /// Longest time; the database stops the query then.
    pub timeout: Span,
    /// Most rows. More are an error, not a truncated answer.
    pub max_rows: u32,
}

impl Question {
    /// The error for more rows than were allowed.
    pub fn too_many_rows(&self) -> ProviderError {
        let most = self.max_rows;
        ProviderError::terminal(own::QUERY, format!("the query returns more than {most} rows"))
            .hint("ask for fewer with LIMIT, count them in the database, or raise `max_rows`")
    }

    /// The error for a query that took too long.
    pub fn too_slow(&self) -> ProviderError {
        let limit = self.timeout;
        ProviderError::retryable(codes::TIMEOUT, format!("the query took longer than {limit}"))
    }

    /// The error for two columns of one name.
    pub fn same_name(name: &str) -> ProviderError {
        ProviderError::terminal(own::QUERY, format!("two columns are named \"{name}\""))
            .hint("name one of them with AS")
    }
}
