//! `contraflow completions`: a script for a shell.

use std::collections::BTreeSet;

use clap::{Arg, builder::PossibleValuesParser};

use crate::{
    args::{Completions, Exit},
    command::{Refused, print},
    context::Context,
};

pub(super) fn execute(args: &Completions, context: &Context) -> Result<Exit, Refused> {
    let mut script = Vec::new();
    let registry = context.program.registry();
    let nouns = registry.nouns().iter().map(|noun| noun.name);
    let kinds = registry.all_kinds().iter().map(|kind| kind.name);
    let tables = registry.tables().iter().map(|table| table.name);
    let providers: BTreeSet<&'static str> = nouns.chain(kinds).chain(tables).collect();
    let libraries = context.program.libraries();
    let modules: BTreeSet<&'static str> =
        libraries.iter().flat_map(|library| library.modules().iter().map(|(name, _)| *name)).collect();
    // For a shell only: what is typed may also be more than one of these names.
    let names = |arg: Arg, names: &BTreeSet<&'static str>| arg.value_parser(PossibleValuesParser::new(names));
    let mut command = context
        .program
        .command()
        .mut_subcommand("providers", |command| command.mut_arg("name", |arg| names(arg, &providers)))
        .mut_subcommand("docs", |command| command.mut_arg("name", |arg| names(arg, &modules)));
    clap_complete::generate(args.shell, &mut command, context.program.name, &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Success)
}
