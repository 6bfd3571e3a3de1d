//! A plan as a person reads it before they agree: what would change, how sure each line is, and what could not be undone.
//!
//! Shown as a whole when it is complete: branches that ran at the same time stand one after the other, and the grades stand
//! in a column of their own.

pub(crate) mod foot;
pub(crate) mod paths;
pub(crate) mod saved;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use contraflow_runtime::{
    effect::{EffectId, QuestionKind},
    event::{EffectResult, Envelope, Event, Grade, Kind, NoteLevel, RunOutcome, Sink, WaitsFor},
};

use unicode_width::UnicodeWidthStr;

use super::{
    Out,
    effect::{self, Line, Running},
    format::{clean, count, params},
    place::{Part, Places},
    theme::{Theme, Tone, symbol},
};

/// Widest line behind which a grade still stands in the common column.
const WIDEST: usize = 88;

/// Columns of the longest grade.
const WORD: usize = 8;

/// Shows a plan.
pub(crate) struct PlanReport {
    state: Mutex<State>,
}

struct State {
    out: Out,
    theme: Theme,
    draft: Draft,
}

impl PlanReport {
    /// Writes to `out` when the plan is complete.
    pub(crate) fn new(out: Out, theme: Theme) -> Self {
        Self { state: Mutex::new(State { out, theme, draft: Draft::default() }) }
    }
}

impl Sink for PlanReport {
    fn event(&self, envelope: &Envelope) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.draft.take(envelope);
        if let Event::RunEnded { .. } = envelope.event {
            let text = std::mem::take(&mut state.draft).show(state.theme);
            state.out.write(&text);
        }
    }
}

/// Index of a node in [`Draft::nodes`]; 0 is the whole plan.
type At = usize;

struct Node {
    content: Content,
    inside: Vec<At>,
}

enum Content {
    Whole,
    Step(String, Line),
    Branch {
        parallel: String,
        index: usize,
    },
    Line(Line, Option<Grade>),
    /// Something that hangs on a line, so much further in.
    Hung(String, Line),
}

/// A plan as far as it is known.
struct Draft {
    title: Vec<Line>,
    nodes: Vec<Node>,
    by_id: HashMap<EffectId, At>,
    /// The last line of each effect.
    lines: HashMap<EffectId, At>,
    places: Places,
    running: Running,
    actions: usize,
    /// Changes of which it is known how long they may take.
    estimated: usize,
    questions: BTreeSet<EffectId>,
    no_return: Option<String>,
    /// Why lines failed, as far as they say so.
    said: BTreeSet<String>,
    end: Option<Event>,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            title: Vec::new(),
            nodes: vec![Node { content: Content::Whole, inside: Vec::new() }],
            by_id: HashMap::new(),
            lines: HashMap::new(),
            places: Places::default(),
            running: Running::default(),
            actions: 0,
            estimated: 0,
            questions: BTreeSet::new(),
            no_return: None,
            said: BTreeSet::new(),
            end: None,
        }
    }
}

impl Draft {
    /// Says something more below the title.
    fn remark(&mut self, text: String) {
        self.title.push(Line::default().and(Tone::Dim, text));
    }

