//! A receiver for tests: a real HTTP server that gives the answers it was told to and remembers what it was sent.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

/// What the server answers to one request.
#[derive(Clone)]
pub(super) struct Answer {
    status: Option<u16>,
    headers: String,
    body: String,
}

impl Answer {
    pub(super) fn status(status: u16) -> Self {
        Self { status: Some(status), headers: String::new(), body: String::new() }
    }

    /// Takes the request and closes the connection.
    pub(super) fn hang_up() -> Self {
        Self { status: None, headers: String::new(), body: String::new() }
    }

    pub(super) fn header(mut self, line: &str) -> Self {
        self.headers += &format!("{line}\r\n");
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }
}

/// What the server was sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    headers: Vec<String>,
    body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> String {
        let is = |line: &&String| line.to_lowercase().starts_with(&format!("{name}: "));
        self.headers.iter().find(is).map(|line| line[name.len() + 2..].to_owned()).unwrap_or_default()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Gives one answer to each request, then none.
    pub(super) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (heard, mut answers) =
            (Arc::clone(&requests), answers.into_iter().collect::<Vec<_>>().into_iter());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                // A connection on which nothing is sent is only a look, or the end of this server.
                let Some(request) = take(&stream) else {
                    continue;
                };
                if request.line == "STOP" {
                    return;
                }
                heard.lock().expect("lock").push(request);
                let answer = answers.next().expect("an answer for each request");
                give(&stream, &answer);
            }
        });
        Self { address, requests, thread: Some(thread) }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("lock").clone()
    }

    /// Closes the port; answers which it was.
    pub(super) fn stop(mut self) -> u16 {
        self.end();
        self.address.port()
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            if let Ok(mut stream) = TcpStream::connect(self.address) {
                let _ = stream.write_all(b"STOP\r\n\r\n");
            }
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn take(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let length = |line: &String| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok();
    let mut body = vec![0; lines.iter().find_map(length).unwrap_or_default()];
    reader.read_exact(&mut body).ok()?;
    let line = lines.remove(0);
    Some(Request { line, headers: lines, body: String::from_utf8(body).expect("text") })
}

fn give(mut stream: &TcpStream, answer: &Answer) {
    let Answer { status: Some(status), headers, body } = answer else { return };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    );
}
