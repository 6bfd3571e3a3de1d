//! A receiver of messages that knows a repeated one by its key.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::lab::http::Server;

/// Texts by key, in the order in which they came.
type Kept = BTreeMap<String, Vec<String>>;

/// The receiver.
pub(crate) struct Messages {
    server: Server,
    kept: Arc<Mutex<Kept>>,
}

impl Messages {
    pub(crate) fn start() -> Self {
        let kept: Arc<Mutex<Kept>> = Arc::default();
        let seen = Arc::clone(&kept);
        let server = Server::start(move |request| {
            let key = request.headers.get("idempotency-key").cloned().unwrap_or_default();
            let body: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
            let text = body["text"].as_str().unwrap_or_default().to_owned();
            seen.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().push(text);
            Some((202, Vec::new(), String::new()))
        });
        Self { server, kept }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn reset(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What came, by effect: each key once, as people would see it. What comes with the same key must be the same message.
    pub(crate) fn once(&self) -> BTreeMap<String, String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |(key, texts): (&String, &Vec<String>)| {
            assert!(texts.iter().all(|text| *text == texts[0]), "{key}: {texts:?}");
            let (_, effect) = key.split_once('/').expect("a key names the run and the effect");
            (effect.to_owned(), texts[0].clone())
        };
        kept.iter().map(one).collect()
    }
}
