//! One request and its answer: secrets filled in late, redirects followed by hand, bodies read to a bound.

use std::{collections::BTreeMap, sync::Arc};

use contraflow_runtime::{
    effect::On,
    error::codes,
    provider::ProviderError,
    secret::{Text, Vault},
};
use hyper::body::Bytes;
use reqwest::{
    Request, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::message::{Headers, Method, Payload};
use crate::net::{
    body::{self, Unreadable},
    egress::Proxies,
    tls::{self, Link, Tls},
};

/// Headers that no other host may see, whatever is in them.
static CREDENTIALS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::HOST];

/// A request as a script asks for it.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'o> {
    /// Method.
    pub method: Method,
    /// Headers.
    pub headers: &'o Headers,
    /// Body.
    pub body: Option<&'o Payload>,
    /// How to connect.
    pub tls: &'o Tls,
}

/// A request ready to be sent, again and again. It holds the bytes of secrets, so it is not printed or kept for long.
pub struct Prepared {
    url: Url,
    link: Link,
    method: reqwest::Method,
    headers: HeaderMap,
    /// More headers that no other host may see, since they hold secrets.
    private: Vec<HeaderName>,
    body: Option<Bytes>,
    tls: Tls,
}

/// What came back.
#[derive(Debug)]
pub struct Raw {
    /// Where it came from, after redirects.
    pub url: Url,
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, unpacked and in UTF-8, as much of it as was asked for.
    pub body: Vec<u8>,
    /// What comes behind it, as far as it is needed to see a secret that lies across the end.
    pub beyond: Vec<u8>,
    /// Whether there was more.
    pub truncated: bool,
    /// The secrets that may be in it.
    pub vault: Arc<Vault>,
}

/// Why nothing came back.
#[derive(Debug)]
pub enum NoAnswer {
    /// The request failed; how it went.
    Request(reqwest::Error, Box<Link>),
    /// The body cannot be unpacked.
    Body(String),
    /// A redirect could not be followed.
    Redirect(String),
    /// A redirect led to a connection that cannot be set up.
    Setup(ProviderError),
}

