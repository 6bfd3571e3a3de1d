//! What can be wrong with a configuration, all at once.

use std::{fmt, ops::Deref, sync::Arc};

use crate::error::RunError;

/// Why a configuration cannot be used. The first frame is the place: file, line and column, or the variable.
pub type ConfigError = RunError;

/// Everything that is wrong with a configuration, in the order of the file where it was read from top to bottom.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    text: Option<Arc<str>>,
}

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>, text: Option<Arc<str>>) -> Self {
        errors.sort_by_key(|error| error.frames.first().map_or((0, 0), |at| (at.line, at.column)));
        Self { errors, text }
    }

    /// The text of the file, for showing the lines. `None`: it could not be read.
    pub fn text(&self) -> Option<&Arc<str>> {
        self.text.as_ref()
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error], text: None }
    }
}

impl Deref for ConfigErrors {
    type Target = [ConfigError];

    fn deref(&self) -> &[ConfigError] {
        &self.errors
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.errors.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            match error.frames.first() {
                Some(at) if at.line > 0 => write!(f, "{}:{}:{}: {error}", at.source, at.line, at.column)?,
                Some(at) => write!(f, "{}: {error}", at.source)?,
                None => write!(f, "{error}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
