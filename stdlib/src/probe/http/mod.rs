//! `probe::http` asks a server for something and checks what it answers.

use std::collections::BTreeMap;

use contraflow_runtime::schema::{JsonSchema, NumberOrText, OneOrMany, SwitchOrNumber};
use contraflow_runtime::{
    effect::{Limits, On, Read, Verdict},
    provider::ProviderError,
    quantity::Span,
    script::{Checks, ScriptContext},
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{
    attempts::{self, Attempt, Attempts, Failure, Miss, Tries, millis},
    expect::{BodyCheck, HeaderCheck, Pattern, Pointer, Texts, join},
    security::Security,
};
use crate::{
    http::{
        exchange::{NoAnswer, Outgoing, Prepared, Raw},
        message::{HeaderName, Headers, Method, Payload, Redirects, UrlPath, Where},
        status::Statuses,
    },
    net::tls::Tls,
};

/// Checks look at this much of a body at most.
const BODY_CHECKED: usize = 1 << 20;

/// A script gets this much of a body.
const BODY_RETURNED: usize = 64 << 10;

/// Options of `probe::http`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Comes after the address, such as `"/health"`.
    #[schemars(with = "Option<String>")]
    path: Option<UrlPath>,
    /// A probe changes nothing and also runs in plans.
    #[schemars(with = "String", extend("enum" = ["GET", "HEAD", "OPTIONS", "POST"]))]
    method: Method,
    /// Headers to send; values may be secrets.
    #[schemars(with = "std::collections::BTreeMap<String, contraflow_runtime::secret::Text>")]
    headers: Headers,
    /// Body to send: text, a secret, or a map or array, which is sent as JSON.
    #[schemars(with = "Option<serde_json::Value>")]
    body: Option<Payload>,
    /// The status to expect: a number, `"2xx"`, `"200-399"`, or an array of these.
    #[schemars(with = "OneOrMany<NumberOrText>")]
    status: Statuses,
    /// The body must contain all of these.
    #[schemars(with = "OneOrMany<String>")]
    body_contains: Texts,
    /// Regular expression that must match somewhere in the body.
    #[schemars(with = "Option<String>")]
    body_regex: Option<Pattern>,
    /// JSON pointer to the value to expect, such as `#{ "/status": "ok" }`.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    json: BTreeMap<Pointer, Value>,
    /// Name to `true` (present), `false` (absent), the exact value, or `"regex:…"`.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    expect_headers: BTreeMap<HeaderName, HeaderCheck>,
    /// Each of these must be present and effective.
    security_headers: Vec<Security>,
    /// Time limit for the full response.
    latency: Option<Span>,
    /// Whether, or how often, to follow redirects; `true` is 10.
    #[schemars(with = "SwitchOrNumber")]
    redirects: Redirects,
    /// Maximum attempts.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Time between two attempts.
    interval: Span,
    /// Time limit for one attempt.
    timeout: Span,
    /// How to connect.
    tls: Tls,
    /// What else it depends on, such as `["db/main"]`. In a plan, a probe of something that the plan would have changed is
    /// assumed to pass.
    depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            method: Method::Get,
            headers: Headers::new(),
            body: None,
            status: Statuses::success(),
            body_contains: Texts::default(),
            body_regex: None,
            json: BTreeMap::new(),
            expect_headers: BTreeMap::new(),
            security_headers: Vec::new(),
            latency: None,
            redirects: Redirects::NONE,
            attempts: Tries::DEFAULT.attempts,
            interval: Tries::DEFAULT.interval,
            timeout: Tries::DEFAULT.timeout,
            tls: Tls::default(),
            depends_on: Vec::new(),
        }
    }
}

/// Asks a server for something and checks what it answers.
#[derive(Debug, Clone, Serialize)]
pub struct HttpProbe {
    target: Where,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<UrlPath>,
    method: Method,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: Headers,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Payload>,
    status: Statuses,
    #[serde(skip_serializing_if = "is_empty")]
    body_contains: Texts,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_regex: Option<Pattern>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    json: BTreeMap<Pointer, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    expect_headers: BTreeMap<HeaderName, HeaderCheck>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    security_headers: Vec<Security>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Span>,
    redirects: Redirects,
    #[serde(flatten)]
    tries: Tries,
    #[serde(skip_serializing_if = "Tls::is_default")]
    tls: Tls,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
}

