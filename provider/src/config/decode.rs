//! From a table to a typed struct, with errors that say where and what is expected.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value};

use super::{ConfigError, file::File, reword::reword_text};
use crate::{
    codes,
    error::{RunError, did_you_mean},
};

/// A table of the file: which, and where its name stands.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) path: Vec<String>,
    pub(super) offset: Option<usize>,
}

/// Decodes a table into a struct that denies unknown fields.
///
/// # Errors
/// `config`, with the place of the key or value.
pub(super) fn decode<T: DeserializeOwned>(file: &File, home: &Home, table: &Table) -> Result<T, ConfigError> {
    let mut table = table.clone();
    let mut as_text: BTreeMap<Vec<String>, ConfigError> = BTreeMap::new();
    loop {
        // Spans live in the tree, so a document made of a table that was parsed still has them.
        let from = toml_edit::de::Deserializer::from(DocumentMut::from(table.clone()));
        let failure = match serde_path_to_error::deserialize(from) {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let within = keys(failure.path());
        let path: Vec<String> = home.path.iter().chain(&within).cloned().collect();
        let error = explain(file, home, &table, &failure);
        // A variable for a key that the file does not have is text, unless the setting wants something else.
        let otherwise =
            file.overridden(&path).filter(|over| over.path == path).and_then(|over| over.otherwise.clone());
        if let Some(first) = as_text.remove(&path) {
            return Err(first);
        }
        match otherwise {
            Some(value) if replace(&mut table, &within, value.clone()) => as_text.insert(path, error),
            _ => return Err(error),
        };
    }
}

fn explain(
    file: &File,
    home: &Home,
    table: &Table,
    failure: &serde_path_to_error::Error<toml_edit::de::Error>,
) -> ConfigError {
    let said = failure.inner().message();
    let mut within = keys(failure.path());
    let mut shown = failure.path().to_string();
    if shown == "." {
        shown.clear();
    }
    let span = failure.inner().span().map(|span| span.start);
    let names: Vec<&str> = said.split('`').skip(1).step_by(2).collect();

    let (error, offset) = match (said, &*names) {
        (said, [wrong, known @ ..]) if said.starts_with("unknown field") => {
            // Behind `flatten` serde loses the path of the key, but not its name.
            if within.last().map(String::as_str) != Some(wrong) {
                within.push((*wrong).to_owned());
                shown = if shown.is_empty() { (*wrong).to_owned() } else { format!("{shown}.{wrong}") };
            }
            let at = key_offset(table, &within).or(span);
            (unknown_key(&shown, wrong, known.iter().copied()), at)
        }
        (said, [field]) if said.starts_with("missing field") => {
            let key = if shown.is_empty() { (*field).to_owned() } else { format!("{shown}.{field}") };
            let at = if within.is_empty() { home.offset } else { span };
            (RunError::new(codes::CONFIG, format!("`{key}` is missing")), at)
        }
        _ => {
            let (message, close) = reword_text(said);
            let message = ["invalid type: ", "invalid value: "]
                .iter()
                .find_map(|prefix| message.strip_prefix(prefix))
                .unwrap_or(&message);
            let message = if shown.is_empty() { message.to_owned() } else { format!("`{shown}`: {message}") };
            let error = RunError::new(codes::CONFIG, message);
            let error = match close {
                Some(close) => error.hint(format!("did you mean `{close}`?")),
                None => error,
            };
            (error, if within.is_empty() { home.offset } else { span })
        }
    };
    let path: Vec<&String> = home.path.iter().chain(&within).collect();
    placed(file, error, &path, offset.or_else(|| key_offset(table, &within)).or(home.offset))
}

/// An error with its place. A value that comes from a variable is not shown: it may be a secret.
pub(super) fn placed<K: AsRef<str>>(
    file: &File,
    mut error: ConfigError,
    path: &[K],
    offset: Option<usize>,
) -> ConfigError {
    if let Some(over) = file.overridden(path) {
        error.message = over.hide(&error.message);
    }
    error.frames.insert(0, file.frame(path, offset));
    error
}

/// The error for a key that means nothing. `shown` is the key with the tables it stands in.
pub(super) fn unknown_key<'k>(
    shown: &str,
    wrong: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> ConfigError {
    let error = RunError::new(codes::CONFIG, format!("unknown key `{shown}`"));
    let all: Vec<&str> = known.clone().collect();
    match did_you_mean(wrong, known) {
        Some(close) => error.hint(format!("did you mean `{close}`?")),
        None if all.is_empty() => error.hint("no keys are allowed here"),
        None => error.hint(format!("keys here: {}", all.join(", "))),
    }
}

/// The keys of a path, down to the first array: a variable cannot reach into one.
fn keys(path: &serde_path_to_error::Path) -> Vec<String> {
    path.iter()
        .map_while(|segment| match segment {
            Segment::Map { key } => Some(key.clone()),
            _ => None,
        })
        .collect()
}

/// Where the last of these keys stands.
pub(super) fn key_offset<K: AsRef<str>>(table: &Table, within: &[K]) -> Option<usize> {
    let (last, tables) = within.split_last()?;
    let mut table: &dyn TableLike = table;
    for key in tables {
        table = table.get(key.as_ref())?.as_table_like()?;
    }
    table.get_key_value(last.as_ref())?.0.span().map(|span| span.start)
}

fn replace(table: &mut Table, within: &[String], value: Value) -> bool {
    let Some((last, tables)) = within.split_last() else { return false };
    let mut table: &mut dyn TableLike = table;
    for key in tables {
        match table.get_mut(key).and_then(Item::as_table_like_mut) {
            Some(inner) => table = inner,
            None => return false,
        }
    }
    match table.get_mut(last) {
        Some(item) => {
            *item = Item::Value(value);
            true
        }
        None => false,
    }
}
