//! `contraflow providers`: what can stand behind a target, and what this build leaves out.

use std::io::stdout;

use contraflow_runtime::{
    error::{RunError, codes, did_you_mean},
    registry::{Kind, Noun, Registry, Table},
    schema::OptionSchema,
};
use serde_json::json;
use unicode_width::UnicodeWidthStr as _;

use crate::{
    args::{Exit, Output, library::Providers},
    command::{Refused, print},
    context::Context,
    manual::option_list,
    render::Sources,
    report::{
        markdown,
        theme::{Theme, Tone},
    },
};

pub(super) fn execute(args: &Providers, context: &Context) -> Result<Exit, Refused> {
    let registry = context.program.registry();
    if args.json_schema {
        print(&format!("{:#}\n", registry.json_schema()));
        return Ok(Exit::Success);
    }
    let Some(name) = args.name.as_deref() else {
        show(&Found::all(&registry), false, context);
        return Ok(Exit::Success);
    };
    match Found::named(&registry, name) {
        Some(found) => show(&found, true, context),
        None => return Err(Refused::input(vec![unknown(&registry, name)], Sources::new())),
    }
    Ok(Exit::Success)
}

/// What was asked for.
struct Found<'r> {
    /// Nouns, each with its kinds of providers.
    nouns: Vec<(&'r Noun, Vec<&'r Kind>)>,
    tables: Vec<&'r Table>,
}

impl<'r> Found<'r> {
    fn all(registry: &'r Registry) -> Self {
        Self {
            nouns: registry.nouns().iter().map(|noun| (noun, registry.kinds(noun.name).collect())).collect(),
            tables: registry.tables().iter().collect(),
        }
    }

    /// A noun with all its kinds, a kind of one or several nouns, or both as `traffic/haproxy`.
    fn named(registry: &'r Registry, name: &str) -> Option<Self> {
        let is_meant = |noun: &Noun, kind: &Kind| {
            noun.name == name || kind.name == name || name.split_once('/') == Some((noun.name, kind.name))
        };
        let mut found = Self::all(registry);
        for (noun, kinds) in &mut found.nouns {
            kinds.retain(|kind| is_meant(noun, kind));
        }
        found.nouns.retain(|(noun, kinds)| noun.name == name || !kinds.is_empty());
        found.tables.retain(|table| table.name == name);
        (!found.nouns.is_empty() || !found.tables.is_empty()).then_some(found)
    }
}

fn unknown(registry: &Registry, name: &str) -> RunError {
    let nouns = registry.nouns().iter().map(|noun| noun.name);
    let kinds = registry.all_kinds().iter().map(|kind| kind.name);
    let tables = registry.tables().iter().map(|table| table.name);
    let error = RunError::new(codes::ARGUMENT, format!("no noun or provider named \"{name}\""));
    match did_you_mean(name, nouns.chain(kinds).chain(tables)) {
        Some(close) => error.hint(format!("did you mean `{close}`?")),
        None => error.hint("`providers` without a name lists all"),
    }
}

fn show(found: &Found<'_>, whole: bool, context: &Context) {
    let theme = Theme::of(&stdout());
    print(&match (context.global.output, whole) {
        (Output::Json, _) => lines(found),
        (Output::Human, true) => markdown::render(&pages(found), theme),
        (Output::Human, false) => list(found, theme),
    });
}

/// One object a line for each kind of provider and each table.
fn lines(found: &Found<'_>) -> String {
    let kinds = found.nouns.iter().flat_map(|(noun, kinds)| {
        kinds.iter().map(|kind| {
            json!({
                "noun": noun.name,
                "provider": kind.name,
                "about": kind.about,
                "capabilities": kind.capabilities,
                "settings": kind.settings(),
                "example": kind.example,
                "feature": kind.left_out(),
            })
        })
    });
    let tables = found
        .tables
        .iter()
        .map(|table| {
            json!({ "table": table.name, "about": table.about, "settings": table.settings(), "example": table.example })
        });
    kinds.chain(tables).map(|line| format!("{line}\n")).collect()
}

/// Everything, in Markdown.
fn pages(found: &Found<'_>) -> String {
    let mut text = String::new();
    for (noun, kinds) in &found.nouns {
        text.push_str(&format!("# {}\n\n{}\n\n", noun.name, noun.about));
        for kind in kinds {
            text.push_str(&format!("## provider = \"{}\"\n\n", kind.name));
            if let Some(feature) = kind.left_out() {
                text.push_str(&format!("This build does not include it. {}\n\n", brings(feature)));
                continue;
            }
            text.push_str(&format!("{}\n\n", kind.about));
            for capability in kind.capabilities {
                text.push_str(&format!("- {capability}\n"));
            }
            text.push_str(&settings(&kind.settings()));
            text.push_str(&format!("\n```toml\n{}\n```\n\n", kind.example.trim()));
        }
    }
    for table in &found.tables {
        let example = table.example.trim();
        let settings = settings(&table.settings());
        text.push_str(&format!(
            "# {}\n\n{}\n{settings}\n```toml\n{example}\n```\n\n",
            table.name, table.about
        ));
    }
    text
}

/// Settings as a list.
fn settings(settings: &[OptionSchema]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let mut text = "\nSettings:\n\n".to_owned();
    option_list(settings, 0, &mut text);
    text
}

fn brings(feature: &str) -> String {
    format!("The feature `{feature}` adds it.")
}

/// The names, with a sentence each.
fn list(found: &Found<'_>, theme: Theme) -> String {
    let kinds = found.nouns.iter().flat_map(|(_, kinds)| kinds.iter().map(|kind| kind.name.width()));
    let width = kinds.chain(found.tables.iter().map(|table| table.name.width())).max().unwrap_or(0);
    let row = |name: &str, tone: Tone, about: &str| {
        let gap = " ".repeat(width - name.width());
        format!("  {}{gap}  {about}\n", theme.paint(tone, name))
    };
    let mut text = String::new();
    for (noun, kinds) in &found.nouns {
        text.push_str(&format!(
            "{}: {}\n",
            theme.paint(Tone::Strong, noun.name),
            markdown::plain(noun.about)
        ));
        for kind in kinds {
            text.push_str(&match kind.left_out() {
                None => row(kind.name, Tone::Active, &markdown::first_sentence(kind.about)),
                Some(feature) => {
                    row(kind.name, Tone::Dim, &format!("left out of this build; feature `{feature}`"))
                }
            });
        }
        text.push('\n');
    }
    if !found.tables.is_empty() {
        text.push_str(&format!("{}\n", theme.paint(Tone::Strong, "Settings of an environment")));
        for table in &found.tables {
            text.push_str(&row(table.name, Tone::Active, &markdown::first_sentence(table.about)));
        }
    }
    text.trim_end().to_owned() + "\n"
}
