//! The reference in the book: written from the code, and a test that it still says what the code does.
//!
//! `UPDATE_REFERENCE=1 cargo test -p contraflow reference` writes it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use contraflow_runtime::{Library, Page, lint, schema::OptionSchema};

use crate::{
    args::Exit,
    manual::{self, Manual, Module, WORDS},
    program::Program,
};

const GENERATED: &str =
    "<!-- Written from the code by `UPDATE_REFERENCE=1 cargo test -p contraflow reference`. Do not edit. -->";

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

fn module_page(name: &str, module: &Module) -> String {
    let title = if name == WORDS { "Control words" } else { name };
    let pages: String = module.functions.iter().map(|function| format!("\n{}", function.page())).collect();
    format!("# {title}\n\n{GENERATED}\n\n{}\n{pages}", module.about)
}

fn function_pages(pages: &mut BTreeMap<PathBuf, String>) {
    let manual = Manual::of(&Program::default());
    let mut index = format!(
        "# Primitives\n\n{GENERATED}\n\nThe functions that scripts can call. Call the functions of a module \
         with its name, \
         `traffic::shift`. Options are a map, the last\nargument; a parameter without a type accepts \
         several types. Each example runs in the [sandbox](../guide/sandbox.md), and its\nlast line is \
         `true`; examples that need a server outside the sandbox are only checked.\n\nQuantities are text \
         with a unit: durations `\"90s\"`, `\"1h30m\"`; \
         percentages `\"0.1%\"`; sizes `\"64KiB\"`; comparisons `\"< 200ms\"`.\n\n| function | what it does |\n|---|---|\n"
    );
    for (name, module) in manual.modules() {
        for function in &module.functions {
            let path = &function.path;
            let link = path.replace(':', "");
            let _ = writeln!(
                index,
                "| [`{path}`]({name}.md#{link}) | {} |",
                function.summary().replace('|', "\\|")
            );
        }
        pages.insert(format!("reference/{name}.md").into(), module_page(name, module));
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
        let _ = write!(item, " Variable: `{}`.", variable.to_string_lossy());
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
        "# Commands\n\n{GENERATED}\n\n{}\n\n`contraflow --help` lists the commands, `contraflow COMMAND \
         --help` shows the options of one. See also [exit codes](../exit-codes.md).\n\n## Options of every \
         command\n\n",
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
    for (title, library) in [("Runtime", Library::of_runtime()), ("Primitives", contraflow_stdlib::library())]
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

/// The kinds of providers of all nouns, with their settings.
fn providers_page() -> String {
    let library = contraflow_stdlib::library();
    let registry = library.registry();
    let mut page = format!(
        "# Providers\n\n{GENERATED}\n\nThe providers for a target `[env.NAME.NOUN.TARGET]`: the value of \
         `provider` and its settings. See also [configuration](../configuration.md).\n"
    );
    let settings = |settings: &[OptionSchema], page: &mut String| {
        if !settings.is_empty() {
            page.push('\n');
            manual::option_list(settings, 0, page);
        }
    };
    for noun in registry.nouns() {
        let _ = write!(page, "\n## {}\n\n{}\n", noun.name, noun.about);
        for kind in registry.kinds(noun.name) {
            if let Some(feature) = kind.left_out() {
                let _ = write!(
                    page,
                    "\n### {} {}\n\nComes with the feature `{feature}`.\n",
                    noun.name, kind.name
                );
                continue;
            }
            let _ = write!(page, "\n### {} {}\n\n{}\n", noun.name, kind.name, kind.about);
            if !kind.capabilities.is_empty() {
                let _ = write!(page, "\nIt {}.\n", kind.capabilities.join("; "));
            }
            settings(&kind.settings(), &mut page);
            let _ = write!(page, "\n```toml\n{}```\n", kind.example);
        }
    }
    for table in registry.tables() {
        let _ = write!(page, "\n## Table {}\n\n{}\n", table.name, table.about);
        settings(&table.settings(), &mut page);
        let _ = write!(page, "\n```toml\n{}```\n", table.example);
    }
    page
}

#[test]
fn providers_describe_their_settings() {
    let library = contraflow_stdlib::library();
    let registry = library.registry();
    let kinds = registry.all_kinds().iter().filter(|kind| kind.left_out().is_none());
    let of_kinds = kinds.map(|kind| (kind.name, kind.settings()));
    let of_tables = registry.tables().iter().map(|table| (table.name, table.settings()));
    for (name, settings) in of_kinds.chain(of_tables) {
        for setting in settings {
            assert!(
                setting.doc.ends_with('.'),
                "the setting `{}` of `{name}` is not described",
                setting.name
            );
        }
    }
}

fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    pages.insert("reference/providers.md".into(), providers_page());
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
                manual::paragraphs(section).iter().any(|p| p.starts_with(char::is_uppercase)),
                "{title} is not described"
            );
        }
    }
}

#[test]
fn every_module_and_every_type_has_a_name_for_those_who_write_scripts() {
    for (name, module) in Manual::of(&Program::default()).modules() {
        assert!(!module.about.is_empty(), "say what the module `{name}` is for");
        for form in module.functions.iter().flat_map(|function| function.forms()) {
            let params = form.params.iter().filter_map(|param| Some(param.split_once(':')?.1));
            for rust in params.chain([&*form.returns]) {
                assert!(manual::type_name(rust).is_some(), "say what `{rust}` is called in scripts");
            }
        }
    }
}
