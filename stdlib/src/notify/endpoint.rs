//! Where a message is sent by HTTP. Whoever knows such a URL can send, so it is a secret: only scheme and host are shown.

use std::{borrow::Cow, env, time::Duration};

use contraflow_runtime::{
    effect::On,
    error::codes as core,
    provider::{ProviderError, Retry},
};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::{codes, net};

/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A URL from the configuration or from an environment variable.
pub(super) struct Endpoint(Source);

enum Source {
    Given(Zeroizing<String>),
    Env(String),
}

impl Endpoint {
    /// From the settings `url` and `url_env`, of which one must be given.
    pub(super) fn new(url: Option<String>, url_env: Option<String>) -> Result<Self, (&'static str, String)> {
        match (url.map(Zeroizing::new), url_env) {
            (Some(url), None) => {
                parse(&url).map_err(|why| ("url", why.into_owned()))?;
                Ok(Self(Source::Given(url)))
            }
            (None, Some(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                Err(("url_env", format!("\"{name}\" cannot be the name of an environment variable")))
            }
            (None, Some(name)) => Ok(Self(Source::Env(name))),
            (None, None) => {
                Err(("url", "give `url`, or `url_env` with the variable that holds it".to_owned()))
            }
            (Some(_), Some(_)) => Err(("url_env", "give `url` or `url_env`, not both".to_owned())),
        }
    }

    /// The URL. An environment variable is read each time.
    fn url(&self) -> Result<Zeroizing<String>, ProviderError> {
        match &self.0 {
            Source::Given(url) => Ok(url.clone()),
            Source::Env(name) => {
                let url = variable(name)?;
                parse(&url).map_err(|why| {
                    ProviderError::terminal(codes::NOTIFY, format!("the environment variable {name}: {why}"))
                })?;
                Ok(url)
            }
        }
    }

    /// Where it points, without what is secret.
    pub(super) fn describe(&self) -> String {
        match (&self.0, self.url()) {
            (Source::Given(url), _) => shown(url),
            (Source::Env(name), Ok(url)) => format!("{} (${name})", shown(&url)),
            (Source::Env(name), Err(_)) => format!("${name}"),
        }
    }

    /// Connects without sending anything.
    pub(super) async fn check(&self) -> Result<String, ProviderError> {
        let url = self.url()?;
        let (host, port) = parse(&url)
            .ok()
            .and_then(|url| {
                Some((url.host_str()?.trim_matches(['[', ']']).to_owned(), url.port_or_known_default()?))
            })
            .ok_or_else(|| ProviderError::terminal(core::INTERNAL, "a URL lost its host"))?;
        match tokio::time::timeout(TIMEOUT, TcpStream::connect((&*host, port))).await {
            Ok(Ok(_)) => Ok(format!("{host}:{port} takes connections")),
            Ok(Err(e)) => Err(ProviderError::unreachable(format!("{host}:{port}: {e}"))),
            Err(_) => Err(ProviderError::unreachable(format!("{host}:{port}: no answer in time"))),
        }
    }

    /// Sends a request. An answer of any status is an answer. `idempotent`: the receiver recognizes a repeated request, so one
    /// without an answer may be sent again.
    pub(super) async fn send(
        &self,
        on: &On,
        idempotent: bool,
        request: impl FnOnce(&Client, &str) -> RequestBuilder,
    ) -> Result<Answered, ProviderError> {
        let url = self.url()?;
        let name = match &self.0 {
            Source::Given(_) => "notify url",
            Source::Env(name) => name,
        };
        // A receiver may repeat its address in an answer.
        on.vault().keep(name, url.clone());
        let path = parse(&url).map(|parsed| parsed.path().to_owned()).unwrap_or_default();
        if path.len() >= 16 {
            on.vault().keep(format!("{name} path"), Zeroizing::new(path));
        }
        let shown = shown(&url);
        let client = net::client(&url)?;
        let response = request(&client, &url)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|e| net::no_answer(&e.without_url(), &shown, idempotent))?;
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
            _ if status.is_redirection() => {
                error.hint("redirects are not followed: set the URL that it points to")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => error.hint("check the token and its rights"),
            StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED => {
                error.hint("check the URL: it may have been revoked or mistyped")
            }
            _ if status.is_server_error() && !again => {
                error.hint("the message may have been delivered all the same: look before you send it again")
            }
            _ => error,
        }
    }
}

/// The value of an environment variable that holds something secret.
pub(super) fn variable(name: &str) -> Result<Zeroizing<String>, ProviderError> {
    let failed =
        |what| ProviderError::terminal(codes::NOTIFY, format!("the environment variable {name} {what}"));
    match env::var(name).map(Zeroizing::new) {
        Ok(value) if value.trim().is_empty() => Err(failed("is empty")),
        Ok(value) => Ok(Zeroizing::new(value.trim().to_owned())),
        Err(env::VarError::NotPresent) => {
            Err(failed("is not set").hint(format!("set {name} where contraflow is started")))
        }
        Err(env::VarError::NotUnicode(_)) => Err(failed("is not UTF-8 text")),
    }
}

/// Never answers with any of the text.
fn parse(url: &str) -> Result<Url, Cow<'static, str>> {
    let parsed = Url::parse(url).map_err(|e| format!("not a URL ({e})"))?;
    if !["http", "https"].contains(&parsed.scheme()) || parsed.host_str().is_none() {
        return Err("want a URL that begins with https:// or http://".into());
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
    use super::*;

    #[test]
    fn of_a_url_only_scheme_and_host_are_shown() {
        let endpoint = |url: &str| Endpoint::new(Some(url.to_owned()), None);
        for (url, seen) in [
            ("https://hooks.slack.com/services/T0/B0/hunter2", "https://hooks.slack.com/…"),
            ("http://user:hunter2@127.0.0.1:8080/x?key=hunter2#hunter2", "http://127.0.0.1:8080/…"),
            ("http://[::1]:8080/hunter2", "http://[::1]:8080/…"),
        ] {
            assert_eq!(endpoint(url).map_err(|e| e.1).map(|e| e.describe()), Ok(seen.to_owned()));
        }
        for url in ["hunter2", "ftp://hunter2/x", "mailto:hunter2", "https://hunter2:port/x"] {
            let (key, why) = endpoint(url).err().expect(url);
            assert!(key == "url" && !why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn a_url_comes_from_one_place() {
        let new = |url: Option<&str>, name: Option<&str>| {
            Endpoint::new(url.map(str::to_owned), name.map(str::to_owned))
                .map(|e| e.describe())
                .map_err(|e| e.0)
        };
        assert_eq!(new(None, None), Err("url"));
        assert_eq!(new(Some("https://x"), Some("X")), Err("url_env"));
        assert_eq!(new(None, Some("")), Err("url_env"));
        assert_eq!(
            new(None, Some("CONTRAFLOW_NO_SUCH_VARIABLE")),
            Ok("$CONTRAFLOW_NO_SUCH_VARIABLE".to_owned())
        );
        // Cargo sets this one for every test; it holds no URL.
        let other = Endpoint::new(None, Some("CARGO_PKG_NAME".to_owned())).map_err(|e| e.0).expect("a name");
        let error = other.url().expect_err("no URL");
        assert!(error.message.starts_with("the environment variable CARGO_PKG_NAME: not a URL"), "{error}");
    }
}
