//! What the commands have in common: configuration, environment, targets, state.

use std::{
    collections::BTreeMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(feature = "postgres")]
use contraflow_runtime::journal::PostgresStore;
use contraflow_runtime::{
    Approvals, Builder, Given, SavedPlan,
    error::{NextStep, RunError, codes},
    journal::{Run, SqliteStore, Store, StoreError},
    plan::MAX_PLAN,
    provider::Providers,
    script::ScriptLimits,
};
use contraflow_stdlib::{
    config::{Config, ConfigErrors, SANDBOX},
    sandbox::{Fault, Sandbox, SandboxOptions},
};

#[cfg(feature = "postgres")]
use zeroize::Zeroizing;

use crate::{args::Inputs, command::Refused, context::Context, render::Sources, scripts::Scripts};

/// One environment, ready for use.
pub(crate) struct Session {
    config: Config,
    environment: String,
    providers: std::cell::Cell<Option<Providers>>,
    context: Context,
}

fn refuse_config(errors: ConfigErrors, path: Option<&Path>) -> Refused {
    let mut sources = Sources::new();
    if let (Some(text), Some(path)) = (errors.text(), path) {
        sources.insert(path.display().to_string(), text.to_string());
    }
    Refused::input(errors.into_iter().collect(), sources)
}

/// The configuration that applies here.
fn config(context: &Context) -> Result<Config, Refused> {
    let path = match &context.global.config {
        Some(path) => Some(path.clone()),
        None => std::env::current_dir().ok().and_then(Config::find),
    };
    let registry = context.program.registry();
    match &path {
        Some(path) => Config::load(path, std::env::vars_os(), &registry),
        None => Config::without_file(std::env::vars_os(), &registry),
    }
    .map_err(|errors| refuse_config(errors, path.as_deref()))
}

impl Session {
    /// Reads the configuration and binds the targets of an environment.
    pub(crate) fn open(
        context: &Context,
        environment: Option<&str>,
        faults: &[String],
    ) -> Result<Self, Refused> {
        let config = config(context)?;
        let environment = environment.or(config.default_env()).unwrap_or(SANDBOX).to_owned();
        config.environment(&environment).map_err(|e| Refused::input(vec![e], Sources::new()))?;
        let mut providers =
            config.providers(&environment).map_err(|errors| refuse_config(errors, config.path()))?;
        if environment == SANDBOX {
            bind_sandbox(&mut providers, faults)?;
        } else if !faults.is_empty() {
            let error = RunError::new(codes::ARGUMENT, "--fault works only in the environment \"sandbox\"")
                .hint("remove --env or --fault");
            return Err(Refused::input(vec![error], Sources::new()));
        }
        Ok(Self { context: context.clone(), config, environment, providers: Some(providers).into() })
    }

    /// Name of the environment.
    pub(crate) fn environment(&self) -> &str {
        &self.environment
    }

    /// A runtime on this environment's targets, without listeners yet.
    pub(crate) fn runtime(&self) -> Builder {
        let limits = self.config.limits();
        let defaults = ScriptLimits::default();
        let params =
            self.config.environment(&self.environment).map(|env| env.params.clone()).unwrap_or_default();
        self.context
            .program
            .runtime()
            .providers(self.providers.take().unwrap_or_default())
            .params(params)
            .roles(self.config.roles().clone())
            .approvals(self.approvals())
            .limits(ScriptLimits {
                max_operations: limits.max_operations.unwrap_or(defaults.max_operations),
                max_memory: limits.max_memory.map_or(defaults.max_memory, |size| size.0),
                max_wall_time: limits.max_wall_time.map_or(defaults.max_wall_time, |span| span.0),
                memory: Some(crate::cli::memory),
                ..defaults
            })
    }

    /// Who has to agree to a plan here before it is run.
    pub(crate) fn approvals(&self) -> Approvals {
        let Ok(environment) = self.config.environment(&self.environment) else { return Approvals::default() };
        Approvals { by: environment.approvers.clone(), at_least: environment.approvals }
    }

