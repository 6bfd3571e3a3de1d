//! From the tree of the file to a [`Config`]: which keys there are, and what they hold.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use serde_json::{Number, Value as Json};
use toml_edit::{Item, Key, Table, TableLike, Value};

use super::{
    Config, ConfigError, Entry, Environment, Limits, Role, SANDBOX, SOMEBODY_ELSE, Setting, Store,
    check_approvers,
    decode::{Home, decode, placed, unknown_key},
    file::{File, describe, pairs},
};
use crate::{
    codes,
    error::{RunError, did_you_mean},
    registry::Registry,
};

/// Reads the whole tree. What cannot be used is added to `errors` and left out of the result.
pub(super) fn read(
    file: Arc<File>,
    root: &Table,
    registry: &Arc<Registry>,
    errors: &mut Vec<ConfigError>,
) -> Config {
    let mut reader = Reader { file, registry: Arc::clone(registry), errors };
    let config = reader.config(root);
    reader.short_variables(config)
}

/// The keys at the top of a file.
pub(super) const KEYS: [&str; 6] = ["default_env", "store", "state_dir", "limits", "roles", "env"];

/// The keys of an environment that are neither nouns nor tables of a library.
pub(super) const ENVIRONMENT_KEYS: [&str; 4] = ["protected", "approvers", "approvals", "params"];

struct Reader<'e> {
    file: Arc<File>,
    registry: Arc<Registry>,
    errors: &'e mut Vec<ConfigError>,
}

