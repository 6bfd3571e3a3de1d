//! `contraflow`: plans, runs and shows runbooks.

mod args;
mod command;
mod files;
mod interrupt;
mod keyboard;
mod needs;
mod people;
#[cfg(test)]
mod reference;
mod render;
mod report;
mod scaffold;
mod scenario;
mod session;

use std::process::ExitCode;

use args::{Cli, Exit};

#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Most threads that drive connections and timers.
const MOST_THREADS: usize = 4;

/// Bytes of the machine's memory that the process holds, so that a script cannot take all of it.
fn memory() -> u64 {
    memory_stats::memory_stats().map_or(0, |held| held.physical_mem as u64)
}

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to complain about a help text.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
        }
    };
    log_to_stderr(cli.global.verbose);
    // Runbooks wait more than they compute; a thread for each core of a large machine would only take time to start.
    let threads =
        std::thread::available_parallelism().map_or(MOST_THREADS, |cores| cores.get().min(MOST_THREADS));
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let tokio = match tokio {
        Ok(tokio) => tokio,
        Err(error) => {
            let error =
                contraflow_runtime::error::RunError::new("internal", format!("cannot start: {error}"));
            return command::complain(&[error], &render::Sources::new(), &cli.global, Exit::Internal).into();
        }
    };
    let exit = tokio.block_on(command::execute(cli));
    // What still waits in the background (a terminal that nobody answers at) must not hold up the end.
    tokio.shutdown_background();
    exit.into()
}

fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::{EnvFilter, filter::LevelFilter};
    let level = match verbose {
        0 => LevelFilter::OFF,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // Costs nothing unless it is asked for.
    if level == LevelFilter::OFF && std::env::var_os("RUST_LOG").is_none() {
        return;
    }
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let ansi = report::theme::Theme::of(&std::io::stderr()).colour;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
}
