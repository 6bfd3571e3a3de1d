//! `contraflow` with the standard library.

use std::process::ExitCode;

use contraflow::Cli;

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::builder().run()
}
