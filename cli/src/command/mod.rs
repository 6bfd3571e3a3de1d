//! The commands: one file each.

mod abandon;
mod answer;
mod ask;
mod check;
mod completions;
mod docs;
mod new;
mod paths;
mod plan;
mod providers;
mod rehearse;
mod resume;
mod run;
mod runs;
mod show;
mod snapshot;
mod store;
mod targets;
mod verify;

use std::{
    io::{self, Write as _, stdout},
    time::Duration,
};

use contraflow_runtime::error::{RunError, codes};

use crate::{
    args::{Command, Exit},
    background,
    context::Context,
    next,
    render::{self, Layout, Sources},
    report::format::harmless,
    stderr,
};

/// How long a reader that takes nothing of what a run had to say is waited for once the run is over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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

pub(crate) async fn execute(command: Command, context: &Context) -> Exit {
    let done = match command {
        Command::Run(args) => run::execute(&args, context).await,
        Command::Plan(args) => plan::execute(&args, context).await,
        Command::Rehearse(args) => rehearse::execute(&args, context).await,
        Command::Snapshot(args) => snapshot::execute(&args, context).await,
        Command::Check(args) => Ok(check::execute(&args, context)),
        Command::Resume(args) => resume::execute(&args, context).await,
        Command::Rollback(args) => resume::roll_back(&args, context).await,
        Command::Approve(args) => answer::execute(&args, true, context).await,
        Command::Deny(args) => answer::execute(&args, false, context).await,
        Command::Pause(args) => ask::pause(&args, context).await,
        Command::Abort(args) => ask::abort(&args, context).await,
        Command::Abandon(args) => abandon::execute(&args, context).await,
        Command::Runs(args) => runs::execute(&args, context).await,
        Command::Show(args) => show::execute(&args, context).await,
        Command::Verify(args) => verify::execute(&args, context).await,
        Command::Targets(args) => targets::execute(&args, context).await,
        Command::Store(args) => store::execute(&args, context).await,
        Command::Providers(args) => providers::execute(&args, context),
        Command::Docs(args) => docs::execute(&args, context),
        Command::New(args) => new::execute(&args, context),
        Command::Completions(args) => completions::execute(&args, context),
    };
    done.unwrap_or_else(|Refused { errors, sources, exit }| complain(&errors, &sources, context, exit))
}

/// Prints errors to standard error; answers `exit`.
pub(crate) fn complain(errors: &[RunError], sources: &Sources, context: &Context, exit: Exit) -> Exit {
    let errors: Vec<RunError> =
        errors.iter().map(|error| next::worded(error, context.program.name)).collect();
    let text = render::errors(&errors, sources, Layout::of(context.global.output, &io::stderr()));
    // What led to it stands above it.
    background::settle(PATIENCE);
    stderr::write(&text);
    exit
}

/// Prints the result of a command. A reader that went away is no error.
pub(crate) fn print(text: &str) {
    let _ = stdout().write_all(harmless(text).as_bytes()).and_then(|()| stdout().flush());
}
