//! What is known of a value without running anything.

use std::collections::BTreeMap;

use rhai::{Dynamic, Map};

/// Longest list of which the items are told apart.
const MOST: usize = 64;

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
            Self::Unknown => true,
            Self::OneOf(values) => values.iter().any(|value| value.may_be(such)),
            known => such(known),
        }
    }

    /// Whether it is such a value for sure.
    pub fn is(&self, such: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Unknown => false,
            Self::OneOf(values) => values.iter().all(|value| value.is(such)),
            known => such(known),
        }
    }

    /// Whether this text, or something that is not known, is the value or is in it.
    pub fn may_mention(&self, wanted: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Text(text) => text == wanted,
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
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
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
    fn what_is_not_known_may_be_anything_and_is_nothing_for_sure() {
        let zero = |value: &Value| *value == Value::Int(0);
        for (value, may, is) in [
            (Value::Unknown, true, false),
            (Value::Int(0), true, true),
            (Value::Int(1), false, false),
            (Value::OneOf(vec![Value::Int(0), Value::Int(1)]), true, false),
            (Value::OneOf(vec![Value::Int(0)]), true, true),
        ] {
            assert_eq!((value.may_be(&zero), value.is(&zero)), (may, is), "{value:?}");
        }
    }
}
