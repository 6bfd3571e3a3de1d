//! What every command has at hand: the program it belongs to and the options that every command takes.

use std::sync::Arc;

use crate::{args::Global, program::Program};

/// The program and the options that every command takes.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The program.
    pub(crate) program: Arc<Program>,
    /// Options that every command takes.
    pub(crate) global: Global,
}
