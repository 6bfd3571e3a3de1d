//! The program that a command line belongs to: its name, and the libraries it is made of.

use clap::{Command, CommandFactory as _};
use contraflow_runtime::{Builder, Library, Runtime, registry::Registry};

use crate::args::CommandLine;

/// The name that is written in help texts.
const CONTRAFLOW: &str = "contraflow";

/// What makes one program differ from another that this crate makes up.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What the command is called.
    pub(crate) name: &'static str,
    /// What `--version` says behind the name, if it is not the version of Contraflow.
    pub(crate) version: Option<&'static str>,
    /// The first lines of the help, if they are not those of Contraflow.
    pub(crate) about: Option<&'static str>,
    /// Libraries besides the standard library.
    pub(crate) more: Vec<Library>,
}

impl Default for Program {
    fn default() -> Self {
        Self { name: CONTRAFLOW, version: None, about: None, more: Vec::new() }
    }
}

impl Program {
    /// A runtime with all libraries, without an environment yet.
    pub(crate) fn runtime(&self) -> Builder {
        self.libraries().iter().fold(Runtime::builder(), |builder, library| builder.library(library))
    }

    /// What the configuration can hold.
    pub(crate) fn registry(&self) -> Registry {
        Library::registry_of(&self.libraries())
    }

    /// The standard library and those that were added. Made when it is needed: not every command needs it.
    pub(crate) fn libraries(&self) -> Vec<Library> {
        [contraflow_stdlib::library()].into_iter().chain(self.more.iter().cloned()).collect()
    }

    /// Its command line.
    pub(crate) fn command(&self) -> Command {
        let mut command = CommandLine::command();
        if let Some(version) = self.version {
            command = command.version(version);
        }
        if let Some(about) = self.about {
            command = command.about(about).long_about(about);
        }
        if self.name == CONTRAFLOW {
            return command;
        }
        self.renamed(command.name(self.name).bin_name(self.name))
    }

    /// A command whose help calls the program by its name.
    fn renamed(&self, command: Command) -> Command {
        let [short, long] = [command.get_after_help(), command.get_after_long_help()]
            .map(|help| help.map(|help| self.called(&help.to_string())));
        let command = match short {
            Some(help) => command.after_help(help),
            None => command,
        };
        let command = match long {
            Some(help) => command.after_long_help(help),
            None => command,
        };
        command.mut_subcommands(|command| self.renamed(command))
    }

    /// A text in which commands stand, with the name of this program in them.
    pub(crate) fn called(&self, text: &str) -> String {
        text.replace(&format!("{CONTRAFLOW} "), &format!("{} ", self.name))
            .replace(&format!("completions/{CONTRAFLOW}"), &format!("completions/{}", self.name))
            .replace(&format!("_{CONTRAFLOW}"), &format!("_{}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_of_a_program_of_another_name_calls_it_by_that_name() {
        let program = Program {
            name: "deploy",
            version: Some("1.4.0"),
            about: Some("Deploys our services"),
            ..Program::default()
        };
        let mut command = program.command();
        let help = command.render_long_help().to_string();
        assert!(help.starts_with("Deploys our services\n\nUsage: deploy [OPTIONS] <COMMAND>\n"), "{help}");
        assert!(help.contains("`deploy new hello`") && !help.contains("contraflow new"), "{help}");
        assert_eq!(command.render_version(), "deploy 1.4.0\n");
        for command in command.get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("  deploy ") && !help.contains("  contraflow "), "{help}");
        }
    }
}
