//! Servers for the tests of `http` and `probe`, on loopback.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contraflow_runtime::{effect::On, provider::Providers};
use http_body_util::{BodyExt, Full};
use hyper::{Response, body::Bytes, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// An effect's surroundings with no targets.
pub(crate) fn detached() -> On {
    On::detached(Arc::new(Providers::new("test")))
}

/// The same with one secret that has been read.
pub(crate) fn with_secret(name: &str, value: &str) -> On {
    let on = detached();
    on.vault().keep(name, zeroize::Zeroizing::new(value.to_owned()));
    on
}

/// A request as a test server sees it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    /// How many requests came before.
    pub(crate) nth: usize,
}

/// What a test server answers.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
}

impl Reply {
    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec(), delay: Duration::ZERO }
    }

    pub(crate) fn bytes(body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..Self::ok("") }
    }

    pub(crate) fn ok(body: &str) -> Self {
        Self::status(200, body)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn delay_ms(mut self, ms: u64) -> Self {
        self.delay = Duration::from_millis(ms);
        self
    }
}

/// An HTTP server, stopped when dropped.
pub(crate) struct Server {
    scheme: &'static str,
    addr: SocketAddr,
    hits: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(handler: impl Fn(Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::serve(None, handler).await
    }

    pub(crate) async fn start_tls(
        config: rustls::ServerConfig,
        handler: impl Fn(Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let hits = Arc::new(AtomicUsize::new(0));
        let connections = Arc::new(AtomicUsize::new(0));
        let handler: Arc<dyn Fn(Received) -> Reply + Send + Sync> = Arc::new(handler);
        let (hits_of, connections_of) = (Arc::clone(&hits), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections_of.fetch_add(1, Ordering::SeqCst);
                let (handler, hits, tls) = (Arc::clone(&handler), Arc::clone(&hits_of), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, handler, hits).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, handler, hits).await;
                            }
                        }
                    }
                });
            }
        });
        Self { scheme, addr, hits, connections, task }
    }

    /// Address of the server with a slash at the end.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.addr)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests came.
    pub(crate) fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// URL of a port at which nobody listens.
    pub(crate) async fn refusing() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        format!("http://{}/", listener.local_addr().expect("address"))
    }

    /// URL of a server that reads a request and closes the connection.
    pub(crate) async fn hanging_up() -> String {
        Self::raw(b"").await
    }

    /// URL of a server that reads something, writes `bytes` and closes the connection.
    pub(crate) async fn raw(bytes: &'static [u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(bytes).await;
                });
            }
        });
        format!("http://{addr}/")
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    handler: Arc<dyn Fn(Received) -> Reply + Send + Sync>,
    hits: Arc<AtomicUsize>,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (handler, hits) = (Arc::clone(&handler), Arc::clone(&hits));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            let received = Received {
                method: head.method.to_string(),
                path: head.uri.to_string(),
                headers: head
                    .headers
                    .iter()
                    .map(|(name, value)| {
                        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    })
                    .collect(),
                body: String::from_utf8_lossy(&body).into_owned(),
                nth: hits.fetch_add(1, Ordering::SeqCst),
            };
            let reply = handler(received);
            tokio::time::sleep(reply.delay).await;
            let mut response = Response::builder().status(reply.status);
            for (name, value) in reply.headers {
                response = response.header(name, value);
            }
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from(reply.body))).expect("response"))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A proxy that connects everybody to one server, whatever they ask for; with it what was asked for.
pub(crate) async fn tunnel(to: SocketAddr) -> (SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("address");
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = from.read_u8().await else { return };
                    head.push(byte);
                }
                let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
                seen.lock().expect("not poisoned").push(line);
                let mut stream = tokio::net::TcpStream::connect(to).await.expect("the server");
                let _ = from.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await;
                let _ = tokio::io::copy_bidirectional(&mut from, &mut stream).await;
            });
        }
    });
    (addr, asked)
}

/// An effect's surroundings in which requests go through the proxies of these variables.
pub(crate) fn behind(variables: &[(&str, String)]) -> On {
    let mut providers = Providers::new("test");
    let of = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
    providers.extend(Arc::new(crate::net::egress::Proxies::from_variables(of)));
    On::detached(Arc::new(providers))
}

/// A certificate authority, and the certificates it issues.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// What a certificate should be like.
pub(crate) struct Wanted<'w> {
    pub(crate) names: &'w [&'w str],
    /// Days from now; negative: ago.
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { names: &["localhost", "127.0.0.1"], from: -1, until: 90 }
    }
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
    /// End of its validity in Unix time.
    pub(crate) not_after: i64,
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let mut params =
        CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        crate::net::install_tls();
        let mut params = params(&[], "Test Root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("root");
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("write");
        Self { issuer, folder }
    }

    /// Path of a PEM file with the root.
    pub(crate) fn ca(&self) -> String {
        self.folder.path().join("ca.pem").display().to_string()
    }

    /// Writes a file and returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.display().to_string()
    }

    pub(crate) fn issue(&self, wanted: &Wanted<'_>) -> Issued {
        let mut params = params(wanted.names, "leaf");
        let at = |days: i64| {
            let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(days * 24);
            rcgen::date_time_ymd(1970, 1, 1)
                + Duration::from_secs(u64::try_from(at.as_second()).expect("after 1970"))
        };
        params.not_before = at(wanted.from);
        params.not_after = at(wanted.until);
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        Issued { certificate, key, not_after: params.not_after.unix_timestamp() }
    }

    /// A server that shows a certificate of this authority.
    pub(crate) fn server(&self, wanted: &Wanted<'_>) -> rustls::ServerConfig {
        self.issue(wanted).server(rustls::ALL_VERSIONS)
    }
}

impl Issued {
    /// The same, marked as an authority, as `openssl req -x509` makes it.
    pub(crate) fn self_signed_authority(names: &[&str]) -> Self {
        crate::net::install_tls();
        let key = KeyPair::generate().expect("key");
        let mut params = params(names, "leaf");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate");
        Self { certificate, key, not_after: params.not_after.unix_timestamp() }
    }

    /// A certificate that nobody but itself vouches for.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        crate::net::install_tls();
        let key = KeyPair::generate().expect("key");
        let params = params(names, "leaf");
        let certificate = params.self_signed(&key).expect("certificate");
        Self { certificate, key, not_after: params.not_after.unix_timestamp() }
    }

    pub(crate) fn server(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ServerConfig {
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        rustls::ServerConfig::builder_with_protocol_versions(versions)
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("server")
    }

    /// The same, but it wants a certificate of `authority` from clients.
    pub(crate) fn mutual_server(&self, authority: &Authority) -> rustls::ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.issuer.der().clone()).expect("root");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("verifier");
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .expect("server")
    }
}
