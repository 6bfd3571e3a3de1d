//! `probe::all` makes many probes at once, as one effect.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use contraflow_runtime::{
    effect::{Limits, On, Read, Verdict},
    error::{RunError, codes as runtime_codes},
    provider::{ProviderError, Retry},
    script::{Checks, ScriptContext, convert::decode_json},
    target::Target,
};
use rhai::{Array, Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::OnceCell, task::JoinSet};

use super::{
    attempts::{self, Attempt, millis},
    dns::DnsProbe,
    endpoint::Endpoint,
    http::{HttpProbe, Ready},
    tcp::TcpProbe,
    tls::TlsProbe,
};
use crate::{
    codes,
    http::{exchange::Prepared, message::Where},
};

/// Options of `probe::all`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How many at a time, up to 4096.
    limit: usize,
    /// How many may fail; they are in the result with `ok: false` and `error`.
    allow_failures: usize,
    /// Start no more probes once too many have failed.
    stop_on_fail: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { limit: 50, allow_failures: 0, stop_on_fail: false }
    }
}

/// More at once would use up the sockets of the machine.
const MOST_AT_ONCE: usize = 4096;

/// One probe of many.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// `#{ http: … }`, or plain text.
    Http(Box<HttpProbe>),
    /// `#{ tcp: … }`.
    Tcp(Box<TcpProbe>),
    /// `#{ tls: … }`.
    Tls(Box<TlsProbe>),
    /// `#{ dns: … }`.
    Dns(Box<DnsProbe>),
}

impl Entry {
    /// Reads the entry at `index`: plain text, or a map with what is probed and the options of that probe.
    ///
    /// # Errors
    /// `argument`, with the place.
    fn read(index: usize, value: Value) -> Result<Self, RunError> {
        const KINDS: [&str; 4] = ["http", "tcp", "tls", "dns"];
        let bad =
            |message: &str| RunError::new(runtime_codes::ARGUMENT, format!("`entries[{index}]`: {message}"));
        let (kind, target, options) = match value {
            Value::String(_) => ("http", value, serde_json::Map::new()),
            Value::Object(mut map) => {
                let mut given = KINDS.into_iter().filter(|kind| map.contains_key(*kind));
                match (given.next(), given.next()) {
                    (Some(kind), None) => {
                        let target = map.remove(kind).unwrap_or_default();
                        (kind, target, map)
                    }
                    (Some(one), Some(other)) => {
                        return Err(bad(&format!("`{one}` and `{other}` are two probes: use two entries")));
                    }
                    (None, _) => {
                        return Err(bad("no probe: expected one of `http`, `tcp`, `tls` and `dns`"));
                    }
                }
            }
            _ => {
                return Err(bad(
                    "expected a URL, a route, or a map such as #{ tcp: \"db.example.com:5432\" }",
                ));
            }
        };
        // A place takes longer to write than a target to read, so it is written only for an error.
        let at_target =
            |e: RunError| RunError { message: format!("`entries[{index}].{kind}`: {}", e.message), ..e };
        let option = |(name, why): (&str, &str)| bad(&format!("`{name}`: {why}"));
        Ok(match kind {
            "http" => {
                let target: Where = decode_json(target, "").map_err(at_target)?;
                let probe = HttpProbe::new(target, read_options(index, options)?);
                Self::Http(Box::new(probe.map_err(option)?))
            }
            "tcp" => {
                let target: Endpoint = decode_json(target, "").map_err(at_target)?;
                Self::Tcp(Box::new(TcpProbe::new(target, read_options(index, options)?)))
            }
            "tls" => {
                let target: Endpoint = decode_json(target, "").map_err(at_target)?;
                Self::Tls(Box::new(TlsProbe::new(target, read_options(index, options)?)))
            }
            _ => {
                let name: String = decode_json(target, "").map_err(at_target)?;
                let probe = DnsProbe::new(&name, read_options(index, options)?);
                Self::Dns(Box::new(probe.map_err(|(name, why)| option((name, &why)))?))
            }
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::Http(probe) => probe.describe(),
            Self::Tcp(probe) => probe.subject(),
            Self::Tls(probe) => probe.subject(),
            Self::Dns(probe) => probe.subject(),
        }
    }

    fn targets(&self) -> Vec<Target> {
        match self {
            Self::Http(probe) => probe.targets(),
            Self::Tcp(probe) => probe.targets(),
            Self::Tls(probe) => probe.targets(),
            Self::Dns(probe) => probe.targets(),
        }
    }

    fn longest(&self) -> Duration {
        match self {
            Self::Http(probe) => probe.longest(),
            Self::Tcp(probe) => probe.tries().longest(),
            Self::Tls(probe) => probe.tries().longest(),
            Self::Dns(probe) => probe.tries().longest(),
        }
    }

    /// Value and latency. `prepared` is what was looked up for it before, if anything was.
    async fn run(
        &self,
        on: &On,
        prepared: Option<&OnceCell<Prepared>>,
    ) -> Result<(Value, f64), ProviderError> {
        // What the value's own fields say is its attempt's; the count is known here only.
        fn with_attempts(value: impl Serialize, attempts: u32) -> Value {
            let mut value = serde_json::to_value(value).unwrap_or_default();
            value["attempts"] = attempts.into();
            value
        }
        match self {
            Self::Http(probe) => {
                let own = OnceCell::new();
                let ready = Ready::new(probe, prepared.unwrap_or(&own));
                let hit = attempts::repeat(on, &ready, |_, _| {}).await?;
                let (raw, latency_ms) = hit.value;
                let value = json!({
                    "url": String::from(raw.url),
                    "status": raw.status.as_u16(),
                    "latency_ms": latency_ms,
                    "attempts": hit.attempts,
                });
                Ok((value, latency_ms))
            }
            Self::Tcp(probe) => {
                let hit = attempts::repeat(on, &**probe, |_, _| {}).await?;
                let latency_ms = hit.value.latency_ms;
                Ok((with_attempts(hit.value, hit.attempts), latency_ms))
            }
            Self::Tls(probe) => {
                let hit = attempts::repeat(on, &**probe, |_, _| {}).await?;
                let latency_ms = hit.value.latency_ms;
                Ok((with_attempts(hit.value, hit.attempts), latency_ms))
            }
            Self::Dns(probe) => {
                let hit = attempts::repeat(on, &**probe, |_, _| {}).await?;
                let latency_ms = hit.value.latency_ms;
                Ok((with_attempts(hit.value, hit.attempts), latency_ms))
            }
        }
    }
}

fn read_options<T: DeserializeOwned + Default>(
    index: usize,
    options: serde_json::Map<String, Value>,
) -> Result<T, RunError> {
    if options.is_empty() {
        return Ok(T::default());
    }
    decode_json(Value::Object(options), &format!("entries[{index}]"))
}

impl Entry {
    /// One probe of any kind: plain text, or a map as in an entry of `probe::all`. `place` is the argument, for errors.
    pub(crate) fn one(place: &str, value: Value) -> Result<Self, RunError> {
        Self::read(0, value).map_err(|e| RunError { message: e.message.replace("entries[0]", place), ..e })
    }

