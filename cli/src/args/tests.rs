//! What the command line takes, refuses and says about itself.

use insta::assert_snapshot;

use super::*;

fn read(line: &str) -> Result<CommandLine, clap::Error> {
    CommandLine::read(&Program::default(), line.split(' '))
}

/// The help as it is on a terminal of 100 columns, without the values of environment variables.
fn help(command: &str) -> String {
    let mut cli = Program::default().command().hide_env_values_for_tests();
    cli.build();
    let found = if command.is_empty() { Some(&mut cli) } else { cli.find_subcommand_mut(command) };
    found.expect("command").render_long_help().to_string()
}

trait HideValues {
    fn hide_env_values_for_tests(self) -> Self;
}

impl HideValues for clap::Command {
    fn hide_env_values_for_tests(self) -> Self {
        self.term_width(100)
            .mut_args(|arg| arg.hide_env_values(true))
            .mut_subcommands(HideValues::hide_env_values_for_tests)
    }
}

#[test]
fn the_definition_is_sound() {
    Program::default().command().debug_assert();
}

#[test]
fn without_a_command_the_help_is_shown_and_the_exit_code_is_that_of_wrong_usage() {
    let error = read("contraflow").expect_err("no command");
    assert_eq!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    assert_eq!(error.exit_code(), Exit::Usage as i32);
    assert_eq!(read("contraflow runn").expect_err("no such command").exit_code(), Exit::Usage as i32);
}

