//! `probe::tls` looks at a server's certificate: who it is for, who vouches for it, how long it lasts.

use std::sync::{Arc, Mutex, PoisonError};

use contraflow_runtime::{
    effect::{Limits, On, Read, Verdict},
    provider::ProviderError,
    quantity::Span,
    script::{Checks, ScriptContext},
    secret::Text,
    target::Target,
};
use jiff::Timestamp;
use rhai::{Map, NativeCallContext, plugin::*};
use rustls::{
    ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use super::{
    attempts::{self, Attempt, Attempts, Failure, Miss, Tries, millis},
    endpoint::Endpoint,
    expect::join,
};
use crate::net::{
    self,
    tls::{HostName, Tls, TlsVersion, explain, server_name, tls_error, wrong_host},
};

/// Options of `probe::tls`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Minimum days of remaining validity.
    days_left: u32,
    /// Minimum TLS version.
    min_version: TlsVersion,
    /// The host name to request and to expect in the certificate, instead of the target's.
    #[schemars(with = "Option<String>")]
    server_name: Option<HostName>,
    /// PEM file with the certificates to trust instead of the system's.
    ca: Option<std::path::PathBuf>,
    /// PEM file with the client certificate, for servers that require one.
    client_cert: Option<std::path::PathBuf>,
    /// PEM file with the key of `client_cert`, or the key itself as a secret.
    client_key: Option<Text>,
    /// Maximum attempts.
    #[schemars(with = "u32")]
    attempts: Attempts,
    /// Time between two attempts.
    interval: Span,
    /// Time limit for one attempt.
    timeout: Span,
    /// What else it depends on, such as `["traffic/web"]`. In a plan, a probe of something that the plan would have changed is
    /// assumed to pass.
    depends_on: Vec<Target>,
}

impl Default for Options {
    fn default() -> Self {
        let Tries { attempts, interval, timeout } = Tries::DEFAULT;
        Self {
            days_left: 14,
            min_version: TlsVersion::V1_2,
            server_name: None,
            ca: None,
            client_cert: None,
            client_key: None,
            attempts,
            interval,
            timeout,
            depends_on: Vec::new(),
        }
    }
}

/// Looks at a server's certificate.
#[derive(Debug, Clone, Serialize)]
pub struct TlsProbe {
    target: Endpoint,
    days_left: u32,
    min_version: TlsVersion,
    #[serde(flatten)]
    tls: Tls,
    #[serde(flatten)]
    tries: Tries,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<Target>,
}

/// What a TLS probe that passed returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Whom the certificate is about, such as `CN=shop.example.com`.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// The host names and addresses it is for.
    pub names: Vec<String>,
    /// Beginning of its validity, RFC 3339.
    pub not_before: String,
    /// End of its validity, RFC 3339.
    pub not_after: String,
    /// Whole days until then.
    pub days_left: i64,
    /// Version of TLS that was agreed on: `1.2` or `1.3`.
    pub version: String,
    /// How many certificates the server sent.
    pub chain: usize,
    /// Time to the end of the handshake, in milliseconds.
    pub latency_ms: f64,
    /// Which attempt passed, from 1.
    pub attempts: u32,
}

impl TlsProbe {
    /// A probe of `target`.
    pub fn new(target: Endpoint, options: Options) -> Self {
        let Options {
            days_left,
            min_version,
            server_name,
            ca,
            client_cert,
            client_key,
            attempts,
            interval,
            timeout,
            depends_on,
        } = options;
        Self {
            target,
            days_left,
            min_version,
            tls: Tls { ca, server_name, client_cert, client_key, ..Tls::default() },
            tries: Tries { attempts, interval, timeout },
            depends_on,
        }
    }

    pub(super) fn targets(&self) -> Vec<Target> {
        [self.target.targets(), self.depends_on.clone()].concat()
    }
}

/// Lets every certificate pass and keeps it, so that it can be looked at whatever is wrong with it. What is checked here is
/// that the server holds the certificate's key.
#[derive(Debug)]
struct Recorder {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain =
            std::iter::once(end_entity).chain(intermediates).map(|c| c.clone().into_owned()).collect();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

const EXPECTED: &str = "a TLS handshake";

impl Attempt for TlsProbe {
    type Value = Certificate;

    fn tries(&self) -> &Tries {
        &self.tries
    }

    fn subject(&self) -> String {
        format!("tls {}", self.target)
    }

