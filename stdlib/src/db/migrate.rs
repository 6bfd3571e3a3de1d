//! `db::migrate` brings the schema of a database to a version.

use contraflow_runtime::schema::{JsonSchema, NumberOrText};
use contraflow_runtime::{
    effect::{Change, Limits, On, Undo},
    error::{RunError, codes as core},
    provider::ProviderError,
    quantity::Span,
    script::{Changes, ScriptContext, ScriptResult},
    target::Target,
};
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};
use serde::{Deserialize, Serialize};

use super::{
    Applied, HALF_DONE, Migration, Schema, Table, Version, Work, folder::Folder, is_without_transaction,
    no_way_back, refused,
};

/// Options of `db::migrate`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Folder of migrations, taken from the database's folder. Default: as configured.
    pub dir: Option<String>,
    /// Last version to apply; later ones are undone with their down files, all of them for 0. Default: the latest
    /// file.
    #[schemars(with = "Option<NumberOrText>")]
    pub to: Option<Version>,
    /// Time limit for a lock; the attempt may be repeated after it.
    pub lock_timeout: Span,
    /// Time limit for one statement.
    pub statement_timeout: Span,
    /// Time limit for everything.
    pub timeout: Span,
    /// The history table.
    #[schemars(with = "String")]
    pub table: Table,
    /// Whether files numbered below the latest applied one are applied.
    pub allow_out_of_order: bool,
    /// Whether plans try the migrations. PostgreSQL: in one transaction that is rolled back, for at most 15 s a statement and 2
    /// s a lock; SQLite: on a copy, for databases below 64 MiB.
    pub rehearse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            to: None,
            lock_timeout: Span::secs(5),
            statement_timeout: Span::secs(300),
            timeout: Span::secs(3600),
            table: Table::default(),
            allow_out_of_order: false,
            rehearse: true,
        }
    }
}

/// Brings a database's applied migrations to the files, up to a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Migrate {
    /// The database.
    pub database: String,
    /// The files, in order.
    pub migrations: Vec<Migration>,
    /// Last version to be applied.
    pub to: Option<Version>,
    /// Longest wait for a lock.
    pub lock_timeout: Span,
    /// Time limit for one statement.
    pub statement_timeout: Span,
    /// Time limit for everything.
    pub timeout: Span,
    /// History table.
    pub table: Table,
    /// Whether a version below the latest applied one may still be applied.
    pub allow_out_of_order: bool,
    /// Whether plans try the migrations without effect.
    pub rehearse: bool,
}

impl Migrate {
    /// The change that `options` ask for, with the files that were read for it.
    pub fn new(database: &str, migrations: Vec<Migration>, options: Options) -> Self {
        let Options {
            dir: _,
            to,
            lock_timeout,
            statement_timeout,
            timeout,
            table,
            allow_out_of_order,
            rehearse,
        } = options;
        Self {
            database: database.to_owned(),
            migrations,
            to,
            lock_timeout,
            statement_timeout,
            timeout,
            table,
            allow_out_of_order,
            rehearse,
        }
    }

    fn file(&self, version: &Version) -> Option<&Migration> {
        self.migrations.iter().find(|migration| migration.version == *version)
    }

    fn work(&self, from: &Schema, to: &Schema) -> Work {
        Work {
            table: self.table.clone(),
            from: from.clone(),
            to: to.clone(),
            migrations: self.migrations.clone(),
            lock_timeout: self.lock_timeout,
            statement_timeout: self.statement_timeout,
        }
    }
}

impl Change for Migrate {
    const ID: &'static str = "db.migrate";
    type State = Schema;

    fn target(&self) -> Target {
        Target::new("db", &self.database)
    }

    fn subresource(&self) -> String {
        self.table.to_string()
    }

    async fn observe(&self, on: &On) -> Result<Schema, ProviderError> {
        super::ready(on, &self.database).await?.migrations()?.history(&self.table).await.map(Schema::of)
    }

