//! What must hold for the book: it is complete, its links lead somewhere, and what it shows can be read.

#![expect(clippy::expect_used, reason = "helpers of tests: what is missing fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use contraflow_runtime::Library;
use contraflow_stdlib::config::Config;
use serde_json::Value;

fn book() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src")
}

fn pages() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                let text = fs::read_to_string(&path).expect("a page");
                into.push((path, text));
            }
        }
    }
    let mut pages = Vec::new();
    collect(&book(), &mut pages);
    let readme = book().join("../../README.md");
    let text = fs::read_to_string(&readme).expect("the readme");
    pages.push((readme, text));
    assert!(pages.len() > 40, "{}", pages.len());
    pages
}

/// The fenced blocks of a page with what stands behind the fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(kind), None) => open = Some((kind.to_owned(), String::new())),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed:\n{text}");
    blocks
}

/// Where links lead, without those to other sites.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link.to_owned())
        .filter(|link| !link.contains("://"))
        .collect()
}

/// The name of a heading in a link.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_error_code_has_a_page_and_every_page_is_of_a_code() {
    let libraries = [Library::of_runtime(), contraflow_stdlib::library()];
    let codes: BTreeSet<&str> = libraries.iter().flat_map(Library::pages).map(|page| page.code).collect();
    let index = fs::read_to_string(book().join("errors/index.md")).expect("the index");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(book().join("errors")).expect("the folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if name == "index" {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a page");
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["\n## Cause\n", "\n## Example\n", "\n## What to do\n"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        assert!(index.contains(&format!("| [{name}]({name}.md) |")), "{name} is not in the index");
        found.insert(name);
    }
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), codes);
}

/// Of all libraries of the command: what they declare is documented and works.
#[test]
fn every_page_says_what_it_should_and_every_example_of_a_provider_can_be_bound() {
    let libraries = [Library::of_runtime(), contraflow_stdlib::library()];
    for library in &libraries {
        assert_eq!(library.check_pages(), Ok(()), "{}", library.name());
    }
    let registry = Library::registry_of(&libraries);
    assert_eq!(registry.check_examples(), Ok(()));
    for kind in registry.all_kinds() {
        let about = kind.about.trim();
        assert!(kind.left_out().is_some() || about.ends_with('.'), "{kind:?} is described: {about:?}");
    }
    let book = fs::read_to_string(book().join("configuration.md")).expect("the page");
    for kind in registry.all_kinds() {
        assert!(book.contains(&format!("`{}`", kind.name)), "{kind:?} is not in the book");
    }
}

#[test]
fn the_table_of_contents_has_every_page() {
    let summary = fs::read_to_string(book().join("SUMMARY.md")).expect("the table of contents");
    let listed: BTreeSet<String> = links(&summary).into_iter().collect();
    let root = book();
    let there: BTreeSet<String> = pages()
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(&root).ok())
        .map(|path| path.to_string_lossy().into_owned())
        .filter(|path| path != "SUMMARY.md" && !path.starts_with(".."))
        .collect();
    assert_eq!(listed, there);
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    for (path, text) in pages() {
        for link in links(&text) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().expect("folder").join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).expect("a page");
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|known| known == heading), "{}: {link}", path.display());
            }
        }
    }
}

