//! Secrets in JSON: where a handle stands in it, and how plain data that looks like one is told apart.
//!
//! **Invariant:** a handle comes from a script that holds one. Whatever a server, a file or a person wrote is data: what a script
//! passes on has its [names](plain_key) marked, so that none of them begins a handle.

use std::borrow::Cow;

use serde_json::Value;
use zeroize::Zeroizing;

use super::{Part, SecretText, Unrevealed, Vault};

/// The only field of a handle.
const MARK: &str = "$secret";

/// Numbers with fewer digits are not taken for a secret.
const SHORTEST_NUMBER: usize = 6;

/// A name of plain data as it stands beside handles: `$secret` as `$$secret`, which is `$$$secret` then.
pub fn plain_key(key: &str) -> Cow<'_, str> {
    if key.starts_with('$') && key.trim_start_matches('$') == "secret" {
        Cow::Owned(format!("${key}"))
    } else {
        Cow::Borrowed(key)
    }
}

/// A name of plain data as it was.
fn bare_key(key: &str) -> &str {
    if key.starts_with("$$") && key.trim_start_matches('$') == "secret" { &key[1..] } else { key }
}

fn handle(value: &Value) -> Option<SecretText> {
    let Value::Object(map) = value else { return None };
    if map.len() == 1 && map.contains_key(MARK) { serde_json::from_value(value.clone()).ok() } else { None }
}

/// Whether a handle is in it.
pub fn has_handle(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_handle),
        Value::Object(map) => handle(value).is_some() || map.values().any(has_handle),
        _ => false,
    }
}

/// Data as it was before its names were marked. Handles are left in it.
pub fn bare(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(bare),
        Value::Object(map) => {
            if map.keys().any(|key| bare_key(key) != key) {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(key, item)| (bare_key(&key).to_owned(), item))
                    .collect();
            }
            map.values_mut().for_each(bare);
        }
        _ => {}
    }
}

impl Vault {
    /// Puts secrets in place of their handles, and makes all else what it was. Keep the result short-lived.
    ///
    /// # Errors
    /// A secret that this run has not read, or one that is too long.
    pub fn fill(&self, value: &mut Value) -> Result<(), Unrevealed> {
        if let Some(secret) = handle(value) {
            *value = Value::String(self.reveal(&secret)?.as_str().to_owned());
            return Ok(());
        }
        match value {
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.fill(item)),
            Value::Object(map) => {
                for (key, mut item) in std::mem::take(map) {
                    self.fill(&mut item)?;
                    map.insert(bare_key(&key).to_owned(), item);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A value as JSON text with secrets in place of their handles.
    ///
    /// # Errors
    /// As [`Vault::fill`].
    pub fn filled(&self, value: &Value) -> Result<Zeroizing<String>, Unrevealed> {
        let mut value = value.clone();
        self.fill(&mut value)?;
        Ok(Zeroizing::new(value.to_string()))
    }

    /// Scrubs every text in a JSON value, names of fields and numbers included, below whatever name. Of handles, only the names of
    /// secrets that were read stay as they are.
    pub fn scrub_json(&self, value: &mut Value) {
        if !self.is_empty() {
            self.scrub_value(value);
        }
    }

    fn scrub_value(&self, value: &mut Value) {
        if let Some(mut secret) = handle(value) {
            for part in &mut secret.parts {
                match part {
                    Part::Name(name) if self.holds(name) => {}
                    Part::Name(text) | Part::Text(text) => self.scrub_text(text),
                }
            }
            if let Ok(clean) = serde_json::to_value(secret) {
                *value = clean;
            }
            return;
        }
        match value {
            Value::String(text) => self.scrub_text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.scrub_value(item)),
            Value::Object(map) => {
                if map.keys().any(|key| matches!(self.scrub(key), Cow::Owned(_))) {
                    let items = std::mem::take(map).into_iter();
                    *map = items.map(|(key, item)| (self.scrub(&key).into_owned(), item)).collect();
                }
                map.values_mut().for_each(|item| self.scrub_value(item));
            }
            Value::Number(number) => {
                let digits = number.to_string();
                if digits.len() >= SHORTEST_NUMBER
                    && let Cow::Owned(clean) = self.scrub(&digits)
                    && clean.starts_with('<')
                    && clean.ends_with('>')
                {
                    *value = Value::String(clean);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn scrub_text(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.scrub(text) {
            *text = clean;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn vault() -> Vault {
        let vault = Vault::default();
        vault.keep("token", Zeroizing::new("hunter2-hunter2".to_owned()));
        vault.keep("pin", Zeroizing::new("20171018".to_owned()));
        vault
    }

    #[test]
    fn handles_are_filled_in_and_plain_data_stays_what_it_is() {
        let secret = SecretText::named("token").surrounded("Bearer ", "");
        let mut value = json!({ "a": [secret], "$$secret": [{ "name": "token" }], "b": { "$$$secret": 1 } });
        assert!(has_handle(&value));
        vault().fill(&mut value).expect("known");
        assert_eq!(
            value,
            json!({ "a": ["Bearer hunter2-hunter2"], "$secret": [{ "name": "token" }], "b": { "$$secret": 1 } })
        );
        assert_eq!(
            Vault::default().filled(&json!([SecretText::named("x")])),
            Err(Unrevealed::Unread("x".to_owned()))
        );
    }

    #[test]
    fn every_name_that_could_begin_a_handle_is_marked_and_bare_again() {
        for (key, marked) in
            [("$secret", "$$secret"), ("$$secret", "$$$secret"), ("secret", "secret"), ("$", "$")]
        {
            assert_eq!(plain_key(key), marked);
            assert_eq!(bare_key(marked), key);
        }
        assert!(!has_handle(&json!({ "$$secret": [{ "name": "token" }] })));
        let mut value = json!([{ "$$secret": [{ "$$$secret": 1 }] }]);
        bare(&mut value);
        assert_eq!(value, json!([{ "$secret": [{ "$$secret": 1 }] }]));
    }

    #[test]
    fn nothing_below_any_name_escapes_the_scrubber() {
        let bytes = "hunter2-hunter2";
        for mut value in [
            json!({ "$secret": bytes }),
            json!({ "$secret": { "deep": [bytes] } }),
            json!({ "$secret": [{ "text": bytes }] }),
            json!({ "$secret": [{ "name": bytes }] }),
            json!({ "$secret": [{ "name": "token" }, { "text": format!("x{bytes}") }] }),
            json!({ "$secret": [{ "name": "token", "more": bytes }] }),
            json!({ "$secret": [{ "name": "token" }], "code": bytes }),
            json!({ "kind": bytes, "value": { "$$secret": bytes } }),
            json!({ bytes: 1 }),
            json!([[bytes, 20_171_018]]),
        ] {
            let was = value.to_string();
            vault().scrub_json(&mut value);
            let text = value.to_string();
            assert!(!text.contains(bytes) && !text.contains("20171018"), "{was} -> {text}");
            assert!(text.contains("<secret "), "{was} -> {text}");
        }
        let mut handle = json!([SecretText::named("token").surrounded("Bearer ", "")]);
        let was = handle.clone();
        vault().scrub_json(&mut handle);
        assert_eq!(handle, was);
    }
}
