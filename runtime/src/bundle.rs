//! A runbook with all it imports, as one unit that is identified by its content, and the parameters it is given.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The text of a runbook and of everything it imports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Name of the runbook's file within `files`.
    pub main: String,
    /// Text by path, relative to the runbook's folder.
    pub files: BTreeMap<String, String>,
}

impl Bundle {
    /// A bundle of one script without imports.
    pub fn single(name: impl Into<String>, text: impl Into<String>) -> Self {
        let main = name.into();
        let text = contraflow_provider::text::unmarked(text.into());
        Self { files: BTreeMap::from([(main.clone(), text)]), main }
    }

    /// SHA-256 over all names and texts, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        add(&self.main);
        for (name, text) in &self.files {
            add(name);
            add(text);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Text of the runbook itself.
    pub fn main_text(&self) -> &str {
        self.files.get(&self.main).map_or("", String::as_str)
    }

    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    pub(crate) fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// A value given for a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Text of a command line, read as the parameter's type.
    Text(String),
    /// A typed value, from a file or a program.
    Value(Value),
}
