//! A program with Contraflow inside: the sandbox's targets, a primitive of its own, and an ear for what happens.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{collections::BTreeMap, error::Error, sync::Arc, sync::atomic::AtomicBool, sync::atomic::Ordering};

use contraflow_runtime::provider::{Capability, Provider, ProviderError, Providers};
use contraflow_runtime::{
    Bundle, Library, Runtime, effect, event, journal, script::ScriptContext as _, target::Target,
};

/// A feature flag: what stands behind a name. Here it is a bit in memory, elsewhere the client of a server.
struct Flag(AtomicBool);

#[rustfmt::skip]
impl Capability for Flag {
    const NOUN: &'static str = "flag";
    fn as_provider(self: Arc<Self>) -> Arc<dyn Provider> { self }
}

#[rustfmt::skip]
#[async_trait::async_trait]
impl Provider for Flag {
    fn kind(&self) -> &'static str { "memory" }
    fn describe(&self) -> String { "this process".into() }
    async fn check(&self) -> Result<String, ProviderError> { Ok("there".into()) }
}

/// The effect, and what the journal keeps of it: a flag is put on or off.
#[derive(serde::Serialize)]
struct SetFlag(String, bool);

#[rustfmt::skip]
impl effect::Change for SetFlag {
    const ID: &'static str = "flag.set";
    type State = bool;
    fn target(&self) -> Target { Target::new("flag", &self.0) }
    async fn observe(&self, on: &effect::On) -> Result<bool, ProviderError> {
        on.get::<Flag>(&self.0).map(|flag| flag.0.load(Ordering::SeqCst))
    }
    fn desired(&self, _now: &bool) -> Result<bool, ProviderError> { Ok(self.1) }
    async fn apply(&self, on: &effect::On, _from: &bool, to: &bool) -> Result<(), ProviderError> {
        on.get::<Flag>(&self.0).map(|flag| flag.0.store(*to, Ordering::SeqCst))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (runs, flag) = (tempfile::tempdir()?, Arc::new(Flag(AtomicBool::new(false))));
    let mut targets = Providers::new("sandbox");
    contraflow_stdlib::sandbox::Sandbox::new(Default::default()).bind(&mut targets);
    targets.bind("checkout", flag);
    let mut module = rhai::Module::new();
    let set = |cx: rhai::NativeCallContext<'_>, flag: &str, on: bool| cx.change(SetFlag(flag.into(), on));
    rhai::FuncRegistration::new("set").set_into_module(&mut module, set);
    let (standard, flags) = (contraflow_stdlib::library(), Library::new("flags").module("flag", module));
    let store = Arc::new(journal::SqliteStore::open(runs.path()).await?);
    let sink = Arc::new(|event: &event::Envelope| println!("{}", serde_json::json!(event)));
    let runtime = Runtime::builder()
        .library(&standard)
        .library(&flags)
        .providers(targets)
        .store(store)
        .sink(sink)
        .build();
    let runbook = Bundle::single("embed.rhai", include_str!("embed.rhai"));
    let report = runtime.run(&runbook, &BTreeMap::new()).await?;
    report.error.map_or(Ok(()), |error| Err(error.into()))
}
