//! What a provider is asked to do with migrations, and the steps from the history to what is wanted. The same for every provider:
//! it makes a [`Session`] and lets [`Work::carry_out`] take the steps.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{
    history::{Applied, Record, Schema, Table, list},
    migration::{Migration, Version, is_without_transaction},
};
use crate::{codes as own, error::codes, on::On, provider::ProviderError, quantity::Span};

/// In the detail of an error of [`Session::run`]: nothing of the file was done, although it runs outside a transaction.
pub const NOTHING_DONE: &str = "nothing_done";

/// In the detail of an error of [`Work::carry_out`]: part of what failed may be done, and the history does not show it.
pub const HALF_DONE: &str = "half_done";

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
    /// Time limit for one statement.
    pub statement_timeout: Span,
}

/// One file to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step<'a> {
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
    /// The name of the file, for errors.
    pub fn file(&self) -> &str {
        match self {
            Self::Up(migration) => &migration.file,
            Self::Down { file, .. } => file,
        }
    }

    /// What it says.
    pub fn sql(&self) -> &str {
        match self {
            Self::Up(migration) => &migration.up,
            Self::Down { sql, .. } => sql,
        }
    }

    /// The version that it applies or takes back.
    pub fn version(&self) -> &Version {
        match self {
            Self::Up(migration) => &migration.version,
            Self::Down { version, .. } => version,
        }
    }

    /// Whether it asks to run outside a transaction.
    pub fn is_without_transaction(&self) -> bool {
        is_without_transaction(self.sql())
    }
}

impl Work {
    /// Longest time limit for one statement that is tried without effect.
    pub const REHEARSED_STATEMENT: Span = Span::secs(15);

    /// The files to run from what the history says now. It may have moved since `from` was seen by a try of this same work that
    /// was cut short; anything else is refused.
    ///
    /// # Errors
    /// The history holds what neither end does, or lacks what both have; a migration to take back has no way back.
    pub fn steps(&self, history: &[Record]) -> Result<Vec<Step<'_>>, ProviderError> {
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

    /// Takes all steps, one after the other, and answers how many. The first that fails ends it: what was done before stays done
    /// and recorded, and the error says what that is.
    ///
    /// # Errors
    /// Those of [`Work::steps`] and of the session, with `file` and `applied` as its detail.
    pub async fn carry_out(&self, session: &mut dyn Session, on: &On) -> Result<usize, ProviderError> {
        self.take_steps(session, on, |e, step, applied| {
            e.message = format!("{}; applied now: {}", e.message, list(applied.iter()));
            let names: Vec<String> = applied.iter().map(Version::to_string).collect();
            let untouched = e.detail.as_ref().is_some_and(|detail| detail[NOTHING_DONE] == true);
            let mut detail = serde_json::json!({ "file": step.file(), "applied": names });
            if step.is_without_transaction() && !untouched {
                detail[HALF_DONE] = true.into();
            }
            detail
        })
        .await
    }

    /// Takes all steps in a session of which nothing stays, and answers what to show; `place` says where that was: `to a copy`.
    /// A time limit is no verdict on the files: another time they may be quick enough.
    ///
    /// # Errors
    /// Those of [`Work::steps`] and of the session, with `file` as its detail.
    pub async fn rehearse(
        &self,
        session: &mut dyn Session,
        on: &On,
        place: &str,
    ) -> Result<String, ProviderError> {
        match self.take_steps(session, on, |_, step, _| serde_json::json!({ "file": step.file() })).await {
            Ok(1) => Ok(format!("1 migration applies cleanly {place}")),
            Ok(n) => Ok(format!("{n} migrations apply cleanly {place}")),
            Err(e) if e.code.as_str() == codes::TIMEOUT => Ok(format!("not tried completely: {}", e.message)),
            Err(e) => Err(e),
        }
    }

    /// `failed` puts the error of a step into words and answers its detail.
    async fn take_steps(
        &self,
        session: &mut dyn Session,
        on: &On,
        failed: impl Fn(&mut ProviderError, &Step<'_>, &BTreeSet<Version>) -> serde_json::Value,
    ) -> Result<usize, ProviderError> {
        let history = session.history().await?;
        let steps = self.steps(&history)?;
        let mut applied: BTreeSet<Version> = history.into_iter().map(|row| row.version).collect();
        let total = steps.len();
        for (i, step) in steps.iter().enumerate() {
            on.progress(i as u64, total as u64, step.file());
            // A runner that was suspended may have lost the run since its last file.
            on.confirm().await?;
            if let Err(mut e) = session.run(on, step).await {
                let detail = failed(&mut e, step, &applied);
                return Err(e.detail(detail));
            }
            match step {
                Step::Up(migration) => applied.insert(migration.version.clone()),
                Step::Down { version, .. } => applied.remove(version),
            };
        }
        on.progress(total as u64, total as u64, "done");
        Ok(total)
    }
}

fn moved(what: String) -> ProviderError {
    refused(format!("the history has changed since it was read: {what}"))
        .hint("somebody else is migrating this database; check db::status, then run again")
}

/// The error for a migration that cannot be taken back.
pub fn no_way_back(name: &str) -> ProviderError {
    refused(format!("{name} has no down file")).hint(format!("write {name}.down.sql, or restore a backup"))
}

/// An error about migrations that repeating will not cure.
pub(super) fn refused(message: String) -> ProviderError {
    ProviderError::terminal(own::MIGRATION, message)
}

/// A connection that holds the lock on the history and runs one file after the other.
#[async_trait]
pub trait Session: Send {
    /// The rows of the history table, by version.
    async fn history(&mut self) -> Result<Vec<Record>, ProviderError>;

    /// Runs one file and records it: both or neither, unless the file runs outside a transaction. The error names file and line.
    async fn run(&mut self, on: &On, step: &Step<'_>) -> Result<(), ProviderError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::migration::checksum;

    /// Migrations of these names, all but `4_d` with a way back.
    fn files(names: &[&str]) -> Vec<Migration> {
        let file = |name: &&str| {
            let (up, down) = ("SELECT 1".to_owned(), (*name != "4_d").then(|| "SELECT 1".to_owned()));
            let version = Version::read(&name[..1]).expect("a digit");
            let (name, file) = ((*name).to_owned(), format!("{name}.up.sql"));
            Migration { version, name, file, checksum: checksum(&up), up, down }
        };
        names.iter().map(file).collect()
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

    const NAMES: &[&str] = &["1_a", "2_b", "3_c", "4_d"];

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
}
