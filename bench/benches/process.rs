//! The whole program next to its peers and limits: `curl` for one probe, `wrk` for many, itself when it only says its version, the
//! disk for a change that has to be durable.
//!
//! It measures a program that is there already and builds nothing: the one that `CONTRAFLOW_BIN` names, else the one that
//! `cargo build --release -p contraflow` left. Ours and the peer's take turns, so that both see the same machine; what is printed
//! are medians. It fails only where it could not measure: whether a target is reached is for people to judge.

use std::{
    ffi::OsString,
    fs,
    io::{self, Seek as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

/// How often one probe and its peer take turns.
const ROUNDS: usize = 41;

/// How often what takes only milliseconds and its peer take turns.
const LIGHT_ROUNDS: usize = 101;

/// How often many changes and the disk take turns.
const DURABLE_ROUNDS: usize = 9;

/// How often many probes and their peer take turns; each takes about a second.
const LONG_ROUNDS: usize = 5;

/// Requests of `probe::all`.
const MANY: usize = 10_000;

/// Changes of the sandbox in one run, each durable before it is made.
const CHANGES: usize = 200;

/// Bytes that one change adds to SQLite's log: a page and its frame header.
const COMMIT: usize = 4096 + 24;

/// Connections of `probe::all` and of its peer.
const AT_ONCE: usize = 64;

type Measured<T> = Result<T, String>;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == "--peak-of").is_some() {
        return peak_of(arguments.collect());
    }
    // As one of all targets of `cargo test` there is nothing to be found out.
    if !arguments.any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(rows) => {
            let _ = io::stdout().write_all(table(&rows).as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(io::stderr(), "not measured: {why}");
            ExitCode::FAILURE
        }
    }
}

/// One line of the table.
struct Row {
    what: &'static str,
    ours: String,
    peer: String,
    ratio: String,
    target: String,
}

fn table(rows: &[Row]) -> String {
    let title = Row {
        what: "",
        ours: "contraflow".into(),
        peer: "peer".into(),
        ratio: "ratio".into(),
        target: "target".into(),
    };
    let mut text = String::new();
    for Row { what, ours, peer, ratio, target } in std::iter::once(&title).chain(rows) {
        text.push_str(&format!("{what:<44} {ours:>12} {peer:>18} {ratio:>8}   {target}\n"));
    }
    text
}

fn measure() -> Measured<Vec<Row>> {
    let contraflow = program()?;
    let [curl, wrk] = ["curl", "wrk"].map(find);
    let (curl, wrk) = (curl?, wrk?);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| format!("no folder: {e}"))?;
    let nginx = Nginx::start(folder.path())?;
    let bench = Bench { contraflow, folder: folder.path().to_owned(), url: nginx.url() };
    let _ = writeln!(io::stdout(), "{} on {}\n", bench.contraflow.display(), bench.url);
    bench.write("empty", "")?;
    bench.write("one-probe", &format!("probe::http(\"{}\");", bench.url))?;
    bench.write("hundred", &format!("for i in 0..100 {{ probe::http(\"{}\"); }}", bench.url))?;
    bench.write(
        "many",
        &format!(
            "let entries = [];\nfor i in 0..{MANY} {{ entries.push(\"{}\"); }}\nprobe::all(entries, #{{ limit: {AT_ONCE} }});",
            bench.url
        ),
    )?;
    // Makes the store, and brings everything into the caches.
    wall(&mut bench.contraflow("one-probe"))?;

    let mut get = Command::new(&curl);
    get.args(["-s", "-o", "/dev/null", &bench.url]);
    let mut rows = Vec::new();
    let (mut ours, mut peers, mut empty, mut hundred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        peers.push(wall(&mut get)?);
        ours.push(wall(&mut bench.contraflow("one-probe"))?);
        empty.push(wall(&mut bench.contraflow("empty"))?);
        hundred.push(wall(&mut bench.contraflow("hundred"))?);
    }
    let ratio = median(ours.iter().zip(&peers).map(|(ours, peer)| ours / peer));
    let (one, curl) = (median(ours), median(peers));
    rows.push(Row {
        what: "one probe, whole process",
        ours: millis(one),
        peer: format!("curl {}", millis(curl)),
        ratio: format!("{ratio:.2}"),
        target: "≤ 2.50".into(),
    });
    rows.push(Row {
        what: "  of that, a runbook that does nothing",
        ours: millis(median(empty)),
        peer: String::new(),
        ratio: String::new(),
        target: String::new(),
    });
    let peaks = (0..5).map(|_| bench.peak("one-probe")).collect::<Measured<Vec<_>>>()?;
    rows.push(Row {
        what: "one probe, peak memory",
        ours: format!("{:.1} MiB", median(peaks)),
        peer: String::new(),
        ratio: String::new(),
        target: "≤ 30 MiB".into(),
    });
    rows.push(Row {
        what: "100 probes in turn, whole process",
        ours: millis(median(hundred)),
        peer: String::new(),
        ratio: String::new(),
        target: "≤ 60 ms".into(),
    });

    let (mut ours, mut whole, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..LONG_ROUNDS {
        peers.push(requests_per_second(&wrk, &bench.url)?);
        let (run, effect) = bench.many()?;
        ours.push(MANY as f64 / effect);
        whole.push(MANY as f64 / run);
    }
    let rate = |ours: &[f64]| median(ours.iter().zip(&peers).map(|(ours, peer)| ours / peer));
    for (what, ours) in
        [("probe::all of 10,000, the effect", &ours), ("probe::all of 10,000, whole process", &whole)]
    {
        rows.push(Row {
            what,
            ours: format!("{:.0}/s", median(ours.iter().copied())),
            peer: format!("wrk {:.0}/s", median(peers.iter().copied())),
            ratio: format!("{:.2}", rate(ours)),
            target: "≥ 0.20".into(),
        });
    }
    rows.extend(bench.start()?);
    rows.extend(bench.durable()?);
    Ok(rows)
}

