//! Variables of the process over keys of the file: `CONTRAFLOW__ENV__PRODUCTION__TRAFFIC__WEB__SOCKET=…`.

use toml_edit::{Item, Table, TableLike, Value};

use super::{
    ConfigError,
    file::{Variables, dotted},
};
use crate::{
    codes,
    error::{Frame, RunError, did_you_mean},
    registry::Registry,
};

const PREFIX: &str = "CONTRAFLOW__";

/// A value that comes from a variable.
pub(super) struct Override {
    pub(super) variable: String,
    /// The keys down to the value, as the file writes them.
    pub(super) path: Vec<String>,
    /// The value as it was given. It may be a secret.
    pub(super) given: String,
    /// For a key that the file does not have: what the text means as a TOML value, if the setting wants no text.
    pub(super) otherwise: Option<Value>,
}

impl Override {
    pub(super) fn frame(&self, what: String) -> Frame {
        frame(what, &self.variable)
    }

    /// A message without the value, which may be a secret.
    pub(super) fn hide(&self, message: &str) -> String {
        let mut message = message.to_owned();
        for quote in ['"', '`'] {
            message = message.replace(&format!("{quote}{}{quote}", self.given), &format!("{quote}…{quote}"));
        }
        // Error texts may show it escaped.
        message.replace(&format!("{:?}", self.given), "\"…\"")
    }
}

fn frame(what: String, variable: &str) -> Frame {
    Frame { what, source: format!("environment variable {variable}"), line: 0, column: 0 }
}

/// Puts the variables into the tree. What they change is listed, so that an error can name the variable.
pub(super) fn apply(
    root: &mut Table,
    variables: &Variables,
    registry: &Registry,
) -> (Vec<Override>, Vec<ConfigError>) {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in variables.iter() {
        let Some(variable) = name.to_str() else { continue };
        let Some(keys) = variable.strip_prefix(PREFIX) else { continue };
        let outcome = match value.to_str() {
            Some(value) => put(root, variable, keys, value, registry),
            None => Err(RunError::new(codes::CONFIG, "the value is not UTF-8")),
        };
        match outcome {
            Ok(over) => done.push(over),
            Err(mut error) => {
                let what = keys.replace("__", ".").to_lowercase();
                error.frames.push(frame(what, variable));
                errors.push(error);
            }
        }
    }
    (done, errors)
}

fn put(
    root: &mut Table,
    variable: &str,
    keys: &str,
    value: &str,
    registry: &Registry,
) -> Result<Override, ConfigError> {
    let keys: Vec<&str> = keys.split("__").collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(RunError::new(codes::CONFIG, "a key between two `__` is empty")
            .hint("write one `__` between keys: CONTRAFLOW__ENV__PRODUCTION__PROTECTED"));
    }
    only_in_file(&keys)?;
    let (last, tables) = keys.split_last().ok_or_else(|| RunError::new(codes::CONFIG, "no key"))?;
    let mut table: &mut dyn TableLike = root;
    let mut path: Vec<String> = Vec::new();
    for wanted in tables {
        let key = match matching(table, wanted)? {
            Some(key) => key,
            None if may_be_added(&path, wanted, registry) => {
                let key = wanted.to_lowercase();
                table.insert(&key, Item::Table(Table::new()));
                key
            }
            None => return Err(missing(table, &path, wanted)),
        };
        let inner = table.get_mut(&key).and_then(Item::as_table_like_mut);
        path.push(key);
        table = inner.ok_or_else(|| {
            let message = format!("`{}` is not a table: it has no keys to set", dotted(&path));
            RunError::new(codes::CONFIG, message)
        })?;
    }
    let mut over = Override { variable: variable.to_owned(), path, given: value.to_owned(), otherwise: None };
    if let Some(key) = matching(table, last)? {
        match table.get_mut(&key) {
            Some(Item::Table(_) | Item::ArrayOfTables(_)) => {
                over.path.push(key);
                return Err(RunError::new(codes::CONFIG, format!("`{}` is a table", dotted(&over.path)))
                    .hint(format!("name a key in it: {variable}__KEY")));
            }
            Some(Item::Value(Value::Boolean(on)))
                if *on.value() && protects(&keys) && value.trim() == "false" =>
            {
                return Err(refused("protected", "take back that the environment is protected"));
            }
            // In place: inserting anew would lose where the key stands.
            Some(old) => *old = Item::Value(fitted(old, value)),
            None => {}
        }
        over.path.push(key);
    } else {
        let key = last.to_lowercase();
        table.insert(&key, Item::Value(value.into()));
        over.path.push(key);
        over.otherwise = value.trim().parse::<Value>().ok().filter(|value| !value.is_str());
    }
    Ok(over)
}