    fn desired(&self, now: &Schema) -> Result<Schema, ProviderError> {
        for Applied { version, checksum } in &now.0 {
            match self.file(version) {
                None => {
                    return Err(refused(format!("version {version} is applied, but its file is missing"))
                        .hint("restore the file, or check that this is the right folder and database"));
                }
                Some(file) if file.checksum != *checksum => {
                    return Err(refused(format!("{} was changed after it was applied", file.file))
                        .hint("restore the file and write the change as a new migration"));
                }
                Some(_) => {}
            }
        }
        if let Some(to) = self.to.as_ref().filter(|to| to.number() != 0)
            && self.file(to).is_none()
        {
            return Err(refused(format!("there is no migration of version {to}")));
        }
        let wanted: Vec<&Migration> =
            self.migrations.iter().filter(|m| self.to.as_ref().is_none_or(|to| m.version <= *to)).collect();
        let latest = now.0.iter().map(|applied| &applied.version).max();
        if let Some(late) = wanted.iter().find(|m| now.get(&m.version).is_none() && latest > Some(&m.version))
            && !self.allow_out_of_order
        {
            let latest = latest.map(Version::to_string).unwrap_or_default();
            return Err(refused(format!("{} is not applied, but {latest} after it is", late.file))
                .hint("give it a number after the latest, or allow this with `allow_out_of_order: true`"));
        }
        let taken_back =
            now.0.iter().filter(|applied| self.to.as_ref().is_some_and(|to| applied.version > *to));
        for Applied { version, .. } in taken_back {
            if let Some(file) = self.file(version).filter(|file| file.down.is_none()) {
                return Err(no_way_back(&file.name));
            }
        }
        // What is applied stays as the history has it, so that a file renamed from 1_a to 0001_a is no change.
        let entry = |m: &&Migration| {
            let new = || Applied { version: m.version.clone(), checksum: m.checksum.clone() };
            now.get(&m.version).cloned().unwrap_or_else(new)
        };
        Ok(Schema(wanted.iter().map(entry).collect()))
    }

    async fn apply(&self, on: &On, from: &Schema, to: &Schema) -> Result<(), ProviderError> {
        super::ready(on, &self.database).await?.migrations()?.migrate(on, &self.work(from, to)).await
    }

    async fn fence(&self, on: &On, _: &Schema, _: &Schema) -> Result<(), ProviderError> {
        let ready = super::ready(on, &self.database).await?;
        ready.migrations()?.fence(on, &self.table, self.lock_timeout).await
    }

    fn may_be_half_done(&self, from: &Schema, to: &Schema, error: Option<&RunError>) -> bool {
        let outside = || {
            let only_in = |one: &Schema, other: &Schema| {
                let new = one.0.iter().filter(|applied| other.get(&applied.version).is_none());
                new.filter_map(|applied| self.file(&applied.version)).cloned().collect::<Vec<_>>()
            };
            only_in(to, from).iter().any(|file| is_without_transaction(&file.up))
                || only_in(from, to)
                    .iter()
                    .any(|file| file.down.as_deref().is_some_and(is_without_transaction))
        };
        match error {
            // It failed in a file, and says how far that got.
            Some(RunError { detail: Some(detail), .. }) if detail["file"].is_string() => {
                detail[HALF_DONE] == true
            }
            Some(error) if !error.is(core::TIMEOUT) && error.is_catchable() => false,
            _ => outside(),
        }
    }

    fn undo(&self, from: &Schema, to: &Schema) -> Undo {
        let without =
            to.0.iter()
                .filter(|applied| from.get(&applied.version).is_none())
                .filter_map(|applied| self.file(&applied.version))
                .find(|file| file.down.is_none());
        match without {
            Some(file) => Undo::Impossible(format!("{} has no down file", file.name)),
            None => Undo::Possible,
        }
    }

    async fn rehearse(&self, on: &On, from: &Schema, to: &Schema) -> Result<Option<String>, ProviderError> {
        if !self.rehearse {
            return Ok(None);
        }
        super::ready(on, &self.database).await?.migrations()?.rehearse(on, &self.work(from, to)).await
    }

    fn limits(&self) -> Limits {
        Limits { timeout: self.timeout.0, ..Limits::default() }
    }
}

fn start(cx: &NativeCallContext<'_>, database: &str, options: Options) -> ScriptResult {
    let folder = Folder { database: database.to_owned(), dir: options.dir.clone() };
    let migrations = cx.read_value(folder)?;
    cx.change(Migrate::new(database, migrations, options))
}

