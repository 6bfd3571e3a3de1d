//! The security headers that a probe can ask for by a short name, and what makes each of them worth something.
//!
//! What is demanded follows the OWASP HTTP Headers Cheat Sheet and the standards named at each check; it is the least that
//! protects, not the most that is recommended.

use reqwest::header::HeaderName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attempts::Miss;
use crate::http::exchange::Raw;

/// A security header, by its short name or in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Security {
    /// RFC 6797: browsers must use TLS from now on.
    #[serde(alias = "strict-transport-security")]
    Hsts,
    /// CSP Level 3: where scripts may come from.
    #[serde(alias = "content-security-policy")]
    Csp,
    /// Fetch standard: types are not guessed.
    XContentTypeOptions,
    /// RFC 7034 or CSP `frame-ancestors`: who may frame the page.
    XFrameOptions,
    /// Referrer Policy: what other sites learn of the address.
    ReferrerPolicy,
    /// Permissions Policy: which features the page may use.
    PermissionsPolicy,
    /// HTML standard: the page shares no window group with strangers.
    #[serde(alias = "cross-origin-opener-policy")]
    Coop,
    /// HTML standard: the page loads only what agrees to it.
    #[serde(alias = "cross-origin-embedder-policy")]
    Coep,
    /// Fetch standard: who may load this.
    #[serde(alias = "cross-origin-resource-policy")]
    Corp,
}

impl Security {
    fn name(self) -> HeaderName {
        HeaderName::from_static(match self {
            Self::Hsts => "strict-transport-security",
            Self::Csp => "content-security-policy",
            Self::XContentTypeOptions => "x-content-type-options",
            Self::XFrameOptions => "x-frame-options",
            Self::ReferrerPolicy => "referrer-policy",
            Self::PermissionsPolicy => "permissions-policy",
            Self::Coop => "cross-origin-opener-policy",
            Self::Coep => "cross-origin-embedder-policy",
            Self::Corp => "cross-origin-resource-policy",
        })
    }

    fn wants(self) -> &'static str {
        match self {
            Self::Hsts => "with a max-age of 1 or more",
            Self::Csp => "with default-src or script-src",
            Self::XContentTypeOptions => "\"nosniff\"",
            Self::XFrameOptions => {
                "\"DENY\" or \"SAMEORIGIN\", or frame-ancestors in content-security-policy"
            }
            Self::ReferrerPolicy => "with a policy other than unsafe-url",
            Self::PermissionsPolicy => "with a directive",
            Self::Coop => "\"same-origin\", \"same-origin-allow-popups\" or \"noopener-allow-popups\"",
            Self::Coep => "\"require-corp\" or \"credentialless\"",
            Self::Corp => "\"same-origin\" or \"same-site\"",
        }
    }

    /// Whether the answer has it, and it protects.
    pub(crate) fn check(self, raw: &Raw) -> Result<(), Miss> {
        let name = self.name();
        let found = raw.header(&name);
        let policy = raw.header(&Self::Csp.name()).unwrap_or_default();
        let passes = match (self, &found) {
            (Self::XFrameOptions, None) => directives(&policy).any(|(d, _)| d == "frame-ancestors"),
            (_, None) => false,
            (_, Some(value)) => self.holds(value),
        };
        if passes {
            return Ok(());
        }
        Err(Miss::new(
            format!("header {name} {}", self.wants()),
            found.map_or_else(|| "no such header".to_owned(), |value| format!("\"{value}\"")),
        ))
    }

    fn holds(self, value: &str) -> bool {
        let is_one_of = |known: &[&str]| known.iter().any(|k| first_token(value).eq_ignore_ascii_case(k));
        match self {
            // max-age=0 tells browsers to forget it. The value may be quoted (RFC 6797, 6.1).
            Self::Hsts => directives(value).any(|(name, argument)| {
                name == "max-age" && argument.trim_matches('"').parse::<u64>().is_ok_and(|age| age >= 1)
            }),
            Self::Csp => directives(value).any(|(name, _)| matches!(&*name, "default-src" | "script-src")),
            Self::XContentTypeOptions => is_one_of(&["nosniff"]),
            Self::XFrameOptions => is_one_of(&["DENY", "SAMEORIGIN"]),
            // Browsers take the last policy that they know.
            Self::ReferrerPolicy => value
                .split(',')
                .map(|policy| policy.trim().to_ascii_lowercase())
                .rfind(|policy| REFERRER_POLICIES.contains(&policy.as_str()))
                .is_some_and(|policy| policy != "unsafe-url"),
            Self::PermissionsPolicy => value.contains('='),
            Self::Coop => is_one_of(&["same-origin", "same-origin-allow-popups", "noopener-allow-popups"]),
            Self::Coep => is_one_of(&["require-corp", "credentialless"]),
            Self::Corp => is_one_of(&["same-origin", "same-site"]),
        }
    }
}

