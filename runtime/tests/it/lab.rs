//! A small world in memory for tests: lamps with a state, a bell that rings, and ways to make them fail.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use contraflow_runtime::{
    Builder, Bundle, Given, Report, Runtime, Stop,
    effect::{Action, Change, InDoubt, Limits, On, Polled, Progress, Read, Reply, Undo, Until, Wait},
    error::RunError,
    event::{EffectResult, Envelope, Event, Grade},
    journal::{SqliteStore, Store},
    kernel::Policy,
    provider::{Capability, Provider, ProviderError, Providers},
    script::{Acts, Changes, Checks, Reads, ScriptContext as _, ScriptResult},
    target::Target,
    world::People,
};
use rhai::{FnPtr, Map, Module, NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};

/// What the provider does with a request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Does what it is asked.
    None,
    /// Refuses for good.
    Terminal,
    /// Refuses, may be asked again.
    Retryable,
    /// Refuses, may be asked again after a while.
    After(Duration),
    /// Does it, but the answer is lost.
    LostAnswer,
    /// Does something else.
    HalfDone(i64),
    /// Never answers.
    Hangs,
    /// Does it, but it never comes into effect.
    NeverSettles,
    /// Panics.
    Panics,
    /// Does it, then panics.
    DoesItAndPanics,
}

#[derive(Default)]
pub struct Board {
    pub lamps: BTreeMap<String, i64>,
    pub rings: Vec<String>,
    pub log: Vec<String>,
    /// Faults of the next `apply`s, by lamp.
    pub faults: BTreeMap<String, VecDeque<Fault>>,
    pub unsettled: bool,
    /// Whether keys can be read.
    pub locked: bool,
    /// When a guard first found something.
    pub breached: Option<std::time::Instant>,
    /// When the first apply after that was made.
    pub reacted: Option<std::time::Instant>,
    /// Called after each apply and each ring.
    pub after: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The provider of all lamps.
#[derive(Clone, Default)]
pub struct Lamps(pub Arc<Mutex<Board>>);

impl Lamps {
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Provider for Lamps {
    fn kind(&self) -> &'static str {
        "lab"
    }
    fn describe(&self) -> String {
        "memory".into()
    }
    async fn check(&self) -> Result<String, ProviderError> {
        Ok("ok".into())
    }
}

pub trait Light: Provider {
    fn lamps(&self) -> &Lamps;
}

impl Light for Lamps {
    fn lamps(&self) -> &Lamps {
        self
    }
}

impl Capability for dyn Light {
    const NOUN: &'static str = "lab";

    fn as_provider(self: Arc<Self>) -> Arc<dyn Provider> {
        self
    }
}

#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Level(i64);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}", self.0)
    }
}

#[derive(Serialize)]
struct Set {
    lamp: String,
    to: i64,
}

fn lamps(on: &On) -> Result<Lamps, ProviderError> {
    Ok(on.get::<dyn Light>("lamps")?.lamps().clone())
}

impl Change for Set {
    const ID: &'static str = "lab.set";
    type State = Level;

    fn target(&self) -> Target {
        Target::new("lab", &self.lamp)
    }

    async fn observe(&self, on: &On) -> Result<Level, ProviderError> {
        let lamps = lamps(on)?;
        let board = lamps.board();
        board.lamps.get(&self.lamp).copied().map(Level).ok_or_else(|| {
            ProviderError::terminal("unknown-target", format!("no lamp named \"{}\"", self.lamp))
                .hint("buy one")
        })
    }

    fn desired(&self, _: &Level) -> Result<Level, ProviderError> {
        Ok(Level(self.to))
    }

