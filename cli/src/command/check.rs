//! `contraflow check`: everything that can be found wrong without running, and what is probably wrong.

use std::{io, path::Path};

use contraflow_runtime::{Header, Runtime, error::RunError, lint::Warning};

use crate::{
    args::{Check, Exit, Output},
    command::{complain, print},
    context::Context,
    render::{self, Layout, Sources},
    report::format::clean,
    scripts::Scripts,
    stderr,
};

pub(super) fn execute(args: &Check, context: &Context) -> Exit {
    let runtime = context.program.runtime().build();
    let mut exit = Exit::Success;
    for file in &args.files {
        let Found { sources, errors, warnings, header } = look(&runtime, file);
        if !errors.is_empty() {
            exit = complain(&errors, &sources, context, Exit::Usage);
        }
        if args.strict && !warnings.is_empty() {
            exit = Exit::Usage;
        }
        if let Some(header) = header.filter(|_| !args.strict || warnings.is_empty()) {
            tell(file, &header, warnings.len(), context);
        }
        let mut text =
            render::warnings(&warnings, &sources, Layout::of(context.global.output, &io::stderr()));
        if !errors.is_empty() && !text.is_empty() && context.global.output == Output::Human {
            text.insert(0, '\n');
        }
        stderr::write(&text);
    }
    exit
}

/// What was found in one file.
struct Found {
    sources: Sources,
    errors: Vec<RunError>,
    warnings: Vec<Warning>,
    /// What it says of itself, if nothing is wrong.
    header: Option<Header>,
}

fn look(runtime: &Runtime, file: &Path) -> Found {
    match Scripts::load(file) {
        Ok(scripts) => {
            let warnings = runtime.warnings(&scripts).into_iter().map(|one| scripts.warned(one)).collect();
            let (header, errors) = match runtime.check(&scripts) {
                Ok(header) => (Some(header), Vec::new()),
                Err(errors) => (None, errors.0.into_iter().map(|error| scripts.placed(error)).collect()),
            };
            Found { sources: scripts.sources(), errors, warnings, header }
        }
        Err((error, sources)) => Found { sources, errors: vec![error], warnings: Vec::new(), header: None },
    }
}

/// Says that nothing is wrong with a file.
fn tell(file: &Path, header: &Header, warnings: usize, context: &Context) {
    let shown = file.display();
    match context.global.output {
        Output::Human => {
            let but = match warnings {
                0 => String::new(),
                1 => ", 1 warning".to_owned(),
                more => format!(", {more} warnings"),
            };
            print(&format!(
                "ok: {} ({} {}){but}\n",
                clean(&shown.to_string()),
                clean(&header.name),
                clean(&header.version)
            ));
        }
        Output::Json => print(&format!(
            "{}\n",
            serde_json::json!({ "file": shown.to_string(), "ok": true, "warnings": warnings, "runbook": header })
        )),
    }
}