    /// Whether a run without a plan may be started here.
    pub(crate) fn allow_run(&self, file: &Path) -> Result<(), Refused> {
        let protected = self.config.environment(&self.environment).is_ok_and(|env| env.protected);
        if !protected {
            return Ok(());
        }
        let (name, file, program) = (&self.environment, file.display(), self.context.program.name);
        let message = format!("the environment \"{name}\" is protected: it runs only saved plans");
        let mut error = RunError::new(codes::DENIED_BY_POLICY, message)
            .hint(format!("plan it: {program} plan {file} --env {name} --save PLAN"));
        let Approvals { by, at_least } = self.approvals();
        if at_least > 0 {
            error = error.hint(format!("let {} approve it: {program} approve --plan PLAN", by.join(" or ")));
        }
        error = error.hint(format!("then run it: {program} run --plan PLAN"));
        error.frames.extend(self.config.place(&["env", name, "protected"]));
        let sources = self
            .config
            .path()
            .and_then(|path| Some((path.display().to_string(), self.config.source(path)?.to_string())));
        Err(Refused::input(vec![error], sources.into_iter().collect()))
    }

    /// Reads a runbook with all it imports.
    pub(crate) fn bundle(file: &Path) -> Result<Scripts, Refused> {
        Scripts::load(file).map_err(|(error, sources)| Refused::input(vec![error], sources))
    }

    /// Errors of a bundle or its parameters.
    #[expect(clippy::unused_self, reason = "an error belongs to the session that met it")]
    pub(crate) fn refuse(&self, errors: Vec<RunError>, bundle: &Scripts) -> Refused {
        if errors.iter().all(|e| e.is(codes::JOURNAL)) {
            return errors
                .into_iter()
                .next()
                .map_or_else(|| Refused::input(Vec::new(), Sources::new()), Refused::failed);
        }
        bundle.refuse(errors)
    }

    /// Where runs are kept.
    pub(crate) fn place(&self) -> Result<Place, Refused> {
        Place::of(&self.config, &self.context)
    }
}

/// Where runs are kept.
pub(crate) enum Place {
    /// In a folder of this machine.
    Folder(PathBuf),
    /// In a PostgreSQL database, by its URL, which may hold a password.
    #[cfg(feature = "postgres")]
    Database { url: Zeroizing<String>, shown: String },
}

impl Place {
    /// For commands that need no environment.
    pub(crate) fn find(context: &Context) -> Result<Self, Refused> {
        Self::of(&config(context)?, context)
    }

    /// The first of these counts: the store of the command line, of the configuration, the folder of the command line, of the
    /// configuration, the usual one.
    fn of(config: &Config, context: &Context) -> Result<Self, Refused> {
        if let Some(store) = &context.global.store {
            return Self::named(store);
        }
        let store = config.store().map_err(|error| {
            let source = config
                .path()
                .and_then(|path| Some((path.display().to_string(), config.source(path)?.to_string())));
            Refused::input(vec![error], source.into_iter().collect())
        })?;
        if let Some(store) = store {
            return Self::named(store.as_str());
        }
        if let Some(folder) = context.global.state_dir.as_deref().or(config.state_dir()) {
            return Ok(Self::Folder(folder.to_owned()));
        }
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_STATE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
            .map(|state| Self::Folder(state.join("contraflow")))
            .ok_or_else(|| {
                let error = RunError::new(codes::JOURNAL, "no home directory to keep runs in")
                    .hint("set a folder with --state-dir");
                Refused::input(vec![error], Sources::new())
            })
    }

