//! Migration files: their names, their order, and the read that brings them into the journal.
//!
//! `0001_create_users.up.sql` moves up, `0001_create_users.down.sql` moves back, `0001_create_users.sql` moves up only. The
//! number in front is the version (a timestamp such as `20260101120000` is one too); files run in the order of their numbers.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    target::Target,
};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{Dialect, Migration, Ready, Version, checksum, directives, is_without_transaction, refused, sql};

/// Largest migration file. Its text is kept in the journal; bulk data belongs elsewhere.
const LARGEST_FILE: usize = 4 << 20;

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
            return Err(refused(format!("{file}: not a valid name of a migration")).hint(
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
            return Err(refused(format!("{earlier} and {file} are both version {version}"))
                .hint("give one of them another number"));
        }
    }
    for (version, (name, file, text)) in downs {
        match ups.get_mut(&version) {
            Some(up) if up.name == name => up.down = Some(text),
            Some(up) => {
                return Err(refused(format!("{file} does not belong to {}", up.file))
                    .hint(format!("rename it to {}.down.sql", up.name)));
            }
            None => {
                return Err(
                    refused(format!("{file} has no {name}.up.sql")).hint("a down file needs its up file")
                );
            }
        }
    }
    Ok(ups.into_values().collect())
}

fn check_text(file: &str, text: &str, dialect: Dialect) -> Result<(), ProviderError> {
    if let Some(unknown) = directives(text).find(|directive| *directive != "no-transaction") {
        return Err(refused(format!("{file}: unknown directive \"{unknown}\""))
            .hint("the only directive is `-- contraflow: no-transaction`"));
    }
    let statements = sql::statements(text, dialect);
    if statements.is_empty() {
        return Err(refused(format!("{file}: has no statement")).hint("write `SELECT 1;` if that is meant"));
    }
    if is_without_transaction(text) {
        return Ok(());
    }
    match statements.iter().find(|statement| statement.controls_transaction()) {
        Some(found) => Err(refused(format!(
            "{file} line {}: `{}` inside the transaction in which each file runs",
            found.line,
            sql::brief(found.text)
        ))
        .hint("remove it, or begin the file with `-- contraflow: no-transaction`")),
        None => Ok(()),
    }
}

/// Reads a folder of migrations.
///
/// # Errors
/// The folder or a file cannot be read; [`arrange`].
pub(crate) async fn read_folder(folder: &Path, dialect: Dialect) -> Result<Vec<Migration>, ProviderError> {
    let failed = |path: &Path, e: &std::io::Error| refused(format!("{}: {e}", path.display()));
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
            return Err(refused(format!("{name}: larger than 4MiB"))
                .hint("migrations are stored in the journal of the run: load bulk data another way"));
        }
        let text = String::from_utf8(bytes).map_err(|_| refused(format!("{name}: not UTF-8 text")))?;
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
                return Err(refused(format!("no folder of migrations is set for \"{}\"", self.database))
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
}
