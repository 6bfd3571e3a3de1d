//! A program with a noun, accounts that targets share, a provider of `notify` and an error code of its own.

use std::{io, path::PathBuf, process::ExitCode, sync::Arc};

use contraflow::runtime::{Library, effect::{Change, Read}, script::{Changes, Reads, ScriptContext as _}};
use contraflow_provider::config::{BadSetting, Building, Resolve as _};
use contraflow_provider::provider::{Provider, ProviderError, async_trait};
use contraflow_provider::notify::{Message, Notify};
use contraflow_provider::{capability, on::On, registry::{Factory, Noun}, target::Target};
use rhai::plugin::*;
use serde::{Deserialize, Serialize};
use tokio::fs;

type Answer<T> = Result<T, ProviderError>;

/// A folder: that of an account, or that of a target in it.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Folder {
    /// The folder with a folder for each target.
    path: PathBuf,
}

capability!(Folder, "accounts");

#[async_trait]
impl Provider for Folder {
    fn kind(&self) -> &'static str { Self::KIND }
    fn describe(&self) -> String { self.path.display().to_string() }
    async fn check(&self) -> Answer<String> { fs::read_dir(&self.path).await.map(|_| "found".into()).map_err(failed) }
}

fn failed(error: io::Error) -> ProviderError { ProviderError::unreachable(error.to_string()) }

impl Factory for Folder {
    type Capability = Self;
    type Settings = Self;
    const KIND: &'static str = "folder";
    const ABOUT: &'static str = "A folder that targets share.";
    const EXAMPLE: &'static str = include_str!("../contraflow.toml");
    fn build(at: &Building<'_>, settings: Self) -> Result<Arc<Self>, BadSetting> {
        Ok(Arc::new(Self { path: at.path(&settings.path.to_string_lossy()) }))
    }
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The account, by its name in this environment.
    account: String,
}

fn folder(at: &Building<'_>, settings: &Settings) -> Result<Arc<Folder>, BadSetting> {
    Ok(Arc::new(Folder { path: at.shared::<Folder>("account", &settings.account)?.path.join(&at.name) }))
}

trait Flags: Provider { fn file(&self, flag: &str) -> Answer<PathBuf>; }

capability!(dyn Flags, "flags");

impl Flags for Folder {
    fn file(&self, flag: &str) -> Answer<PathBuf> {
        let error = || ProviderError::terminal("flag-name", format!("\"{flag}\" cannot be the name of a flag"));
        flag.bytes().all(|c| c == b'-' || c.is_ascii_alphanumeric()).then(|| self.path.join(flag)).ok_or_else(error)
    }
}

struct FlagFiles;

impl Factory for FlagFiles {
    type Capability = dyn Flags;
    type Settings = Settings;
    const KIND: &'static str = Folder::KIND;
    const ABOUT: &'static str = "A folder with a file for each flag.";
    const EXAMPLE: &'static str = Folder::EXAMPLE;
    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Flags>, BadSetting> { Ok(folder(at, &settings)?) }
}

struct Outbox;

impl Factory for Outbox {
    type Capability = dyn Notify;
    type Settings = Settings;
    const KIND: &'static str = Folder::KIND;
    const ABOUT: &'static str = "A folder with a file for each message.";
    const EXAMPLE: &'static str = Folder::EXAMPLE;
    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Notify>, BadSetting> { Ok(folder(at, &settings)?) }
}

#[async_trait]
impl Notify for Folder {
    async fn send(&self, on: &On, message: &Message) -> Answer<()> {
        fs::write(self.path.join(on.idempotency_key().replace('/', "-")), &message.text).await.map_err(failed)
    }
}

#[derive(Serialize)]
struct Get { target: String, flag: String }

impl Read for Get {
    const ID: &'static str = "flags.get";
    type Value = bool;
    fn describe(&self) -> String { format!("{} of {}", self.flag, self.target) }
    fn depends_on(&self) -> Vec<Target> { vec![Target::new("flags", &self.target)] }
    fn subresource(&self) -> String { self.flag.clone() }
    async fn read(&self, on: &On) -> Answer<bool> {
        fs::try_exists(on.get::<dyn Flags>(&self.target)?.file(&self.flag)?).await.map_err(failed)
    }
    async fn read_after(&self, _: &On, state: &serde_json::Value) -> Answer<Option<bool>> { Ok(state.as_bool()) }
}

#[derive(Serialize)]
struct Set { flag: Get, on: bool }

impl Change for Set {
    const ID: &'static str = "flags.set";
    type State = bool;
    fn target(&self) -> Target { Target::new("flags", &self.flag.target) }
    fn subresource(&self) -> String { self.flag.flag.clone() }
    async fn observe(&self, on: &On) -> Answer<bool> { self.flag.read(on).await }
    fn desired(&self, _: &bool) -> Answer<bool> { Ok(self.on) }
    async fn apply(&self, on: &On, _: &bool, to: &bool) -> Answer<()> {
        let file = on.get::<dyn Flags>(&self.flag.target)?.file(&self.flag.flag)?;
        let changed = if *to { fs::write(file, "").await } else { fs::remove_file(file).await };
        changed.or_else(|e| if e.kind() == io::ErrorKind::NotFound && !to { Ok(()) } else { Err(failed(e)) })
    }
}

#[export_module]
mod script {
    /// Switches a flag on or off; returns whether it is on.
    #[rhai_fn(return_raw, volatile)]
    pub fn set(cx: NativeCallContext<'_>, target: String, flag: String, on: bool) -> Changes {
        cx.change(Set { flag: Get { target, flag }, on })
    }
    /// Whether a flag is on.
    #[rhai_fn(return_raw, volatile)]
    pub fn get(cx: NativeCallContext<'_>, target: String, flag: String) -> Reads { cx.read(Get { target, flag }) }
}

fn main() -> ExitCode {
    let flags = Library::new("flags").module("flags", rhai::exported_module!(script));
    let flags = flags.page("flag-name", include_str!("../flag-name.md")).provider::<Folder>().provider::<Outbox>();
    let flags = flags.noun(Noun::shared::<Folder>("Accounts")).noun(Noun::of::<dyn Flags>("Feature flags"));
    contraflow::Cli::builder().name("outside").library(flags.provider::<FlagFiles>()).run()
}
