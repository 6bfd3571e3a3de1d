//! How errors and warnings are shown: the line of the script, the way to it, and what to do next.
//!
//! The wording is the error's own; here it is only laid out. On a terminal the line stands in a frame, elsewhere in plain text
//! that can be read aloud, and for programs as one JSON object.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::IsTerminal,
};

use contraflow_runtime::{
    error::{Frame, RunError},
    lint::Warning,
};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode,
    ThemeCharacters, ThemeStyles,
};
use unicode_width::UnicodeWidthStr;

use crate::{
    args::Output,
    report::{
        format::{clean, visible},
        theme::{Theme, Tone},
    },
};

/// The texts that errors point into, by the path that frames bear: scripts, imports, the configuration.
pub(crate) type Sources = BTreeMap<String, String>;

/// How errors are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// With a frame around the line, in so many columns.
    Framed {
        /// Colours.
        theme: Theme,
        /// Columns.
        width: usize,
    },
    /// Plain text.
    Plain,
    /// One JSON object.
    Json,
}

impl Layout {
    /// The layout for errors that go to `stream`.
    pub(crate) fn of(output: Output, stream: &impl IsTerminal) -> Self {
        Self::from(output, Theme::of(stream), columns(), |name| std::env::var(name).ok())
    }

    fn from(
        output: Output,
        theme: Theme,
        width: usize,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Self {
        match output {
            Output::Json => Self::Json,
            // `live` is what tells a terminal that can do more than plain lines.
            Output::Human if theme.live && is_utf8(environment) => Self::Framed { theme, width },
            Output::Human => Self::Plain,
        }
    }
}

/// Columns of the terminal, as far as lines are pleasant to read.
fn columns() -> usize {
    terminal_size::terminal_size().map_or(100, |(columns, _)| usize::from(columns.0)).clamp(40, 120)
}

/// Whether the locale is one of UTF-8, by the first variable that is set (POSIX.1-2017, 8.2).
fn is_utf8(environment: impl Fn(&str) -> Option<String>) -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| environment(name).filter(|value| !value.is_empty()))
        .is_some_and(|locale| {
            let locale = locale.to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

/// Errors as text, ending with a line break.
pub(crate) fn errors<'a>(
    errors: impl IntoIterator<Item = &'a RunError>,
    sources: &Sources,
    layout: Layout,
) -> String {
    let mut text = String::new();
    for one in errors {
        if !text.is_empty() && layout != Layout::Json {
            text.push('\n');
        }
        text.push_str(&error(one, sources, layout));
    }
    text
}

/// One error as text, ending with a line break.
pub(crate) fn error(error: &RunError, sources: &Sources, layout: Layout) -> String {
    match layout {
        Layout::Json => format!("{}\n", serde_json::json!({ "error": error })),
        layout => finding(&Finding { kind: "error", error, why: "" }, sources, layout),
    }
}

/// Warnings as text, ending with a line break.
pub(crate) fn warnings<'a>(
    warnings: impl IntoIterator<Item = &'a Warning>,
    sources: &Sources,
    layout: Layout,
) -> String {
    let shown: Vec<String> = warnings.into_iter().map(|one| warning(one, sources, layout)).collect();
    shown.join(if layout == Layout::Json { "" } else { "\n" })
}

fn warning(warning: &Warning, sources: &Sources, layout: Layout) -> String {
    let Warning { code, message, why, frames, help } = warning;
    if layout == Layout::Json {
        let at = frames.first();
        let mut shown = serde_json::json!({
            "severity": "warning",
            "code": code,
            "file": at.map(|frame| &*frame.source),
            "line": at.map(|frame| frame.line),
            "column": at.map(|frame| frame.column),
            "message": message,
            "why": why,
            "help": help,
        });
        if let Some(way) = frames.get(1..).filter(|way| !way.is_empty()) {
            shown["called_from"] = serde_json::json!(way);
        }
        return format!("{}\n", serde_json::json!({ "warning": shown }));
    }
    let error = RunError {
        frames: frames.clone(),
        hints: help.clone(),
        ..RunError::new(code.clone(), message.clone())
    };
    finding(&Finding { kind: "warning", error: &error, why }, sources, layout)
}

/// An error, or a warning in the form of one.
struct Finding<'a> {
    kind: &'static str,
    error: &'a RunError,
    /// What it means. Empty: the message says it.
    why: &'a str,
}

