//! The text of a run: which lines each event leaves behind.

use std::collections::{HashMap, HashSet, VecDeque};

use contraflow_runtime::{
    effect::{EffectId, QuestionKind, Reply},
    error::{RunError, codes},
    event::{EffectResult, Envelope, Event, Kind, LeftOver, Mode, NoteLevel, RunOutcome, WaitsFor},
};

use super::{
    effect::{self, Line, Running},
    format::{count, params, short, span},
    place::Places,
    theme::{Theme, Tone, symbol},
};

/// Turns events into lines. Pure: the same events give the same lines.
pub(crate) struct Narrator {
    theme: Theme,
    places: Places,
    running: Running,
    replies: HashMap<EffectId, Reply>,
    replaying: bool,
    undoing: Option<usize>,
    left: Vec<LeftOver>,
    /// Why effects failed, as far as it was said: once is enough.
    said: HashSet<String>,
    shelf: Shelf,
    /// The run stops without an end.
    pausing: bool,
}

/// Events that only tell what the journal had already, when a run is taken up again: the last of them are shown.
#[derive(Default)]
struct Shelf {
    /// Each with what its lines begin with. The lines are made when they are shown, which most never are.
    last: VecDeque<(String, Event)>,
    /// How many were put there.
    all: usize,
}

/// Events of a shelf that are shown.
const SHOWN: usize = 12;

impl Shelf {
    fn put(&mut self, margin: String, event: Event) {
        self.all += 1;
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((margin, event));
    }
}

impl Narrator {
    /// For the beginning of a run.
    pub(crate) fn new(theme: Theme) -> Self {
        Self {
            theme,
            places: Places::default(),
            running: Running::default(),
            replies: HashMap::default(),
            replaying: false,
            undoing: None,
            left: Vec::new(),
            said: HashSet::default(),
            shelf: Shelf::default(),
            pausing: false,
        }
    }

    /// Goes on in another width.
    pub(crate) fn fit(&mut self, theme: Theme) {
        self.theme = theme;
    }

    /// What a line about `id` begins with.
    pub(crate) fn margin(&self, id: &EffectId) -> String {
        self.places.margin(id)
    }

    /// The effects that have begun and not ended.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// Keeps an event back that only tells what the journal had already. `false`: it is another one.
    pub(crate) fn shelve(&mut self, event: &Event) -> bool {
        let shelved = !self.replaying && is_replayed(event);
        if shelved {
            let margin = self.margin_of(event);
            self.shelf.put(margin, event.clone());
        }
        shelved
    }

    /// The lines that an event leaves behind which is not kept back, behind those of what was: painted, without line ends.
    pub(crate) fn event(&mut self, envelope: &Envelope) -> Vec<String> {
        let mut lines = self.clear_shelf();
        lines.extend(self.told(envelope));
        lines
    }

    /// What the journal had, as far as it is shown.
    fn clear_shelf(&mut self) -> Vec<String> {
        let Shelf { last, all } = std::mem::take(&mut self.shelf);
        let mut lines = Vec::new();
        let more = all - last.len();
        if more > 0 {
            let text = format!("  {} from the journal", count(more, "more line"));
            lines.push(
                Line::default().and(Tone::Dim, symbol::OUTPUT).and(Tone::Dim, text).paint(self.theme, ""),
            );
        }
        for (margin, event) in last {
            let told = match &event {
                Event::EffectEnded { .. } => effect::ended(&event, None, None, false),
                _ => self.mark(&event).into_iter().collect(),
            };
            lines.extend(told.iter().map(|line| line.paint(self.theme, &margin)));
        }
        lines
    }

    /// What the lines of an event of the script begin with. A step opens and closes here.
    fn margin_of(&mut self, event: &Event) -> String {
        match event {
            Event::StepStarted { id, .. } => {
                let margin = self.margin(id);
                self.places.open(id);
                margin
            }
            Event::StepEnded { id, .. } => {
                self.places.close(id);
                self.margin(id)
            }
            Event::EffectEnded { id, .. }
            | Event::Note { id, .. }
            | Event::NoReturn { id, .. }
            | Event::GuardStarted { id, .. } => self.margin(id),
            _ => String::new(),
        }
    }