fn is_empty(texts: &Texts) -> bool {
    texts.0.is_empty()
}

/// What an HTTP probe that passed returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Passed {
    /// Where the answer came from, after redirects.
    pub url: String,
    /// Status.
    pub status: u16,
    /// Time from sending the request to the end of the answer, in milliseconds.
    pub latency_ms: f64,
    /// Which attempt passed, from 1.
    pub attempts: u32,
    /// Headers by name, in lower case.
    pub headers: BTreeMap<String, String>,
    /// The first 64 KiB of the body as text.
    pub body: String,
}

impl HttpProbe {
    /// A probe of `target`. The error names the option that does not fit.
    ///
    /// # Errors
    /// Options that exclude each other.
    pub fn new(target: Where, options: Options) -> Result<Self, (&'static str, &'static str)> {
        let Options {
            path,
            method,
            headers,
            body,
            status,
            body_contains,
            body_regex,
            json,
            expect_headers,
            security_headers,
            latency,
            redirects,
            attempts,
            interval,
            timeout,
            tls,
            depends_on,
        } = options;
        if !method.is_safe() && method != Method::Post {
            return Err((
                "method",
                "a probe changes nothing: expected GET, HEAD, OPTIONS or POST; for other methods use \
                 http::request",
            ));
        }
        if method == Method::Head
            && !(BodyCheck { contains: &body_contains, pattern: body_regex.as_ref(), json: &json }).is_empty()
        {
            return Err(("method", "a response to HEAD has no body to check"));
        }
        Ok(Self {
            target,
            path,
            method,
            headers,
            body,
            status,
            body_contains,
            body_regex,
            json,
            expect_headers,
            security_headers,
            latency,
            redirects,
            tries: Tries { attempts, interval, timeout },
            tls,
            depends_on,
        })
    }

    /// What it asks, for people.
    pub(super) fn describe(&self) -> String {
        let path = self.path.as_ref().map(ToString::to_string).unwrap_or_default();
        match &self.target {
            Where::Url(url) if !path.is_empty() => {
                format!("{} {}{path}", self.method, url.as_str().trim_end_matches('/'))
            }
            target if path.is_empty() => format!("{} {target}", self.method),
            target => format!("{} {target} {path}", self.method),
        }
    }

    /// The longest that it can take.
    pub(super) fn longest(&self) -> std::time::Duration {
        self.tries.longest()
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        let mut targets = self.target.targets();
        targets.extend_from_slice(&self.depends_on);
        targets
    }

    /// Whether it names nothing that has to be looked up, so that getting ready for it cannot fail.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self.target, Where::Url(_))
            && self.path.is_none()
            && self.headers.is_empty()
            && self.body.is_none()
            && self.tls.is_default()
    }

    fn body_check(&self) -> BodyCheck<'_> {
        BodyCheck { contains: &self.body_contains, pattern: self.body_regex.as_ref(), json: &self.json }
    }

    /// What does not hold of an answer.
    fn miss(&self, raw: &Raw, latency_ms: f64) -> Option<Miss> {
        if !self.status.contains(raw.status.as_u16()) {
            // After a wrong status the rest would be noise.
            let miss = Miss::new(format!("status {}", self.status), raw.summary());
            let location = raw.header(&reqwest::header::LOCATION);
            return Some(match location {
                Some(location) if raw.status.is_redirection() => miss.hint(format!(
                    "it redirects to {location}: follow it with `redirects: true`, or accept it with \
                     `status: {}`",
                    raw.status.as_u16()
                )),
                _ => miss,
            });
        }
        let mut misses = self.body_check().misses(raw);
        misses.extend(self.expect_headers.iter().filter_map(|(name, check)| check.check(name, raw).err()));
        misses.extend(self.security_headers.iter().filter_map(|header| header.check(raw).err()));
        if let Some(budget) = self.latency
            && latency_ms > millis(budget.0)
        {
            misses.push(Miss::new(format!("an answer within {budget}"), attempts::show_millis(latency_ms)));
        }
        join(misses)
    }
}

/// An HTTP probe with its client and headers ready, so that a repetition costs a request and nothing else.
pub(super) struct Ready<'p> {
    probe: &'p HttpProbe,
    prepared: &'p OnceCell<Prepared>,
    /// How much of a body is worth reading.
    read: usize,
}

