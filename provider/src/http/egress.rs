//! How requests leave this machine: directly or through a proxy, and which certificates are trusted.

use std::{
    ffi::OsString,
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::Url;

use super::tls::{self, Link, Tls};
use crate::{
    codes,
    config::{BadSetting, Resolve},
    error::codes as core,
    provider::ProviderError,
    secret::Vault,
};

/// A proxy and who named it. Its URL may hold a password, so it is not shown.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Proxy {
    url: String,
    /// The variable or setting that names it: `HTTPS_PROXY`.
    origin: &'static str,
}

/// The HTTP proxies through which requests go out.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    /// Hosts that are reached directly: `NO_PROXY`.
    except: String,
    /// Whether it was asked for by a setting, which also holds for addresses of this machine.
    explicit: bool,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = |proxy: &Option<Proxy>| proxy.as_ref().map(|proxy| proxy.origin);
        f.debug_struct("Proxies")
            .field("http", &origin(&self.http))
            .field("https", &origin(&self.https))
            .field("except", &self.except)
            .finish()
    }
}

impl Proxies {
    /// Those of the usual variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or small letters. Addresses
    /// of this machine are always reached directly.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let proxy = |names: [&'static str; 4]| {
            names.into_iter().find_map(|origin| Some(Proxy { url: text(origin)?, origin }))
        };
        Self {
            http: proxy(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            https: proxy(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            except: text("NO_PROXY").or_else(|| text("no_proxy")).unwrap_or_default(),
            explicit: false,
        }
    }

    /// That of the setting `proxy`: a URL, or `none`.
    ///
    /// # Errors
    /// It is not the URL of a proxy.
    pub fn of_setting(proxy: &str) -> Result<Self, String> {
        let proxy = proxy.trim();
        if proxy.eq_ignore_ascii_case("none") {
            return Ok(Self::default());
        }
        let proxy = Proxy { url: proxy.to_owned(), origin: "`proxy`" };
        proxy.parse()?;
        Ok(Self { http: Some(proxy.clone()), https: Some(proxy), except: String::new(), explicit: true })
    }

    /// The proxy that a request to `url` goes through.
    ///
    /// # Errors
    /// `config`: what is named there is not the URL of a proxy.
    pub(super) fn of(&self, url: &Url) -> Result<Option<Url>, ProviderError> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let Some(proxy) = proxy.as_ref().filter(|_| !self.is_direct(url)) else { return Ok(None) };
        proxy.parse().map(Some).map_err(|why| {
            ProviderError::terminal(codes::CONFIG, format!("{}: {why}", proxy.origin))
                .hint("write http://HOST:PORT, or name hosts to reach directly in NO_PROXY")
        })
    }

    fn is_direct(&self, url: &Url) -> bool {
        let Some(host) = url.host_str() else { return true };
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let is_here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        (is_here && !self.explicit)
            || self
                .except
                .split([',', ' ', '\t'])
                .map(str::trim)
                .any(|entry| excepts(entry, &host, address, url.port_or_known_default()))
    }
}

impl Proxy {
    /// Answers nothing of what may be secret.
    fn parse(&self) -> Result<Url, String> {
        let with_scheme =
            if self.url.contains("://") { self.url.clone() } else { format!("http://{}", self.url) };
        let url = Url::parse(&with_scheme).map_err(|e| format!("not the URL of a proxy ({e})"))?;
        match url.scheme() {
            "http" | "https" if url.host_str().is_some() => Ok(url),
            "http" | "https" => Err("not the URL of a proxy: it has no host".to_owned()),
            other => Err(format!("proxies with {other} are not supported, only those with http and https")),
        }
    }
}

