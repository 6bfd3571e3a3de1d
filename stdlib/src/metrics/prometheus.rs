//! Metrics from Prometheus, or from anything that speaks its query API (Thanos, Mimir, VictoriaMetrics).
//!
//! Each metric is an instant query (`/api/v1/query`, <https://prometheus.io/docs/prometheus/latest/querying/api/>) that must
//! answer a scalar or exactly one series. No series and `NaN` are no data. An infinity is a value.
//!
//! Staleness: an instant query may answer a sample that is up to five minutes old (`--query.lookback-delta`), and what was
//! pushed to a Pushgateway never grows old. Gates therefore rest on `rate`, `increase` or `…_over_time` of a range not longer
//! than what they should notice, which have no data once nothing new arrives.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Resolve, Setting, Source},
    registry::Factory,
};
use contraflow_runtime::{
    error::{codes, did_you_mean},
    provider::{Provider, ProviderError},
    quantity::Span,
};
use futures_util::future::join_all;
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Metrics, Reading};
use crate::{
    codes as library,
    net::{
        self,
        body::{self, Unreadable},
        egress::Egress,
    },
};

/// Longest answer that is read. One number takes a hundred bytes; what is longer is a query over too many series.
const LONGEST_ANSWER: usize = 4 << 20;

/// The settings of a target with `provider = "prometheus"`.
///
/// ```toml
/// [env.production.metrics.web]
/// provider = "prometheus"
/// url = "http://prometheus.internal:9090"
///
/// [env.production.metrics.web.metrics]
/// error_rate = "sum(rate(http_requests_total{code=~'5..'}[1m])) / sum(rate(http_requests_total[1m]))"
/// p95 = { query = "…", samples = "sum(increase(http_requests_total[1m]))", unit = "seconds" }
/// ```
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Base URL, with a path prefix where there is one; without `/api/v1`. May hold user name and password.
    pub url: String,
    /// The queries, by the names that scripts use.
    #[serde(default)]
    pub metrics: BTreeMap<String, Query>,
    /// Headers sent with each request, such as `X-Scope-OrgID`.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// A bearer token, read for each request, so that it may be rotated.
    #[serde(default)]
    pub bearer: Option<Setting>,
    /// Time limit for one query.
    #[serde(default = "usual_timeout")]
    pub timeout: Span,
    /// Whether to take values that came with a warning, such as that a store of a Thanos did not answer.
    #[serde(default)]
    pub ignore_warnings: bool,
    /// PEM file with the certificates to trust, in place of the machine's (those of `SSL_CERT_FILE`, where that variable is set).
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// URL of the HTTP proxy to go through, or `none`. Default: what the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` say.
    #[serde(default)]
    pub proxy: Option<String>,
}

fn usual_timeout() -> Span {
    Span::secs(10)
}

/// The query behind a name: text, or a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// PromQL that returns one number.
    pub query: String,
    /// PromQL that returns the number of samples behind the value.
    pub samples: Option<String>,
    /// Unit of the value.
    pub unit: Unit,
}

/// What the number that a query answers counts. It is turned into base units: a share 0..1, seconds, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number, or anything in base units already.
    #[default]
    Number,
    /// A share 0..1.
    Ratio,
    /// 0..100.
    Percent,
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl Unit {
    fn to_base(self, value: f64) -> f64 {
        match self {
            Self::Number | Self::Ratio | Self::Seconds => value,
            Self::Percent => value / 100.0,
            Self::Milliseconds => value / 1000.0,
        }
    }
}

/// The form of a query as a table.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// PromQL that returns one number.
    query: String,
    /// PromQL that returns the number of samples behind the value.
    samples: Option<String>,
    /// Unit of the value.
    #[serde(default)]
    unit: Unit,
}

impl JsonSchema for Query {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Query".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [String::json_schema(generator), Table::json_schema(generator)] })
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // By hand, because an untagged enum does not say which field of the table is wrong.
        struct TextOrTable;
        impl<'de> de::Visitor<'de> for TextOrTable {
            type Value = Query;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a query, or a table with `query`, `samples` and `unit`")
            }

            fn visit_str<E: de::Error>(self, query: &str) -> Result<Query, E> {
                Ok(Query { query: query.to_owned(), samples: None, unit: Unit::default() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Query, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Query { query: table.query, samples: table.samples, unit: table.unit })
            }
        }
        from.deserialize_any(TextOrTable)
    }
}