impl<'p> Ready<'p> {
    /// What is looked up is kept in `prepared`.
    pub(super) fn new(probe: &'p HttpProbe, prepared: &'p OnceCell<Prepared>) -> Self {
        // More than the script gets is read only for checks.
        let read = if probe.body_check().is_empty() { BODY_RETURNED } else { BODY_CHECKED };
        Self { probe, prepared, read }
    }

    /// Looks up address, client and secrets.
    pub(super) async fn prepare(&self, on: &On) -> Result<&'p Prepared, ProviderError> {
        self.prepared
            .get_or_try_init(|| async {
                let probe = self.probe;
                let url = probe.target.url(on, probe.path.as_ref()).await?;
                let out = Outgoing {
                    method: probe.method,
                    headers: &probe.headers,
                    body: probe.body.as_ref(),
                    tls: &probe.tls,
                };
                Prepared::new(on, url, out).await
            })
            .await
    }
}

impl Attempt for Ready<'_> {
    type Value = (Raw, f64);

    fn tries(&self) -> &Tries {
        &self.probe.tries
    }

    fn subject(&self) -> String {
        self.probe.describe()
    }

    fn address(&self) -> Option<String> {
        match (&self.probe.target, self.prepared.get()) {
            (Where::Route { .. }, Some(prepared)) => Some(prepared.url().to_string()),
            _ => None,
        }
    }

    async fn once(&self, on: &On) -> Result<(Raw, f64), Failure> {
        let expected = || format!("status {}", self.probe.status);
        let prepared = self.prepare(on).await.map_err(|e| Failure::setup(&expected(), e))?;
        let start = on.clock().monotonic();
        let raw =
            prepared.send(on, self.probe.redirects.0, self.read).await.map_err(|error| match error {
                NoAnswer::Setup(error) => Failure::setup(&expected(), error),
                error => Failure::Miss(Miss::new(expected(), error.reason())),
            })?;
        let latency_ms = millis(on.clock().monotonic().saturating_sub(start));
        match self.probe.miss(&raw, latency_ms) {
            None => Ok((raw, latency_ms)),
            Some(miss) => Err(miss.into()),
        }
    }
}

impl Read for HttpProbe {
    const ID: &'static str = "probe.http";
    type Value = Passed;

    fn describe(&self) -> String {
        Self::describe(self)
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

    async fn read(&self, on: &On) -> Result<Passed, ProviderError> {
        let prepared = OnceCell::new();
        let ready = Ready::new(self, &prepared);
        let hit = attempts::repeat(on, &ready, attempts::progress(on, &self.tries)).await?;
        let (raw, latency_ms) = hit.value;
        Ok(Passed {
            status: raw.status.as_u16(),
            latency_ms,
            attempts: hit.attempts,
            headers: raw.header_texts(),
            body: raw.text(BODY_RETURNED),
            url: raw.url.into(),
        })
    }

    fn show(&self, passed: &Passed) -> String {
        format!("{} in {}", passed.status, attempts::show_attempts(passed.latency_ms, passed.attempts))
    }

    fn limits(&self) -> Limits {
        self.tries.limits()
    }
}

/// The script functions.
#[export_module]
pub mod script {
    /// Sends a GET request and fails unless the response is 2xx; returns `#{ url, status, latency_ms, attempts,
    /// headers, body }`.
    ///
    /// The target is a URL, a route (`web`) or one of its pools (`web/green`). With `attempts` it retries until the
    /// response passes.
    /// `body` is the first 64 KiB; checks search the first 1 MiB.
    ///
    /// ```rhai
    /// probe::http("web").status == 200
    /// ```
    #[rhai_fn(name = "http", return_raw, volatile)]
    pub fn http(cx: NativeCallContext<'_>, target: &str) -> Checks {
        http_with(cx, target, Map::new())
    }

    /// ```rhai
    /// let answer = probe::http("web/green", #{ path: "/health", attempts: 3, interval: "100ms", latency: "5s" });
    /// answer.status == 200 && answer.attempts >= 1
    /// ```
    #[rhai_fn(name = "http", return_raw, volatile)]
    pub fn http_with(cx: NativeCallContext<'_>, target: &str, options: Map) -> Checks {
        let target = cx.arg("target", target.to_owned())?;
        match HttpProbe::new(target, cx.options(options)?) {
            Ok(effect) => cx.read(effect),
            Err((option, why)) => Err(cx.bad_argument(option, why)),
        }
    }
}

#[cfg(test)]
mod tests;
