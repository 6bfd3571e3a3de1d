//! A PostgreSQL server of a test's own, which can be killed and started again.

#![expect(clippy::print_stderr, reason = "says why a test did not run")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// The URL of the server that tests share. `None`: there is none, and need not be.
pub(super) fn shared() -> Option<String> {
    match std::env::var("CONTRAFLOW_TEST_POSTGRES") {
        Ok(url) => Some(url),
        Err(_) if std::env::var("CONTRAFLOW_TEST_SERVERS").is_ok_and(|set| set == "1") => {
            panic!(
                "CONTRAFLOW_TEST_POSTGRES is not set: expected the URL of a PostgreSQL superuser's database"
            )
        }
        Err(_) => {
            eprintln!("skipped: CONTRAFLOW_TEST_POSTGRES is not set (tests/servers/with)");
            None
        }
    }
}

/// Runs statements on a server.
pub(super) async fn sql(url: &str, text: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// What a statement answers.
pub(super) async fn number(url: &str, text: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut connection).await.unwrap()
}

/// A program that must not be run by root: run by root, it is `postgres` who runs it. It ends with this process.
fn program(name: &str) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(name);
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "--reuid",
        "postgres",
        "--regid",
        "postgres",
        "--init-groups",
        "--",
    ]);
    command.arg(name);
    command
}

/// A server with its data in a folder of its own.
pub(super) struct Server {
    pub(super) folder: tempfile::TempDir,
    pub(super) port: u16,
    settings: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A server with these settings, `prepare`d before it starts. `None`: none can be had here.
    pub(super) async fn start(settings: &[&str], prepare: impl FnOnce(&Path)) -> Option<Self> {
        shared()?;
        let folder = tempfile::tempdir().unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        if nix::unistd::geteuid().is_root() {
            let postgres = nix::unistd::User::from_name("postgres").unwrap().unwrap();
            nix::unistd::chown(folder.path(), Some(postgres.uid), Some(postgres.gid)).unwrap();
        }
        let made = program("initdb")
            .args(["--pgdata", "data", "--username", "postgres", "--auth", "trust", "--encoding", "UTF8"])
            .args(["--locale", "C.UTF-8", "--no-sync"])
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(made.success(), "{}", fs::read_to_string(folder.path().join("log")).unwrap());
        prepare(&folder.path().join("data"));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { folder, port, settings, process: None };
        server.run().await;
        Some(server)
    }

    /// Starts it, also where the one before has just been killed.
    pub(super) async fn run(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(30) {
            let log = fs::File::options().append(true).open(self.folder.path().join("log")).unwrap();
            let mut command = program("postgres");
            command.args(["-D", "data", "-k"]).arg(self.folder.path()).args(["-p", &self.port.to_string()]);
            command.args(["-c", "listen_addresses=127.0.0.1"]);
            for setting in &self.settings {
                command.args(["-c", setting]);
            }
            let child = command
                .current_dir(self.folder.path())
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            let child = self.process.insert(child);
            // What was left of the killed one may still hold its memory: then it ends at once.
            while child.try_wait().unwrap().is_none() {
                let socket = format!(
                    "postgres://postgres@localhost/postgres?host={}&port={}",
                    self.folder.path().display(),
                    self.port
                );
                if PgConnection::connect(&socket).await.is_ok() {
                    return;
                }
                assert!(begun.elapsed() < Duration::from_secs(30), "{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server does not start:\n{}", self.log());
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
    }

    pub(super) fn url(&self) -> String {
        self.url_as("postgres", "")
    }

    pub(super) fn url_as(&self, user: &str, more: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres{more}", self.port)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
