//! `probe::dns` asks a name server, past every cache of this machine.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
};

use contraflow_runtime::{
    effect::{Limits, On, Read, Verdict},
    error::codes,
    provider::ProviderError,
    quantity::Span,
    script::{Checks, ScriptContext},
    target::Target,
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};
use rhai::{Map, NativeCallContext, plugin::*};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    attempts::{self, Attempt, Attempts, Failure, Miss, Tries, millis},
    expect::join,
};

/// Options of `probe::dns`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The type of the records. `PTR` also takes an IP address as the name.
    r#type: Kind,
    /// The name server to ask, such as `"10.0.0.2"` or `"127.0.0.1:5353"`. Default: those of the machine.
    #[schemars(with = "Option<String>")]
    server: Option<Server>,
    /// The expected records, in any order; `[]` means that there must be none.
    expect: Option<Vec<String>>,
    /// Accept only `expect`; with false, accept more records.
    exact: bool,
    /// Minimum number of records, without `expect`; 0 accepts a name that does not exist. Default: 1.
    min_answers: Option<u32>,
    /// Maximum TTL of a record; keep it low before a cutover.
    max_ttl: Option<Span>,
    /// Maximum attempts.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Time between two attempts.
    interval: Span,
    /// Time limit for one attempt.
    timeout: Span,
    /// What else it depends on, such as `["dns/shop"]`. In a plan, a probe of something that the plan would have changed is
    /// assumed to pass.
    depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        let Tries { attempts, interval, timeout } = Tries::DEFAULT;
        Self {
            r#type: Kind::A,
            server: None,
            expect: None,
            exact: true,
            min_answers: None,
            max_ttl: None,
            attempts,
            interval,
            timeout,
            depends_on: Vec::new(),
        }
    }
}

/// A type of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are those of the DNS")]
pub enum Kind {
    A,
    Aaaa,
    Caa,
    Cname,
    Mx,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Self::A => RecordType::A,
            Self::Aaaa => RecordType::AAAA,
            Self::Caa => RecordType::CAA,
            Self::Cname => RecordType::CNAME,
            Self::Mx => RecordType::MX,
            Self::Ns => RecordType::NS,
            Self::Ptr => RecordType::PTR,
            Self::Soa => RecordType::SOA,
            Self::Srv => RecordType::SRV,
            Self::Txt => RecordType::TXT,
        }
    }

    /// A record in the form in which two are compared: names in lower case and without the last dot, addresses in short form.
    fn canonical(self, text: &str) -> String {
        match self {
            Self::A | Self::Aaaa => {
                text.trim().parse::<IpAddr>().map_or_else(|_| text.trim().to_owned(), |ip| ip.to_string())
            }
            Self::Txt => text.to_owned(),
            Self::Caa | Self::Soa => text.trim().to_owned(),
            Self::Cname | Self::Mx | Self::Ns | Self::Ptr | Self::Srv => {
                let words: Vec<&str> = text.split_whitespace().collect();
                let text = words.join(" ").to_lowercase();
                text.strip_suffix('.').map_or_else(|| text.clone(), str::to_owned)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.record_type().fmt(f)
    }
}

/// A name server: `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`, `ns1.example.com`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Server {
    text: String,
    host: String,
    port: u16,
}

impl TryFrom<String> for Server {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || {
            format!("bad name server \"{text}\": expected an address such as \"10.0.0.2\" or \"10.0.0.2:53\"")
        };
        let (host, port) = if let Ok(addr) = text.parse::<SocketAddr>() {
            (addr.ip().to_string(), addr.port())
        } else if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            (ip.to_string(), 53)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host.to_owned(), port.parse().map_err(|_| bad())?),
                None => (text.clone(), 53),
            }
        };
        let is_host = !host.is_empty()
            && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'));
        if !is_host || port == 0 {
            return Err(bad());
        }
        Ok(Self { text, host, port })
    }
}

impl From<Server> for String {
    fn from(server: Server) -> Self {
        server.text
    }
}

/// Asks a name server.
#[derive(Debug, Clone, Serialize)]
pub struct DnsProbe {
    name: String,
    r#type: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expect: Option<Vec<String>>,
    exact: bool,
    min_answers: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_ttl: Option<Span>,
    #[serde(flatten)]
    tries: Tries,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
    #[serde(skip)]
    query: Name,
}

/// What a DNS probe that passed returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// The records, sorted; names without the last dot.
    pub records: Vec<String>,
    /// The shortest time in seconds that one of them may be cached. 0 if there are none.
    pub ttl: u32,
    /// Time to the answer, in milliseconds.
    pub latency_ms: f64,
    /// Which attempt passed, from 1.
    pub attempts: u32,
}

