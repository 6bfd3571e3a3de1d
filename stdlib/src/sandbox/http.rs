//! HTTP servers and connections of the sandbox: real sockets on loopback.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use contraflow_runtime::{error::codes as runtime_codes, provider::ProviderError};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1::{SendRequest, handshake},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::fault::Faults;

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A whole answer.
pub(super) fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", format!("{value}\n"))
}

/// Answers requests.
pub(super) trait Handler: Send + Sync + 'static {
    /// Answers one.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// A free port on loopback.
pub(super) async fn listen() -> Result<(TcpListener, SocketAddr), ProviderError> {
    let bound = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    bound.await.map_err(|e| not_started(&e))
}

/// The error for a sandbox that could not start.
pub(super) fn not_started(error: &dyn std::fmt::Display) -> ProviderError {
    ProviderError::terminal(runtime_codes::UNREACHABLE, format!("the sandbox could not start: {error}"))
}

/// Serves until `drain`: then nothing more is accepted, and open requests finish. `kill` breaks everything off. The handle
/// completes when the port is free.
pub(super) fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    drain: CancellationToken,
    kill: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                biased;
                () = kill.cancelled() => return,
                () = drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, as a rule: some may be free soon.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            let (handler, drain, kill) = (Arc::clone(&handler), drain.clone(), kill.clone());
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let handler = Arc::clone(&handler);
                    async move { Ok::<_, Infallible>(handler.answer(request).await) }
                });
                let mut connection =
                    pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                tokio::select! {
                    biased;
                    () = kill.cancelled() => return,
                    () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
                    _ = connection.as_mut() => return,
                }
                tokio::select! {
                    () = kill.cancelled() => {}
                    _ = connection => {}
                }
            });
        }
    })
}

/// Serves until `stop`, except while `down` holds: then connections to the port are refused.
pub(super) fn serve_unless<H: Handler>(
    listener: TcpListener,
    address: SocketAddr,
    handler: Arc<H>,
    faults: Arc<Faults>,
    down: fn(&Faults) -> bool,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let mut listener = Some(listener);
        let serving = async {
            loop {
                if down(&faults) {
                    drop(listener.take());
                    faults.until(|faults| !down(faults)).await;
                }
                let listening = match listener.take() {
                    Some(listening) => listening,
                    None => match TcpListener::bind(address).await {
                        Ok(listening) => listening,
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            continue;
                        }
                    },
                };
                let kill = stop.child_token();
                let port = serve(listening, Arc::clone(&handler), CancellationToken::new(), kill.clone());
                faults.until(down).await;
                kill.cancel();
                let _ = port.await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = serving => {}
        }
    });
}

/// Connections to one server, kept for further requests.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// No more connections than this are kept when idle.
const MOST_IDLE: usize = 64;

impl Upstream {
    pub(super) fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, idle: Mutex::default() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends one request. A kept connection that the server has closed meanwhile is replaced by a new one, for requests that
    /// may be sent twice.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Relayed>, SendError> {
        let again = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        while let Some(mut kept) = self.take() {
            if kept.is_closed() || kept.ready().await.is_err() {
                continue;
            }
            match kept.send_request(request.clone()).await {
                Ok(response) => return Ok(self.relay(response, kept)),
                Err(error) if error.is_canceled() || again => {}
                Err(_) => return Err(SendError::Broken),
            }
        }
        let stream = TcpStream::connect(self.address).await.map_err(|_| SendError::Refused)?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|_| SendError::Refused)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|_| SendError::Broken)?;
        Ok(self.relay(response, sender))
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn relay(
        self: &Arc<Self>,
        response: Response<Incoming>,
        sender: SendRequest<Full<Bytes>>,
    ) -> Response<Relayed> {
        response.map(|body| Relayed { body, back: Some((Arc::clone(self), sender)), open: None })
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// Nothing was sent.
    Refused,
    /// The connection broke after the request was sent.
    Broken,
}

/// Counts one request for as long as it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<AtomicUsize>);

impl Open {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer that is passed on as it comes. When it has been read to its end its connection is kept.
#[derive(Debug)]
pub(super) struct Relayed {
    body: Incoming,
    back: Option<(Arc<Upstream>, SendRequest<Full<Bytes>>)>,
    open: Option<Open>,
}

impl Relayed {
    /// Counts the request as open until the body has been passed on.
    pub(super) fn counted(mut self, open: Open) -> Self {
        self.open = Some(open);
        self
    }
}

impl hyper::body::Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if let Some((upstream, sender)) = self.back.take()
            && self.body.is_end_stream()
        {
            let mut idle = upstream.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < MOST_IDLE {
                idle.push(sender);
            }
        }
    }
}