/// What is measured.
fn program() -> Measured<PathBuf> {
    let built = "build it with `cargo build --release -p contraflow`, or name another one in CONTRAFLOW_BIN";
    let path = match std::env::var_os("CONTRAFLOW_BIN") {
        Some(path) => PathBuf::from(path),
        // This is target/release/deps/process-…
        None => std::env::current_exe()
            .ok()
            .and_then(|this| Some(this.parent()?.parent()?.join("contraflow")))
            .ok_or("where this program is")?,
    };
    if path.is_file() { Ok(path) } else { Err(format!("there is no {}: {built}", path.display())) }
}

/// A program in the search path, or where Debian keeps servers.
fn find(name: &str) -> Measured<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| format!("there is no {name} in PATH"))
}

/// A server of its own, gone at the end.
struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    fn start(folder: &Path) -> Measured<Self> {
        let address =
            TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?;
        let path = folder.display();
        let config = folder.join("nginx.conf");
        let text = format!(
            "daemon off;\npid {path}/nginx.pid;\nerror_log {path}/error.log;\nworker_processes auto;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path {path}/body;\n  proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/fastcgi;\n  uwsgi_temp_path {path}/uwsgi;\n  scgi_temp_path {path}/scgi;\n\
             server {{ listen {address}; location / {{ return 200 \"ok\\n\"; }} }}\n}}\n"
        );
        fs::write(&config, text).map_err(|e| e.to_string())?;
        let child = Command::new(find("nginx")?)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| format!("nginx: {e}"))?;
        let this = Self { child, address };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                let log = fs::read_to_string(folder.join("error.log")).unwrap_or_default();
                return Err(format!("nginx does not answer at {address}\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it if it is asked to end, not if it is killed.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

struct Bench {
    contraflow: PathBuf,
    folder: PathBuf,
    url: String,
}

impl Bench {
    fn write(&self, name: &str, script: &str) -> Measured<()> {
        let text = format!("const RUNBOOK = #{{ name: \"{name}\" }};\n{script}\n");
        fs::write(self.folder.join(format!("{name}.rhai")), text).map_err(|e| e.to_string())
    }

    /// `contraflow run`, without a configuration and with a store that is there already.
    fn contraflow(&self, name: &str) -> Command {
        let mut command = Command::new(&self.contraflow);
        command.args(["run", &format!("{name}.rhai"), "--state-dir", "state"]).current_dir(&self.folder);
        command
    }

    /// Most memory that the process ever held, in MiB.
    fn peak(&self, name: &str) -> Measured<f64> {
        let this = std::env::current_exe().map_err(|e| e.to_string())?;
        let inner = self.contraflow(name);
        let mut outer = Command::new(this);
        outer.arg("--peak-of").arg(inner.get_program()).args(inner.get_args()).current_dir(&self.folder);
        let output = outer.output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let kib: f64 = text.trim().parse().map_err(|_| format!("no peak memory: {text:?}"))?;
        Ok(kib / 1024.0)
    }

    /// What it takes to look at a runbook, and to run one with one step.
    fn start(&self) -> Measured<Vec<Row>> {
        self.write("one-step", "step(\"shift\", || traffic::shift(\"web\", \"green\", 25));")?;
        let mut check = Command::new(&self.contraflow);
        check.args(["check", "one-step.rhai"]).current_dir(&self.folder);
        let mut version = Command::new(&self.contraflow);
        version.arg("--version");
        let (mut checks, mut versions) = (Vec::new(), Vec::new());
        for _ in 0..LIGHT_ROUNDS {
            versions.push(wall(&mut version)?);
            checks.push(wall(&mut check)?);
        }
        let over = median(checks.iter().zip(&versions).map(|(check, version)| check - version));
        let peaks = (0..5).map(|_| self.peak("one-step")).collect::<Measured<Vec<_>>>()?;
        Ok(vec![
            Row {
                what: "check of a small runbook",
                ours: millis(median(checks)),
                peer: format!("--version {}", millis(median(versions))),
                ratio: format!("+{}", millis(over)),
                target: "≤ +3 ms".into(),
            },
            Row {
                what: "a run with one step, peak memory",
                ours: format!("{:.1} MiB", median(peaks)),
                peer: String::new(),
                ratio: String::new(),
                target: "≤ 22 MiB".into(),
            },
        ])
    }

    /// What a change costs that has to be durable before it is made, next to what the disk takes for it: once where a file grows by
    /// it, once where a part of a file is written over.
    fn durable(&self) -> Measured<Vec<Row>> {
        let change = "traffic::shift(\"web\", \"green\", i % 100);";
        self.write("one-change", &format!("for i in 1..=1 {{ {change} }}"))?;
        self.write("changes", &format!("for i in 1..={CHANGES} {{ {change} }}"))?;
        let (mut ours, mut appended, mut overwritten) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..DURABLE_ROUNDS {
            let (more, one) =
                (wall(&mut self.contraflow("changes"))?, wall(&mut self.contraflow("one-change"))?);
            ours.push((more - one) / (CHANGES - 1) as f64);
            let (append, overwrite) = self.disk().map_err(|e| format!("the disk: {e}"))?;
            appended.push(append);
            overwritten.push(overwrite);
        }
        let row = |what, name, disk: &[f64]| Row {
            what,
            ours: micros(median(ours.iter().copied())),
            peer: format!("{name} {}", micros(median(disk.iter().copied()))),
            ratio: format!("{:+.0} µs", median(ours.iter().zip(disk).map(|(ours, disk)| ours - disk)) * 1e6),
            target: "≤ +80 µs".into(),
        };
        Ok(vec![
            row("a durable change in the sandbox", "append", &appended),
            row("a durable change in the sandbox", "overwrite", &overwritten),
        ])
    }

    /// Seconds that one durable write takes where a file grows by it, and where a part of a file is written over.
    fn disk(&self) -> io::Result<(f64, f64)> {
        let mut file = fs::File::create(self.folder.join("bare"))?;
        let mut write = || -> io::Result<f64> {
            let start = Instant::now();
            for _ in 0..CHANGES {
                file.write_all(&[7; COMMIT])?;
                file.sync_data()?;
            }
            let elapsed = start.elapsed().as_secs_f64();
            file.rewind()?;
            Ok(elapsed / CHANGES as f64)
        };
        Ok((write()?, write()?))
    }

    /// Seconds of the whole process and of its one effect.
    fn many(&self) -> Measured<(f64, f64)> {
        let start = Instant::now();
        let output =
            self.contraflow("many").args(["--output", "json"]).output().map_err(|e| e.to_string())?;
        let run = start.elapsed().as_secs_f64();
        let said = || {
            let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
            format!("probe::all did not pass: {error}{}", out.lines().last().unwrap_or_default())
        };
        if !output.status.success() {
            return Err(said());
        }
        let effect = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find(|event| event["event"] == "effect_ended")
            .and_then(|event| event["elapsed_ms"].as_f64())
            .ok_or_else(said)?;
        Ok((run, effect / 1e3))
    }
}

/// Seconds from the start of a process to its end.
fn wall(command: &mut Command) -> Measured<f64> {
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status()
        .map_err(|e| format!("{command:?}: {e}"))?;
    let elapsed = start.elapsed().as_secs_f64();
    if status.success() { Ok(elapsed) } else { Err(format!("{command:?}: {status}")) }
}

fn requests_per_second(wrk: &Path, url: &str) -> Measured<f64> {
    let output = Command::new(wrk)
        .args(["-t2", &format!("-c{AT_ONCE}"), "-d2s", url])
        .output()
        .map_err(|e| format!("wrk: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok())
        .ok_or_else(|| format!("wrk: {text}"))
}

/// Runs one process and prints the most memory that it held, in KiB. A process of its own for this: the figure of the system
/// is the largest among all children.
fn peak_of(command: Vec<OsString>) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else { return ExitCode::FAILURE };
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match (status, getrusage(UsageWho::RUSAGE_CHILDREN)) {
        (Ok(status), Ok(usage)) if status.success() => {
            let _ = writeln!(io::stdout(), "{}", usage.max_rss());
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

fn micros(seconds: f64) -> String {
    format!("{:.0} µs", seconds * 1e6)
}
