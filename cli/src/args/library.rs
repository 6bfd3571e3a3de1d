//! Commands that tell what the libraries of this program have.

use clap::Args;

/// `contraflow docs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Docs {
    /// Function, such as traffic::shift, module, such as traffic, or error code [default: list all functions].
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `contraflow providers`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Providers {
    /// Noun, such as traffic, or provider, such as haproxy [default: list all].
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Print a JSON Schema of contraflow.toml, for completion and checks in editors.
    #[arg(long, conflicts_with_all = ["name", "output"])]
    pub(crate) json_schema: bool,
}

pub(super) const PROVIDERS_EXAMPLES: &str = "\
Examples:
  contraflow providers
  contraflow providers traffic
  contraflow providers haproxy
  contraflow providers traffic/haproxy --output json
  contraflow providers --json-schema > contraflow.schema.json";

pub(super) const DOCS_EXAMPLES: &str = "\
Examples:
  contraflow docs
  contraflow docs traffic
  contraflow docs traffic::shift
  contraflow docs gate-failed
  contraflow docs approve --output json";