#[test]
fn global_options_stand_before_or_behind_the_command() {
    for line in ["contraflow --output json -vv runs", "contraflow runs -vv --output json"] {
        let global = read(line).expect(line).global;
        assert_eq!((global.output, global.verbose), (Output::Json, 2), "{line}");
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_looked_at() {
    use std::cell::RefCell;
    let asked = RefCell::new(Vec::new());
    let cli = CommandLine::read_with(&Program::default(), ["contraflow", "run", "x.rhai"], |name: &OsStr| {
        asked.borrow_mut().push(name.to_string_lossy().into_owned());
        true
    })
    .expect("a run");
    let Command::Run(run) = cli.command else { panic!("not a run") };
    assert_eq!((cli.global.state_dir, cli.global.config, run.with.env), (None, None, None));
    assert_eq!(cli.global.store, None);
    for name in [
        "CONTRAFLOW_CONFIG",
        "CONTRAFLOW_STORE",
        "CONTRAFLOW_STATE_DIR",
        "CONTRAFLOW_OUTPUT",
        "CONTRAFLOW_ENV",
    ] {
        assert!(asked.borrow().iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn parameters_keep_their_text() {
    let cli = read("contraflow run x.rhai --param hold=10s -p note=a=b --param empty=").expect("run");
    let Command::Run(run) = cli.command else { panic!("not a run") };
    let pairs: Vec<(&str, &str)> = run.with.params.iter().map(|p| (&*p.name, &*p.text)).collect();
    assert_eq!(pairs, [("hold", "10s"), ("note", "a=b"), ("empty", "")]);
}

#[test]
fn a_wrong_parameter_says_what_is_wanted() {
    let refused = |text: &str| text.parse::<Param>().expect_err("refused");
    assert_eq!(refused("hold"), "expected NAME=VALUE, such as hold=10s; the value may be empty");
    assert_eq!(refused("=1"), "\"\" is not a valid parameter name: expected letters, digits and _");
    assert!(refused("a-b=1").starts_with("\"a-b\" is not a valid parameter name"));
}

#[test]
fn faults_and_files_may_be_given_more_than_once() {
    let cli = read("contraflow plan x.rhai --fault a --fault b=1 --detailed-exitcode").expect("plan");
    let Command::Plan(plan) = cli.command else { panic!("not a plan") };
    assert_eq!(plan.with.faults, ["a", "b=1"]);
    assert!(plan.detailed_exitcode);
    let Command::Check(check) = read("contraflow check a.rhai b.rhai").expect("check").command else {
        panic!()
    };
    assert_eq!(check.files.len(), 2);
    assert_eq!(read("contraflow check").expect_err("no file").exit_code(), 2);
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    for line in [
        "contraflow runs --all --limit 3",
        "contraflow show x --events --records",
        "contraflow runs --limit 0",
    ] {
        assert_eq!(read(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn old_runs_are_removed_only_with_an_age_of_a_second_or_more() {
    let age = |line: &str| match read(line).expect(line).command {
        Command::Store(Store::Prune(prune)) => (prune.older_than.0.to_string(), prune.dry_run),
        _ => panic!("{line}"),
    };
    assert_eq!(age("contraflow store prune --older-than 30d --dry-run"), ("720h".to_owned(), true));
    assert_eq!(age("contraflow store prune --older-than 1h30m"), ("1h30m".to_owned(), false));
    for (line, wanted) in [
        ("contraflow store prune", "--older-than <DURATION>"),
        ("contraflow store prune --older-than 30", "expected a number with ms, s, m, h or d"),
        ("contraflow store prune --older-than month", "expected a number with ms, s, m, h or d"),
        ("contraflow store prune --older-than=-1d", "expected a number with ms, s, m, h or d"),
        ("contraflow store prune --older-than 0d", "expected a second or more"),
        ("contraflow store check --older-than 30d", "unexpected argument"),
        ("contraflow store drop", "unrecognized subcommand"),
    ] {
        let error = read(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(wanted), "{line}: {error}");
    }
    assert_eq!(read("contraflow store").expect_err("no command").exit_code(), 2);
}

#[test]
fn the_help_shows_no_value_of_the_store() {
    // It may be a URL with a password.
    let command = Program::default().command();
    let store = command.get_arguments().find(|arg| arg.get_id() == "store").expect("an option");
    assert!(store.is_hide_env_values_set());
}

#[test]
fn a_rehearsal_is_limited_by_scenarios_or_by_time() {
    let budget = |text: &str| text.parse::<rehearsal::Budget>();
    assert_eq!(budget("5000"), Ok(rehearsal::Budget::Scenarios(5000)));
    assert_eq!(budget("60s"), Ok(rehearsal::Budget::Time(Span::secs(60))));
    for (text, why) in [
        ("0", "one scenario or more"),
        ("0s", "some time"),
        ("", "such as 5000"),
        ("5k", "such as 60s"),
        ("99999999999999999999", "too many"),
    ] {
        assert!(budget(text).expect_err(text).contains(why), "{text}");
    }
    let cli = read("contraflow rehearse x.rhai --pairs --budget 7").expect("a rehearsal");
    let Command::Rehearse(rehearse) = cli.command else { panic!("no rehearsal") };
    let explore = rehearse.explore();
    assert_eq!((explore.pairs, explore.scenarios, explore.time), (true, Some(7), None));
}

#[test]
fn one_scenario_is_played_without_what_is_for_all_of_them() {
    for more in ["--pairs", "--budget 5", "--html x.html", "--junit x.xml", "--all"] {
        let line = format!("contraflow rehearse x.rhai --only as-planned {more}");
        assert_eq!(read(&line).expect_err(&line).kind(), ErrorKind::ArgumentConflict);
    }
    for line in ["contraflow rehearse x.rhai --trace", "contraflow snapshot x.rhai --force"] {
        assert_eq!(read(line).expect_err(line).kind(), ErrorKind::MissingRequiredArgument);
    }
}

#[test]
fn paths_are_neither_saved_nor_those_of_a_saved_plan() {
    for line in ["contraflow plan x.rhai --all-paths --save p", "contraflow plan --show p --all-paths"] {
        assert_eq!(read(line).expect_err(line).kind(), ErrorKind::ArgumentConflict);
    }
    let read = |line: &str| match read(line).expect("a plan").command {
        Command::Plan(plan) => (plan.all_paths, plan.paths),
        _ => panic!("no plan"),
    };
    assert_eq!(read("contraflow plan x.rhai"), (false, 200));
    assert_eq!(read("contraflow plan x.rhai --all-paths --paths 7"), (true, 7));
}

#[test]
fn every_outcome_has_an_exit_code_of_its_own_in_the_table() {
    let outcomes = [
        RunOutcome::Succeeded,
        RunOutcome::Failed,
        RunOutcome::RolledBack,
        RunOutcome::RollbackIncomplete,
        RunOutcome::Paused,
        RunOutcome::Aborted,
    ];
    let mut codes: Vec<u8> = outcomes.map(|outcome| Exit::from(outcome) as u8).into();
    codes.dedup();
    assert_eq!(codes, [0, 1, 3, 4, 5, 6]);
    for (i, (exit, _)) in Exit::ALL.iter().enumerate() {
        assert!(*exit as usize >= i, "{exit:?} is out of order");
    }
}

#[test]
fn every_command_shows_examples_that_parse() {
    let mut lines = 0;
    let all = Program::default().command();
    let within = all.get_subcommands().flat_map(|outer| {
        let inner = outer
            .get_subcommands()
            .map(|inner| (format!("{} {}", outer.get_name(), inner.get_name()), inner));
        std::iter::once((outer.get_name().to_owned(), outer)).chain(inner)
    });
    for (name, command) in within {
        let help = command.get_after_help().expect("examples").to_string();
        for line in help.lines().filter_map(|line| line.trim().strip_prefix("contraflow ")) {
            let line = line.split(" > ").next().expect("command");
            // One command at a time, and a text in quotes as one word.
            let line =
                line.split(" && ").next().expect("command").replace("looked at the dashboards", "seen");
            let line = line.replace("errors in the logs", "seen");
            read(&format!("contraflow {line}")).expect(&line);
            assert!(line.starts_with(&name), "{line}");
            lines += 1;
        }
    }
    assert!(lines > 15, "{lines}");
}

#[test]
fn help_of_contraflow() {
    assert_snapshot!(help(""), @"
    Plans, rehearses, runs, resumes and rolls back runbooks.

    A runbook is a script of deployment steps. You check, plan, rehearse and run the same script; if a
    step fails, its changes are undone.

    Usage: contraflow [OPTIONS] <COMMAND>

    Commands:
      run          Run a runbook
      plan         Show what a runbook would do, without changing anything
      rehearse     Test a runbook against every fault, in a simulated world
      snapshot     Save the initial state of a rehearsal, so that it can be repeated without contacting
                   the targets
      check        Check runbooks without an environment: syntax, names, header, likely mistakes
      resume       Resume a crashed or paused run
      rollback     Roll back a run
      approve      Approve a pending question or plan
      deny         Deny a pending question or plan
      pause        Pause a run at its next safe point; it can be resumed
      abort        End a run at its next safe point and keep its changes
      abandon      Close a run that is not running, and release its locks
      runs         List runs, newest first
      show         Show a run
      verify       Verify that the journal of a run was not altered
      targets      List the targets of an environment
      store        Maintain the run store
      providers    List the available providers, or describe one
      docs         Show the documentation of a function [alias: explain]
      new          Create a new runbook
      completions  Print a shell completion script

    Options:
      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Exit codes:
        0  succeeded
        1  failed with nothing to undo, or a rehearsal found a violation
        2  not started: the command line, script, parameters or configuration are not valid
        3  failed and rolled back
        4  failed and partially applied: a person must undo the rest
        5  stopped and can be resumed: contraflow resume
        6  ended by a person, or taken over by another runner; changes stay
        7  a defect in Contraflow
      130  interrupted three times: ended at once, without a rollback
           With plan --detailed-exitcode: 0 nothing to do, 2 changes, 1 any error.

    Start with `contraflow new hello`, then `contraflow plan hello.rhai` and `contraflow run
    hello.rhai`.
    ");
}

#[test]
fn help_of_run() {
    assert_snapshot!(help("run"), @r#"
    Run a runbook

    Usage: contraflow run [OPTIONS] [FILE]

    Arguments:
      [FILE]
              The runbook

    Options:
      -p, --param <NAME=VALUE>
              Set a parameter of the runbook; may be repeated; overrides --params

          --params <FILE>
              Read parameters from a TOML file

      -e, --env <NAME>
              Environment [default: `default_env` of the configuration, else sandbox]
              
              [env: CONTRAFLOW_ENV]

          --fault <SPEC>
              Inject a fault in the sandbox, such as green.error_rate=20% or green.dead@weight>=50; may
              be repeated

          --plan <PLAN>
              Run this saved plan, with its scripts, parameters and environment; ask before anything
              outside the plan

      -y, --yes
              Answer yes to every question; manual steps count as done

      -w, --wait
              Wait for answers from `contraflow approve` or `contraflow deny`

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow run blue-green.rhai
      contraflow run blue-green.rhai --env staging --param service=shop --param hold=10s
      contraflow run blue-green.rhai --env production --params release.toml --output json > run.jsonl
      contraflow run --plan web.plan
      contraflow run blue-green.rhai --yes --fault green.error_rate=20%@weight>=25
    "#);
}

#[test]
fn help_of_plan() {
    assert_snapshot!(help("plan"), @r#"
    Show what a runbook would do, without changing anything

    Usage: contraflow plan [OPTIONS] [FILE]

    Arguments:
      [FILE]
              The runbook

    Options:
      -p, --param <NAME=VALUE>
              Set a parameter of the runbook; may be repeated; overrides --params

          --params <FILE>
              Read parameters from a TOML file

      -e, --env <NAME>
              Environment [default: `default_env` of the configuration, else sandbox]
              
              [env: CONTRAFLOW_ENV]

          --fault <SPEC>
              Inject a fault in the sandbox, such as green.error_rate=20% or green.dead@weight>=50; may
              be repeated

          --detailed-exitcode
              Exit with 0 if there is nothing to do, 2 if there are changes, 1 on any error

          --save <PLAN>
              Save the plan to this file, for `contraflow run --plan`

          --expires <DURATION>
              How long the saved plan is valid
              
              [default: 24h]

          --force
              Replace an existing file

          --show <PLAN>
              Show a saved plan, and whether it was approved or used

          --all-paths
              Also show what the run does if an assumption does not hold: a failed check or gate, a
              denied or unanswered question, a breached guard

          --paths <N>
              With --all-paths: maximum number of other paths; skipped paths are reported
              
              [default: 200]

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow plan blue-green.rhai --env production
      contraflow plan blue-green.rhai --param to=blue --detailed-exitcode
      contraflow plan blue-green.rhai --env production --save web.plan --expires 4h
      contraflow plan --show web.plan
      contraflow plan blue-green.rhai --all-paths
    "#);
}

#[test]
fn help_of_check() {
    assert_snapshot!(help("check"), @"
    Check runbooks without an environment: syntax, names, header, likely mistakes

    Usage: contraflow check [OPTIONS] <FILE>...

    Arguments:
      <FILE>...
              The runbooks

    Options:
          --strict
              Treat warnings as errors

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow check blue-green.rhai
      contraflow check --strict runbooks/*.rhai
    ");
}

#[test]
fn help_of_runs() {
    assert_snapshot!(help("runs"), @"
    List runs, newest first

    Usage: contraflow runs [OPTIONS]

    Options:
      -n, --limit <N>
              Show at most this many
              
              [default: 20]

      -a, --all
              Show all

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow runs
      contraflow runs --limit 5
      contraflow runs --all --output json
    ");
}

#[test]
fn help_of_show() {
    assert_snapshot!(help("show"), @"
    Show a run

    Usage: contraflow show [OPTIONS] <RUN>

    Arguments:
      <RUN>
              Run id, or the beginning of it

    Options:
          --events
              Show its events, one per line

          --records
              Show the records of its journal

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow show last
      contraflow show last --events
      contraflow show last --records --output json
    ");
}

#[test]
fn help_of_verify() {
    assert_snapshot!(help("verify"), @"
    Verify that the journal of a run was not altered

    Usage: contraflow verify [OPTIONS] <RUN>

    Arguments:
      <RUN>
              Run id, or the beginning of it

    Options:
      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow verify last
    ");
}

#[test]
fn help_of_targets() {
    assert_snapshot!(help("targets"), @"
    List the targets of an environment

    Usage: contraflow targets [OPTIONS]

    Options:
      -e, --env <NAME>
              Environment [default: `default_env` of the configuration, else sandbox]
              
              [env: CONTRAFLOW_ENV]

          --check
              Contact each target, without changing anything, and show what answered

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow targets
      contraflow targets --env production --check
    ");
}

#[test]
fn help_of_new() {
    assert_snapshot!(help("new"), @"
    Create a new runbook

    Usage: contraflow new [OPTIONS] <NAME|PATH>

    Arguments:
      <NAME|PATH>
              Name of the runbook, or a path whose last part is its name

    Options:
      -t, --template <TEMPLATE>
              Template

              Possible values:
              - shift:   A gradual blue/green shift with probes, gates and rollback
              - minimal: A header and one step
              
              [default: shift]

          --with-config
              Also write a contraflow.toml next to it

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow new blue-green
      contraflow new runbooks/cache-purge.rhai --template minimal
      contraflow new blue-green --with-config
    ");
}

#[test]
fn help_of_completions() {
    assert_snapshot!(help("completions"), @"
    Print a shell completion script

    Usage: contraflow completions [OPTIONS] <SHELL>

    Arguments:
      <SHELL>
              The shell
              
              [possible values: bash, elvish, fish, powershell, zsh]

    Options:
      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow completions bash > ~/.local/share/bash-completion/completions/contraflow
      contraflow completions zsh > ~/.zfunc/_contraflow
      contraflow completions fish > ~/.config/fish/completions/contraflow.fish
    ");
}

#[test]
fn help_of_rehearse() {
    assert_snapshot!(help("rehearse"), @r#"
    Test a runbook against every fault, in a simulated world.

    Every fault is tried at every effect. Time is simulated, and nothing outside is changed. Invariants
    are checked after every step; violations are reported with the shortest scenario that shows them.

    Usage: contraflow rehearse [OPTIONS] <FILE>

    Arguments:
      <FILE>
              The runbook

    Options:
      -p, --param <NAME=VALUE>
              Set a parameter of the runbook; may be repeated; overrides --params

          --params <FILE>
              Read parameters from a TOML file

      -e, --env <NAME>
              Environment [default: `default_env` of the configuration, else sandbox]
              
              [env: CONTRAFLOW_ENV]

          --fault <SPEC>
              Inject a fault in the sandbox, such as green.error_rate=20% or green.dead@weight>=50; may
              be repeated

          --scenario <FILE>
              Scenario file with the initial state and the answers [default: NAME.scenario.toml next to
              NAME.rhai, if it exists]

          --no-look
              Do not contact the targets: take the initial state from the scenario file only

          --pairs
              Also try every pair of faults

          --budget <N|DURATION>
              Stop after this many scenarios or this much time, such as 5000 or 60s. Skipped scenarios
              are reported

          --only <SCENARIO>
              Run only this scenario, such as 2:traffic.shift=lost-answer or as-planned

          --trace
              With --only: show the run line by line, with simulated time

          --html <FILE>
              Write an HTML report

          --junit <FILE>
              Write a JUnit XML report for CI

          --all
              List every scenario and every violation

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow rehearse blue-green.rhai
      contraflow rehearse blue-green.rhai --env staging --param service=shop --pairs --budget 60s
      contraflow rehearse blue-green.rhai --scenario production.toml --no-look --junit rehearsal.xml
      --html rehearsal.html
      contraflow rehearse blue-green.rhai --only 2:traffic.shift=lost-answer --trace
    "#);
}

#[test]
fn help_of_snapshot() {
    assert_snapshot!(help("snapshot"), @r#"
    Save the initial state of a rehearsal, so that it can be repeated without contacting the targets

    Usage: contraflow snapshot [OPTIONS] <FILE>

    Arguments:
      <FILE>
              The runbook

    Options:
      -p, --param <NAME=VALUE>
              Set a parameter of the runbook; may be repeated; overrides --params

          --params <FILE>
              Read parameters from a TOML file

      -e, --env <NAME>
              Environment [default: `default_env` of the configuration, else sandbox]
              
              [env: CONTRAFLOW_ENV]

          --fault <SPEC>
              Inject a fault in the sandbox, such as green.error_rate=20% or green.dead@weight>=50; may
              be repeated

      -o, --out <FILE>
              Output file [default: standard output]

          --force
              Replace an existing file

      -h, --help
              Print help (see a summary with '-h')

    Global options:
          --config <FILE>
              Configuration file [default: contraflow.toml in this folder or the nearest parent folder]
              
              [env: CONTRAFLOW_CONFIG]

          --store <FOLDER|URL>
              Run store; overrides the configuration: a folder, or postgres://USER@HOST/DATABASE for
              several machines
              
              [env: CONTRAFLOW_STORE]

          --state-dir <DIR>
              Folder of the run store if none is set [default: $XDG_STATE_HOME/contraflow or
              ~/.local/state/contraflow]
              
              [env: CONTRAFLOW_STATE_DIR]

          --output <FORM>
              Output format

              Possible values:
              - human: Text for people
              - json:  One JSON object per line
              
              [env: CONTRAFLOW_OUTPUT]
              [default: human]

      -v, --verbose...
              Log Contraflow's own activity to standard error: -v, -vv for more, -vvv for everything

    Examples:
      contraflow snapshot blue-green.rhai --env production -o blue-green.scenario.toml
      contraflow snapshot blue-green.rhai --param to=blue
    "#);
}
