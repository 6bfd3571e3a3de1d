//! `// contraflow: allow(CODE) because …` on the line before, or at the end of the line, silences a warning.

use std::collections::BTreeSet;

use super::{ALLOW, Warning};
use crate::{
    error::did_you_mean,
    script::{Bundle, outline::Place},
};

/// A comment that silences one or more codes.
struct Allow {
    place: Place,
    codes: Vec<String>,
    /// Whether it says why.
    reasoned: bool,
    /// The line that it is about: its own if something stands before it, else the next one that is not a comment or empty.
    about: usize,
}

/// Leaves out the warnings that comments silence, and adds what is wrong with those comments.
pub(super) fn apply(bundle: &Bundle, found: Vec<Warning>, known: &[&str]) -> Vec<Warning> {
    let allows: Vec<Allow> = bundle.files.iter().flat_map(|(file, text)| comments(file, text)).collect();
    let mut used: BTreeSet<(usize, &str)> = BTreeSet::new();
    let mut left: Vec<Warning> = Vec::new();
    for warning in found {
        let (file, line, _) = warning.spot();
        let silencing = allows.iter().enumerate().find_map(|(at, allow)| {
            let here = *allow.place.file == *file && allow.about == line && allow.reasoned;
            let code = allow.codes.iter().find(|code| **code == warning.code.as_str());
            code.filter(|_| here).map(|code| (at, &**code))
        });
        match silencing {
            Some(silencing) => {
                used.insert(silencing);
            }
            None => left.push(warning),
        }
    }
    for (at, allow) in allows.iter().enumerate() {
        let told = |message: String| Warning::at(ALLOW, &allow.place, "", message);
        if !allow.reasoned {
            left.push(
                told("this comment gives no reason, so it silences nothing".to_owned())
                    .why("without a reason, the next reader cannot tell whether it still applies")
                    .help(format!("write // contraflow: allow({}) because …", allow.codes.join(", "))),
            );
            continue;
        }
        for code in &allow.codes {
            if !known.contains(&&**code) {
                let warning = told(format!("unknown warning \"{code}\""));
                left.push(match did_you_mean(code, known.iter().copied()) {
                    Some(close) => warning.help(format!("did you mean `{close}`?")),
                    None => warning.help(format!("there are {}", known.join(", "))),
                });
            } else if !used.contains(&(at, &**code)) && *allow.place.file == *bundle.main {
                // What an imported script allows may be needed by another runbook that imports it.
                left.push(
                    told(format!("there is no warning {code} here to silence"))
                        .why("it would hide a later warning")
                        .help("remove the comment, or move it to the line before the warning"),
                );
            }
        }
    }
    left
}

/// The comments of that form in a script.
fn comments(file: &str, text: &str) -> Vec<Allow> {
    let lines: Vec<&str> = text.lines().collect();
    let aside = |line: &&str| line.trim_start().starts_with("//") || line.trim().is_empty();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        // What only looks like one in a text of several lines is told as one that silences nothing.
        let Some((before, rest)) =
            line.match_indices("//").find_map(|(i, _)| Some((&line[..i], allow(&line[i..])?)))
        else {
            continue;
        };
        let (codes, reason) = rest.split_once(')').unwrap_or((rest, ""));
        let codes =
            codes.split(',').map(|code| code.trim().to_owned()).filter(|code| !code.is_empty()).collect();
        let reason = reason.trim().trim_start_matches("because").trim_matches([' ', ':', '-', '.', '…']);
        let next = lines[at + 1..].iter().take_while(|line| aside(line)).count();
        found.push(Allow {
            place: Place { file: file.into(), line: at + 1, column: before.chars().count() + 1 },
            codes,
            reasoned: !reason.is_empty(),
            about: if before.trim().is_empty() { at + 2 + next } else { at + 1 },
        });
    }
    found
}

/// What stands behind the bracket, if a comment is of that form.
fn allow(comment: &str) -> Option<&str> {
    comment.strip_prefix("//")?.trim_start().strip_prefix("contraflow:")?.trim_start().strip_prefix("allow(")
}
