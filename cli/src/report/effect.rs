//! How one effect reads, in a run and in a plan.

use std::collections::HashMap;

use contraflow_runtime::{
    effect::{EffectId, Undo},
    error::RunError,
    event::{EffectResult, Event, Grade, Kind, WaitsFor},
    target::Target,
};
use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    format::{clean, span},
    theme::{Theme, Tone, symbol},
};

/// A line made of parts that each have a tone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line {
    parts: Vec<(Tone, String)>,
    /// Whether it belongs to the one above and is marked as such.
    below: bool,
}

/// Columns that text gets, however narrow the terminal is.
const NARROWEST: usize = 20;

impl Line {
    /// A line that starts with a symbol.
    pub(crate) fn new(tone: Tone, symbol: &str) -> Self {
        Self { parts: vec![(tone, symbol.to_owned())], below: false }.and(Tone::Plain, " ")
    }

    /// A line that something else printed.
    pub(crate) fn output(text: &str) -> Self {
        Self { below: true, ..Self::default() }.and(Tone::Dim, text)
    }

    /// Adds text. Text of others goes through [`clean`] here, once.
    #[must_use]
    pub(crate) fn and(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        if text.trim().is_empty() {
            self.parts.push((tone, text.to_owned()));
        } else {
            // `clean` takes trailing space for noise; between parts of a line it is a separator.
            let spaces = text.len() - text.trim_end_matches(' ').len();
            self.parts.push((tone, format!("{}{}", clean(text), " ".repeat(spaces))));
        }
        self
    }

    /// Adds dim text in brackets, unless there is none.
    #[must_use]
    pub(crate) fn remarks(self, remarks: &[String]) -> Self {
        if remarks.is_empty() {
            return self;
        }
        self.and(Tone::Dim, format!(" ({})", remarks.join(", ")))
    }

    /// Columns that the longest of its rows takes behind `margin`.
    pub(crate) fn width(&self, theme: Theme, margin: &str) -> usize {
        let rows = self.rows(Theme { width: theme.width, ..Theme::PLAIN }, margin);
        rows.iter().map(|row| row.width()).max().unwrap_or(0)
    }

    /// The line behind `margin`, in as many rows as it takes.
    pub(crate) fn paint(&self, theme: Theme, margin: &str) -> String {
        self.rows(theme, margin).join("\n")
    }

    /// The rows of the line behind `margin`. What follows a line break is marked as belonging to it: it cannot pass for a line of
    /// its own. Nor can what a terminal has no room for: it stands further in than any line that may follow.
    pub(crate) fn rows(&self, theme: Theme, margin: &str) -> Vec<String> {
        let mark = format!("  {} ", theme.paint(Tone::Dim, symbol::OUTPUT));
        let mut rows = Vec::new();
        for (i, parts) in self.by_breaks().into_iter().enumerate() {
            let (first, more) = match (self.below || i > 0, &*mark) {
                (false, _) => ("", "    ".to_owned()),
                (true, mark) => (mark, format!("{mark}  ")),
            };
            let room = |indent: usize| {
                let width =
                    theme.width.map_or(usize::MAX, |width| width.saturating_sub(margin.width() + indent));
                width.max(NARROWEST)
            };
            let rooms = if first.is_empty() { (room(0), room(4)) } else { (room(4), room(6)) };
            for (j, row) in fold(&parts, rooms).into_iter().enumerate() {
                // Painted row by row: a style that runs over a line break colours the margin too.
                let painted: String = row.into_iter().map(|(tone, text)| theme.paint(tone, text)).collect();
                rows.push(format!("{margin}{}{painted}", if j == 0 { first } else { &*more }));
            }
        }
        rows
    }

    /// The parts, apart where a line break stands.
    fn by_breaks(&self) -> Vec<Vec<(Tone, &str)>> {
        let mut lines = vec![Vec::new()];
        for (tone, text) in &self.parts {
            for (i, piece) in text.split('\n').enumerate() {
                if i > 0 {
                    lines.push(Vec::new());
                }
                if let Some(line) = lines.last_mut() {
                    line.push((*tone, piece));
                }
            }
        }
        lines
    }
}