/// Whether an entry of `NO_PROXY` means this host: `*`, a name with all below it, an address, a network; with a port or without.
fn excepts(entry: &str, host: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    let entry = entry.to_ascii_lowercase();
    if let (Some(address), Some((network, bits))) = (address, entry.split_once('/')) {
        return is_within(address, network, bits);
    }
    // `[::1]:8080`, `::1`, `host:8080`, `host`.
    let (name, only) = match entry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None if entry.parse::<IpAddr>().is_ok() => (&*entry, None),
        None => entry.rsplit_once(':').map_or((&*entry, None), |(name, port)| (name, Some(port))),
    };
    if only.is_some_and(|only| only.parse::<u16>().ok() != port) {
        return false;
    }
    if let Some(address) = address {
        return name.parse::<IpAddr>().is_ok_and(|excepted| excepted == address);
    }
    let name = name.trim_start_matches("*.").trim_start_matches('.').trim_end_matches('.');
    !name.is_empty() && (host == name || host.strip_suffix(name).is_some_and(|below| below.ends_with('.')))
}

/// Whether an address is in the network `network/bits`.
fn is_within(address: IpAddr, network: &str, bits: &str) -> bool {
    let Ok(bits) = bits.parse::<u32>() else { return false };
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (address, network.parse::<IpAddr>()) {
        (IpAddr::V4(a), Ok(IpAddr::V4(b))) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), Ok(IpAddr::V6(b))) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

/// A proxy without user name and password, for people.
pub(super) fn shown(proxy: &Url) -> String {
    let host = proxy.host_str().unwrap_or_default();
    proxy.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// How a target is reached by HTTP: its settings `ca` and `proxy`.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    tls: Tls,
    proxies: Proxies,
}

impl Egress {
    /// From the settings of a target. Without `proxy`, the variables say it.
    ///
    /// # Errors
    /// `proxy` is not the URL of a proxy.
    pub fn new(ca: Option<&Path>, proxy: Option<&str>, at: &dyn Resolve) -> Result<Self, BadSetting> {
        let proxies = match proxy {
            Some(proxy) => Proxies::of_setting(proxy).map_err(|why| BadSetting::new("proxy", why))?,
            None => Proxies::from_variables(|name| at.variable(name)),
        };
        let ca: Option<PathBuf> = ca.map(|ca| at.path(&ca.to_string_lossy()));
        Ok(Self { tls: Tls { ca, ..Tls::default() }, proxies })
    }

    /// A client for `url`. It is asked for each time, so that a file that is renewed is read anew; clients are kept.
    ///
    /// # Errors
    /// `config`: `ca` cannot be read, or the variables name no proxy.
    pub async fn link(&self, url: &str) -> Result<Link, ProviderError> {
        let parsed = Url::parse(url)
            .map_err(|e| ProviderError::terminal(codes::CONFIG, format!("`url` is not a URL: {e}")))?;
        tls::link(&self.tls, &self.proxies, &parsed, &Vault::default()).await.map_err(|error| {
            if error.code == core::ARGUMENT.into() {
                let message = error.message.replace("`tls.ca`", "`ca`");
                ProviderError { code: codes::CONFIG.into(), message, ..error }
            } else {
                error
            }
        })
    }

    /// Reaches the server without asking it for anything: the connection, the proxy, the handshake. Answers with host and port.
    ///
    /// # Errors
    /// Why a request would not get there.
    pub async fn reach(&self, url: &str) -> Result<String, ProviderError> {
        let link = self.link(url).await?;
        let mut root = link.url.clone();
        root.set_path("/");
        root.set_query(None);
        root.set_fragment(None);
        let _ = root.set_username("");
        let _ = root.set_password(None);
        let host = root.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let place =
            root.port_or_known_default().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let failed = |why: String| ProviderError::unreachable(format!("{place}: {why}"));
        if root.scheme() == "http" && link.proxy().is_none() {
            let port = root.port_or_known_default().unwrap_or(80);
            let connect = tokio::net::TcpStream::connect((&*host, port));
            return match tokio::time::timeout(REACH, connect).await {
                Ok(Ok(_)) => Ok(format!("{place} takes connections")),
                Ok(Err(e)) => Err(failed(super::io_reason(&e))),
                Err(_) => Err(failed("no answer in time".to_owned())),
            };
        }
        let through = link.proxy().map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
        let handshake = if root.scheme() == "https" { "; its certificate is trusted" } else { "" };
        match link.client.head(root).timeout(REACH).send().await {
            // A proxy says by its own answers that it does not get there.
            Ok(answer) if link.proxy().is_some() && matches!(answer.status().as_u16(), 407 | 502..=504) => {
                Err(failed(format!("the proxy answered {}{through}", answer.status())))
            }
            Err(e) if e.is_connect() || e.is_timeout() || tls::tls_error(&e).is_some() => {
                Err(link.no_answer(&e, &place, true))
            }
            // Whatever it says to a request that it does not expect, it was reached.
            Ok(_) | Err(_) => Ok(format!("{place} takes connections{through}{handshake}")),
        }
    }
}

