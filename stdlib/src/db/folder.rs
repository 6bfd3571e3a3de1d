//! Migration files: their names, their order, and the read that brings them into the journal.
//!
//! `0001_create_users.up.sql` moves up, `0001_create_users.down.sql` moves back, `0001_create_users.sql` moves up only. The
//! number in front is the version (a timestamp such as `20260101120000` is one too); files run in the order of their numbers.

use std::{collections::BTreeMap, path::Path, sync::LazyLock};

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    target::Target,
    text::{self, unmarked},
};
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::foreign;
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
        // Recorded as it stands in the file, and run without the mark.
        let checksum = checksum(&text);
        let text = unmarked(text);
        foreign::check(&file, &text, dialect)?;
        check_text(&file, &text, dialect)?;
        let earlier = if kind == ".down" {
            downs.insert(version.clone(), (name, file.clone(), text)).map(|(_, earlier, _)| earlier)
        } else {
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

fn is_sql(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".sql")
}

/// What a folder has besides migrations.
#[derive(Debug, Default)]
struct Inside {
    /// How many folders, but for those whose names say that they are left out.
    folders: usize,
    /// SQL files in folders, the first of each.
    nested: Vec<String>,
    /// Other files.
    others: usize,
}

impl Inside {
    /// Looks into a folder, and into those in it.
    async fn folder(&mut self, name: &str, path: &Path) {
        /// Folders by year and month are three deep.
        const DEEPEST: usize = 4;
        if name.starts_with('_') {
            return;
        }
        self.folders += 1;
        let mut next = vec![(name.to_owned(), path.to_owned(), 1)];
        while let Some((name, path, depth)) = next.pop() {
            let Ok(mut entries) = tokio::fs::read_dir(&path).await else { continue };
            while let Ok(Some(entry)) = entries.next_entry().await {
                let inner = entry.file_name().to_string_lossy().into_owned();
                if is_sql(&inner) {
                    self.nested.push(format!("{name}/{inner}"));
                    return;
                }
                if depth < DEEPEST && !inner.starts_with(['.', '_']) && entry.path().is_dir() {
                    next.push((format!("{name}/{inner}"), entry.path(), depth + 1));
                }
            }
        }
    }

    /// Migrations that would be passed over, or none at all: nobody who asks for migrations means that.
    fn check(mut self, folder: &Path, is_empty: bool) -> Result<(), ProviderError> {
        self.nested.sort();
        let shown = folder.display();
        if let Some(first) = self.nested.first() {
            return Err(refused(format!("{shown}: {first} is in a folder of its own, and such folders are not looked into"))
                .hint("put all migrations into one folder as NUMBER_NAME.up.sql, with NUMBER_NAME.down.sql to undo them")
                .hint("begin the name of a folder with _ to leave it out"));
        }
        if !is_empty {
            return Ok(());
        }
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let has = match (self.folders, self.others) {
            (0, 0) => "it is empty".to_owned(),
            (1, 0) => "it has 1 folder, which is not looked into".to_owned(),
            (folders, 0) => format!("it has {folders} folders, which are not looked into"),
            (0, others) => format!("it has {} and none that ends in .sql", count(others, "file")),
            (folders, others) => {
                format!(
                    "it has {} and {}, none of which is a .sql file",
                    count(folders, "folder"),
                    count(others, "file")
                )
            }
        };
        Err(refused(format!("no migrations in {shown}: {has}")).hint(
            "`dir`, or `migrations` of the database in contraflow.toml, names the folder of migrations",
        ))
    }
}

/// Reads a folder of migrations.
///
/// # Errors
/// The folder or a file cannot be read, or there is no migration in it; [`arrange`].
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
    let mut inside = Inside::default();
    while let Some(entry) = entries.next_entry().await.map_err(|e| failed(folder, &e))? {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        // Behind a link too.
        if tokio::fs::metadata(&path).await.is_ok_and(|found| found.is_dir()) {
            inside.folder(&name, &path).await;
            continue;
        }
        if !is_sql(&name) {
            inside.others += 1;
            continue;
        }
        let bytes = tokio::fs::read(&path).await.map_err(|e| failed(&path, &e))?;
        if bytes.len() > LARGEST_FILE {
            return Err(refused(format!("{name}: larger than 4MiB"))
                .hint("migrations are stored in the journal of the run: load bulk data another way"));
        }
        // The mark is taken off later: what was recorded of a file counts it.
        let marked = bytes.starts_with("\u{feff}".as_bytes());
        let text = text::decode(bytes).map_err(|e| refused(format!("{name}: {e}")))?;
        files.push((name, if marked { format!("\u{feff}{text}") } else { text }));
    }
    inside.check(folder, files.is_empty())?;
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
                &[(
                    "0001_a.sql",
                    "-- migrate:up\nCREATE TABLE a (id int);\n\n-- migrate:down\nDROP TABLE a;\n",
                )],
                "0001_a.sql line 1: \"-- migrate:up\" is a directive of another migration tool",
            ),
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
    fn a_byte_order_mark_is_not_run() {
        let found = arranged(&[
            ("0001_a.up.sql", "\u{feff}CREATE TABLE a (id int);"),
            ("0001_a.down.sql", "\u{feff}DROP TABLE a;"),
        ])
        .expect("migrations");
        assert_eq!(
            (&*found[0].up, found[0].down.as_deref()),
            ("CREATE TABLE a (id int);", Some("DROP TABLE a;"))
        );
        // As it was recorded by those who ran it with the mark.
        assert_eq!(found[0].checksum, checksum("\u{feff}CREATE TABLE a (id int);"));
    }

    /// What reading a folder with these files comes to.
    async fn read(files: &[&str]) -> Result<usize, String> {
        let folder = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, "SELECT 1;").expect("written");
        }
        let found = read_folder(folder.path(), Dialect::Postgres).await;
        let at = folder.path().display().to_string();
        found.map(|found| found.len()).map_err(|e| e.message.replace(&at, "DIR"))
    }

    #[tokio::test]
    async fn a_folder_without_migrations_is_refused_with_what_it_has() {
        for (files, message) in [
            (&[][..], "no migrations in DIR: it is empty"),
            (&["README.md", ".gitkeep"], "no migrations in DIR: it has 1 file and none that ends in .sql"),
            (
                &["2024-01-01-000000_users/up.sql", "2024-01-01-000000_users/down.sql"],
                "DIR: 2024-01-01-000000_users/",
            ),
            (
                &["2024/01/0001_a.sql", "0002_b.sql"],
                "DIR: 2024/01/0001_a.sql is in a folder of its own, and such",
            ),
            (&["a/b.txt"], "no migrations in DIR: it has 1 folder, which is not looked into"),
        ] {
            let error = read(files).await.expect_err("no migrations");
            assert!(error.starts_with(message), "{error}");
        }
        assert_eq!(read(&["0001_a.sql", "_old/0000_x.sql", ".git/x.sql", "docs/notes.md"]).await, Ok(1));
    }
}