/// The script functions.
#[export_module]
pub mod script {
    /// Applies the pending migrations of a database; returns them.
    ///
    /// The files (`0001_create_users.up.sql`, with `0001_create_users.down.sql` to undo it) come from the folder
    /// `migrations` in the configuration. Each file runs in one transaction together with its row in the history table,
    /// under
    /// a lock that keeps other migrations out. A file that begins with `-- contraflow: no-transaction` runs as it is, for statements
    /// such as `CREATE INDEX CONCURRENTLY`.
    ///
    /// A file that was changed after it was applied, an applied version without a file, and a file numbered below an
    /// applied one are refused. If a file fails, the ones before it stay applied and recorded. Undo runs the down files
    /// in
    /// reverse; without one, the migration is a point of no return, and the plan says so.
    ///
    /// ```rhai
    /// db::migrate("main");
    /// db::status("main").pending.is_empty()
    /// ```
    #[rhai_fn(name = "migrate", return_raw, volatile)]
    pub fn migrate(cx: NativeCallContext<'_>, database: &str) -> Changes {
        start(&cx, database, Options::default())
    }

    /// ```rhai
    /// db::migrate("main", #{ lock_timeout: "2s" }).len() > 0
    /// ```
    #[rhai_fn(name = "migrate", return_raw, volatile)]
    pub fn migrate_with(cx: NativeCallContext<'_>, database: &str, options: Map) -> Changes {
        let options = cx.options(options)?;
        start(&cx, database, options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Dialect, folder::arrange};

    fn change(names: &[&str], to: Option<&str>) -> Migrate {
        let files = names.iter().map(|n| ((*n).to_owned(), format!("SELECT '{n}'"))).collect();
        let migrations = arrange(files, Dialect::Sqlite).expect("good names");
        let to = to.map(|digits| Version::read(digits).expect("digits"));
        Migrate::new("main", migrations, Options { to, ..Options::default() })
    }

    fn state(change: &Migrate, versions: &[u64]) -> Schema {
        let all = change.migrations.iter().filter(|m| versions.contains(&m.version.number()));
        Schema(all.map(|m| Applied { version: m.version.clone(), checksum: m.checksum.clone() }).collect())
    }

    fn desired(change: &Migrate, now: &Schema) -> Result<String, String> {
        change.desired(now).map(|to| to.to_string()).map_err(|e| e.message)
    }

    const NAMES: &[&str] =
        &["0001_a.up.sql", "0001_a.down.sql", "0002_b.up.sql", "0002_b.down.sql", "0003_c.sql"];

    #[test]
    fn all_files_are_wanted_unless_a_version_is_named() {
        let all = change(NAMES, None);
        assert_eq!(desired(&all, &state(&all, &[1])), Ok("0001, 0002, 0003".into()));
        let some = change(NAMES, Some("2"));
        assert_eq!(desired(&some, &Schema::default()), Ok("0001, 0002".into()));
        let none = change(NAMES, Some("0"));
        assert_eq!(desired(&none, &state(&none, &[1, 2])), Ok("no migrations".into()));
    }

    #[test]
    fn what_does_not_fit_the_files_is_refused() {
        let all = change(NAMES, None);
        let mut now = state(&all, &[1]);
        now.0[0].checksum = "other".into();
        assert_eq!(desired(&all, &now), Err("0001_a.up.sql was changed after it was applied".into()));
        let fewer = change(&NAMES[..2], None);
        let missing = "version 0002 is applied, but its file is missing";
        assert_eq!(desired(&fewer, &state(&all, &[1, 2])), Err(missing.into()));
        assert_eq!(
            desired(&change(NAMES, Some("7")), &Schema::default()),
            Err("there is no migration of version 7".into())
        );
        let back = change(NAMES, Some("2"));
        assert_eq!(desired(&back, &state(&back, &[1, 2, 3])), Err("0003_c has no down file".into()));
    }

    #[test]
    fn a_file_below_the_latest_is_refused_unless_allowed() {
        let mut all = change(NAMES, None);
        let late = "0002_b.up.sql is not applied, but 0003 after it is";
        assert_eq!(desired(&all, &state(&all, &[1, 3])), Err(late.into()));
        all.allow_out_of_order = true;
        assert_eq!(desired(&all, &state(&all, &[1, 3])), Ok("0001, 0002, 0003".into()));
    }

    #[test]
    fn undo_needs_a_down_file_for_each_new_version_only() {
        let all = change(NAMES, None);
        let (one, two, three) = (state(&all, &[1]), state(&all, &[1, 2]), state(&all, &[1, 2, 3]));
        assert_eq!(all.undo(&one, &two), Undo::Possible);
        assert_eq!(all.undo(&two, &three), Undo::Impossible("0003_c has no down file".into()));
        assert_eq!(all.undo(&three, &three), Undo::Possible);
        assert_eq!(all.undo(&two, &one), Undo::Possible);
    }
}