/// Longest time for finding out whether a server can be reached.
const REACH: std::time::Duration = std::time::Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Proxies::from_variables(|name| variables.get(name).map(OsString::from))
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        let url = Url::parse(url).expect("a URL");
        proxies.of(&url).expect("a proxy").map(|proxy| shown(&proxy))
    }

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_none() {
        let both = proxies(&[("HTTPS_PROXY", "http://user:hunter2@out:3128"), ("http_proxy", "plain:8080")]);
        assert_eq!(through(&both, "https://chat.example/x").as_deref(), Some("out:3128"));
        assert_eq!(through(&both, "http://chat.example/x").as_deref(), Some("plain:8080"));
        for here in ["http://localhost:1/", "https://127.0.0.1/", "http://[::1]:9090/"] {
            assert_eq!(through(&both, here), None, "{here}");
        }
        assert!(!format!("{both:?}").contains("hunter2"));
        let all = proxies(&[("ALL_PROXY", "http://out:1"), ("HTTPS_PROXY", " ")]);
        assert_eq!(through(&all, "https://chat.example/").as_deref(), Some("out:1"));
        assert_eq!(through(&proxies(&[]), "https://chat.example/"), None);
        // A setting is meant, also for this machine.
        let set = Proxies::of_setting("out:1").expect("a proxy");
        assert_eq!(through(&set, "http://localhost/").as_deref(), Some("out:1"));
        assert_eq!(through(&Proxies::of_setting("none").expect("none"), "http://chat.example/"), None);
    }

    #[test]
    fn no_proxy_names_hosts_addresses_and_networks() {
        let list = "corp.example, .internal,10.0.0.0/8 host:8080,[fd00::1]:9090,192.0.2.7,fd12::/16";
        let with = proxies(&[("HTTP_PROXY", "http://out:3128"), ("NO_PROXY", list)]);
        for direct in [
            "http://corp.example/",
            "http://a.corp.example:9/",
            "http://X.internal/",
            "http://internal/",
            "http://10.200.3.4/",
            "http://host:8080/",
            "http://[fd00::1]:9090/",
            "http://192.0.2.7:81/",
            "http://[fd12:3::4]/",
        ] {
            assert_eq!(through(&with, direct), None, "{direct}");
        }
        for proxied in ["http://notcorp.example/", "http://11.0.0.1/", "http://host/", "http://192.0.2.70/"] {
            assert!(through(&with, proxied).is_some(), "{proxied}");
        }
        let star = proxies(&[("HTTP_PROXY", "http://out:3128"), ("no_proxy", "*")]);
        assert_eq!(through(&star, "http://chat.example/"), None);
    }

    #[test]
    fn what_is_not_the_url_of_a_proxy_is_refused_by_the_name_of_who_says_it() {
        let wrong = proxies(&[("HTTPS_PROXY", "socks5://user:hunter2@out:1080")]);
        let error =
            wrong.of(&Url::parse("https://chat.example/").expect("a URL")).expect_err("no HTTP proxy");
        assert_eq!(
            error.message,
            "HTTPS_PROXY: proxies with socks5 are not supported, only those with http and https"
        );
        let error = Proxies::of_setting("http://").expect_err("no host");
        assert!(error.starts_with("not the URL of a proxy"), "{error}");
    }
}