impl NoAnswer {
    /// Why, for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Request(error, link) => link.reason(error),
            Self::Redirect(reason) | Self::Body(reason) => reason.clone(),
            Self::Setup(error) => error.message.clone(),
        }
    }

    /// Whether a repetition may help, at a receiver that minds no repetition or has seen nothing of the request.
    pub fn is_retryable(&self, repeatable: bool) -> bool {
        match self {
            Self::Request(error, _) => (repeatable || error.is_connect()) && tls::tls_error(error).is_none(),
            Self::Redirect(_) | Self::Body(_) | Self::Setup(_) => false,
        }
    }

    /// Whether the server closed a connection that was kept from an earlier request, just as this one was sent.
    fn is_stale_connection(&self) -> bool {
        let Self::Request(error, _) = self else { return false };
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

impl Prepared {
    /// Makes a request ready: looks up secrets and the client.
    ///
    /// # Errors
    /// A secret that was not read, a header that cannot be sent, TLS options that cannot be used.
    pub async fn new(on: &On, url: Url, out: Outgoing<'_>) -> Result<Self, ProviderError> {
        let typed = matches!(out.body, Some(Payload::Json(_)));
        let mut headers = HeaderMap::with_capacity(out.headers.len() + usize::from(typed));
        let mut private = Vec::new();
        for (name, text) in out.headers {
            let value = text.reveal(on.vault()).map_err(|e| {
                ProviderError::terminal(codes::SECRET, format!("header `{}`: {e}", name.as_str()))
                    .hint("read it first: let token = secrets::get(\"…\")")
            })?;
            let mut value = HeaderValue::from_str(value.trim_end_matches(['\r', '\n'])).map_err(|_| {
                ProviderError::terminal(
                    codes::ARGUMENT,
                    format!(
                        "header `{}`: {text} has characters that are not allowed in a header",
                        name.as_str()
                    ),
                )
            })?;
            if matches!(text, Text::Secret(_)) {
                value.set_sensitive(true);
                if !CREDENTIALS.contains(name.name()) {
                    private.push(name.name().clone());
                }
            }
            headers.insert(name.name().clone(), value);
        }
        if typed {
            headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        }
        let body = match out.body {
            None => None,
            Some(payload) => Some(Bytes::copy_from_slice(payload.reveal(on.vault())?.as_bytes())),
        };
        let link = tls::link(out.tls, &proxies(on), &url, on.vault()).await?;
        Ok(Self { url, link, method: out.method.into(), headers, private, body, tls: out.tls.clone() })
    }

    /// Where it goes.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Sends it, follows up to `redirects` redirects, and reads up to `max_body` bytes of the answer's body.
    ///
    /// Headers that hold secrets or credentials are not passed on to another host.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&self, on: &On, redirects: u32, max_body: usize) -> Result<Raw, NoAnswer> {
        let mut response = execute(&self.link, &self.method, &self.headers, self.body.as_ref()).await?;
        if !is_redirect(&response) || redirects == 0 {
            return read(on, response, &self.link, self.url.clone(), max_body).await;
        }
        let (mut url, mut link) = (self.url.clone(), self.link.clone());
        let (mut method, mut headers, mut body) =
            (self.method.clone(), self.headers.clone(), self.body.clone());
        for _ in 0..redirects {
            let Some(location) = response.headers().get(header::LOCATION) else { break };
            let next = location
                .to_str()
                .ok()
                .and_then(|location| url.join(location).ok())
                .filter(|next| matches!(next.scheme(), "http" | "https"))
                .ok_or_else(|| {
                    NoAnswer::Redirect(format!(
                        "{url} redirects to {location:?}, which is not an HTTP address"
                    ))
                })?;
            let rewritten = match response.status() {
                StatusCode::SEE_OTHER => method != reqwest::Method::HEAD,
                StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => method == reqwest::Method::POST,
                _ => false,
            };
            if rewritten {
                method = reqwest::Method::GET;
                body = None;
                headers.remove(header::CONTENT_TYPE);
            }
            let elsewhere = next.origin() != self.url.origin();
            if elsewhere {
                if body.is_some() {
                    return Err(NoAnswer::Redirect(format!(
                        "{url} redirects the request with its body to another host, {next}"
                    )));
                }
                for name in CREDENTIALS.iter().chain(&self.private) {
                    headers.remove(name);
                }
            }
            url = next;
            // The name to look for in the certificate was given for the first host only.
            let tls = if elsewhere {
                Tls { server_name: None, client_cert: None, client_key: None, ..self.tls.clone() }
            } else {
                self.tls.clone()
            };
            link = tls::link(&tls, &proxies(on), &url, on.vault()).await.map_err(NoAnswer::Setup)?;
            response = execute(&link, &method, &headers, body.as_ref()).await?;
            if !is_redirect(&response) {
                return read(on, response, &link, url, max_body).await;
            }
        }
        if response.headers().contains_key(header::LOCATION) {
            return Err(NoAnswer::Redirect(format!(
                "more than {redirects} redirect{}, the last one from {url}",
                if redirects == 1 { "" } else { "s" }
            )));
        }
        read(on, response, &link, url, max_body).await
    }
}

/// The proxies of the environment; none outside a configuration.
fn proxies(on: &On) -> Arc<Proxies> {
    on.extension::<Proxies>().unwrap_or_default()
}

fn build(link: &Link, method: &reqwest::Method, headers: &HeaderMap, body: Option<&Bytes>) -> Request {
    let mut request = Request::new(method.clone(), link.url.clone());
    request.headers_mut().clone_from(headers);
    if let Some(host) = link.host.as_deref().and_then(|host| HeaderValue::from_str(host).ok()) {
        request.headers_mut().entry(header::HOST).or_insert(host);
    }
    *request.body_mut() = body.cloned().map(Into::into);
    request
}

/// Sends once, and once more if a kept connection turned out to be closed and the request only looks.
async fn execute(
    link: &Link,
    method: &reqwest::Method,
    headers: &HeaderMap,
    body: Option<&Bytes>,
) -> Result<Response, NoAnswer> {
    let send = || link.client.execute(build(link, method, headers, body));
    let failed = |error| NoAnswer::Request(error, Box::new(link.clone()));
    match send().await.map_err(failed) {
        Err(error) if error.is_stale_connection() && method.is_safe() => send().await.map_err(failed),
        answer => answer,
    }
}

fn is_redirect(response: &Response) -> bool {
    matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308)
}

async fn read(
    on: &On,
    mut response: Response,
    link: &Link,
    url: Url,
    max_body: usize,
) -> Result<Raw, NoAnswer> {
    let vault = Arc::clone(&on.surroundings().vault);
    let most = max_body.saturating_add(vault.margin());
    let read = body::read(&mut response, most).await.map_err(|error| match error {
        Unreadable::Request(error) => NoAnswer::Request(error, Box::new(link.clone())),
        Unreadable::Packed(why) => NoAnswer::Body(why),
    })?;
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let mut body = body::into_utf8(&headers, read.bytes);
    let beyond = if body.len() > max_body { body.split_off(max_body) } else { Vec::new() };
    let truncated = read.truncated || !beyond.is_empty();
    Ok(Raw { url, status, headers, body, beyond, truncated, vault })
}

