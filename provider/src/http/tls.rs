//! TLS as a runbook may ask for it: other roots, a client certificate, another name, a lowest version; and what went wrong
//! with a handshake, in words.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use crate::{
    error::codes,
    provider::ProviderError,
    secret::{Text, Vault},
};
use reqwest::{Client, Url, dns};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    builder, chain, client,
    egress::{self, Proxies},
    install_tls, roots,
};

/// The option `tls` of everything that connects. Paths are taken from the working directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificates to trust, in place of the machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Accepts any certificate. The server still has to prove that it holds the certificate's key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Name to ask for in the handshake and to look for in the certificate, in place of the host in the URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub server_name: Option<HostName>,
    /// Lowest version to accept; TLS 1.2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// PEM file with the certificate (and those between it and the root) to show when the server asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<PathBuf>,
    /// PEM file with the key of `client_cert`, or the key itself as a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key: Option<Text>,
}

/// A version of TLS that is still in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V1_2,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

/// The DNS name of a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as handshakes want it.
    ///
    /// # Errors
    /// Never for a name that was decoded.
    pub fn server_name(&self) -> Result<ServerName<'static>, ProviderError> {
        server_name(&self.0)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match DnsName::try_from(text.as_str()) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(de::Error::custom(format!("\"{text}\" is not a host name"))),
        }
    }
}

/// A host name or address as handshakes want it.
///
/// # Errors
/// It is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, ProviderError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned()).map_err(|_| {
        ProviderError::terminal(
            codes::ARGUMENT,
            format!("\"{host}\" is neither a host name nor an IP address"),
        )
    })
}

/// What [`Tls`] names, read from its files. Two that are equal make the same connections.
#[derive(Debug)]
struct Material {
    roots: Arc<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Of all bytes that were read, so that a renewed file makes a new client.
    digest: [u8; 32],
}

impl Tls {
    /// Whether nothing differs from how everything else connects.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The settings of a client that connects as asked.
    ///
    /// # Errors
    /// A file that cannot be read, or does not hold what it should.
    pub async fn config(&self, vault: &Vault) -> Result<ClientConfig, ProviderError> {
        install_tls();
        self.config_from(self.material(vault).await?)
    }

    /// The certificates to trust.
    ///
    /// # Errors
    /// As [`Tls::config`].
    pub async fn trusted(&self) -> Result<Arc<RootCertStore>, ProviderError> {
        let Some(path) = &self.ca else { return Ok(roots()) };
        Ok(Arc::new(trusted_from(path, &read("ca", path).await?)?))
    }

    /// The certificate to show, with its key.
    ///
    /// # Errors
    /// As [`Tls::config`].
    pub async fn identity(
        &self,
        vault: &Vault,
    ) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, ProviderError> {
        Ok(self.material(vault).await?.identity)
    }

    async fn material(&self, vault: &Vault) -> Result<Material, ProviderError> {
        let mut digest = Sha256::new();
        let roots = match &self.ca {
            None => roots(),
            Some(path) => {
                let pem = read("ca", path).await?;
                digest.update(&pem);
                Arc::new(trusted_from(path, &pem)?)
            }
        };
        let identity = match (&self.client_cert, &self.client_key) {
            (None, None) => None,
            (Some(_), None) => {
                return Err(bad("`tls.client_cert` needs its key").hint("add `client_key`"));
            }
            (None, Some(_)) => {
                return Err(bad("`tls.client_key` needs its certificate").hint("add `client_cert`"));
            }
            (Some(cert), Some(key)) => {
                let pem = read("client_cert", cert).await?;
                digest.update(&pem);
                let certificates = certificates("client_cert", &cert.display().to_string(), &pem)?;
                let key_pem = match key {
                    Text::Plain(path) => zeroize::Zeroizing::new(read("client_key", path.as_ref()).await?),
                    Text::Secret(_) => zeroize::Zeroizing::new(
                        key.reveal(vault)
                            .map_err(|e| ProviderError::terminal(codes::SECRET, e.to_string()))?
                            .as_bytes()
                            .to_vec(),
                    ),
                };
                digest.update(&*key_pem);
                let key = PrivateKeyDer::from_pem_slice(&key_pem)
                    .map_err(|_| bad(format!("`tls.client_key`: {key} has no PEM private key")))?;
                Some((certificates, key))
            }
        };
        Ok(Material { roots, identity, digest: digest.finalize().into() })
    }

