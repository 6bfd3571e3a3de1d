//! `http::request` asks a server to do something.

use contraflow_runtime::schema::{JsonSchema, NumberOrText, OneOrMany, SwitchOrNumber};
use contraflow_runtime::{
    effect::{Action, InDoubt, Limits, On, Read},
    provider::ProviderError,
    quantity::{Size, Span},
    script::{Acts, ScriptContext},
    secret::Text,
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    call::{Answer, Call},
    message::{HeaderName, Headers, Method, Payload, Redirects, UrlPath, Where},
    status::Statuses,
};
use crate::{net::tls::Tls, probe::attempts::Attempts};

/// Options of `http::request`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Comes after the address, such as `"/v1/purge"`.
    #[schemars(with = "Option<String>")]
    path: Option<UrlPath>,
    /// Headers to send; values may be secrets.
    #[schemars(with = "std::collections::BTreeMap<String, contraflow_runtime::secret::Text>")]
    headers: Headers,
    /// Body to send.
    body: Option<Text>,
    /// Body to send as JSON; secrets in it are filled in.
    json: Option<Value>,
    /// Accepted responses: a number, `"2xx"`, `"200-399"`, or an array of these.
    #[schemars(with = "OneOrMany<NumberOrText>")]
    status: Statuses,
    /// For one attempt, including connection and full response.
    timeout: Span,
    /// Most tries.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Whether, or how often, to follow redirects; `true` is 10.
    #[schemars(with = "SwitchOrNumber")]
    redirects: Redirects,
    /// How much of the response body to keep; `truncated` says whether there was more.
    max_body: Size,
    /// How to connect.
    tls: Tls,
    /// With `read_only`: what the answer depends on.
    depends_on: Vec<Target>,
    /// It changes nothing; a plan really sends it.
    read_only: bool,
    /// The header in which this receiver expects an idempotency key. Without it, the key is sent as `Idempotency-Key`,
    /// but nothing relies on it. `""` sends none.
    #[schemars(with = "Option<String>")]
    idempotency_header: Option<KeyHeader>,
    /// The result that a plan assumes, such as `#{ status: 200 }`.
    assume: Option<Value>,
    /// What else it may change, such as `["traffic/web"]`.
    touches: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            headers: Headers::new(),
            body: None,
            json: None,
            status: Statuses::success(),
            timeout: Span::secs(30),
            attempts: Attempts::new(4),
            redirects: Redirects::NONE,
            max_body: Size(1 << 20),
            tls: Tls::default(),
            depends_on: Vec::new(),
            read_only: false,
            idempotency_header: None,
            assume: None,
            touches: Vec::new(),
        }
    }
}

/// In which header the idempotency key goes. Naming one says that the receiver honors it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
enum KeyHeader {
    Off,
    In(HeaderName),
}

impl TryFrom<String> for KeyHeader {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() { Ok(Self::Off) } else { text.parse().map(Self::In) }
    }
}

impl From<KeyHeader> for String {
    fn from(header: KeyHeader) -> Self {
        match header {
            KeyHeader::Off => Self::new(),
            KeyHeader::In(name) => name.as_str().to_owned(),
        }
    }
}

/// The header that most servers that know idempotency keys take
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
const KEY_HEADER: &str = "idempotency-key";

/// Asks a server to do something.
#[derive(Debug, Clone, Serialize)]
pub struct Request {
    #[serde(flatten)]
    call: Call,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_header: Option<KeyHeader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assume: Option<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    touches: Vec<Target>,
}

impl Request {
    /// Whether the receiver does not mind the same request twice: by its method, or because it knows the key.
    fn is_repeatable(&self) -> bool {
        self.call.method.is_idempotent() || matches!(self.idempotency_header, Some(KeyHeader::In(_)))
    }

    fn key(&self, on: &On) -> Headers {
        let name = match &self.idempotency_header {
            Some(KeyHeader::Off) => None,
            Some(KeyHeader::In(name)) => Some(name.clone()),
            None => KEY_HEADER.parse().ok(),
        };
        name.map(|name| (name, Text::from(on.idempotency_key()))).into_iter().collect()
    }
}

impl Action for Request {
    const ID: &'static str = "http.request";
    type Output = Answer;

    fn describe(&self) -> String {
        self.call.describe()
    }

    fn touches(&self) -> Vec<Target> {
        [self.call.to.targets(), self.touches.clone()].concat()
    }

    async fn perform(&self, on: &On) -> Result<Answer, ProviderError> {
        self.call.send(on, self.key(on), self.is_repeatable()).await
    }

    fn planned(&self) -> Option<Value> {
        self.assume.clone()
    }

    fn in_doubt(&self) -> InDoubt {
        if self.is_repeatable() { InDoubt::Repeat } else { InDoubt::Ask }
    }

