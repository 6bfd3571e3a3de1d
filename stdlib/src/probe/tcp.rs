//! `probe::tcp` opens a connection and closes it again.

use contraflow_runtime::{
    effect::{Limits, On, Read, Verdict},
    provider::ProviderError,
    quantity::Span,
    script::{Checks, ScriptContext},
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{
    attempts::{self, Attempt, Attempts, Failure, Miss, Tries, millis},
    endpoint::Endpoint,
};
use crate::net;

/// Options of `probe::tcp`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Maximum attempts.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Time between two attempts.
    interval: Span,
    /// Time limit for one attempt.
    timeout: Span,
    /// What else it depends on, such as `["db/main"]`. In a plan, a probe of something that the plan would have changed is
    /// assumed to pass.
    depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        let Tries { attempts, interval, timeout } = Tries::DEFAULT;
        Self { attempts, interval, timeout, depends_on: Vec::new() }
    }
}

/// Opens a connection.
#[derive(Debug, Clone, Serialize)]
pub struct TcpProbe {
    target: Endpoint,
    #[serde(flatten)]
    tries: Tries,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
}

/// What a TCP probe that passed returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connected {
    /// IP address and port that accepted.
    pub address: String,
    /// Time to the connection, name lookup included, in milliseconds.
    pub latency_ms: f64,
    /// Which attempt passed, from 1.
    pub attempts: u32,
}

impl TcpProbe {
    /// A probe of `target`.
    pub fn new(target: Endpoint, options: Options) -> Self {
        let Options { attempts, interval, timeout, depends_on } = options;
        Self { target, tries: Tries { attempts, interval, timeout }, depends_on }
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        [self.target.targets(), self.depends_on.clone()].concat()
    }
}

impl Attempt for TcpProbe {
    type Value = Connected;

    fn tries(&self) -> &Tries {
        &self.tries
    }

    fn subject(&self) -> String {
        format!("tcp {}", self.target)
    }

    async fn once(&self, on: &On) -> Result<Connected, Failure> {
        const EXPECTED: &str = "a connection";
        let (host, port) = self.target.resolve(on).await.map_err(|e| Failure::setup(EXPECTED, e))?;
        let start = on.clock().monotonic();
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| Miss::new(EXPECTED, net::io_reason(&error)))?;
        let address = stream.peer_addr().map_or_else(|_| self.target.to_string(), |addr| addr.to_string());
        let latency_ms = millis(on.clock().monotonic().saturating_sub(start));
        Ok(Connected { address, latency_ms, attempts: 1 })
    }
}

impl Read for TcpProbe {
    const ID: &'static str = "probe.tcp";
    type Value = Connected;

    fn describe(&self) -> String {
        self.subject()
    }

    fn depends_on(&self) -> Vec<Target> {
        self.targets()
    }

    fn is_check(&self) -> bool {
        true
    }

    fn verdicts(&self) -> Vec<Verdict> {
        super::verdicts(&self.describe())
    }

    async fn read(&self, on: &On) -> Result<Connected, ProviderError> {
        let hit = attempts::repeat(on, self, attempts::progress(on, &self.tries)).await?;
        Ok(Connected { attempts: hit.attempts, ..hit.value })
    }

    fn show(&self, connected: &Connected) -> String {
        format!("connected in {}", attempts::show_attempts(connected.latency_ms, connected.attempts))
    }

    fn limits(&self) -> Limits {
        self.tries.limits()
    }
}

/// The script functions.
#[export_module]
pub mod script {
    /// Opens a TCP connection and closes it; returns `#{ address, latency_ms, attempts }`.
    ///
    /// The target is `host:port`, a URL, a route (`web`) or one of its pools (`web/green`).
    ///
    /// ```rhai
    /// probe::tcp("web/green").attempts == 1
    /// ```
    #[rhai_fn(name = "tcp", return_raw, volatile)]
    pub fn tcp(cx: NativeCallContext<'_>, target: &str) -> Checks {
        tcp_with(cx, target, Map::new())
    }

    /// ```rhai
    /// probe::tcp("web/green", #{ timeout: "2s", attempts: 3, depends_on: ["db/main"] }).latency_ms < 2000
    /// ```
    #[rhai_fn(name = "tcp", return_raw, volatile)]
    pub fn tcp_with(cx: NativeCallContext<'_>, target: &str, options: Map) -> Checks {
        let target = cx.arg("target", target.to_owned())?;
        let options = cx.options(options)?;
        cx.read(TcpProbe::new(target, options))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;
    use crate::http::testing::detached;

    fn probe(target: &str, options: serde_json::Value) -> TcpProbe {
        let target = Endpoint::try_from(target.to_owned()).expect("target");
        TcpProbe::new(target, serde_json::from_value(options).expect("options"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_listening_port_passes_and_says_where() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let found = probe(&addr.to_string(), json!({})).read(&detached()).await.expect("passes");
        assert_eq!((found.address, found.attempts), (addr.to_string(), 1));
        probe(&format!("http://{addr}/x"), json!({})).read(&detached()).await.expect("a URL's port");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_port_fails_and_says_how_often_it_was_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        drop(listener);
        let error = probe(&addr.to_string(), json!({ "attempts": 3, "interval": "1ms" }))
            .read(&detached())
            .await
            .expect_err("fails");
        assert_eq!(error.code.as_str(), "probe-failed");
        let start = format!("tcp {addr}: expected a connection, got connection refused (tried 3 times in ");
        assert!(error.message.starts_with(&start), "{}", error.message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_opens_later_passes_at_a_later_attempt() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        drop(listener);
        let later = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            let listener = TcpListener::bind(addr).await.expect("bind again");
            let _ = listener.accept().await;
        });
        let found = probe(&addr.to_string(), json!({ "attempts": 200, "interval": "10ms" }))
            .read(&detached())
            .await
            .expect("passes");
        assert!(found.attempts > 1);
        later.await.expect("accepted");
    }

    #[test]
    fn named_targets_are_what_it_depends_on() {
        let names: Vec<_> = probe("10.0.0.1:80", json!({ "depends_on": ["db/main"] }))
            .depends_on()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["db/main"]);
        assert!(probe("10.0.0.1:80", json!({})).is_check());
    }
}
