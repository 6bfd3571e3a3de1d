//! A program made of libraries, and how it runs.

use std::{process::ExitCode, sync::Arc};

use contraflow_runtime::{
    Library,
    error::{RunError, codes},
};

use crate::{
    args::{CommandLine, Exit},
    background, command,
    context::Context,
    program::Program,
    render::Sources,
    report, stderr,
};

/// Most threads that drive connections and timers.
const MOST_THREADS: usize = 4;

/// Bytes of the machine's memory that the process holds, so that a script cannot take all of it.
pub(crate) fn memory() -> u64 {
    memory_stats::memory_stats().map_or(0, |held| held.physical_mem as u64)
}

/// The command line of Contraflow.
#[derive(Debug)]
pub struct Cli;

impl Cli {
    /// A program with the standard library, to which more can be added.
    pub fn builder() -> CliBuilder {
        CliBuilder { program: Program::default() }
    }
}

/// Makes up a program. What is not said is as in `contraflow`.
#[derive(Debug)]
#[must_use]
pub struct CliBuilder {
    program: Program,
}

impl CliBuilder {
    /// What the command is called, in help texts and in the commands that it proposes.
    pub fn name(mut self, name: &'static str) -> Self {
        self.program.name = name;
        self
    }

    /// The version that `--version` tells.
    pub fn version(mut self, version: &'static str) -> Self {
        self.program.version = Some(version);
        self
    }

    /// What the help says first.
    pub fn about(mut self, about: &'static str) -> Self {
        self.program.about = Some(about);
        self
    }

    /// Adds a library: its primitives, what it brings for the configuration, its error codes and lints.
    pub fn library(mut self, library: Library) -> Self {
        self.program.more.push(library);
        self
    }

    /// Carries out the command line of this process.
    pub fn run(self) -> ExitCode {
        let CommandLine { command, global } = match CommandLine::read(&self.program, std::env::args_os()) {
            Ok(line) => line,
            Err(error) => {
                let theme = if error.use_stderr() {
                    report::theme::Theme::of(&std::io::stderr())
                } else {
                    report::theme::Theme::of(&std::io::stdout())
                };
                let text = error.render();
                let text = if theme.colour { text.ansi().to_string() } else { text.to_string() };
                if error.use_stderr() {
                    stderr::write(&text)
                } else {
                    command::print(&text)
                }
                return if error.use_stderr() { Exit::Usage.into() } else { Exit::Success.into() };
            }
        };
        log_to_stderr(global.verbose);
        let context = Context { program: Arc::new(self.program), global };
        // Runbooks wait more than they compute; a thread for each core of a large machine would only take time to start.
        let threads =
            std::thread::available_parallelism().map_or(MOST_THREADS, |cores| cores.get().min(MOST_THREADS));
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let tokio = match tokio {
            Ok(tokio) => tokio,
            Err(error) => {
                let error = RunError::new(codes::INTERNAL, format!("cannot start: {error}"));
                return command::complain(&[error], &Sources::new(), &context, Exit::Internal).into();
            }
        };
        let exit = tokio.block_on(command::execute(command, &context));
        // What still waits in the background (a terminal that nobody answers at) must not hold up the end.
        tokio.shutdown_background();
        // Nor must a reader that takes nothing.
        background::settle(command::PATIENCE);
        exit.into()
    }
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
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr::Log).with_ansi(ansi).init();
}