    async fn once(&self, on: &On) -> Result<Certificate, Failure> {
        let (host, port) = self.target.resolve(on).await.map_err(|e| Failure::setup(EXPECTED, e))?;
        let name = match &self.tls.server_name {
            Some(name) => name.server_name(),
            None => server_name(&host),
        }
        .map_err(Failure::Hopeless)?;
        net::install_tls();
        // All versions are offered, so that one that is too old can be named.
        let builder = ClientConfig::builder_with_protocol_versions(rustls::ALL_VERSIONS);
        let algorithms = builder.crypto_provider().signature_verification_algorithms;
        let roots = self.tls.trusted().await.map_err(Failure::Hopeless)?;
        let recorder = Arc::new(Recorder { seen: Mutex::default(), algorithms });
        let verifier: Arc<dyn ServerCertVerifier> = Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match self.tls.identity(on.vault()).await.map_err(Failure::Hopeless)? {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => builder.with_client_auth_cert(certificates, key).map_err(|e| {
                Failure::Hopeless(ProviderError::terminal(
                    contraflow_runtime::error::codes::ARGUMENT,
                    format!("`client_cert` and `client_key` are not valid: {e}"),
                ))
            })?,
        };
        let start = on.clock().monotonic();
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| Miss::new("a connection", net::io_reason(&error)))?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name.clone(), stream).await;
        let latency_ms = millis(on.clock().monotonic().saturating_sub(start));
        let chain = std::mem::take(&mut *recorder.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let stream = match handshake {
            Ok(stream) => stream,
            Err(error) => {
                let reason = tls_error(&error).map_or_else(|| net::io_reason(&error), explain);
                return Err(Miss::new(EXPECTED, reason).into());
            }
        };
        let agreed = stream.get_ref().1.protocol_version();
        let version = match agreed {
            Some(ProtocolVersion::TLSv1_3) => TlsVersion::V1_3,
            _ => TlsVersion::V1_2,
        };
        let (certificate, mut misses) =
            inspect(&chain, &roots, &name, on.clock().now(), self.days_left, algorithms);
        if version < self.min_version {
            misses.push(Miss::new(format!("TLS {} or later", self.min_version), format!("TLS {version}")));
        }
        match join(misses) {
            Some(miss) => Err(miss.into()),
            None => Ok(Certificate { version: version.to_string(), latency_ms, ..certificate }),
        }
    }
}

/// What is in the certificate, and all that is wrong with it.
fn inspect(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
    host: &ServerName<'_>,
    now: Timestamp,
    days_wanted: u32,
    algorithms: WebPkiSupportedAlgorithms,
) -> (Certificate, Vec<Miss>) {
    let shown = host.to_str();
    let valid = format!("a valid certificate for {shown}");
    let mut certificate = Certificate {
        subject: String::new(),
        issuer: String::new(),
        names: Vec::new(),
        not_before: String::new(),
        not_after: String::new(),
        days_left: 0,
        version: String::new(),
        chain: chain.len(),
        latency_ms: 0.0,
        attempts: 1,
    };
    let Some((leaf, intermediates)) = chain.split_first() else {
        return (certificate, vec![Miss::new(valid, "none")]);
    };
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return (certificate, vec![Miss::new(valid, "one that cannot be parsed")]);
    };
    let (not_before, not_after) = validity(&parsed);
    certificate.subject = parsed.subject().to_string();
    certificate.issuer = parsed.issuer().to_string();
    certificate.names = names(&parsed);
    certificate.not_before = not_before.to_string();
    certificate.not_after = not_after.to_string();
    certificate.days_left = (not_after.as_second() - now.as_second()).div_euclid(86_400);

    let mut problems = Vec::new();
    let mut low = None;
    if now > not_after {
        problems
            .push(format!("the certificate expired on {not_after} ({} ago)", days(-certificate.days_left)));
    } else if now < not_before {
        problems.push(format!("the certificate is not valid before {not_before}"));
    } else if certificate.days_left < i64::from(days_wanted) {
        low = Some(Miss::new(
            format!("a certificate valid for {} more", days(days_wanted.into())),
            format!("{} left, until {not_after}", days(certificate.days_left)),
        ));
    }
    match ParsedCertificate::try_from(leaf) {
        Err(error) => problems.push(explain(&error)),
        Ok(end_entity) => {
            if verify_server_name(&end_entity, host).is_err() {
                let names: Vec<&str> = certificate.names.iter().map(String::as_str).collect();
                problems.push(wrong_host(&shown, &names));
            }
            // At a time when the leaf is valid, so that its dates do not hide who issued it.
            let moment = now.clamp(not_before.min(not_after), not_after);
            let moment = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
                u64::try_from(moment.as_second()).unwrap_or_default(),
            ));
            if let Err(error) = verify_server_cert_signed_by_trust_anchor(
                &end_entity,
                roots,
                intermediates,
                moment,
                algorithms.all,
            ) && !net::tls::is_trusted_itself(leaf, roots)
            {
                problems.push(untrusted(&error, &parsed, intermediates, now));
            }
        }
    }
    let mut misses: Vec<Miss> = low.into_iter().collect();
    if !problems.is_empty() {
        misses.insert(0, Miss::new(valid, problems.join("; ")));
    }
    (certificate, misses)
}

