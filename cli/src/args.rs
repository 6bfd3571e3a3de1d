//! The command line: what can be asked of `contraflow`, and the exit codes it answers with.

pub(crate) mod later;
pub(crate) mod library;
pub(crate) mod rehearsal;

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
    str::FromStr,
};

use clap::{
    Arg, ArgAction, Args, FromArgMatches as _, Parser, Subcommand, ValueEnum, ValueHint, builder::Resettable,
    error::ErrorKind,
};
use clap_complete::Shell;
use contraflow_runtime::{event::RunOutcome, quantity::Span};

use crate::program::Program;

/// What the process ends with. Scripts and CI rely on these numbers: they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success = 0,
    /// A run failed and had changed nothing, a rehearsal found something, or a command could not be carried out.
    Failed = 1,
    /// The command line, a script, a parameter or the configuration is wrong; nothing was begun.
    Usage = 2,
    /// A run failed and was undone.
    RolledBack = 3,
    /// A run failed and needs a person.
    RollbackIncomplete = 4,
    /// A run stopped and can go on.
    Paused = 5,
    /// A person ended a run.
    Aborted = 6,
    /// A defect of Contraflow itself.
    Internal = 7,
    /// A person ended the process without waiting for the run.
    Interrupted = 130,
}

impl Exit {
    /// A plan has changes, with `--detailed-exitcode`: the same number as Terraform's. Everything that is wrong is 1 then.
    #[expect(non_upper_case_globals, reason = "reads like the other exits")]
    pub(crate) const Changes: Self = Self::Usage;

    /// All of them with their meaning, for the help and the documentation.
    pub(crate) const ALL: [(Self, &'static str); 9] = [
        (Self::Success, "succeeded"),
        (
            Self::Failed,
            "failed; there was nothing to undo, or a rehearsal found something that does not hold",
        ),
        (Self::Usage, "nothing was begun: the command line, script, parameters or configuration are wrong"),
        (Self::RolledBack, "failed; all it had done was undone"),
        (Self::RollbackIncomplete, "failed; something is left that a person must undo"),
        (Self::Paused, "stopped; it can go on: contraflow resume"),
        (Self::Aborted, "a person ended it, or another runner has it now; what was done stays"),
        (Self::Internal, "a defect in Contraflow"),
        (Self::Interrupted, "interrupted three times: ended at once, without undoing"),
    ];
}

impl From<RunOutcome> for Exit {
    fn from(outcome: RunOutcome) -> Self {
        match outcome {
            RunOutcome::Succeeded => Self::Success,
            RunOutcome::Failed => Self::Failed,
            RunOutcome::RolledBack => Self::RolledBack,
            RunOutcome::RollbackIncomplete => Self::RollbackIncomplete,
            RunOutcome::Paused => Self::Paused,
            RunOutcome::Aborted => Self::Aborted,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Plans, runs and shows runbooks.
///
/// A runbook is a script of deployment steps. The same script is checked, planned, run and, if a step fails, undone.
#[derive(Debug, Parser)]
#[command(
    name = "contraflow",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "Begin with `contraflow new hello`, then `contraflow plan hello.rhai` and `contraflow run hello.rhai`.",
    after_long_help = exit_codes(),
)]
pub(crate) struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
}

impl CommandLine {
    /// Reads a command line.
    ///
    /// # Errors
    /// It is wrong, or asks for help: what to print, where, and the exit code.
    pub(crate) fn read(
        program: &Program,
        line: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Self, clap::Error> {
        Self::read_with(program, line, |name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
    }

    /// The same. `is_empty` says of a variable whether it is set to nothing, which is as good as not set.
    fn read_with(
        program: &Program,
        line: impl IntoIterator<Item = impl Into<OsString>>,
        is_empty: impl Fn(&OsStr) -> bool + Copy,
    ) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
        let unset = move |arg: Arg| {
            if arg.get_env().is_some_and(is_empty) { arg.env(Resettable::Reset) } else { arg }
        };
        let command = program.command().mut_args(unset).mut_subcommands(|command| command.mut_args(unset));
        let read = command.try_get_matches_from(&line).and_then(|matches| {
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut program.command()))
        });
        read.map_err(|error| {
            if error.kind() != ErrorKind::MissingSubcommand {
                return error;
            }
            // An option that comes from the environment counts as given; the help is wanted nevertheless.
            let bare = program.command().mut_args(|arg| arg.env(Resettable::Reset));
            bare.try_get_matches_from(&line).err().unwrap_or(error)
        })
    }
}