impl Reader<'_> {
    fn config(&mut self, root: &Table) -> Config {
        let (file, registry) = (Arc::clone(&self.file), Arc::clone(&self.registry));
        let mut config = Config { file, registry, default_env: None, ..Config::sandbox() };
        let mut default_at = None;
        config.environments.clear();
        for (key, item) in pairs(root) {
            let path = [key.get()];
            match key.get() {
                "default_env" => {
                    config.default_env = self.text(&path, item);
                    default_at = item.span().map(|span| span.start);
                }
                "store" => config.store = self.store(key, item),
                "state_dir" => config.state_dir = self.text(&path, item).map(|text| self.beside(&text)),
                "limits" => config.limits = self.limits(key, item),
                "roles" => config.roles = self.roles(item),
                "env" => config.environments = self.environments(item),
                noun if self.registry.noun(noun).is_some() => {
                    let error = RunError::new(codes::CONFIG, format!("`{noun}` is outside an environment"))
                        .hint(format!("targets belong to an environment: [env.NAME.{noun}.TARGET]"));
                    self.at_key(error, &path, key);
                }
                wrong => self.at_key(unknown_key(wrong, wrong, KEYS.into_iter()), &path, key),
            }
        }
        if !config.environments.iter().any(|known| known.name == SANDBOX) {
            config.environments.push(Environment::empty(SANDBOX));
        }
        if let Some(name) = config.default_env.as_deref()
            && let Err(error) = config.environment(name)
        {
            self.errors.push(placed(&self.file, error, &["default_env"], default_at));
        }
        for environment in &config.environments {
            self.approvers(root, environment, &config.roles);
        }
        config
    }

    /// Where there are roles, those who approve are among them: a misspelt role would be a person whom nobody knows.
    fn approvers(&mut self, root: &Table, environment: &Environment, roles: &BTreeMap<String, Role>) {
        if let Err(why) = check_approvers(&environment.approvers, roles) {
            let path = ["env", &*environment.name, "approvers"];
            let item = root.get(path[0]).and_then(|item| item.get(path[1])?.get(path[2]));
            let at = item.and_then(Item::span).map(|span| span.start);
            let error = RunError::new(codes::CONFIG, format!("`approvers`: {why}"));
            self.errors.push(placed(&self.file, error, &path, at));
        }
    }

    /// `CONTRAFLOW_ENV`, `CONTRAFLOW_STORE` and `CONTRAFLOW_STATE_DIR`. Empty is as good as not set, as shells treat such variables.
    fn short_variables(&mut self, mut config: Config) -> Config {
        if let Some(name) = self.short_variable("CONTRAFLOW_ENV") {
            config.default_env = Some(name);
        }
        if let Some(place) = self.short_variable("CONTRAFLOW_STORE") {
            let key = Key::new("store");
            let entry = self.entry(&[], &key, Table::new(), String::new(), None);
            config.store = Some(Store { setting: Setting::plain(place), entry });
        }
        // A path may be any bytes, so this one need not be text.
        if let Some(folder) =
            self.file.variables.get("CONTRAFLOW_STATE_DIR").filter(|folder| !folder.is_empty())
        {
            config.state_dir = Some(PathBuf::from(folder));
        }
        config
    }

    fn short_variable(&mut self, name: &str) -> Option<String> {
        let value = self.file.variables.get(name).filter(|value| !value.is_empty())?;
        if let Some(text) = value.to_str() {
            return Some(text.to_owned());
        }
        let source = format!("environment variable {name}");
        self.errors.push(RunError::new(codes::CONFIG, "the value is not UTF-8").at(name, source, 0, 0));
        None
    }

    fn limits(&mut self, key: &Key, item: &Item) -> Limits {
        let path = ["limits"];
        let Some(table) = self.table(&path, key, item) else { return Limits::default() };
        let home = Home { path: vec!["limits".to_owned()], offset: start(key) };
        match decode::<Limits>(&self.file, &home, &copied(table, None)) {
            Ok(limits) => {
                if limits.max_operations == Some(0) {
                    let at = table.get("max_operations").and_then(Item::span).map(|span| span.start);
                    let error = RunError::new(codes::CONFIG, "`max_operations`: 0 would stop every script");
                    self.errors.push(placed(&self.file, error, &["limits", "max_operations"], at));
                }
                limits
            }
            Err(error) => {
                self.errors.push(error);
                Limits::default()
            }
        }
    }

    fn roles(&mut self, item: &Item) -> BTreeMap<String, Role> {
        let Some(table) = item.as_table_like() else {
            self.wrong(&["roles"], item, "a table of roles, such as [roles.release-manager]");
            return BTreeMap::new();
        };
        let mut roles = BTreeMap::new();
        for (key, item) in pairs(table) {
            let path = ["roles", key.get()];
            let Some(table) = self.table(&path, key, item) else { continue };
            let home = Home { path: path.map(str::to_owned).into(), offset: start(key) };
            match decode::<Role>(&self.file, &home, &copied(table, None)) {
                Ok(role) => {
                    roles.insert(key.get().to_owned(), role);
                }
                Err(error) => self.errors.push(error),
            }
        }
        roles
    }

    fn environments(&mut self, item: &Item) -> Vec<Environment> {
        let Some(table) = item.as_table_like() else {
            self.wrong(&["env"], item, "a table of environments, such as [env.production]");
            return Vec::new();
        };
        pairs(table).filter_map(|(key, item)| self.environment(key, item)).collect()
    }

    fn environment(&mut self, key: &Key, item: &Item) -> Option<Environment> {
        let name = key.get();
        let mut environment = Environment::empty(name);
        self.check_name("an environment", &["env", name], key);
        for (key, item) in pairs(self.table(&["env", name], key, item)?) {
            let path = ["env", name, key.get()];
            match key.get() {
                "protected" => environment.protected = self.flag(&path, item).unwrap_or_default(),
                "approvers" => environment.approvers = self.texts(&path, item),
                "approvals" => environment.approvals = self.at_least_one(&path, item),
                "params" => {
                    let Some(params) = self.table(&path, key, item) else { continue };
                    for (key, item) in pairs(params) {
                        let path = ["env", name, "params", key.get()];
                        if let Some(value) = self.param(&path, item) {
                            environment.params.insert(key.get().to_owned(), value);
                        }
                    }
                }
                table if self.registry.table(table).is_some() => {
                    let Some(table) = self.table(&path, key, item) else { continue };
                    let entry = self.entry(&path, key, copied(table, None), String::new(), None);
                    environment.tables.push(entry);
                }
                noun if self.registry.noun(noun).is_some() => {
                    if name == SANDBOX {
                        let error = RunError::new(
                            codes::CONFIG,
                            "the environment `sandbox` has its own targets and takes no others",
                        )
                        .hint("put them in another environment");
                        self.at_key(error, &path, key);
                        continue;
                    }
                    let Some(targets) = self.table(&path, key, item) else { continue };
                    let targets: Vec<Entry> = pairs(targets)
                        .filter_map(|(key, item)| self.target(&["env", name, noun, key.get()], key, item))
                        .collect();
                    environment.targets.extend(targets);
                }
                wrong => {
                    let registry = Arc::clone(&self.registry);
                    let known = ENVIRONMENT_KEYS
                        .into_iter()
                        .chain(registry.tables().iter().map(|table| table.name))
                        .chain(registry.nouns().iter().map(|noun| noun.name));
                    self.at_key(unknown_key(wrong, wrong, known), &path, key);
                }
            }
        }
        // One of those who are named, or somebody else than the one who starts the run.
        if environment.approvals == 0 && !environment.approvers.is_empty() {
            environment.approvals = 1;
        }
        if environment.approvals > 0 && environment.approvers.is_empty() {
            environment.approvers.push(SOMEBODY_ELSE.to_owned());
        }
        Some(environment)
    }

    fn target(&mut self, path: &[&str; 4], key: &Key, item: &Item) -> Option<Entry> {
        self.check_name("a target", path, key);
        let table = self.table(path, key, item)?;
        let [_, _, noun, name] = *path;
        let Some(provider) = table.get("provider") else {
            let error = RunError::new(codes::CONFIG, format!("the {noun} target `{name}` has no `provider`"));
            let error = match did_you_mean("provider", table.iter().map(|(key, _)| key)) {
                Some(close) => error.hint(format!("did you mean `provider` instead of `{close}`?")),
                None => {
                    error.hint("add `provider = \"…\"`: the kind of server or service behind this target")
                }
            };
            self.at_key(error, path, key);
            return None;
        };
        let [env, environment, ..] = *path;
        let text = self.text(&[env, environment, noun, name, "provider"], provider)?;
        let offset = provider.span().map(|span| span.start);
        Some(self.entry(path, key, copied(table, Some("provider")), text, offset))
    }

    /// `path` is that of the table: `env`, environment, noun and, for targets, the name.
    fn entry(
        &self,
        path: &[&str],
        key: &Key,
        table: Table,
        provider: String,
        provider_offset: Option<usize>,
    ) -> Entry {
        let part = |at: usize| path.get(at).copied().unwrap_or_default().to_owned();
        Entry {
            environment: part(1),
            noun: part(2),
            name: part(3),
            provider,
            table,
            home: Home { path: path.iter().map(|&key| key.to_owned()).collect(), offset: start(key) },
            provider_offset,
            file: Arc::clone(&self.file),
        }
    }

    /// Names appear in ids of effects, in files of the state folder and in commands, so they are kept plain.
    fn check_name(&mut self, what: &str, path: &[&str], key: &Key) {
        let name = key.get();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain) {
            return;
        }
        let error = RunError::new(
            codes::CONFIG,
            format!("\"{}\" is not a valid name for {what}", name.escape_debug()),
        )
        .hint("a name starts with a letter or digit and consists of letters, digits, `-`, `_` and `.`");
        self.at_key(error, path, key);
    }

    fn param(&mut self, path: &[&str], item: &Item) -> Option<Json> {
        let value = item.as_value().and_then(json);
        if value.is_none() {
            self.wrong(path, item, "text, a finite number, `true`, `false`, or an array of these");
        }
        value
    }

    fn text(&mut self, path: &[&str], item: &Item) -> Option<String> {
        match item.as_str() {
            Some("") => {
                let error = RunError::new(codes::CONFIG, format!("`{}`: the text is empty", last(path)));
                self.errors.push(placed(&self.file, error, path, item.span().map(|span| span.start)));
                None
            }
            Some(text) => Some(text.to_owned()),
            None => {
                self.wrong(path, item, "text");
                None
            }
        }
    }

    fn texts(&mut self, path: &[&str], item: &Item) -> Vec<String> {
        let texts = item.as_array().map(|items| {
            items
                .iter()
                .map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
                .collect()
        });
        let texts: Option<Vec<String>> = texts.flatten();
        let texts = texts.filter(|texts| !texts.is_empty());
        if texts.is_none() {
            self.wrong(path, item, "an array of texts, such as [\"release-manager\"]");
        }
        texts.unwrap_or_default()
    }

    fn at_least_one(&mut self, path: &[&str], item: &Item) -> u32 {
        let from_variable = || self.file.overridden(path)?.otherwise.as_ref()?.as_integer();
        let number = item.as_integer().or_else(from_variable);
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        if number.is_none() {
            self.wrong(path, item, "a whole number from 1");
        }
        number.unwrap_or_default()
    }

    fn flag(&mut self, path: &[&str], item: &Item) -> Option<bool> {
        let from_variable = || self.file.overridden(path)?.otherwise.as_ref()?.as_bool();
        let flag = item.as_bool().or_else(from_variable);
        if flag.is_none() {
            self.wrong(path, item, "`true` or `false`");
        }
        flag
    }

    fn table<'t>(&mut self, path: &[&str], key: &Key, item: &'t Item) -> Option<&'t dyn TableLike> {
        let table = item.as_table_like();
        if table.is_none() {
            let found = self.found(path, item);
            let error = RunError::new(codes::CONFIG, format!("`{}`: {found}, expected a table", last(path)));
            let error = match item {
                Item::ArrayOfTables(_) => error.hint("write the header with single brackets"),
                _ => error,
            };
            // The span of an array of tables reaches over all of them; its key is where to look.
            let at = if item.is_array_of_tables() { start(key) } else { item.span().map(|span| span.start) };
            self.errors.push(placed(&self.file, error, path, at));
        }
        table
    }

    fn wrong(&mut self, path: &[&str], item: &Item, expected: &str) {
        let message = format!("`{}`: {}, expected {expected}", last(path), self.found(path, item));
        let error = RunError::new(codes::CONFIG, message);
        self.errors.push(placed(&self.file, error, path, item.span().map(|span| span.start)));
    }

    /// What stands there, for people. A text from a variable may be a secret.
    fn found(&self, path: &[&str], item: &Item) -> String {
        match self.file.overridden(path) {
            Some(_) if item.is_str() => "the text \"…\"".to_owned(),
            _ => describe(item),
        }
    }

    fn at_key(&mut self, error: ConfigError, path: &[&str], key: &Key) {
        self.errors.push(placed(&self.file, error, path, start(key)));
    }

    /// A path in the file, taken from the folder of the file; as it is where it comes from a variable.
    fn beside(&self, text: &str) -> PathBuf {
        let from_variable = self.file.overridden(&["state_dir"]).is_some();
        match self.file.path.as_deref().and_then(std::path::Path::parent) {
            Some(folder) if !from_variable => folder.join(text),
            _ => text.into(),
        }
    }

    /// Where runs are kept. A relative path in the file is taken from the folder of the file, so that all folders below share it.
    fn store(&mut self, key: &Key, item: &Item) -> Option<Store> {
        #[derive(serde::Deserialize)]
        struct Settings {
            store: Setting,
        }
        let mut table = Table::new();
        table.insert_formatted(key, item.clone());
        let entry = self.entry(&[], key, table, String::new(), None);
        let setting = match entry.settings::<Settings>() {
            Ok(settings) => settings.store,
            Err(error) => {
                self.errors.push(error);
                return None;
            }
        };
        if let Some(name) = setting.secret() {
            let why = format!("the secret {name} belongs to an environment, and the run store to none");
            let error = entry.bad_setting("store", &why);
            self.errors
                .push(error.hint("name a variable or a file: { env = \"VARIABLE\" } or { file = \"path\" }"));
            return None;
        }
        let Some(text) = setting.as_plain() else { return Some(Store { setting, entry }) };
        if text.is_empty() {
            self.errors.push(entry.bad_setting("store", "the text is empty"));
            return None;
        }
        let is_url = text.split_once(':').is_some_and(|(scheme, _)| {
            scheme.len() > 1
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
        });
        let folder = self.file.path.as_deref().and_then(std::path::Path::parent);
        let setting = match folder.map(|folder| folder.join(text)) {
            Some(path) if !is_url && self.file.overridden(&["store"]).is_none() => {
                path.to_str().map_or_else(|| setting.clone(), Setting::from)
            }
            _ => setting,
        };
        Some(Store { setting, entry })
    }
}

fn start(key: &Key) -> Option<usize> {
    key.span().map(|span| span.start)
}

fn last<'p>(path: &[&'p str]) -> &'p str {
    path.last().copied().unwrap_or_default()
}

/// A table of its own that still knows where its keys stand, without the key `but`.
fn copied(table: &dyn TableLike, but: Option<&str>) -> Table {
    let mut copy = Table::new();
    for (key, item) in pairs(table).filter(|(key, _)| Some(key.get()) != but) {
        copy.insert_formatted(key, item.clone());
    }
    copy
}

/// A value as scripts know values. A date is text.
fn json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::String(text) => Json::String(text.value().clone()),
        Value::Integer(number) => Json::Number((*number.value()).into()),
        Value::Float(number) => Json::Number(Number::from_f64(*number.value())?),
        Value::Boolean(flag) => Json::Bool(*flag.value()),
        Value::Datetime(date) => Json::String(date.value().to_string()),
        Value::Array(items) => Json::Array(items.iter().map(json).collect::<Option<_>>()?),
        Value::InlineTable(_) => return None,
    })
}
