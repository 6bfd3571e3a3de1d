//! Messages as JSON to an HTTP endpoint.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use contraflow_provider::{
    config::{BadSetting, Building, Resolve, Setting, Source},
    registry::Factory,
};
use contraflow_runtime::{
    effect::On,
    provider::{Provider, ProviderError},
};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Message, Notify, endpoint::Endpoint};
use crate::net::egress::Egress;

/// Settings of `provider = "webhook"`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to send.
    pub url: Setting,
    /// The method of the request.
    #[serde(default)]
    pub method: Verb,
    /// More headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Setting>,
    /// A bearer token.
    pub bearer: Option<Setting>,
    /// Whether the receiver recognizes a repeated message by its `Idempotency-Key`. If it does not, a message of which it is not
    /// known whether it was delivered is not sent again.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// PEM file with the certificates to trust, in place of the machine's (those of `SSL_CERT_FILE`, where that variable is set).
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// URL of the HTTP proxy to go through, or `none`. Default: what the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` say.
    #[serde(default)]
    pub proxy: Option<String>,
}

fn yes() -> bool {
    true
}

/// The method of the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Sends each message as a new one.
    #[default]
    Post,
    /// Replaces what is there.
    Put,
}

/// An HTTP endpoint that takes messages as JSON:
///
/// ```json
/// {"text": "…", "severity": "info", "environment": "production", "effect": "tell/1:notify.send", "idempotency_key": "…"}
/// ```
///
/// The key is also in the header `Idempotency-Key`, percent-encoded where a header cannot hold it.
pub struct Webhook {
    endpoint: Endpoint,
    method: Verb,
    headers: Vec<(HeaderName, Source)>,
    bearer: Option<Source>,
    idempotent: bool,
}

impl Webhook {
    /// An endpoint.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn new(settings: Settings, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let Settings { url, method, headers, bearer, idempotent, ca, proxy } = settings;
        let egress = Egress::new(ca.as_deref(), proxy.as_deref(), at)?;
        let endpoint = Endpoint::new(&url, egress, at)?;
        let headers = headers
            .into_iter()
            .map(|(name, value)| {
                let known = HeaderName::try_from(&name).map_err(|_| {
                    BadSetting::new("headers", format!("\"{name}\" is not a valid name of a header"))
                })?;
                let value = at.source(&format!("headers.{name}"), &value)?;
                if value.as_plain().is_some_and(|text| HeaderValue::from_str(text).is_err()) {
                    return Err(value.unusable("it is not valid in a header"));
                }
                Ok((known, value))
            })
            .collect::<Result<_, _>>()?;
        let bearer = bearer.map(|bearer| at.source("bearer", &bearer)).transpose()?;
        Ok(Self { endpoint, method, headers, bearer, idempotent })
    }

    async fn headers(&self, on: &On) -> Result<HeaderMap, ProviderError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, header(on, bearer, "Bearer ").await?);
        }
        for (name, value) in &self.headers {
            headers.insert(name, header(on, value, "").await?);
        }
        let key = encoded(on.idempotency_key());
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert("idempotency-key", key);
        }
        Ok(headers)
    }
}

/// The value of a header. One that does not stand in the configuration is kept out of output.
async fn header(on: &On, source: &Source, before: &str) -> Result<HeaderValue, ProviderError> {
    let value = source.read().await?;
    if source.as_plain().is_none() || !before.is_empty() {
        on.vault().keep(source.name(), Zeroizing::new(value.as_str().to_owned()));
    }
    let text = Zeroizing::new(format!("{before}{}", value.as_str().trim()));
    let mut header = HeaderValue::from_str(&text)
        .map_err(|_| ProviderError::from(source.unusable("it is not valid in a header")))?;
    header.set_sensitive(true);
    Ok(header)
}