    fn limits(&self) -> Limits {
        self.call.limits()
    }
}

/// The same request when the script says that it only looks, such as a search by POST.
#[derive(Debug, Clone, Serialize)]
pub struct Query {
    #[serde(flatten)]
    call: Call,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
}

impl Read for Query {
    const ID: &'static str = "http.query";
    type Value = Answer;

    fn describe(&self) -> String {
        self.call.describe()
    }

    fn depends_on(&self) -> Vec<Target> {
        [self.call.to.targets(), self.depends_on.clone()].concat()
    }

    async fn read(&self, on: &On) -> Result<Answer, ProviderError> {
        self.call.send(on, Headers::new(), true).await
    }

    fn show(&self, answer: &Answer) -> String {
        let s = if answer.body.len() == 1 { "" } else { "s" };
        format!("{}, {} byte{s}", answer.status, answer.body.len())
    }

    fn limits(&self) -> Limits {
        self.call.limits()
    }
}

/// What `http::request` comes to.
#[derive(Debug, Clone)]
enum Either {
    Acts(Request),
    Looks(Query),
}

/// Sorts the options, or says which of them exclude each other and why.
fn build(method: Method, to: Where, options: Options) -> Result<Either, (&'static str, &'static str)> {
    let Options {
        path,
        headers,
        body,
        json,
        status,
        timeout,
        attempts,
        redirects,
        max_body,
        tls,
        depends_on,
        read_only,
        idempotency_header,
        assume,
        touches,
    } = options;
    let body = match (body, json) {
        (Some(_), Some(_)) => return Err(("json", "there is already a `body`: give only one of the two")),
        (Some(text), None) => Some(Payload::Text(text)),
        (None, json) => json.map(Payload::Json),
    };
    let call = Call { method, to, path, headers, body, status, timeout, attempts, redirects, max_body, tls };
    if read_only {
        if assume.is_some() {
            return Err(("assume", "with `read_only`, a plan sends the request and needs no assumption"));
        }
        if idempotency_header.is_some() {
            return Err(("idempotency_header", "a `read_only` request needs no key"));
        }
        if !touches.is_empty() {
            return Err(("touches", "a `read_only` request changes nothing: use `depends_on`"));
        }
        return Ok(Either::Looks(Query { call, depends_on }));
    }
    if !depends_on.is_empty() {
        return Err(("depends_on", "this is for `read_only` requests: use `touches`"));
    }
    Ok(Either::Acts(Request { call, idempotency_header, assume, touches }))
}

/// The script functions.
#[export_module]
pub mod script {
    /// Sends a request that may change something; returns `#{ url, status, headers, body, json, truncated }`.
    ///
    /// A plan does not send it. Responses other than 2xx are an error.
    ///
    /// The URL may be a route (`web`) or one of its pools (`web/green`). The request carries a key that stays the same
    /// when it is sent again after a crash. It is retried only if that is harmless: for GET, HEAD, OPTIONS, PUT and
    /// DELETE, if `idempotency_header` says that the receiver knows the key, or if the server certainly did not act on
    /// it.
    ///
    /// ```rhai
    /// http::request("OPTIONS", "web", #{ path: "/health", status: "100-599" }).status >= 100
    /// ```
    #[rhai_fn(name = "request", return_raw, volatile)]
    pub fn request(cx: NativeCallContext<'_>, method: &str, url: &str) -> Acts {
        request_with(cx, method, url, Map::new())
    }

