//! One table of settings, as the code of its noun sees it.

use std::{fmt, path::PathBuf, sync::Arc};

use serde::de::DeserializeOwned;
use toml_edit::Table;

use super::{
    BadSetting, ConfigError,
    decode::{Home, decode, key_offset, placed},
    file::{File, dotted},
};
use crate::{
    codes,
    error::{RunError, did_you_mean},
};

/// One target of one environment: the table `[env.ENVIRONMENT.NOUN.NAME]`.
#[derive(Clone)]
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
    pub(super) table: Table,
    /// Where the table stands.
    pub(super) home: Home,
    /// Where the value of `provider` stands.
    pub(super) provider_offset: Option<usize>,
    /// The file they stand in.
    pub(super) file: Arc<File>,
}

// Settings may come from variables that hold secrets, so they are not shown.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {:?})", dotted(&self.home.path), self.provider, self.file)
    }
}

impl Entry {
    /// Decodes the settings, all but `provider`, into a struct that denies unknown fields.
    ///
    /// # Errors
    /// `config` with line and column, what is expected, and the closest name.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        decode(&self.file, &self.home, &self.table)
    }

    /// The error for a `provider` that this noun does not have.
    pub fn unknown_provider(&self, known: &[&str]) -> ConfigError {
        let error =
            RunError::new(codes::CONFIG, format!("no {} provider named \"{}\"", self.noun, self.provider));
        let error = match did_you_mean(&self.provider, known.iter().copied()) {
            None if known.is_empty() => error
                .hint(format!("there are none for {} yet; the environment sandbox has its own", self.noun)),
            Some(close) => error.hint(format!("did you mean \"{close}\"?")),
            None => error.hint(format!("{} providers: {}", self.noun, known.join(", "))),
        };
        self.at_provider(error)
    }

    /// An error about the value of `provider`, at its place.
    pub(super) fn at_provider(&self, error: ConfigError) -> ConfigError {
        placed(&self.file, error, &self.path_of("provider"), self.provider_offset)
    }

    /// The error for a setting that cannot be used, at its place.
    pub(super) fn placed_setting(&self, bad: BadSetting) -> ConfigError {
        let error = self.bad_setting(&bad.key, &bad.message);
        bad.hints.into_iter().fold(error, ConfigError::hint)
    }

    /// The error for a setting of this target that cannot be used, at the place of `key`. A key in a table in the
    /// settings is written with dots: `pools.green`.
    pub fn bad_setting(&self, key: &str, message: &str) -> ConfigError {
        let error = RunError::new(codes::CONFIG, format!("`{key}`: {message}"));
        let within: Vec<&str> =
            key.split('.').map(|part| part.split_once('[').map_or(part, |(name, _)| name)).collect();
        let offset = (1..=within.len()).rev().find_map(|n| key_offset(&self.table, &within[..n]));
        placed(&self.file, error, &self.path_of(key), offset.or(self.home.offset))
    }

    /// A path in the configuration, taken from the folder of the file.
    pub fn path(&self, path: &str) -> PathBuf {
        self.file.beside(path)
    }

    /// Gives an error of this target a place, if it has none yet: the name of the target.
    pub(super) fn placed(&self, error: ConfigError) -> ConfigError {
        if error.frames.is_empty() {
            placed(&self.file, error, &self.home.path, self.home.offset)
        } else {
            error
        }
    }

    fn path_of(&self, key: &str) -> Vec<String> {
        self.home.path.iter().cloned().chain(key.split('.').map(str::to_owned)).collect()
    }
}