/// A key as a header can hold it: visible ASCII, all else percent-encoded.
fn encoded(key: &str) -> String {
    key.bytes()
        .map(|byte| match byte {
            b'%' => "%25".to_owned(),
            0x21..=0x7e => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

impl Factory for Webhook {
    type Capability = dyn Notify;
    type Settings = Settings;

    const KIND: &'static str = "webhook";
    const ABOUT: &'static str =
        "An HTTP endpoint that receives messages as JSON, with an idempotency key in body and header.";
    const CAPABILITIES: &'static [&'static str] =
        &["repeats a message safely if the receiver recognizes its key"];
    const EXAMPLE: &'static str = r#"[env.production.notify.ops]
provider = "webhook"
url = "https://hooks.example.com/runbooks"
bearer = { secret = "hook-token" }
headers = { X-Team = "sre" }

[env.production.secrets.hook-token]
provider = "file"
path = "/run/secrets/hook-token"
"#;

    fn build(at: &Building<'_>, settings: Settings) -> Result<Arc<dyn Notify>, BadSetting> {
        Ok(Arc::new(Self::new(settings, at)?))
    }
}

#[async_trait]
impl Provider for Webhook {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn describe(&self) -> String {
        self.endpoint.describe()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        for source in self.bearer.iter().chain(self.headers.iter().map(|(_, value)| value)) {
            source.read().await?;
        }
        self.endpoint.check().await
    }
}

#[async_trait]
impl Notify for Webhook {
    async fn send(&self, on: &On, message: &Message) -> Result<(), ProviderError> {
        let body = json!({
            "text": message.text,
            "severity": message.severity,
            "environment": on.environment(),
            "effect": on.id(),
            "idempotency_key": on.idempotency_key(),
        });
        let headers = self.headers(on).await?;
        let method = match self.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
        };
        let answered = self
            .endpoint
            .send(on, self.idempotent, |client, url| {
                client.request(method, url).headers(headers).body(body.to_string())
            })
            .await?;
        if answered.response.status().is_success() { Ok(()) } else { Err(answered.refused(on).await) }
    }

    fn is_idempotent(&self) -> bool {
        self.idempotent
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use contraflow_provider::{config::Detached, contract};
    use contraflow_runtime::{
        error::codes as core,
        provider::{Providers, Retry},
    };
    use serde_json::Value;

    use super::*;
    use crate::{
        codes,
        notify::{
            Severity,
            lab::{Answer, Server},
        },
    };

    fn outside() -> Detached {
        Detached::new("/", [("TOKEN", "t0ken-t0ken"), ("KEY", "k3y-k3y-k3y")])
    }

    fn webhook(server: &Server, more: Value) -> Webhook {
        let mut settings = json!({ "url": server.url("/hooks/hunter2-hunter2") });
        settings.as_object_mut().expect("map").extend(more.as_object().expect("map").clone());
        Webhook::new(serde_json::from_value(settings).expect("settings"), &outside()).expect("usable")
    }

    async fn send(webhook: &Webhook) -> Result<(), ProviderError> {
        let on = On::detached(Arc::new(Providers::new("test")));
        webhook.send(&on, &Message { text: "ü \"done\"".to_owned(), severity: Severity::Critical }).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_message_arrives_with_its_key_and_headers() {
        let server = Server::answering([Answer::status(204)]);
        let webhook = webhook(
            &server,
            json!({
                "method": "PUT",
                "headers": { "X-Team": "sre", "X-Key": { "env": "KEY" } },
                "bearer": { "env": "TOKEN" },
            }),
        );
        send(&webhook).await.expect("accepted");
        let request = &server.requests()[0];
        assert_eq!(request.line, "PUT /hooks/hunter2-hunter2 HTTP/1.1");
        assert_eq!(request.header("content-type"), "application/json");
        assert_eq!(request.header("authorization"), "Bearer t0ken-t0ken");
        assert_eq!(request.header("x-team"), "sre");
        assert_eq!(request.header("x-key"), "k3y-k3y-k3y");
        assert_eq!(request.header("idempotency-key"), "detached");
        assert_eq!(
            request.json(),
            json!({ "text": "ü \"done\"", "severity": "critical", "environment": "test",
                    "effect": "detached", "idempotency_key": "detached" })
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn which_answers_allow_another_try_depends_on_the_receiver() {
        for (status, idempotent, again) in [
            (500, true, true),
            (502, true, true),
            (429, true, true),
            (400, true, false),
            (302, true, false),
            (500, false, false),
            (502, false, false),
            (504, false, false),
            (503, false, true),
            (429, false, true),
        ] {
            let server = Server::answering([Answer::status(status)]);
            let error =
                send(&webhook(&server, json!({ "idempotent": idempotent }))).await.expect_err("refused");
            assert_eq!(error.code.as_str(), codes::NOTIFY);
            assert_eq!(error.retry != Retry::Never, again, "{status} {idempotent}");
            assert!(error.message.contains(&format!("answered {status}")), "{error}");
        }
        let server = Server::answering([Answer::status(429).header("Retry-After: 7")]);
        let error = send(&webhook(&server, json!({}))).await.expect_err("refused");
        assert_eq!(error.retry, Retry::Safe { after: Some(Duration::from_secs(7)) });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_show_the_host_and_nothing_secret() {
        let server = Server::answering([
            Answer::status(404).body("no hook at /hooks/hunter2-hunter2"),
            Answer::hang_up(),
            Answer::hang_up(),
        ]);
        let hook = webhook(&server, json!({}));
        let refused = send(&hook).await.expect_err("refused");
        assert!(
            refused.message.contains("/… answered 404 Not Found: no hook at <secret notify url path>"),
            "{refused}"
        );
        let cut = send(&hook).await.expect_err("no answer");
        assert_eq!((cut.code.as_str(), cut.retry), (core::UNREACHABLE, Retry::Safe { after: None }));
        let once = webhook(&server, json!({ "idempotent": false }));
        let uncertain = send(&once).await.expect_err("no answer");
        assert_eq!(uncertain.retry, Retry::Never, "it may have been delivered");
        let port = server.stop();
        let down = send(&once).await.expect_err("nobody there");
        assert_eq!(down.retry, Retry::Safe { after: None }, "nothing was delivered");
        assert!(down.message.starts_with(&format!("http://127.0.0.1:{port}/…: ")), "{down}");
        let check = hook.check().await.expect_err("nobody there");
        for error in [refused, cut, uncertain, down, check] {
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert!(!hook.describe().contains("hunter2"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_connects_and_sends_nothing() {
        let server = Server::answering([]);
        let said = webhook(&server, json!({})).check().await.expect("there");
        assert!(said.ends_with("takes connections"), "{said}");
        let error = webhook(&server, json!({ "bearer": { "env": "NO_TOKEN" } })).check().await;
        assert_eq!(
            error.expect_err("no token").message,
            "`bearer`: the environment variable NO_TOKEN is not set"
        );
        assert!(server.requests().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_shakes_hands_with_the_receiver_and_trusts_whom_the_settings_name() {
        use crate::http::testing::{self, Authority, Reply, Wanted};
        let authority = Authority::new();
        let server =
            testing::Server::start_tls(authority.server(&Wanted::default()), |_| Reply::status(204, ""))
                .await;
        let with = |more: Value| {
            let mut settings = json!({ "url": format!("{}hook", server.url()) });
            settings.as_object_mut().expect("map").extend(more.as_object().expect("map").clone());
            Webhook::new(serde_json::from_value(settings).expect("settings"), &outside()).expect("usable")
        };
        let error = with(json!({})).check().await.expect_err("not trusted");
        assert!(error.message.contains("not issued by a trusted authority"), "{error}");
        assert!(error.hints[0].contains("`ca`") && error.hints[0].contains("SSL_CERT_FILE"), "{error:?}");
        assert!(send(&with(json!({}))).await.is_err());
        let trusting = with(json!({ "ca": authority.ca() }));
        let said = trusting.check().await.expect("trusted");
        assert!(said.ends_with("takes connections; its certificate is trusted"), "{said}");
        send(&trusting).await.expect("delivered");
        let missing = with(json!({ "ca": "nowhere.pem" })).check().await.expect_err("no file");
        assert!(missing.message.starts_with("`ca`: /nowhere.pem cannot be read"), "{missing}");

        // Through a proxy that is asked for.
        let (proxy, asked) = testing::tunnel(server.addr()).await;
        let through = json!({ "ca": authority.ca(), "proxy": format!("http://{proxy}") });
        let said = with(through.clone()).check().await.expect("trusted");
        assert!(said.contains(&format!("through the proxy {proxy}")), "{said}");
        send(&with(through)).await.expect("delivered");
        let asked = asked.lock().expect("not poisoned").clone();
        assert_eq!(asked[0], format!("CONNECT {} HTTP/1.1", server.addr()), "{asked:?}");
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        for (settings, key) in [
            (json!({ "url": "x" }), "url"),
            (json!({ "url": "https://x", "proxy": "ftp://x" }), "proxy"),
            (json!({ "url": "https://x", "headers": { "a b": "c" } }), "headers"),
            (json!({ "url": "https://x", "headers": { "a": "c\nd" } }), "headers.a"),
        ] {
            let settings: Settings = serde_json::from_value(settings).expect("settings");
            assert_eq!(Webhook::new(settings, &outside()).err().expect(key).key, key);
        }
        for settings in [
            json!({}),
            json!({ "url": "https://x", "uri": "x" }),
            json!({ "url": "https://x", "method": "GET" }),
            json!({ "url": "https://x", "headers": { "a": { "env": "B", "x": 1 } } }),
        ] {
            assert!(serde_json::from_value::<Settings>(settings).is_err());
        }
    }

    /// A receiver that knows no keys.
    struct Hook(Server, Webhook);

    #[async_trait]
    impl contract::notify::Fixture for Hook {
        fn notify(&self) -> &dyn Notify {
            &self.1
        }

        async fn arrived(&self) -> Vec<String> {
            let text =
                |request: &crate::notify::lab::Request| request.json()["text"].as_str().map(str::to_owned);
            self.0.requests().iter().filter_map(text).collect()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_keeps_the_contract_of_receivers() {
        let server = Server::answering([Answer::status(200), Answer::status(204)]);
        let hook = webhook(&server, json!({ "idempotent": false }));
        contract::notify::holds(&Hook(server, hook)).await;
    }

    #[test]
    fn keys_fit_into_a_header() {
        assert_eq!(encoded("run-x/25% to grün/1:notify.send"), "run-x/25%25%20to%20gr%C3%BCn/1:notify.send");
    }
}
