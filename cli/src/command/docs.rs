//! `contraflow docs`: the page of a function, of a module or of an error code, or the list of all functions.

use std::{collections::BTreeMap, io::stdout};

use contraflow_runtime::{
    Library, Page,
    error::{RunError, codes::ARGUMENT, did_you_mean},
};
use unicode_width::UnicodeWidthStr as _;

use crate::{
    args::{Exit, Output, library::Docs},
    command::{Refused, print},
    context::Context,
    manual::{Function, Manual, Module},
    render::Sources,
    report::{
        markdown,
        theme::{Theme, Tone},
    },
};

pub(super) fn execute(args: &Docs, context: &Context) -> Result<Exit, Refused> {
    let manual = Manual::of(&context.program);
    let Some(name) = &args.name else {
        list(manual.modules(), context);
        return Ok(Exit::Success);
    };
    // A call that was copied from a script is meant as well.
    let name = name.split('(').next().unwrap_or_default().trim();
    if let Some(function) = manual.functions().find(|function| function.path == name) {
        show(&[function], "", context);
    } else if let Some(module) = manual.module(name) {
        show(&module.functions.iter().collect::<Vec<_>>(), &module.about, context);
    } else {
        let libraries: Vec<Library> =
            [Library::of_runtime()].into_iter().chain(context.program.libraries()).collect();
        let mut pages = libraries.iter().flat_map(Library::pages);
        match pages.find(|page| page.code == name) {
            Some(page) => error_code(page, context),
            None => {
                let codes = libraries.iter().flat_map(Library::pages).map(|page| page.code);
                return Err(Refused::input(vec![unknown(name, &manual, codes)], Sources::new()));
            }
        }
    }
    Ok(Exit::Success)
}

/// What an error code means and what to do about it.
fn error_code(page: &Page, context: &Context) {
    print(&match context.global.output {
        Output::Json => format!("{}\n", serde_json::json!({ "code": page.code, "doc": page.text })),
        Output::Human => markdown::render(page.text, Theme::of(&stdout())),
    });
}

fn unknown<'c>(name: &str, manual: &'c Manual, codes: impl Iterator<Item = &'c str>) -> RunError {
    let paths: Vec<&str> = manual.functions().map(|function| &*function.path).collect();
    // Somebody may know what it is called and not where it is.
    let elsewhere: Vec<&str> = paths
        .iter()
        .copied()
        .filter(|path| path.rsplit("::").next() == Some(name.rsplit("::").next().unwrap_or(name)))
        .collect();
    let error = RunError::new(ARGUMENT, format!("no function, module or error code named \"{name}\""));
    let known = paths.iter().copied().chain(manual.modules().map(|(name, _)| name)).chain(codes);
    match (did_you_mean(name, known), &*elsewhere) {
        (_, [one]) => error.hint(format!("did you mean `{one}`?")),
        (_, [_, _, ..]) => error.hint(format!("did you mean one of {}?", elsewhere.join(", "))),
        (Some(close), []) => error.hint(format!("did you mean `{close}`?")),
        (None, []) => error,
    }
}

/// Pages of functions behind what they have in common.
fn show(functions: &[&Function], about: &str, context: &Context) {
    if context.global.output == Output::Json {
        return functions.iter().for_each(|function| {
            let line = serde_json::json!({
                "function": function.path,
                "calls": function.calls(),
                "options": function.options().iter().map(|argument| (&*argument.name, &argument.options)).collect::<BTreeMap<_, _>>(),
                "doc": function.page(),
            });
            print(&format!("{line}\n"));
        });
    }
    let mut page = if about.is_empty() { String::new() } else { format!("{about}\n\n") };
    page.push_str(&functions.iter().map(|function| function.page()).collect::<Vec<_>>().join("\n"));
    print(&markdown::render(&page, Theme::of(&stdout())));
}

/// All functions with a sentence each.
fn list<'m>(modules: impl Iterator<Item = (&'m str, &'m Module)>, context: &Context) {
    let theme = Theme::of(&stdout());
    let mut text = String::new();
    for (name, module) in modules {
        if context.global.output == Output::Json {
            for function in &module.functions {
                let line = serde_json::json!({ "function": function.path, "summary": function.summary() });
                text.push_str(&format!("{line}\n"));
            }
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", theme.paint(Tone::Strong, name)));
        let width = module.functions.iter().map(|function| function.path.width()).max().unwrap_or(0);
        for function in &module.functions {
            let gap = " ".repeat(width - function.path.width());
            text.push_str(&format!(
                "  {}{gap}  {}\n",
                theme.paint(Tone::Active, &function.path),
                markdown::plain(&function.summary())
            ));
        }
    }
    print(&text);
}
