//! What has been applied to a database, as its history table says. The same for every provider.
//!
//! The history table (`_contraflow_migrations` unless told otherwise) has one row for each applied migration: `version`, `name`,
//! `checksum` of the way up, `down_checksum`, `down_sql`, `applied_at`, `elapsed_ms`. The text of the way back is kept with it,
//! so that an undo works when the files are gone.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{migration::Version, work::refused};
use crate::provider::ProviderError;

/// The name of a history table: an identifier, or two with a dot between (`schema.table`, PostgreSQL only).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Table(String);

impl Default for Table {
    fn default() -> Self {
        Self("_contraflow_migrations".to_owned())
    }
}

impl Table {
    /// Its schema, if it names one.
    pub fn schema(&self) -> Option<&str> {
        self.0.split_once('.').map(|(schema, _)| schema)
    }

    /// Its name behind the schema.
    pub fn name(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(_, name)| name)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let word = |part: &str| {
            part.len() <= 63
                && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() <= 2 && parts.iter().all(|part| word(part)) {
            Ok(Self(text))
        } else {
            Err(de::Error::custom(format!(
                "\"{text}\" is not a valid name for a table: expected letters, digits and underscores, such \
                 as \"schema_history\""
            )))
        }
    }
}

/// One row of the history table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the migration.
    pub version: Version,
    /// Name of its files, without the ending.
    pub name: String,
    /// SHA-256 of the way up that was applied.
    pub checksum: String,
    /// SHA-256 of the way back that was there then.
    pub down_checksum: Option<String>,
    /// The way back that was there then.
    pub down: Option<String>,
}

impl Record {
    /// A row of the table.
    ///
    /// # Errors
    /// The name does not begin with a number: the table is not one of Contraflow's.
    pub fn read(
        name: String,
        checksum: String,
        down_checksum: Option<String>,
        down: Option<String>,
    ) -> Result<Self, ProviderError> {
        let digits = name.split('_').next().unwrap_or_default();
        let version = Version::read(digits).ok_or_else(|| {
            refused(format!("the history table has a row named \"{name}\", which is not a migration"))
                .hint("choose another table with `table`")
        })?;
        // What stands in the file before it is no part of what is run.
        let down = down.map(crate::text::unmarked);
        Ok(Self { version, name, checksum, down_checksum, down })
    }
}

/// One applied migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its version.
    pub version: Version,
    /// SHA-256 of the way up that was applied.
    pub checksum: String,
}

/// The applied migrations of a database, by version. Its `Display` is what plans show: `0001, 0002`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schema(pub Vec<Applied>);

/// Longest list of versions that is shown in full.
const LONGEST_LIST: usize = 48;

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(self.0.iter().map(|applied| &applied.version)))
    }
}

/// Versions for people: all of them, or how many and the latest.
pub(super) fn list<'v>(versions: impl Iterator<Item = &'v Version>) -> String {
    let versions: Vec<String> = versions.map(Version::to_string).collect();
    let all = versions.join(", ");
    match versions.last() {
        None => "no migrations".to_owned(),
        Some(latest) if all.len() > LONGEST_LIST => format!("{} applied, latest {latest}", versions.len()),
        Some(_) => all,
    }
}

impl Schema {
    /// What the history table says.
    pub fn of(history: Vec<Record>) -> Self {
        Self(history.into_iter().map(|r| Applied { version: r.version, checksum: r.checksum }).collect())
    }

    /// The applied migration of that version.
    pub fn get(&self, version: &Version) -> Option<&Applied> {
        self.0.iter().find(|applied| applied.version == *version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(n: u64) -> Schema {
        let version = |n| Version::read(&format!("{n:04}")).expect("digits");
        Schema((1..=n).map(|n| Applied { version: version(n), checksum: String::new() }).collect())
    }

    #[test]
    fn few_versions_are_listed_and_many_are_counted() {
        assert_eq!(Schema::default().to_string(), "no migrations");
        assert_eq!(schema(2).to_string(), "0001, 0002");
        assert_eq!(schema(12).to_string(), "12 applied, latest 0012");
    }

    #[test]
    fn table_names_are_plain_identifiers() {
        let read = |name: &str| serde_json::from_value::<Table>(name.into()).is_ok();
        assert!(read("history") && read("ops.history"));
        assert!(!read("a b") && !read("a\"") && !read("a.b.c") && !read("") && !read("1a"));
    }
}