    fn config_from(&self, material: Material) -> Result<ClientConfig, ProviderError> {
        let config = ClientConfig::builder_with_protocol_versions(self.versions());
        let provider = Arc::clone(config.crypto_provider());
        let config = if self.insecure {
            config.dangerous().with_custom_certificate_verifier(Arc::new(Unverified::new(&provider)))
        } else {
            trusting(config, material.roots)
        };
        match material.identity {
            None => Ok(config.with_no_client_auth()),
            Some((certificates, key)) => config
                .with_client_auth_cert(certificates, key)
                .map_err(|e| bad(format!("`tls.client_cert` and `tls.client_key` are not valid: {e}"))),
        }
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        const ONLY_1_3: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match self.min_version {
            Some(TlsVersion::V1_3) => ONLY_1_3,
            Some(TlsVersion::V1_2) | None => rustls::ALL_VERSIONS,
        }
    }
}

fn bad(message: impl Into<String>) -> ProviderError {
    ProviderError::terminal(codes::ARGUMENT, message)
}

async fn read(option: &str, path: &std::path::Path) -> Result<Vec<u8>, ProviderError> {
    let mut bytes = tokio::fs::read(path).await.map_err(|e| {
        bad(format!("`tls.{option}`: {} cannot be read: {}", path.display(), super::io_reason(&e)))
    })?;
    // In place: it may be a key, of which no copy should be left.
    let mark = bytes.len() - crate::text::bytes_without_mark(&bytes).len();
    bytes.drain(..mark);
    Ok(bytes)
}

fn certificates(option: &str, path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ProviderError> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(bad(format!("`tls.{option}`: {path} has no PEM certificate"))),
        Err(e) => Err(bad(format!("`tls.{option}`: {path} is not PEM: {e}"))),
    }
}

fn trusted_from(path: &std::path::Path, pem: &[u8]) -> Result<RootCertStore, ProviderError> {
    let path = path.display().to_string();
    let mut store = RootCertStore::empty();
    for certificate in certificates("ca", &path, pem)? {
        store
            .add(certificate)
            .map_err(|e| bad(format!("`tls.ca`: {path} has a certificate that cannot be a root: {e}")))?;
    }
    Ok(store)
}

/// A client and the URL to give it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Host and port of the proxy that it goes through.
    proxy: Option<String>,
    /// Keeps its connections.
    pub client: Client,
    /// The URL asked for, with the host that the handshake should name.
    pub url: Url,
    /// What `Host` should say, where the URL's host is no longer the one asked for.
    pub host: Option<String>,
}

impl Link {
    /// Host and port of the proxy that it goes through.
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Why a request got no answer, for people.
    pub fn reason(&self, error: &reqwest::Error) -> String {
        let reason = super::reason(error);
        match &self.proxy {
            // What fails while connecting may be the proxy's failure, or on the way to it.
            Some(proxy) if error.is_connect() && tls_error(error).is_none() => {
                format!("{reason} (through the proxy {proxy})")
            }
            _ => reason,
        }
    }

    /// As [`no_answer`](super::no_answer).
    pub fn no_answer(&self, error: &reqwest::Error, url: &str, safe: bool) -> ProviderError {
        let known = super::no_answer(error, url, safe);
        let message = format!("{}: {}", super::without_credentials(url), self.reason(error));
        let untrusted = matches!(
            tls_error(error),
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))
        );
        let told = ProviderError { message, ..known };
        if untrusted {
            told.hint(
                "trust its authority: set `ca` to a PEM file, or the variable SSL_CERT_FILE for everything",
            )
        } else {
            told
        }
    }
}