/// Refuses keys that say who must agree to a run: whoever starts it sets its variables, and must not decide that.
fn only_in_file(keys: &[&str]) -> Result<(), ConfigError> {
    let key = match keys {
        [top, ..] if plain(top) == "roles" => "roles",
        [top, _, key, ..] if plain(top) == "env" && plain(key) == "approvals" => "approvals",
        [top, _, key, ..] if plain(top) == "env" && plain(key) == "approvers" => "approvers",
        _ => return Ok(()),
    };
    Err(refused(key, "say who must agree to it"))
}

fn protects(keys: &[&str]) -> bool {
    matches!(keys, [top, _, key] if plain(top) == "env" && plain(key) == "protected")
}

fn refused(key: &str, what: &str) -> ConfigError {
    let message = format!("`{key}` stands only in the file: whoever starts a run must not {what}");
    RunError::new(codes::CONFIG, message).hint("unset the variable, and change the file if it should be so")
}

/// The key that a part of a variable's name stands for.
fn matching(table: &dyn TableLike, wanted: &str) -> Result<Option<String>, ConfigError> {
    let found: Vec<&str> =
        table.iter().map(|(key, _)| key).filter(|key| plain(key) == plain(wanted)).collect();
    match *found {
        [] => Ok(None),
        [key] => Ok(Some(key.to_owned())),
        _ => Err(RunError::new(
            codes::CONFIG,
            format!("`{wanted}` could be {}: a variable name cannot tell them apart", found.join(" or ")),
        )),
    }
}

/// A key as a variable can write it.
fn plain(key: &str) -> String {
    key.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// Tables with a fixed name, which a variable may bring into being. Environments and targets it may not: their names
/// are not known from a name in capitals.
fn may_be_added(path: &[String], wanted: &str, registry: &Registry) -> bool {
    match path {
        [] => wanted.eq_ignore_ascii_case("limits"),
        [env, _] => {
            let mut tables = ["params"].into_iter().chain(registry.tables().iter().map(|table| table.name));
            env == "env" && tables.any(|table| wanted.eq_ignore_ascii_case(table))
        }
        _ => false,
    }
}

fn missing(table: &dyn TableLike, path: &[String], wanted: &str) -> ConfigError {
    let wanted = wanted.to_lowercase();
    let known: Vec<&str> = table.iter().map(|(key, _)| key).collect();
    let place = if path.is_empty() { "the file".to_owned() } else { format!("`{}`", dotted(path)) };
    let error = RunError::new(codes::CONFIG, format!("no `{wanted}` in {place}"));
    match did_you_mean(&wanted, known.iter().copied()) {
        Some(close) => error.hint(format!("did you mean `{close}`?")),
        None if known.is_empty() => {
            error.hint("a variable can change environments and targets of the file, but cannot add one")
        }
        None => error.hint(format!("keys there: {}", known.join(", "))),
    }
}

/// The text of a variable as a value of the type that stands in the file, where it can be read as one; else as text.
fn fitted(old: &Item, text: &str) -> Value {
    let same_type = |new: &Value| match old.as_value() {
        Some(Value::Integer(_) | Value::Float(_)) => new.is_integer() || new.is_float(),
        Some(Value::Boolean(_)) => new.is_bool(),
        Some(Value::Datetime(_)) => new.is_datetime(),
        Some(Value::Array(_)) => new.is_array(),
        Some(Value::InlineTable(_)) => new.is_inline_table(),
        Some(Value::String(_)) | None => false,
    };
    text.trim().parse::<Value>().ok().filter(same_type).unwrap_or_else(|| text.into())
}