/// Options that every command takes, before or behind its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file with the environments [default: contraflow.toml here or in the nearest folder above].
    #[arg(long, global = true, value_name = "FILE", env = "CONTRAFLOW_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Where runs are kept, over the configuration: a folder, or postgres://USER@HOST/DATABASE for runners on several machines.
    // Its value may hold a password, which the help would show.
    #[arg(long, global = true, value_name = "FOLDER|URL", env = "CONTRAFLOW_STORE", hide_env_values = true, value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<String>,
    /// Folder in which runs are kept where no store is named [default: $XDG_STATE_HOME/contraflow or ~/.local/state/contraflow].
    #[arg(long, global = true, value_name = "DIR", env = "CONTRAFLOW_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Who reads the output: a person, or a program (one JSON object a line).
    #[arg(long, global = true, value_name = "FORM", env = "CONTRAFLOW_OUTPUT", default_value = "human")]
    pub(crate) output: Output,
    /// Log what Contraflow itself does to standard error: -v, -vv for more, -vvv for all.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Who reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A person.
    Human,
    /// A program.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a runbook.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Show what a runbook would do, without doing it.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Try a runbook against everything that can go wrong, in a simulated world.
    ///
    /// Every effect is tried with every way in which it can go wrong, time passes only where something waits for it, and nothing
    /// outside is changed. What must hold is asked after every step; what did not is told with the shortest way to it.
    #[command(after_help = rehearsal::REHEARSE_EXAMPLES)]
    Rehearse(rehearsal::Rehearse),
    /// Write down what a rehearsal looks at, so that it can be repeated without looking.
    #[command(after_help = rehearsal::SNAPSHOT_EXAMPLES)]
    Snapshot(rehearsal::Snapshot),
    /// Check runbooks without an environment: syntax, names, header, probable defects.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Go on with a run that died or was paused.
    #[command(after_help = later::RESUME_EXAMPLES)]
    Resume(later::Resume),
    /// Undo what a run has done.
    ///
    /// Where another process works on the run, that one is asked to stop at its next safe point and to undo, and the command waits
    /// until it has. Any other run is taken up here.
    #[command(after_help = later::ROLLBACK_EXAMPLES)]
    Rollback(later::Rollback),
    /// Say yes to what a run asks, or to a saved plan.
    #[command(after_help = later::APPROVE_EXAMPLES)]
    Approve(later::Answer),
    /// Say no to what a run asks, or to a saved plan.
    #[command(after_help = later::DENY_EXAMPLES)]
    Deny(later::Answer),
    /// Stop a run at its next safe point; it can be resumed.
    #[command(after_help = later::PAUSE_EXAMPLES)]
    Pause(later::Ask),
    /// End a run at its next safe point; what it has done stays.
    #[command(after_help = later::ABORT_EXAMPLES)]
    Abort(later::Ask),
    /// Give up a run that nobody works on, and free its targets.
    #[command(after_help = later::ABANDON_EXAMPLES)]
    Abandon(later::Abandon),
    /// List runs, newest first.
    #[command(after_help = RUNS_EXAMPLES)]
    Runs(Runs),
    /// Show a run again.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Check that the record of a run was not altered.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// List the targets of an environment.
    #[command(after_help = TARGETS_EXAMPLES)]
    Targets(Targets),
    /// Look after the place in which runs are kept.
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true, after_help = STORE_EXAMPLES)]
    Store(Store),
    /// List the providers that a configuration can name, or print what one of them does and takes.
    #[command(after_help = library::PROVIDERS_EXAMPLES)]
    Providers(library::Providers),
    /// Print what a function does, with its options and an example.
    #[command(after_help = library::DOCS_EXAMPLES)]
    Docs(library::Docs),
    /// Write a new runbook to begin with.
    #[command(after_help = NEW_EXAMPLES)]
    New(New),
    /// Print a script that completes commands in a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
}

const RUN_EXAMPLES: &str = "\
Examples:
  contraflow run blue-green.rhai
  contraflow run blue-green.rhai --env staging --param service=shop --param hold=10s
  contraflow run blue-green.rhai --env production --params release.toml --output json > run.jsonl
  contraflow run --plan web.plan
  contraflow run blue-green.rhai --yes --fault green.error_rate=20%@weight>=25";