    /// The place of that name. An error shows only what stands before `://`.
    fn named(store: &str) -> Result<Self, Refused> {
        let refuse = |message: String, hint: &str| {
            Refused::input(vec![RunError::new(codes::JOURNAL, message).hint(hint)], Sources::new())
        };
        let Some((kind, _)) = store.split_once(":") else { return Ok(Self::Folder(store.into())) };
        match kind {
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => match PostgresStore::shown(store) {
                Ok(shown) => Ok(Self::Database { url: Zeroizing::new(store.to_owned()), shown }),
                Err(error) => Err(Refused::input(vec![error.into()], Sources::new())),
            },
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => Err(refuse(
                "this build of Contraflow does not support PostgreSQL run stores".to_owned(),
                "use a folder, or build Contraflow with the feature `postgres`",
            )),
            kind if store.contains("://") || kind == "sqlite" => Err(refuse(
                format!("unknown kind of store \"{kind}\""),
                "use a folder, or a database: postgres://USER@HOST/DATABASE",
            )),
            _ => Ok(Self::Folder(store.into())),
        }
    }

    /// The store there, created if need be.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>, Refused> {
        match self {
            Self::Folder(folder) => Ok(never_closed(SqliteStore::open(folder).await.map_err(failed)?)),
            #[cfg(feature = "postgres")]
            Self::Database { url, .. } => Ok(Arc::new(PostgresStore::connect(url).await.map_err(failed)?)),
        }
    }

    /// The store there, for looking. `None`: there is none yet.
    pub(crate) async fn look(&self) -> Result<Option<Arc<dyn Store>>, Refused> {
        Ok(match self {
            Self::Folder(folder) => SqliteStore::look(folder).await.map_err(failed)?.map(never_closed),
            #[cfg(feature = "postgres")]
            Self::Database { url, .. } => {
                PostgresStore::look(url).await.map_err(failed)?.map(|store| Arc::new(store) as Arc<dyn Store>)
            }
        })
    }

    /// For people, without credentials.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Folder(folder) => folder.display().to_string(),
            #[cfg(feature = "postgres")]
            Self::Database { shown, .. } => shown.clone(),
        }
    }
}

/// Keeps a store open to the end of the process: closing moves SQLite's log into the database and deletes it, which the disk has to
/// confirm several times here and in the next run. Left where it is, the log is read by whoever opens the database next.
fn never_closed(store: SqliteStore) -> Arc<dyn Store> {
    let store = Arc::new(store);
    std::mem::forget(Arc::clone(&store));
    store
}

/// A store that cannot be used.
pub(crate) fn failed(error: StoreError) -> Refused {
    Refused::failed(error.into())
}