#[test]
fn every_file_that_a_page_includes_is_there() {
    let mut seen = 0;
    for (path, text) in pages() {
        for rest in text.split("{{#include ").skip(1) {
            let (file, _) = rest.split_once("}}").expect("the end of an include");
            let file = file.split(':').next().unwrap_or_default();
            let included = path.parent().expect("folder").join(file);
            assert!(included.is_file(), "{}: {file}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 2, "{seen}");
}

#[test]
fn every_runnable_script_parses() {
    let engine = rhai::Engine::new();
    let mut seen = 0;
    for (path, text) in pages() {
        for (_, script) in blocks(&text).into_iter().filter(|(kind, _)| kind == "rhai") {
            engine.compile(&script).unwrap_or_else(|e| panic!("{}: {e}\n{script}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

#[test]
fn every_configuration_that_is_shown_loads() {
    let mut seen = 0;
    for (path, text) in pages() {
        for (_, config) in blocks(&text).into_iter().filter(|(kind, _)| kind == "toml") {
            let vars: [(&str, &str); 0] = [];
            if let Err(errors) = Config::parse(&path, &config, vars, contraflow_stdlib::library().registry())
            {
                panic!("{errors}\n{config}");
            }
            seen += 1;
        }
    }
    assert!(seen >= 4, "{seen}");
}

/// Whether a value fits a JSON Schema. A keyword that is not known here panics: it would be a check that does not happen.
fn fits(value: &Value, schema: &Value) -> bool {
    let schema = match schema {
        Value::Bool(fits) => return *fits,
        schema => schema.as_object().expect("a schema"),
    };
    let all =
        |fits: &dyn Fn(&Value) -> bool, inner: &Value| inner.as_array().expect("a list").iter().all(fits);
    let how_many =
        |inner: &Value| inner.as_array().expect("a list").iter().filter(|one| fits(value, one)).count();
    let is = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other}"),
    };
    let (map, items) = (value.as_object(), value.as_array());
    schema.iter().all(|(keyword, inner)| match &**keyword {
        "$schema" | "title" | "description" | "default" | "examples" => true,
        "type" => match inner {
            Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().expect("a type"))),
            kind => is(kind.as_str().expect("a type")),
        },
        "const" => value == inner,
        "enum" => inner.as_array().expect("a list").contains(value),
        "minimum" => value.as_f64().is_none_or(|number| number >= inner.as_f64().expect("a number")),
        "maximum" => value.as_f64().is_none_or(|number| number <= inner.as_f64().expect("a number")),
        "pattern" => value.as_str().is_none_or(|text| {
            regex::Regex::new(inner.as_str().expect("a pattern")).expect("a pattern").is_match(text)
        }),
        "anyOf" => how_many(inner) > 0,
        "oneOf" => how_many(inner) == 1,
        "items" => items.is_none_or(|items| items.iter().all(|item| fits(item, inner))),
        "required" => map.is_none_or(|map| all(&|key| map.contains_key(key.as_str().expect("a key")), inner)),
        "properties" => map.is_none_or(|map| {
            map.iter().all(|(key, value)| inner.get(key).is_none_or(|schema| fits(value, schema)))
        }),
        "propertyNames" => map.is_none_or(|map| map.keys().all(|key| fits(&Value::from(&**key), inner))),
        "additionalProperties" => map.is_none_or(|map| {
            let described = schema.get("properties");
            let more = map.iter().filter(|(key, _)| described.is_none_or(|all| all.get(key).is_none()));
            more.into_iter().all(|(_, value)| fits(value, inner))
        }),
        other => panic!("the keyword {other}"),
    })
}

/// Whether an editor that knows the schema of `contraflow.toml` has nothing to say.
fn is_fine(config: &str) -> bool {
    let config: Value = toml_edit::de::from_str(config).expect("TOML");
    fits(&config, &contraflow_stdlib::library().registry().json_schema())
}

#[test]
fn editors_accept_every_configuration_that_is_shown() {
    let library = contraflow_stdlib::library();
    let registry = library.registry();
    let shown = pages().into_iter().flat_map(|(_, text)| blocks(&text)).filter(|(kind, _)| kind == "toml");
    let kinds = registry.all_kinds().iter().map(|kind| kind.example.to_owned());
    let tables = registry.tables().iter().map(|table| table.example.to_owned());
    for config in shown.map(|(_, config)| config).chain(kinds).chain(tables) {
        assert!(is_fine(&config), "{config}");
    }
}

#[test]
fn editors_refuse_what_is_misspelt_missing_or_of_the_wrong_type() {
    let route = "[env.production.traffic.web]\nprovider = \"haproxy\"\nsocket = \"unix:/run/haproxy.sock\"\n\
        backend = \"web\"\npools = { blue = \"blue1\" }\ndrain_timeout = \"2m\"\n";
    assert!(is_fine(route));
    for (right, wrong) in [
        ("backend", "backnd"),
        ("\"haproxy\"", "\"haprxy\""),
        ("provider = \"haproxy\"\n", ""),
        ("backend = \"web\"\n", ""),
        ("\"2m\"", "120"),
        ("traffic", "trafic"),
        ("env.production", "environment.production"),
        ("env.production", "env.sandbox"),
        (".web", ".\"the web\""),
    ] {
        let config = route.replace(right, wrong);
        assert!(config != route && !is_fine(&config), "{config}");
    }
    assert!(is_fine("store = { env = \"STORE\" }") && !is_fine("store = { secret = \"store\" }"));
    assert!(is_fine("[env.sandbox.params]\nhold = \"2m\"\n"));
    assert!(!is_fine("[env.sandbox.params.hold]\ntime = \"2m\"\n"));
}
