//! All servers that the story works on, and how they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    balancer::Balancer,
    lab::{
        contraflow::{Contraflow, Done},
        database::Database,
        http::{Behaviour, Server, pool_server},
        installed,
    },
    messages::Messages,
    story::{MIGRATIONS, STORY},
};

/// Where runs are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// In the state directory.
    Sqlite,
    /// In a database of its own.
    Postgres,
}

/// Servers of one test, or of one of its threads.
pub(crate) struct World {
    pub(crate) contraflow: Contraflow,
    pub(crate) balancer: Balancer,
    pub(crate) messages: Messages,
    pub(crate) database: Database,
    pub(crate) pool: Arc<Behaviour>,
    _store: Option<Database>,
    _servers: [Server; 2],
    _folder: TempDir,
}

/// How all of it stands at an end.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) weights: BTreeMap<String, u32>,
    /// Columns, migrations that are applied, and what ran, in order.
    pub(crate) database: String,
    pub(crate) messages: BTreeMap<String, String>,
    /// Files that commands made, with what is in them.
    pub(crate) files: BTreeMap<String, String>,
    /// Changes that the journal says were made, besides those that undid others.
    pub(crate) changed: BTreeSet<String>,
    /// Undoing, as far as the journal says that it was done.
    pub(crate) undone: BTreeSet<String>,
    /// Weights that were set, in no order: branches take turns as they like.
    pub(crate) sets: Vec<String>,
}

impl End {
    /// Panics unless both are the same; tells only what is not.
    pub(crate) fn is(&self, wanted: &Self) {
        let mut differs = String::new();
        let mut compare = |what: &str, is: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
            let (is, wanted) = (format!("{is:?}"), format!("{wanted:?}"));
            if is != wanted {
                differs.push_str(&format!("\n{what}\n   is     {is}\n   wanted {wanted}"));
            }
        };
        let less = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>();
        compare("weights", &self.weights, &wanted.weights);
        compare("database", &self.database, &wanted.database);
        compare("messages", &self.messages, &wanted.messages);
        compare("files", &self.files, &wanted.files);
        for (what, is, wanted) in
            [("changed", &self.changed, &wanted.changed), ("undone", &self.undone, &wanted.undone)]
        {
            compare(what, &less(is, wanted), &less(wanted, is));
        }
        compare("sets", &self.sets, &wanted.sets);
        assert!(differs.is_empty(), "another end:{differs}");
    }
}

const CONFIG: &str = r#"
default_env = "lab"

[env.lab.traffic.web]
provider = "haproxy"
socket = "unix:<socket>"
backend = "web"
pools = { blue = ["blue"], green = ["green"] }
url = "http://<web>"
pool_urls = { blue = "http://<blue>", green = "http://<green>" }
measure = "20ms"

[env.lab.traffic.api]
provider = "haproxy"
socket = "unix:<socket>"
backend = "api"
pools = { blue = ["blue"], green = ["green"] }
url = "http://<api>"
measure = "20ms"

[env.lab.db.main]
provider = "postgres"
url = { env = "DATABASE_URL" }
migrations = "migrations"

[env.lab.notify.ops]
provider = "webhook"
url = { env = "OPS_WEBHOOK_URL" }

[env.lab.exec]
allow = ["tee *", "touch *", "rm -f *", "sleep *"]
dir = "made"
"#;

const STATE: &str = "
SELECT (SELECT string_agg(table_name || '.' || column_name, ' ' ORDER BY table_name, column_name)
          FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name <> '_contraflow_migrations')
    || ' | ' || coalesce((SELECT string_agg(name, ' ' ORDER BY version) FROM _contraflow_migrations), 'none')
    || ' | ' || coalesce((SELECT string_agg(what, ', ' ORDER BY n) FROM marks), '')";

const FIRST: &str = "
SET client_min_messages = warning;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
CREATE TABLE marks (what text, n int GENERATED ALWAYS AS IDENTITY)";