fn days(n: i64) -> String {
    format!("{n} day{}", if n == 1 { "" } else { "s" })
}

/// Why nobody who is trusted vouches for the certificate.
fn untrusted(
    error: &rustls::Error,
    leaf: &X509Certificate<'_>,
    intermediates: &[CertificateDer<'_>],
    now: Timestamp,
) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let sent: Vec<X509Certificate<'_>> =
                intermediates.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
            if leaf.subject() == leaf.issuer() {
                "the certificate is self-signed and not trusted here".to_owned()
            } else if !sent.iter().any(|c| c.subject() == leaf.issuer()) {
                format!(
                    "the certificate was issued by {}, which is not trusted here, and the server sent no certificate of it",
                    leaf.issuer()
                )
            } else {
                let top = sent.last().map_or_else(|| leaf.issuer().to_string(), |c| c.issuer().to_string());
                format!("the certificate's chain ends at {top}, which is not trusted here")
            }
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => intermediates
            .iter()
            .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
            .find_map(|between| {
                let (not_before, not_after) = validity(&between);
                let subject = between.subject();
                if now > not_after {
                    Some(format!("the certificate of its issuer {subject} expired on {not_after}"))
                } else if now < not_before {
                    Some(format!("the certificate of its issuer {subject} is not valid before {not_before}"))
                } else {
                    None
                }
            })
            .unwrap_or_else(|| "a certificate of its chain is not valid now".to_owned()),
        other => explain(other),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let at = |time: x509_parser::time::ASN1Time, else_: Timestamp| {
        Timestamp::from_second(time.timestamp()).unwrap_or(else_)
    };
    let validity = certificate.validity();
    // 99991231235959Z, "no end" (RFC 5280, 4.1.2.5), may lie beyond what a timestamp can hold.
    (at(validity.not_before, Timestamp::MIN), at(validity.not_after, Timestamp::MAX))
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

impl Read for TlsProbe {
    const ID: &'static str = "probe.tls";
    type Value = Certificate;

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

    async fn read(&self, on: &On) -> Result<Certificate, ProviderError> {
        let hit = attempts::repeat(on, self, attempts::progress(on, &self.tries)).await?;
        Ok(Certificate { attempts: hit.attempts, ..hit.value })
    }

    fn show(&self, certificate: &Certificate) -> String {
        format!("TLS {}, {} left", certificate.version, days(certificate.days_left))
    }

    fn limits(&self) -> Limits {
        self.tries.limits()
    }
}

/// The script functions.
#[export_module]
pub mod script {
    /// Checks a server's certificate and fails unless it is trusted, issued for that host and valid for 14 more days;
    /// returns
    /// `#{ subject, issuer, names, not_before, not_after, days_left, version, chain, latency_ms, attempts }`.
    ///
    /// The target is `host:port`, an `https` URL, a route (`web`) or one of its pools (`web/green`). Revocation is not
    /// checked.
    ///
    /// ```rhai,no_run
    /// probe::tls("shop.example.com:443").days_left > 14
    /// ```
    #[rhai_fn(name = "tls", return_raw, volatile)]
    pub fn tls(cx: NativeCallContext<'_>, target: &str) -> Checks {
        tls_with(cx, target, Map::new())
    }

    /// ```rhai,no_run
    /// probe::tls("10.0.0.5:443", #{ server_name: "shop.example.com", min_version: "1.3", days_left: 30 }).version == "1.3"
    /// ```
    #[rhai_fn(name = "tls", return_raw, volatile)]
    pub fn tls_with(cx: NativeCallContext<'_>, target: &str, options: Map) -> Checks {
        let target = cx.arg("target", target.to_owned())?;
        let options = cx.options(options)?;
        cx.read(TlsProbe::new(target, options))
    }
}

#[cfg(test)]
mod tests;
