//! `contraflow.toml`: environments and their targets.
//!
//! The file is read once, before a run. Whatever is wrong with it is reported with line and column, all of it at once;
//! a name that nothing stands behind is an error, never ignored. Variables of the process are passed in by the caller:
//! nothing here reads the process environment.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

mod binder;
mod decode;
mod editor;
mod entry;
mod errors;
mod file;
mod overrides;
mod resolve;
mod reword;
mod roles;
mod schema;
mod value;

use binder::Binder;
pub use binder::{BadSetting, Building};
pub(crate) use editor::json_schema;
pub use entry::Entry;
pub use errors::{ConfigError, ConfigErrors};
use file::{File, Variables};
pub use resolve::{Detached, Resolve};
pub use reword::reword_text;
pub use roles::{Role, SOMEBODY_ELSE, check_approvers};
pub use value::{Resolved, Setting, Source};

use crate::{
    codes,
    error::{Frame, RunError, did_you_mean},
    provider::Providers,
    quantity::{Size, Span},
    registry::Registry,
};

/// The name under which the file is looked for.
pub const FILE_NAME: &str = "contraflow.toml";

/// The environment that needs no file.
pub const SANDBOX: &str = "sandbox";

/// Limits on one run of a script. `None`: the runtime's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most operations of the script engine.
    pub max_operations: Option<u64>,
    /// Most memory that values of the script may take.
    pub max_memory: Option<Size>,
    /// Longest time from start to end, waits included.
    pub max_wall_time: Option<Span>,
}

/// One environment: `[env.NAME]`.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Whether only saved plans are run in it.
    pub protected: bool,
    /// Roles or names of those who approve plans.
    pub approvers: Vec<String>,
    /// How many of them have to approve a plan before it is run. 0: none.
    pub approvals: u32,
    /// Defaults for parameters of runbooks, in front of the runbook's own.
    pub params: BTreeMap<String, Value>,
    /// Tables that are no targets, such as `exec`.
    tables: Vec<Entry>,
    targets: Vec<Entry>,
}

impl Environment {
    fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            protected: false,
            approvers: Vec::new(),
            approvals: 0,
            params: BTreeMap::new(),
            tables: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Its targets, in the order of the file.
    pub fn targets(&self) -> &[Entry] {
        &self.targets
    }
}

/// A configuration: a file, if there is one, and the variables that stand over it.
pub struct Config {
    file: Arc<File>,
    registry: Arc<Registry>,
    environments: Vec<Environment>,
    default_env: Option<String>,
    store: Option<Store>,
    state_dir: Option<PathBuf>,
    limits: Limits,
    roles: BTreeMap<String, Role>,
}

/// Where runs are kept, or where to find out.
struct Store {
    setting: Setting,
    /// The top level of the file.
    entry: Entry,
}

