//! The findings for people.

use contraflow_runtime::{
    effect::EffectId,
    event::Envelope,
    rehearsal::{End, Findings, Tried},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Group, Mark, Rehearsed, counted, deaths::deaths, matrix::Matrix, planned, timeline, unknown};
use crate::report::{
    effect::Line,
    format::{clean, count, span},
    theme::{Theme, Tone, symbol},
};

/// Columns where no terminal says how many there are.
const WIDTH: usize = 100;
/// Columns of a cell.
const CELL: usize = 3;
/// Least columns of an effect's id.
const NARROWEST: usize = 28;
/// Violations of which the way is shown, unless all are wanted.
const SHOWN: usize = 10;

/// All that was found. `all`: every scenario, every violation.
pub(crate) fn report(
    rehearsed: &Rehearsed,
    findings: &Findings,
    groups: &[Group],
    all: bool,
    theme: Theme,
) -> String {
    let mut text = head(rehearsed, theme);
    as_planned(findings, theme, &mut text);
    table(findings, theme, &mut text);
    if all {
        text.push('\n');
        for tried in &findings.tried {
            push(&mut text, &scenario(tried), theme, "");
        }
    }
    missing(findings, theme, &mut text);
    let shown = if all { groups.len() } else { SHOWN };
    for group in groups.iter().take(shown) {
        violation(rehearsed, group, theme, &mut text);
    }
    if groups.len() > shown {
        text.push('\n');
        let more =
            format!("{} more of other kinds: --all shows them", count(groups.len() - shown, "violation"));
        push(&mut text, &Line::default().and(Tone::Bad, more), theme, "");
    }
    text.push('\n');
    summary(findings, groups, theme, &mut text);
    text
}

/// One scenario: its verdict, behind how it goes if that is wanted.
pub(crate) fn one(rehearsed: &Rehearsed, tried: &Tried, trace: Option<&[Envelope]>, theme: Theme) -> String {
    let mut text = head(rehearsed, theme);
    if let Some(events) = trace {
        text.push('\n');
        for row in timeline::whole(events, theme) {
            text.push_str(&row);
            text.push('\n');
        }
    }
    text.push('\n');
    push(&mut text, &scenario(tried), theme, "");
    hints(tried, theme, &mut text);
    for left in &tried.left {
        push(
            &mut text,
            &Line::new(Tone::Warn, symbol::WARN).and(Tone::Plain, format!("left: {left}")),
            theme,
            "  ",
        );
    }
    for violation in &tried.violations {
        let after = violation.after.iter().map(|after| format!("after {after}")).collect::<Vec<_>>();
        let why = if violation.why.is_empty() { String::new() } else { format!(": {}", violation.why) };
        let line = Line::new(Tone::Bad, symbol::FAIL)
            .and(Tone::Strong, &violation.invariant)
            .and(Tone::Plain, why)
            .remarks(&after);
        push(&mut text, &line, theme, "  ");
    }
    text
}

fn push(text: &mut String, line: &Line, theme: Theme, margin: &str) {
    text.push_str(&line.paint(theme, margin));
    text.push('\n');
}

fn head(rehearsed: &Rehearsed, theme: Theme) -> String {
    let Rehearsed { runbook, version, environment, .. } = rehearsed;
    let mut text = String::new();
    let line = Line::default()
        .and(Tone::Plain, "Rehearsal of ")
        .and(Tone::Strong, format!("{runbook} {version}"))
        .and(Tone::Plain, format!(" in {environment}"));
    push(&mut text, &line, theme, "");
    push(&mut text, &Line::default().and(Tone::Dim, rehearsed.origin()), theme, "  ");
    text
}

impl Rehearsed {
    /// What it starts from.
    pub(super) fn origin(&self) -> String {
        let rest = if self.looked { "is read from the targets" } else { "is unknown" };
        match &self.scenario {
            Some(path) => format!("from {path}; everything else {rest}"),
            None if self.looked => "from the current state of the targets".to_owned(),
            None => "from nothing: no scenario file, and the targets were not read".to_owned(),
        }
    }
}

fn as_planned(findings: &Findings, theme: Theme, text: &mut String) {
    let Some(tried) = planned(findings) else { return };
    let mark = Mark::of(tried);
    let took = [span(findings.planned_ms), count(findings.records, "record")];
    let line = Line::default()
        .and(Tone::Plain, "as planned: ")
        .and(mark.tone, mark.sign)
        .and(Tone::Plain, format!(" {}", words(tried)))
        .remarks(&took);
    push(text, &line, theme, "  ");
}

