//! What `http::get` and `http::request` have in common: one request, its answer, and which answers are failures.

use std::collections::BTreeMap;

use contraflow_runtime::{
    effect::{Limits, On},
    error::codes as runtime_codes,
    provider::ProviderError,
    quantity::{Size, Span},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    exchange::{NoAnswer, Outgoing, Prepared, Raw},
    message::{Headers, Method, Payload, Redirects, UrlPath, Where},
    status::Statuses,
};
use crate::{
    codes,
    net::{self, tls::Tls},
    probe::attempts::Attempts,
};

/// One request. Part of the journal record of both effects.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Where it goes.
    pub to: Where,
    /// What comes behind the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<UrlPath>,
    /// Headers to send.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: Headers,
    /// Body to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Payload>,
    /// Answers that are no failure.
    pub status: Statuses,
    /// Time limit for one attempt.
    pub timeout: Span,
    /// Most tries.
    pub attempts: Attempts,
    /// How many redirects to follow.
    pub redirects: Redirects,
    /// Most bytes of the answer's body to keep.
    pub max_body: Size,
    /// How to connect.
    #[serde(skip_serializing_if = "Tls::is_default")]
    pub tls: Tls,
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Where it came from, after redirects.
    pub url: String,
    /// Status.
    pub status: u16,
    /// Headers by name, in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body as text.
    pub body: String,
    /// The body read as JSON; `()` if it is none.
    #[serde(default)]
    pub json: Value,
    /// Whether the body was longer than `max_body`, and is cut.
    pub truncated: bool,
}

impl Call {
    /// What it does, for people.
    pub fn describe(&self) -> String {
        let path = self.path.as_ref().map(ToString::to_string).unwrap_or_default();
        match &self.to {
            Where::Url(url) if !path.is_empty() => {
                format!("{} {}{path}", self.method, url.as_str().trim_end_matches('/'))
            }
            to if path.is_empty() => format!("{} {to}", self.method),
            to => format!("{} {to} {path}", self.method),
        }
    }

    /// An error with what was sent and where to. Only where the description says that too may it be left out behind it.
    fn about(&self, sent: &str, error: ProviderError) -> ProviderError {
        if sent == self.describe() {
            return error.about(sent);
        }
        ProviderError { message: format!("{sent}: {}", error.message), ..error }
    }

    /// Deadlines and tries. The call's own timeout comes first: it says more.
    pub fn limits(&self) -> Limits {
        Limits {
            timeout: self.timeout.0.saturating_add(Span::secs(2).0),
            attempts: self.attempts.get(),
            ..Limits::default()
        }
    }

    /// Sends it. `extra` is sent too; `repeatable` says whether the receiver minds being asked twice.
    ///
    /// # Errors
    /// No answer, or one whose status is not accepted.
    pub async fn send(&self, on: &On, extra: Headers, repeatable: bool) -> Result<Answer, ProviderError> {
        let url = self.to.url(on, self.path.as_ref()).await?;
        let name = format!("{} {url}", self.method);
        // What the script gives wins over what is added.
        let mut headers = extra;
        headers.extend(self.headers.clone());
        let out =
            Outgoing { method: self.method, headers: &headers, body: self.body.as_ref(), tls: &self.tls };
        let prepared = Prepared::new(on, url, out).await?;
        let max_body = usize::try_from(self.max_body.0).unwrap_or(usize::MAX);
        let raw =
            match tokio::time::timeout(self.timeout.0, prepared.send(on, self.redirects.0, max_body)).await {
                Ok(Ok(raw)) => raw,
                Ok(Err(NoAnswer::Setup(error))) => return Err(error),
                Ok(Err(error)) => {
                    let scrub = |text: &str| on.vault().scrub(text).into_owned();
                    let reason = scrub(&error.reason());
                    let failed = if error.is_retryable(repeatable) {
                        ProviderError::unreachable(reason)
                    } else {
                        ProviderError::terminal(runtime_codes::UNREACHABLE, reason)
                    };
                    return Err(self.about(&scrub(&name), failed));
                }
                Err(_) => {
                    let reason = format!("no answer within {}", self.timeout);
                    let failed = if repeatable {
                        ProviderError::retryable(runtime_codes::TIMEOUT, reason)
                    } else {
                        ProviderError::terminal(runtime_codes::TIMEOUT, reason)
                            .hint("it is unknown whether the server acted on it")
                    };
                    return Err(self.about(&name, failed));
                }
            };
        if !self.status.contains(raw.status.as_u16()) {
            return Err(self.refused(on, &name, &raw, repeatable));
        }
        Ok(Answer {
            json: raw.json().unwrap_or_default(),
            url: raw.url.to_string(),
            status: raw.status.as_u16(),
            headers: raw.header_texts(),
            body: raw.text(max_body),
            truncated: raw.truncated,
        })
    }

    /// The error for a status that is not accepted. 429, and 503 with a time to come back, say that nothing was done; behind
    /// the others something may have been, so those are repeated only where that does no harm.
    fn refused(&self, on: &On, name: &str, raw: &Raw, repeatable: bool) -> ProviderError {
        let scrub = |text: &str| on.vault().scrub(text).into_owned();
        let message = scrub(&format!("{name} answered {}, expected {}", raw.summary(), self.status));
        let after = net::retry_after(&raw.headers);
        let again = match raw.status.as_u16() {
            429 => true,
            503 => repeatable || after.is_some(),
            502 | 504 => repeatable,
            _ => false,
        };
        let error = if again {
            ProviderError::retryable(codes::HTTP_STATUS, message)
        } else {
            ProviderError::terminal(codes::HTTP_STATUS, message)
        };
        let error = match after {
            Some(wait) if again => error.after(wait),
            _ => error,
        };
        let error = if raw.status.is_redirection() && self.redirects == Redirects::NONE {
            error.hint("follow redirects with `redirects: true`")
        } else {
            error
        };
        error.detail(json!({
            "url": scrub(raw.url.as_str()),
            "status": raw.status.as_u16(),
            "want": self.status,
            "body": raw.text(4096),
        }))
    }
}