    /// What is probed, for people.
    pub(crate) fn subject(&self) -> String {
        self.describe()
    }

    /// The targets that it depends on.
    pub(crate) fn depends_on(&self) -> Vec<Target> {
        self.targets()
    }

    /// Makes it, with all its attempts.
    pub(crate) async fn probe(&self, on: &On) -> Result<(), ProviderError> {
        self.run(on, None).await.map(drop)
    }
}

/// Makes many probes at once.
#[derive(Debug, Clone, Serialize)]
pub struct All {
    entries: Arc<[Entry]>,
    limit: usize,
    allow_failures: usize,
    stop_on_fail: bool,
}

/// How one probe of many came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it passed.
    pub ok: bool,
    /// What was probed.
    pub probe: String,
    /// What a probe of that kind returns, without headers and body; `()` if it failed.
    #[serde(default)]
    pub value: Value,
    /// Why it failed; empty if it passed.
    pub error: String,
    /// Time of the attempt that passed, or of all of them if none did, in milliseconds.
    pub latency_ms: f64,
}

/// What the tasks share.
struct Shared {
    entries: Arc<[Entry]>,
    /// What was looked up before the first probe, by entry.
    prepared: HashMap<usize, Box<OnceCell<Prepared>>>,
    next: AtomicUsize,
    done: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
    /// Failures after which nothing more is started.
    stop_after: usize,
}

