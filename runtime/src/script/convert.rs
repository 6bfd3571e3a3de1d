//! Between script values and JSON, the form in which values are journaled and options decoded.

use rhai::{Array, Dynamic, ImmutableString, Map};
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Number, Value};

use crate::{
    error::{RunError, codes},
    secret::{self, SecretText},
};

/// What a plan puts in place of a value that only a real run can produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The effect it would come from, with its place: `exec.run (deploy.rhai:12)`.
    pub origin: String,
}

/// A script value as JSON. Only a secret that the script holds becomes a handle; maps have their names
/// [marked](secret::plain_key), so that none of them reads as one.
///
/// # Errors
/// What is in it that has no JSON form: a closure, a value unknown in a plan, a number that is not finite.
pub fn to_json(value: &Dynamic) -> Result<Value, RunError> {
    json_of(value, 0)
}

/// Deepest nesting of arrays and maps. What is nested deeper could not be read back from a journal.
const DEEPEST: usize = 100;

fn json_of(value: &Dynamic, depth: usize) -> Result<Value, RunError> {
    if depth > DEEPEST {
        return Err(RunError::new(
            codes::ARGUMENT,
            format!("arrays and maps are nested more than {DEEPEST} deep"),
        ));
    }
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(flag) = value.as_bool() {
        return Ok(Value::Bool(flag));
    }
    if let Ok(int) = value.as_int() {
        return Ok(Value::Number(int.into()));
    }
    if let Ok(float) = value.as_float() {
        return Number::from_f64(float)
            .map(Value::Number)
            .ok_or_else(|| RunError::new(codes::ARGUMENT, format!("{float} is not a finite number")));
    }
    if let Some(text) = value.read_lock::<ImmutableString>() {
        return Ok(Value::String(text.to_string()));
    }
    if let Ok(letter) = value.as_char() {
        return Ok(Value::String(letter.to_string()));
    }
    if let Some(items) = value.read_lock::<Array>() {
        return items.iter().map(|item| json_of(item, depth + 1)).collect::<Result<_, _>>().map(Value::Array);
    }
    if let Some(map) = value.read_lock::<Map>() {
        return map
            .iter()
            .map(|(key, item)| Ok((secret::plain_key(key).into_owned(), json_of(item, depth + 1)?)))
            .collect::<Result<_, _>>()
            .map(Value::Object);
    }
    if let Some(secret) = value.read_lock::<SecretText>() {
        return serde_json::to_value(&*secret).map_err(|e| RunError::new(codes::INTERNAL, e.to_string()));
    }
    if let Some(unknown) = value.read_lock::<Unknown>() {
        return Err(unknown_in_plan(&unknown.origin));
    }
    let what = kind(value);
    Err(RunError::new(
        codes::ARGUMENT,
        format!("{what} cannot be used here: expected text, a number, a boolean, an array or a map"),
    ))
}

/// A script value as JSON for others to read, which has no place for secrets.
///
/// # Errors
/// As [`to_json`]; `secret`: a secret is in it.
pub(crate) fn to_plain_json(value: &Dynamic) -> Result<Value, RunError> {
    let mut json = to_json(value)?;
    if secret::has_handle(&json) {
        return Err(RunError::new(codes::SECRET, "a secret cannot become part of a text")
            .hint("pass the secret itself as an option: its value is filled in when the request is sent"));
    }
    secret::bare(&mut json);
    Ok(json)
}

/// What sort of value it is, in words.
pub fn kind(value: &Dynamic) -> &'static str {
    match value.type_name() {
        _ if value.is_fnptr() => "a closure",
        _ if value.is_map() => "a map",
        _ if value.is_array() => "an array",
        "()" => "nothing",
        "bool" => "a boolean",
        "i64" | "f64" => "a number",
        "string" => "text",
        "char" => "a character",
        _ if value.is::<SecretText>() => "a secret",
        _ if value.is::<Unknown>() => "a value that is unknown in a plan",
        _ if value.is::<RunError>() => "an error",
        _ if value.is::<std::ops::Range<i64>>() || value.is::<std::ops::RangeInclusive<i64>>() => "a range",
        _ if value.is_blob() => "bytes",
        _ => "a value of this type",
    }
}