    async fn apply(&self, on: &On, from: &Level, to: &Level) -> Result<(), ProviderError> {
        let lamps = lamps(on)?;
        let fault = lamps.board().faults.get_mut(&self.lamp).and_then(VecDeque::pop_front);
        {
            let mut board = lamps.board();
            board.log.push(format!("{} {} -> {}", self.lamp, from.0, to.0));
            if board.breached.is_some() {
                board.reacted.get_or_insert_with(std::time::Instant::now);
            }
        }
        let set = |level| lamps.board().lamps.insert(self.lamp.clone(), level);
        match fault {
            None | Some(Fault::None) => {}
            Some(Fault::Terminal) => {
                return Err(ProviderError::terminal("provider", "the fuse is blown").hint("replace it"));
            }
            Some(Fault::Retryable) => return Err(ProviderError::unreachable("the switch does not answer")),
            Some(Fault::After(wait)) => {
                return Err(ProviderError::unreachable("too many requests").after(wait));
            }
            Some(Fault::LostAnswer) => {
                set(to.0);
                return Err(ProviderError::terminal("unreachable", "connection reset"));
            }
            Some(Fault::HalfDone(level)) => {
                set(level);
                return Err(ProviderError::terminal("provider", "stopped half-way"));
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::NeverSettles) => lamps.board().unsettled = true,
            Some(Fault::Panics) => panic!("lamp exploded"),
            Some(Fault::DoesItAndPanics) => {
                set(to.0);
                panic!("lamp exploded")
            }
        }
        set(to.0);
        let after = lamps.board().after.clone();
        if let Some(after) = after {
            after();
        }
        Ok(())
    }

    async fn settled(&self, on: &On, _: &Level) -> Result<Progress, ProviderError> {
        let lamps = lamps(on)?;
        let unsettled = lamps.board().unsettled;
        Ok(if unsettled {
            Progress::Waiting { done: 0, total: 1, message: "still warming up".into() }
        } else {
            Progress::Settled
        })
    }

    /// Lava is not atomic.
    fn may_be_half_done(&self, _: &Level, _: &Level, _: Option<&RunError>) -> bool {
        self.lamp == "lava"
    }

    fn undo(&self, _: &Level, to: &Level) -> Undo {
        if to.0 == 666 { Undo::Impossible("the lamp has melted".into()) } else { Undo::Possible }
    }

    /// A lamp that glows says how long it cools down.
    async fn estimate(&self, _: &On, from: &Level, _: &Level) -> Option<Duration> {
        (from.0 == 700).then_some(Duration::from_secs(90))
    }

    fn limits(&self) -> Limits {
        Limits {
            timeout: Duration::from_secs(1),
            attempts: 3,
            backoff: Duration::from_millis(1),
            settle: Duration::from_millis(30),
            settle_every: Duration::from_millis(5),
            ..Limits::default()
        }
    }
}

#[derive(Serialize)]
struct Ring {
    text: String,
    undoable: bool,
}

impl Action for Ring {
    const ID: &'static str = "lab.ring";
    type Output = i64;

    fn describe(&self) -> String {
        format!("ring {}", self.text)
    }

    async fn perform(&self, on: &On) -> Result<i64, ProviderError> {
        let lamps = lamps(on)?;
        lamps.board().rings.push(format!(
            "{} [{}]",
            self.text,
            on.idempotency_key().split_once('/').unwrap().1
        ));
        if self.text.contains("for ever") {
            std::future::pending::<()>().await;
        }
        let board = lamps.board();
        if self.text.contains("broken") {
            return Err(ProviderError::terminal("provider", "the bell is broken"));
        }
        let rings = i64::try_from(board.rings.len()).unwrap();
        let after = board.after.clone();
        drop(board);
        if let Some(after) = after {
            after();
        }
        Ok(rings)
    }

    fn in_doubt(&self) -> InDoubt {
        if self.text.contains("ask") { InDoubt::Ask } else { InDoubt::Repeat }
    }

    fn undoable(&self) -> bool {
        self.undoable
    }

    fn limits(&self) -> Limits {
        Limits { timeout: Duration::from_secs(1), ..Limits::default() }
    }

