//! The message sinks of the sandbox: a real HTTP server that keeps what it gets.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    provider::{Provider, ProviderError},
};
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde_json::json;

use super::{
    Sandbox,
    fault::Faults,
    http::{Body, Handler, json},
};
use crate::{
    codes, net,
    notify::{Message, Notify},
};

/// A message that a sink has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The sink: `ops` or `oncall`.
    pub sink: String,
    /// The message.
    pub message: Message,
    /// Its idempotency key.
    pub key: Option<String>,
}

/// The names of the sinks.
pub(super) const SINKS: [&str; 2] = ["ops", "oncall"];

/// Largest message.
const LARGEST: usize = 64 << 10;

/// The server behind all sinks: `POST /ops` with a message in JSON.
#[derive(Debug)]
pub(super) struct Inbox {
    faults: Arc<Faults>,
    got: Mutex<(Vec<Received>, HashSet<(String, String)>)>,
}

impl Inbox {
    pub(super) fn new(faults: Arc<Faults>) -> Arc<Self> {
        Arc::new(Self { faults, got: Mutex::default() })
    }

    pub(super) fn messages(&self) -> Vec<Received> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Keeps a message; `false` if one with its key is there already.
    fn keep(&self, received: Received) -> bool {
        let mut got = self.got.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &received.key
            && !got.1.insert((received.sink.clone(), key.clone()))
        {
            return false;
        }
        got.0.push(received);
        true
    }
}

impl Handler for Inbox {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if let Some(status) = self.faults.sink_status() {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return json(status, &json!({ "error": "broken by a fault" }));
        }
        let refuse = |status: StatusCode, why: &str| json(status, &json!({ "error": why }));
        let sink = request.uri().path().trim_start_matches('/').to_owned();
        if !SINKS.contains(&&*sink) {
            return refuse(StatusCode::NOT_FOUND, "there are /ops and /oncall");
        }
        if request.method() != Method::POST {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "messages are posted");
        }
        let key =
            request.headers().get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        let Ok(body) = Limited::new(request.into_body(), LARGEST).collect().await else {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, "a message has 64 KiB at most");
        };
        match serde_json::from_slice(&body.to_bytes()) {
            Ok(message) => {
                let new = self.keep(Received { sink, message, key });
                json(StatusCode::OK, &json!({ "accepted": true, "duplicate": !new }))
            }
            Err(error) => refuse(StatusCode::BAD_REQUEST, &format!("no message: {error}")),
        }
    }
}

/// One sink as a target.
pub(super) struct Sink {
    pub(super) name: &'static str,
    pub(super) sandbox: Arc<Sandbox>,
}

#[async_trait]
impl Provider for Sink {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        format!("built-in sink /{} on 127.0.0.1", self.name)
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok(format!("listens at {}", self.sandbox.sink_url(self.name).await?))
    }
}

#[async_trait]
impl Notify for Sink {
    async fn send(&self, on: &On, message: &Message) -> Result<(), ProviderError> {
        let url = self.sandbox.sink_url(self.name).await?;
        let request =
            net::client(&url)?.post(&url).header("idempotency-key", on.idempotency_key()).json(message);
        // The key makes it safe to send again.
        let response = request.send().await.map_err(|e| net::no_answer(&e, &url, true))?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(ProviderError { code: codes::NOTIFY.into(), ..net::refused(response, &url).await })
    }

    fn is_idempotent(&self) -> bool {
        true
    }
}