// Not derived: the store may be a URL with a password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("file", &self.file)
            .field("environments", &self.environments)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The file `contraflow.toml` in `start_dir` or the nearest folder above it. Whether it can be read is for
    /// [`Config::load`] to say.
    pub fn find(start_dir: impl AsRef<Path>) -> Option<PathBuf> {
        let start = std::path::absolute(start_dir).ok()?;
        start.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.symlink_metadata().is_ok())
    }

    /// Reads a file, with the variables of the process (`std::env::vars_os()`) over it. The registry says what there can be in
    /// its environments.
    ///
    /// # Errors
    /// `config`: everything that is wrong with it, each with its place.
    pub fn load<K, V>(
        path: impl AsRef<Path>,
        env_vars: impl IntoIterator<Item = (K, V)>,
        registry: &Registry,
    ) -> Result<Self, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let path = path.as_ref();
        let text = file::read(path)?;
        Self::build(Some(path), text, Variables::new(env_vars), registry)
    }

    /// As [`Config::load`], for text that does not come from a file of its own. `path` is what errors name and what
    /// relative paths start from.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse<K, V>(
        path: impl AsRef<Path>,
        text: &str,
        env_vars: impl IntoIterator<Item = (K, V)>,
        registry: &Registry,
    ) -> Result<Self, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        Self::build(Some(path.as_ref()), text.into(), Variables::new(env_vars), registry)
    }

    /// No file and no variables: only the environment `sandbox`.
    pub fn sandbox() -> Self {
        Self {
            file: Arc::default(),
            registry: Arc::default(),
            environments: vec![Environment::empty(SANDBOX)],
            default_env: Some(SANDBOX.to_owned()),
            store: None,
            state_dir: None,
            limits: Limits::default(),
            roles: BTreeMap::new(),
        }
    }

    /// No file, but the variables of the process: the environment `sandbox`, with the store, state folder and limits
    /// that they name.
    ///
    /// # Errors
    /// `config`: variables that mean nothing without a file.
    pub fn without_file<K, V>(
        env_vars: impl IntoIterator<Item = (K, V)>,
        registry: &Registry,
    ) -> Result<Self, ConfigErrors>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let mut config = Self::build(None, "".into(), Variables::new(env_vars), registry)?;
        config.default_env.get_or_insert_with(|| SANDBOX.to_owned());
        Ok(config)
    }

    fn build(
        path: Option<&Path>,
        text: Arc<str>,
        variables: Variables,
        registry: &Registry,
    ) -> Result<Self, ConfigErrors> {
        let fail = |errors: Vec<ConfigError>| ConfigErrors::new(errors, Some(Arc::clone(&text)));
        let mut root = file::parse(path, &text).map_err(|error| fail(vec![error]))?;
        let (overrides, mut errors) = overrides::apply(&mut root, &variables, registry);
        let file = File { path: path.map(Path::to_owned), text: Arc::clone(&text), overrides, variables };
        let config = schema::read(Arc::new(file), &root, &Arc::new(registry.clone()), &mut errors);
        if errors.is_empty() { Ok(config) } else { Err(fail(errors)) }
    }

    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.file.path.as_deref()
    }

    /// The text of the file at `path`, for showing the line of an error. `None`: another file.
    pub fn source(&self, path: impl AsRef<Path>) -> Option<Arc<str>> {
        (self.path()? == path.as_ref()).then(|| Arc::clone(&self.file.text))
    }

    /// The environment to use where none is named: `CONTRAFLOW_ENV`, else `default_env`, else `sandbox` where there is no file.
    /// That it exists is checked when it is used.
    pub fn default_env(&self) -> Option<&str> {
        self.default_env.as_deref()
    }

    /// Where runs are kept: a path or a URL, which may hold a password. A relative path in the file has been taken from the folder
    /// of the file. Fetched now, if the file says that it is elsewhere.
    ///
    /// # Errors
    /// `config`: the variable is not set, or the file cannot be read, that `store` names.
    pub fn store(&self) -> Result<Option<Resolved>, ConfigError> {
        self.store.as_ref().map(|store| store.setting.resolve(&store.entry, "store")).transpose()
    }

    /// The folder for what runs leave behind.
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }

    /// Limits on one run.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Who has which role, for approvals.
    pub fn roles(&self) -> &BTreeMap<String, Role> {
        &self.roles
    }

    /// All environments in the order of the file; `sandbox` is always among them.
    pub fn environments(&self) -> &[Environment] {
        &self.environments
    }

    /// The environment of that name.
    ///
    /// # Errors
    /// `config`, with the closest name and those that there are.
    pub fn environment(&self, name: &str) -> Result<&Environment, ConfigError> {
        self.environments.iter().find(|known| known.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.environments.iter().map(|known| &*known.name).collect();
            let error = match self.path() {
                Some(path) => {
                    RunError::new(codes::CONFIG, format!("no environment \"{name}\" in {}", path.display()))
                }
                None => RunError::new(
                    codes::CONFIG,
                    format!(
                        "no environment \"{name}\": no {FILE_NAME} was found in this folder or a parent \
                        folder"
                    ),
                ),
            };
            let error = match did_you_mean(name, known.iter().copied()) {
                Some(close) => error.hint(format!("did you mean \"{close}\"?")),
                None => error,
            };
            error.hint(format!("environments: {}", known.join(", ")))
        })
    }

    /// Binds every target of an environment. For `sandbox` there are none: the caller binds what the sandbox brings.
    ///
    /// # Errors
    /// `config`: what is wrong with each target that could not be bound.
    pub fn providers(&self, environment: &str) -> Result<Providers, ConfigErrors> {
        let fail = |errors| ConfigErrors::new(errors, Some(Arc::clone(&self.file.text)));
        let chosen = self.environment(environment).map_err(|error| fail(vec![error]))?;
        let entries: Vec<Entry> = chosen.targets.iter().chain(&chosen.tables).cloned().collect();
        let providers = Binder::new(environment, &self.registry, &entries).finish().map_err(fail)?;
        #[cfg(feature = "http")]
        let providers = {
            let mut providers = providers;
            // For requests that no target sends.
            let variables = &self.file.variables;
            let proxies = crate::http::egress::Proxies::from_variables(|name| {
                variables.get(name).map(ToOwned::to_owned)
            });
            providers.extend(Arc::new(proxies));
            providers
        };
        Ok(providers)
    }

    /// Where a key stands, such as `["env", "production", "params", "hold"]`: a line of the file or a variable.
    pub fn place(&self, keys: &[&str]) -> Option<Frame> {
        self.file.find(keys)
    }
}
