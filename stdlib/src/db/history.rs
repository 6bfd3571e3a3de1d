//! What has been applied to a database, and the steps from there to what is wanted. The same for every provider.
//!
//! The history table (`_contraflow_migrations` unless told otherwise) has one row for each applied migration: `version`, `name`,
//! `checksum` of the way up, `down_checksum`, `down_sql`, `applied_at`, `elapsed_ms`. The text of the way back is kept with it,
//! so that an undo works when the files are gone.

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use contraflow_runtime::{effect::On, provider::ProviderError, quantity::Span};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::folder::{Migration, Version, is_without_transaction};
use crate::codes;

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

/// An identifier in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
    pub(crate) fn read(
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
fn list<'v>(versions: impl Iterator<Item = &'v Version>) -> String {
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
    pub(crate) fn of(history: Vec<Record>) -> Self {
        Self(history.into_iter().map(|r| Applied { version: r.version, checksum: r.checksum }).collect())
    }

    /// The applied migration of that version.
    pub(crate) fn get(&self, version: &Version) -> Option<&Applied> {
        self.0.iter().find(|applied| applied.version == *version)
    }
}

/// What a provider is asked to do: bring the database from one list of applied migrations to another.
#[derive(Debug, Clone)]
pub struct Work {
    /// The history table.
    pub table: Table,
    /// What was applied when it was looked at.
    pub from: Schema,
    /// What shall be applied.
    pub to: Schema,
    /// The files.
    pub migrations: Vec<Migration>,
    /// Longest wait for a lock.
    pub lock_timeout: Span,
    /// time limit for one statement.
    pub statement_timeout: Span,
}

/// time limit for one statement that is tried without effect.
pub(crate) const REHEARSED_STATEMENT: Span = Span::secs(15);

/// One file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// Apply.
    Up(&'a Migration),
    /// Take back.
    Down {
        /// Version of the migration.
        version: Version,
        /// File that the way back comes from.
        file: String,
        /// The way back.
        sql: String,
    },
}

impl Step<'_> {
    pub(crate) fn file(&self) -> &str {
        match self {
            Self::Up(migration) => &migration.file,
            Self::Down { file, .. } => file,
        }
    }

    pub(crate) fn sql(&self) -> &str {
        match self {
            Self::Up(migration) => &migration.up,
            Self::Down { sql, .. } => sql,
        }
    }

    pub(crate) fn version(&self) -> &Version {
        match self {
            Self::Up(migration) => &migration.version,
            Self::Down { version, .. } => version,
        }
    }

    pub(crate) fn is_without_transaction(&self) -> bool {
        is_without_transaction(self.sql())
    }
}

impl Work {
    /// The files to run from what the history says now. It may have moved since `from` was seen by a try of this same work that
    /// was cut short; anything else is refused.
    ///
    /// # Errors
    /// The history holds what neither end does, or lacks what both have; a migration to take back has no way back.
    pub(crate) fn steps(&self, history: &[Record]) -> Result<Vec<Step<'_>>, ProviderError> {
        for row in history {
            let known = [&self.from, &self.to].into_iter().filter_map(|end| end.get(&row.version));
            if !known.clone().any(|applied| applied.checksum == row.checksum) {
                return Err(moved(format!("{} is applied now", row.name)));
            }
        }
        let now: BTreeSet<&Version> = history.iter().map(|row| &row.version).collect();
        for Applied { version, .. } in &self.from.0 {
            if self.to.get(version).is_some() && !now.contains(version) {
                return Err(moved(format!("{version} is no longer applied")));
            }
        }
        let mut steps = Vec::new();
        for row in history.iter().rev().filter(|row| self.to.get(&row.version).is_none()) {
            // The file may hold a way back that was put right since; without it, what was kept when the migration was applied.
            let in_files = self.migrations.iter().find(|m| m.version == row.version);
            let sql = in_files.and_then(|m| m.down.clone()).or_else(|| row.down.clone());
            let Some(sql) = sql else { return Err(no_way_back(&row.name)) };
            let file = format!("{}.down.sql", row.name);
            steps.push(Step::Down { version: row.version.clone(), file, sql });
        }
        for Applied { version, .. } in self.to.0.iter().filter(|applied| !now.contains(&applied.version)) {
            let Some(migration) = self.migrations.iter().find(|m| m.version == *version) else {
                return Err(refused(format!("there is no file for version {version}")));
            };
            steps.push(Step::Up(migration));
        }
        Ok(steps)
    }
}

