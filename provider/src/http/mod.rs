//! HTTP as all providers use it: one client per kind of TLS, and errors worded for people.

use std::{
    sync::{Arc, LazyLock, Once},
    time::Duration,
};

use crate::provider::ProviderError;
use reqwest::{Client, Response, StatusCode, header};

use crate::codes;

pub mod body;
pub mod egress;
pub mod tls;

/// Makes `ring` the process's TLS implementation. Cheap after the first time.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    // An embedding program may have chosen another one first; that one is used then.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// The root certificates of the machine. Read once: that takes milliseconds, so only when TLS is needed.
pub fn roots() -> Arc<rustls::RootCertStore> {
    static ROOTS: LazyLock<Arc<rustls::RootCertStore>> = LazyLock::new(|| {
        let mut store = rustls::RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    Arc::clone(&ROOTS)
}

fn builder() -> reqwest::ClientBuilder {
    // Answers come as they are, unless a server packs them all the same.
    let plain = header::HeaderMap::from_iter([(
        header::ACCEPT_ENCODING,
        header::HeaderValue::from_static("identity"),
    )]);
    Client::builder()
        .default_headers(plain)
        .user_agent(concat!("contraflow/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// A shared client for `url`: connections are kept and used again. It follows no redirects.
///
/// # Errors
/// The client cannot be set up.
pub fn client(url: &str) -> Result<Client, ProviderError> {
    static PLAIN: LazyLock<Result<Client, String>> = LazyLock::new(|| {
        install_tls();
        // No certificates are loaded for plain HTTP.
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder().tls_backend_preconfigured(config).build().map_err(|e| chain(&e))
    });
    static TLS: LazyLock<Result<Client, String>> = LazyLock::new(|| {
        install_tls();
        let config = tls::trusting(rustls::ClientConfig::builder(), roots()).with_no_client_auth();
        builder().tls_backend_preconfigured(config).build().map_err(|e| chain(&e))
    });
    let shared = if url.starts_with("https:") { &TLS } else { &PLAIN };
    Result::clone(shared).map_err(|e| {
        ProviderError::terminal(crate::error::codes::INTERNAL, format!("cannot create an HTTP client: {e}"))
    })
}

/// The error of a request that got no answer. Retryable where nothing can have happened at the receiver, or for requests that
/// only look (`safe`).
pub fn no_answer(error: &reqwest::Error, url: &str, safe: bool) -> ProviderError {
    let message = format!("{}: {}", without_credentials(url), reason(error));
    // A handshake that failed once fails again.
    let hopeless = tls::tls_error(error).is_some();
    if (error.is_connect() || safe) && !hopeless {
        ProviderError::unreachable(message)
    } else {
        ProviderError::terminal(crate::error::codes::UNREACHABLE, message)
    }
}

/// The error of an answer that is no success. 429, 502, 503 and 504 are retryable, after `Retry-After` where it is given.
pub async fn refused(mut response: Response, url: &str) -> ProviderError {
    let status = response.status();
    let after = retry_after(response.headers());
    // No more is read than is shown, and not for long: a body may never end.
    let body = tokio::time::timeout(Duration::from_secs(2), body::read(&mut response, 4096)).await;
    let body = body.ok().and_then(Result::ok).map(|body| body::text(response.headers(), &body.bytes));
    let body = body.unwrap_or_default();
    let body = body.trim();
    let body: String = body.chars().take(300).collect();
    let message = format!(
        "{} answered {status}{}{body}",
        without_credentials(url),
        if body.is_empty() { "" } else { ": " }
    );
    let again = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    match (again.contains(&status), after) {
        (true, Some(wait)) => ProviderError::retryable(codes::HTTP_STATUS, message).after(wait),
        (true, None) => ProviderError::retryable(codes::HTTP_STATUS, message),
        (false, _) => ProviderError::terminal(codes::HTTP_STATUS, message),
    }
}

/// The wait that a `Retry-After` header asks for, in seconds or as a date.
pub fn retry_after(headers: &header::HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let now: jiff::Timestamp = headers
        .get(header::DATE)
        .and_then(|d| d.to_str().ok())
        .and_then(|d| jiff::fmt::rfc2822::parse(d).ok())?
        .timestamp();
    Duration::try_from(date.timestamp().duration_since(now)).ok()
}

/// A URL without user name and password, for messages.
pub fn without_credentials(url: &str) -> String {
    let Ok(mut parsed) = reqwest::Url::parse(url) else { return url.to_owned() };
    if parsed.username().is_empty() && parsed.password().is_none() {
        return url.to_owned();
    }
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    parsed.to_string()
}

/// Why a request got no answer, for people: `connection refused`, not the path through the libraries.
pub fn reason(error: &reqwest::Error) -> String {
    if let Some(error) = tls::tls_error(error) {
        return tls::explain(error);
    }
    if let Some(reason) = tunnel_reason(error) {
        return reason;
    }
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let is_tls = error.url().is_some_and(|url| url.scheme() == "https");
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return io_reason(error);
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "the connection was closed before the response was complete".to_owned();
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            // No more is known of a handshake that the server took back.
            return match is_tls {
                true => {
                    "the server closed the connection right after the handshake: it may require a \
                    client certificate"
                }
                false => "the server closed the connection before anything was sent",
            }
            .to_owned();
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return "the answer is not HTTP".to_owned();
        }
        next = error.source();
    }
    chain(error)
}

/// Why a proxy did not lead to the server: `hyper-util` keeps its error for that to itself, and only words are left of it.
fn tunnel_reason(error: &reqwest::Error) -> Option<String> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if let Some((_, why)) = text.split_once("tunnel error: ") {
            return match why {
                "unsuccessful" => Some("the proxy refused to connect to it".to_owned()),
                "proxy authorization required" => Some("the proxy wants a user name and password".to_owned()),
                "unexpected end of file" => Some("the proxy closed the connection".to_owned()),
                // What failed is the connection to the proxy; its cause says how.
                _ => None,
            };
        }
        next = error.source();
    }
    None
}

/// Why an operation on a socket or file failed, without the number of the operating system.
pub fn io_reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        ErrorKind::TimedOut => "no answer in time".to_owned(),
        ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// An error with its causes, innermost last, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