const PLAN_EXAMPLES: &str = "\
Examples:
  contraflow plan blue-green.rhai --env production
  contraflow plan blue-green.rhai --param to=blue --detailed-exitcode
  contraflow plan blue-green.rhai --env production --save web.plan --expires 4h
  contraflow plan --show web.plan
  contraflow plan blue-green.rhai --all-paths";

const CHECK_EXAMPLES: &str = "\
Examples:
  contraflow check blue-green.rhai
  contraflow check --strict runbooks/*.rhai";

const RUNS_EXAMPLES: &str = "\
Examples:
  contraflow runs
  contraflow runs --limit 5
  contraflow runs --all --output json";

const SHOW_EXAMPLES: &str = "\
Examples:
  contraflow show last
  contraflow show last --events
  contraflow show last --records --output json";

const VERIFY_EXAMPLES: &str = "\
Examples:
  contraflow verify last";

const TARGETS_EXAMPLES: &str = "\
Examples:
  contraflow targets
  contraflow targets --env production --check";

const STORE_EXAMPLES: &str = "\
Examples:
  contraflow store migrate --store postgres://contraflow@db.example.com/contraflow
  contraflow store check
  contraflow store prune --older-than 90d --dry-run";

const STORE_MIGRATE_EXAMPLES: &str = "\
Examples:
  contraflow store migrate
  contraflow store migrate --store postgres://owner@db.example.com/contraflow";

const STORE_CHECK_EXAMPLES: &str = "\
Examples:
  contraflow store check
  contraflow store check --output json";

const STORE_PRUNE_EXAMPLES: &str = "\
Examples:
  contraflow store prune --older-than 90d --dry-run
  contraflow store prune --older-than 90d";

const NEW_EXAMPLES: &str = "\
Examples:
  contraflow new blue-green
  contraflow new runbooks/cache-purge.rhai --template minimal
  contraflow new blue-green --with-config";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  contraflow completions bash > ~/.local/share/bash-completion/completions/contraflow
  contraflow completions zsh > ~/.zfunc/_contraflow
  contraflow completions fish > ~/.config/fish/completions/contraflow.fish";

fn exit_codes() -> String {
    let codes: Vec<String> =
        Exit::ALL.iter().map(|(exit, meaning)| format!("  {:>3}  {meaning}", *exit as u8)).collect();
    format!(
        "Exit codes:\n{}\n       With plan --detailed-exitcode: 0 nothing to do, 2 changes, 1 any error.\n\nBegin with `contraflow new hello`, then `contraflow plan hello.rhai` and `contraflow run hello.rhai`.",
        codes.join("\n")
    )
}

/// Which script, with what, where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Script {
    /// The runbook.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// With what, where.
    #[command(flatten)]
    pub(crate) with: Inputs,
}

/// With what a script is run, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Inputs {
    /// A parameter of the runbook. May be given again for others; goes before --params.
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<Param>,
    /// A TOML file with parameters.
    #[arg(long = "params", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) params_file: Option<PathBuf>,
    /// Environment whose targets are used [default: `default_env` of the configuration, else sandbox].
    #[arg(short, long, value_name = "NAME", env = "CONTRAFLOW_ENV")]
    pub(crate) env: Option<String>,
    /// Switch on a fault of the environment "sandbox", such as green.error_rate=20% or green.dead@weight>=50. May be given
    /// again for others.
    #[arg(long = "fault", value_name = "SPEC")]
    pub(crate) faults: Vec<String>,
}

/// `contraflow run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// The runbook.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "plan")]
    pub(crate) file: Option<PathBuf>,
    /// With what, where.
    #[command(flatten)]
    pub(crate) with: Inputs,
    /// Run this saved plan: its scripts with its parameters in its environment, and nothing that is not in it without asking.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["file", "params", "params_file"])]
    pub(crate) plan: Option<PathBuf>,
    /// Answer yes to every question. Steps by hand then count as done.
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) yes: bool,
    /// Wait for answers that others give with `contraflow approve`.
    #[arg(short, long)]
    pub(crate) wait: bool,
}

/// `contraflow plan`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// The runbook.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "show")]
    pub(crate) file: Option<PathBuf>,
    /// With what, where.
    #[command(flatten)]
    pub(crate) with: Inputs,
    /// Exit with 0 if there is nothing to do, 2 if there are changes, 1 on any error.
    #[arg(long)]
    pub(crate) detailed_exitcode: bool,
    /// Save the plan in this file, to be run with `contraflow run --plan`.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath)]
    pub(crate) save: Option<PathBuf>,
    /// How long a saved plan can be run.
    #[arg(long, value_name = "DURATION", default_value = "24h", requires = "save")]
    pub(crate) expires: Age,
    /// Replace the file if it is there.
    #[arg(long, requires = "save")]
    pub(crate) force: bool,
    /// Show a saved plan again, and whether it was approved or used. Nothing is planned.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["file", "params", "params_file", "save", "detailed_exitcode"])]
    pub(crate) show: Option<PathBuf>,
    /// Show where the run leads if what the plan has to assume is not so: a check or a gate that does not pass, a question that is
    /// denied or not answered, a guard that is breached.
    #[arg(long, conflicts_with_all = ["save", "show"])]
    pub(crate) all_paths: bool,
    /// With --all-paths: play at most so many other ways. How many were not played is said.
    #[arg(long, value_name = "N", default_value_t = 200, requires = "all_paths",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) paths: u32,
}

/// `contraflow check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Check {
    /// The runbooks.
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// Treat warnings as errors.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `contraflow runs`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Runs {
    /// Show at most so many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, conflicts_with = "all",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Show all.
    #[arg(short, long)]
    pub(crate) all: bool,
}

/// `contraflow show`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Show {
    /// Id of the run, or its beginning.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Its events as they were, one a line.
    #[arg(long, conflicts_with = "records")]
    pub(crate) events: bool,
    /// The records of its journal.
    #[arg(long)]
    pub(crate) records: bool,
}

/// `contraflow verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Id of the run, or its beginning.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

/// `contraflow targets`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// Environment whose targets are listed [default: `default_env` of the configuration, else sandbox].
    #[arg(short, long, value_name = "NAME", env = "CONTRAFLOW_ENV")]
    pub(crate) env: Option<String>,
    /// Reach each target, without changing anything, and say what answered.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `contraflow store`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Store {
    /// Create the tables of the store, or bring them to this version.
    ///
    /// A run does the same when it begins. Once the owner of a database has done it, runs need no right to create tables there.
    #[command(after_help = STORE_MIGRATE_EXAMPLES)]
    Migrate,
    /// Look for damage: of the database, and of every record in it.
    #[command(after_help = STORE_CHECK_EXAMPLES)]
    Check,
    /// Remove runs that ended long ago, with their records.
    ///
    /// Runs that can go on stay: those that run, have paused, or whose rollback is incomplete.
    #[command(after_help = STORE_PRUNE_EXAMPLES)]
    Prune(Prune),
}

/// `contraflow store prune`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Prune {
    /// How long ago a run must have ended, such as 30d or 12h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) older_than: Age,
    /// List the runs without removing them.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A time of at least a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age(pub(crate) Span);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: Span = text.parse().map_err(|e| format!("{e}"))?;
        if span.0.as_secs() == 0 {
            return Err("want a second or more".to_owned());
        }
        Ok(Self(span))
    }
}

/// `contraflow new`.
#[derive(Debug, Clone, Args)]
pub(crate) struct New {
    /// Name of the runbook, or a path whose last part is its name.
    #[arg(value_name = "NAME|PATH", value_hint = ValueHint::FilePath)]
    pub(crate) path: PathBuf,
    /// What to begin with.
    #[arg(short, long, value_name = "TEMPLATE", default_value = "shift")]
    pub(crate) template: Template,
    /// Also write a contraflow.toml next to it.
    #[arg(long)]
    pub(crate) with_config: bool,
}

/// What a new runbook begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// A gradual blue/green shift with probes, gates and rollback.
    Shift,
    /// A header and one step.
    Minimal,
}

/// `contraflow completions`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub(crate) shell: Shell,
}

/// One `--param`: its type is known only to the runbook, so the value stays as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Param {
    /// Name of the parameter.
    pub(crate) name: String,
    /// Value as written.
    pub(crate) text: String,
}

impl FromStr for Param {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or("want NAME=VALUE, such as hold=10s; the value may be empty")?;
        let name = name.trim();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!("\"{name}\" cannot be the name of a parameter: want letters, digits and _"));
        }
        Ok(Self { name: name.to_owned(), text: value.to_owned() })
    }
}

#[cfg(test)]
mod tests;