impl DnsProbe {
    /// A probe of `name`. The error names the argument that does not fit.
    ///
    /// # Errors
    /// `name` is no host name, or options that exclude each other.
    pub fn new(name: &str, options: Options) -> Result<Self, (&'static str, String)> {
        let Options {
            r#type,
            server,
            expect,
            exact,
            min_answers,
            max_ttl,
            attempts,
            interval,
            timeout,
            depends_on,
        } = options;
        // An address is looked up under its reverse name.
        let query = match name.parse::<IpAddr>() {
            Ok(ip) if r#type == Kind::Ptr => Ok(Name::from(ip)),
            Ok(_) => {
                return Err((
                    "name",
                    format!("\"{name}\" is an address: expected a name, or `type: \"PTR\"`"),
                ));
            }
            Err(_) => Name::from_utf8(name),
        };
        let mut query = match query {
            Ok(query) if !name.trim().is_empty() => query,
            _ => return Err(("name", format!("\"{name}\" is not a valid DNS name"))),
        };
        // The whole name, nothing from a search list behind it.
        query.set_fqdn(true);
        let expect = expect.map(|records| {
            let set: BTreeSet<String> = records.iter().map(|record| r#type.canonical(record)).collect();
            set.into_iter().collect::<Vec<_>>()
        });
        if matches!(r#type, Kind::A | Kind::Aaaa)
            && let Some(wrong) = expect.iter().flatten().find(|record| record.parse::<IpAddr>().is_err())
        {
            return Err((
                "expect",
                format!("\"{wrong}\" is not an IP address, so it cannot be in a {} record", r#type),
            ));
        }
        let min_answers =
            min_answers.unwrap_or_else(|| expect.as_ref().map_or(1, |e| u32::from(!e.is_empty())));
        Ok(Self {
            name: name.to_owned(),
            r#type,
            server,
            expect,
            exact,
            min_answers,
            max_ttl,
            tries: Tries { attempts, interval, timeout },
            depends_on,
            query,
        })
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        self.depends_on.clone()
    }

    async fn resolver(&self) -> Result<TokioResolver, Failure> {
        let config = match &self.server {
            None => read_system_conf().map(|(config, _)| config).map_err(|e| {
                Failure::Hopeless(
                    ProviderError::terminal(
                        codes::PROVIDER,
                        format!("the name servers of this machine are not known: {e}"),
                    )
                    .hint("set one: `server: \"10.0.0.2\"`"),
                )
            })?,
            Some(server) => {
                let found: Vec<SocketAddr> = tokio::net::lookup_host((server.host.as_str(), server.port))
                    .await
                    .map_err(|e| {
                        Miss::new("a name server", format!("{}: {}", server.text, crate::net::io_reason(&e)))
                    })?
                    .collect();
                let servers = found.into_iter().map(|addr| {
                    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                    for connection in &mut connections {
                        connection.port = addr.port();
                    }
                    NameServerConfig::new(addr.ip(), true, connections)
                });
                ResolverConfig::from_name_servers(servers.collect())
            }
        };
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut options = ResolverOpts::default();
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        // A datagram may get lost: time for it to be sent three times.
        options.attempts = 2;
        options.timeout = self.tries.timeout.0 / 3;
        *builder.options_mut() = options;
        builder.build().map_err(|e| {
            Failure::Hopeless(ProviderError::terminal(codes::INTERNAL, format!("no DNS client: {e}")))
        })
    }

    fn misses(&self, records: &BTreeSet<String>, ttl: u32, empty: &str) -> Vec<Miss> {
        let got = || {
            if records.is_empty() {
                empty.to_owned()
            } else {
                records.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
            }
        };
        let mut misses = Vec::new();
        if let Some(expect) = &self.expect {
            let all = expect.iter().all(|record| records.contains(record));
            if !all || (self.exact && records.len() != expect.len()) {
                let list = expect.join(", ");
                let expected = match (expect.is_empty(), self.exact) {
                    (true, _) => format!("no {} records", self.r#type),
                    (false, true) => format!("exactly {list}"),
                    (false, false) => list,
                };
                misses.push(Miss::new(expected, got()));
            }
        }
        if misses.is_empty() && records.len() < self.min_answers as usize {
            let wanted = self.min_answers;
            let s = if wanted == 1 { "" } else { "s" };
            misses.push(Miss::new(format!("{wanted} {} record{s} or more", self.r#type), got()));
        }
        if let Some(max) = self.max_ttl
            && u64::from(ttl) > max.0.as_secs()
        {
            misses.push(Miss::new(format!("a TTL of {max} at most"), Span::secs(ttl.into()).to_string()));
        }
        misses
    }
}

impl Attempt for DnsProbe {
    type Value = Answered;

    fn tries(&self) -> &Tries {
        &self.tries
    }

    fn subject(&self) -> String {
        match &self.server {
            None => format!("dns {} {}", self.name, self.r#type),
            Some(server) => format!("dns {} {} at {}", self.name, self.r#type, server.text),
        }
    }

    async fn once(&self, on: &On) -> Result<Answered, Failure> {
        let resolver = self.resolver().await?;
        let start = on.clock().monotonic();
        let found = resolver.lookup(self.query.clone(), self.r#type.record_type()).await;
        let latency_ms = millis(on.clock().monotonic().saturating_sub(start));
        let mut records = BTreeSet::new();
        let mut ttl: Option<u32> = None;
        let empty;
        match found {
            Ok(found) => {
                // Aliases on the way to the answer are not what was asked for.
                for record in found.answers().iter().filter(|r| r.record_type() == self.r#type.record_type())
                {
                    records.insert(self.r#type.canonical(&shown(&record.data)));
                    ttl = Some(ttl.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
                }
                empty = format!("no {} records", self.r#type);
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                empty = if none.response_code == ResponseCode::NXDomain {
                    "no such name".to_owned()
                } else {
                    format!("no {} records", self.r#type)
                };
            }
            Err(error) => {
                return Err(
                    Miss::new(format!("an answer about {} records", self.r#type), reason(&error)).into()
                );
            }
        }
        match join(self.misses(&records, ttl.unwrap_or_default(), &empty)) {
            Some(miss) => Err(miss.into()),
            None => Ok(Answered {
                records: records.into_iter().collect(),
                ttl: ttl.unwrap_or_default(),
                latency_ms,
                attempts: 1,
            }),
        }
    }
}

/// A record's data as zone files write it, but texts in one piece and without quotes.
fn shown(data: &RData) -> String {
    match data {
        RData::TXT(text) => {
            text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect::<Vec<_>>().concat()
        }
        other => other.to_string(),
    }
}

fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::Io(error) => crate::net::io_reason(error),
        NetError::NoConnections => "no answer from the name server".to_owned(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
            "the name server refused to answer".to_owned()
        }
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server failed: {code}"),
        other => other.to_string(),
    }
}

impl Read for DnsProbe {
    const ID: &'static str = "probe.dns";
    type Value = Answered;

    fn describe(&self) -> String {
        self.subject()
    }

    fn depends_on(&self) -> Vec<Target> {
        self.targets()
    }

    fn is_check(&self) -> bool {
        true
    }

    fn verdicts(&self) -> Vec<Verdict> {
        super::verdicts(&self.describe())
    }

    async fn read(&self, on: &On) -> Result<Answered, ProviderError> {
        let hit = attempts::repeat(on, self, attempts::progress(on, &self.tries)).await?;
        Ok(Answered { attempts: hit.attempts, ..hit.value })
    }

    fn show(&self, answered: &Answered) -> String {
        if answered.records.is_empty() {
            return "no records".to_owned();
        }
        format!("{} (TTL {})", answered.records.join(", "), Span::secs(answered.ttl.into()))
    }

    fn limits(&self) -> Limits {
        self.tries.limits()
    }
}

/// The script functions.
#[export_module]
pub mod script {
    /// Looks up the addresses (A) of a name with this machine's name servers and fails if there are none; returns
    /// `#{ records, ttl, latency_ms, attempts }`. `ttl` is the shortest, in seconds.
    ///
    /// Caches and the hosts file of this machine are bypassed. The name is fully qualified: search domains are not used.
    ///
    /// ```rhai,no_run
    /// probe::dns("shop.example.com").records.len() > 0
    /// ```
    #[rhai_fn(name = "dns", return_raw, volatile)]
    pub fn dns(cx: NativeCallContext<'_>, name: &str) -> Checks {
        dns_with(cx, name, Map::new())
    }

    /// ```rhai,no_run
    /// let found = probe::dns("shop.example.com", #{ type: "CNAME", expect: ["green.example.com"], max_ttl: "60s" });
    /// found.ttl <= 60
    /// ```
    #[rhai_fn(name = "dns", return_raw, volatile)]
    pub fn dns_with(cx: NativeCallContext<'_>, name: &str, options: Map) -> Checks {
        match DnsProbe::new(name, cx.options(options)?) {
            Ok(effect) => cx.read(effect),
            Err((argument, why)) => Err(cx.bad_argument(argument, &why)),
        }
    }
}

#[cfg(test)]
mod tests;