/// The error for a line of a plan that needs what only a real run can tell.
pub fn unknown_in_plan(origin: &str) -> RunError {
    RunError::new(
        codes::UNKNOWN_IN_PLAN,
        format!("this needs the result of {origin}, which a plan does not have"),
    )
    .hint("give that call `assume: …`: the result that a plan should use")
}

/// JSON as a script value; `null` is `()`. It is data, whatever it looks like: no JSON becomes a secret.
pub fn from_json(value: Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => match number.as_i64() {
            Some(int) => int.into(),
            None => number.as_f64().map_or(Dynamic::UNIT, Dynamic::from_float),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => Dynamic::from_array(items.into_iter().map(from_json).collect()),
        Value::Object(map) => {
            Dynamic::from_map(map.into_iter().map(|(key, item)| (key.into(), from_json(item))).collect())
        }
    }
}

pub use contraflow_provider::config::reword_text;

/// Decodes a script value into a typed one. `name` is the argument it was given as; empty for an options map.
///
/// # Errors
/// Which field, what is wrong with it, what is expected, and the closest name.
pub fn decode<T: DeserializeOwned>(value: &Dynamic, name: &str) -> Result<T, RunError> {
    decode_json(
        to_json(value).map_err(|mut e| {
            if e.is(codes::ARGUMENT) && !name.is_empty() {
                e.message = format!("`{name}`: {}", e.message);
            }
            e
        })?,
        name,
    )
}

/// Decodes JSON into a typed value, with errors for people.
///
/// # Errors
/// As [`decode`].
pub fn decode_json<T: DeserializeOwned>(value: Value, name: &str) -> Result<T, RunError> {
    try_decode(value, name).map_err(|refusal| refusal.error)
}

/// Why a value cannot be decoded.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// In words.
    pub(crate) error: RunError,
    /// Where in the value.
    pub(crate) path: Vec<Step>,
    /// What sort of mistake it is.
    pub(crate) mistake: Mistake,
}

/// A step into a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// What sort of mistake made a value unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// The last key of the path is not known.
    UnknownKey,
    /// Something is not there.
    Missing,
    /// A value of the wrong type or form.
    Value,
}

/// [`decode_json`], with the place of what is wrong.
pub(crate) fn try_decode<T: DeserializeOwned>(value: Value, name: &str) -> Result<T, Refusal> {
    use serde_path_to_error::Segment;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path: Vec<Step> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Map { key } => Some(Step::Key(key.clone())),
                Segment::Seq { index } => Some(Step::Item(*index)),
                Segment::Enum { .. } | Segment::Unknown => None,
            })
            .collect();
        let mut place = error.path().to_string();
        let error = error.into_inner();
        let said = error.to_string();
        let mistake = match &said {
            said if said.starts_with("unknown field") => Mistake::UnknownKey,
            said if said.starts_with("missing field") => Mistake::Missing,
            _ => Mistake::Value,
        };
        let (mut message, hint) = reword(&error);
        if mistake == Mistake::UnknownKey {
            let what = if name.is_empty() { "unknown option" } else { "unknown key" };
            message = message.replacen("unknown field", what, 1);
            // The message says the last key already.
            place.truncate(place.rfind('.').unwrap_or_default());
        }
        let place = match (name, &*place) {
            (name, "." | "") => name.to_owned(),
            ("", path) => path.to_owned(),
            (name, path) => format!("{name}.{path}"),
        };
        let error = RunError::new(
            codes::ARGUMENT,
            if place.is_empty() { message } else { format!("`{place}`: {message}") },
        );
        let error = match hint {
            Some(close) => error.hint(format!("did you mean `{close}`?")),
            None => error,
        };
        Refusal { error, path, mistake }
    })
}

/// Serde's wording for people who have never seen a Rust type, and the name that was probably meant.
pub fn reword(error: &serde_json::Error) -> (String, Option<String>) {
    reword_text(&error.to_string())
}

/// A typed value as JSON.
///
/// # Errors
/// `internal`: the type has no JSON form.
pub fn encode<T: serde::Serialize>(value: &T) -> Result<Value, RunError> {
    serde_json::to_value(value).map_err(|e| {
        RunError::new(
            codes::INTERNAL,
            format!("a value cannot be written as JSON: {}", serde_json::Error::custom(e)),
        )
    })
}
