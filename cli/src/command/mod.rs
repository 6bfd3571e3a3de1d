//! The commands: one file each.

mod abandon;
mod answer;
mod ask;
mod check;
mod completions;
mod new;
mod paths;
mod plan;
mod rehearse;
mod resume;
mod run;
mod runs;
mod show;
mod snapshot;
mod store;
mod targets;
mod verify;

use std::io::{Write as _, stderr, stdout};

use contraflow_runtime::error::{RunError, codes};

use crate::{
    args::{Cli, Command, Exit, Global},
    render::{self, Layout, Sources},
};

/// Why a command was not carried out.
pub(crate) struct Refused {
    errors: Vec<RunError>,
    sources: Sources,
    exit: Exit,
}

impl Refused {
    /// Something is wrong with what was given: a script, a parameter, the configuration.
    pub(crate) fn input(errors: Vec<RunError>, sources: Sources) -> Self {
        Self { errors, sources, exit: Exit::Usage }
    }

    /// It could not be done.
    pub(crate) fn failed(error: RunError) -> Self {
        let exit = if error.is(codes::INTERNAL) { Exit::Internal } else { Exit::Failed };
        Self { errors: vec![error], sources: Sources::new(), exit }
    }

    /// The same, with the scripts that the error points to.
    pub(crate) fn failed_in(error: RunError, sources: Sources) -> Self {
        Self { sources, ..Self::failed(error) }
    }
}

pub(crate) async fn execute(cli: Cli) -> Exit {
    let Cli { command, global } = cli;
    let done = match command {
        Command::Run(args) => run::execute(&args, &global).await,
        Command::Plan(args) => plan::execute(&args, &global).await,
        Command::Rehearse(args) => rehearse::execute(&args, &global).await,
        Command::Snapshot(args) => snapshot::execute(&args, &global).await,
        Command::Check(args) => Ok(check::execute(&args, &global)),
        Command::Resume(args) => resume::execute(&args, &global).await,
        Command::Rollback(args) => resume::roll_back(&args, &global).await,
        Command::Approve(args) => answer::execute(&args, true, &global).await,
        Command::Deny(args) => answer::execute(&args, false, &global).await,
        Command::Pause(args) => ask::pause(&args, &global).await,
        Command::Abort(args) => ask::abort(&args, &global).await,
        Command::Abandon(args) => abandon::execute(&args, &global).await,
        Command::Runs(args) => runs::execute(&args, &global).await,
        Command::Show(args) => show::execute(&args, &global).await,
        Command::Verify(args) => verify::execute(&args, &global).await,
        Command::Targets(args) => targets::execute(&args, &global).await,
        Command::Store(args) => store::execute(&args, &global).await,
        Command::New(args) => new::execute(&args, &global),
        Command::Completions(args) => completions::execute(&args),
    };
    done.unwrap_or_else(|Refused { errors, sources, exit }| complain(&errors, &sources, &global, exit))
}

/// Prints errors to standard error; answers `exit`.
pub(crate) fn complain(errors: &[RunError], sources: &Sources, global: &Global, exit: Exit) -> Exit {
    let text = render::errors(errors, sources, Layout::of(global.output, &stderr()));
    // Nobody is left to complain to if this fails.
    let _ = stderr().write_all(text.as_bytes());
    exit
}

/// Prints the result of a command. A reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush());
}
