//! `host:port`, an `https` URL, or a route: where connections without HTTP go.

use std::fmt;

use contraflow_runtime::{effect::On, error::codes, provider::ProviderError, target::Target};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::http::message::Where;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// `db.example.com:5432`, `10.0.0.1:80` or `[::1]:80`.
    Address {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A URL, a route or a pool.
    Place(Where),
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let want = || format!("bad address \"{text}\": expected host:port, such as \"db.example.com:5432\"");
        if text.contains("://") || !text.contains(':') {
            return Where::try_from(text.clone()).map(Self::Place).map_err(|e| {
                if text.contains("://") { e } else { format!("{}, or a route such as \"web/green\"", want()) }
            });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(want)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(want)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(want)?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| want())?;
                inner
            }
            None if host.contains(':') => {
                return Err(format!(
                    "bad address \"{text}\": write an IPv6 address in brackets, such as \"[::1]:80\""
                ));
            }
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@')) {
            return Err(want());
        }
        Ok(Self::Address { host: host.to_owned(), port })
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Address { host, port } => write!(f, "{host}:{port}"),
            Self::Place(place) => place.fmt(f),
        }
    }
}

impl Endpoint {
    /// The targets that an answer from there depends on.
    pub fn targets(&self) -> Vec<Target> {
        match self {
            Self::Address { .. } => Vec::new(),
            Self::Place(place) => place.targets(),
        }
    }

    /// Host (without brackets) and port.
    ///
    /// # Errors
    /// No such route or pool.
    pub async fn resolve(&self, on: &On) -> Result<(String, u16), ProviderError> {
        match self {
            Self::Address { host, port } => Ok((host.clone(), *port)),
            Self::Place(place) => {
                let url = place.url(on, None).await?;
                match (url.host_str(), url.port_or_known_default()) {
                    (Some(host), Some(port)) => {
                        Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
                    }
                    _ => Err(ProviderError::terminal(
                        codes::ARGUMENT,
                        format!("{place}: {url} has no host and port to connect to"),
                    )),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::detached;

    fn read(text: &str) -> Result<Endpoint, String> {
        Endpoint::try_from(text.to_owned())
    }

    #[tokio::test]
    async fn addresses_urls_and_routes_are_read() {
        for (text, host, port) in [
            ("db.example.com:5432", "db.example.com", 5432),
            ("[::1]:80", "::1", 80),
            ("https://shop.example.com", "shop.example.com", 443),
            ("https://[::1]:8443/x", "::1", 8443),
        ] {
            let endpoint = read(text).expect(text);
            assert_eq!(endpoint.resolve(&detached()).await.expect(text), (host.to_owned(), port));
            assert_eq!(read(&endpoint.to_string()), Ok(endpoint), "{text}");
        }
        assert_eq!(read("web/green").expect("pool").targets(), [Target::new("deploy", "web/green")]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_wanted() {
        for text in ["", "host:", "host:0", "host:99999", ":80", "::1:80", "a b:80", "[x]:80", "two words"] {
            let error = read(text).expect_err(text);
            assert!(error.contains("such as"), "{text}: {error}");
        }
    }
}
