//! Every path of a plan: the plan as it goes if all is as assumed, and below each line whose answer nobody knows beforehand, where
//! the other answers lead.

mod words;

#[cfg(test)]
mod tests;

use contraflow_runtime::{
    event::{Envelope, Event},
    rehearsal::{Asks, Branch, Decision, End, PathEffect, Paths},
};
use serde::Serialize;

use self::words::{condition, is_in_vain, outcome};
use super::Draft;
use crate::report::{
    effect::{self, Line},
    format::{count, params, span},
    rehearsal::Mark,
    theme::{Theme, Tone, symbol},
};

/// Version of the document. Fields are added without raising it; a change of meaning raises it.
const VERSION: u32 = 1;

/// What a person has to undo is told line by line up to so many.
const LEFT_SHOWN: usize = 3;

#[derive(Serialize)]
struct Document<'p> {
    v: u32,
    runbook: &'p str,
    version: &'p str,
    environment: &'p str,
    #[serde(flatten)]
    paths: &'p Paths,
}

/// For programs: one JSON document.
pub(crate) fn json(paths: &Paths) -> String {
    let (runbook, version, environment) = head(&paths.events);
    let document = Document { v: VERSION, runbook, version, environment, paths };
    // Names of fields and plain values: there is nothing in it that JSON could not say.
    format!("{}\n", serde_json::to_string_pretty(&document).unwrap_or_default())
}

fn head(events: &[Envelope]) -> (&str, &str, &str) {
    match events.first().map(|envelope| &envelope.event) {
        Some(Event::RunStarted { runbook, version, environment, .. }) => (runbook, version, environment),
        _ => ("", "", ""),
    }
}

/// For people.
pub(crate) fn show(paths: &Paths, theme: Theme) -> String {
    let mut draft = Draft::default();
    paths.events.iter().for_each(|envelope| draft.take(envelope));
    for done in paths.trunk.iter().filter(|done| done.value_assumed) {
        draft.hang(&done.id, vec![("  ".to_owned(), assumed())]);
    }
    for decision in &paths.decisions {
        let mut tree = Tree::default();
        tree.branches(decision, "  ");
        draft.hang(&decision.id, tree.lines);
    }
    let mut text = String::new();
    let mut push = |margin: &str, line: &Line| {
        text.push_str(&line.paint(theme, margin));
        text.push('\n');
    };
    for line in title(&paths.events) {
        push("", &line);
    }
    push("", &Line::default());
    draft.sort_branches();
    let mut lines = Vec::new();
    draft.flatten(0, "", &mut lines);
    lines.iter().for_each(|(margin, line, _)| push(margin, line));
    if !lines.is_empty() {
        push("", &Line::default());
    }
    foot(paths, draft.end.as_ref()).iter().for_each(|line| push("", line));
    text
}

fn title(events: &[Envelope]) -> Vec<Line> {
    let (runbook, version, environment) = head(events);
    let mut lines = vec![
        Line::default()
            .and(Tone::Plain, "All paths of ")
            .and(Tone::Strong, format!("{runbook} {version}"))
            .and(Tone::Plain, format!(" in {environment}")),
    ];
    if let Some(Event::RunStarted { params: given, .. }) = events.first().map(|envelope| &envelope.event) {
        let given = params(given);
        if !given.is_empty() {
            lines.push(Line::default().and(Tone::Dim, format!("  {given}")));
        }
    }
    lines
}

fn assumed() -> Line {
    Line::new(Tone::Dim, symbol::LOG)
        .and(Tone::Dim, "its value is only assumed; other values are not explored")
}

/// Whether two effects read the same: a loop that tries again and again.
fn is_repeated(done: &PathEffect, other: &PathEffect) -> bool {
    (&done.effect, &done.what, &done.text, done.failed)
        == (&other.effect, &other.what, &other.text, other.failed)
}

/// Lines with what stands before them.
#[derive(Default)]
struct Tree {
    lines: Vec<(String, Line)>,
}

impl Tree {
    /// The other paths of a decision, below its line.
    fn branches(&mut self, decision: &Decision, margin: &str) {
        let Decision { branches, not_played, .. } = decision;
        for (n, branch) in branches.iter().enumerate() {
            let last = n + 1 == branches.len() && *not_played == 0;
            self.branch(decision, branch, last, margin);
        }
        if *not_played > 0 {
            let told = format!("{} not explored", count(*not_played, "other answer"));
            self.lines.push((margin.to_owned(), Line::new(Tone::Dim, "└").and(Tone::Warn, told)));
        }
    }