    fn take(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::RunStarted { runbook, version, environment, params: given, .. } => {
                self.title.push(
                    Line::default()
                        .and(Tone::Plain, "Plan of ")
                        .and(Tone::Strong, format!("{runbook} {version}"))
                        .and(Tone::Plain, format!(" in {environment}")),
                );
                let given = params(given);
                if !given.is_empty() {
                    self.title.push(Line::default().and(Tone::Dim, format!("  {given}")));
                }
            }
            Event::StepStarted { id, name, .. } => {
                let around = self.around(id);
                let heading = Line::new(Tone::Active, symbol::STEP).and(Tone::Strong, name);
                let step = self.add(around, Content::Step(name.clone(), heading));
                self.by_id.insert(id.clone(), step);
                self.places.open(id);
            }
            Event::StepEnded { id, .. } => self.places.close(id),
            Event::EffectStarted { .. } => self.running.extend(effect::begun(&envelope.event, envelope.at)),
            Event::EffectEnded { id, kind, waits_for, grade, result, .. } => {
                self.ended(&envelope.event, id, *grade);
                if matches!(result, EffectResult::Changed { estimate: Some(_), .. }) {
                    self.estimated += 1;
                }
                if *kind == Kind::Action && matches!(result, EffectResult::Performed { .. }) {
                    self.actions += 1;
                }
                if *waits_for == Some(WaitsFor::People) {
                    self.questions.insert(id.clone());
                }
            }
            Event::Asked { id, question } => {
                self.questions.insert(id.clone());
                if question.kind == QuestionKind::Manual {
                    let line = Line::new(Tone::Active, symbol::ASK)
                        .and(Tone::Plain, format!("by hand: {}", question.text));
                    self.line(id, line, None);
                }
            }
            Event::Note { id, level, text, .. } => {
                let line = match level {
                    NoteLevel::Note => Line::new(Tone::Active, symbol::NOTE).and(Tone::Plain, text),
                    NoteLevel::Log => Line::new(Tone::Dim, symbol::LOG).and(Tone::Dim, text),
                };
                self.line(id, line, None);
            }
            Event::NoReturn { id, why, .. } => {
                let line = Line::new(Tone::Warn, symbol::WARN)
                    .and(Tone::Strong, "point of no return")
                    .and(Tone::Plain, format!(": {why}"));
                self.line(id, line, None);
            }
            Event::GuardStarted { id, watching, .. } => {
                let line = Line::new(Tone::Active, symbol::STEP)
                    .and(Tone::Strong, "guard")
                    .and(Tone::Plain, format!(" {}", watching.join("; ")));
                self.line(id, line, None);
            }
            Event::RunEnded { .. } => self.end = Some(envelope.event.clone()),
            // A plan performs nothing: nothing goes on, is printed, tried again or undone.
            Event::Applying { .. }
            | Event::Progress { .. }
            | Event::Output { .. }
            | Event::Retrying { .. }
            | Event::Replied { .. }
            | Event::Resumed { .. }
            | Event::DoubtResolved { .. }
            | Event::ScopeStopped { .. }
            | Event::RollbackStarted { .. }
            | Event::RollbackEnded { .. } => {}
        }
    }

    fn ended(&mut self, event: &Event, id: &EffectId, grade: Grade) {
        let begun = self.running.remove(id);
        let mut lines = effect::ended(event, begun.as_ref(), None, true).into_iter();
        // What failed is not there to be relied on, more or less.
        let failure = match event {
            Event::EffectEnded { result: EffectResult::Failed { error }, .. } => Some(&error.message),
            _ => None,
        };
        if let Some(line) = lines.next() {
            self.line(id, line, failure.is_none().then_some(grade));
        }
        self.said.extend(failure.cloned());
        lines.for_each(|line| self.line(id, line, None));
        if let Event::EffectEnded { effect, target, result, .. } = event
            && effect::no_return(result).is_some()
            && self.no_return.is_none()
        {
            let steps = self.places.around(id).filter(|(_, part)| *part == Part::Step);
            let step = steps.last().and_then(|(outer, _)| self.by_id.get(outer)).map(|at| &self.nodes[*at]);
            self.no_return = Some(match step {
                Some(Node { content: Content::Step(name, _), .. }) => format!("step \"{}\"", clean(name)),
                _ => clean(&effect::label(effect, target.as_ref(), "")),
            });
        }
    }

    fn line(&mut self, id: &EffectId, line: Line, grade: Option<Grade>) {
        let around = self.around(id);
        let line = self.add(around, Content::Line(line, grade));
        self.lines.insert(id.clone(), line);
    }

    /// Hangs lines on the last one of an effect, or on the end where it has none.
    fn hang(&mut self, id: &EffectId, lines: Vec<(String, Line)>) {
        let at = self.lines.get(id).copied().unwrap_or(0);
        for (margin, line) in lines {
            self.add(at, Content::Hung(margin, line));
        }
    }

    fn add(&mut self, around: At, content: Content) -> At {
        let at = self.nodes.len();
        self.nodes.push(Node { content, inside: Vec::new() });
        self.nodes[around].inside.push(at);
        at
    }

    /// The innermost step or branch around `id`; branches are made when they are first needed.
    fn around(&mut self, id: &EffectId) -> At {
        let parts: Vec<(EffectId, Option<Content>)> = self
            .places
            .around(id)
            .map(|(outer, part)| match part {
                Part::Step => (outer.into(), None),
                Part::Branch { parallel, index } => {
                    (outer.into(), Some(Content::Branch { parallel: parallel.to_owned(), index }))
                }
            })
            .collect();
        let mut at = 0;
        for (outer, branch) in parts {
            at = match (self.by_id.get(&outer), branch) {
                (Some(known), _) => *known,
                (None, Some(branch)) => {
                    let new = self.add(at, branch);
                    self.by_id.insert(outer, new);
                    new
                }
                (None, None) => at,
            };
        }
        at
    }

    fn show(mut self, theme: Theme) -> String {
        self.sort_branches();
        let mut lines = Vec::new();
        self.flatten(0, "", &mut lines);
        // A graded line leaves room for its grade.
        let narrow = Theme { width: theme.width.map(|width| width.saturating_sub(WORD + 2)), ..theme };
        let column = lines
            .iter()
            .filter(|(_, _, grade)| grade.is_some())
            .map(|(margin, line, _)| line.width(narrow, margin))
            .filter(|width| *width <= WIDEST)
            .max()
            .unwrap_or(0);
        let mut text: String = self.title.iter().map(|line| line.paint(theme, "") + "\n").collect();
        text.push('\n');
        for (margin, line, grade) in &lines {
            let Some(grade) = grade else {
                text.push_str(&line.paint(theme, margin));
                text.push('\n');
                continue;
            };
            let plain = line.rows(Theme { width: narrow.width, ..Theme::PLAIN }, margin);
            for (i, (row, plain)) in line.rows(narrow, margin).iter().zip(&plain).enumerate() {
                text.push_str(row);
                if i == 0 {
                    let gap = column.saturating_sub(plain.width()) + 2;
                    text.push_str(&" ".repeat(gap));
                    text.push_str(&theme.paint(Tone::Dim, word(*grade)));
                }
                text.push('\n');
            }
        }
        if !lines.is_empty() {
            text.push('\n');
        }
        text.push_str(&self.summary(&lines).paint(theme, ""));
        text.push('\n');
        text
    }

    /// Branches began in whatever order they did; a plan is the same each time.
    fn sort_branches(&mut self) {
        let keys: Vec<Option<(String, usize)>> = self
            .nodes
            .iter()
            .map(|node| match &node.content {
                Content::Branch { parallel, index } => Some((parallel.clone(), *index)),
                _ => None,
            })
            .collect();
        // The order among the branches of one `parallel` alone: two of them may follow each other.
        let are_siblings = |a: &At, b: &At| {
            keys[*a].as_ref().zip(keys[*b].as_ref()).is_some_and(|((one, _), (other, _))| one == other)
        };
        for node in &mut self.nodes {
            for branches in node.inside.chunk_by_mut(are_siblings) {
                branches.sort_by_key(|at| keys[*at].as_ref().map(|(_, index)| *index));
            }
        }
    }

    fn flatten<'a>(&'a self, at: At, margin: &str, lines: &mut Vec<(String, &'a Line, Option<Grade>)>) {
        for inner in &self.nodes[at].inside {
            match &self.nodes[*inner].content {
                Content::Line(line, grade) => {
                    lines.push((margin.to_owned(), line, *grade));
                    self.flatten(*inner, margin, lines);
                }
                Content::Hung(further, line) => lines.push((format!("{margin}{further}"), line, None)),
                Content::Step(_, heading) => {
                    lines.push((margin.to_owned(), heading, None));
                    self.flatten(*inner, &format!("{margin}  "), lines);
                }
                Content::Whole => {}
                Content::Branch { index, .. } => self.flatten(*inner, &format!("{margin}[{index}] "), lines),
            }
        }
    }

    fn summary(&self, lines: &[(String, &Line, Option<Grade>)]) -> Line {
        let Some(Event::RunEnded { outcome, error, elapsed_ms, estimate_ms, changes }) = &self.end else {
            return Line::default();
        };
        let graded = |wanted: Grade| lines.iter().filter(|(_, _, grade)| *grade == Some(wanted)).count();
        let stopped = *outcome != RunOutcome::Succeeded;
        let mut parts = Vec::new();
        let mut what = Vec::new();
        what.push(if *changes == 0 { "no changes".to_owned() } else { count(*changes, "change") });
        if self.actions > 0 {
            what.push(count(self.actions, "action"));
        }
        if !self.questions.is_empty() {
            what.push(count(self.questions.len(), "question"));
        }
        if *changes == 0 && self.actions == 0 && self.questions.is_empty() {
            parts.push(if stopped { "No changes planned so far" } else { "nothing to do" }.to_owned());
        } else {
            let so_far = if stopped { " planned so far" } else { "" };
            parts.push(format!("{}{so_far}", what.join(", ")));
        }
        parts.extend(effect::takes(*elapsed_ms, *estimate_ms, self.estimated, *changes));
        let unsure: Vec<String> =
            [(Grade::Assumed, "assumed"), (Grade::Stale, "stale"), (Grade::Unknown, "unknown")]
                .into_iter()
                .map(|(grade, word)| (graded(grade), word))
                .filter(|(n, _)| *n > 0)
                .enumerate()
                .map(
                    |(i, (n, word))| {
                        if i == 0 { format!("{} {word}", count(n, "line")) } else { format!("{n} {word}") }
                    },
                )
                .collect();
        if !unsure.is_empty() {
            parts.push(unsure.join(", "));
        }
        let told = format!("{}.", parts.join("; "));
        let line = if !stopped {
            Line::default().and(Tone::Strong, "Plan: ").and(Tone::Plain, told)
        } else {
            let why = error.as_ref().map_or(outcome.as_str(), |error| &error.message);
            let why = if self.said.contains(why) { String::new() } else { format!(": {why}") };
            Line::default().and(Tone::Bad, "Plan stopped").and(Tone::Plain, format!("{why}. {told}"))
        };
        match &self.no_return {
            Some(place) => line.and(Tone::Warn, format!(" Point of no return: {place}.")),
            None => line,
        }
    }
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Observed => "observed",
        Grade::Assumed => "assumed",
        Grade::Stale => "stale",
        Grade::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests;