/// How a scenario ended, in words.
fn words(tried: &Tried) -> String {
    let end = Mark::of_end(tried.end).meaning;
    match &tried.why {
        Some(why) if tried.end == End::Unknown => why.clone(),
        Some(why) => format!("{end}: {why}"),
        None => end.to_owned(),
    }
}

fn scenario(tried: &Tried) -> Line {
    let mark = Mark::of(tried);
    let never = if tried.struck { Vec::new() } else { vec!["the run does not reach it".to_owned()] };
    Line::new(mark.tone, mark.sign)
        .and(Tone::Strong, tried.scenario.to_string())
        .and(Tone::Plain, format!(": {}", words(tried)))
        .remarks(&[vec![span(tried.elapsed_ms)], never].concat())
}

fn table(findings: &Findings, theme: Theme, text: &mut String) {
    let width = theme.width.unwrap_or(WIDTH).max(NARROWEST + CELL);
    let matrix = Matrix::of(findings, (width - NARROWEST) / CELL);
    if matrix.columns.is_empty() {
        return;
    }
    let room = width.saturating_sub(matrix.columns.len() * CELL + 2);
    let lines = || matrix.blocks.iter().flatten();
    let widest = lines().map(|line| shown(&line.row.id).width()).max().unwrap_or(0).min(room);
    text.push('\n');
    // A name stands above its column; a rule leads down to it.
    for (n, column) in matrix.columns.iter().enumerate() {
        let rules = format!("│{}", " ".repeat(CELL - 1)).repeat(n);
        let indent = " ".repeat(widest + 2);
        let room = width.saturating_sub(widest + 2 + n * CELL);
        text.push_str(&format!(
            "{indent}{}{}\n",
            theme.paint(Tone::Dim, rules),
            shortened(column.name(), room)
        ));
    }
    for (lines, title) in matrix.blocks.iter().zip(["", "rollback"]) {
        if lines.is_empty() {
            continue;
        }
        if !title.is_empty() {
            text.push_str(&format!("{}\n", theme.paint(Tone::Strong, title)));
        }
        for line in lines {
            let id = shortened(&shown(&line.row.id), widest);
            text.push_str(&format!("{id}{}", " ".repeat(widest - id.width() + 2)));
            for (n, cell) in line.cells.iter().enumerate() {
                let mark = matrix.mark(cell);
                text.push_str(&theme.paint(mark.tone, mark.sign));
                if n + 1 < line.cells.len() {
                    text.push_str(&" ".repeat(CELL - mark.sign.width()));
                }
            }
            text.push('\n');
        }
    }
    text.push('\n');
    legend(&matrix.legend(), width, theme, text);
    if planned(findings).is_some_and(|planned| !planned.violations.is_empty()) {
        push(
            text,
            &Line::default().and(Tone::Dim, "violations of the run as planned are not marked again"),
            theme,
            "",
        );
    }
    for deaths in deaths(findings, &matrix.known) {
        match deaths.other.first() {
            None => {
                let line = Line::new(Tone::Good, symbol::PASS)
                    .and(Tone::Plain, format!("{}: same outcome", deaths.what));
                push(text, &line, theme, "");
            }
            Some((mark, _)) => {
                let names: Vec<&str> = deaths.other.iter().take(3).map(|(_, name)| &**name).collect();
                let more = deaths.other.len() - names.len();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let line = Line::new(mark.tone, mark.sign).and(
                    Tone::Plain,
                    format!("{}: different outcome with {}{more}", deaths.what, names.join(", ")),
                );
                push(text, &line, theme, "");
            }
        }
    }
}

/// An id as it is shown: what undoes has a heading of its own.
fn shown(id: &EffectId) -> String {
    let text = clean(id.undoes().unwrap_or(id)).replace('\n', " ");
    if id.is_rollback() { format!("  {text}") } else { text }
}

/// The signs and what they mean, as many in a row as fit.
fn legend(marks: &[Mark], width: usize, theme: Theme, text: &mut String) {
    let mut column = 0;
    for mark in marks {
        let entry = mark.sign.width() + 1 + mark.meaning.width();
        if column > 0 && column + 3 + entry > width {
            text.push('\n');
            column = 0;
        }
        if column > 0 {
            text.push_str("   ");
            column += 3;
        }
        text.push_str(&format!(
            "{} {}",
            theme.paint(mark.tone, mark.sign),
            theme.paint(Tone::Dim, mark.meaning)
        ));
        column += entry;
    }
    text.push('\n');
}

