//! The real binary in a folder of its own.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::eventually;

/// Longest time for one command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(80);

/// The page of the guide whose files are used here.
const GUIDE: &str = include_str!("../../../../docs/src/guide/real-servers.md");

/// The first block of that language in the guide.
pub(crate) fn from_guide(language: &str) -> String {
    let (_, rest) = GUIDE
        .split_once(&format!("\n```{language}\n"))
        .unwrap_or_else(|| panic!("no {language} in the guide"));
    let (block, _) = rest.split_once("\n```\n").expect("the end of a block");
    format!("{block}\n")
}

/// `text` with each of these exchanged. Panics if one is not there.
pub(crate) fn exchanged(mut text: String, pairs: &[(&str, &str)]) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "the guide does not say \"{from}\" any more");
        text = text.replace(from, to);
    }
    text
}

/// The binary, with a configuration and variables.
#[derive(Clone)]
pub(crate) struct Contraflow {
    pub(crate) folder: PathBuf,
    variables: BTreeMap<String, String>,
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Done {
    /// The exit code; 128 and the signal if one ended it.
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Contraflow {
    /// With the guide's `contraflow.toml` in `folder`, as it is.
    pub(crate) fn new(folder: &Path) -> Self {
        std::fs::write(folder.join("contraflow.toml"), from_guide("toml")).expect("written");
        std::fs::create_dir_all(folder.join("migrations")).expect("a folder");
        Self { folder: folder.to_owned(), variables: BTreeMap::new() }
    }

    /// Sets a variable for all commands.
    pub(crate) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Writes a file next to the configuration.
    pub(crate) fn write(&self, name: &str, text: &str) -> &Self {
        std::fs::write(self.folder.join(name), text).expect("written");
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contraflow"));
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.folder)
            .env("USER", "ann")
            .env("CONTRAFLOW_STATE_DIR", self.folder.join("state"))
            .envs(&self.variables)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.start(arguments).end()
    }

    /// Starts a command and reads what it prints as it comes.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let log = tempfile::NamedTempFile::new_in(&self.folder).expect("a file");
        let (file, path) = log.keep().expect("a file");
        let mut child =
            self.command(arguments).stdout(Stdio::piped()).stderr(file).spawn().expect("contraflow starts");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&lines);
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let reading = thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Running { child, lines, reading: Some(reading), errors: path }
    }

    /// Starts the shipped runbook, with events as JSON.
    pub(crate) fn start_blue_green(&self, hold: &str) -> Running {
        let hold = format!("hold={hold}");
        self.start(&["run", BLUE_GREEN, "--output", "json", "--param", "retire=false", "--param", &hold])
    }
}

/// The runbook that ships.
pub(crate) const BLUE_GREEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../runbooks/blue-green.rhai");

/// A command that runs. Killed with this.
pub(crate) struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reading: Option<JoinHandle<()>>,
    errors: PathBuf,
}

impl Running {
    /// Everything that it printed so far.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// The events so far, of a command with `--output json`.
    pub(crate) fn events(&self) -> Vec<Value> {
        events(&self.text())
    }

    /// Waits for an event.
    pub(crate) fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || {
            let found = self.events().into_iter().find(&wanted);
            if found.is_none() && !self.is_running() {
                let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
                panic!("{what}: did not come before the end:\n{}\n{errors}", self.text());
            }
            found
        })
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("it is there");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if self.is_running() {
            self.signal(Signal::SIGKILL);
        }
        drop(self.child.wait());
        drop(self.reading.take().map(JoinHandle::join));
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Done {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it did not end within {PATIENCE:?}:\n{}", self.text());
            thread::sleep(Duration::from_millis(5));
        };
        drop(self.reading.take().map(JoinHandle::join));
        let mut err = String::new();
        std::io::Read::read_to_string(&mut File::open(&self.errors).expect("a file"), &mut err)
            .expect("UTF-8");
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Done { code, out: self.text(), err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

impl Done {
    /// Its events, of a command with `--output json`.
    pub(crate) fn events(&self) -> Vec<Value> {
        events(&self.out)
    }

    /// Both streams, for messages of tests.
    pub(crate) fn text(&self) -> String {
        format!("exit {}\n{}\n{}", self.code, self.out, self.err)
    }

    /// Panics unless it ended with `code`.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text());
        self
    }

    /// Panics unless both streams together hold each of these.
    pub(crate) fn says(&self, all: &[&str]) -> &Self {
        let text = self.text();
        for wanted in all {
            assert!(text.contains(wanted), "no \"{wanted}\" in:\n{text}");
        }
        self
    }
}
