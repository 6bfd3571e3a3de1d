//! `db::status` says which migrations are applied and which are not.

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    script::{Reads, ScriptContext, ScriptResult},
    target::Target,
};
use rhai::plugin::*;
use rhai::{Map, NativeCallContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Applied, Migration, Record, Schema, Table, checksum, folder::Folder};

/// Options of `db::status`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Folder of migrations, taken from the database's folder. Default: as configured.
    pub dir: Option<String>,
    /// The history table.
    #[schemars(with = "String")]
    pub table: Table,
}

/// Compares the history of a database with its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The database.
    pub database: String,
    /// Folder of migrations.
    pub dir: Option<String>,
    /// History table.
    pub table: Table,
}

/// Where a database stands. All lists hold names such as `0001_create_users`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Standing {
    /// Applied, by version.
    pub applied: Vec<String>,
    /// Files that are not applied, by version.
    pub pending: Vec<String>,
    /// Applied, and the file was changed since.
    pub changed: Vec<String>,
    /// Applied, and the down file was changed, added or removed since.
    pub changed_down: Vec<String>,
    /// Applied, and the file is gone.
    pub missing: Vec<String>,
    /// The latest applied version, or nothing.
    pub latest: Option<String>,
}

impl Status {
    /// The files and the history.
    async fn look(&self, on: &On) -> Result<(Vec<Migration>, Vec<Record>), ProviderError> {
        let database = super::ready(on, &self.database).await?;
        let folder = Folder { database: self.database.clone(), dir: self.dir.clone() };
        Ok((folder.load(&database).await?, database.migrations()?.history(&self.table).await?))
    }
}

impl Standing {
    fn of(files: Vec<Migration>, history: Vec<Record>) -> Self {
        let mut standing = Self {
            applied: history.iter().map(|row| row.name.clone()).collect(),
            latest: history.last().map(|row| row.version.to_string()),
            ..Self::default()
        };
        for row in &history {
            match files.iter().find(|file| file.version == row.version) {
                None => standing.missing.push(row.name.clone()),
                Some(file) => {
                    if file.checksum != row.checksum {
                        standing.changed.push(row.name.clone());
                    }
                    if file.down.as_deref().map(checksum) != row.down_checksum {
                        standing.changed_down.push(row.name.clone());
                    }
                }
            }
        }
        let is_pending = |version| !history.iter().any(|row| row.version == version);
        standing.pending =
            files.into_iter().filter(|f| is_pending(f.version.clone())).map(|f| f.name).collect();
        standing
    }
}

impl Read for Status {
    const ID: &'static str = "db.status";
    type Value = Standing;

    fn describe(&self) -> String {
        self.database.clone()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("db", &self.database)]
    }

    async fn read(&self, on: &On) -> Result<Standing, ProviderError> {
        let (files, history) = self.look(on).await?;
        Ok(Standing::of(files, history))
    }

    fn subresource(&self) -> String {
        self.table.to_string()
    }

    async fn read_after(
        &self,
        on: &On,
        state: &serde_json::Value,
    ) -> Result<Option<Standing>, ProviderError> {
        let Ok(schema) = Schema::deserialize(state) else { return Ok(None) };
        let (files, now) = self.look(on).await?;
        let record = |applied: Applied| {
            let there = now.iter().find(|row| row.version == applied.version);
            let new = || {
                let file = files.iter().find(|file| file.version == applied.version)?;
                Some(Record {
                    version: file.version.clone(),
                    name: file.name.clone(),
                    checksum: applied.checksum.clone(),
                    down_checksum: file.down.as_deref().map(checksum),
                    down: file.down.clone(),
                })
            };
            there.cloned().or_else(new)
        };
        let history: Option<Vec<Record>> = schema.0.into_iter().map(record).collect();
        // `None`: a migration from a folder that this one does not know.
        Ok(history.map(|history| Standing::of(files, history)))
    }

    fn show(&self, found: &Standing) -> String {
        let mut text = format!("{} applied, {} pending", found.applied.len(), found.pending.len());
        for (names, what) in [(&found.changed, "changed"), (&found.missing, "missing")] {
            if !names.is_empty() {
                text.push_str(&format!(", {what}: {}", names.join(", ")));
            }
        }
        text
    }
}

fn start(cx: &NativeCallContext<'_>, database: &str, options: Options) -> ScriptResult {
    let Options { dir, table } = options;
    cx.read(Status { database: database.to_owned(), dir, table })
}

/// The script functions.
#[export_module]
pub mod script {
    /// Returns which migrations of a database are `applied`, `pending`, `changed` or `changed_down` after they were
    /// applied, or
    /// `missing` their file, as lists of names such as `0001_create_users`, and the `latest` applied version.
    ///
    /// ```rhai
    /// db::migrate("main");
    /// let status = db::status("main");
    /// status.applied.len() > 0 && status.changed.is_empty() && status.missing.is_empty()
    /// ```
    #[rhai_fn(name = "status", return_raw, volatile)]
    pub fn status(cx: NativeCallContext<'_>, database: &str) -> Reads {
        start(&cx, database, Options::default())
    }

    /// ```rhai
    /// db::status("main", #{ table: "never_used" }).applied.is_empty()
    /// ```
    #[rhai_fn(name = "status", return_raw, volatile)]
    pub fn status_with(cx: NativeCallContext<'_>, database: &str, options: Map) -> Reads {
        let options = cx.options(options)?;
        start(&cx, database, options)
    }
}
