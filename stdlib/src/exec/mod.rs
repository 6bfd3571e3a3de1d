//! `exec`: being written.

use cutover_runtime::provider::Providers;
use rhai::Module;

use crate::config::{ConfigError, Entry};

/// The script module `exec`.
pub fn module() -> Module {
    Module::new()
}

/// Binds a target from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let _ = into;
    Err(entry.unknown_provider(&[]))
}
