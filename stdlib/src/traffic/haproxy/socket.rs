//! HAProxy's runtime API: one command per connection, answered as text.
//!
//! Source: HAProxy management guide, section 9.3 “Unix Socket commands”; tried against 2.6.

use std::{collections::BTreeMap, fmt, io, path::PathBuf, str::FromStr, time::Duration};

use contraflow_runtime::{
    error::{codes as runtime_codes, did_you_mean},
    provider::ProviderError,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::codes;

/// Longest wait for an answer. The runtime API answers within microseconds; this is for a process that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// No answer that is asked for here comes near this, also with thousands of servers.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Where the runtime API listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `unix:/run/haproxy.sock`, or the path alone.
    Unix(PathBuf),
    /// `tcp:127.0.0.1:9999`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp:") {
            let port = address.rsplit_once(':').and_then(|(host, port)| {
                (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
            });
            return match port {
                Some(_) => Ok(Self::Tcp(address.to_owned())),
                None => {
                    Err(format!("\"{text}\": expected a host and a port, such as \"tcp:127.0.0.1:9999\""))
                }
            };
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.is_empty() {
            return Err("expected \"unix:/run/haproxy.sock\" or \"tcp:127.0.0.1:9999\"".to_owned());
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl Address {
    /// Sends one command and returns the answer without surrounding blank lines.
    pub(super) async fn ask(&self, command: &str) -> Result<String, ProviderError> {
        let answer = tokio::time::timeout(PATIENCE, async {
            match self {
                Self::Unix(path) => exchange(UnixStream::connect(path).await?, command).await,
                Self::Tcp(address) => exchange(TcpStream::connect(address).await?, command).await,
            }
        })
        .await
        .map_err(|_| {
            ProviderError::unreachable(format!(
                "HAProxy at {self} did not answer \"{command}\" within {} s",
                PATIENCE.as_secs()
            ))
        })?
        .map_err(|error| self.failed(&error))?;
        if answer.is_empty() {
            // Even an answer that says nothing is a line.
            return Err(ProviderError::unreachable(format!(
                "HAProxy at {self} closed the connection without a response"
            )));
        }
        let answer = answer.trim_matches('\n');
        if answer.starts_with("Permission denied") {
            return Err(ProviderError::terminal(
                runtime_codes::PROVIDER,
                format!("HAProxy at {self} refused \"{command}\": permission denied"),
            )
            .hint("give that socket admin rights in haproxy.cfg: `stats socket … level admin`"));
        }
        if answer.starts_with("Unknown command") {
            return Err(ProviderError::terminal(
                runtime_codes::PROVIDER,
                format!("HAProxy at {self} does not know \"{command}\""),
            )
            .hint("this needs HAProxy 1.8 or newer, and the socket of a worker, not of the master"));
        }
        Ok(answer.to_owned())
    }

    fn failed(&self, error: &io::Error) -> ProviderError {
        let unreachable =
            ProviderError::unreachable(format!("HAProxy at {self}: {}", crate::net::io_reason(error)));
        match (error.kind(), self) {
            (io::ErrorKind::NotFound, Self::Unix(path)) => unreachable
                .hint(format!(
                    "is HAProxy running here, with `stats socket {} mode 660 level admin` in its global section?",
                    path.display()
                )),
            (io::ErrorKind::PermissionDenied, Self::Unix(_)) => {
                ProviderError::terminal(runtime_codes::UNREACHABLE, unreachable.message)
                    .hint("run as a member of the socket's group, or set `user`, `group` and `mode` on the `stats socket` line")
            }
            (io::ErrorKind::ConnectionRefused, _) => {
                unreachable.hint("nothing listens there: HAProxy is not running, or its `stats socket` is \
                    elsewhere")
            }
            _ => unreachable,
        }
    }

    /// A backend with all its servers.
    pub(super) async fn backend(&self, backend: &str) -> Result<Backend, ProviderError> {
        let states = self.ask(&format!("show servers state {backend}")).await?;
        if states.starts_with("Can't find backend") {
            return Err(self.unknown_backend(backend).await);
        }
        let mut servers =
            parse_states(&states).ok_or_else(|| self.not_understood("show servers state", &states))?;
        let Some(number) = servers.values().map(|server| server.backend).next() else {
            return Ok(Backend { servers, ..Backend::default() });
        };
        // By number: a frontend may have the same name, and it is the one that is shown then. `6`: the backend and its servers;
        // `-1`: all.
        let stats = self.ask(&format!("show stat {number} 6 -1")).await?;
        let rows = parse_stats(&stats).ok_or_else(|| self.not_understood("show stat", &stats))?;
        let named = |name: &str| rows.iter().find(|row| row.name == name);
        for (name, server) in &mut servers {
            // A server of which nothing is said may have open sessions.
            let row = named(name).ok_or_else(|| self.not_understood("show stat", &stats))?;
            (server.open, server.dealt, server.backup) = (row.open, row.dealt, row.backup);
        }
        let itself = named("BACKEND");
        let text = |of: fn(&Row) -> &String| itself.map(of).filter(|text| !text.is_empty()).cloned();
        Ok(Backend { servers, algorithm: text(|row| &row.algorithm), cookie: text(|row| &row.cookie) })
    }

    /// What the process says of itself.
    pub(super) async fn process(&self) -> Result<Process, ProviderError> {
        let info = self.ask("show info").await?;
        let line = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let number = |name: &str| line(name).and_then(|n| n.parse::<u32>().ok());
        Ok(Process {
            version: line("Version").unwrap_or("of unknown version").to_owned(),
            // A process of this machine, as far as can be known.
            pid: number("Pid").filter(|_| matches!(self, Self::Unix(_))),
            processes: number("Nbproc").unwrap_or(1),
            stopping: number("Stopping").is_some_and(|n| n > 0),
        })
    }

    /// Whether a stick table of the backend keeps the server that a user was given. `false` also where that cannot be found out.
    pub(super) async fn has_sticky_table(&self, backend: &str) -> bool {
        // A server that no entry has: what is asked for is whether entries have one.
        let answer = self.ask(&format!("show table {backend} data.server_id eq 4294967295")).await;
        answer.is_ok_and(|answer| answer.starts_with("# table:"))
    }

    fn not_understood(&self, command: &str, answer: &str) -> ProviderError {
        let start: String = answer.lines().next().unwrap_or("nothing").chars().take(200).collect();
        ProviderError::terminal(
            runtime_codes::PROVIDER,
            format!("HAProxy at {self} gave an unexpected answer to \"{command}\": {start}"),
        )
    }

    async fn unknown_backend(&self, backend: &str) -> ProviderError {
        let error = ProviderError::terminal(
            codes::TRAFFIC,
            format!("HAProxy at {self} has no backend named \"{backend}\""),
        );
        // `show backend`: a comment line, then one name a line.
        let names = self.ask("show backend").await.unwrap_or_default();
        let names: Vec<&str> =
            names.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        match did_you_mean(backend, names.iter().copied()) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint(format!("backends there: {}", names.join(", "))),
        }
    }

    /// Sets the weight of one server.
    pub(super) async fn set_weight(
        &self,
        backend: &str,
        server: &str,
        weight: u32,
    ) -> Result<(), ProviderError> {
        let answer = self.ask(&format!("set server {backend}/{server} weight {weight}")).await?;
        if answer.is_empty() {
            return Ok(());
        }
        let error = ProviderError::terminal(
            codes::TRAFFIC,
            format!("HAProxy at {self} did not set the weight of {backend}/{server} to {weight}: {answer}"),
        );
        Err(if answer.contains("static LB algorithm") {
            error.hint(format!(
                "use an algorithm with dynamic weights in backend {backend}, such as `balance roundrobin`"
            ))
        } else {
            error
        })
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, command: &str) -> io::Result<String> {
    stream.write_all(format!("{command}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// What a process of HAProxy says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) version: String,
    /// Its number on this machine.
    pub(super) pid: Option<u32>,
    /// How many processes there are, each with servers of its own (`nbproc`).
    pub(super) processes: u32,
    /// Whether it only serves what is left after a reload.
    pub(super) stopping: bool,
}

/// A backend as HAProxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Backend {
    /// All servers, by name.
    pub(super) servers: BTreeMap<String, Server>,
    /// How it chooses a server: `roundrobin`. Not told to sockets below the level `operator`.
    pub(super) algorithm: Option<String>,
    /// The cookie that brings users back to their server.
    pub(super) cookie: Option<String>,
}

/// One server of a backend as HAProxy sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Server {
    /// Number of the backend it belongs to.
    pub(super) backend: u32,
    /// Weight that is set, 0 to 256.
    pub(super) weight: u32,
    /// Whether it passes its checks or has none: 0 stopped, 1 starting (`slowstart`), 2 running, 3 stopping.
    pub(super) operation: u32,
    /// Flags of what administrators and the configuration asked for.
    pub(super) admin: u32,
    /// Sessions on it and in its queue.
    pub(super) open: u64,
    /// Sessions that it was given since HAProxy started, without those that were tried again.
    pub(super) dealt: u64,
    /// Whether it is used only while no other server can be (`backup`).
    pub(super) backup: bool,
}

/// Maintenance: forced 0x01, inherited 0x02, by name resolution 0x20.
const ADMIN_MAINT: u32 = 0x23;
/// Drain: forced 0x08, inherited 0x10.
const ADMIN_DRAIN: u32 = 0x18;
const STARTING: u32 = 1;
const RUNNING: u32 = 2;

impl Server {
    /// Whether nobody has taken it out of service by hand. A failing health check does not.
    pub(super) fn in_service(&self) -> bool {
        self.admin & (ADMIN_MAINT | ADMIN_DRAIN) == 0
    }

    /// Whether it would take traffic, given weight.
    pub(super) fn is_up(&self) -> bool {
        self.in_service() && (self.operation == RUNNING || self.is_starting())
    }

    /// Whether it is still being given more traffic bit by bit after it came up.
    pub(super) fn is_starting(&self) -> bool {
        self.operation == STARTING
    }

    /// What it is, in HAProxy's own words.
    pub(super) fn status(&self) -> &'static str {
        match self.operation {
            _ if self.admin & ADMIN_MAINT != 0 => "in MAINT",
            _ if self.admin & ADMIN_DRAIN != 0 => "in DRAIN",
            STARTING => "starting",
            RUNNING => "UP",
            0 => "DOWN",
            _ => "stopping",
        }
    }
}

/// Reads `show servers state`: a version line, `# ` and the names of the columns, then one server a line.
fn parse_states(text: &str) -> Option<BTreeMap<String, Server>> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let version = lines.next()?;
    version.trim().parse::<u32>().ok()?;
    let columns: Vec<&str> = lines.next()?.strip_prefix("# ")?.split_whitespace().collect();
    let column = |name: &str| columns.iter().position(|column| *column == name);
    let (backend, name) = (column("be_id")?, column("srv_name")?);
    let (operation, admin, weight) =
        (column("srv_op_state")?, column("srv_admin_state")?, column("srv_uweight")?);
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
            let server = Server {
                backend: number(backend)?,
                weight: number(weight)?,
                operation: number(operation)?,
                admin: number(admin)?,
                ..Server::default()
            };
            Some(((*fields.get(name)?).to_owned(), server))
        })
        .collect()
}

