//! The command line: what can be asked of `contraflow`, and the exit codes it answers with.

mod elsewhere;
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
        (Self::Failed, "failed with nothing to undo, or a rehearsal found a violation"),
        (Self::Usage, "not started: the command line, script, parameters or configuration are not valid"),
        (Self::RolledBack, "failed and rolled back"),
        (Self::RollbackIncomplete, "failed and partially applied: a person must undo the rest"),
        (Self::Paused, "stopped and can be resumed: contraflow resume"),
        (Self::Aborted, "ended by a person, or taken over by another runner; changes stay"),
        (Self::Internal, "a defect in Contraflow"),
        (Self::Interrupted, "interrupted three times: ended at once, without a rollback"),
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

/// Plans, rehearses, runs, resumes and rolls back runbooks.
///
/// A runbook is a script of deployment steps. You check, plan, rehearse and run the same script; if a step fails, its
/// changes are undone.
#[derive(Debug, Parser)]
#[command(
    name = "contraflow",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "Start with `contraflow new hello`, then `contraflow plan hello.rhai` and `contraflow run \
        hello.rhai`.",
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
            if let Some(better) = elsewhere::said(&error, program, &line) {
                return better;
            }
            if error.kind() != ErrorKind::MissingSubcommand {
                return error;
            }
            // An option that comes from the environment counts as given; the help is wanted nevertheless.
            let bare = program.command().mut_args(|arg| arg.env(Resettable::Reset));
            bare.try_get_matches_from(&line).err().unwrap_or(error)
        })
    }
}

/// Options of every command, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Configuration file [default: contraflow.toml in this folder or the nearest parent folder].
    #[arg(long, global = true, value_name = "FILE", env = "CONTRAFLOW_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for several machines.
    // Its value may hold a password, which the help would show.
    #[arg(long, global = true, value_name = "FOLDER|URL", env = "CONTRAFLOW_STORE", hide_env_values = true, value_hint = ValueHint::DirPath)]
    pub(crate) store: Option<String>,
    /// Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or ~/.local/state/contraflow].
    #[arg(long, global = true, value_name = "DIR", env = "CONTRAFLOW_STATE_DIR", value_hint = ValueHint::DirPath)]
    pub(crate) state_dir: Option<PathBuf>,
    /// Output format.
    #[arg(long, global = true, value_name = "FORM", env = "CONTRAFLOW_OUTPUT", default_value = "human")]
    pub(crate) output: Output,
    /// Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a runbook.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Show what a runbook would do, without changing anything.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Plan),
    /// Test a runbook against every fault, in a simulated world.
    ///
    /// Every fault is tried at every effect. Time is simulated, and nothing outside is changed. Invariants are checked
    /// after every step; violations are reported with the shortest scenario that shows them.
    #[command(after_help = rehearsal::REHEARSE_EXAMPLES)]
    Rehearse(rehearsal::Rehearse),
    /// Save the initial state of a rehearsal, so that it can be repeated without contacting the targets.
    #[command(after_help = rehearsal::SNAPSHOT_EXAMPLES)]
    Snapshot(rehearsal::Snapshot),
    /// Check runbooks without an environment: syntax, names, header, likely mistakes.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Resume a crashed or paused run.
    #[command(after_help = later::RESUME_EXAMPLES)]
    Resume(later::Resume),
    /// Roll back a run.
    ///
    /// If the run is running, its process is asked to stop at its next safe point and roll back, and this command waits
    /// for it. Any other run is rolled back by this command.
    #[command(after_help = later::ROLLBACK_EXAMPLES)]
    Rollback(later::Rollback),
    /// Approve a pending question or plan.
    #[command(after_help = later::APPROVE_EXAMPLES)]
    Approve(later::Answer),
    /// Deny a pending question or plan.
    #[command(after_help = later::DENY_EXAMPLES)]
    Deny(later::Answer),
    /// Pause a run at its next safe point; it can be resumed.
    #[command(after_help = later::PAUSE_EXAMPLES)]
    Pause(later::Ask),
    /// End a run at its next safe point and keep its changes.
    #[command(after_help = later::ABORT_EXAMPLES)]
    Abort(later::Ask),
    /// Close a run that is not running, and release its locks.
    #[command(after_help = later::ABANDON_EXAMPLES)]
    Abandon(later::Abandon),
    /// List runs, newest first.
    #[command(after_help = RUNS_EXAMPLES)]
    Runs(Runs),
    /// Show a run.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(Show),
    /// Verify that the journal of a run was not altered.
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// List the targets of an environment.
    #[command(after_help = TARGETS_EXAMPLES)]
    Targets(Targets),
    /// Maintain the run store.
    #[command(subcommand, subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true, after_help = STORE_EXAMPLES)]
    Store(Store),
    /// List the available providers, or describe one.
    #[command(after_help = library::PROVIDERS_EXAMPLES)]
    Providers(library::Providers),
    /// Show the documentation of a function.
    #[command(visible_alias = "explain", after_help = library::DOCS_EXAMPLES)]
    Docs(library::Docs),
    /// Create a new runbook.
    #[command(after_help = NEW_EXAMPLES)]
    New(New),
    /// Print a shell completion script.
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
        "Exit codes:\n{}\n       With plan --detailed-exitcode: 0 nothing to do, 2 changes, 1 any \
         error.\n\nStart with `contraflow new hello`, then `contraflow plan hello.rhai` and `contraflow run \
         hello.rhai`.",
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
    /// Set a parameter of the runbook; may be repeated; overrides --params.
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<Param>,
    /// Read parameters from a TOML file.
    #[arg(long = "params", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) params_file: Option<PathBuf>,
    /// Environment [default: `default_env` of the configuration, else sandbox].
    #[arg(short, long, value_name = "NAME", env = "CONTRAFLOW_ENV")]
    pub(crate) env: Option<String>,
    /// Inject a fault in the sandbox, such as green.error_rate=20% or green.dead@weight>=50; may be repeated.
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
    /// Run this saved plan, with its scripts, parameters and environment; ask before anything outside the plan.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["file", "params", "params_file"])]
    pub(crate) plan: Option<PathBuf>,
    /// Answer yes to every question; manual steps count as done.
    #[arg(short, long, conflicts_with = "wait")]
    pub(crate) yes: bool,
    /// Wait for answers from `contraflow approve` or `contraflow deny`.
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
    /// Save the plan to this file, for `contraflow run --plan`.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath)]
    pub(crate) save: Option<PathBuf>,
    /// How long the saved plan is valid.
    #[arg(long, value_name = "DURATION", default_value = "24h", requires = "save")]
    pub(crate) expires: Age,
    /// Replace an existing file.
    #[arg(long, requires = "save")]
    pub(crate) force: bool,
    /// Show a saved plan, and whether it was approved or used.
    #[arg(long, value_name = "PLAN", value_hint = ValueHint::FilePath,
          conflicts_with_all = ["file", "params", "params_file", "save", "detailed_exitcode"])]
    pub(crate) show: Option<PathBuf>,
    /// Also show what the run does if an assumption does not hold: a failed check or gate, a denied or unanswered
    /// question, a breached guard.
    #[arg(long, conflicts_with_all = ["save", "show"])]
    pub(crate) all_paths: bool,
    /// With --all-paths: maximum number of other paths; skipped paths are reported.
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
    /// Show at most this many.
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
    /// Run id, or the beginning of it.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Show its events, one per line.
    #[arg(long, conflicts_with = "records")]
    pub(crate) events: bool,
    /// Show the records of its journal.
    #[arg(long)]
    pub(crate) records: bool,
}

