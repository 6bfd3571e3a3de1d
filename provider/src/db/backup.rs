//! Backups: what a provider is asked to write, and what it proved.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

/// How a backup is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// It is restored into a scratch database and compared.
    #[default]
    Restore,
    /// It is read from end to end.
    Read,
    /// Not at all.
    No,
}

impl<'de> Deserialize<'de> for Verify {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Choice;
        impl de::Visitor<'_> for Choice {
            type Value = Verify;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or \"read\"")
            }
            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Verify, E> {
                Ok(if yes { Verify::Restore } else { Verify::No })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Verify, E> {
                match text {
                    "restore" => Ok(Verify::Restore),
                    "read" => Ok(Verify::Read),
                    "no" => Ok(Verify::No),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        from.deserialize_any(Choice)
    }
}

/// What a provider is asked to write.
#[derive(Debug, Clone)]
pub struct Job {
    /// The file. It is there, empty, and only its owner may read it.
    pub file: PathBuf,
    /// How the copy is proven.
    pub verify: Verify,
    /// A name that no other backup uses at the same time and a repeated one uses again: letters and digits.
    pub key: String,
}

/// What a provider found in the copy it wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// How the copy was proven: `restored`, `read`, `no`.
    pub verified: String,
    /// Tables in the copy, where they were compared.
    pub tables: Option<u64>,
    /// Rows in the copy, where they were counted.
    pub rows: Option<u64>,
    /// What a person should know about the proof. Empty: nothing.
    pub note: String,
}
