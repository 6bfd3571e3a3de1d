//! What people call commands and options elsewhere: they are told what it is called here.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::program::Program;

/// Words that people type, and the command that does it here.
const COMMANDS: [(&str, &str); 26] = [
    ("apply", "run FILE"),
    ("deploy", "run FILE"),
    ("execute", "run FILE"),
    ("start", "run FILE"),
    ("undo", "rollback RUN"),
    ("revert", "rollback RUN"),
    ("restore", "rollback RUN"),
    ("logs", "show RUN"),
    ("log", "show RUN"),
    ("describe", "show RUN"),
    ("inspect", "show RUN"),
    ("list", "runs"),
    ("ls", "runs"),
    ("history", "runs"),
    ("status", "runs"),
    ("ps", "runs"),
    ("validate", "check FILE"),
    ("lint", "check FILE"),
    ("dry-run", "plan FILE"),
    ("preview", "plan FILE"),
    ("diff", "plan FILE"),
    ("test", "rehearse FILE"),
    ("simulate", "rehearse FILE"),
    ("continue", "resume RUN"),
    ("stop", "pause RUN"),
    ("init", "new NAME"),
];

/// Options that ask a run for what a plan is there for.
const DRY: [&str; 5] = ["--dry-run", "--dryrun", "--check", "--noop", "--what-if"];

/// An error that says what is called otherwise here.
pub(super) fn said(error: &clap::Error, program: &Program, line: &[OsString]) -> Option<clap::Error> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let told = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = word(ContextKind::InvalidSubcommand)?;
            let (_, here) = COMMANDS.iter().find(|(elsewhere, _)| *elsewhere == word)?;
            format!("`{word}` is called otherwise here: {} {here}", program.name)
        }
        ErrorKind::UnknownArgument => {
            let option = word(ContextKind::InvalidArg)?;
            let runs = line.iter().any(|word| word == "run");
            let dry = DRY.iter().find(|dry| **dry == option).filter(|_| runs)?;
            format!("`run` has no {dry}: to see what a run would do, use {} plan FILE", program.name)
        }
        _ => return None,
    };
    Some(program.command().error(error.kind(), told))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::CommandLine;

    fn refused(line: &[&str]) -> String {
        let line = std::iter::once("contraflow").chain(line.iter().copied());
        CommandLine::read(&Program::default(), line).expect_err("is refused").to_string()
    }

    #[test]
    fn words_from_elsewhere_lead_to_the_command_that_does_it() {
        let command = Program::default().command();
        for (word, here) in COMMANDS {
            let name = here.split(' ').next().unwrap_or_default();
            assert!(command.get_subcommands().any(|command| command.get_name() == name), "{here}");
            assert!(command.get_subcommands().all(|command| command.get_name() != word), "{word}");
            assert!(refused(&[word]).contains(&format!("contraflow {here}")), "{word}: {}", refused(&[word]));
        }
        assert!(refused(&["undo", "last"]).contains("contraflow rollback RUN"));
    }

    #[test]
    fn a_dry_run_is_a_plan() {
        for option in DRY {
            assert!(refused(&["run", "a.rhai", option]).contains("contraflow plan FILE"), "{option}");
        }
        assert!(!refused(&["plan", "a.rhai", "--noop"]).contains("has no --noop"));
    }
}
