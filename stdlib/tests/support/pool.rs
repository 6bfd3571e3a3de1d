//! A server of a pool, for routes in front of it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinHandle};

/// Names its pool in a header, answers `/slow?ms=…` late, and `/health` with 503 while it is `ill`.
pub(crate) async fn serve(pool: &'static str, ill: Arc<AtomicBool>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ill = Arc::clone(&ill);
            let service = service_fn(move |request: Request<Incoming>| {
                let failing = request.uri().path() == "/health" && ill.load(Ordering::SeqCst);
                async move {
                    let ms = request.uri().query().and_then(|q| q.strip_prefix("ms=")?.parse().ok());
                    tokio::time::sleep(Duration::from_millis(ms.unwrap_or(0))).await;
                    let response = Response::builder()
                        .status(if failing { 503 } else { 200 })
                        .header("x-pool", pool)
                        .body(Full::new(Bytes::from_static(b"ok")));
                    Ok::<_, Infallible>(response.expect("a response"))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, task)
}
