//! What an HTTP probe can expect of an answer, apart from its status: text, patterns, JSON, headers.

use std::{collections::BTreeMap, fmt};

use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::attempts::Miss;
use crate::http::{exchange::Raw, message::HeaderName};

/// A regular expression, compiled when the option is read.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Regex::new(text).map(Self).map_err(|e| {
            // The library draws the place over several lines; the last one says what is wrong.
            let why = e.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("bad pattern \"{text}\": {why}")
        })
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// One text or several.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> de::Visitor<'de> for Any {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or an array of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = items.next_element()? {
                    all.push(text);
                }
                Ok(Texts(all))
            }
        }
        from.deserialize_any(Any)
    }
}

/// A place in a JSON document (RFC 6901): `/status`, `/items/0/name`; empty for the whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Pointer(String);

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() || text.starts_with('/') {
            Ok(Self(text))
        } else {
            Err(de::Error::custom(format!(
                "bad JSON pointer \"{text}\": expected one that begins with /, such as \"/status\""
            )))
        }
    }
}

/// What a header should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HeaderCheck {
    Present,
    Absent,
    Exactly(String),
    Matching(Pattern),
}

impl Serialize for HeaderCheck {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Present => to.serialize_bool(true),
            Self::Absent => to.serialize_bool(false),
            Self::Exactly(text) => to.serialize_str(text),
            Self::Matching(pattern) => to.collect_str(&format_args!("regex:{}", pattern.0)),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderCheck {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = HeaderCheck;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, the exact value, or \"regex:…\"")
            }

            fn visit_bool<E: de::Error>(self, present: bool) -> Result<HeaderCheck, E> {
                Ok(if present { HeaderCheck::Present } else { HeaderCheck::Absent })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderCheck, E> {
                match text.strip_prefix("regex:") {
                    Some(pattern) => pattern.parse().map(HeaderCheck::Matching).map_err(E::custom),
                    None => Ok(HeaderCheck::Exactly(text.to_owned())),
                }
            }
        }
        from.deserialize_any(Any)
    }
}

impl HeaderCheck {
    pub(crate) fn check(&self, name: &HeaderName, raw: &Raw) -> Result<(), Miss> {
        let found = raw.header(name.name());
        let passes = match (self, &found) {
            (Self::Present, found) => found.is_some(),
            (Self::Absent, found) => found.is_none(),
            (_, None) => false,
            (Self::Exactly(want), Some(value)) => want == value,
            (Self::Matching(pattern), Some(value)) => pattern.0.is_match(value),
        };
        if passes {
            return Ok(());
        }
        let name = name.as_str();
        let expected = match self {
            Self::Present => format!("header {name}"),
            Self::Absent => format!("no header {name}"),
            Self::Exactly(want) => format!("header {name} \"{want}\""),
            Self::Matching(pattern) => format!("header {name} that matches /{}/", pattern.0),
        };
        Err(Miss::new(
            expected,
            found.map_or_else(|| "no such header".to_owned(), |value| format!("\"{value}\"")),
        ))
    }
}

/// What is expected of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyCheck<'c> {
    pub(crate) contains: &'c Texts,
    pub(crate) pattern: Option<&'c Pattern>,
    pub(crate) json: &'c BTreeMap<Pointer, Value>,
}

impl BodyCheck<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.contains.0.is_empty() && self.pattern.is_none() && self.json.is_empty()
    }

    /// All that does not hold.
    pub(crate) fn misses(&self, raw: &Raw) -> Vec<Miss> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut misses = Vec::new();
        let text = String::from_utf8_lossy(&raw.body);
        let got = || match raw.excerpt() {
            body if body.is_empty() => "an empty body".to_owned(),
            body if raw.truncated => format!("\"{body}\" (searched the first {} bytes)", raw.body.len()),
            body => format!("\"{body}\""),
        };
        for want in &self.contains.0 {
            if !text.contains(want.as_str()) {
                misses.push(Miss::new(format!("a body that contains \"{want}\""), got()));
            }
        }
        if let Some(pattern) = self.pattern
            && !pattern.0.is_match(&text)
        {
            misses.push(Miss::new(format!("a body that matches /{}/", pattern.0), got()));
        }
        if !self.json.is_empty() {
            match serde_json::from_slice::<Value>(&raw.body) {
                _ if raw.truncated => misses.push(Miss::new(
                    "a JSON body",
                    format!("one that is longer than {} bytes", raw.body.len()),
                )),
                Err(_) => misses.push(Miss::new("a JSON body", got())),
                Ok(document) => misses.extend(self.json.iter().filter_map(|(pointer, want)| {
                    let found = document.pointer(&pointer.0);
                    if found.is_some_and(|found| same(found, want)) {
                        return None;
                    }
                    let place = if pointer.0.is_empty() { "the body" } else { &pointer.0 };
                    // A string is scrubbed as what it stands for, and the whole before it is cut.
                    let clean = |found: &Value| {
                        let mut found = found.clone();
                        raw.vault.scrub_json(&mut found);
                        shorten(&raw.vault.scrub(&found.to_string()))
                    };
                    let got = found.map_or_else(|| "nothing there".to_owned(), clean);
                    Some(Miss::new(
                        format!("{place} = {}", shorten(&raw.vault.scrub(&want.to_string()))),
                        got,
                    ))
                })),
            }
        }
        misses
    }
}

fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    if text.chars().count() > LONGEST {
        text.chars().take(LONGEST).collect::<String>() + "…"
    } else {
        text.to_owned()
    }
}

/// Whether two JSON values are equal, where 1 and 1.0 are the same number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || ((a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Several misses as one.
pub(crate) fn join(mut misses: Vec<Miss>) -> Option<Miss> {
    if misses.len() < 2 {
        return misses.pop();
    }
    let list = |part: fn(&Miss) -> &str| misses.iter().map(part).collect::<Vec<_>>().join("; ");
    let hint = misses.iter().find_map(|miss| miss.hint.clone());
    Some(Miss { expected: list(|miss| &miss.expected), got: list(|miss| &miss.got), hint })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value_and_everything_else_exactly() {
        assert!(same(&json!({ "a": [1, { "b": 2.0 }] }), &json!({ "a": [1.0, { "b": 2 }] })));
        assert!(!same(&json!({ "a": 1 }), &json!({ "a": 1, "b": 2 })));
        assert!(!same(&json!("1"), &json!(1)));
        assert!(!same(&json!([1]), &json!([1, 2])));
    }

    #[test]
    fn bad_patterns_and_pointers_are_refused_when_they_are_read() {
        let error = serde_json::from_value::<Pattern>(json!("a(")).expect_err("refused").to_string();
        assert!(error.starts_with("bad pattern \"a(\": unclosed group"), "{error}");
        assert!(serde_json::from_value::<HeaderCheck>(json!("regex:[")).is_err());
        assert!(serde_json::from_value::<Pointer>(json!("status")).is_err());
        assert!(
            serde_json::from_value::<Texts>(json!(1))
                .expect_err("refused")
                .to_string()
                .contains("text or an array")
        );
    }

    #[test]
    fn checks_are_journaled_as_they_were_written() {
        for written in [json!(true), json!(false), json!("max-age=1"), json!("regex:^max")] {
            let check: HeaderCheck = serde_json::from_value(written.clone()).expect("check");
            assert_eq!(serde_json::to_value(&check).expect("json"), written);
        }
    }
}
