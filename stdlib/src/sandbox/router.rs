//! The route of the sandbox: a real HTTP router that splits requests over the pools by weight, and the load on it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
};
use tokio_util::sync::CancellationToken;

use super::{
    balancer::Balancer,
    http::{Body, Handler, Upstream, answer},
    pool::Pool,
};

/// The router.
#[derive(Debug)]
pub(super) struct Router {
    pub(super) pools: BTreeMap<&'static str, Arc<Pool>>,
    pub(super) balancer: Arc<Balancer>,
}

/// Largest request body that is passed on.
const LARGEST_BODY: usize = 1 << 20;

/// Headers that are about one connection and not passed on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [header::HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl Handler for Router {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let Ok(body) = Limited::new(body, LARGEST_BODY).collect().await else {
            return answer(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "the router takes 1 MiB at most\n");
        };
        for name in HOP_BY_HOP {
            parts.headers.remove(name);
        }
        // The body is whole now and its length is said anew.
        parts.headers.remove(header::CONTENT_LENGTH);
        if !parts.headers.contains_key(header::HOST) {
            parts.headers.insert(header::HOST, HeaderValue::from_static("sandbox"));
        }
        parts.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = path.parse::<Uri>().unwrap_or_else(|_| Uri::from_static("/"));
        let request = Request::from_parts(parts, Full::new(body.to_bytes()));
        match self.pools.get(&*self.balancer.next()) {
            Some(pool) => pool.forward(request).await,
            None => answer(StatusCode::SERVICE_UNAVAILABLE, "text/plain", "no pool has weight\n"),
        }
    }
}

/// Requests that keep coming.
#[derive(Debug)]
pub(super) struct Load {
    per_second: AtomicU32,
    sent: AtomicU64,
}

/// How often requests are sent; several at a time where the rate is higher.
const BEAT: Duration = Duration::from_millis(10);

/// No more requests than this are open at a time: a slow route gets fewer instead of ever more.
const MOST_OPEN: usize = 256;

/// Requests that are sent at once at the start, so that metrics have data from the first moment.
const FIRST: u32 = 50;

impl Load {
    pub(super) fn new(per_second: u32) -> Arc<Self> {
        Arc::new(Self { per_second: AtomicU32::new(per_second), sent: AtomicU64::new(0) })
    }

    pub(super) fn set(&self, per_second: u32) {
        self.per_second.store(per_second, Ordering::Relaxed);
    }

    /// How many requests were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends requests to `router` until `stop`. Returns when the first ones are answered, or after a second.
    pub(super) async fn start(self: Arc<Self>, router: SocketAddr, stop: CancellationToken) {
        let upstream = Upstream::new(router);
        if self.per_second.load(Ordering::Relaxed) > 0 {
            let first = (0..FIRST).map(|_| self.request(&upstream));
            let _ = tokio::time::timeout(Duration::from_secs(1), futures_util::future::join_all(first)).await;
        }
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.go_on(upstream) => {}
            }
        });
    }

    async fn go_on(self: Arc<Self>, upstream: Arc<Upstream>) {
        let slots = Arc::new(tokio::sync::Semaphore::new(MOST_OPEN));
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut due) = (Instant::now(), 0.0);
        loop {
            beat.tick().await;
            let now = Instant::now();
            // After a pause (a busy machine, a suspended laptop) the past is not made up for.
            let passed = now.duration_since(last).min(BEAT * 10);
            last = now;
            due += passed.as_secs_f64() * f64::from(self.per_second.load(Ordering::Relaxed));
            while due >= 1.0 {
                due -= 1.0;
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
                let (load, upstream) = (Arc::clone(&self), Arc::clone(&upstream));
                tokio::spawn(async move {
                    load.request(&upstream).await;
                    drop(slot);
                });
            }
        }
    }

    async fn request(&self, upstream: &Arc<Upstream>) {
        let mut request = Request::new(Full::new(Bytes::new()));
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("sandbox"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("sandbox-load"));
        self.sent.fetch_add(1, Ordering::Relaxed);
        // What comes of it is for the router to record.
        if let Ok(response) = upstream.send(request).await {
            let _ = response.into_body().collect().await;
        }
    }
}
