//! A real HAProxy in front of two pools, read through its own socket.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use super::{Process, eventually, free, listening, on_free_ports};

/// A socket in front of HAProxy's that passes everything on, until it is told to stop in the middle of a change.
pub(crate) struct Gate {
    pub(crate) path: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    /// So many more commands that set a weight are passed on; the next one reaches nobody and is not answered.
    left: AtomicI64,
    stuck: AtomicBool,
}

impl Gate {
    /// In front of `socket`. Its threads end with the process of the test.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let path = socket.with_file_name("gate.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let shared = Arc::new(Shared { left: AtomicI64::new(i64::MAX), stuck: AtomicBool::new(false) });
        let state = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (socket, state) = (socket.clone(), Arc::clone(&state));
                thread::spawn(move || pass(client, &socket, &state));
            }
        });
        Self { path, shared }
    }

    /// Lets `more` weights be set and keeps the one after them.
    pub(crate) fn stop_after(&self, more: i64) {
        self.shared.stuck.store(false, Ordering::SeqCst);
        self.shared.left.store(more, Ordering::SeqCst);
    }

    /// Lets everything pass.
    pub(crate) fn open(&self) {
        self.stop_after(i64::MAX);
    }

    /// Waits until it keeps a command back.
    pub(crate) fn is_stuck(&self) {
        eventually("a command that is kept back", Duration::from_secs(60), || {
            self.shared.stuck.load(Ordering::SeqCst).then_some(())
        });
    }
}

fn pass(mut client: UnixStream, socket: &Path, shared: &Shared) {
    let mut line = String::new();
    if BufReader::new(&client).read_line(&mut line).is_err() {
        return;
    }
    if line.starts_with("set server") && shared.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
        shared.stuck.store(true, Ordering::SeqCst);
        // Until the other side is gone.
        drop(client.read(&mut [0]));
        return;
    }
    let Ok(mut server) = UnixStream::connect(socket) else { return };
    drop(server.write_all(line.as_bytes()).and_then(|()| std::io::copy(&mut server, &mut client)));
}

/// A HAProxy with the configuration of the guide.
pub(crate) struct HaProxy {
    process: Process,
    folder: PathBuf,
    pub(crate) front: SocketAddr,
    pub(crate) exporter: SocketAddr,
}

impl HaProxy {
    /// Starts it and waits until all servers are up. `config` makes the configuration of front, exporter and socket.
    pub(crate) fn start(folder: &Path, config: impl Fn(SocketAddr, SocketAddr, &Path) -> String) -> Self {
        let this = on_free_ports("haproxy", || {
            let [front, exporter] = free();
            std::fs::write(folder.join("haproxy.cfg"), config(front, exporter, &folder.join("haproxy.sock")))
                .expect("written");
            Self::launch(folder, front, exporter)
        });
        this.all_up();
        this
    }

    fn launch(folder: &Path, front: SocketAddr, exporter: SocketAddr) -> Result<Self, String> {
        let mut process = Process::start("haproxy", folder, &["-db", "-f", "haproxy.cfg"]);
        let ready =
            || UnixStream::connect(folder.join("haproxy.sock")).is_ok() && TcpStream::connect(front).is_ok();
        listening(&mut process, folder, "haproxy", ready)?;
        Ok(Self { process, folder: folder.to_owned(), front, exporter })
    }

    /// Where its socket is.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("haproxy.sock")
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, at the same addresses, as its configuration file says.
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        *self = Self::launch(&self.folder, self.front, self.exporter).expect("it starts again");
        self.all_up();
    }

    /// What it answers to a command.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("the socket");
        stream.write_all(format!("{command}\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// One line for each server: its fields. Management guide, “show servers state”: 3 name, 5 operation, 7 weight.
    fn servers(&self) -> Vec<Vec<String>> {
        let answer = self.ask("show servers state web");
        let lines = answer.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|fields| fields.len() > 8 && fields[1] == "web").collect()
    }

    fn all_up(&self) {
        eventually("all servers up", Duration::from_secs(20), || {
            let servers = self.servers();
            (servers.len() == 4 && servers.iter().all(|fields| fields[5] == "2")).then_some(())
        });
    }

    /// The weight of each server.
    pub(crate) fn weights(&self) -> BTreeMap<String, u64> {
        let read = |fields: Vec<String>| (fields[3].clone(), fields[7].parse().expect("a weight"));
        self.servers().into_iter().map(read).collect()
    }

    /// Percent of all weight that servers of the pool `green` have, which must be a whole number.
    pub(crate) fn green(&self) -> u64 {
        let weights = self.weights();
        let sum: u64 = weights.values().sum();
        let green: u64 = weights.iter().filter(|(name, _)| name.starts_with("green")).map(|(_, w)| w).sum();
        assert_eq!(green * 100 % sum, 0, "{weights:?}");
        green * 100 / sum
    }
}