    async fn undo(&self, on: &On, output: Option<&i64>) -> Result<(), ProviderError> {
        let which = output.map_or("unseen".to_owned(), i64::to_string);
        let lamps = lamps(on)?;
        lamps.board().log.push(format!("unring {which}"));
        let after = lamps.board().after.clone();
        if let Some(after) = after {
            after();
        }
        Ok(())
    }
}

#[derive(Serialize)]
struct Look {
    lamp: String,
    check: Option<i64>,
}

impl Read for Look {
    const ID: &'static str = "lab.look";
    type Value = i64;

    fn describe(&self) -> String {
        self.lamp.clone()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("lab", &self.lamp)]
    }

    fn is_check(&self) -> bool {
        self.check.is_some()
    }

    async fn read(&self, on: &On) -> Result<i64, ProviderError> {
        let lamps = lamps(on)?;
        let level = lamps.board().lamps.get(&self.lamp).copied().unwrap_or(-1);
        match self.check {
            Some(want) if want != level => {
                Err(ProviderError::terminal("provider", format!("expected {want}, got {level}")))
            }
            _ => Ok(level),
        }
    }

    fn show(&self, value: &i64) -> String {
        value.to_string()
    }
}

/// Answers whatever it is told to.
#[derive(Serialize)]
struct Echo {
    json: String,
}

impl Read for Echo {
    const ID: &'static str = "lab.echo";
    type Value = serde_json::Value;

    fn describe(&self) -> String {
        "echo".to_owned()
    }

    fn depends_on(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn read(&self, _: &On) -> Result<serde_json::Value, ProviderError> {
        serde_json::from_str(&self.json).map_err(|e| ProviderError::terminal("provider", e.to_string()))
    }
}

/// Something that does not outlive the process and that a resumed run needs again.
#[derive(Serialize)]
struct Key {}

impl Read for Key {
    const ID: &'static str = "lab.key";
    type Value = i64;

    fn describe(&self) -> String {
        "the key".to_owned()
    }

    fn depends_on(&self) -> Vec<Target> {
        Vec::new()
    }

    fn again_on_resume(&self) -> bool {
        true
    }

    async fn read(&self, on: &On) -> Result<i64, ProviderError> {
        if lamps(on)?.board().locked {
            return Err(ProviderError::terminal("secret", "the drawer is locked"));
        }
        Ok(7)
    }
}

/// Learns a secret and tells it to whoever asks, as a careless server does.
#[derive(Serialize)]
struct Blab {
    name: String,
    fails: bool,
}

/// The value of the secret `name` in the lab.
pub fn secret_value(name: &str) -> String {
    format!("{name}-hunter2-{name}")
}

impl Read for Blab {
    const ID: &'static str = "lab.blab";
    type Value = BTreeMap<String, String>;

    fn describe(&self) -> String {
        format!("secret {}", self.name)
    }

    fn depends_on(&self) -> Vec<Target> {
        Vec::new()
    }

    async fn read(&self, on: &On) -> Result<BTreeMap<String, String>, ProviderError> {
        let value = secret_value(&self.name);
        on.vault().keep(&*self.name, value.clone().into());
        if self.fails {
            return Err(ProviderError::terminal("provider", format!("the server says {value}"))
                .hint(format!("try {value}"))
                .detail(serde_json::json!({ "body": [value], value: 1 })));
        }
        Ok(BTreeMap::from([("echo".to_owned(), format!("you sent {value}")), (value, "key".to_owned())]))
    }
}

/// Waits until a lamp has a level.
#[derive(Serialize)]
struct Await {
    lamp: String,
    level: i64,
}

impl Wait for Await {
    const ID: &'static str = "lab.await";
    type Answer = i64;
    type Memory = i64;

    fn describe(&self) -> String {
        format!("{} at {}", self.lamp, self.level)
    }