fn bind_sandbox(providers: &mut Providers, faults: &[String]) -> Result<(), Refused> {
    let faults = faults
        .iter()
        .map(|text| {
            text.parse::<Fault>().map_err(|e| {
                Refused::input(
                    vec![RunError::new(codes::ARGUMENT, format!("--fault {text}: {e}"))],
                    Sources::new(),
                )
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let sandbox = Sandbox::new(SandboxOptions { faults, ..SandboxOptions::default() });
    sandbox.bind(providers);
    Ok(())
}

/// The parameters of the command line: a file, and single ones over it.
pub(crate) fn read_params(given: &Inputs) -> Result<BTreeMap<String, Given>, Refused> {
    let mut params = BTreeMap::new();
    if let Some(path) = &given.params_file {
        let shown = path.display().to_string();
        let refuse =
            |message: String| Refused::input(vec![RunError::new(codes::PARAMETER, message)], Sources::new());
        let text = std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot read {shown}: {e}")))?;
        let text = contraflow_runtime::text::unmarked(text);
        let table: toml::Table =
            toml::from_str(&text).map_err(|e| {
                let at = e.span().map_or(0, |span| span.start);
                let before = text.get(..at).unwrap_or_default();
                let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
                let error = RunError::new(codes::PARAMETER, format!("{shown} is not TOML: {}", e.message()))
                    .at("", &*shown, before.matches('\n').count() + 1, column);
                Refused::input(vec![error], Sources::from([(shown.clone(), text.clone())]))
            })?;
        for (name, value) in table {
            let value = serde_json::to_value(value).map_err(|e| refuse(format!("{shown}: {name}: {e}")))?;
            params.insert(name, Given::Value(value));
        }
    }
    for param in &given.params {
        params.insert(param.name.clone(), Given::Text(param.text.clone()));
    }
    Ok(params)
}

/// The saved plan in a file.
pub(crate) fn read_plan(file: &Path) -> Result<SavedPlan, Refused> {
    let shown = file.display();
    let refuse = |error| Refused::input(vec![error], Sources::new());
    let read = || -> std::io::Result<String> {
        let opened = std::fs::File::open(file)?;
        if opened.metadata()?.is_dir() {
            return Err(std::io::Error::other("it is a folder"));
        }
        let mut text = String::new();
        opened.take(MAX_PLAN + 1).read_to_string(&mut text)?;
        match text.len() as u64 {
            size if size > MAX_PLAN => Err(std::io::Error::other("it is too large for a plan")),
            _ => Ok(text),
        }
    };
    let text =
        read().map_err(|e| refuse(RunError::new(codes::SAVED_PLAN, format!("cannot read {shown}: {e}"))))?;
    SavedPlan::parse(contraflow_runtime::text::without_mark(&text)).map_err(|error| {
        let message = format!("{shown}: {}", error.message);
        refuse(RunError { message, ..error })
    })
}

/// The one run that an id, its beginning, its end or `last` means.
pub(crate) async fn find_run(place: &Place, id: &str) -> Result<(Arc<dyn Store>, Run), Refused> {
    let none = || {
        let error = RunError::new(codes::JOURNAL, format!("no run \"{id}\" in {}", place.describe()));
        Refused::failed(error.next_step(NextStep::ListRuns))
    };
    let store = place.look().await?.ok_or_else(none)?;
    if id == "last" {
        return last(store, place).await;
    }
    let mut found = store.find(id).await.map_err(failed)?;
    match found.len() {
        0 => Err(none()),
        1 => Ok((store, found.remove(0))),
        _ => {
            let some: Vec<&str> = found.iter().take(5).map(|run| &*run.id).collect();
            let error = RunError::new(codes::ARGUMENT, format!("\"{id}\" matches {} runs", found.len()));
            Err(Refused::input(vec![error.hint(format!("such as {}", some.join(", ")))], Sources::new()))
        }
    }
}

/// The newest run of whoever asks, on this machine: what somebody else has begun meanwhile is not meant.
async fn last(store: Arc<dyn Store>, place: &Place) -> Result<(Arc<dyn Store>, Run), Refused> {
    const SOME: u32 = 100;
    let me = who();
    let mut newest: Option<Run> = None;
    for most in [SOME, u32::MAX] {
        let runs = store.runs(most).await.map_err(failed)?;
        newest = newest.or_else(|| runs.first().cloned());
        let all = runs.len() < SOME as usize;
        if let Some(mine) = runs.into_iter().find(|run| run.started_by == me) {
            return Ok((store, mine));
        }
        if all {
            break;
        }
    }
    let error = RunError::new(codes::JOURNAL, format!("{me} has started no run in {}", place.describe()));
    let error = match newest {
        Some(run) => error.hint(format!(
            "`last` is your own last run; the newest is {}, started by {} in {}",
            run.id, run.started_by, run.environment
        )),
        None => error,
    };
    Err(Refused::failed(error.next_step(NextStep::ListRuns)))
}

/// Who is at work here, as `user@host`.
pub(crate) fn who() -> String {
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .or_else(|| nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name))
        .unwrap_or_else(|| "unknown".to_owned());
    let host = nix::unistd::gethostname()
        .map_or_else(|_| "localhost".to_owned(), |host| host.to_string_lossy().into_owned());
    format!("{user}@{host}")
}
