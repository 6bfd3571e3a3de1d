//! One pool of the sandbox: replicas that are real HTTP servers, started and stopped as it is scaled.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use contraflow_runtime::provider::ProviderError;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{HeaderName, HeaderValue},
};
use serde_json::json;
use tokio::{net::TcpSocket, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    fault::Faults,
    http::{Body, Handler, Open, SendError, Upstream, answer, json, listen, not_started, serve},
    window::Seen,
};

/// How long a new replica takes until it is ready.
const STARTING: Duration = Duration::from_millis(150);

/// A pool.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// What the router saw of it.
    pub(super) seen: Seen,
    faults: Arc<Faults>,
    want: watch::Sender<u32>,
    ready: RwLock<Vec<Arc<Replica>>>,
    turn: AtomicUsize,
    open: Arc<AtomicUsize>,
    errors: Arc<Mutex<f64>>,
    started: AtomicU64,
    /// Bound and never listening: connections to it are refused for as long as the pool lives. It stands for a pool of which
    /// nothing is ready, so that probes fail the way they do against a real one.
    closed: SocketAddr,
    _closed: TcpSocket,
    stop: CancellationToken,
}

/// One server.
#[derive(Debug)]
struct Replica {
    upstream: Arc<Upstream>,
    /// Finishes open requests.
    drain: CancellationToken,
    /// Breaks them off.
    kill: CancellationToken,
}

impl Pool {
    /// A pool with `replicas` servers, ready at once, that lives until `stop`.
    pub(super) async fn start(
        name: &'static str,
        version: &'static str,
        replicas: u32,
        faults: Arc<Faults>,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, ProviderError> {
        let reserved = TcpSocket::new_v4().map_err(|e| not_started(&e))?;
        reserved.bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(|e| not_started(&e))?;
        let pool = Arc::new(Self {
            name,
            version,
            seen: Seen::default(),
            faults,
            want: watch::Sender::new(replicas),
            ready: RwLock::default(),
            turn: AtomicUsize::new(0),
            open: Arc::default(),
            errors: Arc::default(),
            started: AtomicU64::new(0),
            closed: reserved.local_addr().map_err(|e| not_started(&e))?,
            _closed: reserved,
            stop: stop.clone(),
        });
        if !pool.faults.is_dead(name) {
            pool.start_up_to(replicas).await?;
        }
        let keeper = Arc::clone(&pool);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keeper.keep() => {}
            }
        });
        Ok(pool)
    }

    /// How many replicas it is set to.
    pub(super) fn wanted(&self) -> u32 {
        *self.want.borrow()
    }

    /// How many replicas take requests.
    pub(super) fn ready(&self) -> u32 {
        u32::try_from(self.ready.read().unwrap_or_else(PoisonError::into_inner).len()).unwrap_or(u32::MAX)
    }

    /// How many requests are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Sets how many replicas it should have.
    pub(super) fn scale(&self, want: u32) {
        self.want.send_replace(want);
    }

    /// Where a replica of it answers; where connections are refused if none is ready.
    pub(super) fn address(&self) -> SocketAddr {
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner);
        ready.first().map_or(self.closed, |replica| replica.upstream.address())
    }

    /// Starts and stops servers until there are as many as wanted; none while the pool is dead.
    async fn keep(&self) {
        let mut want = self.want.subscribe();
        loop {
            let dead = self.faults.is_dead(self.name);
            let target = if dead { 0 } else { *want.borrow_and_update() };
            self.stop_down_to(target, dead);
            let turned = self.faults.until(|faults| faults.is_dead(self.name) != dead);
            if self.ready() < target {
                tokio::select! {
                    () = tokio::time::sleep(STARTING) => {
                        if self.start_up_to(target).await.is_err() {
                            // No port or no file descriptor: tried again after the next pause.
                            continue;
                        }
                    }
                    _ = want.changed() => {}
                    () = turned => {}
                }
            } else {
                tokio::select! {
                    _ = want.changed() => {}
                    () = turned => {}
                }
            }
        }
    }

    async fn start_up_to(&self, target: u32) -> Result<(), ProviderError> {
        while self.ready() < target {
            let (listener, address) = listen().await?;
            let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
            let app = Arc::new(App {
                pool: self.name,
                version: self.version,
                replica: format!("{}-{number}", self.name),
                faults: Arc::clone(&self.faults),
                errors: Arc::clone(&self.errors),
            });
            let (drain, kill) = (CancellationToken::new(), self.stop.child_token());
            serve(listener, app, drain.clone(), kill.clone());
            let replica = Replica { upstream: Upstream::new(address), drain, kill };
            self.ready.write().unwrap_or_else(PoisonError::into_inner).push(Arc::new(replica));
        }
        Ok(())
    }

    fn stop_down_to(&self, target: u32, at_once: bool) {
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        let keep = ready.len().min(target as usize);
        for replica in ready.drain(keep..) {
            replica.drain.cancel();
            if at_once {
                replica.kill.cancel();
            }
        }
    }

    /// Passes a request on to the replica whose turn it is, or to the next one if it is gone.
    pub(super) async fn forward(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        let open = Open::new(&self.open);
        let began = Instant::now();
        let ready = self.ready.read().unwrap_or_else(PoisonError::into_inner).clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut broken = false;
        for i in 0..ready.len() {
            let replica = &ready[(turn + i) % ready.len()];
            match replica.upstream.send(request.clone()).await {
                Ok(response) => {
                    self.seen.record(response.status().as_u16(), began.elapsed());
                    return response.map(|body| body.counted(open).boxed_unsync());
                }
                Err(SendError::Refused) => {}
                Err(SendError::Broken) => {
                    broken = true;
                    break;
                }
            }
        }
        let (status, text) = if broken {
            (StatusCode::BAD_GATEWAY, format!("a replica of {} closed the connection\n", self.name))
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, format!("no replica of {} is ready\n", self.name))
        };
        self.seen.record(status.as_u16(), began.elapsed());
        answer(status, "text/plain", text)
    }
}

