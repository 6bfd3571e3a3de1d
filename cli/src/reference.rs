//! The reference in the book: written from the code, and a test that it still says what the code does.
//!
//! `UPDATE_REFERENCE=1 cargo test -p contraflow reference` writes it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use contraflow_runtime::{
    Library, Page, lint,
    schema::{OptionSchema, literal},
    script::{ArgumentDoc, FunctionDoc},
};

use crate::{args::Exit, program::Program};

/// The functions that need no module are on a page of this name.
const WORDS: &str = "control-words";

const GENERATED: &str =
    "<!-- Written from the code by `UPDATE_REFERENCE=1 cargo test -p contraflow reference`. Do not edit. -->";

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

/// What each module is for, in one line.
fn about(module: &str) -> &'static str {
    match module {
        WORDS => "Plain functions on top of the language: they give a runbook its form.",
        "db" => "Databases: migrations, backups, queries that only read.",
        "deploy" => "Pools of replicas.",
        "exec" => {
            "Commands of the machine on which the runbook runs. Which ones may be run, \
             [the configuration](../configuration.md#envnameexec) says."
        }
        "http" => "Requests to servers. To find out whether a service is well, use [`probe`](probe.md).",
        "metrics" => "Measurements: looked at once, or watched for a while as a gate.",
        "notify" => "Messages to people.",
        "probe" => "Checks of services: each passes, or fails the step.",
        "secrets" => "[Secrets](../guide/secrets.md): used by scripts, not seen by them.",
        "traffic" => "Routes that split traffic over pools.",
        other => panic!("say what the module `{other}` is for"),
    }
}

/// How a Rust type is called in scripts. Empty: any, or nothing to say.
fn type_name(rust: &str) -> &'static str {
    let plain = rust.trim().trim_start_matches('&').trim();
    let inner = plain
        .strip_prefix("ScriptResult")
        .and_then(|rest| rest.trim().strip_prefix('<')?.strip_suffix('>'))
        .unwrap_or(plain);
    match inner.trim() {
        "str" | "String" | "ImmutableString" => "text",
        "i64" | "INT" => "number",
        "f64" | "FLOAT" => "fraction",
        "bool" => "bool",
        "Map" => "map",
        "Array" => "array",
        "FnPtr" => "closure",
        "Dynamic" | "()" | "ScriptResult" | "" => "",
        // The result of a primitive, by what it does.
        "Changes" | "Acts" | "Tells" | "Reads" | "Checks" | "Gives" => "",
        other => panic!("say what `{other}` is called in scripts"),
    }
}

fn signature(function: &FunctionDoc) -> String {
    let params: Vec<String> = function
        .params
        .iter()
        .take(function.arity)
        .map(|param| {
            let (name, rust) = param.split_once(':').expect("a name and a type");
            let name = name.trim();
            let declared = function.arguments.iter().find(|argument| argument.name == name);
            match (type_name(rust), declared) {
                ("", Some(argument)) => format!("{name}: {}", argument.kind),
                ("", None) => name.to_owned(),
                ("text", Some(argument)) => format!("{name}: {}", argument.kind),
                (told, _) => format!("{name}: {told}"),
            }
        })
        .collect();
    let module = if function.module.is_empty() { String::new() } else { format!("{}::", function.module) };
    let returns = match type_name(&function.returns) {
        "" => String::new(),
        told => format!(" -> {told}"),
    };
    format!("{module}{}({}){returns}", function.name, params.join(", "))
}

