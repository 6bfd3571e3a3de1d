//! The region at the bottom of a terminal that shows what is going on now. It is drawn over and leaves nothing behind.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use contraflow_runtime::effect::EffectId;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    format,
    theme::{Theme, columns},
};
use crate::screen;

/// One line for each effect that is going on, each with a spinner that shows that the program is alive.
pub(crate) struct Live {
    all: MultiProgress,
    colour: bool,
    lines: HashMap<EffectId, (ProgressBar, Arc<Mutex<Status>>)>,
}

/// What the line of one effect tells.
#[derive(Debug, Clone, Default)]
struct Status {
    message: String,
    ends: Option<Instant>,
}

impl Live {
    /// An empty region on standard output.
    pub(crate) fn new(theme: Theme) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        Self { all, colour: theme.colour, lines: HashMap::new() }
    }

    /// An effect began. `expected` is how long it will take, where that is known.
    pub(crate) fn begin(&mut self, id: &EffectId, margin: &str, label: &str, expected: Option<Duration>) {
        let status = Arc::new(Mutex::new(Status {
            message: String::new(),
            ends: expected.and_then(|time| Instant::now().checked_add(time)),
        }));
        let spinner = if self.colour { "{spinner:.cyan}" } else { "{spinner}" };
        let shared = Arc::clone(&status);
        let (label, indent) = (label.to_owned(), margin.width() + 2);
        let style = ProgressStyle::with_template(&format!("{{prefix}}{spinner} {{status}}"))
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("status", move |state: &ProgressState, to: &mut dyn std::fmt::Write| {
                let status = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let left = status.ends.map(|end| end.saturating_duration_since(Instant::now()));
                let room = columns().map_or(usize::MAX, |columns| columns.saturating_sub(indent));
                let _ = to.write_str(&fitted(&label, &told(&status.message, state.elapsed(), left), room));
            });
        // Complete before it is added: each later setting would draw it once more.
        let line = ProgressBar::new_spinner().with_style(style).with_prefix(margin.to_owned());
        let line = self.all.add(line);
        line.enable_steady_tick(Duration::from_millis(120));
        self.lines.insert(id.clone(), (line, status));
    }

    /// An effect says how far it is. `left` is the time until it ends, where that can be told.
    pub(crate) fn tell(&self, id: &str, message: String, left: Option<Duration>) {
        if let Some((_, status)) = self.lines.get(id) {
            let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
            status.message = message;
            if let Some(left) = left {
                status.ends = Instant::now().checked_add(left);
            }
        }
    }

    /// An effect ended.
    pub(crate) fn end(&mut self, id: &str) {
        if let Some((line, _)) = self.lines.remove(id) {
            line.finish_and_clear();
            self.all.remove(&line);
        }
    }

    /// Everything ended.
    pub(crate) fn clear(&mut self) {
        for (_, (line, _)) in self.lines.drain() {
            line.finish_and_clear();
        }
        let _ = self.all.clear();
    }

    /// Makes room for questions from now on.
    pub(crate) fn makes_room(&self) {
        screen::lives(&self.all);
    }

    /// Writes lines above the region.
    pub(crate) fn above(&self, write: impl FnOnce()) {
        self.all.suspend(write);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Label and status in one row: what is going on counts more than the end of a long label.
fn fitted(label: &str, status: &str, room: usize) -> String {
    const SHORTEST: usize = 16;
    if label.width() + status.width() <= room {
        return format!("{label}{status}");
    }
    let left = room.saturating_sub(status.width() + 1).max(SHORTEST.min(label.width()));
    let short = cut(label, left);
    let text = format!("{short}{}{status}", if short.len() < label.len() { "…" } else { "" });
    if text.width() <= room { text } else { format!("{}…", cut(&text, room.saturating_sub(1))) }
}

/// The beginning of a text that takes at most so many columns.
fn cut(text: &str, room: usize) -> &str {
    let mut column = 0;
    let end = text.char_indices().find(|(_, letter)| {
        column += letter.width().unwrap_or(0);
        column > room
    });
    &text[..end.map_or(text.len(), |(at, _)| at)]
}

/// What stands behind the label: `: 2 of 3 ready (12s left)`.
fn told(message: &str, elapsed: Duration, left: Option<Duration>) -> String {
    let mut text = String::new();
    if !message.is_empty() {
        let _ = write!(text, ": {message}");
    }
    match left {
        Some(left) if !left.is_zero() => {
            let _ = write!(text, " ({} left)", format::left(left));
        }
        // A spinner alone is enough for what is over soon.
        _ if elapsed >= Duration::from_secs(2) => {
            let _ = write!(text, " ({})", format::left(Duration::from_secs(elapsed.as_secs())));
        }
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_counts_more_than_what_has_passed() {
        let s = Duration::from_secs;
        assert_eq!(told("", s(1), None), "");
        assert_eq!(told("", s(5), None), " (5s)");
        assert_eq!(told("error_rate 0.02%", s(3), Some(s(12))), ": error_rate 0.02% (12s left)");
        assert_eq!(told("3 connections", s(75), Some(s(0))), ": 3 connections (1m15s)");
    }

    #[test]
    fn what_goes_on_takes_one_row_and_tells_the_time_that_is_left() {
        let (label, status) = ("metrics.hold web: error_rate < 1%", ": error_rate 0.02% (12s left)");
        assert_eq!(fitted(label, status, 62), format!("{label}{status}"));
        assert_eq!(fitted(label, status, 61), format!("metrics.hold web: error_rate < …{status}"));
        assert_eq!(fitted(label, status, 30), "metrics.hold web…: error_rate…");
        for room in 1..62 {
            assert_eq!(fitted(label, status, room).width(), room);
        }
        assert_eq!(fitted("切切切切", "", 5), "切切…");
    }

    #[test]
    fn lines_come_and_go_with_their_effects() {
        let mut live = Live::new(Theme::PLAIN);
        live.begin(&"a".into(), "", "metrics.hold web 15s", Some(Duration::from_secs(15)));
        live.begin(&"b".into(), "[1] ", "probe.http web", None);
        live.tell("b", "x".to_owned(), None);
        live.tell("unknown", "x".to_owned(), None);
        live.end("a");
        live.end("a");
        assert_eq!(live.lines.keys().collect::<Vec<_>>(), ["b"]);
        live.clear();
        assert!(live.lines.is_empty());
    }
}