/// One line in rows of so many columns, the first and the others, broken at spaces where there are any.
fn fold<'t>(parts: &[(Tone, &'t str)], (first, more): (usize, usize)) -> Vec<Vec<(Tone, &'t str)>> {
    let text: String = parts.iter().map(|(_, text)| *text).collect();
    if text.len() <= first {
        return vec![parts.to_vec()];
    }
    let mut rows = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let room = if start == 0 { first } else { more };
        let (end, next) = row_end(&text[start..], room, start == 0);
        rows.push(between(parts, start, start + end));
        start += next;
    }
    rows
}

/// Where the row that `text` begins with ends, and where the next one begins. In the `first` row, a symbol is not left alone.
fn row_end(text: &str, room: usize, first: bool) -> (usize, usize) {
    let symbol =
        if first { text.find(' ').filter(|at| text[..*at].width() == 1).map_or(0, |at| at + 1) } else { 0 };
    let (mut column, mut space) = (0, None);
    for (at, letter) in text.char_indices() {
        if letter == ' ' && !text[..at].trim_start().is_empty() && at >= symbol {
            space = Some(at);
        }
        column += letter.width().unwrap_or(0);
        if column > room && letter != ' ' {
            return match space {
                Some(space) => (text[..space].trim_end().len(), space + 1),
                None => (at, at),
            };
        }
    }
    (text.len(), text.len())
}

/// What stands between two places of the text that parts make up.
fn between<'t>(parts: &[(Tone, &'t str)], from: usize, to: usize) -> Vec<(Tone, &'t str)> {
    let mut begin = 0;
    let mut row = Vec::new();
    for (tone, text) in parts {
        let end = begin + text.len();
        if end > from && begin < to {
            row.push((*tone, &text[from.saturating_sub(begin)..text.len().min(to - begin)]));
        }
        begin = end;
    }
    row
}

/// What is known of an effect from its beginning.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its name and what it is about: `traffic.shift web`.
    pub(crate) label: String,
    /// What ends it, if it is a wait.
    pub(crate) waits_for: Option<WaitsFor>,
    /// When it began.
    pub(crate) at: Timestamp,
    /// Whether a line about it stands already.
    pub(crate) shown: bool,
}

/// The effects that have begun and not ended.
pub(crate) type Running = HashMap<EffectId, Begun>;

/// The name of an effect and what it is about.
pub(crate) fn label(effect: &str, target: Option<&Target>, text: &str) -> String {
    let about = match target {
        Some(target) => target.name(),
        None => text,
    };
    if about.is_empty() { effect.to_owned() } else { format!("{effect} {about}") }
}

/// Why it failed, without what its label says already.
fn reason<'e>(label: &str, effect: &str, error: &'e RunError) -> &'e str {
    if label == effect { &error.message } else { error.reason() }
}

/// Why a change cannot be undone, if it cannot.
pub(crate) fn no_return(result: &EffectResult) -> Option<&str> {
    match result {
        EffectResult::Changed { undo: Undo::Impossible(why), .. } => Some(why),
        _ => None,
    }
}