    fn until(&self) -> Until {
        Until::Polled { every: Duration::from_millis(2), at_least: Duration::from_secs(60) }
    }

    fn deadline(&self) -> Option<Duration> {
        Some(Duration::from_millis(500))
    }

    fn answer(&self, _: &[Reply]) -> Result<i64, ProviderError> {
        Ok(0)
    }

    async fn poll(&self, on: &On, looks: &mut i64, _: Duration) -> Result<Polled<i64>, ProviderError> {
        *looks += 1;
        let lamps = lamps(on)?;
        let level = lamps.board().lamps[&self.lamp];
        Ok(if level == self.level { Polled::Over(*looks) } else { Polled::Waiting(format!("{level}")) })
    }
}

/// Watches that a lamp is not brighter than it may be.
#[derive(Serialize)]
struct NotAbove {
    lamp: String,
    level: i64,
}

impl Wait for NotAbove {
    const ID: &'static str = "lab.not_above";
    type Answer = ();
    type Memory = ();

    fn describe(&self) -> String {
        format!("{} not above {}", self.lamp, self.level)
    }

    fn until(&self) -> Until {
        Until::Polled { every: Duration::from_millis(2), at_least: Duration::ZERO }
    }

    fn answer(&self, _: &[Reply]) -> Result<(), ProviderError> {
        Ok(())
    }

    async fn poll(&self, on: &On, (): &mut (), _: Duration) -> Result<Polled<()>, ProviderError> {
        let lamps = lamps(on)?;
        let mut board = lamps.board();
        let level = board.lamps[&self.lamp];
        if level > self.level {
            board.breached.get_or_insert_with(std::time::Instant::now);
            let text = format!("{} is {level}", self.lamp);
            return Err(ProviderError::terminal("guard-breached", text));
        }
        Ok(Polled::Waiting(String::new()))
    }
}

#[export_module]
pub mod script {
    /// Runs `body` while a lamp is watched.
    #[rhai_fn(return_raw, volatile)]
    pub fn guard(cx: NativeCallContext<'_>, lamp: &str, level: i64, body: FnPtr) -> ScriptResult {
        cx.guard(vec![Arc::new(NotAbove { lamp: lamp.to_owned(), level })], &body)
    }

    /// Sets a lamp.
    #[rhai_fn(return_raw, volatile)]
    pub fn set(cx: NativeCallContext<'_>, lamp: &str, to: i64) -> Changes {
        cx.change(Set { lamp: lamp.to_owned(), to })
    }

    /// Rings.
    #[rhai_fn(return_raw, volatile)]
    pub fn ring(cx: NativeCallContext<'_>, text: &str) -> Acts {
        cx.action(Ring { text: text.to_owned(), undoable: false })
    }

    /// Rings in a way that can be taken back.
    #[rhai_fn(name = "ring", return_raw, volatile)]
    pub fn ring_with(cx: NativeCallContext<'_>, text: &str, options: Map) -> Acts {
        #[derive(Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[derive(Default)]
        struct Options {
            undoable: bool,
        }
        let options: Options = cx.options(options)?;
        cx.action(Ring { text: text.to_owned(), undoable: options.undoable })
    }

    /// Level of a lamp.
    #[rhai_fn(return_raw, volatile)]
    pub fn look(cx: NativeCallContext<'_>, lamp: &str) -> Reads {
        cx.read(Look { lamp: lamp.to_owned(), check: None })
    }

    /// Fails unless a lamp has that level.
    #[rhai_fn(return_raw, volatile)]
    pub fn expect(cx: NativeCallContext<'_>, lamp: &str, level: i64) -> Checks {
        cx.read(Look { lamp: lamp.to_owned(), check: Some(level) })
    }

    /// Answers what the JSON text says.
    #[rhai_fn(return_raw, volatile)]
    pub fn echo(cx: NativeCallContext<'_>, json: &str) -> ScriptResult {
        cx.read(Echo { json: json.to_owned() })
    }

