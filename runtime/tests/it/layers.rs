//! The runtime's modules stand in layers: none imports, not even by way of others, one that imports it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which top-level modules each one names in code, with one place where it does.
type Edges = BTreeMap<String, BTreeMap<String, String>>;

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

/// The text without comments and doc links, which may name what is above.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of the paths after one `crate::`: several where a group follows.
fn named(path: &str) -> Vec<&str> {
    let path = path.trim_start();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(word(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn edges(root: &Path) -> Edges {
    let mut files = Vec::new();
    sources(root, &mut files);
    let mut edges = Edges::new();
    for file in files {
        let inside = file.strip_prefix(root).unwrap();
        let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        if module == "lib" {
            continue;
        }
        let text = code(&fs::read_to_string(&file).unwrap());
        let of = edges.entry(module.clone()).or_default();
        for (at, _) in text.match_indices("crate::") {
            for name in named(&text[at + "crate::".len()..]) {
                if name != module {
                    of.entry(name.to_owned()).or_insert_with(|| inside.display().to_string());
                }
            }
        }
    }
    edges
}

/// A way from `from` to `to`, without `from` itself.
fn way(edges: &Edges, from: &str, to: &str, seen: &mut BTreeSet<String>) -> Option<Vec<String>> {
    for next in edges.get(from)?.keys() {
        if next == to {
            return Some(vec![next.clone()]);
        }
        if seen.insert(next.clone())
            && let Some(mut rest) = way(edges, next, to, seen)
        {
            rest.insert(0, next.clone());
            return Some(rest);
        }
    }
    None
}

fn cycles(edges: &Edges) -> Vec<String> {
    let circle = |module: &String| {
        let way = way(edges, module, module, &mut BTreeSet::new())?;
        let mut from = module;
        let mut told = module.clone();
        for to in &way {
            told.push_str(&format!(" -> {to} (by {})", edges[from][to]));
            from = to;
        }
        Some(told)
    };
    edges.keys().filter_map(circle).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn no_module_of_the_runtime_imports_one_that_imports_it() {
    let edges = edges(&root());
    assert!(edges.len() > 15 && edges["kernel"].contains_key("world"), "the sources are read: {edges:?}");
    assert_eq!(cycles(&edges), Vec::<String>::new());
}

#[test]
fn a_circle_of_imports_is_found_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/mod.rs"), "use crate::{error::{X, Y}, b::{self, C}};").unwrap();
    fs::write(folder.path().join("b.rs"), "// crate::d\nfn f() -> crate::c::T { todo() }").unwrap();
    fs::write(folder.path().join("c.rs"), "pub use crate::a;").unwrap();
    let found = cycles(&edges(folder.path()));
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], "a -> b (by a/mod.rs) -> c (by b.rs) -> a (by c.rs)");
}

#[test]
fn what_performs_effects_knows_no_interpreter_and_asks_for_no_mode() {
    let mut files = Vec::new();
    for module in ["kernel", "world", "effect", "journal", "plan", "executor"] {
        sources(&root().join(module), &mut files);
    }
    for file in files {
        let text = code(&fs::read_to_string(&file).unwrap());
        assert!(!text.contains("rhai"), "{} names the interpreter", file.display());
        let asks = file.starts_with(root().join("kernel")) && text.contains("Mode::Plan");
        assert!(!asks, "{} asks in which mode it is: give the world a hook", file.display());
    }
}

#[test]
fn a_module_with_submodules_is_a_folder_with_a_mod_rs() {
    let mut files = Vec::new();
    for of in ["cli", "provider", "runtime", "stdlib"] {
        sources(&root().join("../..").join(of).join("src"), &mut files);
    }
    assert!(files.len() > 200, "the sources are read");
    let beside = files.iter().filter(|file| file.with_extension("").is_dir());
    assert_eq!(beside.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn nobody_but_the_type_of_ids_knows_how_they_are_written() {
    let mut files = Vec::new();
    for sources_of in ["runtime", "cli", "provider"] {
        sources(&root().join("../..").join(sources_of).join("src"), &mut files);
    }
    // Tests may name an effect.
    files.retain(|file| file.file_stem().is_none_or(|name| name != "tests"));
    let names = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        code(text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()).contains("\"rollback/")
    };
    let known: Vec<_> = files.into_iter().filter(names).collect();
    let place = known.iter().map(|file| file.display().to_string()).collect::<Vec<_>>();
    assert!(
        known.len() == 1 && known[0].ends_with("provider/src/effect_id.rs"),
        "ask an `EffectId` what it says: {place:?}"
    );
}