impl Shared {
    /// Takes one entry after the other until there are none left.
    async fn work(&self, on: &On) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::new();
        let total = self.entries.len();
        // Twenty lines of progress tell as much as one for each probe.
        let step = (total / 20).max(1);
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(entry) = self.entries.get(index) else { break };
            let start = on.clock().monotonic();
            let result = entry.run(on, self.prepared.get(&index).map(Box::as_ref)).await;
            let mut probe = entry.describe();
            if let Cow::Owned(clean) = on.vault().scrub(&probe) {
                probe = clean;
            }
            let outcome = match result {
                Ok((value, latency_ms)) => {
                    Outcome { ok: true, probe, value, error: String::new(), latency_ms }
                }
                Err(error) => {
                    if self.failed.fetch_add(1, Ordering::Relaxed) + 1 >= self.stop_after {
                        self.stop.store(true, Ordering::Relaxed);
                    }
                    Outcome {
                        ok: false,
                        probe,
                        value: Value::Null,
                        error: error.message,
                        latency_ms: millis(on.clock().monotonic().saturating_sub(start)),
                    }
                }
            };
            outcomes.push((index, outcome));
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            if done.is_multiple_of(step) && done < total {
                let failed = self.failed.load(Ordering::Relaxed);
                let message = if failed == 0 { String::new() } else { format!("{failed} failed") };
                on.progress(done as u64, total as u64, message);
            }
        }
        outcomes
    }
}

impl All {
    /// So many probes.
    ///
    /// # Errors
    /// The option that cannot be used, and why.
    pub fn new(entries: Vec<Entry>, options: &Options) -> Result<Self, (&'static str, String)> {
        let &Options { limit, allow_failures, stop_on_fail } = options;
        if !(1..=MOST_AT_ONCE).contains(&limit) {
            return Err(("limit", format!("{limit} at once: expected a number from 1 to {MOST_AT_ONCE}")));
        }
        if entries.is_empty() {
            return Err(("entries", "there is nothing to probe, and that is not a pass".to_owned()));
        }
        Ok(Self { entries: entries.into(), limit, allow_failures, stop_on_fail })
    }

    /// The outcomes by entry; `None` where none was made.
    async fn run(&self, on: &On) -> Result<Vec<Option<Outcome>>, ProviderError> {
        let mut prepared = HashMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let Entry::Http(probe) = entry else { continue };
            if probe.is_literal() {
                continue;
            }
            // A name that means nothing is no failure of a probe: it is said before the first one is made.
            let cell = prepared.entry(index).or_insert_with(Box::<OnceCell<Prepared>>::default);
            if let Err(error) = Ready::new(probe, cell).prepare(on).await
                && error.retry == Retry::Never
            {
                return Err(ProviderError {
                    message: format!("entries[{index}]: {}", error.message),
                    ..error
                });
            }
        }
        let shared = Arc::new(Shared {
            entries: Arc::clone(&self.entries),
            prepared,
            next: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            stop_after: if self.stop_on_fail { self.allow_failures + 1 } else { usize::MAX },
        });
        let mut outcomes: Vec<Option<Outcome>> = Vec::new();
        outcomes.resize_with(self.entries.len(), || None);
        // Tasks of their own use all cores. They end with this set when the effect is dropped.
        let mut tasks = JoinSet::new();
        for _ in 0..self.limit.min(self.entries.len()) {
            let (shared, on) = (Arc::clone(&shared), on.clone());
            tasks.spawn(async move { shared.work(&on).await });
        }
        while let Some(done) = tasks.join_next().await {
            let done = done.map_err(|e| {
                ProviderError::terminal(runtime_codes::INTERNAL, format!("a probe stopped unexpectedly: {e}"))
            })?;
            for (index, outcome) in done {
                if let Some(place) = outcomes.get_mut(index) {
                    *place = Some(outcome);
                }
            }
        }
        Ok(outcomes)
    }

    fn verdict(&self, outcomes: Vec<Option<Outcome>>) -> Result<Vec<Outcome>, ProviderError> {
        let total = outcomes.len();
        let failed: Vec<(usize, &Outcome)> = outcomes
            .iter()
            .enumerate()
            .filter_map(|(index, outcome)| Some((index, outcome.as_ref().filter(|o| !o.ok)?)))
            .collect();
        if failed.len() <= self.allow_failures {
            return Ok(outcomes.into_iter().flatten().collect());
        }
        const NAMED: usize = 10;
        let s = if total == 1 { "" } else { "s" };
        let mut message = format!("{} of {total} probe{s} failed", failed.len());
        if self.allow_failures > 0 {
            message.push_str(&format!(", {} may", self.allow_failures));
        }
        let untried = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        if untried > 0 {
            message.push_str(&format!(", {untried} {} not made", if untried == 1 { "was" } else { "were" }));
        }
        for (index, outcome) in failed.iter().take(NAMED) {
            message.push_str(&format!("\n  [{index}] {}", outcome.error));
        }
        if failed.len() > NAMED {
            message.push_str(&format!("\n  and {} more", failed.len() - NAMED));
        }
        let detail = json!({
            "expected": format!("{} failures at most", self.allow_failures),
            "got": format!("{} of {total} failed", failed.len()),
            "not_made": untried,
            "failed": failed
                .iter()
                .map(|(index, o)| json!({ "entry": index, "probe": o.probe, "error": o.error }))
                .take(1000)
                .collect::<Vec<_>>(),
        });
        Err(ProviderError::terminal(codes::PROBE_FAILED, message).detail(detail))
    }
}