/// A text in so many columns, without its middle where it is longer.
fn shortened(text: &str, room: usize) -> String {
    if text.width() <= room {
        return text.to_owned();
    }
    let room = room.saturating_sub(1);
    let take = |letters: &mut dyn Iterator<Item = char>, room: usize| {
        let mut column = 0;
        letters
            .take_while(|letter| {
                column += letter.width().unwrap_or(0);
                column <= room
            })
            .collect::<Vec<char>>()
    };
    let end: Vec<char> = take(&mut text.chars().rev(), room - room / 2).into_iter().rev().collect();
    let begin = take(&mut text.chars(), room / 2);
    format!("{}…{}", String::from_iter(begin), String::from_iter(end))
}

fn missing(findings: &Findings, theme: Theme, text: &mut String) {
    let unknown = unknown(findings);
    if unknown.is_empty() {
        return;
    }
    text.push('\n');
    for (why, tried, others) in unknown {
        let line = Line::new(Tone::Warn, symbol::ASK).and(Tone::Plain, why);
        push(text, &line, theme, "");
        let line = Line::default().and(Tone::Dim, "in  ").and(Tone::Plain, tried.scenario.to_string());
        push(text, &line.and(Tone::Dim, and_others(others)), theme, "  ");
        hints(tried, theme, text);
    }
}

fn hints(tried: &Tried, theme: Theme, text: &mut String) {
    for hint in &tried.hints {
        push(
            text,
            &Line::default().and(Tone::Active, "help").and(Tone::Plain, format!(": {hint}")),
            theme,
            "  ",
        );
    }
}

pub(super) fn and_others(others: usize) -> String {
    match others {
        0 => String::new(),
        1 => " and 1 other scenario".to_owned(),
        n => format!(" and {n} other scenarios"),
    }
}

fn violation(rehearsed: &Rehearsed, group: &Group, theme: Theme, text: &mut String) {
    text.push('\n');
    let line = Line::new(Tone::Bad, symbol::FAIL).and(Tone::Strong, &group.invariant);
    push(text, &line, theme, "");
    push(text, &Line::default().and(Tone::Plain, group.told()), theme, "  ");
    let line = Line::default()
        .and(Tone::Dim, "in  ")
        .and(Tone::Plain, group.scenario.to_string())
        .and(Tone::Dim, and_others(group.others));
    push(text, &line, theme, "  ");
    for row in timeline::around(group, theme) {
        text.push_str(&row);
        text.push('\n');
    }
    // Not folded: it is there to be copied.
    text.push_str(&format!(
        "  {} {}\n",
        theme.paint(Tone::Dim, "$"),
        rehearsed.replay(&group.scenario.to_string())
    ));
}

impl Rehearsed {
    /// The command that plays one scenario and tells how it goes.
    pub(super) fn replay(&self, scenario: &str) -> String {
        format!("{} --only '{}' --trace", self.command, clean(scenario).replace('\'', "'\\''"))
    }
}

/// What is to be said where nothing was found to be wrong: how far that goes.
pub(super) fn none_found(findings: &Findings) -> &'static str {
    if findings.not_tried > 0 {
        return " in the scenarios tried";
    }
    match planned(findings) {
        Some(Tried { end: End::Succeeded, .. }) => "",
        _ => ", but the run as planned cannot be rehearsed to its end",
    }
}

fn summary(findings: &Findings, groups: &[Group], theme: Theme, text: &mut String) {
    let effects = findings.effects.iter().filter(|row| !row.faults.is_empty()).count();
    let told = format!(
        "{} of {}: {}",
        count(findings.tried.len(), "scenario"),
        count(effects, "effect"),
        counted(findings)
    );
    push(text, &Line::default().and(Tone::Plain, told), theme, "");
    if findings.not_tried > 0 {
        let told = format!(
            "{} and their follow-ups not tried: the rehearsal was stopped early",
            count(findings.not_tried, "scenario")
        );
        push(text, &Line::default().and(Tone::Warn, told), theme, "");
    }
    let line = match (groups.len(), findings.violated().count()) {
        (0, _) => match none_found(findings) {
            "" => Line::default().and(Tone::Good, "no violations"),
            but => Line::default().and(Tone::Warn, format!("no violations{but}")),
        },
        (n, scenarios) => Line::default()
            .and(Tone::Bad, count(n, "violation"))
            .and(Tone::Plain, format!(" in {}", count(scenarios, "scenario"))),
    };
    push(text, &line, theme, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_loses_its_middle() {
        assert_eq!(shortened("25-to-green/1:traffic.shift", 40), "25-to-green/1:traffic.shift");
        assert_eq!(shortened("25-to-green/1:traffic.shift", 20), "25-to-gre…ffic.shift");
        assert_eq!(shortened("切切切切切", 6), "切…切");
        for room in 1..30 {
            assert!(shortened("25-to-green/1:traffic.shift", room).width() <= room.max(1), "{room}");
        }
    }
}