/// The lines of an effect that has ended: what it came to, then what there is to say about that. Nothing for other events.
///
/// `begun` is what its beginning said; a replayed effect may have none. `answer` stands in for the text of a wait that has none.
pub(crate) fn ended(event: &Event, begun: Option<&Begun>, answer: Option<&str>, plan: bool) -> Vec<Line> {
    let Event::EffectEnded {
        kind,
        effect,
        target,
        about,
        waits_for,
        grade,
        attempts,
        elapsed_ms,
        replayed,
        result,
        ..
    } = event
    else {
        return Vec::new();
    };
    let label = begun.map_or_else(|| label(effect, target.as_ref(), about), |b| b.label.clone());
    let told = |text: &str| match text {
        "" => String::new(),
        text => format!(": {text}"),
    };
    let mut remarks = Vec::new();
    let is_told = matches!(result, EffectResult::Failed { error } if error.tried.is_some());
    if *attempts > 1 && !is_told {
        remarks.push(format!("{attempts} tries"));
    }
    if *elapsed_ms >= 1000 {
        remarks.push(format!("{}{}", if plan { "at least " } else { "" }, span(*elapsed_ms)));
    }
    if let EffectResult::Changed { estimate: Some(estimate), .. } = result {
        remarks.extend(about_long(estimate.ms));
    }
    if *replayed {
        remarks.push("from the journal".to_owned());
    }
    let mut lines = Vec::new();
    match result {
        EffectResult::Changed { from_text, to_text, note, .. } => {
            lines.push(
                Line::new(Tone::Warn, symbol::CHANGE)
                    .and(Tone::Plain, format!("{label}: "))
                    .and(Tone::Dim, format!("{from_text} -> "))
                    .and(Tone::Strong, to_text)
                    .remarks(&remarks),
            );
            if let Some(note) = note {
                lines.push(
                    Line::default().and(Tone::Plain, "  ").and(Tone::Dim, format!("{} {note}", symbol::LOG)),
                );
            }
        }
        EffectResult::Unchanged { text, .. } => {
            remarks.insert(0, "unchanged".to_owned());
            lines.push(
                Line::new(Tone::Dim, symbol::SAME)
                    .and(Tone::Dim, format!("{label}{}", told(text)))
                    .remarks(&remarks),
            );
        }
        EffectResult::Performed { text } => {
            let text = if text.is_empty() { label } else { format!("{effect} {text}") };
            lines.push(Line::new(Tone::Active, symbol::ACTION).and(Tone::Plain, text).remarks(&remarks));
        }
        EffectResult::Answered { text } => {
            let (tone, sign) = match (plan, kind, grade) {
                (true, Kind::Wait, _) if *waits_for == Some(WaitsFor::People) => (Tone::Active, symbol::ASK),
                (true, Kind::Wait, _) => (Tone::Active, symbol::WAIT),
                (true, _, Grade::Assumed | Grade::Unknown) => (Tone::Dim, symbol::LOG),
                _ => (Tone::Good, symbol::PASS),
            };
            let text = if text.is_empty() { answer.unwrap_or_default() } else { text };
            lines.push(
                Line::new(tone, sign).and(Tone::Plain, format!("{label}{}", told(text))).remarks(&remarks),
            );
        }
        EffectResult::Failed { error } => lines.push(
            Line::new(Tone::Bad, symbol::FAIL)
                .and(Tone::Plain, format!("{label}{}", told(reason(&label, effect, error))))
                .remarks(&remarks),
        ),
    }
    if let Some(why) = no_return(result) {
        lines.push(
            Line::default()
                .and(Tone::Plain, "  ")
                .and(Tone::Warn, format!("{} point of no return: {why}", symbol::WARN)),
        );
    }
    lines
}

/// An estimate, unless it is too short to matter.
pub(crate) fn about_long(ms: u64) -> Option<String> {
    (ms >= 1000).then(|| format!("about {}", span(ms)))
}

/// How long a run takes: what is certain, and behind it what is expected of so many (`known`) of so many `changes`.
pub(crate) fn takes(least_ms: u64, estimate_ms: Option<u64>, known: usize, changes: usize) -> Option<String> {
    let least = (least_ms >= 1000).then(|| format!("at least {}", span(least_ms)));
    let more = estimate_ms.and_then(about_long).map(|about| {
        let whose = match (known, changes) {
            (_, 1) => "the change is".to_owned(),
            (1, changes) => format!("1 of {changes} changes is"),
            (known, changes) if known < changes => format!("{known} of {changes} changes are"),
            _ => "changes are".to_owned(),
        };
        format!("{about} until {whose} in effect")
    });
    match (least, more) {
        (Some(least), Some(more)) => Some(format!("{least}, and {more}")),
        (least, more) => least.or(more),
    }
}

