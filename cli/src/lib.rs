//! The command line of Contraflow, as a library: a program of your own with the primitives of your own.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     contraflow::Cli::builder().name("deploy").version("1.0.0").run()
//! }
//! ```
//!
//! The program has all commands of `contraflow`, reads the same configuration and shares its store. Which allocator it uses is for
//! the program to say: `contraflow` takes `mimalloc`.

mod args;
mod background;
mod cli;
mod command;
mod context;
mod files;
mod interrupt;
mod keyboard;
mod manual;
#[cfg(test)]
mod messages;
mod needs;
mod next;
mod people;
mod program;
#[cfg(test)]
mod reference;
mod render;
mod report;
mod scaffold;
mod scenario;
mod screen;
mod scripts;
mod session;
mod stderr;

pub use cli::{Cli, CliBuilder};
pub use contraflow_runtime::{self as runtime, rhai};
pub use contraflow_stdlib as stdlib;
