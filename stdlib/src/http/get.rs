//! `http::get` asks a server for something and returns what it answered.

use contraflow_runtime::schema::{JsonSchema, NumberOrText, OneOrMany, SwitchOrNumber};
use contraflow_runtime::{
    effect::{Limits, On, Read},
    provider::ProviderError,
    quantity::{Size, Span},
    script::{Reads, ScriptContext},
    target::Target,
};
use rhai::{Map, NativeCallContext, plugin::*};
use serde::{Deserialize, Serialize};

use super::{
    call::{Answer, Call},
    message::{Headers, Method, Redirects, UrlPath, Where},
    status::Statuses,
};
use crate::{net::tls::Tls, probe::attempts::Attempts};

/// Options of `http::get`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Comes after the address, such as `"/health"`.
    #[schemars(with = "Option<String>")]
    path: Option<UrlPath>,
    /// Headers to send; values may be secrets.
    #[schemars(with = "std::collections::BTreeMap<String, contraflow_runtime::secret::Text>")]
    headers: Headers,
    /// Accepted responses: a number, `"2xx"`, `"200-399"`, or an array of these.
    #[schemars(with = "OneOrMany<NumberOrText>")]
    status: Statuses,
    /// For one attempt, including connection and full response.
    timeout: Span,
    /// Maximum attempts. Only no answer, 429, 502, 503 and 504 are retried.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Whether, or how often, to follow redirects; `true` is 10.
    #[schemars(with = "SwitchOrNumber")]
    redirects: Redirects,
    /// How much of the response body to keep; `truncated` says whether there was more.
    max_body: Size,
    /// How to connect.
    tls: Tls,
    /// What else the result depends on, such as `["db/main"]`.
    depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            headers: Headers::new(),
            status: Statuses::success(),
            timeout: Span::secs(30),
            attempts: Attempts::new(4),
            redirects: Redirects::NONE,
            max_body: Size(1 << 20),
            tls: Tls::default(),
            depends_on: Vec::new(),
        }
    }
}

/// Looks at what a server answers.
#[derive(Debug, Clone, Serialize)]
pub struct Get {
    #[serde(flatten)]
    call: Call,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
}

impl Get {
    /// A GET.
    pub fn new(to: Where, options: Options) -> Self {
        let Options { path, headers, status, timeout, attempts, redirects, max_body, tls, depends_on } =
            options;
        let call = Call {
            method: Method::Get,
            to,
            path,
            headers,
            body: None,
            status,
            timeout,
            attempts,
            redirects,
            max_body,
            tls,
        };
        Self { call, depends_on }
    }
}

impl Read for Get {
    const ID: &'static str = "http.get";
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

/// The script functions.
#[export_module]
pub mod script {
    /// Sends a GET request; returns `#{ url, status, headers, body, json, truncated }`. `json` is `()` if the body is
    /// not JSON.
    ///
    /// The first argument is a URL, a route (`web`) or one of its pools (`web/green`). It is a read, not a check: a
    /// plan really sends it. Responses other than 2xx are an error.
    ///
    /// ```rhai
    /// http::get("web/green").status == 200
    /// ```
    #[rhai_fn(name = "get", return_raw, volatile)]
    pub fn get(cx: NativeCallContext<'_>, url: &str) -> Reads {
        get_with(cx, url, Map::new())
    }

    /// ```rhai
    /// let answer = http::get("web", #{ path: "/missing", status: [200, 404], headers: #{ accept: "text/plain" } });
    /// answer.status == 200 || answer.status == 404
    /// ```
    #[rhai_fn(name = "get", return_raw, volatile)]
    pub fn get_with(cx: NativeCallContext<'_>, url: &str, options: Map) -> Reads {
        let to = cx.arg("url", url.to_owned())?;
        let options = cx.options(options)?;
        cx.read(Get::new(to, options))
    }
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::{
        effect::Read,
        secret::{SecretText, Text},
    };
    use serde_json::json;

    use super::*;
    use crate::http::testing::{Reply, Server, behind, detached, with_secret};