fn finding(finding: &Finding<'_>, sources: &Sources, layout: Layout) -> String {
    match layout {
        Layout::Framed { theme, width } => framed(finding, sources, theme, width),
        Layout::Plain | Layout::Json => plain(finding, sources),
    }
}

/// The place that an error is shown at: the innermost one with a line.
fn place<'a>(error: &'a RunError, sources: &Sources) -> (Option<&'a Frame>, Option<Spot>) {
    let frame = error.frames.iter().find(|frame| frame.line > 0);
    let spot = frame.and_then(|frame| Spot::find(sources.get(&frame.source)?, frame));
    (frame, spot)
}

/// Most characters of a line that are shown; of a longer one, those around the place.
const LONGEST_LINE: usize = 240;

/// Where in a text something stands.
#[derive(Debug, PartialEq, Eq)]
struct Spot {
    text: String,
    offset: usize,
    length: usize,
    /// Whether the text is only a part of a long line.
    is_part: bool,
}

impl Spot {
    /// Finds the place of a frame. Frames know only where something begins; it ends with the name or literal that stands there.
    fn find(text: &str, frame: &Frame) -> Option<Self> {
        let text = visible(text);
        let start: usize = text.split_inclusive('\n').take(frame.line - 1).map(str::len).sum();
        let line = text[start..].split('\n').next()?;
        if line.is_empty() && start == text.len() && frame.line > 1 && !text.ends_with('\n') {
            return None;
        }
        let blank = line.len() - line.trim_start().len();
        let (column, length) = match frame.column {
            // The line is known and nothing more: all of it.
            0 => (blank, line.trim().len()),
            column => {
                let at = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
                (at, word(&line[at..], frame.source.ends_with(".toml")))
            }
        };
        if line.chars().nth(LONGEST_LINE).is_some() {
            return Some(Self::part(line, column, length));
        }
        Some(Self { offset: start + column, length, text, is_part: false })
    }

    /// Whether its line, the one before or the one behind is too long to be shown.
    fn is_beside_long_lines(&self) -> bool {
        let start = self.text[..self.offset].rmatch_indices('\n').nth(1).map_or(0, |(at, _)| at + 1);
        self.is_part
            || self.text[start..].lines().take(3).any(|line| line.chars().nth(LONGEST_LINE).is_some())
    }

    /// The part of a long line around `column`, in bytes.
    fn part(line: &str, column: usize, length: usize) -> Self {
        let before = line[..column].char_indices().rev().nth(LONGEST_LINE / 3).map_or(0, |(at, _)| at);
        let rest = &line[before..];
        let end = rest.char_indices().nth(LONGEST_LINE).map_or(rest.len(), |(at, _)| at);
        let (mut text, mut offset) = (String::new(), column - before);
        if before > 0 {
            text.push('…');
            offset += text.len();
        }
        text.push_str(&rest[..end]);
        let length = length.min(text.len() - offset);
        if end < rest.len() {
            text.push('…');
        }
        Self { text, offset, length, is_part: true }
    }
}

/// Bytes of the name, path or quoted text that a line begins with; of the first character if it is none of them.
fn word(rest: &str, bare_keys: bool) -> usize {
    let mut chars = rest.char_indices().peekable();
    let Some((_, first)) = chars.next() else { return 0 };
    if matches!(first, '"' | '\'' | '`') {
        let mut escaped = false;
        for (at, c) in chars {
            if c == first && !escaped {
                return at + c.len_utf8();
            }
            escaped = c == '\\' && !escaped;
        }
        return rest.trim_end().len();
    }
    let part = |c: char| c.is_alphanumeric() || c == '_' || (bare_keys && matches!(c, '-' | '.'));
    if !part(first) {
        return first.len_utf8();
    }
    let mut end = 0;
    loop {
        end += rest[end..].find(|c| !part(c)).unwrap_or(rest.len() - end);
        let path = rest[end..].strip_prefix("::").is_some_and(|next| next.starts_with(part));
        if !path || bare_keys {
            return end;
        }
        end += 2;
    }
}

/// What a miette handler needs of an error.
struct Shown<'a> {
    finding: &'a Finding<'a>,
    message: String,
    source: Option<(NamedSource<String>, usize, usize)>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.finding.error, f)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("{}[{}]", self.finding.kind, self.finding.error.code)))
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.finding.kind == "warning" { Severity::Warning } else { Severity::Error })
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|(source, _, _)| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let (_, offset, length) = self.source.as_ref()?;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, *offset, *length))))
    }
}

