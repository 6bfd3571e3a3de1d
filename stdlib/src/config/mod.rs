//! `cutover.toml`: environments and their targets.

use std::{path::PathBuf, sync::Arc};

use cutover_runtime::error::{RunError, did_you_mean};
use serde::de::DeserializeOwned;

use crate::codes;

/// Why a configuration cannot be used. The first frame is the place in the file.
pub type ConfigError = RunError;

/// One target of one environment: the table `[env.ENVIRONMENT.NOUN.NAME]`.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Environment it belongs to.
    pub environment: String,
    /// Capability, such as `traffic`.
    pub noun: String,
    /// Name in scripts, such as `web`.
    pub name: String,
    /// Value of `provider`.
    pub provider: String,
    /// The other settings.
    table: toml_edit::Table,
    /// The file they stand in.
    file: Arc<File>,
}

/// A configuration file.
#[derive(Debug)]
struct File {
    path: PathBuf,
    text: String,
}

impl Entry {
    /// Decodes the settings, all but `provider`, into a struct that denies unknown fields.
    ///
    /// # Errors
    /// `config` with line and column, what is expected, and the closest name.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let _ = (&self.table, &self.file.text);
        Err(RunError::new(codes::CONFIG, "being written"))
    }

    /// The error for a `provider` that this noun does not have.
    pub fn unknown_provider(&self, known: &[&str]) -> ConfigError {
        let error =
            RunError::new(codes::CONFIG, format!("no {} provider named \"{}\"", self.noun, self.provider));
        match did_you_mean(&self.provider, known.iter().copied()) {
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint(format!("{} providers: {}", self.noun, known.join(", "))),
        }
    }

    /// The error for a setting of this target that cannot be used, at the place of `key`.
    pub fn bad_setting(&self, key: &str, message: &str) -> ConfigError {
        RunError::new(codes::CONFIG, format!("`{key}`: {message}"))
    }

    /// A path in the configuration, taken from the folder of the file.
    pub fn path(&self, path: &str) -> PathBuf {
        self.file.path.parent().map_or_else(|| path.into(), |folder| folder.join(path))
    }
}