impl World {
    /// Starts all of it. `None`: something is not installed, and need not be.
    pub(crate) fn start(store: Store) -> Option<Self> {
        if !installed(&["haproxy", "tee", "touch", "rm"]) {
            return None;
        }
        let database = Database::create()?;
        let kept = (store == Store::Postgres).then(|| database.another());
        let folder = tempfile::tempdir().expect("a folder");
        let pool = Arc::<Behaviour>::default();
        let servers = ["blue", "green"].map(|name| pool_server(name, Arc::clone(&pool)));
        let [blue, green] = [&servers[0], &servers[1]].map(|server| server.address);
        let balancer = Balancer::start(folder.path(), blue, green);
        let messages = Messages::start();
        let mut contraflow = Contraflow::new(folder.path())
            .set("DATABASE_URL", database.url())
            .set("OPS_WEBHOOK_URL", format!("http://{}/ops", messages.address()));
        if let Some(kept) = &kept {
            contraflow = contraflow.set("CONTRAFLOW_STORE", kept.url());
        }
        let config = [
            ("<socket>", balancer.watched.display().to_string()),
            ("<web>", balancer.web.to_string()),
            ("<api>", balancer.api.to_string()),
            ("<blue>", blue.to_string()),
            ("<green>", green.to_string()),
        ]
        .into_iter()
        .fold(CONFIG.to_owned(), |config, (name, is)| config.replace(name, &is));
        contraflow.write("contraflow.toml", &config).write("story.rhai", STORY);
        for (name, sql) in MIGRATIONS {
            contraflow.write(&format!("migrations/{name}"), sql);
        }
        let this = Self {
            contraflow,
            balancer,
            messages,
            database,
            pool,
            _store: kept,
            _servers: servers,
            _folder: folder,
        };
        this.reset();
        Some(this)
    }

    /// Puts everything back to the beginning, without Contraflow.
    pub(crate) fn reset(&self) {
        self.balancer.reset();
        self.database.ask(FIRST);
        self.messages.reset();
        let made = self.made();
        drop(std::fs::remove_dir_all(&made));
        std::fs::create_dir(made).expect("a folder");
    }

    fn made(&self) -> std::path::PathBuf {
        self.contraflow.folder.join("made")
    }

    /// Files that commands made.
    pub(crate) fn files(&self) -> BTreeMap<String, String> {
        let files = std::fs::read_dir(self.made()).expect("a folder").flatten();
        let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
        files.map(|file| (file.file_name().to_string_lossy().into_owned(), read(&file.path()))).collect()
    }

    /// The records of the last run.
    pub(crate) fn records(&self) -> Vec<Value> {
        self.contraflow.run(&["show", "last", "--records", "--output", "json"]).exits(0).events()
    }

    /// How everything stands; checks that the journal verifies and knows of no change that was made twice.
    pub(crate) fn end(&self) -> End {
        self.contraflow.run(&["verify", "last"]).exits(0);
        let (mut changed, mut undone) = (BTreeSet::new(), BTreeSet::new());
        for record in self.records() {
            let result = &record["entry"]["outcome"]["result"];
            let id = record["id"].as_str().expect("an id");
            let undoing = id.starts_with("rollback/");
            if result["changed"].is_object() {
                let new = if undoing { &mut undone } else { &mut changed }.insert(id.to_owned());
                assert!(new, "{id} was changed twice");
            } else if undoing && (result["unchanged"].is_object() || result["performed"].is_object()) {
                undone.insert(id.to_owned());
            }
        }
        End {
            weights: self.balancer.weights(),
            database: self.database.ask(STATE),
            messages: self.messages.once(),
            files: self.files(),
            changed,
            undone,
            sets: self.balancer.sets(),
        }
    }

    /// A run of the story, from the beginning.
    pub(crate) fn run(&self, end: &str) -> Done {
        self.reset();
        self.contraflow.run(&["run", "story.rhai", "--yes", "--param", &format!("end={end}")])
    }
}
