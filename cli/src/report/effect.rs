//! How one effect reads, in a run and in a plan.

use std::collections::HashMap;

use cutover_runtime::{
    effect::Undo,
    event::{EffectResult, Event, Grade, Kind},
    target::Target,
};
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr;

use super::{
    format::{clean, span},
    theme::{Theme, Tone, symbol},
};

/// A line made of parts that each have a tone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line that starts with a symbol.
    pub(crate) fn new(tone: Tone, symbol: &str) -> Self {
        Self(vec![(tone, symbol.to_owned())]).and(Tone::Plain, " ")
    }

    /// Adds text. Text of others goes through [`clean`] here, once.
    #[must_use]
    pub(crate) fn and(mut self, tone: Tone, text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        if text.trim().is_empty() {
            self.0.push((tone, text.to_owned()));
        } else {
            // `clean` takes trailing space for noise; between parts of a line it is a separator.
            let spaces = text.len() - text.trim_end_matches(' ').len();
            self.0.push((tone, format!("{}{}", clean(text), " ".repeat(spaces))));
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

    /// Columns that the longest of its lines takes behind `margin`.
    pub(crate) fn width(&self, margin: &str) -> usize {
        self.paint(Theme::PLAIN, margin).lines().map(UnicodeWidthStr::width).max().unwrap_or(0)
    }

    /// The line behind `margin`. What follows a line break is marked as belonging to it: it cannot pass for a line of its own.
    pub(crate) fn paint(&self, theme: Theme, margin: &str) -> String {
        let below = format!("\n{margin}  {} ", theme.paint(Tone::Dim, symbol::OUTPUT));
        let painted = self.0.iter().flat_map(|(tone, text)| {
            // Painted line by line: a style that runs over a line break colours the margin too.
            text.split('\n').enumerate().map(|(i, line)| {
                let line = theme.paint(*tone, line);
                if i == 0 { line } else { format!("{below}{line}") }
            })
        });
        std::iter::once(margin.to_owned()).chain(painted).collect()
    }
}

/// What is known of an effect from its beginning.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its name and what it is about: `traffic.shift web`.
    pub(crate) label: String,
    /// When it began.
    pub(crate) at: Timestamp,
    /// Whether a line about it stands already.
    pub(crate) shown: bool,
}

/// The effects that have begun and not ended.
pub(crate) type Running = HashMap<String, Begun>;

/// The name of an effect and what it is about.
pub(crate) fn label(effect: &str, target: Option<&Target>, text: &str) -> String {
    let about = match target {
        Some(target) => target.name(),
        None => text,
    };
    if about.is_empty() { effect.to_owned() } else { format!("{effect} {about}") }
}

/// Whether an effect asks a person.
pub(crate) fn asks(effect: &str) -> bool {
    matches!(effect.rsplit_once('.').map_or(effect, |(_, verb)| verb), "confirm" | "manual" | "approve")
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
        kind, effect, target, about, grade, attempts, elapsed_ms, replayed, result, ..
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
    let is_told = matches!(result, EffectResult::Failed { error }
        if error.message.ends_with(&format!("(tried {attempts} times)")));
    if *attempts > 1 && !is_told {
        remarks.push(format!("{attempts} tries"));
    }
    if *elapsed_ms >= 1000 {
        remarks.push(format!("{}{}", if plan { "at least " } else { "" }, span(*elapsed_ms)));
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
                (true, Kind::Wait, _) if asks(effect) => (Tone::Active, symbol::ASK),
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
                .and(Tone::Plain, format!("{label}{}", told(&error.message)))
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

/// The label of an effect, from its beginning.
pub(crate) fn begun(event: &Event, at: Timestamp) -> Option<(String, Begun)> {
    let Event::EffectStarted { id, kind, effect, target, text } = event else { return None };
    // A change is about its target; anything else says itself what it is about.
    let target = target.as_ref().filter(|_| *kind == Kind::Change || text.is_empty());
    Some((id.clone(), Begun { kind: *kind, label: label(effect, target, text), at, shown: false }))
}
