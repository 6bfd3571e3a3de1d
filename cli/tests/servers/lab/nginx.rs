//! A real nginx with certificates of our own authority, made for the test.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{Process, eventually, free, http::Slow, installed, listening, on_free_ports};

/// The host name that the certificates are for.
pub(crate) const NAME: &str = "shop.example.com";

/// The addresses it listens on.
const SERVERS: [&str; 5] = ["valid", "expired", "other-host", "old-tls", "plain"];

/// A running nginx.
pub(crate) struct Nginx {
    _process: Process,
    addresses: [SocketAddr; SERVERS.len()],
    slow: Slow,
    folder: TempDir,
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("written");
}

/// Keys, certificates, and the authority that issued them.
fn certificates(folder: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "ca.example.com");
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
    write(folder, "ca.pem", &authority.pem());
    let today = jiff::Timestamp::now();
    let day = |offset: i64| {
        let day =
            (today + jiff::SignedDuration::from_hours(24 * offset)).to_zoned(jiff::tz::TimeZone::UTC).date();
        let number = |n: i8| u8::try_from(n).expect("positive");
        rcgen::date_time_ymd(i32::from(day.year()), number(day.month()), number(day.day()))
    };
    for (file, host, from, to) in
        [("valid", NAME, -10, 30), ("expired", NAME, -30, -5), ("other-host", "other.example.com", -10, 30)]
    {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        (params.not_before, params.not_after) = (day(from), day(to));
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        write(folder, &format!("{file}.crt"), &certificate.pem());
        write(folder, &format!("{file}.key"), &key.serialize_pem());
    }
}

fn config(addresses: &[SocketAddr; SERVERS.len()], slow: SocketAddr) -> String {
    let good = "add_header Strict-Transport-Security \"max-age=31536000\"; add_header Content-Security-Policy \"default-src 'self'\";";
    let pages = format!(
        "location / {{ {good} return 200 ok; }} location /bare {{ return 200 ok; }} \
         location /weak {{ add_header Strict-Transport-Security \"max-age=0\"; \
         add_header Content-Security-Policy \"default-src 'self'\"; return 200 ok; }}"
    );
    let [valid, expired, other, old, plain] = addresses;
    let tls = |address: &SocketAddr, file: &str, versions: &str| {
        format!(
            "  server {{ listen {address} ssl; ssl_certificate {file}.crt; ssl_certificate_key {file}.key; \
             ssl_protocols {versions}; {pages} }}\n"
        )
    };
    let servers = [
        tls(valid, "valid", "TLSv1.2 TLSv1.3"),
        tls(expired, "expired", "TLSv1.2 TLSv1.3"),
        tls(other, "other-host", "TLSv1.2 TLSv1.3"),
        tls(old, "valid", "TLSv1.2"),
    ];
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {name};\n"))
        .concat();
    // One process, so that it needs no other user.
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 512; }}\nhttp {{\n{folders}  \
         log_format asked '$uri';\n  access_log access.log asked;\n{}  \
         server {{ listen {plain}; location /page/ {{ proxy_pass http://{slow}; }} location / {{ return 404; }} }}\n}}\n",
        servers.concat()
    )
}

impl Nginx {
    /// Starts it. `None`: it is not installed, and need not be.
    pub(crate) fn start() -> Option<Self> {
        if !installed(&["nginx"]) {
            return None;
        }
        Some(on_free_ports("nginx", || {
            let folder = tempfile::tempdir().expect("a folder");
            certificates(folder.path());
            let (addresses, slow) = (free(), Slow::start());
            write(folder.path(), "nginx.conf", &config(&addresses, slow.address()));
            let prefix = format!("{}/", folder.path().display());
            let arguments = ["-p", &prefix, "-e", "stderr", "-c", "nginx.conf"];
            let mut process = Process::start("nginx", folder.path(), &arguments);
            let ready = || addresses.iter().all(|address| TcpStream::connect(address).is_ok());
            listening(&mut process, folder.path(), "nginx", ready)?;
            Ok(Self { _process: process, addresses, slow, folder })
        }))
    }

    /// Where its files are, `ca.pem` among them.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its addresses by name.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, String)> {
        SERVERS.into_iter().zip(self.addresses).map(|(name, address)| (name, address.to_string()))
    }

    /// The paths below `prefix` that were asked for.
    pub(crate) fn asked(&self, prefix: &str) -> Vec<String> {
        let mut before = None;
        // It writes its log when it has answered.
        let log = eventually("the log", Duration::from_secs(5), || {
            let log = std::fs::read_to_string(self.folder.path().join("access.log")).ok();
            let complete = log == before;
            before.clone_from(&log);
            log.filter(|_| complete)
        });
        log.lines().filter(|uri| uri.starts_with(prefix)).map(str::to_owned).collect()
    }

    /// Most pages below `/page/` that were asked for at once.
    pub(crate) fn most_at_once(&self) -> u64 {
        self.slow.most_at_once()
    }
}
