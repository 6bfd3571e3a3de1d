//! What the tests stand on: servers that end with their test, and what reads them without Contraflow.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(crate) mod contraflow;
pub(crate) mod database;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod nginx;
pub(crate) mod prometheus;
pub(crate) mod world;

/// Whether servers have to be there.
pub(crate) fn wanted() -> bool {
    std::env::var("CONTRAFLOW_TEST_SERVERS").is_ok_and(|set| set == "1")
}

/// Whether all these programs are installed. Panics where they have to be and are not.
pub(crate) fn installed(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find(program).is_none());
    let Some(program) = missing else { return true };
    assert!(
        !wanted(),
        "{program} is not installed and CONTRAFLOW_TEST_SERVERS=1 wants it: run tests/servers/install"
    );
    eprintln!("not tested: {program} is not installed (tests/servers/install)");
    false
}

/// A program in `PATH`, or where Debian keeps servers.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A program, ready to be given arguments.
pub(crate) fn program(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// A process that ends with this.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program that writes to `NAME.log` in `folder`.
    pub(crate) fn start(name: &str, folder: &Path, arguments: &[&str]) -> Self {
        let log = File::create(folder.join(format!("{name}.log"))).expect("a log file");
        let child = program(name)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log file"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        Self(child)
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// So many addresses of loopback that are free now, all different.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    // Held until all are known.
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address"))
}

/// Asks again and again until there is an answer.
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < patience, "{what}: not within {patience:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a server wrote.
pub(crate) fn log(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
}

/// Starts a server on free ports. Somebody else may take one between choosing and binding; then it is tried again.
pub(crate) fn on_free_ports<T>(name: &str, mut start: impl FnMut() -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..5 {
        match start() {
            Ok(server) => return server,
            Err(why) => last = why,
        }
    }
    panic!("{name} did not start on five choices of ports: {last}");
}

/// Waits until a server that was just started takes connections.
pub(crate) fn listening(
    process: &mut Process,
    folder: &Path,
    name: &str,
    ready: impl Fn() -> bool,
) -> Result<(), String> {
    let begun = Instant::now();
    while !ready() {
        if !process.is_running() || begun.elapsed() > Duration::from_secs(30) {
            return Err(log(folder, name));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
