//! Commands that tell what the libraries of this program have.

use clap::Args;

/// `contraflow docs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Docs {
    /// A function, such as traffic::shift, or a module, such as traffic [default: list all functions].
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

pub(super) const DOCS_EXAMPLES: &str = "\
Examples:
  contraflow docs
  contraflow docs traffic
  contraflow docs traffic::shift
  contraflow docs approve --output json";