    fn branch(&mut self, decision: &Decision, branch: &Branch, last: bool, margin: &str) {
        let (sign, bar) = if last { ("└", "  ") } else { ("├", "│ ") };
        let mark = Mark::of_end(branch.end);
        let line = Line::new(Tone::Dim, sign)
            .and(Tone::Plain, "if ")
            .and(Tone::Strong, condition(decision, branch))
            .and(Tone::Plain, ": ")
            .and(mark.tone, mark.sign)
            .and(if is_in_vain(branch) { Tone::Warn } else { Tone::Plain }, format!(" {}", outcome(branch)));
        self.lines.push((margin.to_owned(), line));
        let inside = format!("{margin}{bar}  ");
        for (n, done) in branch.does.iter().enumerate() {
            let same = |other: &&PathEffect| !branch.decides_at(other) && is_repeated(done, other);
            let alone = branch.decides_at(done);
            if !alone && branch.does[..n].iter().any(|before| same(&before)) {
                continue;
            }
            let times = if alone { 1 } else { branch.does[n..].iter().filter(same).count() };
            self.done(done, times, &inside);
            for decision in branch.decisions.iter().filter(|decision| decision.id == done.id) {
                self.branches(decision, &format!("{inside}  "));
            }
        }
        let told = |decision: &&Decision| branch.does.iter().any(|done| done.id == decision.id);
        for decision in branch.decisions.iter().filter(|decision| !told(decision)) {
            let what = match decision.asks {
                Asks::Guard => format!("guard {}", decision.what),
                _ => effect::label(&decision.effect, None, &decision.what),
            };
            let line = Line::new(Tone::Active, symbol::STEP).and(Tone::Plain, what);
            self.lines.push((inside.clone(), line));
            self.branches(decision, &format!("{inside}  "));
        }
        self.left(branch, &inside);
        if branch.too_deep > 0 {
            let told = format!("{} after that not explored", count(branch.too_deep, "answer"));
            self.lines.push((inside, Line::new(Tone::Dim, symbol::LOG).and(Tone::Warn, told)));
        }
    }

    /// What a run does on a branch only, and how often.
    fn done(&mut self, done: &PathEffect, times: usize, margin: &str) {
        let back = done.id.is_rollback().then(|| "in the rollback".to_owned());
        let often = (times > 1).then(|| format!("{times} times"));
        let remarks: Vec<String> = back.into_iter().chain(often).collect();
        let lines = effect::ended(&done.event.event, None, None, true).into_iter().enumerate();
        self.lines.extend(
            lines.map(|(n, line)| (margin.to_owned(), if n == 0 { line.remarks(&remarks) } else { line })),
        );
        if done.value_assumed {
            self.lines.push((format!("{margin}  "), assumed()));
        }
    }

    fn left(&mut self, branch: &Branch, margin: &str) {
        for left in branch.left.iter().take(LEFT_SHOWN) {
            let line = Line::new(Tone::Warn, symbol::WARN)
                .and(Tone::Plain, format!("left: {}", left.what))
                .remarks(std::slice::from_ref(&left.why));
            self.lines.push((margin.to_owned(), line));
        }
        let more = branch.left.len().saturating_sub(LEFT_SHOWN);
        if more > 0 {
            let line = Line::new(Tone::Warn, symbol::WARN).and(Tone::Plain, format!("left: {more} more"));
            self.lines.push((margin.to_owned(), line));
        }
    }
}

/// What stands below the tree.
fn foot(paths: &Paths, end: Option<&Event>) -> Vec<Line> {
    let mark = Mark::of_end(paths.end);
    let mut told = mark.meaning.to_owned();
    if let Some(why) = &paths.why {
        told.push_str(&format!(": {why}"));
    }
    if let Some(Event::RunEnded { changes, elapsed_ms, .. }) = end {
        told.push_str(&format!(
            "; {}",
            if *changes == 0 { "no changes".to_owned() } else { count(*changes, "change") }
        ));
        if *elapsed_ms >= 1000 {
            told.push_str(&format!("; at least {}", span(*elapsed_ms)));
        }
    }
    let headed = |head: &str| Line::default().and(Tone::Strong, format!("{head}: "));
    let mut lines =
        vec![headed("As assumed").and(mark.tone, mark.sign).and(Tone::Plain, format!(" {told}."))];
    let branches = paths.branches();
    let decided = decisions(&paths.decisions);
    if decided == 0 {
        lines.push(
            headed("Otherwise").and(Tone::Plain, "no check, gate, guard or question has an assumed answer."),
        );
        return lines;
    }
    let ends: Vec<String> = ENDS
        .iter()
        .filter_map(|(end, one, more)| match branches.iter().filter(|branch| branch.end == *end).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            n => Some(format!("{n} {more}")),
        })
        .collect();
    let told = format!("{}, {}", count(decided, "decision"), count(branches.len(), "other path"));
    let told = if ends.is_empty() { told } else { format!("{told}: {}", ends.join(", ")) };
    lines.push(headed("Otherwise").and(Tone::Plain, format!("{told}.")));
    let mut missing = |n: usize, why: &str| {
        if n > 0 {
            lines.push(
                Line::default().and(Tone::Warn, format!("Not explored: {}, {why}.", count(n, "answer"))),
            );
        }
    };
    missing(paths.not_played, "stopped by --paths or interrupted");
    missing(paths.too_deep, "more than two levels deep");
    lines
}

/// How ways end, in words that go with one and with more.
const ENDS: [(End, &str, &str); 8] = [
    (End::Succeeded, "succeeds", "succeed"),
    (End::RolledBack, "is rolled back", "are rolled back"),
    (End::Failed, "fails with nothing to undo", "fail with nothing to undo"),
    (End::RollbackIncomplete, "needs a person", "need a person"),
    (End::Waits, "waits forever", "wait forever"),
    (End::Paused, "pauses", "pause"),
    (End::Aborted, "is aborted", "are aborted"),
    (End::Unknown, "has an unknown end", "have unknown ends"),
];

fn decisions(list: &[Decision]) -> usize {
    let nested =
        |decision: &Decision| decision.branches.iter().map(|b| decisions(&b.decisions)).sum::<usize>();
    list.iter().map(|decision| 1 + nested(decision)).sum()
}
