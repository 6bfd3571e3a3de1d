//! Names of things that runbooks act on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing outside that effects look at or change, such as `traffic/web`.
///
/// Two effects that name the same target are ordered: the second sees what the first did, also in a plan.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Target(String);

impl Target {
    /// The target `name` of a capability, such as `Target::new("traffic", "web")`.
    pub fn new(noun: &str, name: &str) -> Self {
        Self(format!("{noun}/{name}"))
    }

    /// The whole name, `noun/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The capability, such as `traffic`.
    pub fn noun(&self) -> &str {
        self.0.split_once('/').map_or("", |(noun, _)| noun)
    }

    /// The name behind the noun.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&*self.0, |(_, name)| name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
