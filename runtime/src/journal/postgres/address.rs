//! Where a store is: the URL of a database.

use std::{str::FromStr as _, time::Duration};

use percent_encoding::percent_decode_str;
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};

use crate::{error::did_you_mean, journal::StoreError};

/// What a URL looks like.
const WANTED: &str = "expected postgres://user@host:5432/database?sslmode=verify-full";

/// Longest time to connect, unless the URL has `connect_timeout`.
const CONNECT: Duration = Duration::from_secs(10);

/// The options that a URL may have, named as in libpq.
const OPTIONS: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "connect_timeout",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];

/// Which values `sslmode` may have. `allow` is not among them: it would never ask for TLS.
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

/// A database and how to get there.
pub(super) struct Address {
    pub(super) options: PgConnectOptions,
    pub(super) patience: Duration,
}

impl Address {
    /// Reads a URL. What it leaves out comes from the variables and the password file that libpq knows. An error quotes nothing
    /// that could be part of a password.
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let bad = |what: &str| StoreError::new(format!("the URL of the run store: {what}")).hint(WANTED);
        let rest = ["postgres://", "postgresql://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let rest = rest.ok_or_else(|| bad("it does not begin with postgres://"))?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(authority_end);
        if authority.matches('@').count() > 1 || behind.contains(['@', '#']) {
            return Err(bad("a password with one of / ? # @ must have it percent-encoded: %2F %3F %23 %40"));
        }
        let (before, query) = url.split_once('?').unwrap_or((url, ""));
        let mut patience = CONNECT;
        let mut passed = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "connect_timeout" => {
                    let seconds: u64 =
                        value.parse().map_err(|_| bad("`connect_timeout` is not a number of seconds"))?;
                    // 0 is libpq's "wait without end", which nobody wants of a run.
                    patience = if seconds == 0 { CONNECT } else { Duration::from_secs(seconds.min(3600)) };
                    continue;
                }
                "sslmode" if !SSL_MODES.contains(&&*value) => {
                    return Err(bad(&format!(
                        "unknown sslmode \"{value}\": expected {}",
                        SSL_MODES.join(", ")
                    )));
                }
                known if OPTIONS.contains(&known) => {}
                unknown => {
                    let error = bad(&format!("unknown option `{unknown}`"));
                    return Err(match did_you_mean(unknown, OPTIONS) {
                        Some(close) => error.hint(format!("did you mean `{close}`?")),
                        None => error,
                    });
                }
            }
            passed.push(option);
        }
        let options = PgConnectOptions::from_str(&format!("{before}?{}", passed.join("&")))
            .map_err(|e| bad(&why(&e)))?
            .disable_statement_logging();
        // The brackets of an IPv6 address belong to the URL and not to the address.
        let bare = options.get_host().strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let options = match bare.map(str::to_owned) {
            Some(host) => options.host(&host),
            None => options,
        };
        let named = options.get_application_name().is_some();
        let options = if named { options } else { options.application_name("contraflow") };
        Ok(Self { options, patience })
    }

    /// Host, port and database, without a user.
    pub(super) fn shown(&self) -> String {
        let options = &self.options;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("postgres://{host}:{}/{}", options.get_port(), self.database())
    }

    /// Name of the database. Without one it is the user's.
    pub(super) fn database(&self) -> &str {
        self.options.get_database().unwrap_or_else(|| self.options.get_username())
    }
}

fn why(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(e) => e.to_string(),
        _ => "it cannot be read".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::postgres::PgSslMode;

    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    fn refused(url: &str) -> String {
        let error = Address::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
        format!("{error} ({})", error.hints.join(", "))
    }

    #[test]
    fn what_is_shown_of_an_address_has_neither_user_nor_password() {
        let url = "postgres://ann:s3cret@db.example.com:6432/shop?sslmode=require&connect_timeout=3";
        let address = parse(url);
        assert_eq!(address.shown(), "postgres://db.example.com:6432/shop");
        assert_eq!(address.patience, Duration::from_secs(3));
        assert!(matches!(address.options.get_ssl_mode(), PgSslMode::Require));
        assert_eq!(parse("postgresql://ann@[::1]:5433/shop").shown(), "postgres://[::1]:5433/shop");
        assert_eq!(parse("postgresql://ann@[::1]:5433/shop").options.get_host(), "::1");
        let by_socket = "postgres:///shop?host=/run/postgresql&user=ann&port=5432";
        assert_eq!(parse(by_socket).shown(), "postgres:///run/postgresql:5432/shop");
        assert_eq!(parse("postgres://ann@host").database(), "ann");
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_with_what_is_wanted() {
        assert!(refused("mysql://host/shop").starts_with(
            "the URL of the run store: it does not begin with postgres:// (expected postgres://user@host"
        ));
        assert!(refused("postgres://host:many/shop").contains("invalid port number"));
        assert!(refused("postgres://host/shop?sslmode=verify").contains(
            "unknown sslmode \"verify\": expected disable, prefer, require, verify-ca, verify-full"
        ));
        assert!(refused("postgres://host/shop?ssl_mode=verify-full").contains("did you mean `sslmode`?"));
        assert!(refused("postgres://host/shop?connect_timeout=soon").contains("not a number of seconds"));
    }

    #[test]
    fn a_password_that_was_not_encoded_is_never_quoted() {
        for password in ["s3cret/1", "s3cret?1", "s3cret#1", "s3cret@1", "1/s3cret", "1?s3cret", "1?a=s3cret"]
        {
            for user in ["ann", "ann@example.com"] {
                let message = refused(&format!("postgres://{user}:{password}@host/shop"));
                assert!(!message.contains("s3cret"), "{password}: {message}");
                assert!(message.contains("percent-encoded"), "{password}: {message}");
            }
        }
    }
}