fn moved(what: String) -> ProviderError {
    refused(format!("the history has changed since it was read: {what}"))
        .hint("somebody else is migrating this database; check db::status, then run again")
}

/// The error for a migration that cannot be taken back.
pub(crate) fn no_way_back(name: &str) -> ProviderError {
    refused(format!("{name} has no down file")).hint(format!("write {name}.down.sql, or restore a backup"))
}

/// An error about migrations that repeating will not cure.
pub(crate) fn refused(message: String) -> ProviderError {
    ProviderError::terminal(codes::MIGRATION, message)
}

/// A connection that holds the lock on the history and runs one file after the other.
#[async_trait]
pub(crate) trait Session: Send {
    /// The rows of the history table, by version.
    async fn history(&mut self) -> Result<Vec<Record>, ProviderError>;

    /// Runs one file and records it: both or neither, unless the file runs outside a transaction. The error names file and line.
    async fn run(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError>;
}

/// Takes all steps, one after the other, and answers how many. The first that fails ends it: what was done before stays done
/// and recorded, and the error says what that is, unless this is only a `rehearsal` of which nothing stays.
pub(crate) async fn carry_out(
    session: &mut dyn Session,
    on: &On,
    work: &Work,
    rehearsal: bool,
) -> Result<usize, ProviderError> {
    let history = session.history().await?;
    let steps = work.steps(&history)?;
    let mut applied: BTreeSet<Version> = history.into_iter().map(|row| row.version).collect();
    let total = steps.len();
    for (i, step) in steps.iter().enumerate() {
        on.progress(i as u64, total as u64, step.file());
        if let Err(mut e) = session.run(on, step).await {
            if rehearsal {
                return Err(e.detail(serde_json::json!({ "file": step.file() })));
            }
            e.message = format!("{}; applied now: {}", e.message, list(applied.iter()));
            let names: Vec<String> = applied.iter().map(Version::to_string).collect();
            return Err(e.detail(serde_json::json!({ "file": step.file(), "applied": names })));
        }
        match step {
            Step::Up(migration) => applied.insert(migration.version.clone()),
            Step::Down { version, .. } => applied.remove(version),
        };
    }
    on.progress(total as u64, total as u64, "done");
    Ok(total)
}

/// `3 migrations`.
pub(crate) fn counted(n: usize) -> String {
    format!("{n} migration{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::folder::arrange;
    use crate::db::sql::Dialect;

    fn files(names: &[&str]) -> Vec<Migration> {
        let files = names.iter().map(|name| ((*name).to_owned(), "SELECT 1".to_owned())).collect();
        arrange(files, Dialect::Sqlite).expect("good names")
    }

    fn schema(migrations: &[Migration], versions: &[u64]) -> Schema {
        let chosen = migrations.iter().filter(|m| versions.contains(&m.version.number()));
        Schema(chosen.map(|m| Applied { version: m.version.clone(), checksum: m.checksum.clone() }).collect())
    }

    fn history(migrations: &[Migration], versions: &[u64]) -> Vec<Record> {
        migrations
            .iter()
            .filter(|m| versions.contains(&m.version.number()))
            .map(|m| {
                let down = m.down.clone();
                Record::read(m.name.clone(), m.checksum.clone(), None, down).expect("a migration")
            })
            .collect()
    }

    fn work(names: &[&str], from: &[u64], to: &[u64]) -> Work {
        let migrations = files(names);
        Work {
            table: Table::default(),
            from: schema(&migrations, from),
            to: schema(&migrations, to),
            migrations,
            lock_timeout: Span::secs(1),
            statement_timeout: Span::secs(1),
        }
    }

    const NAMES: &[&str] = &[
        "1_a.up.sql",
        "1_a.down.sql",
        "2_b.up.sql",
        "2_b.down.sql",
        "3_c.up.sql",
        "3_c.down.sql",
        "4_d.sql",
    ];

    fn steps(work: &Work, now: &[u64]) -> Result<Vec<String>, String> {
        let history = history(&work.migrations, now);
        let steps = work.steps(&history).map_err(|e| e.message)?;
        Ok(steps.iter().map(|step| step.file().to_owned()).collect())
    }

    #[test]
    fn ups_run_in_order_and_downs_in_reverse() {
        assert_eq!(
            steps(&work(NAMES, &[1], &[1, 2, 3]), &[1]),
            Ok(vec!["2_b.up.sql".into(), "3_c.up.sql".into()])
        );
        assert_eq!(
            steps(&work(NAMES, &[1, 2, 3], &[1]), &[1, 2, 3]),
            Ok(vec!["3_c.down.sql".into(), "2_b.down.sql".into()])
        );
    }

    #[test]
    fn work_that_was_cut_short_goes_on_where_it_stopped() {
        assert_eq!(steps(&work(NAMES, &[1], &[1, 2, 3]), &[1, 2]), Ok(vec!["3_c.up.sql".into()]));
        assert_eq!(steps(&work(NAMES, &[1, 2, 3], &[1]), &[1, 2]), Ok(vec!["2_b.down.sql".into()]));
        assert_eq!(steps(&work(NAMES, &[1], &[1, 2]), &[1, 2]), Ok(vec![]));
    }

    #[test]
    fn a_history_that_somebody_else_moved_is_left_alone() {
        let found = steps(&work(NAMES, &[1], &[1, 2]), &[1, 3]);
        assert_eq!(found, Err("the history has changed since it was read: 3_c is applied now".into()));
        let found = steps(&work(NAMES, &[1, 2], &[1, 2, 3]), &[1]);
        assert_eq!(found, Err("the history has changed since it was read: 2 is no longer applied".into()));
    }

    #[test]
    fn a_way_back_that_is_only_in_the_history_is_used() {
        let mut work = work(NAMES, &[1, 2], &[1]);
        let history = history(&work.migrations, &[1, 2]);
        work.migrations[1].down = None;
        let found = work.steps(&history).expect("kept in the history");
        assert_eq!(found[0].sql(), "SELECT 1");
        let found = steps(&self::work(NAMES, &[1, 4], &[1]), &[1, 4]);
        assert_eq!(found, Err("4_d has no down file".into()));
    }

    #[test]
    fn few_versions_are_listed_and_many_are_counted() {
        assert_eq!(Schema::default().to_string(), "no migrations");
        let few = files(&["0001_a.sql", "0002_b.sql"]);
        assert_eq!(schema(&few, &[1, 2]).to_string(), "0001, 0002");
        let names: Vec<String> = (1..=12).map(|n| format!("{n:04}_a.sql")).collect();
        let many = files(&names.iter().map(|n| &**n).collect::<Vec<_>>());
        assert_eq!(schema(&many, &(1..=12).collect::<Vec<_>>()).to_string(), "12 applied, latest 0012");
    }

    #[test]
    fn table_names_are_plain_identifiers() {
        let read = |name: &str| serde_json::from_value::<Table>(name.into()).is_ok();
        assert!(read("history") && read("ops.history"));
        assert!(!read("a b") && !read("a\"") && !read("a.b.c") && !read("") && !read("1a"));
    }
}