/// `contraflow verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Run id, or the beginning of it.
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
}

/// `contraflow targets`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// Environment [default: `default_env` of the configuration, else sandbox].
    #[arg(short, long, value_name = "NAME", env = "CONTRAFLOW_ENV")]
    pub(crate) env: Option<String>,
    /// Contact each target, without changing anything, and show what answered.
    #[arg(long)]
    pub(crate) check: bool,
}

/// `contraflow store`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Store {
    /// Create the tables of the store, or upgrade them to this version.
    ///
    /// A run does the same when it starts. After the owner of a database has done this, runs need no right to create tables.
    #[command(after_help = STORE_MIGRATE_EXAMPLES)]
    Migrate,
    /// Check the database and every record in it for damage.
    #[command(after_help = STORE_CHECK_EXAMPLES)]
    Check,
    /// Remove old runs and their records.
    ///
    /// Runs that are running, paused or not completely rolled back are kept.
    #[command(after_help = STORE_PRUNE_EXAMPLES)]
    Prune(Prune),
}

/// `contraflow store prune`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Prune {
    /// Remove runs that ended longer ago than this, such as 30d or 12h.
    #[arg(long, value_name = "DURATION")]
    pub(crate) older_than: Age,
    /// List the runs to remove, without removing them.
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
            return Err("expected a second or more".to_owned());
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
    /// Template.
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
            text.split_once('=').ok_or("expected NAME=VALUE, such as hold=10s; the value may be empty")?;
        let name = name.trim();
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(format!("\"{name}\" is not a valid parameter name: expected letters, digits and _"));
        }
        Ok(Self { name: name.to_owned(), text: value.to_owned() })
    }
}

#[cfg(test)]
mod tests;
