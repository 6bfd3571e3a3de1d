//! `contraflow completions`: a script for a shell.

use clap::CommandFactory as _;

use crate::{
    args::{Cli, Completions, Exit},
    command::{Refused, print},
};

pub(super) fn execute(args: &Completions) -> Result<Exit, Refused> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "contraflow", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}
