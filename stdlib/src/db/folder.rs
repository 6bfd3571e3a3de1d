//! Migration files: their names, their order, and the read that brings them into the journal.
//!
//! `0001_create_users.up.sql` moves up, `0001_create_users.down.sql` moves back, `0001_create_users.sql` moves up only. The
//! number in front is the version (a timestamp such as `20260101120000` is one too); files run in the order of their numbers.

use std::{cmp::Ordering, collections::BTreeMap, fmt, path::Path, sync::LazyLock};

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    target::Target,
};
use regex::Regex;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use super::{
    Ready,
    sql::{self, Dialect},
};
use crate::codes;

/// Largest migration file. Its text is kept in the journal; bulk data belongs elsewhere.
const LARGEST_FILE: usize = 4 << 20;

/// The version of a migration: the number its file name begins with. `1` and `0001` are the same version.
#[derive(Debug, Clone)]
pub struct Version {
    number: u64,
    text: String,
}

impl Version {
    /// Reads the digits in front of a file name.
    pub(crate) fn read(digits: &str) -> Option<Self> {
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
pub(crate) fn checksum(sql: &str) -> String {
    hex(&Sha256::digest(sql.replace("\r\n", "\n")))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a file asks to run outside a transaction: `-- contraflow: no-transaction` in the comment lines it begins with.
pub(crate) fn is_without_transaction(sql: &str) -> bool {
    directives(sql).any(|directive| directive == "no-transaction")
}

/// What the comment lines at the beginning of a file ask for.
fn directives(sql: &str) -> impl Iterator<Item = &str> {
    sql.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .take_while(|line| line.is_empty() || line.starts_with("--"))
        .filter_map(|line| line.trim_start_matches('-').trim_start().strip_prefix("contraflow:"))
        .map(str::trim)
}

/// Brings the files of a folder into order. `files` are names and contents.
///
/// # Errors
/// A name that is none of a migration's, two files for one version, a way back without a way up, a file that handles
/// transactions itself: each with the file's name.
pub(crate) fn arrange(
    files: Vec<(String, String)>,
    dialect: Dialect,
) -> Result<Vec<Migration>, ProviderError> {
    static NAME: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^(([0-9]{1,18})_[A-Za-z0-9_.-]+?)(\.up|\.down)?\.sql$").ok());
    let mut ups: BTreeMap<Version, Migration> = BTreeMap::new();
    let mut downs: BTreeMap<Version, (String, String, String)> = BTreeMap::new();
    for (file, text) in files {
        let Some((name, version, kind)) =
            NAME.as_ref().and_then(|name| name.captures(&file)).and_then(|found| {
                let version = Version::read(found.get(2)?.as_str())?;
                Some((
                    found.get(1)?.as_str().to_owned(),
                    version,
                    found.get(3).map_or("", |kind| kind.as_str()).to_owned(),
                ))
            })
        else {
            return Err(broken(format!("{file}: not a valid name of a migration")).hint(
                "expected a number, an underscore and a name: 0001_create_users.up.sql, with \
                    0001_create_users.down.sql to undo it",
            ));
        };
        check_text(&file, &text, dialect)?;
        let earlier = if kind == ".down" {
            downs.insert(version.clone(), (name, file.clone(), text)).map(|(_, earlier, _)| earlier)
        } else {
            let checksum = checksum(&text);
            let version = version.clone();
            let migration = Migration {
                version: version.clone(),
                name,
                file: file.clone(),
                checksum,
                up: text,
                down: None,
            };
            ups.insert(version, migration).map(|earlier| earlier.file)
        };
        if let Some(earlier) = earlier {
            return Err(broken(format!("{earlier} and {file} are both version {version}"))
                .hint("give one of them another number"));
        }
    }
    for (version, (name, file, text)) in downs {
        match ups.get_mut(&version) {
            Some(up) if up.name == name => up.down = Some(text),
            Some(up) => {
                return Err(broken(format!("{file} does not belong to {}", up.file))
                    .hint(format!("rename it to {}.down.sql", up.name)));
            }
            None => {
                return Err(
                    broken(format!("{file} has no {name}.up.sql")).hint("a down file needs its up file")
                );
            }
        }
    }
    Ok(ups.into_values().collect())
}

fn check_text(file: &str, text: &str, dialect: Dialect) -> Result<(), ProviderError> {
    if let Some(unknown) = directives(text).find(|directive| *directive != "no-transaction") {
        return Err(broken(format!("{file}: unknown directive \"{unknown}\""))
            .hint("the only directive is `-- contraflow: no-transaction`"));
    }
    let statements = sql::statements(text, dialect);
    if statements.is_empty() {
        return Err(broken(format!("{file}: has no statement")).hint("write `SELECT 1;` if that is meant"));
    }
    if is_without_transaction(text) {
        return Ok(());
    }
    match statements.iter().find(|statement| statement.controls_transaction()) {
        Some(found) => Err(broken(format!(
            "{file} line {}: `{}` inside the transaction in which each file runs",
            found.line,
            sql::brief(found.text)
        ))
        .hint("remove it, or begin the file with `-- contraflow: no-transaction`")),
        None => Ok(()),
    }
}

fn broken(message: String) -> ProviderError {
    ProviderError::terminal(codes::MIGRATION, message)
}

/// Reads a folder of migrations.
///
/// # Errors
/// The folder or a file cannot be read; [`arrange`].
pub(crate) async fn read_folder(folder: &Path, dialect: Dialect) -> Result<Vec<Migration>, ProviderError> {
    let failed = |path: &Path, e: &std::io::Error| broken(format!("{}: {e}", path.display()));
    let mut entries = match tokio::fs::read_dir(folder).await {
        Ok(entries) => entries,
        Err(e) => {
            return Err(failed(folder, &e).hint(
                "`dir`, or `migrations` of the database in contraflow.toml, names the folder of migrations",
            ));
        }
    };
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(|e| failed(folder, &e))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || !name.to_ascii_lowercase().ends_with(".sql") {
            continue;
        }
        let path = entry.path();
        let bytes = tokio::fs::read(&path).await.map_err(|e| failed(&path, &e))?;
        if bytes.len() > LARGEST_FILE {
            return Err(broken(format!("{name}: larger than 4MiB"))
                .hint("migrations are stored in the journal of the run: load bulk data another way"));
        }
        let text = String::from_utf8(bytes).map_err(|_| broken(format!("{name}: not UTF-8 text")))?;
        files.push((name, text));
    }
    // In the order of names, so that an error about two files is the same each time.
    files.sort();
    arrange(files, dialect)
}

/// Reads the migration files of a database, so that the journal keeps exactly what will be run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Folder {
    /// The database in whose folder a relative path is looked up.
    pub database: String,
    /// The folder; none: what the configuration says.
    pub dir: Option<String>,
}

impl Folder {
    /// The migrations, by the files as they are now.
    pub(super) async fn load(&self, database: &Ready<'_>) -> Result<Vec<Migration>, ProviderError> {
        let folder = match (&self.dir, database.migrations()?.configured_folder()) {
            (Some(dir), _) => database.folder().join(dir),
            (None, Some(configured)) => configured.to_owned(),
            (None, None) => {
                return Err(broken(format!("no folder of migrations is set for \"{}\"", self.database))
                    .hint("give `dir`, or set `migrations` for the database in contraflow.toml"));
            }
        };
        read_folder(&folder, database.dialect()).await
    }
}

impl Read for Folder {
    const ID: &'static str = "db.migrations";
    type Value = Vec<Migration>;

