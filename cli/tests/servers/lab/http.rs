//! Small HTTP servers of the tests: the pools behind HAProxy, the receiver of messages, and a client that makes traffic.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What goes out. `None`: the connection is closed without an answer.
pub(crate) type Answer = Option<(u16, Vec<(&'static str, String)>, String)>;

/// A server that answers one request a connection, each on a thread of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it on a free port.
    pub(crate) fn start(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (stop, answer) = (Arc::new(AtomicBool::new(false)), Arc::new(answer));
        let stopped = Arc::clone(&stop);
        let accepting = thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let answer = Arc::clone(&answer);
                thread::spawn(move || exchange(stream, &*answer));
            }
        });
        Self { address, stop, accepting: Some(accepting) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        drop(self.accepting.take().map(JoinHandle::join));
    }
}

fn exchange(mut stream: TcpStream, answer: &(impl Fn(Request) -> Answer + ?Sized)) {
    drop(stream.set_read_timeout(Some(Duration::from_secs(10))));
    let Some(request) = read(&stream) else { return };
    let Some((status, headers, body)) = answer(request) else { return };
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    drop(stream.write_all(format!("{text}\r\n{body}").as_bytes()));
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// The status and body that a server answers to a `GET`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Upper bounds of the histogram of durations, in seconds.
const BUCKETS: [f64; 5] = [0.005, 0.05, 0.25, 0.5, 2.0];

/// What the servers of one pool have in common.
#[derive(Default)]
pub(crate) struct Behaviour {
    /// Whether every page is answered 500. Health checks still pass, as with a release that is bad in what it does.
    failing: AtomicBool,
    /// Requests for `/held` that wait for [`Behaviour::release`].
    held: Mutex<u64>,
    released: AtomicBool,
    changed: Condvar,
}

impl Behaviour {
    /// From now on pages are answered 500.
    pub(crate) fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// How many requests for `/held` are waiting.
    pub(crate) fn held(&self) -> u64 {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers all requests for `/held`.
    pub(crate) fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    fn hold(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held += 1;
        while !self.released.load(Ordering::SeqCst) {
            let wait = self.changed.wait_timeout(held, Duration::from_millis(100));
            held = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        *held -= 1;
    }
}

/// One server of a pool: a page, a health check, and its own histogram of durations for Prometheus.
pub(crate) fn pool_server(pool: &'static str, behaviour: Arc<Behaviour>) -> Server {
    let counts: [AtomicU64; BUCKETS.len() + 1] = Default::default();
    Server::start(move |request| {
        let begun = Instant::now();
        let status = match &*request.path {
            "/metrics" => {
                return Some((200, vec![("Content-Type", "text/plain".to_owned())], histogram(&counts)));
            }
            "/health" => return Some((200, Vec::new(), "ok".to_owned())),
            "/held" => {
                behaviour.hold();
                return Some((200, Vec::new(), "ok".to_owned()));
            }
            _ if behaviour.failing.load(Ordering::SeqCst) => 500,
            _ => 200,
        };
        let headers = vec![
            ("X-Pool", pool.to_owned()),
            ("Strict-Transport-Security", "max-age=31536000".to_owned()),
            ("Content-Security-Policy", "default-src 'self'".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
        ];
        let seconds = begun.elapsed().as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        counts[bucket].fetch_add(1, Ordering::Relaxed);
        Some((status, headers, format!("this is {pool}")))
    })
}

/// A server that takes its time and counts how many requests it works on at once.
pub(crate) struct Slow {
    server: Server,
    most: Arc<AtomicU64>,
}

impl Slow {
    /// Answers after 20 ms.
    pub(crate) fn start() -> Self {
        let (now, most) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
        let highest = Arc::clone(&most);
        let server = Server::start(move |_| {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            now.fetch_sub(1, Ordering::SeqCst);
            Some((200, Vec::new(), "ok".to_owned()))
        });
        Self { server, most }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub(crate) fn most_at_once(&self) -> u64 {
        self.most.load(Ordering::SeqCst)
    }
}

fn histogram(counts: &[AtomicU64]) -> String {
    let name = "http_request_duration_seconds";
    let (mut text, mut sum) = (format!("# TYPE {name} histogram\n"), 0);
    let bounds = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    for (count, bound) in counts.iter().zip(bounds) {
        sum += count.load(Ordering::Relaxed);
        text.push_str(&format!("{name}_bucket{{le=\"{bound}\"}} {sum}\n"));
    }
    text + format!("{name}_sum 0\n{name}_count {sum}\n").as_str()
}

/// A receiver of messages that knows a repeated one by its `Idempotency-Key`.
pub(crate) struct Receiver {
    pub(crate) server: Server,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    requests: u64,
    keys: BTreeSet<String>,
    messages: Vec<serde_json::Value>,
}

impl Receiver {
    /// Takes the first message and then hangs up without an answer, as a server does that dies in between.
    pub(crate) fn start() -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let kept = Arc::clone(&seen);
        let server = Server::start(move |request| {
            let mut seen = kept.lock().unwrap_or_else(PoisonError::into_inner);
            seen.requests += 1;
            let key = request.headers.get("idempotency-key").cloned().unwrap_or_default();
            if seen.keys.insert(key) {
                seen.messages.push(serde_json::from_str(&request.body).unwrap_or(serde_json::Value::Null));
            }
            (seen.requests > 1).then(|| (202, Vec::new(), String::new()))
        });
        Self { server, seen }
    }

    /// How many requests came.
    pub(crate) fn requests(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).requests
    }

    /// The messages, each once.
    pub(crate) fn messages(&self) -> Vec<serde_json::Value> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).messages.clone()
    }
}

/// Users: one request after another, about a hundred a second.
pub(crate) struct Users {
    stop: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
    served: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Users {
    /// Begins asking for the page at `address`.
    pub(crate) fn start(address: SocketAddr) -> Self {
        let (stop, served, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (ended, good, bad) = (Arc::clone(&stop), Arc::clone(&served), Arc::clone(&failed));
        let asking = thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                let answered = get(address, "/").is_some_and(|(status, _)| status == 200);
                if answered { &good } else { &bad }.fetch_add(1, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(8));
            }
        });
        Self { stop, asking: Some(asking), served, failed }
    }

    /// How many requests were answered well, and how many were not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.served.load(Ordering::SeqCst), self.failed.load(Ordering::SeqCst))
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(self.asking.take().map(JoinHandle::join));
    }
}
