//! How one scenario goes, line by line, with simulated time.

use std::sync::{Mutex, PoisonError};

use contraflow_runtime::event::{Envelope, Event, Sink};

use super::Group;
use crate::report::{
    format::span,
    narrator::Narrator,
    theme::{Theme, Tone},
};

/// Keeps all events.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<Envelope>>,
}

impl Recorder {
    /// What was heard so far.
    pub(crate) fn take(&self) -> Vec<Envelope> {
        std::mem::take(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Recorder {
    fn event(&self, envelope: &Envelope) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(envelope.clone());
    }
}

/// Columns of the time before a line.
const TIME: usize = 8;

/// What each event leaves behind: the rows, and whether the event is the one that is looked for.
fn rows(events: &[Envelope], theme: Theme, wanted: Option<&str>) -> Vec<(Vec<String>, bool)> {
    let narrow = Theme { width: theme.width.map(|width| width.saturating_sub(TIME + 3)), ..theme };
    let mut narrator = Narrator::new(narrow);
    let begun = events.first().map(|envelope| envelope.at);
    let mut rows = Vec::new();
    for envelope in events {
        let lines = narrator.event(envelope);
        if matches!(envelope.event, Event::RunStarted { .. }) {
            // What is rehearsed was said before.
            continue;
        }
        let since = begun.map_or(0, |begun| envelope.at.duration_since(begun).as_millis());
        let mut time = span(u64::try_from(since).unwrap_or(0));
        let is_wanted = matches!(&envelope.event, Event::EffectEnded { id, .. } if Some(&**id) == wanted);
        let mut told = Vec::new();
        for line in lines.iter().filter(|line| !line.is_empty()).flat_map(|line| line.split('\n')) {
            let sign =
                if is_wanted && told.is_empty() { theme.paint(Tone::Bad, "→") } else { " ".to_owned() };
            told.push(format!("{} {sign} {line}", theme.paint(Tone::Dim, format!("{time:>TIME$}"))));
            time.clear();
        }
        if !told.is_empty() || is_wanted {
            rows.push((told, is_wanted));
        }
    }
    rows
}

/// All of it.
pub(super) fn whole(events: &[Envelope], theme: Theme) -> Vec<String> {
    rows(events, theme, None).into_iter().flat_map(|(rows, _)| rows).collect()
}

/// Events that are shown before the violation, and behind it.
const BEFORE: usize = 10;
const BEHIND: usize = 4;

/// The part around a violation: what led to it, and how it ended.
pub(super) fn around(group: &Group, theme: Theme) -> Vec<String> {
    // The end of an effect says all; without a sign that it began it is one line less.
    let quiet = Theme { live: true, ..theme };
    let rows = rows(&group.events, quiet, group.after.as_deref());
    let at = rows.iter().rposition(|(_, wanted)| *wanted).unwrap_or(rows.len().saturating_sub(1));
    let first = (at + 1).saturating_sub(BEFORE);
    let last = (at + 1).max(rows.len().saturating_sub(BEHIND));
    let gap = |n: usize| {
        let lines = if n == 1 { "1 line".to_owned() } else { format!("{n} lines") };
        format!("{:TIME$}   {}", "", theme.paint(Tone::Dim, format!("… {lines}")))
    };
    let mut told = Vec::new();
    if first > 0 {
        told.push(gap(first));
    }
    told.extend(rows[first..(at + 1).min(rows.len())].iter().flat_map(|(rows, _)| rows.clone()));
    if last > at + 1 {
        told.push(gap(last - at - 1));
    }
    told.extend(rows[last.min(rows.len())..].iter().flat_map(|(rows, _)| rows.clone()));
    told
}