/// A Prometheus server, as the metrics of one service.
pub struct Prometheus {
    /// Name of the target.
    name: String,
    base: String,
    egress: Egress,
    headers: HeaderMap,
    bearer: Option<Source>,
    settings: Settings,
}

impl Prometheus {
    /// A server as the metrics source `name`. Nothing is asked of it yet.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(name: &str, settings: Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let bad = |key: &str, why: String| BadSetting::new(key, why);
        let url = Url::parse(&settings.url).map_err(|e| bad("url", format!("not a URL: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("url", format!("expected http or https, not {}", url.scheme())));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("url", "expected a base URL, without ? and #".to_owned()));
        }
        let bearer = settings.bearer.as_ref().map(|bearer| at.source("bearer", bearer)).transpose()?;
        if settings.timeout.0.is_zero() {
            return Err(bad("timeout", "expected more than 0s".to_owned()));
        }
        if let Some((name, _)) = settings.metrics.iter().find(|(_, metric)| metric.query.trim().is_empty()) {
            return Err(bad("metrics", format!("the query of {name} is empty")));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            let key = name.parse::<HeaderName>();
            let key = key.map_err(|_| bad("headers", format!("\"{name}\" is not the name of a header")))?;
            let mut value = value
                .parse::<HeaderValue>()
                .map_err(|_| bad("headers", format!("the value of {name} cannot be sent in a header")))?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let base = url.as_str().trim_end_matches('/').to_owned();
        let egress = Egress::new(settings.ca.as_deref(), settings.proxy.as_deref(), at)?;
        Ok(Self { name: name.to_owned(), base, egress, headers, bearer, settings })
    }

    /// The token to send, read anew each time.
    async fn bearer(&self) -> Result<Option<HeaderValue>, ProviderError> {
        let Some(source) = &self.bearer else { return Ok(None) };
        let token = source.read().await?;
        let text = Zeroizing::new(format!("Bearer {}", token.as_str().trim()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| ProviderError::from(source.unusable("it cannot be sent in a header")))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Sends one request and reads the JSON it answers, whatever its status.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        form: Option<String>,
    ) -> Result<(StatusCode, Value), ProviderError> {
        let url = format!("{}{path}", self.base);
        let link = self.egress.link(&url).await?;
        let mut request = link
            .client
            .request(method, &url)
            // The server is asked to stop by itself a little earlier, and then says why.
            .timeout(self.settings.timeout.0 + Duration::from_secs(1))
            .headers(self.headers.clone())
            .header(header::ACCEPT, "application/json");
        if let Some(token) = self.bearer().await? {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some(form) = form {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
        }
        let mut response = request.send().await.map_err(|e| link.no_answer(&e, &url, true))?;
        let status = response.status();
        let json = response
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.contains("json"));
        if !status.is_success() && !json {
            let error = net::refused(response, &url).await;
            return Err(match status.as_u16() {
                401 | 403 => error.hint("give credentials with `bearer` or `headers`"),
                300..=399 => error.hint("set `url` to where it redirects: redirects are not followed"),
                404 => error.hint("check `url`: it is the address before /api/v1"),
                _ => error,
            });
        }
        let at = net::without_credentials(&url);
        let read = body::read(&mut response, LONGEST_ANSWER).await.map_err(|error| match error {
            Unreadable::Request(e) => link.no_answer(&e, &url, true),
            Unreadable::Packed(why) => provider_error(format!("{at}: {why}")),
        })?;
        if read.truncated {
            return Err(provider_error(format!("{at} answered more than {} MiB", LONGEST_ANSWER >> 20))
                .hint("make the query return one series: wrap it in sum(…) or max(…)"));
        }
        let body = body::into_utf8(response.headers(), read.bytes);
        let answer = serde_json::from_slice(&body).map_err(|_| {
            let start: String = String::from_utf8_lossy(&body).trim().chars().take(120).collect();
            provider_error(format!("{at} did not answer JSON but \"{start}\""))
                .hint("check `url`: it must be the address of Prometheus itself, not of a page that shows it")
        })?;
        Ok((status, answer))
    }

    /// The number that a query answers, if there is one. `what` names the query in errors.
    async fn number(&self, what: &str, query: &str) -> Result<Option<f64>, ProviderError> {
        let timeout = format!("{:.3}", self.settings.timeout.0.as_secs_f64());
        let form = Url::parse_with_params(&self.base, [("query", query), ("timeout", &*timeout)])
            .map_err(|e| ProviderError::terminal(codes::INTERNAL, format!("{what} cannot be sent: {e}")))?;
        let form = form.query().unwrap_or_default().to_owned();
        let (status, answer) = self.ask(Method::POST, "/api/v1/query", Some(form)).await?;
        // Nothing is changed by a query, so it may be repeated whenever the server blames itself.
        let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let answer: Answer = serde_json::from_value(answer).map_err(|_| {
            let at = net::without_credentials(&self.base);
            let message = format!("{at} answered {status} and JSON that is not a Prometheus response");
            if again {
                return ProviderError::retryable(library::HTTP_STATUS, message);
            }
            provider_error(message).hint("check `url`: it is the address before /api/v1")
        })?;
        if answer.status != "success" {
            return Err(refused(what, query, &answer, again));
        }
        // Up to 3.0 notes on style came as warnings; they do not touch the value.
        let warning = answer.warnings.iter().find(|warning| !warning.starts_with("PromQL info"));
        if let (Some(warning), false) = (warning, self.settings.ignore_warnings) {
            return Err(ProviderError::retryable(
                codes::PROVIDER,
                format!("{what} came with a warning: {warning}"),
            )
            .hint("the value may be wrong; set `ignore_warnings = true` to use it anyway"));
        }
        let data = answer.data.ok_or_else(|| provider_error(format!("{what} returned no data")))?;
        single(what, data)
    }

    /// The query behind `metric`: bound, or written out.
    fn resolve(&self, metric: &str) -> Result<Query, ProviderError> {
        if let Some(bound) = self.settings.metrics.get(metric) {
            return Ok(bound.clone());
        }
        // A plain word is a name; one with - or . is rather a misspelt name than a subtraction.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if !metric.trim().chars().all(plain) {
            return Ok(Query { query: metric.to_owned(), samples: None, unit: Unit::Number });
        }
        let known: Vec<&str> = self.settings.metrics.keys().map(String::as_str).collect();
        let bound = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let error = ProviderError::terminal(
            codes::ARGUMENT,
            format!("no metric named \"{metric}\" in {}; bound: {bound}", self.name),
        );
        let error = match did_you_mean(metric, known) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error,
        };
        Err(error.hint(format!("for the series of that name write \"{}{{}}\"", metric.trim())))
    }
}

impl Factory for Prometheus {
    type Capability = dyn Metrics;
    type Settings = Settings;