/// The paragraphs of a text; a fenced block is one.
fn paragraphs(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        match found.last_mut() {
            Some(last) if fenced || !line.is_empty() => {
                last.push_str(line);
                last.push('\n');
            }
            _ => found.push(String::new()),
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// Options as a list, each with the options inside it.
fn option_list(options: &[OptionSchema], depth: usize, into: &mut String) {
    let indent = "  ".repeat(depth);
    for option in options {
        let default = option.default_text().map(|text| format!(", default `{text}`")).unwrap_or_default();
        let required = if option.required { ", required" } else { "" };
        let doc = option.doc.replace("\n\n", " ");
        let _ = write!(into, "{indent}- `{}` ({}{default}{required}): {doc}", option.name, option.kind);
        let described = option.choices.iter().any(|choice| !choice.doc.is_empty());
        if !option.choices.is_empty() && !described {
            let values: Vec<String> =
                option.choices.iter().map(|choice| format!("`{}`", literal(&choice.value))).collect();
            let _ = write!(into, " One of {}.", values.join(", "));
        }
        into.push('\n');
        if described {
            for choice in &option.choices {
                let _ = writeln!(into, "{indent}  - `{}`: {}", literal(&choice.value), choice.doc);
            }
        }
        option_list(&option.options, depth + 1, into);
    }
}

/// One function in all its forms: how it is called, what it does, its options, examples.
fn function_section(forms: &[FunctionDoc]) -> String {
    let mut calls: Vec<String> = Vec::new();
    let (mut text, mut examples): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut options: Vec<&ArgumentDoc> = Vec::new();
    for form in forms {
        let call = signature(form);
        if !calls.contains(&call) {
            calls.push(call);
        }
        for paragraph in paragraphs(&form.doc) {
            let into = if paragraph.starts_with("```") { &mut examples } else { &mut text };
            // Forms of a function begin with what they have in common, which is said once.
            if !into.contains(&paragraph) {
                into.push(paragraph);
            }
        }
        let maps = form.arguments.iter().filter(|argument| !argument.options.is_empty());
        options.extend(maps.filter(|argument| !options.contains(argument)).collect::<Vec<_>>());
    }
    let path = calls[0].split('(').next().unwrap_or_default();
    let mut section = format!("\n## {path}\n\n```text\n{}\n```\n", calls.join("\n"));
    for paragraph in text {
        let _ = write!(section, "\n{paragraph}");
    }
    for argument in options {
        let _ = write!(section, "\nWhat `{}` takes:\n\n", argument.name);
        option_list(&argument.options, 0, &mut section);
    }
    for example in examples {
        let _ = write!(section, "\n{example}");
    }
    section
}

fn module_page(module: &str, functions: &[FunctionDoc]) -> String {
    let title = if module == WORDS { "Control words" } else { module };
    let mut page = format!("# {title}\n\n{GENERATED}\n\n{}\n", about(module));
    for forms in functions.chunk_by(|a, b| a.name == b.name) {
        page.push_str(&function_section(forms));
    }
    page
}

fn function_pages(pages: &mut BTreeMap<PathBuf, String>) {
    let runtime = Program::default().runtime().build();
    let mut modules: BTreeMap<String, Vec<FunctionDoc>> = BTreeMap::new();
    for function in runtime.library().functions() {
        let module = if function.module.is_empty() { WORDS } else { &function.module };
        // Some forms only say what is wrong with a call.
        if function.doc.starts_with("Refuses ") {
            continue;
        }
        modules.entry(module.to_owned()).or_default().push(function);
    }
    for functions in modules.values_mut() {
        // Of several forms with as many parameters, the one that is described best comes first.
        functions.sort_by_key(|function| {
            (function.name.clone(), function.arity, std::cmp::Reverse(function.doc.len()))
        });
    }
    let mut index = format!(
        "# Primitives\n\n{GENERATED}\n\nWhat scripts can call. Functions of a module are called with its name, \
         `traffic::shift`. Options are a map, always the last\nargument; a parameter without a type takes several. Each \
         example runs in the [sandbox](../guide/sandbox.md), and the value of its\nlast line is `true`; those without a \
         server to talk to there are only checked.\n\nQuantities are text with a unit: durations `\"90s\"`, `\"1h30m\"`; \
         percentages `\"0.1%\"`; sizes `\"64KiB\"`; comparisons `\"< 200ms\"`.\n\n| function | what it does |\n|---|---|\n"
    );
    for (module, functions) in &modules {
        let mut seen = BTreeSet::new();
        for function in functions.iter().filter(|function| seen.insert(&function.name)) {
            let path = signature(function).split('(').next().unwrap_or_default().to_owned();
            let link = path.replace(':', "");
            let first = paragraphs(&function.doc).into_iter().next().unwrap_or_default().replace('\n', " ");
            let sentence = first.split("; ").next().unwrap_or_default();
            let sentence =
                sentence.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches(['.', ':']);
            let _ = writeln!(index, "| [`{path}`]({module}.md#{link}) | {} |", sentence.replace('|', "\\|"));
        }
        pages.insert(format!("reference/{module}.md").into(), module_page(module, functions));
    }
    pages.insert("reference/index.md".into(), index);
}

/// An option or argument as one item of a list.
fn option(arg: &clap::Arg) -> String {
    let value =
        arg.get_value_names().map(|names| names.iter().map(|name| format!("<{name}>")).collect::<String>());
    let takes = arg.get_action().takes_values();
    let mut names: Vec<String> = arg.get_short().map(|short| format!("`-{short}`")).into_iter().collect();
    match (arg.get_long(), value.filter(|_| takes)) {
        (Some(long), Some(value)) => names.push(format!("`--{long} {value}`")),
        (Some(long), None) => names.push(format!("`--{long}`")),
        (None, Some(value)) => names.push(format!("`{value}`")),
        (None, None) => names.push(format!("`<{}>`", arg.get_id().as_str().to_uppercase())),
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut item = format!("- {}: {}", names.join(", "), help.trim_end_matches('.').replace('<', "\\<"));
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| takes)
        .map(|choice| match choice.get_help() {
            Some(help) => {
                format!("`{}` ({})", choice.get_name(), help.to_string().trim_end_matches('.').to_lowercase())
            }
            None => format!("`{}`", choice.get_name()),
        })
        .collect();
    if !choices.is_empty() {
        let _ = write!(item, ": {}", choices.join(", "));
    }
    item.push('.');
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    if !defaults.is_empty() && takes {
        let _ = write!(item, " Default: {}.", defaults.join(", "));
    }
    if let Some(variable) = arg.get_env() {
        let _ = write!(item, " Also from the variable `{}`.", variable.to_string_lossy());
    }
    item.push('\n');
    item
}

fn commands_page() -> String {
    let mut cli = Program::default().command();
    cli.build();
    let about = |command: &clap::Command| {
        command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default()
    };
    let mut page = format!(
        "# Commands\n\n{GENERATED}\n\n{}\n\n`contraflow --help` lists the commands, `contraflow COMMAND --help` says what one takes. \
         What they end with: [exit codes](../exit-codes.md).\n\n## Options of every command\n\n",
        about(&cli)
    );
    for arg in cli.get_arguments().filter(|arg| arg.is_global_set()) {
        page.push_str(&option(arg));
    }
    let commands = cli.get_subcommands().flat_map(|outer| {
        let name = outer.get_name();
        let inner = outer.get_subcommands().map(move |inner| (format!("{name} {}", inner.get_name()), inner));
        std::iter::once((name.to_owned(), outer)).chain(inner)
    });
    for (name, command) in commands {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim().to_owned();
        let mut list = String::new();
        for arg in command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help") {
            list.push_str(&option(arg));
        }
        let examples: String = command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .map(|line| format!("$ {line}\n"))
            .collect();
        assert!(!examples.is_empty(), "{name} has no examples");
        if !list.is_empty() {
            list.push('\n');
        }
        let _ = write!(
            page,
            "\n## contraflow {name}\n\n{}.\n\n```text\n{usage}\n```\n\n{list}```console\n{examples}```\n",
            about(command).trim_end_matches('.')
        );
    }
    page
}

/// The part of a page between two marks, which is written here. The rest of the page is written by hand.
fn fill(page: &str, part: &str) -> String {
    const END: &str = "<!-- end -->";
    let (before, rest) = page.split_once(GENERATED).expect("the mark where the generated part begins");
    let (_, after) = rest.split_once(END).expect("the mark where the generated part ends");
    format!("{before}{GENERATED}\n\n{part}\n{END}{after}")
}

fn exit_codes() -> String {
    let mut table = "| code | meaning |\n|---|---|\n".to_owned();
    for (exit, meaning) in Exit::ALL {
        let _ = writeln!(table, "| {} | {meaning} |", exit as u8);
    }
    table
}

/// Codes with the first sentence of their pages.
fn error_codes() -> String {
    let mut text = String::new();
    for (title, library) in
        [("Of the runtime", Library::of_runtime()), ("Of the primitives", contraflow_stdlib::library())]
    {
        let _ = write!(text, "## {title}\n\n| code | meaning |\n|---|---|\n");
        for Page { code, text: page } in library.pages() {
            let first = page.lines().nth(2).expect("a sentence below the title").trim_end_matches('.');
            let mut letters = first.chars();
            let meaning: String =
                letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
            let _ = writeln!(text, "| [{code}]({code}.md) | {meaning} |");
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// Warnings with what they are about. Each has a heading on the page.
fn warnings() -> String {
    let mut table = "| warning | about |\n|---|---|\n".to_owned();
    let libraries = [Library::of_runtime(), contraflow_stdlib::library()];
    let all = libraries.iter().flat_map(Library::lints).map(|lint| (lint.name(), lint.about()));
    for (name, about) in all.chain([(lint::ALLOW, lint::ABOUT_ALLOW)]) {
        let _ = writeln!(table, "| [{name}](#{name}) | {about} |");
    }
    table
}

fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    function_pages(&mut pages);
    pages.insert("reference/commands.md".into(), commands_page());
    for (name, part) in
        [("exit-codes.md", exit_codes()), ("errors/index.md", error_codes()), ("guide/check.md", warnings())]
    {
        let page = fs::read_to_string(book().join(name)).expect("a page");
        pages.insert(name.into(), fill(&page, &part));
    }
    pages
}

/// Written by hand, and belongs with the others.
const BY_HAND: [&str; 1] = ["reference/plan-format.md"];

/// The pages of the reference that are in the book and are written from the code.
fn present() -> BTreeSet<PathBuf> {
    fs::read_dir(book().join("reference"))
        .into_iter()
        .flatten()
        .map(|entry| Path::new("reference").join(entry.expect("an entry").file_name()))
        .filter(|page| !BY_HAND.iter().any(|known| page == Path::new(known)))
        .collect()
}

#[test]
fn the_reference_is_up_to_date() {
    let pages = pages();
    let stale: Vec<PathBuf> = present().into_iter().filter(|page| !pages.contains_key(page)).collect();
    let changed: Vec<&PathBuf> = pages
        .iter()
        .filter(|(name, text)| fs::read_to_string(book().join(name)).ok().as_ref() != Some(text))
        .map(|(name, _)| name)
        .collect();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::create_dir_all(book().join("reference")).expect("the folder");
        for name in changed {
            fs::write(book().join(name), &pages[name]).expect("a page");
        }
        for name in stale {
            fs::remove_file(book().join(name)).expect("an old page");
        }
        return;
    }
    assert!(
        changed.is_empty() && stale.is_empty(),
        "the reference in docs/src is not what the code says; write it with \
         `UPDATE_REFERENCE=1 cargo test -p contraflow reference`\nchanged: {changed:?}\nno longer there: {stale:?}"
    );
}

#[test]
fn every_function_is_described_and_has_an_example_on_its_page() {
    let mut pages = BTreeMap::new();
    function_pages(&mut pages);
    pages.remove(Path::new("reference/index.md")).expect("the list of all");
    assert_eq!(pages.len(), contraflow_stdlib::library().modules().len() + 1);
    for (name, text) in pages {
        let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
        assert!(!sections.is_empty(), "{}", name.display());
        for section in sections {
            let title = section.lines().next().unwrap_or_default();
            assert!(section.contains("```rhai"), "{title} has no example");
            assert!(
                paragraphs(section).iter().any(|p| p.starts_with(char::is_uppercase)),
                "{title} is not described"
            );
        }
    }
}
