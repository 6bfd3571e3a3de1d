//! `contraflow.toml`, as it is read with the nouns and providers of this library.

pub use contraflow_provider::config::*;

#[cfg(test)]
mod tests;
