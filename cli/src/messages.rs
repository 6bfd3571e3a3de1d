//! All that people read, in one file: `docs/messages.txt`. Whoever changes a message sees it there among its neighbours.
//!
//! `UPDATE_MESSAGES=1 cargo test -p contraflow messages` writes it again.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const GENERATED: &str = "\
# All messages, hints, labels and help texts, by source file.
# Written from the code by `UPDATE_MESSAGES=1 cargo test -p contraflow messages`. Do not edit.
";

/// Crates whose sources are read.
const CRATES: [&str; 4] = ["cli", "provider", "runtime", "stdlib"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A string literal as it is written between its quotes, with what stands before it.
#[derive(Debug, PartialEq, Eq)]
struct Literal<'a> {
    before: &'a str,
    text: String,
}

/// All string literals of a source, in order. Comments are skipped.
fn literals(source: &str) -> Vec<Literal<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if let Some((opening, closing)) = raw(rest).filter(|_| !in_a_word(&source[..at])) {
            let body = &rest[opening..];
            let end = body.find(&closing).unwrap_or(body.len());
            found.push(Literal { before: &source[..at], text: body[..end].replace('\n', "\\n") });
            at += opening + (end + closing.len()).min(body.len());
        } else if c == '"' {
            let end = end_of(&rest[1..]);
            found.push(Literal { before: &source[..at], text: joined(&rest[1..=end]) });
            at += (end + 2).min(rest.len());
        } else {
            at += character(rest).unwrap_or(c.len_utf8());
        }
    }
    found
}