/// The application that runs in every replica.
///
/// `/` and `/health` answer at once, `/slow` after `?ms=` milliseconds (default 1000, at most 60000).
struct App {
    pool: &'static str,
    version: &'static str,
    replica: String,
    faults: Arc<Faults>,
    /// Share of an error that is due, in the whole pool: errors come at regular intervals instead of by chance.
    errors: Arc<Mutex<f64>>,
}

impl App {
    fn fails(&self) -> bool {
        let rate = self.faults.error_rate(self.pool);
        let mut due = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        *due += rate;
        if rate > 0.0 && *due >= 1.0 - 1e-9 {
            *due -= 1.0;
            return true;
        }
        false
    }
}

const HEADERS: [(&str, &str); 3] = [
    ("strict-transport-security", "max-age=31536000; includeSubDomains"),
    ("content-security-policy", "default-src 'self'"),
    ("x-content-type-options", "nosniff"),
];

impl Handler for App {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let late = self.faults.latency(self.pool);
        if !late.is_zero() {
            tokio::time::sleep(late).await;
        }
        let path = request.uri().path();
        let says = |status: &str| json!({ "status": status, "pool": self.pool, "version": self.version, "replica": self.replica });
        let mut response = if path != "/health" && self.fails() {
            json(StatusCode::INTERNAL_SERVER_ERROR, &says("broken by a fault"))
        } else {
            match path {
                "/" | "/health" => json(StatusCode::OK, &says("ok")),
                "/slow" => {
                    let query = request.uri().query().unwrap_or_default();
                    let ms = query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse::<u64>().ok());
                    tokio::time::sleep(Duration::from_millis(ms.unwrap_or(1000).min(60_000))).await;
                    json(StatusCode::OK, &says("ok"))
                }
                _ => json(StatusCode::NOT_FOUND, &says("there are /, /health and /slow")),
            }
        };
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert("x-pool", HeaderValue::from_static(self.pool));
        if let Ok(replica) = HeaderValue::from_str(&self.replica) {
            headers.insert("x-replica", replica);
        }
        response
    }
}
