//! `contraflow completions`: a script for a shell.

use crate::{
    args::{Completions, Exit},
    command::{Refused, print},
    context::Context,
};

pub(super) fn execute(args: &Completions, context: &Context) -> Result<Exit, Refused> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut context.program.command(), context.program.name, &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}