    const KIND: &'static str = "prometheus";
    const ABOUT: &'static str =
        "A Prometheus server, or any server with its query API, such as Thanos, Mimir or VictoriaMetrics.";
    const CAPABILITIES: &'static [&'static str] =
        &["accepts PromQL queries as well as names", "counts the samples behind a value"];
    const EXAMPLE: &'static str = r#"[env.production.metrics.web]
provider = "prometheus"
url = "http://prometheus.internal:9090"
bearer = { file = "/run/secrets/prometheus-token" }

[env.production.metrics.web.metrics]
error_rate = "sum(rate(http_requests_total{code=~'5..'}[1m])) / sum(rate(http_requests_total[1m]))"
p95 = { query = "histogram_quantile(0.95, sum by (le) (rate(http_duration_seconds_bucket[1m])))", samples = "sum(increase(http_requests_total[1m]))", unit = "seconds" }
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Metrics>, BadSetting> {
        Ok(Arc::new(Self::new(&at.name, settings, at)?))
    }
}

#[async_trait]
impl Provider for Prometheus {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        net::without_credentials(&self.base)
    }

    /// Asks for the version, and asks each bound query once, so that a wrong one is found before a gate needs it.
    async fn check(&self) -> Result<String, ProviderError> {
        let version = match self.ask(Method::GET, "/api/v1/status/buildinfo", None).await {
            Ok((status, info)) if status.is_success() => match info["data"]["version"].as_str() {
                Some(version) => format!("Prometheus {version}"),
                None => "Prometheus API".to_owned(),
            },
            // Not everything that answers queries says its version.
            Ok(_) => "Prometheus API".to_owned(),
            Err(error) if error.code.as_str() == library::HTTP_STATUS => {
                self.number("an empty query", "vector(1)").await?;
                "Prometheus API".to_owned()
            }
            Err(error) => return Err(error),
        };
        let names = self.names();
        let readings = join_all(names.iter().map(|name| self.query(name))).await;
        let mut silent = Vec::new();
        for (name, reading) in names.iter().zip(readings) {
            if reading?.value.is_none() {
                silent.push(name.as_str());
            }
        }
        let s = if names.len() == 1 { "" } else { "s" };
        let silent = match silent.as_slice() {
            [] => String::new(),
            some => format!(", no data now for {}", some.join(", ")),
        };
        Ok(format!("{version}, {} metric{s}{silent}", names.len()))
    }
}