    fn get(url: &str, options: serde_json::Value) -> Get {
        let to = Where::try_from(url.to_owned()).expect("url");
        Get::new(to, serde_json::from_value(options).expect("options"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_comes_with_status_headers_body_and_json() {
        let server = Server::start(|request| {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/v1/state?x=1"));
            Reply::ok(r#"{"leader":"a","n":3}"#).header("x-build", "7")
        })
        .await;
        let answer =
            get(&server.url(), json!({ "path": "/v1/state?x=1" })).read(&detached()).await.expect("answer");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-build"], "7");
        assert_eq!(answer.json, json!({ "leader": "a", "n": 3 }));
        assert!(!answer.truncated);
        let text = Server::start(|_| Reply::ok("plain")).await;
        assert_eq!(get(&text.url(), json!({})).read(&detached()).await.expect("answer").json, json!(null));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_refusal_is_an_error_unless_its_status_is_accepted() {
        let server = Server::start(|_| Reply::status(404, "no such thing")).await;
        let error = get(&server.url(), json!({})).read(&detached()).await.expect_err("refused");
        assert_eq!(error.code.as_str(), "http-status");
        assert_eq!(error.retry, contraflow_runtime::provider::Retry::Never);
        assert!(
            error.message.contains("404 Not Found: \"no such thing\", expected 2xx"),
            "{}",
            error.message
        );
        let answer =
            get(&server.url(), json!({ "status": ["2xx", 404] })).read(&detached()).await.expect("accepted");
        assert_eq!((answer.status, answer.body.as_str()), (404, "no such thing"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_busy_server_is_asked_again_when_it_says_so() {
        let server = Server::start(|_| Reply::status(503, "").header("retry-after", "7")).await;
        let error = get(&server.url(), json!({})).read(&detached()).await.expect_err("busy");
        let after = Some(std::time::Duration::from_secs(7));
        assert_eq!(error.retry, contraflow_runtime::provider::Retry::Safe { after });
        assert_eq!(get(&server.url(), json!({ "attempts": 2 })).limits().attempts, 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_long_body_is_cut_and_says_so() {
        let server = Server::start(|_| Reply::ok("[1,2,3,4,5,6,7,8]")).await;
        let answer = get(&server.url(), json!({ "max_body": "4B" })).read(&detached()).await.expect("answer");
        assert_eq!((answer.body.as_str(), answer.truncated), ("[1,2", true));
        assert_eq!(answer.json, json!(null));
        let whole = get(&server.url(), json!({ "max_body": "17B" })).read(&detached()).await.expect("answer");
        assert!(!whole.truncated && whole.json[7] == 8);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_header_arrives_and_its_echo_is_scrubbed() {
        let server = Server::start(|request| {
            let sent = request.headers["authorization"].clone();
            assert_eq!(sent, "Bearer s3cr3t-value");
            Reply::ok(&format!("{{\"you_sent\":\"{sent}\"}}")).header("x-echo", &sent)
        })
        .await;
        let mut effect = get(&server.url(), json!({}));
        let bearer = SecretText::named("token").surrounded("Bearer ", "");
        effect.call.headers.insert("Authorization".parse().expect("name"), Text::Secret(bearer));
        let answer = effect.read(&with_secret("token", "s3cr3t-value")).await.expect("answer");
        let all = serde_json::to_string(&(&answer, &effect)).expect("json");
        assert!(all.contains("<secret token>") && !all.contains("s3cr3t-value"), "{all}");
        let error = effect.read(&detached()).await.expect_err("not read");
        assert_eq!(error.code.as_str(), "secret");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn redirects_are_followed_only_when_asked_and_secrets_stay_at_home() {
        let other = Server::start(|request| {
            assert!(!request.headers.contains_key("x-key"), "a secret went to another host");
            assert_eq!(request.headers["accept"], "text/plain");
            Reply::ok("moved")
        })
        .await;
        let there = other.url();
        let server = Server::start(move |request| match request.path.as_str() {
            "/" => Reply::status(302, "").header("location", "/next"),
            "/next" => {
                assert_eq!(request.headers["x-key"], "s3cr3t-value");
                Reply::status(301, "").header("location", &there)
            }
            _ => Reply::status(302, "").header("location", "/loop"),
        })
        .await;
        let on = with_secret("token", "s3cr3t-value");
        let ask = |options: serde_json::Value| {
            let mut effect = get(&server.url(), options);
            effect.call.headers.insert("accept".parse().expect("name"), "text/plain".into());
            effect
                .call
                .headers
                .insert("x-key".parse().expect("name"), Text::Secret(SecretText::named("token")));
            effect
        };
        let error = ask(json!({})).read(&on).await.expect_err("not followed");
        assert!(error.message.contains("302") && error.hints[0].contains("redirects: true"), "{error:?}");
        let answer = ask(json!({ "redirects": true })).read(&on).await.expect("followed");
        assert_eq!((answer.body.as_str(), answer.url.as_str()), ("moved", other.url().as_str()));
        let error = ask(json!({ "redirects": 1 })).read(&on).await.expect_err("too many");
        assert!(error.message.contains("more than 1 redirect"), "{}", error.message);
        let error = ask(json!({ "redirects": 5, "path": "/loop" })).read(&on).await.expect_err("loop");
        assert!(error.message.contains("more than 5 redirects"), "{}", error.message);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_answer_in_time_is_a_retryable_timeout() {
        let server = Server::start(|_| Reply::ok("late").delay_ms(5_000)).await;
        let error =
            get(&server.url(), json!({ "timeout": "50ms" })).read(&detached()).await.expect_err("late");
        assert_eq!(error.code.as_str(), "timeout");
        assert!(error.message.contains("no answer within 50ms"), "{}", error.message);
        assert_ne!(error.retry, contraflow_runtime::provider::Retry::Never);
    }

    #[test]
    fn a_pool_and_named_targets_are_what_it_depends_on() {
        let effect = get("web/green", json!({ "depends_on": ["db/main"] }));
        let names: Vec<_> = effect.depends_on().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["deploy/web/green", "db/main"]);
        assert!(!effect.is_check());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_that_is_packed_although_nobody_asked_for_it_is_unpacked() {
        const PACKED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x2a\x2e\x49\x2c\x29\x2d\x56\
            \xb2\x52\x0a\x0d\x50\xaa\x05\x00\x69\xff\xbb\xaa\x0f\x00\x00\x00";
        let server = Server::start(|request| {
            assert_eq!(request.headers["accept-encoding"], "identity");
            match request.path.as_str() {
                "/br" => Reply::ok("?").header("content-encoding", "br"),
                "/latin" => {
                    Reply::bytes(b"{\"a\":\"\xe9\"}").header("content-type", "text/plain; charset=latin1")
                }
                "/marked" => Reply::ok("\u{feff}{\"a\":1}"),
                _ => Reply::bytes(PACKED).header("content-encoding", "gzip"),
            }
        })
        .await;
        let ask = async |path: &str| get(&server.url(), json!({ "path": path })).read(&detached()).await;
        let answer = ask("/").await.expect("an answer");
        assert_eq!((answer.body.as_str(), &answer.json), ("{\"status\":\"UP\"}", &json!({ "status": "UP" })));
        assert_eq!(ask("/latin").await.expect("an answer").json, json!({ "a": "é" }));
        assert_eq!(ask("/marked").await.expect("an answer").json, json!({ "a": 1 }));
        let error = ask("/br").await.expect_err("not known");
        assert!(error.message.contains("(content-encoding: br)"), "{error}");
        let mut cut = get(&server.url(), json!({}));
        cut.call.max_body = "5B".parse().expect("a size");
        assert!(cut.read(&detached()).await.expect("an answer").truncated);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_go_through_the_proxy_that_the_variables_name() {
        // A proxy gets the whole address.
        let proxy = Server::start(|request| Reply::ok(&request.path)).await;
        let on = behind(&[
            ("HTTP_PROXY", proxy.url().replace("http://", "http://user:hunter2@")),
            ("HTTPS_PROXY", proxy.url()),
            ("NO_PROXY", "direct.invalid".to_owned()),
        ]);
        let answer = get("http://shop.invalid/x", json!({})).read(&on).await.expect("an answer");
        assert_eq!(answer.body, "http://shop.invalid/x");
        // It answers as a server would, and leads nowhere.
        let refused = get("https://shop.invalid/x", json!({})).read(&on).await.expect_err("no tunnel");
        let address = proxy.addr();
        assert!(refused.message.ends_with(&format!("(through the proxy {address})")), "{refused}");
        let direct = get("http://direct.invalid/x", json!({})).read(&on).await.expect_err("no such host");
        assert!(!direct.message.contains("proxy"), "{direct}");
        let server = Server::start(|request| Reply::ok(&request.path)).await;
        assert_eq!(get(&server.url(), json!({})).read(&on).await.expect("this machine").body, "/");
        let nobody = behind(&[("http_proxy", Server::refusing().await)]);
        let error = get("http://shop.invalid/x", json!({})).read(&nobody).await.expect_err("nobody");
        assert!(error.message.contains("connection refused (through the proxy 127.0.0.1:"), "{error}");
        let socks = behind(&[("ALL_PROXY", "socks5://user:hunter2@out:1080".to_owned())]);
        let error = get("http://shop.invalid/x", json!({})).read(&socks).await.expect_err("not supported");
        assert!(error.message.starts_with("ALL_PROXY: proxies with socks5"), "{error}");
    }
}