const REFERRER_POLICIES: [&str; 8] = [
    "no-referrer",
    "no-referrer-when-downgrade",
    "same-origin",
    "origin",
    "strict-origin",
    "origin-when-cross-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

/// The value without parameters (`same-origin; report-to="x"`).
fn first_token(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// The directives of a policy: lower-case names and what follows them.
fn directives(value: &str) -> impl Iterator<Item = (String, &str)> {
    value.split([';', ',']).map(str::trim).filter(|d| !d.is_empty()).map(|directive| {
        let (name, argument) =
            directive.split_once(|c: char| c == '=' || c.is_whitespace()).unwrap_or((directive, ""));
        (name.to_ascii_lowercase(), argument.trim())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reqwest::{StatusCode, Url, header::HeaderMap};
    use serde_json::json;

    use super::*;

    fn check(name: &str, headers: &[(&'static str, &str)]) -> Result<(), Miss> {
        let security: Security = serde_json::from_value(json!(name)).expect(name);
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("value")))
            .collect();
        let url = Url::parse("https://shop.example.com/").expect("url");
        security.check(&Raw {
            url,
            status: StatusCode::OK,
            headers,
            body: Vec::new(),
            beyond: Vec::new(),
            truncated: false,
            vault: Arc::default(),
        })
    }

    #[test]
    fn each_header_passes_when_it_protects_and_fails_when_it_does_not() {
        for (name, header, good, bad) in [
            ("hsts", "strict-transport-security", "max-age=31536000; includeSubDomains", "max-age=0"),
            ("hsts", "strict-transport-security", "includeSubDomains; max-age=\"600\"", "max-age=soon"),
            ("csp", "content-security-policy", "default-src 'self'", "upgrade-insecure-requests"),
            ("x-content-type-options", "x-content-type-options", "NoSniff", "sniff"),
            ("x-frame-options", "x-frame-options", "deny", "ALLOW-FROM https://x"),
            ("referrer-policy", "referrer-policy", "unknown, same-origin", "no-referrer, unsafe-url"),
            ("permissions-policy", "permissions-policy", "camera=()", "none"),
            ("coop", "cross-origin-opener-policy", "same-origin; report-to=\"x\"", "unsafe-none"),
            ("coep", "cross-origin-embedder-policy", "require-corp", "unsafe-none"),
            ("corp", "cross-origin-resource-policy", "same-site", "cross-origin"),
        ] {
            assert_eq!(check(name, &[(header, good)]), Ok(()), "{name}: {good}");
            let miss = check(name, &[(header, bad)]).expect_err(bad);
            assert_eq!(miss.got, format!("\"{bad}\""), "{name}");
            let miss = check(name, &[]).expect_err("absent");
            assert!(miss.expected.contains(header) && miss.got == "no such header", "{miss:?}");
        }
    }

    #[test]
    fn frame_ancestors_stand_in_for_x_frame_options() {
        let policy = "default-src 'none'; frame-ancestors 'none'";
        assert_eq!(check("x-frame-options", &[("content-security-policy", policy)]), Ok(()));
    }

    #[test]
    fn full_names_are_accepted_and_unknown_ones_refused() {
        assert_eq!(check("strict-transport-security", &[("strict-transport-security", "max-age=1")]), Ok(()));
        let error = serde_json::from_value::<Security>(json!("hstss")).expect_err("refused");
        assert!(error.to_string().contains("unknown variant `hstss`"), "{error}");
    }
}