impl Read for All {
    const ID: &'static str = "probe.all";
    type Value = Vec<Outcome>;

    fn describe(&self) -> String {
        match &*self.entries {
            [one] => one.describe(),
            entries => format!("{} probes", entries.len()),
        }
    }

    fn depends_on(&self) -> Vec<Target> {
        let mut seen = HashSet::new();
        self.entries.iter().flat_map(Entry::targets).filter(|target| seen.insert(target.clone())).collect()
    }

    fn is_check(&self) -> bool {
        true
    }

    fn verdicts(&self) -> Vec<Verdict> {
        super::verdicts(&self.describe())
    }

    async fn read(&self, on: &On) -> Result<Vec<Outcome>, ProviderError> {
        self.verdict(self.run(on).await?)
    }

    fn show(&self, outcomes: &Vec<Outcome>) -> String {
        let passed = outcomes.iter().filter(|outcome| outcome.ok).count();
        let slowest = outcomes.iter().filter(|o| o.ok).map(|o| o.latency_ms).fold(0.0, f64::max);
        format!("{passed} of {} passed, slowest {}", outcomes.len(), attempts::show_millis(slowest))
    }

    /// `limit` at a time, each as long as it may take: no schedule without gaps is longer than the sum shared out, plus the longest.
    fn limits(&self) -> Limits {
        let sum = self.entries.iter().map(Entry::longest).fold(Duration::ZERO, Duration::saturating_add);
        let longest = self.entries.iter().map(Entry::longest).max().unwrap_or_default();
        let at_once = u32::try_from(self.limit).unwrap_or(u32::MAX);
        let timeout = (sum / at_once).saturating_add(longest).saturating_add(Duration::from_secs(10));
        Limits { timeout, attempts: 1, ..Limits::default() }
    }
}

/// The script functions.
#[export_module]
pub mod script {
    /// Runs many probes, at most 50 at a time, and fails if one of them fails; returns one
    /// `#{ ok, probe, value, error, latency_ms }` for each, in order.
    ///
    /// An entry is a target for `probe::http`, or a map with `http`, `tcp`, `tls` or `dns` and the options of that
    /// probe. `value` is the result of that probe, without headers and body.
    ///
    /// ```rhai
    /// probe::all(["web", #{ http: "web/green", path: "/health", attempts: 3 }, #{ tcp: "web/blue" }]).len() == 3
    /// ```
    #[rhai_fn(name = "all", return_raw, volatile)]
    pub fn all(cx: NativeCallContext<'_>, entries: Array) -> Checks {
        all_with(cx, entries, Map::new())
    }

    /// ```rhai
    /// let found = probe::all([#{ http: "web/green", status: 200 }, #{ http: "web", status: 418 }], #{ limit: 2, allow_failures: 1 });
    /// found[0].ok && !found[1].ok
    /// ```
    #[rhai_fn(name = "all", return_raw, volatile)]
    pub fn all_with(cx: NativeCallContext<'_>, entries: Array, options: Map) -> Checks {
        let values: Vec<Value> = cx.arg("entries", entries)?;
        let options: Options = cx.options(options)?;
        let entries = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| Entry::read(index, value))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| cx.throw(e))?;
        match All::new(entries, &options) {
            Ok(effect) => cx.read(effect),
            Err((argument, why)) => Err(cx.bad_argument(argument, &why)),
        }
    }
}

#[cfg(test)]
mod tests;
