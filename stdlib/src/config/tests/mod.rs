//! What must hold for a configuration: what is read, and where each error points.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use contraflow_runtime::quantity::{Size, Span};
use serde::Deserialize;

use super::*;
use crate::codes;

mod fuzz;
mod reading;
mod settings;
mod variables;
mod wrong;

const NO_VARS: [(&str, &str); 0] = [];

/// Two environments that use everything there is.
const FULL: &str = r#"default_env = "staging"
store = "runs.db"
state_dir = ".state"

[limits]
max_operations = 5_000_000
max_memory = "256MiB"
max_wall_time = "2h"

[env.staging]
params = { hold = "10s", weights = [5, 50, 100] }

[env.staging.traffic.web]
provider = "haproxy"
socket = "haproxy.sock"
pools = { blue = "b", green = "g" }

[env.production]
protected = true

[env.production.params]
hold = "15m"
replicas = 3
share = 0.5
strict = true
since = 2024-05-01

[env.production.exec]
allow = ["git"]

[env.production.traffic.web]
provider = "haproxy"
socket = "/run/haproxy/admin.sock"
pools = { blue = "b", green = "g" }
weight = 7

[env.production.notify]
ops = { provider = "console" }
"#;

fn parsed<K: Into<OsString>, V: Into<OsString>>(
    path: impl AsRef<Path>,
    text: &str,
    vars: impl IntoIterator<Item = (K, V)>,
) -> Result<Config, ConfigErrors> {
    Config::parse(path, text, vars, crate::library().registry())
}

fn loaded<K: Into<OsString>, V: Into<OsString>>(
    path: impl AsRef<Path>,
    vars: impl IntoIterator<Item = (K, V)>,
) -> Result<Config, ConfigErrors> {
    Config::load(path, vars, crate::library().registry())
}

fn without_file<K: Into<OsString>, V: Into<OsString>>(
    vars: impl IntoIterator<Item = (K, V)>,
) -> Result<Config, ConfigErrors> {
    Config::without_file(vars, crate::library().registry())
}

fn parse(text: &str) -> Config {
    parsed("conf/contraflow.toml", text, NO_VARS).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Where a configuration keeps runs.
fn store(config: &Config) -> String {
    config.store().expect("can be fetched").expect("is named").as_str().to_owned()
}

/// One error as `line:column what: message (hint; hint)`, or with the variable in front.
fn shown(error: &ConfigError) -> String {
    let hints = if error.hints.is_empty() { String::new() } else { format!(" ({})", error.hints.join("; ")) };
    assert!(error.is(codes::CONFIG), "{error:?}");
    match error.frames.first() {
        Some(at) if at.line > 0 => {
            assert_eq!(at.source, "conf/contraflow.toml");
            format!("{}:{} {}: {error}{hints}", at.line, at.column, at.what)
        }
        Some(at) => format!("{} {}: {error}{hints}", at.source, at.what),
        None => format!("nowhere: {error}{hints}"),
    }
}

fn all(errors: &ConfigErrors) -> Vec<String> {
    errors.iter().map(shown).collect()
}

fn errors(text: &str, vars: &[(&str, &str)]) -> Vec<String> {
    match parsed("conf/contraflow.toml", text, vars.iter().copied()) {
        Ok(config) => panic!("nothing is wrong with {config:?}"),
        Err(errors) => {
            assert_eq!(errors.text().map(|text| &**text), Some(text));
            all(&errors)
        }
    }
}

/// A folder of its own for a test, gone afterwards.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().canonicalize().expect("the folder");
    (dir, path)
}
