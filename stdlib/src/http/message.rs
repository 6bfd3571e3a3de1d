//! The parts of a request as scripts write them: where it goes, its method, header names and body.

use std::{collections::BTreeMap, fmt};

use contraflow_runtime::{
    effect::On,
    error::codes,
    provider::ProviderError,
    secret::{Text, Vault, has_handle},
    target::Target,
};
use reqwest::Url;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::traffic::Traffic;

/// Where a request goes: a URL, or a route of the environment, or one of its pools.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub enum Where {
    /// `https://shop.example.com/health`.
    Url(Url),
    /// `web`, or `web/green`.
    Route {
        /// The traffic target.
        route: String,
        /// One of its pools.
        pool: Option<String>,
    },
}

impl TryFrom<String> for Where {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.contains("://") {
            return url(&text).map(Self::Url);
        }
        let (route, pool) = match text.split_once('/') {
            Some((route, pool)) => (route, Some(pool)),
            None => (&*text, None),
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        if !is_name(route) || !pool.is_none_or(is_name) {
            return Err(format!(
                "\"{text}\" is neither a URL such as \"https://shop.example.com\" nor a route or pool such as \"web\" or \"web/green\""
            ));
        }
        Ok(Self::Route { route: route.to_owned(), pool: pool.map(str::to_owned) })
    }
}

impl From<Where> for String {
    fn from(place: Where) -> Self {
        place.to_string()
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url.as_str()),
            Self::Route { route, pool: None } => f.write_str(route),
            Self::Route { route, pool: Some(pool) } => write!(f, "{route}/{pool}"),
        }
    }
}

/// A URL that requests can be sent to.
fn url(text: &str) -> Result<Url, String> {
    // The text is not repeated before it is known to hold no password.
    let url = Url::parse(text).map_err(|e| format!("not a URL: {e}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a URL must not hold a user name or password: send them in `headers`, as a secret".to_owned()
        );
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("\"{url}\" is not an HTTP address: expected http:// or https://"));
    }
    Ok(url)
}

impl Where {
    /// The targets that an answer from there depends on.
    pub fn targets(&self) -> Vec<Target> {
        match self {
            Self::Url(_) => Vec::new(),
            Self::Route { route, pool: None } => vec![Target::new("traffic", route)],
            Self::Route { pool: Some(_), .. } => vec![Target::new("deploy", &self.to_string())],
        }
    }

    /// The address, with `path` behind it.
    ///
    /// # Errors
    /// No such route or pool, or `path` does not fit.
    pub async fn url(&self, on: &On, path: Option<&UrlPath>) -> Result<Url, ProviderError> {
        let base = match self {
            Self::Url(url) => url.clone(),
            Self::Route { route, pool } => {
                let address = on.get::<dyn Traffic>(route)?.address(pool.as_deref()).await?;
                url(&address).map_err(|e| {
                    ProviderError::terminal(
                        codes::PROVIDER,
                        format!("the address of {self} is not valid: {e}"),
                    )
                })?
            }
        };
        let Some(UrlPath(path)) = path else { return Ok(base) };
        if base.query().is_some() || base.fragment().is_some() {
            return Err(ProviderError::terminal(
                codes::ARGUMENT,
                format!("`path`: {base} already has a query, so {path} cannot be appended"),
            )
            .hint("put the full address in the URL, or the query in `path`"));
        }
        Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/'))).map_err(|e| {
            ProviderError::terminal(codes::ARGUMENT, format!("`path`: {path} is not valid: {e}"))
        })
    }
}

/// What comes behind an address: `/health`, `/search?q=x`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlPath(String);

impl TryFrom<String> for UrlPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            Ok(Self(text))
        } else {
            Err(format!("bad path \"{text}\": expected one that begins with /, such as \"/health\""))
        }
    }
}

impl From<UrlPath> for String {
    fn from(path: UrlPath) -> Self {
        path.0
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are those of RFC 9110 and RFC 5789")]
pub enum Method {
    #[default]
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// The method as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether it asks for no change at the receiver (RFC 9110, 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }

    /// Whether twice does what once does (RFC 9110, 9.2.2).
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Post | Self::Patch)
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Options => Self::OPTIONS,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        [Self::Get, Self::Head, Self::Options, Self::Post, Self::Put, Self::Patch, Self::Delete]
            .into_iter()
            .find(|method| method.as_str().eq_ignore_ascii_case(&text))
            .ok_or_else(|| {
                de::Error::custom(format!(
                    "bad method \"{text}\": expected GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE"
                ))
            })
    }
}

