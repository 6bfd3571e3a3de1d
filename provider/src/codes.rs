//! Error codes that providers answer with, besides those of the runtime in [`crate::error::codes`].

/// A configuration file that cannot be used.
pub const CONFIG: &str = "config";
/// A migration that cannot be applied or was changed after it was.
pub const MIGRATION: &str = "migration";
/// A backup that could not be made or read back.
pub const BACKUP: &str = "backup";
/// A query that a database refused.
pub const QUERY: &str = "query";
/// A message that was not accepted.
pub const NOTIFY: &str = "notify";
/// A route that cannot take the weights it was given.
pub const TRAFFIC: &str = "traffic";
/// A pool that cannot be scaled as asked.
pub const DEPLOY: &str = "deploy";
/// A server that refused a request (HTTP 4xx).
pub const HTTP_STATUS: &str = "http-status";