    /// The line of an event that says where the script is. Nothing for other events.
    fn mark(&self, event: &Event) -> Option<Line> {
        Some(match event {
            Event::NoReturn { why, .. } => Line::new(Tone::Warn, symbol::WARN)
                .and(Tone::Strong, "point of no return")
                .and(Tone::Plain, format!(": {why}")),
            Event::GuardStarted { watching, .. } => Line::new(Tone::Active, symbol::STEP)
                .and(Tone::Strong, "guard")
                .and(Tone::Plain, format!(" {}", watching.join("; "))),
            Event::StepStarted { name, .. } => Line::new(Tone::Active, symbol::STEP).and(Tone::Strong, name),
            Event::StepEnded { name, ok, elapsed_ms, .. } => {
                let (tone, sign) = match ok {
                    true => (Tone::Good, symbol::PASS),
                    // It has not failed: it goes on when the run does.
                    false if self.pausing => (Tone::Warn, symbol::WAIT),
                    false => (Tone::Bad, symbol::FAIL),
                };
                Line::new(tone, sign).and(Tone::Strong, name).remarks(&[span(*elapsed_ms)])
            }
            Event::Note { level, text, .. } => match level {
                NoteLevel::Note => Line::new(Tone::Active, symbol::NOTE).and(Tone::Plain, text),
                NoteLevel::Log => Line::new(Tone::Dim, symbol::LOG).and(Tone::Dim, text),
            },
            _ => return None,
        })
    }

    fn told(&mut self, envelope: &Envelope) -> Vec<String> {
        match &envelope.event {
            Event::RunStarted { runbook, version, environment, mode, params, plan } => {
                *self = Self { replaying: *mode == Mode::Replay, ..Self::new(self.theme) };
                let verb = if self.replaying { "replay of " } else { "" };
                let what = format!("{verb}{runbook} {version}");
                self.run_started(&what, environment, &envelope.run, params, plan.as_deref())
            }
            Event::Resumed { by, epoch, rollback } => {
                let what = if *rollback { "taken over for rollback" } else { "resumed" };
                let line = Line::new(Tone::Active, symbol::RUN)
                    .and(Tone::Strong, what)
                    .and(Tone::Plain, format!(" by {by}"))
                    .and(Tone::Dim, format!(", runner {epoch}"));
                vec![line.paint(self.theme, "")]
            }
            Event::DoubtResolved { id, text, .. } => {
                let line = Line::new(Tone::Warn, symbol::WARN).and(Tone::Plain, format!("in doubt: {text}"));
                vec![line.paint(self.theme, &self.margin(id))]
            }
            Event::ScopeStopped { id, error } => {
                let line = Line::new(Tone::Bad, symbol::FAIL)
                    .and(Tone::Strong, "stopped")
                    .and(Tone::Plain, format!(": {}", error.message));
                vec![line.paint(self.theme, &self.margin(id))]
            }
            event @ (Event::StepStarted { .. }
            | Event::StepEnded { .. }
            | Event::Note { .. }
            | Event::NoReturn { .. }
            | Event::GuardStarted { .. }) => {
                let margin = self.margin_of(event);
                self.mark(event).iter().map(|line| line.paint(self.theme, &margin)).collect()
            }
            Event::EffectStarted { .. } => self.effect_started(envelope),
            Event::Applying { .. } | Event::Progress { .. } => Vec::new(),
            Event::Output { id, line, .. } => self.below(id, |_| Line::output(line)),
            Event::Retrying { id, attempt, attempts, wait_ms, error } => {
                let remark = format!("try {attempt} of {attempts}, next in {}", span(*wait_ms));
                let (label, reason) = match self.running.get(id) {
                    Some(begun) => (&*begun.label, error.reason()),
                    None => (&**id, &*error.message),
                };
                let line = Line::new(Tone::Warn, symbol::RETRY)
                    .and(Tone::Plain, format!("{label}: {reason}"))
                    .remarks(&[remark]);
                vec![line.paint(self.theme, &self.margin(id))]
            }
            Event::EffectEnded { .. } => self.effect_ended(&envelope.event),
            Event::Asked { id, question } => {
                let what = match question.kind {
                    QuestionKind::Confirm | QuestionKind::Checklist | QuestionKind::OutsidePlan => "",
                    QuestionKind::Approve => "approve: ",
                    QuestionKind::Manual => "by hand: ",
                    QuestionKind::Doubt => "in doubt: ",
                };
                let margin = self.margin(id);
                let mut line = Line::new(Tone::Active, symbol::ASK)
                    .and(Tone::Strong, format!("{what}{}", question.text));
                if !question.rule.by.is_empty() {
                    line = line.and(Tone::Dim, format!(" (by {})", question.rule.told()));
                }
                let items = question.items.iter().map(|item| format!("    - {item}"));
                let choices =
                    question.choices.iter().map(|choice| format!("    {}: {}", choice.name, choice.text));
                let below = items.chain(choices).map(|text| Line::default().and(Tone::Plain, text));
                std::iter::once(line).chain(below).map(|line| line.paint(self.theme, &margin)).collect()
            }
            Event::Replied { id, reply } => {
                // Shown when the wait ends, together with what became of it.
                self.replies.insert(id.clone(), reply.clone());
                Vec::new()
            }
            Event::RollbackStarted { error, entries } => {
                self.undoing = Some(*entries);
                let lines = vec![String::new(), self.rollback_started(error, *entries)];
                self.places.shelve();
                lines
            }
            Event::RollbackEnded { left } => {
                self.places.unshelve();
                self.left.clone_from(left);
                Vec::new()
            }
            Event::RunEnded { outcome, error, elapsed_ms, changes, .. } => {
                let mut lines = vec![String::new()];
                lines.extend(self.summary(envelope, *outcome, error.as_ref(), *elapsed_ms, *changes));
                lines
            }
        }
    }

