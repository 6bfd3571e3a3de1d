//! Where a message is sent by HTTP. Whoever knows such a URL can send, so it is a secret: only scheme and host are shown.

use std::{borrow::Cow, time::Duration};

use contraflow_provider::config::{BadSetting, Resolve, Setting, Source};
use contraflow_runtime::{
    effect::On,
    provider::{ProviderError, Retry},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use zeroize::Zeroizing;

use crate::{
    codes,
    net::{self, body, egress::Egress},
};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A URL, which the configuration holds or says where to find, and how it is reached.
pub(super) struct Endpoint(Source, Egress);

impl Endpoint {
    /// From the setting `url`.
    pub(super) fn new(url: &Setting, egress: Egress, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let source = at.source("url", url)?;
        if let Some(url) = source.as_plain() {
            parse(url).map_err(|why| source.unusable(why))?;
        }
        Ok(Self(source, egress))
    }

    /// The URL, which is read each time.
    async fn url(&self) -> Result<Zeroizing<String>, ProviderError> {
        let url = self.0.read().await?;
        let url = Zeroizing::new(url.as_str().trim().to_owned());
        parse(&url).map_err(|why| self.0.unusable(why))?;
        Ok(url)
    }

    /// Where it points, without what is secret.
    pub(super) fn describe(&self) -> String {
        match (self.0.as_plain(), self.0.peek()) {
            (Some(url), _) => shown(url),
            (None, Some(url)) => format!("{} (from {})", shown(url.as_str().trim()), self.0.origin()),
            (None, None) => format!("the URL in {}", self.0.origin()),
        }
    }

    /// Reaches the receiver without sending a message: the connection, the proxy, the handshake.
    pub(super) async fn check(&self) -> Result<String, ProviderError> {
        let url = self.url().await?;
        self.1.reach(&url).await
    }

    /// Sends a request. An answer of any status is an answer. `idempotent`: the receiver recognizes a repeated request, so one
    /// without an answer may be sent again.
    pub(super) async fn send(
        &self,
        on: &On,
        idempotent: bool,
        request: impl FnOnce(&Client, &str) -> RequestBuilder,
    ) -> Result<Answered, ProviderError> {
        let url = self.url().await?;
        let name = match self.0.as_plain() {
            Some(_) => "notify url",
            None => self.0.name(),
        };
        // A receiver may repeat its address in an answer.
        on.vault().keep(name, url.clone());
        let path = parse(&url).map(|parsed| parsed.path().to_owned()).unwrap_or_default();
        if path.len() >= 16 {
            on.vault().keep(format!("{name} path"), Zeroizing::new(path));
        }
        let shown = shown(&url);
        let link = self.1.link(&url).await?;
        let response = request(&link.client, &url)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|e| link.no_answer(&e.without_url(), &shown, idempotent))?;
        Ok(Answered { response, shown, idempotent })
    }
}

/// An answer of a receiver.
pub(super) struct Answered {
    pub(super) response: Response,
    shown: String,
    idempotent: bool,
}

impl Answered {
    /// Where it came from, without what is secret.
    pub(super) fn from(&self) -> &str {
        &self.shown
    }

    /// The beginning of the body, for what it says. A body may never end.
    pub(super) async fn said(&mut self) -> String {
        let read = tokio::time::timeout(TIMEOUT, body::read(&mut self.response, 4096)).await;
        let read = read.ok().and_then(Result::ok).unwrap_or_default();
        body::text(self.response.headers(), &read.bytes)
    }

    /// The error of an answer that is no success.
    ///
    /// After 429 and 503 nothing was delivered. After any other 5xx it may have been: only a receiver that recognizes a repeated
    /// message is asked again.
    pub(super) async fn refused(self, on: &On) -> ProviderError {
        let status = self.response.status();
        let nothing_done = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
        let again = nothing_done || (self.idempotent && status.is_server_error());
        let mut error = net::refused(self.response, &self.shown).await;
        error.code = codes::NOTIFY.into();
        error.message = on.vault().scrub(&error.message).into_owned();
        error.retry = match error.retry {
            Retry::Safe { after } if again => Retry::Safe { after },
            _ if again => Retry::Safe { after: None },
            _ => Retry::Never,
        };
        match status {
            _ if status.is_redirection() => error.hint("redirects are not followed: set the final URL"),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => error.hint("check the token and its rights"),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED => {
                error.hint("check the URL: it may have been revoked or mistyped")
            }
            _ if status.is_server_error() && !again => {
                error.hint("the message may have been delivered: check before you send it again")
            }
            _ => error,
        }
    }
}

/// Never answers with any of the text.
fn parse(url: &str) -> Result<Url, Cow<'static, str>> {
    let parsed = Url::parse(url).map_err(|e| format!("not a URL ({e})"))?;
    if !["http", "https"].contains(&parsed.scheme()) || parsed.host_str().is_none() {
        return Err("expected a URL that begins with https:// or http://".into());
    }
    Ok(parsed)
}

fn shown(url: &str) -> String {
    let Ok(url) = parse(url) else { return "…".to_owned() };
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}/…", url.scheme()),
        None => format!("{}://{host}/…", url.scheme()),
    }
}

#[cfg(test)]
mod tests {
    use contraflow_provider::config::Detached;
    use serde_json::json;

    use super::*;

    fn endpoint(url: serde_json::Value) -> Result<Endpoint, BadSetting> {
        let url: Setting = serde_json::from_value(url).expect("a setting");
        Endpoint::new(&url, Egress::default(), &Detached::new("/", [("HOOK", "no-url hunter2")]))
    }

    #[test]
    fn of_a_url_only_scheme_and_host_are_shown() {
        for (url, seen) in [
            ("https://hooks.slack.com/services/T0/B0/hunter2", "https://hooks.slack.com/…"),
            ("http://user:hunter2@127.0.0.1:8080/x?key=hunter2#hunter2", "http://127.0.0.1:8080/…"),
            ("http://[::1]:8080/hunter2", "http://[::1]:8080/…"),
        ] {
            assert_eq!(endpoint(json!(url)).map(|e| e.describe()), Ok(seen.to_owned()));
        }
        for url in ["hunter2", "ftp://hunter2/x", "mailto:hunter2", "https://hunter2:port/x"] {
            let bad = endpoint(json!(url)).err().expect(url);
            assert!(bad.key == "url" && !bad.message.contains("hunter2"), "{bad}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_url_that_stands_elsewhere_is_read_when_it_is_used() {
        let missing = endpoint(json!({ "env": "NO_HOOK" })).expect("a name");
        assert_eq!(missing.describe(), "the URL in the environment variable NO_HOOK");
        let error = missing.url().await.expect_err("not set");
        assert_eq!(error.message, "`url`: the environment variable NO_HOOK is not set");
        let wrong = endpoint(json!({ "env": "HOOK" })).expect("a name");
        let error = wrong.url().await.expect_err("no URL");
        assert!(error.message.starts_with("`url`: the environment variable HOOK: not a URL"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2") && !wrong.describe().contains("hunter2"));
    }
}