/// How long the opening of a raw string literal is, and what closes it.
fn raw(rest: &str) -> Option<(usize, String)> {
    let after = rest.strip_prefix('r').or_else(|| rest.strip_prefix("br"))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    after[hashes..]
        .starts_with('"')
        .then(|| (rest.len() - after.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
}

fn in_a_word(before: &str) -> bool {
    before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Where the quote is that ends a literal.
fn end_of(body: &str) -> usize {
    let mut escaped = false;
    body.char_indices()
        .find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map_or(body.len(), |(at, _)| at)
}

/// How long a character literal is, if there is one: its quote is no quote of a string. A lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('\'')?;
    let first = body.chars().next()?;
    let inside = if first == '\\' { 1 + body[1..].chars().next()?.len_utf8() } else { first.len_utf8() };
    let close = body[inside..].find('\'').filter(|at| *at == 0 || first == '\\')?;
    Some(1 + inside + close + 1)
}

/// A literal over several lines in one: a line that ends with `\` goes on in the next.
fn joined(body: &str) -> String {
    let mut lines = body.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| text + line.trim_start()).replace('\n', "\\n").replace("\\\"", "\"")
}

/// Whether people read it: it has two words or more, and is neither SQL nor meant for those who write the code.
fn is_read(literal: &Literal<'_>) -> bool {
    const SQL: [&str; 18] = [
        "ALTER",
        "BEGIN",
        "COMMIT",
        "CREATE",
        "DELETE",
        "DROP",
        "FROM",
        "INSERT",
        "PRAGMA",
        "RELEASE",
        "RESET",
        "RETURNING",
        "ROLLBACK",
        "SAVEPOINT",
        "SELECT",
        "SET",
        "UPDATE",
        "WHERE",
    ];
    const IN_SQL: [&str; 7] =
        ["JOIN", "ORDER", "RETURNING", "TABLE", "WHERE", "set_config", "clock_timestamp"];
    const FOR_DEVELOPERS: [&str; 6] =
        ["reason =", ".expect(", "panic!(", "assert!(", "concat!(", "unreachable!("];
    let word = |part: &&str| part.chars().filter(|c| c.is_alphabetic()).count() > 1;
    let words = literal.text.split(' ').filter(word).count();
    let first = literal.text.split([' ', '\\']).find(|part| !part.is_empty()).unwrap_or_default();
    let before = literal.before.trim_end();
    words > 1
        && literal.text.contains(' ')
        && !SQL.contains(&first)
        && !literal.text.split([' ', '(']).any(|word| IN_SQL.contains(&word))
        && !FOR_DEVELOPERS.iter().any(|call| before.ends_with(call))
}

/// The paragraphs of documentation in a source that defines the command line: they are its help.
fn help(source: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for line in source.lines() {
        let part = line.trim_start().strip_prefix("///").map(str::trim).unwrap_or_default();
        match found.last_mut() {
            Some(last) if !part.is_empty() && !last.is_empty() => *last = format!("{last} {part}"),
            Some(last) if !part.is_empty() => part.clone_into(last),
            Some(last) if !last.is_empty() => found.push(String::new()),
            _ => {}
        }
    }
    found.retain(|paragraph| !paragraph.is_empty());
    found
}

/// A source without its tests.
fn without_tests(source: &str) -> String {
    let mut kept = String::new();
    let mut closing: Option<String> = None;
    let mut testing = false;
    for line in source.lines() {
        if let Some(end) = &closing {
            if line == end {
                closing = None;
            }
            continue;
        }
        if line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[cfg(all(test") {
            testing = true;
            continue;
        }
        if testing && !line.trim_start().starts_with("#[") {
            testing = false;
            let indent = &line[..line.len() - line.trim_start().len()];
            if line.ends_with('{') {
                closing = Some(format!("{indent}}}"));
            }
            continue;
        }
        if !testing {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Sources of a folder, without files that only tests have.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    const TESTS: [&str; 8] =
        ["tests", "testing", "samples", "lab", "contract", "reference", "messages", "crash"];
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if TESTS.contains(&&*stem) || stem.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push(path);
        }
    }
}

fn of_sources(text: &mut String) {
    let root = root();
    let mut paths = Vec::new();
    for name in CRATES {
        sources(&root.join(name).join("src"), &mut paths);
    }
    paths.sort();
    for path in paths {
        let source = without_tests(&fs::read_to_string(&path).expect("a source"));
        let name = path.strip_prefix(&root).expect("below the root").display().to_string();
        let mut found = if name.starts_with("cli/src/args") { help(&source) } else { Vec::new() };
        found.extend(literals(&source).into_iter().filter(is_read).map(|literal| literal.text));
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {name}\n");
        for message in found {
            let _ = writeln!(text, "{message}");
        }
    }
}

#[test]
fn the_list_of_all_messages_is_up_to_date() {
    let mut text = GENERATED.to_owned();
    of_sources(&mut text);
    let path = root().join("docs/messages.txt");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(path, text).expect("the list");
        return;
    }
    let known = fs::read_to_string(path).unwrap_or_default();
    let changed = text.lines().find(|line| !known.lines().any(|there| there == *line));
    assert!(
        known == text,
        "docs/messages.txt is not what the code says; write it with `UPDATE_MESSAGES=1 cargo test -p contraflow messages` \
         and read what is new, such as: {changed:?}"
    );
}

#[test]
fn messages_are_found_in_a_source_whatever_stands_around_them() {
    let source = r##"
        // a comment with "no message in it"
        let c = '"'; let l: &'static str = "one of two words"; let e = '\'';
        let long = "a line that goes \
                    on in the next";
        let quoted = "it says \"no such run\" then"; let raw = r#"as it "is" here"#;
        let sql = "SELECT id FROM runs"; let short = "word"; let d = a.expect("a file there");
        #[cfg(test)]
        mod tests {
            let never = "only in a test";
        }
        let last = "last but not least";
"##;
    let source = without_tests(source);
    let found: Vec<String> =
        literals(&source).into_iter().filter(is_read).map(|literal| literal.text).collect();
    assert_eq!(
        found,
        [
            "one of two words",
            "a line that goes on in the next",
            "it says \"no such run\" then",
            "as it \"is\" here",
            "last but not least",
        ]
    );
}