#[async_trait]
impl Metrics for Prometheus {
    async fn query(&self, metric: &str) -> Result<Reading, ProviderError> {
        let bound = self.resolve(metric)?;
        let samples = async {
            let Some(query) = &bound.samples else { return Ok(None) };
            let what = format!("the number of samples of {metric}");
            // No series: nothing was observed.
            let count = self.number(&what, query).await?.unwrap_or(0.0);
            // `increase` extrapolates, so a count need not be whole. `as` saturates.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates at 0 and u64::MAX"
            )]
            Ok(Some(count.floor() as u64))
        };
        let (value, samples) =
            futures_util::future::try_join(self.number(metric, &bound.query), samples).await?;
        Ok(Reading::new(value.map(|value| bound.unit.to_base(value)), samples))
    }

    fn names(&self) -> Vec<String> {
        self.settings.metrics.keys().cloned().collect()
    }
}

/// What `/api/v1/query` answers.
#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    error_type: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: Value,
}

fn provider_error(message: String) -> ProviderError {
    ProviderError::terminal(codes::PROVIDER, message)
}

/// The error for a query that the server refused. What says that it had no time or no room now may be asked again.
fn refused(what: &str, query: &str, answer: &Answer, again: bool) -> ProviderError {
    let Answer { error_type, error, .. } = answer;
    let message = format!("{what} was refused ({error_type}): {error}");
    if again || matches!(error_type.as_str(), "timeout" | "canceled" | "unavailable" | "internal") {
        ProviderError::retryable(codes::PROVIDER, message)
    } else {
        provider_error(message).hint(format!("the query is: {query}"))
    }
}

/// The one number of a result. `None`: no series, or not a number.
fn single(what: &str, data: Data) -> Result<Option<f64>, ProviderError> {
    let Data { kind, result } = data;
    let odd = || provider_error(format!("{what} returned a {kind} that cannot be read"));
    let number = |sample: &Value| -> Result<Option<f64>, ProviderError> {
        // `[time, "value"]`, the value as text so that NaN and infinities can be written.
        let text = sample.get(1).and_then(Value::as_str).ok_or_else(odd)?;
        Ok(Some(text.parse::<f64>().map_err(|_| odd())?).filter(|value| !value.is_nan()))
    };
    match kind.as_str() {
        "scalar" => number(&result),
        "vector" => match result.as_array().ok_or_else(odd)?.as_slice() {
            [] => Ok(None),
            [one] if one.get("histogram").is_some() => {
                Err(provider_error(format!("{what} returned a histogram"))
                    .hint("get one number from it: histogram_quantile(0.95, …)"))
            }
            [one] => number(one.get("value").ok_or_else(odd)?),
            many => Err(several(what, many)),
        },
        "matrix" => Err(provider_error(format!("{what} returned a range of values"))
            .hint("get one number from it: rate(…[1m]) or last_over_time(…[1m])")),
        _ => Err(provider_error(format!("{what} returned a {kind}, expected one number"))),
    }
}

/// The error for more than one series: it names the labels that tell them apart.
fn several(what: &str, series: &[Value]) -> ProviderError {
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for one in series {
        for (label, value) in one["metric"].as_object().into_iter().flatten() {
            let values = labels.entry(label).or_default();
            let value = value.as_str().unwrap_or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
    let apart = labels.iter().filter(|(_, values)| values.len() > 1).map(|(label, values)| {
        let more = if values.len() > 3 { ", …" } else { "" };
        format!("{label} ({}{more})", values.iter().take(3).copied().collect::<Vec<_>>().join(", "))
    });
    let apart = apart.collect::<Vec<_>>().join(", ");
    let apart = if apart.is_empty() { apart } else { format!(" that differ in {apart}") };
    provider_error(format!("{what} returned {} series{apart}, expected one", series.len()))
        .hint("make it return one series: wrap the query in sum(…) or max(…), or select with {label=\"…\"}")
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