    /// ```rhai
    /// http::request("GET", "web/green", #{ path: "/health", read_only: true }).status == 200
    /// ```
    #[rhai_fn(name = "request", return_raw, volatile)]
    pub fn request_with(cx: NativeCallContext<'_>, method: &str, url: &str, options: Map) -> Acts {
        let method = cx.arg("method", method.to_owned())?;
        let to = cx.arg("url", url.to_owned())?;
        match build(method, to, cx.options(options)?) {
            Ok(Either::Acts(effect)) => cx.action(effect),
            Ok(Either::Looks(effect)) => cx.read(effect),
            Err((option, why)) => Err(cx.bad_argument(option, why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::provider::Retry;
    use serde_json::json;

    use super::*;
    use crate::http::testing::{Reply, Server, detached, with_secret};

    fn built(method: &str, url: &str, options: Value) -> Result<Either, (&'static str, &'static str)> {
        let method = serde_json::from_value(json!(method)).expect("method");
        let to = Where::try_from(url.to_owned()).expect("url");
        build(method, to, serde_json::from_value(options).expect("options"))
    }

    fn acts(method: &str, url: &str, options: Value) -> Request {
        match built(method, url, options) {
            Ok(Either::Acts(effect)) => effect,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_json_body_is_sent_with_secrets_filled_in() {
        let server = Server::start(|request| {
            assert_eq!(request.method, "POST");
            assert_eq!(request.headers["content-type"], "application/json");
            assert_eq!(request.body, r#"{"items":[1,2],"token":"s3cr3t-value"}"#);
            Reply::status(201, r#"{"id":7}"#)
        })
        .await;
        let token =
            serde_json::to_value(contraflow_runtime::secret::SecretText::named("token")).expect("json");
        let effect = acts("POST", &server.url(), json!({ "json": { "items": [1, 2], "token": token } }));
        assert!(!serde_json::to_string(&effect).expect("json").contains("s3cr3t"));
        let answer = effect.perform(&with_secret("token", "s3cr3t-value")).await.expect("created");
        assert_eq!((answer.status, &answer.json["id"]), (201, &json!(7)));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_idempotency_key_goes_in_the_named_header_or_nowhere() {
        let server = Server::start(|request| {
            let found: Vec<&str> = ["idempotency-key", "x-request-key"]
                .into_iter()
                .filter(|name| request.headers.get(*name).is_some_and(|key| key == "detached"))
                .collect();
            Reply::ok(&found.join(","))
        })
        .await;
        for (options, seen) in [
            (json!({ "body": "x" }), "idempotency-key"),
            (json!({ "body": "x", "idempotency_header": "X-Request-Key" }), "x-request-key"),
            (json!({ "body": "x", "idempotency_header": "" }), ""),
            (json!({ "headers": { "Idempotency-Key": "mine" } }), ""),
        ] {
            let answer = acts("POST", &server.url(), options).perform(&detached()).await.expect("answer");
            assert_eq!(answer.body, seen);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_is_repeated_only_where_that_does_no_harm() {
        let gateway = Server::start(|_| Reply::status(504, "")).await;
        let busy = Server::start(|_| Reply::status(429, "")).await;
        let down = Server::refusing().await;
        let hangs_up = Server::hanging_up().await;
        let retry = async |effect: Request| effect.perform(&detached()).await.expect_err("refused").retry;
        let safe = Retry::Safe { after: None };
        let keyed = json!({ "idempotency_header": "Idempotency-Key" });
        assert_eq!(retry(acts("POST", &gateway.url(), json!({}))).await, Retry::Never);
        assert_eq!(retry(acts("POST", &gateway.url(), keyed.clone())).await, safe);
        assert_eq!(retry(acts("PUT", &gateway.url(), json!({}))).await, safe);
        assert_eq!(retry(acts("POST", &busy.url(), json!({}))).await, safe);
        assert_eq!(retry(acts("POST", &down, json!({}))).await, safe);
        assert_eq!(retry(acts("POST", &hangs_up, json!({}))).await, Retry::Never);
        assert_eq!(retry(acts("POST", &hangs_up, keyed.clone())).await, safe);
        assert_eq!(acts("POST", "web", json!({})).in_doubt(), InDoubt::Ask);
        assert_eq!(acts("POST", "web", keyed).in_doubt(), InDoubt::Repeat);
        assert_eq!(acts("DELETE", "web", json!({})).in_doubt(), InDoubt::Repeat);
    }

    #[test]
    fn a_plan_answers_what_is_assumed() {
        assert_eq!(acts("POST", "web", json!({})).planned(), None);
        let assumed = json!({ "status": 202, "json": { "job": "j1" } });
        assert_eq!(acts("POST", "web", json!({ "assume": assumed })).planned(), Some(assumed));
        let names: Vec<_> = acts("POST", "web", json!({ "touches": ["db/main"] }))
            .touches()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["traffic/web", "db/main"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn read_only_makes_it_a_read_without_a_key() {
        let server = Server::start(|request| {
            assert!(!request.headers.contains_key("idempotency-key"));
            Reply::ok(&request.body)
        })
        .await;
        let Ok(Either::Looks(query)) = built(
            "POST",
            &server.url(),
            json!({ "read_only": true, "body": "find me", "depends_on": ["db/main"] }),
        ) else {
            panic!("not a read")
        };
        assert_eq!(query.read(&detached()).await.expect("answer").body, "find me");
        assert_eq!(query.depends_on(), [Target::new("db", "main")]);
        assert!(!query.is_check());
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for (options, option) in [
            (json!({ "body": "x", "json": 1 }), "json"),
            (json!({ "read_only": true, "assume": 1 }), "assume"),
            (json!({ "read_only": true, "idempotency_header": "x" }), "idempotency_header"),
            (json!({ "read_only": true, "touches": ["db/main"] }), "touches"),
            (json!({ "depends_on": ["db/main"] }), "depends_on"),
        ] {
            assert_eq!(built("POST", "web", options).expect_err("refused").0, option);
        }
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let error = serde_json::from_value::<Options>(json!({ "hedaers": {} })).expect_err("refused");
        assert!(error.to_string().contains("unknown field `hedaers`"), "{error}");
    }
}
