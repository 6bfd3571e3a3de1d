//! `contraflow new`: a runbook to begin with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use contraflow_runtime::error::{RunError, codes};

use crate::{args::Template, files};

const SHIFT: &str = include_str!("shift.rhai");
const MINIMAL: &str = include_str!("minimal.rhai");
const CONFIG: &str = include_str!("contraflow.toml");

/// Longest name of a runbook.
const LONGEST_NAME: usize = 64;

/// Writes a new runbook and, if wanted, a `contraflow.toml` next to it; returns what was written.
///
/// `path` is a name, or a path whose last part is one, with or without `.rhai`. Files that exist are never touched; each new
/// one appears complete or not at all.
///
/// # Errors
/// A name that cannot be one, a folder that is not there, a file that exists, a file that cannot be written.
pub(crate) fn create(path: &Path, template: Template, with_config: bool) -> Result<Vec<PathBuf>, RunError> {
    let name = name(path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(RunError::new(codes::ARGUMENT, format!("no such folder: {}", folder.display()))
            .hint(format!("create it: mkdir -p {}", folder.display())));
    }
    let text = match template {
        Template::Shift => SHIFT,
        Template::Minimal => MINIMAL,
    };
    let mut files = vec![(path.with_file_name(format!("{name}.rhai")), text.replace("{name}", &name))];
    if with_config {
        files.push((path.with_file_name("contraflow.toml"), CONFIG.to_owned()));
    }
    // All are looked at before the first is written, so that a refusal leaves nothing behind.
    if let Some((taken, _)) = files.iter().find(|(file, _)| file.symlink_metadata().is_ok()) {
        return Err(files::exists(taken));
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for (file, text) in files {
        if let Err(error) = files::create(&file, &text) {
            for earlier in &written {
                // Ours and new: nobody can miss it.
                let _ = fs::remove_file(earlier);
            }
            return Err(error);
        }
        written.push(file);
    }
    Ok(written)
}

/// The name of a runbook, from the last part of its path.
fn name(path: &Path) -> Result<String, RunError> {
    let last = path.file_name().and_then(|last| last.to_str()).unwrap_or_default();
    let name = last.strip_suffix(".rhai").unwrap_or(last);
    let fits = (1..=LONGEST_NAME).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'));
    if fits {
        return Ok(name.to_owned());
    }
    let error = RunError::new(
        codes::ARGUMENT,
        format!(
            "\"{name}\" is not a valid runbook name: expected a lowercase letter, then lowercase letters, \
             digits, - and _, at most {LONGEST_NAME}"
        ),
    );
    match suggestion(name) {
        Some(close) => Err(error.hint(format!("try \"{close}\""))),
        None => Err(error),
    }
}

/// A name close to one that cannot be used.
fn suggestion(wrong: &str) -> Option<String> {
    let plain: String = wrong
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .collect();
    let name = plain.trim_start_matches(|c: char| !c.is_ascii_lowercase()).trim_end_matches('-');
    let name: String = name.chars().take(LONGEST_NAME).collect();
    (!name.is_empty() && name != wrong).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("folder")
    }

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .expect("folder")
            .map(|e| e.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    fn parses(text: &str) {
        let mut engine = rhai::Engine::new_raw();
        engine.set_max_expr_depths(128, 128);
        engine.compile(text).expect("parses");
    }

    #[test]
    fn both_templates_parse_and_bear_their_name() {
        let folder = folder();
        for (name, template) in [("shop-shift", Template::Shift), ("x", Template::Minimal)] {
            let written = create(&folder.path().join(name), template, false).expect("written");
            assert_eq!(written, [folder.path().join(format!("{name}.rhai"))]);
            let text = fs::read_to_string(&written[0]).expect("text");
            assert!(text.contains(&format!("name: \"{name}\"")) && !text.contains("{name}"), "{text}");
            parses(&text);
        }
    }

    #[test]
    fn the_header_of_each_template_is_a_literal() {
        for text in [SHIFT, MINIMAL] {
            let ast = rhai::Engine::new_raw().compile(text).expect("parses");
            let header = ast.iter_literal_variables(true, false).find(|(name, _, _)| *name == "RUNBOOK");
            let (_, constant, header) = header.expect("a header that is read without running anything");
            assert!(constant);
            let header = header.read_lock::<rhai::Map>().expect("map").clone();
            for key in ["name", "version", "owner", "params"] {
                assert!(header.contains_key(key), "{key}");
            }
        }
    }

    #[test]
    fn only_functions_that_exist_are_called() {
        for text in [SHIFT, MINIMAL] {
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for (at, _) in line.match_indices("::") {
                    let noun = line[..at].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().expect("noun");
                    let library = contraflow_stdlib::library();
                    let nouns: Vec<&str> = library.modules().iter().map(|(name, _)| *name).collect();
                    assert!(nouns.contains(&noun), "{line}");
                }
            }
        }
    }

    #[test]
    fn the_configuration_is_toml_with_an_environment() {
        let config: toml::Table = CONFIG.parse().expect("TOML");
        assert!(config["env"]["staging"].as_table().is_some_and(|env| env.contains_key("traffic")));
        let folder = folder();
        let written = create(&folder.path().join("a.rhai"), Template::Minimal, true).expect("written");
        assert_eq!(written.len(), 2);
        assert_eq!(entries(folder.path()), ["a.rhai", "contraflow.toml"]);
    }

    #[test]
    fn the_configuration_has_every_target_that_the_runbooks_use() {
        let config: toml::Table = CONFIG.parse().expect("TOML");
        let bound =
            |noun: &str, name: &str| config["env"]["staging"].get(noun).and_then(|noun| noun.get(name));
        // Probes go to the pools of the route.
        for noun in ["traffic", "metrics", "notify"] {
            let called = [SHIFT, MINIMAL].iter().any(|text| text.contains(&format!("{noun}::")));
            let name = if noun == "notify" { "ops" } else { "web" };
            assert_eq!(bound(noun, name).is_some(), called, "{noun}/{name}");
        }
        let metrics = bound("metrics", "web").and_then(|web| web.get("metrics")).expect("queries");
        for line in SHIFT.lines().filter(|line| line.contains("metrics::hold")) {
            for name in ["error_rate", "p95"].into_iter().filter(|name| line.contains(&format!("{name}:"))) {
                assert!(metrics.get(name).is_some(), "{name}");
            }
        }
        let called: Vec<&str> = [SHIFT, MINIMAL]
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim_start().starts_with("//"))
            .filter_map(|line| line.split_once("::")?.0.rsplit(|c: char| !c.is_ascii_alphanumeric()).next())
            .collect();
        for noun in called {
            assert!(["traffic", "metrics", "notify", "probe"].contains(&noun), "{noun} needs a target too");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_a_refusal_leaves_nothing_behind() {
        let folder = folder();
        let config = folder.path().join("contraflow.toml");
        fs::write(&config, "mine").expect("file");
        let error = create(&folder.path().join("a"), Template::Shift, true).expect_err("refused");
        assert_eq!(error.message, format!("{} already exists", config.display()));
        assert_eq!(entries(folder.path()), ["contraflow.toml"]);
        assert_eq!(fs::read_to_string(&config).expect("text"), "mine");
        // A link that leads nowhere is there too.
        std::os::unix::fs::symlink("/nonexistent", folder.path().join("b.rhai")).expect("link");
        create(&folder.path().join("b"), Template::Shift, false).expect_err("refused");
        assert!(files::create(&config, "other").is_err(), "also when it appears in between");
        assert_eq!(entries(folder.path()), ["b.rhai", "contraflow.toml"]);
    }

    #[test]
    fn a_name_that_cannot_be_one_is_answered_with_one_that_can() {
        let refused = |name: &str| {
            let error = name_of(name).expect_err(name);
            error.hints.first().cloned().unwrap_or_default()
        };
        assert_eq!(refused("Blue Green"), "try \"blue-green\"");
        assert_eq!(refused("2024_cut.rhai"), "try \"cut\"");
        assert_eq!(refused(""), "");
        assert_eq!(refused(".."), "");
        assert_eq!(refused(&"a".repeat(65)), format!("try \"{}\"", "a".repeat(64)));
        assert_eq!(name_of("runbooks/a_b-1.rhai"), Ok("a_b-1".to_owned()));
    }

    fn name_of(path: &str) -> Result<String, RunError> {
        name(Path::new(path))
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let folder = folder();
        let error = create(&folder.path().join("no/a"), Template::Shift, false).expect_err("refused");
        assert!(error.message.starts_with("no such folder: "), "{error}");
        assert!(error.hints[0].starts_with("create it: mkdir -p "), "{error:?}");
        assert!(entries(folder.path()).is_empty());
    }

    #[test]
    fn the_files_are_for_others_to_read_too() {
        let folder = folder();
        let written = create(&folder.path().join("a"), Template::Minimal, false).expect("written");
        let mode = fs::metadata(&written[0]).expect("file").permissions().mode();
        assert_eq!(mode & 0o600, 0o600);
        assert_eq!(mode & 0o111, 0, "a script is not a program");
    }
}