/// How many redirects to follow: `false`, `true` (10), or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Redirects(pub u32);

impl Redirects {
    /// The answer is taken as it is.
    pub const NONE: Self = Self(0);
    /// What `true` means.
    const SOME: Self = Self(10);
}

impl<'de> Deserialize<'de> for Redirects {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl de::Visitor<'_> for Any {
            type Value = Redirects;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a number from 0 to 50")
            }

            fn visit_bool<E: de::Error>(self, follow: bool) -> Result<Redirects, E> {
                Ok(if follow { Redirects::SOME } else { Redirects::NONE })
            }

            fn visit_u64<E: de::Error>(self, most: u64) -> Result<Redirects, E> {
                match u32::try_from(most) {
                    Ok(most @ 0..=50) => Ok(Redirects(most)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(most), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, most: i64) -> Result<Redirects, E> {
                u64::try_from(most)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(most), &self))
                    .and_then(|most| self.visit_u64(most))
            }
        }
        from.deserialize_any(Any)
    }
}

/// The name of a header, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(reqwest::header::HeaderName);

impl PartialOrd for HeaderName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HeaderName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl HeaderName {
    /// The name as the HTTP library knows it.
    pub fn name(&self) -> &reqwest::header::HeaderName {
        &self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl std::str::FromStr for HeaderName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("\"{text}\" is not the name of a header"))
    }
}

impl Serialize for HeaderName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for HeaderName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// Headers to send, each value plain or secret.
pub type Headers = BTreeMap<HeaderName, Text>;

/// A body to send: text, a secret, or a map or array that is sent as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Payload {
    /// Sent as it is.
    Text(Text),
    /// Sent as JSON, with secrets filled in.
    Json(Value),
}

impl Payload {
    /// The bytes to send.
    ///
    /// # Errors
    /// A secret that this run has not read.
    pub fn reveal(&self, vault: &Vault) -> Result<Zeroizing<String>, ProviderError> {
        let unknown = |e: contraflow_runtime::secret::Unrevealed| {
            ProviderError::terminal(codes::SECRET, format!("`body`: {e}"))
        };
        match self {
            Self::Text(text) => text.reveal(vault).map_err(unknown),
            Self::Json(value) => vault.filled(value).map_err(unknown),
        }
    }

    /// Whether a secret is in it.
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Text(text) => matches!(text, Text::Secret(_)),
            Self::Json(value) => has_handle(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::secret::SecretText;
    use serde_json::json;

    use super::*;

    fn place(text: &str) -> Result<Where, String> {
        Where::try_from(text.to_owned())
    }

    #[test]
    fn a_place_is_a_url_a_route_or_a_pool() {
        assert_eq!(place("https://shop.example.com").expect("url").to_string(), "https://shop.example.com/");
        assert_eq!(place("web").expect("route").targets(), [Target::new("traffic", "web")]);
        assert_eq!(place("web/green").expect("pool").targets(), [Target::new("deploy", "web/green")]);
        assert!(place("https://shop.example.com").expect("url").targets().is_empty());
        for wrong in ["", "web/", "/green", "web green", "web/green/1", "ftp://x", "https://", "10.0.0.1:80"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let error = place("https://me:hunter2@shop.example.com/").expect_err("refused");
        assert!(error.contains("headers") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn secrets_in_a_json_body_are_filled_in_only_when_it_is_sent() {
        let vault = Vault::default();
        vault.keep("token", Zeroizing::new("s3cr3t".to_owned()));
        let body: Payload = serde_json::from_value(
            json!({ "auth": [{ "token": SecretText::named("token").surrounded("Bearer ", "") }], "n": 1 }),
        )
        .expect("body");
        assert!(body.is_secret());
        assert!(!serde_json::to_string(&body).expect("json").contains("s3cr3t"));
        assert_eq!(
            body.reveal(&vault).expect("known").as_str(),
            r#"{"auth":[{"token":"Bearer s3cr3t"}],"n":1}"#
        );
        assert_eq!(body.reveal(&Vault::default()).expect_err("unknown").code.as_str(), "secret");
        let plain: Payload = serde_json::from_value(json!("hello")).expect("text");
        assert!(!plain.is_secret());
        assert_eq!(plain.reveal(&vault).expect("plain").as_str(), "hello");
    }

    #[test]
    fn methods_are_read_in_any_case_and_others_refused() {
        let read = |text: &str| serde_json::from_value::<Method>(json!(text));
        assert_eq!(read("post").expect("method"), Method::Post);
        assert!(read("FETCH").expect_err("refused").to_string().contains("expected GET"));
    }
}