/// A client for `url` that connects as `tls` says, through the proxy that `proxies` names for it. Clients are kept: the same options
/// and files share connections.
///
/// # Errors
/// As [`Tls::config`]; `config`: no proxy is named there.
pub async fn link(tls: &Tls, proxies: &Proxies, url: &Url, vault: &Vault) -> Result<Link, ProviderError> {
    let proxy = proxies.of(url)?;
    // Options for TLS say nothing about plain HTTP.
    let tls = if url.scheme() == "https" { tls.clone() } else { Tls::default() };
    if tls.is_default() && proxy.is_none() {
        return Ok(Link { proxy: None, client: client(url.as_str())?, url: url.clone(), host: None });
    }
    if let (Some(name), Some(proxy)) = (&tls.server_name, &proxy) {
        return Err(bad(format!(
            "`tls.server_name`: {} cannot be asked for through the proxy {}",
            name.as_str(),
            egress::shown(proxy)
        ))
        .hint("name the host of the URL in NO_PROXY to reach it directly"));
    }
    // The host is part of the key only where the client is bound to it.
    let host = url.host_str().unwrap_or_default().to_owned();
    let bound = tls.server_name.as_ref().map(|_| host.clone());
    let material = tls.material(vault).await?;
    let through = proxy.as_ref().map(egress::shown);
    let client = kept((tls.clone(), material.digest, bound.clone(), proxy.clone()), || {
        install_tls();
        let mut builder = builder().tls_backend_preconfigured(tls.config_from(material)?);
        if let Some(proxy) = proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|e| {
                ProviderError::terminal(codes::INTERNAL, format!("a proxy cannot be used: {}", chain(&e)))
            })?);
        }
        if let Some(host) = bound {
            builder = builder.dns_resolver(Arc::new(Instead(host)));
        }
        builder.build().map_err(|e| {
            ProviderError::terminal(codes::INTERNAL, format!("cannot create an HTTP client: {}", chain(&e)))
        })
    })?;
    let Some(name) = &tls.server_name else {
        return Ok(Link { proxy: through, client, url: url.clone(), host: None });
    };
    let mut renamed = url.clone();
    renamed.set_host(Some(name.as_str())).map_err(|e| {
        bad(format!("`tls.server_name`: \"{}\" is not a valid host of a URL: {e}", name.as_str()))
    })?;
    let said = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    Ok(Link { proxy: through, client, url: renamed, host: Some(said) })
}

type Key = (Tls, [u8; 32], Option<String>, Option<Url>);

/// Runbooks use a handful of TLS settings; more than this means that files are being renewed, and old clients can go.
const CLIENTS_KEPT: usize = 64;

fn kept(key: Key, make: impl FnOnce() -> Result<Client, ProviderError>) -> Result<Client, ProviderError> {
    static CLIENTS: LazyLock<Mutex<HashMap<Key, Client>>> = LazyLock::new(Mutex::default);
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = clients.get(&key) {
        return Ok(client.clone());
    }
    let client = make()?;
    if clients.len() >= CLIENTS_KEPT {
        clients.clear();
    }
    clients.insert(key, client.clone());
    Ok(client)
}

/// Resolves every name to the addresses of one host.
struct Instead(String);

impl dns::Resolve for Instead {
    fn resolve(&self, _: dns::Name) -> dns::Resolving {
        let host = self.0.trim_start_matches('[').trim_end_matches(']').to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as dns::Addrs)
        })
    }
}

/// Trusts what these certificates vouch for, and the certificates themselves: one that a server signed by itself is made to be
/// trusted like that.
pub(super) fn trusting(
    config: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    roots: Arc<RootCertStore>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::clone(config.crypto_provider());
    match WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider).build() {
        Ok(usual) => config.dangerous().with_custom_certificate_verifier(Arc::new(Trusting { usual, roots })),
        // A machine that trusts nobody.
        Err(_) => config.with_root_certificates(roots),
    }
}