/// What `show stat` says of a server, or of the backend itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    open: u64,
    dealt: u64,
    backup: bool,
    algorithm: String,
    cookie: String,
}

/// Reads `show stat`, which is CSV. The last columns are missing in older versions.
fn parse_stats(text: &str) -> Option<Vec<Row>> {
    let mut lines = text.lines().filter(|line| !line.is_empty());
    let columns = fields(lines.next()?.strip_prefix("# ")?);
    let column = |name: &str| columns.iter().position(|column| column == name);
    let (name, queued, sessions, total) =
        (column("svname")?, column("qcur")?, column("scur")?, column("stot")?);
    let (again, backup, algorithm, cookie) =
        (column("wretr")?, column("bck")?, column("algo"), column("cookie"));
    lines
        .map(|line| {
            let fields = fields(line);
            let number = |at: usize| fields.get(at).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            let text = |at: Option<usize>| at.and_then(|at| fields.get(at)).cloned().unwrap_or_default();
            Some(Row {
                name: fields.get(name)?.clone(),
                open: number(queued) + number(sessions),
                dealt: number(total).saturating_sub(number(again)),
                backup: number(backup) > 0,
                algorithm: text(algorithm),
                cookie: text(cookie),
            })
        })
        .collect()
}

/// The fields of a line of CSV. Those that hold commas or quotes are quoted, and quotes in them doubled.
fn fields(line: &str) -> Vec<String> {
    let (mut all, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    all.push(field);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_unix_tcp_and_bare_paths() {
        let read = |text: &str| text.parse::<Address>();
        assert_eq!(read("unix:/run/haproxy.sock"), Ok(Address::Unix("/run/haproxy.sock".into())));
        assert_eq!(read("/run/haproxy.sock"), Ok(Address::Unix("/run/haproxy.sock".into())));
        assert_eq!(read("tcp:127.0.0.1:9999"), Ok(Address::Tcp("127.0.0.1:9999".into())));
        assert_eq!(read("tcp:[::1]:9999"), Ok(Address::Tcp("[::1]:9999".into())));
        for wrong in
            ["", "unix:", "tcp:", "tcp:localhost", "tcp::9999", "tcp:localhost:0", "tcp:localhost:99999"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn server_states_are_read_by_column_name() {
        let text = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight\n\
                    3 web 1 blue1 127.0.0.1 2 0 95 1\n3 web 2 green1 127.0.0.1 0 1 0 1\n3 web 3 green2 127.0.0.1 2 8 5 1\n\n";
        let servers = parse_states(text).expect("states");
        assert_eq!(servers["blue1"], Server { backend: 3, weight: 95, operation: 2, ..Server::default() });
        assert!(servers["blue1"].is_up() && servers["blue1"].in_service());
        assert_eq!((servers["green1"].status(), servers["green1"].is_up()), ("in MAINT", false));
        assert_eq!((servers["green2"].status(), servers["green2"].is_up()), ("in DRAIN", false));
        assert_eq!(parse_states("No such thing"), None);
    }

    #[test]
    fn statistics_are_read_by_column_name_also_behind_texts_with_commas() {
        let text = "# pxname,svname,qcur,qmax,scur,smax,stot,wretr,status,bck,last_chk,cookie,algo,\n\
                    web,blue1,2,0,3,9,12,1,UP,0,\"no, \"\"check\"\"\",b1,,\nweb,green1,0,0,0,0,0,0,UP,1,,g1,,\n\
                    web,BACKEND,0,0,3,9,11,,UP,0,,SRV,leastconn,\n";
        let rows = parse_stats(text).expect("stats");
        // The queue counts as open, and a retry not as another session.
        assert_eq!((rows[0].open, rows[0].dealt, rows[0].backup), (5, 11, false));
        assert_eq!((rows[1].open, rows[1].backup), (0, true));
        assert_eq!((&*rows[2].algorithm, &*rows[2].cookie), ("leastconn", "SRV"));
        assert_eq!(parse_stats("No such proxy."), None);
    }
}
