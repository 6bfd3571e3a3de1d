//! Migrations as their files hold them: versions, checksums, and what a file asks for.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// The version of a migration: the number its file name begins with. `1` and `0001` are the same version.
#[derive(Debug, Clone)]
pub struct Version {
    number: u64,
    text: String,
}

impl Version {
    /// Reads the digits in front of a file name.
    pub fn read(digits: &str) -> Option<Self> {
        let fits = !digits.is_empty() && digits.len() <= 18 && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| digits.parse().ok()).flatten().map(|number| Self { number, text: digits.to_owned() })
    }

    /// The version as the number by which migrations are ordered.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number.cmp(&other.number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Version;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number of a migration, such as 3 or \"0003\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                Version::read(text).ok_or_else(|| {
                    E::custom(format!(
                        "\"{text}\" is not a version: expected the number of a migration, such as \"0003\""
                    ))
                })
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Version, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Version, E> {
                self.visit_str(&number.to_string())
            }
        }
        from.deserialize_any(Digits)
    }
}

/// One migration, as its files hold it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Its version.
    pub version: Version,
    /// The name of its files without the ending: `0001_create_users`.
    pub name: String,
    /// The file that moves up.
    pub file: String,
    /// SHA-256 of `up`, hexadecimal; line ends count as `\n`, so that a checkout on another system is the same migration.
    pub checksum: String,
    /// The SQL that moves up.
    pub up: String,
    /// The SQL that moves back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
}

/// SHA-256 of SQL, as [`Migration::checksum`].
pub fn checksum(sql: &str) -> String {
    Sha256::digest(sql.replace("\r\n", "\n")).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a file asks to run outside a transaction: `-- contraflow: no-transaction` in the comment lines it begins with.
pub fn is_without_transaction(sql: &str) -> bool {
    directives(sql).any(|directive| directive == "no-transaction")
}

/// What the comment lines at the beginning of a file ask for.
pub fn directives(sql: &str) -> impl Iterator<Item = &str> {
    sql.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .filter_map(|line| line.trim_start_matches('-').trim_start().strip_prefix("contraflow:"))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_do_not_change_a_checksum_and_everything_else_does() {
        assert_eq!(checksum("a\r\nb\r\n"), checksum("a\nb\n"));
        assert_ne!(checksum("a\nb\n"), checksum("a\nb"));
    }

    #[test]
    fn versions_are_the_same_by_number_and_are_read_from_numbers_and_digits() {
        let read = |json: &str| serde_json::from_str::<Version>(json).map_err(|e| e.to_string());
        assert_eq!(read("3"), read("\"0003\""));
        assert!(read("-3").is_err());
        assert!(read("\"0003_name\"").is_err_and(|e| e.contains("expected the number of a migration")));
    }
}