    /// Fetches the key.
    #[rhai_fn(return_raw, volatile)]
    pub fn key(cx: NativeCallContext<'_>) -> ScriptResult {
        cx.read(Key {})
    }

    /// Learns a secret and answers with its bytes.
    #[rhai_fn(return_raw, volatile)]
    pub fn blab(cx: NativeCallContext<'_>, name: &str) -> ScriptResult {
        cx.read(Blab { name: name.to_owned(), fails: false })
    }

    /// Learns a secret and fails with its bytes.
    #[rhai_fn(return_raw, volatile)]
    pub fn blab_and_fail(cx: NativeCallContext<'_>, name: &str) -> ScriptResult {
        cx.read(Blab { name: name.to_owned(), fails: true })
    }

    /// A handle of a secret.
    pub fn secret(name: &str) -> contraflow_runtime::secret::SecretText {
        contraflow_runtime::secret::SecretText::named(name)
    }

    /// A primitive with a defect.
    #[rhai_fn(volatile)]
    pub fn explode() {
        panic!("this primitive has a defect")
    }

    /// Waits until a lamp has that level.
    #[rhai_fn(name = "wait_for", return_raw, volatile)]
    pub fn wait_for(cx: NativeCallContext<'_>, lamp: &str, level: i64) -> ScriptResult {
        cx.wait(Await { lamp: lamp.to_owned(), level })
    }
}

/// A runtime with lamps `a`, `b`, `c` at 0, a store in a temporary folder, and a list of all events.
pub struct Lab {
    pub lamps: Lamps,
    pub events: Arc<Mutex<Vec<Envelope>>>,
    pub folder: tempfile::TempDir,
    pub tokio: tokio::runtime::Runtime,
    pub store: Arc<dyn Store>,
    pub people: Option<Arc<dyn People>>,
    pub policy: Option<Arc<dyn Policy>>,
    pub limits: contraflow_runtime::script::ScriptLimits,
    pub stop: Stop,
    /// Where time comes from, if that is not the machine.
    pub clock: Option<Arc<dyn contraflow_runtime::clock::Clock>>,
    /// How far the machine's clock is off, in seconds.
    pub off: Arc<std::sync::atomic::AtomicI64>,
}

/// The machine's clock, set wrong.
struct Wrong {
    inner: contraflow_runtime::clock::SystemClock,
    off: Arc<std::sync::atomic::AtomicI64>,
}

impl contraflow_runtime::clock::Clock for Wrong {
    fn now(&self) -> jiff::Timestamp {
        let off = self.off.load(std::sync::atomic::Ordering::Relaxed);
        self.inner.now() + jiff::SignedDuration::from_secs(off)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, span: Duration) -> contraflow_runtime::clock::BoxFuture<'_, ()> {
        self.inner.sleep(span)
    }
}

pub const HEADER: &str = "const RUNBOOK = #{ name: \"lab\" };\n";

impl Lab {
    pub fn new() -> Self {
        let lamps = Lamps::default();
        for lamp in ["a", "b", "c"] {
            lamps.board().lamps.insert(lamp.into(), 0);
        }
        // In memory where that is to be had: these tests are about what is kept, not about the disk.
        let memory = std::path::Path::new("/dev/shm");
        let folder =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let tokio = tokio::runtime::Runtime::new().unwrap();
        let store: Arc<dyn Store> = Arc::new(tokio.block_on(SqliteStore::open(folder.path())).unwrap());
        let limits = contraflow_runtime::script::ScriptLimits::default();
        Self {
            lamps,
            events: Arc::default(),
            folder,
            tokio,
            store,
            people: None,
            policy: None,
            limits,
            stop: Stop::default(),
            clock: None,
            off: Arc::default(),
        }
    }

    pub fn runtime(&self) -> Runtime {
        self.runtime_on(Arc::clone(&self.store))
    }

