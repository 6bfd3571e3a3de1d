//! Secrets: handles that scripts pass around, the vault that holds the bytes, the scrubber that keeps them out of text.
//!
//! **Invariant:** a script never holds the bytes of a secret. It holds a [`SecretText`], which names secrets and is what the
//! journal, events and errors see. Only a provider, at the moment it sends a request, asks the [`Vault`] for the bytes.

use std::{collections::BTreeMap, fmt, sync::RwLock};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A text made of literal parts and named secrets, such as `Bearer ` + `deploy-token`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SecretText {
    /// Marks the value as a secret in JSON.
    #[serde(rename = "$secret")]
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Part {
    Text(String),
    Name(String),
}

impl SecretText {
    /// The secret of that name, alone.
    pub fn named(name: impl Into<String>) -> Self {
        Self { parts: vec![Part::Name(name.into())] }
    }

    /// This text with a literal before and after it.
    #[must_use]
    pub fn surrounded(mut self, before: &str, after: &str) -> Self {
        if !before.is_empty() {
            self.parts.insert(0, Part::Text(before.to_owned()));
        }
        if !after.is_empty() {
            self.parts.push(Part::Text(after.to_owned()));
        }
        self
    }

    /// The names of the secrets in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(&**name),
            Part::Text(_) => None,
        })
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Name(name) => write!(f, "<secret {name}>"),
        })
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An option that takes plain text or a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Plain text, shown as it is.
    Plain(String),
    /// A secret, shown by name.
    Secret(SecretText),
}

impl Text {
    /// The text with secrets filled in. Keep it short-lived.
    ///
    /// # Errors
    /// The name of a secret that this run has not read.
    pub fn reveal(&self, vault: &Vault) -> Result<Zeroizing<String>, UnknownSecret> {
        match self {
            Self::Plain(text) => Ok(Zeroizing::new(text.clone())),
            Self::Secret(secret) => vault.reveal(secret),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Plain(text.to_owned())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Secret(secret) => secret.fmt(f),
        }
    }
}

/// A secret was used that the vault does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret \"{0}\" has not been read in this run")]
pub struct UnknownSecret(pub String);

/// The secrets that a run has read, by name. Bytes are wiped when the run ends.
#[derive(Default)]
pub struct Vault {
    values: RwLock<BTreeMap<String, Zeroizing<String>>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

/// Secrets shorter than this are not searched for in text: they would match everywhere.
const SHORTEST_SCRUBBED: usize = 4;

impl Vault {
    /// Keeps a secret under `name`; from now on its bytes are scrubbed from everything that leaves the run.
    pub fn keep(&self, name: impl Into<String>, value: Zeroizing<String>) {
        if let Ok(mut values) = self.values.write() {
            values.insert(name.into(), value);
        }
    }

    /// Whether the secret of that name has been read.
    pub fn holds(&self, name: &str) -> bool {
        self.values.read().is_ok_and(|values| values.contains_key(name))
    }

    /// The bytes of a secret text.
    ///
    /// # Errors
    /// The name that the vault does not hold.
    pub fn reveal(&self, secret: &SecretText) -> Result<Zeroizing<String>, UnknownSecret> {
        let mut text = Zeroizing::new(String::new());
        for part in &secret.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Name(name) => {
                    let values = self.values.read().map_err(|_| UnknownSecret(name.clone()))?;
                    text.push_str(values.get(name).ok_or_else(|| UnknownSecret(name.clone()))?);
                }
            }
        }
        Ok(text)
    }

    /// Whether there is nothing to scrub.
    pub fn is_empty(&self) -> bool {
        self.values.read().is_ok_and(|values| values.is_empty())
    }

    /// `text` with every secret replaced by `<secret NAME>`, also where it is written as JSON, percent-encoded or in base64.
    pub fn scrub<'t>(&self, text: &'t str) -> std::borrow::Cow<'t, str> {
        let Ok(values) = self.values.read() else { return text.into() };
        let mut found = std::borrow::Cow::Borrowed(text);
        // Longest first, so that a secret that contains another is replaced whole.
        let mut known: Vec<(&String, &str)> =
            values.iter().map(|(name, value)| (name, value.trim_end_matches(['\n', '\r']))).collect();
        known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        for (name, value) in known {
            if value.len() < SHORTEST_SCRUBBED {
                continue;
            }
            for form in forms(value) {
                if found.contains(&*form) {
                    found = found.replace(&*form, &format!("<secret {name}>")).into();
                }
            }
            // A secret of many lines (a key) may come out line by line.
            for line in value.lines().filter(|line| line.len() >= 16 && value.len() > line.len()) {
                if found.contains(line) {
                    found = found.replace(line, &format!("<secret {name}>")).into();
                }
            }
        }
        found
    }
}

/// The ways in which a secret's bytes are commonly written.
fn forms(value: &str) -> Vec<Zeroizing<String>> {
    let mut forms = vec![Zeroizing::new(value.to_owned())];
    let mut add = |form: String| {
        let form = Zeroizing::new(form);
        if !forms.contains(&form) {
            forms.push(form);
        }
    };
    if let Ok(json) = serde_json::to_string(value) {
        add(json[1..json.len() - 1].to_owned());
    }
    add(percent_encoding::utf8_percent_encode(value, UNRESERVED).to_string());
    add(BASE64.encode(value));
    forms
}

/// Everything but RFC 3986 unreserved characters is percent-encoded.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        let vault = Vault::default();
        vault.keep("token", Zeroizing::new("s3cr3t \"value\"/x".to_owned()));
        vault
    }

    #[test]
    fn a_secret_prints_as_its_name_and_reveals_only_through_the_vault() {
        let bearer = SecretText::named("token").surrounded("Bearer ", "");
        assert_eq!(bearer.to_string(), "Bearer <secret token>");
        assert_eq!(format!("{bearer:?}"), "Bearer <secret token>");
        assert_eq!(vault().reveal(&bearer).expect("known").as_str(), "Bearer s3cr3t \"value\"/x");
        assert_eq!(Vault::default().reveal(&bearer), Err(UnknownSecret("token".to_owned())));
    }

    #[test]
    fn scrubbing_finds_plain_json_percent_and_base64_forms() {
        let vault = vault();
        for text in [
            "got s3cr3t \"value\"/x",
            r#"{"v":"s3cr3t \"value\"/x"}"#,
            "q=s3cr3t%20%22value%22%2Fx",
            "czNjcjN0ICJ2YWx1ZSIveA==",
        ] {
            let scrubbed = vault.scrub(text);
            assert!(scrubbed.contains("<secret token>"), "{text} -> {scrubbed}");
        }
        assert_eq!(vault.scrub("nothing here"), "nothing here");
    }

    #[test]
    fn text_options_take_plain_strings_and_secrets() {
        let plain: Text = serde_json::from_str("\"x\"").expect("plain");
        assert_eq!(plain, Text::from("x"));
        let json = serde_json::to_string(&SecretText::named("token")).expect("json");
        assert_eq!(serde_json::from_str::<Text>(&json).expect("secret").to_string(), "<secret token>");
    }
}
