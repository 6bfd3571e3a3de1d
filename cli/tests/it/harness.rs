//! A folder with its own state directory, and the binary started in it.

use std::{
    fmt,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use regex::Regex;
use serde_json::Value;

/// Longest time that any call may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where one test takes place. Removed at its end.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    /// The exit code; 128 and the signal if one ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Most memory that it held, in bytes.
    pub(crate) peak: u64,
    pub(crate) took: Duration,
    dir: PathBuf,
}

/// A call that is still going on.
pub(crate) struct Running {
    child: Child,
    pid: Pid,
    lines: mpsc::Receiver<String>,
    stdout: thread::JoinHandle<Vec<u8>>,
    stderr: thread::JoinHandle<Vec<u8>>,
    started: Instant,
    dir: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("contraflow-it-").tempdir().expect("a folder");
        fs::create_dir(dir.path().join("tmp")).expect("a folder");
        Self { dir }
    }

    /// A lab with one runbook, `run.rhai`: a header named `test`, and `body`.
    pub(crate) fn with(body: &str) -> Self {
        let lab = Self::new();
        lab.runbook(body);
        lab
    }

    /// Writes `run.rhai`.
    pub(crate) fn runbook(&self, body: &str) {
        self.write("run.rhai", format!("const RUNBOOK = #{{ name: \"test\" }};\n{body}\n"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(&path, text).expect("a file");
        path
    }

    /// The folder in which runs are kept unless the test says otherwise.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("state/contraflow")
    }

    /// The binary with these arguments, in this folder, with nothing of the caller's environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contraflow"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.path("tmp"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("USER", "tester")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn contraflow(&self, args: &[&str]) -> Ended {
        self.end(&mut self.command(args))
    }

    /// Runs a command to its end.
    pub(crate) fn end(&self, command: &mut Command) -> Ended {
        self.start(command).wait()
    }

    /// Starts `run.rhai`, with output for programs.
    pub(crate) fn begin(&self) -> Running {
        self.start(&mut self.command(&["run", "run.rhai", "--output", "json"]))
    }

    /// Starts `run.rhai`; returns when it sleeps.
    pub(crate) fn asleep(&self) -> Running {
        let running = self.begin();
        running.sleeps();
        running
    }

    /// Starts a command.
    pub(crate) fn start(&self, command: &mut Command) -> Running {
        let started = Instant::now();
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let (send, lines) = mpsc::channel();
        let out = child.stdout.take().expect("piped");
        let stdout = thread::spawn(move || {
            let (mut reader, mut all) = (BufReader::new(out), Vec::new());
            loop {
                let before = all.len();
                match reader.read_until(b'\n', &mut all) {
                    Ok(0) | Err(_) => return all,
                    // Nobody may be waiting for lines any more.
                    Ok(_) => drop(send.send(String::from_utf8_lossy(&all[before..]).into_owned())),
                }
            }
        });
        let mut err = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut all = Vec::new();
            // What was read until an error is worth showing.
            let _ = err.read_to_end(&mut all);
            all
        });
        Running { child, pid, lines, stdout, stderr, started, dir: self.dir.path().to_owned() }
    }

    /// Runs the binary at a terminal, with `typed` as what a person types.
    pub(crate) fn at_terminal(&self, args: &[&str], typed: &str) -> Ended {
        let mut seat = self.sit_down(args);
        seat.types(typed);
        seat.leave()
    }

    /// Starts the binary at a terminal.
    pub(crate) fn sit_down(&self, args: &[&str]) -> Seat {
        let pty = nix::pty::openpty(None, None).expect("a terminal");
        let side = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a copy"));
        let mut command = self.command(args);
        command
            .env("TERM", "xterm")
            .stdin(side(&pty.slave))
            .stdout(side(&pty.slave))
            .stderr(side(&pty.slave));
        let started = Instant::now();
        let child = command.spawn().expect("the binary starts");
        drop((command, pty.slave));
        let keyboard = File::from(pty.master.try_clone().expect("a copy"));
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut screen, all) = (File::from(pty.master), Arc::clone(&shown));
        let reader = thread::spawn(move || {
            let mut some = [0; 4096];
            // Ends with an error when the other side is closed.
            while let Ok(n @ 1..) = screen.read(&mut some) {
                all.lock().expect("a lock").extend_from_slice(&some[..n]);
            }
        });
        Seat { child, keyboard, shown, reader, started, dir: self.dir.path().to_owned() }
    }

    /// What is left in the folder for temporary files.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        names(&self.path("tmp"))
    }

    /// How many runs the state directory holds, by what `contraflow runs` says.
    pub(crate) fn runs(&self) -> Vec<Value> {
        self.contraflow(&["runs", "--all", "--output", "json"]).succeeded().json()
    }

    /// Waits until the newest run is `as_wanted`.
    pub(crate) fn until(&self, what: &str, as_wanted: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        while !self.runs().first().is_some_and(&as_wanted) {
            if started.elapsed() > PATIENCE {
                panic!("no {what}: {}", self.contraflow(&["show", "last"]));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A person at a terminal.
pub(crate) struct Seat {
    child: Child,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
    started: Instant,
    dir: PathBuf,
}

impl Seat {
    pub(crate) fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("typed");
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("a lock")).into_owned()
    }

    /// Waits until the screen shows that.
    pub(crate) fn sees(&self, what: &str) {
        while !self.screen().contains(what) {
            assert!(self.started.elapsed() < PATIENCE, "no {what:?} in {}", self.screen());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a number"));
        kill(pid, signal).expect("it is there");
    }

    /// Waits for the end.
    pub(crate) fn leave(mut self) -> Ended {
        let (code, peak) = await_end(&mut self.child, self.started);
        drop(self.keyboard);
        self.reader.join().expect("read");
        let stdout = String::from_utf8_lossy(&self.shown.lock().expect("a lock")).into_owned();
        Ended { code, stdout, stderr: String::new(), peak, took: self.started.elapsed(), dir: self.dir }
    }
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn await_end(child: &mut Child, started: Instant) -> (i32, u64) {
    use std::os::unix::process::ExitStatusExt as _;
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Ok(text) = fs::read_to_string(&status)
            && let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))
        {
            let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
            peak = peak.max(kib << 10);
        }
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return (status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()), peak);
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not over within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Running {
    /// Waits for the next line of standard output that contains `what`.
    pub(crate) fn wait_for(&self, what: &str) -> String {
        let deadline = self.started + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(what) => return line,
                Ok(_) => {}
                Err(_) => panic!("no line with {what:?}"),
            }
        }
    }

    /// Waits for the next sleep of a run.
    pub(crate) fn sleeps(&self) {
        self.wait_for("\"effect\":\"sleep\"");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("it is there");
    }

    /// Ends the process without a word, once what it has done so far is in the journal.
    pub(crate) fn dies(self) {
        // Longer than records are held back.
        thread::sleep(Duration::from_millis(300));
        self.signal(Signal::SIGKILL);
        self.wait().exits_with(128 + 9);
    }

    pub(crate) fn wait(mut self) -> Ended {
        let (code, peak) = await_end(&mut self.child, self.started);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let stdout = text(self.stdout.join().expect("read"));
        let stderr = text(self.stderr.join().expect("read"));
        Ended { code, stdout, stderr, peak, took: self.started.elapsed(), dir: self.dir }
    }
}