/// The label of an effect, from its beginning.
pub(crate) fn begun(event: &Event, at: Timestamp) -> Option<(EffectId, Begun)> {
    let Event::EffectStarted { id, kind, effect, target, text, waits_for } = event else { return None };
    // A change is about its target; anything else says itself what it is about.
    let target = target.as_ref().filter(|_| *kind == Kind::Change || text.is_empty());
    Some((
        id.clone(),
        Begun { kind: *kind, label: label(effect, target, text), waits_for: *waits_for, at, shown: false },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(line: &Line, width: usize, margin: &str) -> Vec<String> {
        line.rows(Theme { width: Some(width), ..Theme::PLAIN }, margin)
    }

    #[test]
    fn a_line_that_a_terminal_has_no_room_for_goes_on_further_in() {
        let line = Line::new(Tone::Bad, symbol::FAIL)
            .and(Tone::Plain, "metrics.hold web: error_rate was 3.1%, ")
            .and(Tone::Strong, "wanted < 0.1%")
            .remarks(&["4s".to_owned()]);
        let one = "  ✗ metrics.hold web: error_rate was 3.1%, wanted < 0.1% (4s)";
        assert_eq!(line.rows(Theme::PLAIN, "  "), [one]);
        assert_eq!(rows(&line, one.width(), "  "), [one]);
        assert_eq!(
            rows(&line, 40, "  "),
            ["  ✗ metrics.hold web: error_rate was", "      3.1%, wanted < 0.1% (4s)"]
        );
        assert_eq!(rows(&line, 40, "[1] ")[1], "[1]     3.1%, wanted < 0.1% (4s)", "a branch stays marked");
        for width in 20..70 {
            let folded = rows(&line, width, "  ");
            assert!(folded.iter().all(|row| row.width() <= width.max(NARROWEST + 6)), "{width}: {folded:?}");
            let words = folded.iter().flat_map(|row| row.split_whitespace()).collect::<Vec<_>>().join(" ");
            assert_eq!(words, one.trim(), "{width}");
        }
    }

    #[test]
    fn a_word_that_is_longer_than_a_row_is_cut_and_wide_letters_count_twice() {
        let line = Line::new(Tone::Good, symbol::PASS)
            .and(Tone::Plain, "probe.http ")
            .and(Tone::Plain, "x".repeat(50));
        assert_eq!(
            rows(&line, 30, ""),
            ["✓ probe.http".to_owned(), format!("    {}", "x".repeat(26)), format!("    {}", "x".repeat(24))]
        );
        let symbol_only = Line::new(Tone::Good, symbol::PASS).and(Tone::Plain, "x".repeat(50));
        assert_eq!(rows(&symbol_only, 30, "")[0], format!("✓ {}", "x".repeat(28)));
        let wide = Line::default().and(Tone::Plain, "切".repeat(15));
        assert_eq!(rows(&wide, 20, ""), ["切".repeat(10), format!("    {}", "切".repeat(5))]);
    }

    #[test]
    fn what_others_print_is_marked_in_each_row() {
        let line = Line::output(&format!("{}✓ probe.http web: 200", "a ".repeat(10)));
        assert_eq!(rows(&line, 30, ""), ["  │ a a a a a a a a a a ✓", "  │   probe.http web: 200"]);
        let failed = Line::new(Tone::Bad, symbol::FAIL)
            .and(Tone::Plain, "exec.run ./x: exit 1\n✓ all is good, all is well");
        assert_eq!(
            rows(&failed, 24, ""),
            ["✗ exec.run ./x: exit 1", "  │ ✓ all is good, all", "  │   is well"]
        );
    }

    #[test]
    fn what_is_certain_stands_apart_from_what_is_expected() {
        let told =
            |least, estimate, known, changes| takes(least, estimate, known, changes).unwrap_or_default();
        assert_eq!(told(0, None, 0, 3), "");
        assert_eq!(told(1_200_000, None, 0, 3), "at least 20m");
        assert_eq!(told(0, Some(999), 1, 1), "", "too short to matter");
        assert_eq!(told(0, Some(30_000), 1, 1), "about 30s until the change is in effect");
        assert_eq!(
            told(1_200_000, Some(30_000), 3, 3),
            "at least 20m, and about 30s until changes are in effect"
        );
        assert_eq!(told(0, Some(30_000), 1, 3), "about 30s until 1 of 3 changes is in effect");
        assert_eq!(told(0, Some(30_000), 2, 3), "about 30s until 2 of 3 changes are in effect");
    }

    #[test]
    fn each_row_has_its_own_colour() {
        let line = Line::default().and(Tone::Bad, "aaaa bbbb cccc dddd eeee");
        let painted = line.rows(Theme { colour: true, live: false, width: Some(20) }, "");
        assert_eq!(painted.len(), 2);
        for row in painted {
            assert!(row.ends_with("\u{1b}[0m") && row.matches("\u{1b}[0m").count() == 1, "{row:?}");
        }
    }
}