    /// A runtime with another store.
    pub fn runtime_on(&self, store: Arc<dyn Store>) -> Runtime {
        self.builder(store).build()
    }

    /// What runtimes are made of here.
    pub fn builder(&self, store: Arc<dyn Store>) -> Builder {
        let mut providers = Providers::new("lab");
        let lamps = Arc::new(self.lamps.clone());
        providers.bind::<dyn Light>("lamps", lamps);
        let mut module = Module::new();
        rhai::combine_with_exported_module!(&mut module, "lab", script);
        let events = Arc::clone(&self.events);
        let clock = self.clock.clone().unwrap_or_else(|| {
            Arc::new(Wrong {
                inner: contraflow_runtime::clock::SystemClock::default(),
                off: Arc::clone(&self.off),
            })
        });
        let mut builder = Runtime::builder()
            .modules([("lab", Arc::new(module))])
            .providers(providers)
            .store(store)
            .limits(self.limits)
            .clock(clock)
            .roles(crate::people::roles())
            .started_by("starter@lab")
            .sink(Arc::new(move |event: &Envelope| events.lock().unwrap().push(event.clone())));
        if let Some(people) = &self.people {
            builder = builder.people(Arc::clone(people));
        }
        if let Some(policy) = &self.policy {
            builder = builder.policy(Arc::clone(policy));
        }
        builder
    }

    pub fn bundle(script: &str) -> Bundle {
        Bundle::single("lab.rhai", format!("{HEADER}{script}"))
    }

    pub fn run(&self, script: &str) -> Report {
        let report = self.tokio.block_on(self.runtime().run_until(
            &Self::bundle(script),
            &BTreeMap::new(),
            &self.stop,
        ));
        report.unwrap_or_else(|e| panic!("does not load: {:?}", e.0))
    }

    pub fn plan(&self, script: &str) -> Report {
        let report = self
            .tokio
            .block_on(self.runtime().plan(&Self::bundle(script), &BTreeMap::<String, Given>::new()));
        report.unwrap_or_else(|e| panic!("does not load: {:?}", e.0))
    }

    /// Why a script is refused before it runs.
    pub fn refused(&self, script: &str) -> Vec<RunError> {
        match self.runtime().check(&Self::bundle(script)) {
            Ok(_) => panic!("was not refused:\n{script}"),
            Err(errors) => errors.0,
        }
    }

    pub fn level(&self, lamp: &str) -> i64 {
        self.lamps.board().lamps[lamp]
    }

    pub fn log(&self) -> Vec<String> {
        self.lamps.board().log.clone()
    }

    pub fn fault(&self, lamp: &str, faults: impl IntoIterator<Item = Fault>) {
        self.lamps.board().faults.entry(lamp.into()).or_default().extend(faults);
    }

    /// One line per effect that ended: id, grade, outcome.
    pub fn lines(&self) -> Vec<String> {
        let grade = |grade: &Grade| serde_json::to_value(grade).unwrap().as_str().unwrap().to_owned();
        self.events
            .lock()
            .unwrap()
            .iter()
            .filter_map(|e| match &e.event {
                Event::EffectEnded { id, grade: g, about, result, .. } => Some(match result {
                    EffectResult::Changed { from_text, to_text, .. } => {
                        format!("{id} {}: {from_text} -> {to_text}", grade(g))
                    }
                    EffectResult::Unchanged { text, .. } => format!("{id} {}: {text} unchanged", grade(g)),
                    EffectResult::Performed { text } => format!("{id} {}: {text}", grade(g)),
                    EffectResult::Answered { text } if text.is_empty() => {
                        format!("{id} {}: {about}", grade(g))
                    }
                    EffectResult::Answered { text } => format!("{id} {}: {about}: {text}", grade(g)),
                    EffectResult::Failed { error } => format!("{id} failed: {error}"),
                }),
                _ => None,
            })
            .collect()
    }
}