/// A text without what differs from one execution to the next: places, names of runs, times, ports.
fn normal(text: &str, dir: &Path) -> String {
    let text = text.replace(&dir.display().to_string(), "[DIR]");
    let steps = [
        (r"\b(test|look|hello|blue-green)-[a-z2-9]{6}\b", "$1-[ID]"),
        (r"tester@[A-Za-z0-9._-]+", "tester@[HOST]"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:[PORT]"),
        (r"\b\d+(\.\d+)?(ms|µs)", "[MS]"),
        // Only there if it took long enough.
        (r" \((\[MS\]|\d+s)\)", ""),
        (r"\b(in|after) (\[MS\]|<1ms|\d+s)", "$1 [TIME]"),
        (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "[WHEN]"),
        (r"\b(head|bundle|plan) [0-9a-f]{12}\b", "$1 [HASH]"),
    ];
    steps.iter().fold(text, |text, (find, with)| {
        Regex::new(find).expect("a pattern").replace_all(&text, *with).into_owned()
    })
}

/// Everything that a person would see, for snapshots.
impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = format!("exit {}", self.code);
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                shown.push_str(&format!("\n----- {name}\n{}", text.trim_end()));
            }
        }
        f.write_str(&normal(&shown, &self.dir))
    }
}

impl Ended {
    /// The same, after a check that it went well.
    pub(crate) fn succeeded(self) -> Self {
        self.exits_with(0)
    }

    /// The same, after a check of the exit code.
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// The same, after a check that this is on standard error.
    pub(crate) fn says(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "no {what:?} in: {self}");
        self
    }

    /// The same, after a check that an error with this code is on standard error, for people or for programs.
    pub(crate) fn complains(self, code: &str) -> Self {
        let (human, json) = (format!("error[{code}]"), format!("{{\"error\":{{\"code\":\"{code}\""));
        assert!(self.stderr.contains(&human) || self.stderr.contains(&json), "no {code} in: {self}");
        self
    }

    /// What a person would see, with one space where columns are aligned by what differs each time.
    pub(crate) fn columns(&self) -> String {
        Regex::new(" {2,}").expect("a pattern").replace_all(&self.to_string(), "  ").into_owned()
    }

    /// Each line of standard output as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// The events of one kind.
    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.json().into_iter().filter(|event| event["event"] == kind).collect()
    }

    /// What was changed, in order, as `effect target: from -> to`.
    pub(crate) fn changes(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.events("effect_ended")
            .iter()
            .filter(|event| event["result"] == "changed")
            .map(|event| {
                format!(
                    "{} {} -> {}",
                    text(&event["effect"]),
                    text(&event["from_text"]),
                    text(&event["to_text"])
                )
            })
            .collect()
    }
}
