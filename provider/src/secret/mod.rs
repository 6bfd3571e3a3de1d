//! Secrets: handles that scripts pass around, the vault that holds the bytes, the scrubber that keeps them out of text.
//!
//! **Invariant:** a script never holds the bytes of a secret. It holds a [`SecretText`], which names secrets and is what the
//! journal, events and errors see. Only a provider, at the moment it sends a request, asks the [`Vault`] for the bytes.

mod json;
mod scrub;

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::RwLock};

pub use json::{bare, has_handle, plain_key};
use scrub::Scrubber;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::quantity::Size;

/// A text made of literal parts and named secrets, such as `Bearer ` + `deploy-token`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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

    /// Literals and secrets, one after the other.
    pub fn joined(pieces: impl IntoIterator<Item = Text>) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |part: Part| match (parts.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, Part::Text(text)) if text.is_empty() => {}
            (_, part) => parts.push(part),
        };
        for piece in pieces {
            match piece {
                Text::Plain(text) => add(Part::Text(text)),
                Text::Secret(secret) => secret.parts.into_iter().for_each(&mut add),
            }
        }
        Self { parts }
    }

    /// About how many bytes it takes in memory.
    pub fn size(&self) -> usize {
        let text = |part: &Part| match part {
            Part::Text(text) | Part::Name(text) => text.len(),
        };
        self.parts.iter().map(|part| text(part) + size_of::<Part>()).sum()
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
    /// The name of a secret that this run has not read, or that it is too long.
    pub fn reveal(&self, vault: &Vault) -> Result<Zeroizing<String>, Unrevealed> {
        match self {
            Self::Plain(text) => Ok(Zeroizing::new(text.clone())),
            Self::Secret(secret) => vault.reveal(secret),
        }
    }
}

impl Text {
    /// The names of the secrets in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let secret = match self {
            Self::Plain(_) => None,
            Self::Secret(secret) => Some(secret),
        };
        secret.into_iter().flat_map(SecretText::names)
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

/// Why the bytes of a text cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unrevealed {
    /// The vault does not hold a secret that is in it.
    #[error("the secret \"{0}\" has not been read in this run")]
    Unread(String),
    /// It would not fit in memory, or hardly.
    #[error("the text with its secrets filled in is longer than {}", Size(LONGEST as u64))]
    TooLong,
}

/// The longest text with its secrets filled in, in bytes.
const LONGEST: usize = 16 << 20;

/// The secrets that a run has read, by name. Bytes are wiped when the run ends.
#[derive(Default)]
pub struct Vault {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    values: BTreeMap<String, Zeroizing<String>>,
    scrubber: Scrubber,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// Keeps a secret under `name`; from now on its bytes are scrubbed from everything that leaves the run. A value that was
    /// kept under that name before is scrubbed as well: a secret may change during a run.
    pub fn keep(&self, name: impl Into<String>, value: Zeroizing<String>) {
        let Ok(mut kept) = self.kept.write() else { return };
        let name = name.into();
        if kept.values.get(&name) != Some(&value) {
            kept.scrubber.add(&name, &value);
            kept.values.insert(name, value);
        }
    }

    /// Whether the secret of that name has been read.
    pub fn holds(&self, name: &str) -> bool {
        self.kept.read().is_ok_and(|kept| kept.values.contains_key(name))
    }

    /// The bytes of a secret text.
    ///
    /// # Errors
    /// The name that the vault does not hold, or that it is too long.
    pub fn reveal(&self, secret: &SecretText) -> Result<Zeroizing<String>, Unrevealed> {
        let mut text = Zeroizing::new(String::new());
        for part in &secret.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Name(name) => {
                    let kept = self.kept.read().map_err(|_| Unrevealed::Unread(name.clone()))?;
                    text.push_str(kept.values.get(name).ok_or_else(|| Unrevealed::Unread(name.clone()))?);
                }
            }
            if text.len() > LONGEST {
                return Err(Unrevealed::TooLong);
            }
        }
        Ok(text)
    }

    /// Whether there is nothing to scrub.
    pub fn is_empty(&self) -> bool {
        self.kept.read().is_ok_and(|kept| kept.values.is_empty())
    }

    /// `text` with every secret replaced by `<secret NAME>`, however it is escaped or encoded there.
    pub fn scrub<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.kept.read() {
            Ok(kept) => kept.scrubber.scrub(text, 0, text.len()),
            // Nothing in the vault panics while it is being written; if something did, no text is safe to show.
            Err(_) => "<hidden: secrets could not be searched for>".into(),
        }
    }

    /// The part of `text` from byte `from` to byte `to`, scrubbed. Secrets that reach over an end of the part are seen if all of
    /// them is in `text`, so whoever cuts a text keeps [`Vault::margin`] bytes on either side of the cut.
    pub fn scrub_part<'t>(&self, text: &'t str, from: usize, to: usize) -> Cow<'t, str> {
        match self.kept.read() {
            Ok(kept) => kept.scrubber.scrub(text, from, to),
            Err(_) => "<hidden: secrets could not be searched for>".into(),
        }
    }

    /// How many bytes of a text must be known on either side of a cut, so that a secret that lies across it is seen whole.
    pub fn margin(&self) -> usize {
        self.kept.read().map_or(0, |kept| kept.scrubber.margin())
    }
}

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
        assert_eq!(Vault::default().reveal(&bearer), Err(Unrevealed::Unread("token".to_owned())));
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
    fn a_secret_text_is_put_together_of_literals_and_secrets() {
        let text = SecretText::joined([
            "Basic ".into(),
            "x".into(),
            Text::Secret(SecretText::named("user").surrounded("<", "")),
            "".into(),
            Text::Secret(SecretText::named("token").surrounded(":", ">")),
        ]);
        assert_eq!(text.to_string(), "Basic x<<secret user>:<secret token>>");
        assert_eq!(text.names().collect::<Vec<_>>(), ["user", "token"]);
        assert_eq!(
            serde_json::to_string(&text).expect("json"),
            r#"{"$secret":[{"text":"Basic x<"},{"name":"user"},{"text":":"},{"name":"token"},{"text":">"}]}"#
        );
    }

    #[test]
    fn a_secret_that_changed_is_scrubbed_in_its_old_form_too() {
        let vault = vault();
        vault.keep("token", Zeroizing::new("brand-new".to_owned()));
        assert_eq!(vault.scrub("s3cr3t \"value\"/x, brand-new"), "<secret token>, <secret token>");
        assert_eq!(vault.reveal(&SecretText::named("token")).expect("known").as_str(), "brand-new");
    }

    #[test]
    fn text_options_take_plain_strings_and_secrets() {
        let plain: Text = serde_json::from_str("\"x\"").expect("plain");
        assert_eq!(plain, Text::from("x"));
        let json = serde_json::to_string(&SecretText::named("token")).expect("json");
        assert_eq!(serde_json::from_str::<Text>(&json).expect("secret").to_string(), "<secret token>");
    }
}