fn framed(finding: &Finding<'_>, sources: &Sources, theme: Theme, width: usize) -> String {
    let error = finding.error;
    let (at, spot) = place(error, sources);
    if spot.as_ref().is_some_and(Spot::is_beside_long_lines) {
        // The frame would show all of them.
        return plain(finding, sources);
    }
    let shown = Shown {
        finding,
        message: clean(&error.message),
        source: at.zip(spot).map(|(frame, spot)| {
            (NamedSource::new(clean(&frame.source), spot.text), spot.offset, spot.length)
        }),
    };
    let styles = if theme.colour { ThemeStyles::ansi() } else { ThemeStyles::none() };
    let handler =
        GraphicalReportHandler::new_themed(GraphicalTheme { characters: ThemeCharacters::unicode(), styles })
            .with_links(false)
            .with_width(width)
            .without_syntax_highlighting();
    let mut text = String::new();
    if handler.render_report(&mut text, &shown).is_err() {
        return plain(finding, sources);
    }
    let lacks_line = shown.source.is_none();
    for line in rest(finding, at, lacks_line) {
        let _ = match line {
            Rest::Place(line) => writeln!(text, "  {}", theme.paint(Tone::Dim, line)),
            Rest::Advice(label, line) => writeln!(text, "  {}: {line}", theme.paint(Tone::Active, label)),
        };
    }
    text
}

fn plain(finding: &Finding<'_>, sources: &Sources) -> String {
    let error = finding.error;
    let (at, spot) = place(error, sources);
    let message = clean(&error.message).replace('\n', "\n    ");
    let mut text = format!("{}[{}]: {message}\n", finding.kind, error.code);
    if let (Some(frame), Some(spot)) = (at, &spot) {
        let _ = writeln!(text, "  at {}", position(frame));
        let start = spot.text[..spot.offset].rfind('\n').map_or(0, |at| at + 1);
        let line = spot.text[start..].split('\n').next().unwrap_or_default();
        let wide = |text: &str| text.replace('\t', "    ");
        let before = wide(&spot.text[start..spot.offset]).width();
        let marked = wide(&spot.text[spot.offset..spot.offset + spot.length]).width().max(1);
        let number = frame.line.to_string();
        let gutter = " ".repeat(number.len());
        let _ = writeln!(text, "   {number} | {}", wide(line).trim_end());
        let _ = writeln!(text, "   {gutter} | {}{}", " ".repeat(before), "^".repeat(marked));
    }
    for line in rest(finding, at, spot.is_none()) {
        let line = match line {
            Rest::Place(line) => line,
            Rest::Advice(label, line) => format!("{label}: {line}"),
        };
        let _ = writeln!(text, "  {}", line.replace('\n', "\n    "));
    }
    text
}

/// A line below the place of an error.
enum Rest {
    /// A place on the way to it.
    Place(String),
    /// Something that helps, behind what it is.
    Advice(&'static str, String),
}

/// What follows the line: the way to it, then what to do next. `at` is where the error is shown, `bare` that no line was.
fn rest(finding: &Finding<'_>, at: Option<&Frame>, bare: bool) -> Vec<Rest> {
    let error = finding.error;
    let mut lines = Vec::new();
    let mut last = at;
    if let Some(frame) = at.filter(|_| bare) {
        lines.push(Rest::Place(format!("at {}", position(frame))));
    }
    for frame in &error.frames {
        // The innermost frame is the line itself; an equal one behind another says nothing new.
        if at.is_some_and(|at| std::ptr::eq(at, frame)) || last == Some(frame) {
            continue;
        }
        last = Some(frame);
        let what = clean(&frame.what);
        lines.push(Rest::Place(match (&*what, frame.line) {
            ("", _) => format!("at {}", position(frame)),
            (what, 0) if frame.source.is_empty() => format!("in {what}"),
            (what, _) => format!("in {what} at {}", position(frame)),
        }));
    }
    if !finding.why.is_empty() {
        lines.push(Rest::Advice("why", clean(finding.why)));
    }
    lines.extend(error.hints.iter().map(|hint| Rest::Advice("help", clean(hint))));
    lines
}

/// `deploy.rhai:12:5`, as far as it is known.
fn position(frame: &Frame) -> String {
    let source = clean(&frame.source);
    match (frame.line, frame.column) {
        (0, _) => source,
        (line, 0) => format!("{source}:{line}"),
        (line, column) => format!("{source}:{line}:{column}"),
    }
}

#[cfg(test)]
mod tests;
