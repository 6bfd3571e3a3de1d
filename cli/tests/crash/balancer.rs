//! A real HAProxy with two routes, and a socket in front of its own that remembers what was set.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::lab::{Process, free, listening, on_free_ports};

/// An HAProxy with the backends `web` and `api`, each with the servers `blue` and `green`.
pub(crate) struct Balancer {
    _process: Process,
    socket: PathBuf,
    /// Where those who are watched ask.
    pub(crate) watched: PathBuf,
    pub(crate) web: SocketAddr,
    pub(crate) api: SocketAddr,
    sets: Arc<Mutex<Vec<String>>>,
}

/// All traffic on blue, on the scale that the provider deals shares out on.
const FIRST: [(&str, u32); 4] = [("web/blue", 200), ("web/green", 0), ("api/blue", 200), ("api/green", 0)];

impl Balancer {
    /// Starts it before these two servers.
    pub(crate) fn start(folder: &Path, blue: SocketAddr, green: SocketAddr) -> Self {
        let socket = folder.join("haproxy.sock");
        let (process, web, api) = on_free_ports("haproxy", || {
            let [web, api] = free();
            let mut config = format!(
                "global\n  stats socket {} mode 600 level admin\n\
                 defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n",
                socket.display()
            );
            for (name, front) in [("web", web), ("api", api)] {
                config.push_str(&format!(
                    "frontend {name}\n  bind {front}\n  default_backend {name}\n\
                     backend {name}\n  server blue {blue} weight 200\n  server green {green} weight 0\n"
                ));
            }
            std::fs::write(folder.join("haproxy.cfg"), config).expect("written");
            let mut process = Process::start("haproxy", folder, &["-db", "-f", "haproxy.cfg"]);
            let ready = || UnixStream::connect(&socket).is_ok() && TcpStream::connect(web).is_ok();
            listening(&mut process, folder, "haproxy", ready).map(|()| (process, web, api))
        });
        let sets: Arc<Mutex<Vec<String>>> = Arc::default();
        let watched = folder.join("watched.sock");
        let listener = UnixListener::bind(&watched).expect("a socket");
        let (seen, behind) = (Arc::clone(&sets), socket.clone());
        // Ends with the process of the test.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (seen, behind) = (Arc::clone(&seen), behind.clone());
                thread::spawn(move || pass(client, &behind, &seen));
            }
        });
        Self { _process: process, socket, watched, web, api, sets }
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(&self.socket).expect("the socket");
        stream.write_all(format!("{command}\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// Puts all traffic back on blue and forgets what was set.
    pub(crate) fn reset(&self) {
        let commands = FIRST.map(|(server, weight)| format!("set server {server} weight {weight}"));
        let answer = self.ask(&commands.join(";"));
        assert!(answer.trim().is_empty(), "{answer}");
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The weight of each server. Management guide, “show servers state”: 1 backend, 3 name, 7 weight.
    pub(crate) fn weights(&self) -> BTreeMap<String, u32> {
        let answer = self.ask("show servers state");
        let lines = answer.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let servers = lines.filter(|fields| fields.len() > 8 && !fields[0].starts_with('#'));
        servers
            .map(|fields| (format!("{}/{}", fields[1], fields[3]), fields[7].parse().expect("a weight")))
            .collect()
    }

    /// The weights at the beginning.
    pub(crate) fn first() -> BTreeMap<String, u32> {
        FIRST.map(|(server, weight)| (server.to_owned(), weight)).into()
    }

    /// Every weight that was set, sorted: branches set theirs in any order.
    pub(crate) fn sets(&self) -> Vec<String> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sets.sort();
        sets
    }
}

fn pass(mut client: UnixStream, socket: &Path, seen: &Mutex<Vec<String>>) {
    let mut line = String::new();
    if BufReader::new(&client).read_line(&mut line).is_err() {
        return;
    }
    let Ok(mut server) = UnixStream::connect(socket) else { return };
    let mut answer = Vec::new();
    drop(server.write_all(line.as_bytes()).and_then(|()| server.read_to_end(&mut answer)));
    if let Some(set) = line.strip_prefix("set server ") {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(set.trim().to_owned());
    }
    drop(client.write_all(&answer));
}