impl Raw {
    /// The headers by name, in lower case, scrubbed; several of one name are joined with commas.
    pub fn header_texts(&self) -> BTreeMap<String, String> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            texts
                .entry(name.as_str().to_owned())
                .and_modify(|text| {
                    text.push_str(", ");
                    text.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
        texts.values_mut().for_each(|text| *text = self.vault.scrub(text).into_owned());
        texts
    }

    /// One header, several of that name joined with commas.
    pub fn header(&self, name: &HeaderName) -> Option<String> {
        let values: Vec<_> =
            self.headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(", "))
    }

    /// The body as JSON, if it is some and all of it is there, scrubbed.
    pub fn json(&self) -> Option<serde_json::Value> {
        let text = String::from_utf8_lossy(&self.body);
        let mut json = serde_json::from_str(&text).ok().filter(|_| !self.truncated)?;
        self.vault.scrub_json(&mut json);
        Some(json)
    }

    /// At most `max` bytes of the body as text, scrubbed and then cut between characters.
    pub fn text(&self, max: usize) -> String {
        let end = self.body.len().min(max);
        // A character that the cut goes through is left out, not replaced.
        let end =
            if end < self.body.len() || self.truncated { whole_characters(&self.body[..end]) } else { end };
        let shown = String::from_utf8_lossy(&self.body[..end]);
        let behind: Vec<u8> =
            self.body[end..].iter().chain(&self.beyond).take(self.vault.margin()).copied().collect();
        let whole = format!("{shown}{}", String::from_utf8_lossy(&behind));
        self.vault.scrub_part(&whole, 0, shown.len()).into_owned()
    }

    /// The beginning of the body on one line, for messages, scrubbed before it is cut. Empty if there is none.
    pub fn excerpt(&self) -> String {
        const LONGEST: usize = 200;
        let text = self.text(4 * LONGEST);
        let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() > LONGEST {
            line = line.chars().take(LONGEST).collect::<String>() + "…";
        }
        line
    }

    /// The status with its reason and the beginning of the body: `503 Service Unavailable: "starting"`.
    pub fn summary(&self) -> String {
        match self.excerpt() {
            body if body.is_empty() => self.status.to_string(),
            body => format!("{}: \"{body}\"", self.status),
        }
    }
}

/// Length of the part of `bytes` that does not end within a character.
fn whole_characters(bytes: &[u8]) -> usize {
    let end = bytes.len();
    for back in 1..=3.min(end) {
        let byte = bytes[end - back];
        // 10xxxxxx goes on, anything else begins a character; how long it is says the first byte.
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let length = match byte {
            0xf0.. => 4,
            0xe0.. => 3,
            0xc0.. => 2,
            _ => 1,
        };
        return if length > back { end - back } else { end };
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        let raw = |text: &str| Raw {
            url: Url::parse("http://localhost/").expect("url"),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: text.as_bytes().to_vec(),
            beyond: Vec::new(),
            truncated: false,
            vault: Arc::default(),
        };
        assert_eq!(raw("aé").text(2), "a");
        assert_eq!(raw("aé").text(3), "aé");
        assert_eq!(raw("€€").text(5), "€");
        assert_eq!(raw("x😀").text(4), "x");
        assert_eq!(raw("  a\n b ").summary(), "200 OK: \"a b\"");
        assert_eq!(raw("").summary(), "200 OK");
    }

    #[test]
    fn a_secret_at_a_cut_leaves_no_piece_of_it() {
        let secret = "s3cr3t-TOKEN-abcdef-1234567890";
        let vault = Arc::<Vault>::default();
        vault.keep("k", secret.to_owned().into());
        for before in 150..230 {
            let text = format!("{}{secret}|tail", ".".repeat(before));
            for read in [100, 190, 200, 210, text.len()] {
                let (body, beyond) = text.as_bytes().split_at(read.min(text.len()));
                let raw = Raw {
                    url: Url::parse("http://localhost/").expect("url"),
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: body.to_vec(),
                    beyond: beyond.to_vec(),
                    truncated: !beyond.is_empty(),
                    vault: Arc::clone(&vault),
                };
                for shown in [raw.excerpt(), raw.summary(), raw.text(160), raw.text(usize::MAX)] {
                    let piece = secret
                        .as_bytes()
                        .windows(4)
                        .find(|piece| std::str::from_utf8(piece).is_ok_and(|piece| shown.contains(piece)));
                    assert!(piece.is_none(), "{before} {read}: {shown}");
                }
            }
        }
    }
}
