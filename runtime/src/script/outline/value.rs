//! What is known of a value without running anything.

use std::collections::BTreeMap;

use rhai::{Dynamic, Map};

/// Longest list of which the items are told apart.
const MOST: usize = 64;

/// How a parameter begins where a text has it.
const PARAMETER: &str = "${params.";

/// A value as far as the text of a script says it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Only a run knows it.
    Unknown,
    /// Nothing: `()`.
    Unit,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// Text of which parts are parameters: `${params.service}/blue`. Two that read the same are the same; whether others are, only a
    /// run knows.
    Named(String),
    /// A list.
    Array(Vec<Value>),
    /// A map.
    Map(BTreeMap<String, Value>),
    /// One of these: the variable of a loop over a list.
    OneOf(Vec<Value>),
}

impl Value {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text, also if parts of it are parameters.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Named(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is the text that reads like this. `None`: only a run knows.
    pub fn is_named(&self, name: &str) -> Option<bool> {
        match self {
            Self::Text(text) if text == name => Some(true),
            Self::Text(_) if name.contains(PARAMETER) => None,
            Self::Text(_) => Some(false),
            Self::Named(text) => (text == name).then_some(true),
            _ => None,
        }
    }

    /// A parameter of the runbook.
    pub(super) fn parameter(name: &str) -> Self {
        Self::Named(format!("{PARAMETER}{name}}}"))
    }

    /// A text that is put together. Unknown if one of the parts is.
    pub(super) fn joined(parts: &[Self]) -> Self {
        let text: Option<String> = parts.iter().map(Self::shown).collect();
        let named = parts.iter().any(|part| matches!(part, Self::Named(_)));
        match text {
            Some(text) if named => Self::Named(text),
            Some(text) => Self::Text(text),
            None => Self::Unknown,
        }
    }

    /// The entry of a map. `Unit` where the map has none, `Unknown` where it is no map.
    pub fn entry(&self, name: &str) -> &Self {
        match self {
            Self::Map(map) => map.get(name).unwrap_or(&Self::Unit),
            _ => &Self::Unknown,
        }
    }

    /// Whether it may be such a value. What is not known may be anything.
    pub fn may_be(&self, such: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Unknown | Self::Named(_) => true,
            Self::OneOf(values) => values.iter().any(|value| value.may_be(such)),
            known => such(known),
        }
    }

    /// Whether it is such a value for sure.
    pub fn is(&self, such: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Unknown | Self::Named(_) => false,
            Self::OneOf(values) => values.iter().all(|value| value.is(such)),
            known => such(known),
        }
    }

    /// Whether this text, or something that is not known, is the value or is in it.
    pub fn may_mention(&self, wanted: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Text(_) | Self::Named(_) => self.is_named(wanted) != Some(false),
            Self::Array(items) | Self::OneOf(items) => items.iter().any(|item| item.may_mention(wanted)),
            Self::Map(map) => map.values().any(|value| value.may_mention(wanted)),
            _ => false,
        }
    }

    /// One of the items of a list.
    pub(super) fn item(&self) -> Self {
        match self {
            Self::Array(items) if !items.is_empty() && items.len() <= MOST => Self::OneOf(items.clone()),
            _ => Self::Unknown,
        }
    }

    /// As a part of a text.
    fn shown(&self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Named(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

impl From<&Dynamic> for Value {
    fn from(value: &Dynamic) -> Self {
        if value.is_unit() {
            return Self::Unit;
        }
        if let Ok(flag) = value.as_bool() {
            return Self::Bool(flag);
        }
        if let Ok(number) = value.as_int() {
            return Self::Int(number);
        }
        if let Ok(number) = value.as_float() {
            return Self::Float(number);
        }
        if let Ok(text) = value.as_immutable_string_ref() {
            return Self::Text(text.to_string());
        }
        if let Some(items) = value.read_lock::<rhai::Array>() {
            return Self::Array(items.iter().map(Self::from).collect());
        }
        if let Some(map) = value.read_lock::<Map>() {
            return Self::Map(map.iter().map(|(name, item)| (name.to_string(), Self::from(item))).collect());
        }
        Self::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_with_parameters_are_the_same_if_they_read_the_same_and_else_nobody_knows() {
        let text = |text: &str| Value::Text(text.to_owned());
        let named = Value::joined(&[Value::parameter("service"), text("/blue")]);
        assert_eq!(named, Value::Named("${params.service}/blue".to_owned()));
        assert_eq!(named.is_named("${params.service}/blue"), Some(true));
        assert_eq!(named.is_named("web/blue"), None);
        assert_eq!(text("web/blue").is_named("${params.service}/blue"), None);
        assert_eq!(text("web/blue").is_named("web/green"), Some(false));
        assert_eq!(Value::joined(&[text("a"), Value::Unknown]), Value::Unknown);
    }

    #[test]
    fn what_is_not_known_may_be_anything_and_is_nothing_for_sure() {
        let zero = |value: &Value| *value == Value::Int(0);
        for (value, may, is) in [
            (Value::Unknown, true, false),
            (Value::Int(0), true, true),
            (Value::Int(1), false, false),
            (Value::OneOf(vec![Value::Int(0), Value::Int(1)]), true, false),
            (Value::OneOf(vec![Value::Int(0)]), true, true),
            (Value::parameter("n"), true, false),
        ] {
            assert_eq!((value.may_be(&zero), value.is(&zero)), (may, is), "{value:?}");
        }
    }
}