    fn describe(&self) -> String {
        match &self.dir {
            Some(dir) => format!("{} for {}", dir, self.database),
            None => self.database.clone(),
        }
    }

    /// None: files do not change with the database.
    fn depends_on(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn read(&self, on: &On) -> Result<Vec<Migration>, ProviderError> {
        self.load(&super::ready(on, &self.database).await?).await
    }

    fn show(&self, found: &Vec<Migration>) -> String {
        match found.last() {
            Some(last) => {
                let s = if found.len() == 1 { "" } else { "s" };
                format!("{} file{s}, latest {}", found.len(), last.name)
            }
            None => "no files".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(files: &[(&str, &str)]) -> Result<Vec<Migration>, String> {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        arrange(files, Dialect::Postgres).map_err(|e| e.message)
    }

    #[test]
    fn files_are_ordered_by_number_and_paired() {
        let found = arranged(&[
            ("10_c.sql", "SELECT 10"),
            ("2_b.up.sql", "SELECT 2"),
            ("2_b.down.sql", "SELECT -2"),
            ("0001_a.up.sql", "SELECT 1"),
            ("20260101120000_d.sql", "SELECT 4"),
        ])
        .expect("good names");
        assert_eq!(
            found.iter().map(|m| (&*m.name, m.down.is_some())).collect::<Vec<_>>(),
            [("0001_a", false), ("2_b", true), ("10_c", false), ("20260101120000_d", false)]
        );
    }

    #[test]
    fn what_cannot_be_a_migration_is_refused_by_the_name_of_its_file() {
        for (files, message) in [
            (&[("V1__a.sql", "SELECT 1")][..], "V1__a.sql: not a valid name of a migration"),
            (
                &[("0001_a.sql", "SELECT 1"), ("1_b.up.sql", "SELECT 1")],
                "0001_a.sql and 1_b.up.sql are both version 1",
            ),
            (&[("0001_a.down.sql", "SELECT 1")], "0001_a.down.sql has no 0001_a.up.sql"),
            (
                &[("0001_a.up.sql", "SELECT 1"), ("0001_b.down.sql", "SELECT 1")],
                "0001_b.down.sql does not belong to 0001_a.up.sql",
            ),
            (&[("0001_a.sql", "-- nothing\n")], "0001_a.sql: has no statement"),
            (
                &[("0001_a.sql", "\nBEGIN;\nSELECT 1;")],
                "0001_a.sql line 2: `BEGIN` inside the transaction in which each file runs",
            ),
            (&[("0001_a.sql", "-- contraflow: no-tx\nSELECT 1;")], "0001_a.sql: unknown directive \"no-tx\""),
        ] {
            assert_eq!(arranged(files), Err(message.to_owned()));
        }
        assert!(arranged(&[("0001_a.sql", "-- contraflow: no-transaction\nBEGIN; COMMIT;")]).is_ok());
    }

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