    fn run_started(
        &self,
        runbook: &str,
        environment: &str,
        run: &str,
        given: &serde_json::Value,
        plan: Option<&str>,
    ) -> Vec<String> {
        let line = Line::new(Tone::Active, symbol::RUN)
            .and(Tone::Strong, runbook)
            .and(Tone::Plain, format!(" in {environment}"))
            .and(Tone::Dim, format!(", run {run}"))
            .and(Tone::Dim, plan.map(|plan| format!(", from plan {}", short(plan))).unwrap_or_default());
        let mut lines = vec![line.paint(self.theme, "")];
        let given = params(given);
        if !given.is_empty() {
            lines.push(Line::default().and(Tone::Dim, given).paint(self.theme, "  "));
        }
        lines
    }

    fn effect_started(&mut self, envelope: &Envelope) -> Vec<String> {
        let Some((id, begun)) = effect::begun(&envelope.event, envelope.at) else { return Vec::new() };
        // A wait may take long; without a live region, its beginning is the only sign of it until it ends.
        let asks = begun.waits_for == Some(WaitsFor::People);
        let silent = self.theme.live || begun.kind != Kind::Wait || asks;
        self.running.insert(id.clone(), begun);
        if silent { Vec::new() } else { self.heading(&id) }
    }

    fn effect_ended(&mut self, event: &Event) -> Vec<String> {
        let Event::EffectEnded { id, .. } = event else { return Vec::new() };
        let begun = self.running.remove(id);
        let answer = self.replies.remove(id).map(|reply| told(&reply));
        let mut event = event.clone();
        if let (Event::EffectEnded { replayed, .. }, true) = (&mut event, self.replaying) {
            // Everything is, in a replay.
            *replayed = false;
        }
        let margin = self.margin(id);
        if let Event::EffectEnded { result: EffectResult::Failed { error }, .. } = &event {
            self.said.insert(error.message.clone());
            if error.is(codes::PAUSED) {
                self.pausing = true;
                let label = begun.map_or_else(|| id.to_string(), |begun| begun.label);
                let line = Line::new(Tone::Warn, symbol::WAIT)
                    .and(Tone::Plain, label)
                    .and(Tone::Dim, format!(": {}", error.message));
                return vec![line.paint(self.theme, &margin)];
            }
        }
        effect::ended(&event, begun.as_ref(), answer.as_deref(), false)
            .iter()
            .map(|line| line.paint(self.theme, &margin))
            .collect()
    }