/// As usual, and a certificate that is itself one of those to trust.
#[derive(Debug)]
struct Trusting {
    usual: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.usual.verify_server_cert(certificate, between, name, ocsp, now) {
            // Not one of the errors that have a name, such as that it expired or is for another host.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Other(_) | CertificateError::UnknownIssuer,
            )) if is_trusted_itself(certificate, &self.roots) => {
                verify_itself(certificate, name, now).map(|()| ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a certificate is one of those to trust: the same subject with the same key.
pub fn is_trusted_itself(certificate: &CertificateDer<'_>, roots: &RootCertStore) -> bool {
    let mut own = RootCertStore::empty();
    own.add(certificate.clone().into_owned()).is_ok()
        && own.roots.iter().all(|anchor| roots.roots.contains(anchor))
}

/// What is left to be looked at of a certificate that is trusted itself: its dates and its names.
fn verify_itself(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let moment = |time: &x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or_default();
    if now.as_secs() > moment(&validity.not_after) {
        return Err(CertificateError::Expired.into());
    }
    if now.as_secs() < moment(&validity.not_before) {
        return Err(CertificateError::NotValidYet.into());
    }
    rustls::client::verify_server_name(&rustls::server::ParsedCertificate::try_from(certificate)?, name)
}

/// Accepts any certificate, but not a handshake that was not signed with its key.
#[derive(Debug)]
struct Unverified(WebPkiSupportedAlgorithms);

impl Unverified {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Why a handshake failed, for people.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, Error};
    match error {
        Error::InvalidCertificate(certificate) => explain_certificate(certificate),
        Error::AlertReceived(Alert::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "the server offers no acceptable TLS version and cipher".to_owned()
        }
        Error::AlertReceived(Alert::CertificateRequired) => {
            "the server requires a client certificate".to_owned()
        }
        Error::AlertReceived(alert) => {
            format!("the server refused the handshake ({})", in_words(&format!("{alert:?}")))
        }
        Error::InvalidMessage(_) => "the server does not speak TLS".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired on {}", date(*not_after))
        }
        CertificateError::Expired => "the certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", date(*not_before))
        }
        CertificateError::NotValidYet => "the certificate is not valid yet".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            // Names come as `DnsName("a.example")`.
            let names: Vec<&str> = presented
                .iter()
                .map(|name| name.split_once('(').map_or(&**name, |(_, rest)| rest))
                .map(|name| name.trim_end_matches(')').trim_matches('"'))
                .collect();
            wrong_host(&expected.to_str(), &names)
        }
        CertificateError::NotValidForName => "the certificate is issued for another host".to_owned(),
        CertificateError::UnknownIssuer => "the certificate is not issued by a trusted authority".to_owned(),
        CertificateError::Revoked => "the certificate was revoked".to_owned(),
        CertificateError::BadSignature => "the certificate's signature is not valid".to_owned(),
        other => {
            let name = format!("{other:?}");
            // `Other(OtherError(CaUsedAsEndEntity))`: what counts is innermost.
            let name = name.rsplit('(').next().unwrap_or_default();
            let name = name.split([')', ' ', '{']).next().unwrap_or_default();
            match name {
                "CaUsedAsEndEntity" => "the server's certificate is marked as an authority (CA:TRUE), as self-signed ones \
                    are: trust this very certificate with `ca`, or make it with `-addext basicConstraints=critical,CA:FALSE`"
                    .to_owned(),
                "UnsupportedCertVersion" => {
                    "the certificate is of an old version of X.509: version 3 is needed, which has the names of hosts \
                     (`-addext subjectAltName=DNS:HOST`)"
                        .to_owned()
                }
                "BadEncoding" | "BadDer" | "BadDerTime" => "the certificate cannot be read".to_owned(),
                "InvalidPurpose" | "InvalidPurposeContext" | "RequiredEkuNotFound" | "RequiredEkuNotFoundContext" => {
                    "the certificate is not made for servers (extended key usage serverAuth)".to_owned()
                }
                name => format!("the certificate was rejected: {}", in_words(name)),
            }
        }
    }
}

/// A name of the library in words: `HandshakeFailure` becomes `handshake failure`.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// The sentence for a certificate that does not name the host it was asked for.
pub fn wrong_host(host: &str, names: &[&str]) -> String {
    if names.is_empty() {
        format!("the certificate names no host, not even {host}")
    } else {
        format!("the certificate is for {}, not for {host}", names.join(", "))
    }
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|secs| jiff::Timestamp::from_second(secs).ok())
        .map_or_else(|| format!("{} (Unix time)", time.as_secs()), |at| at.to_string())
}

/// The TLS error in a chain of causes.
pub fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error hides what it wraps from `source`.
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && let Some(found) = tls_error(inner)
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