    /// The line that announces an effect before it ends, once.
    fn heading(&mut self, id: &EffectId) -> Vec<String> {
        let margin = self.margin(id);
        match self.running.get_mut(id) {
            Some(begun) if !begun.shown => {
                begun.shown = true;
                let line = Line::new(Tone::Active, symbol::WAIT).and(Tone::Plain, &begun.label);
                vec![line.paint(self.theme, &margin)]
            }
            _ => Vec::new(),
        }
    }

    /// A line below an effect that has not ended, behind the effect's announcement.
    fn below(&mut self, id: &EffectId, line: impl Fn(&Self) -> Line) -> Vec<String> {
        let mut lines = self.heading(id);
        lines.push(line(self).paint(self.theme, &self.margin(id)));
        lines
    }

    /// Why it came to this, unless a line above says so.
    fn because(&mut self, error: &RunError) -> String {
        if self.said.insert(error.message.clone()) { format!(": {}", error.message) } else { String::new() }
    }

    fn rollback_started(&mut self, error: &RunError, entries: usize) -> String {
        let what = if entries == 0 { "nothing".to_owned() } else { entries.to_string() };
        Line::new(Tone::Warn, symbol::UNDO)
            .and(Tone::Strong, format!("rolling back, {what} to undo"))
            .and(Tone::Plain, self.because(error))
            .paint(self.theme, "")
    }

    fn summary(
        &mut self,
        envelope: &Envelope,
        outcome: RunOutcome,
        error: Option<&RunError>,
        elapsed_ms: u64,
        changes: usize,
    ) -> Vec<String> {
        let took = span(elapsed_ms);
        let undone = self.undoing.map(|entries| entries.saturating_sub(self.left.len()));
        let because = error.map_or_else(String::new, |error| self.because(error));
        let (tone, verdict, rest) = match outcome {
            RunOutcome::Succeeded => {
                let what = if changes == 0 { "no changes".to_owned() } else { count(changes, "change") };
                (Tone::Good, "succeeded", format!(" in {took}: {what}"))
            }
            RunOutcome::Failed => (Tone::Bad, "failed", format!(" after {took}, nothing to undo{because}")),
            RunOutcome::RolledBack => {
                let undone = undone.map_or_else(String::new, |n| format!(", {n} undone"));
                (Tone::Warn, "rolled back", format!(" after {took}{undone}{because}"))
            }
            RunOutcome::RollbackIncomplete => {
                let left = format!("{} left to undo by hand", self.left.len());
                (Tone::Bad, "rollback incomplete", format!(" after {took}, {left}{because}"))
            }
            RunOutcome::Paused => {
                (Tone::Warn, "paused", format!(" after {took}: run {} can be resumed{because}", envelope.run))
            }
            RunOutcome::Aborted => (Tone::Bad, "aborted", format!(" after {took}{because}")),
        };
        let line = Line::default().and(tone, verdict).and(Tone::Plain, rest);
        let mut lines = vec![line.paint(self.theme, "")];
        for (i, left) in self.left.iter().enumerate() {
            lines.push(
                Line::default()
                    .and(Tone::Bad, format!("{}. ", i + 1))
                    .and(Tone::Strong, &left.what)
                    .and(Tone::Dim, format!(" ({})", left.id))
                    .paint(self.theme, "  "),
            );
            for (name, text) in [("by hand: ", &left.by_hand), ("why: ", &left.why)] {
                if !text.is_empty() {
                    lines.push(
                        Line::default()
                            .and(Tone::Dim, name)
                            .and(Tone::Plain, text)
                            .paint(self.theme, "     "),
                    );
                }
            }
        }
        lines
    }
}

/// Whether an event only tells what the journal had already.
fn is_replayed(event: &Event) -> bool {
    matches!(
        event,
        Event::StepStarted { replayed: true, .. }
            | Event::StepEnded { replayed: true, .. }
            | Event::EffectEnded { replayed: true, .. }
            | Event::Note { replayed: true, .. }
            | Event::NoReturn { replayed: true, .. }
            | Event::GuardStarted { replayed: true, .. }
    )
}

/// A reply in words: `yes, by alice: looks good`.
fn told(reply: &Reply) -> String {
    let yes = if reply.yes { "yes" } else { "no" };
    let comment = reply.comment.as_deref().filter(|c| !c.is_empty());
    format!("{yes}, by {}{}", reply.by, comment.map_or_else(String::new, |c| format!(": {c}")))
}
