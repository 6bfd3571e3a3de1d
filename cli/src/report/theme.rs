//! The one place that knows colours and symbols.

use std::{fmt::Display, io::IsTerminal};

use anstyle::{AnsiColor, Style};

/// Symbols that start a line. The same with and without a terminal, so that logs can be searched for them.
pub(crate) mod symbol {
    /// A run.
    pub(crate) const RUN: &str = "▶";
    /// A step that opened.
    pub(crate) const STEP: &str = "▸";
    /// A change.
    pub(crate) const CHANGE: &str = "~";
    /// A change that was not needed.
    pub(crate) const SAME: &str = "=";
    /// Something that passed.
    pub(crate) const PASS: &str = "✓";
    /// Something that failed.
    pub(crate) const FAIL: &str = "✗";
    /// An action.
    pub(crate) const ACTION: &str = ">";
    /// Something that goes on.
    pub(crate) const WAIT: &str = "…";
    /// Another try.
    pub(crate) const RETRY: &str = "↻";
    /// A question.
    pub(crate) const ASK: &str = "?";
    /// A note.
    pub(crate) const NOTE: &str = "•";
    /// Detail.
    pub(crate) const LOG: &str = "·";
    /// A warning.
    pub(crate) const WARN: &str = "!";
    /// A rollback.
    pub(crate) const UNDO: &str = "↩";
    /// A line that something else printed.
    pub(crate) const OUTPUT: &str = "│";
}

/// What a piece of text is, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// Names of runs and steps.
    Strong,
    /// Detail that the eye may skip.
    Dim,
    /// Passed, done.
    Good,
    /// Failed.
    Bad,
    /// Changed, or needs attention.
    Warn,
    /// Goes on, is asked, is sent.
    Active,
}

/// How text is shown where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Whether to colour.
    pub(crate) colour: bool,
    /// Whether lines may be drawn over: a terminal that understands it.
    pub(crate) live: bool,
    /// Columns of a terminal. Longer lines are broken here, where their indent is known; elsewhere they stay whole.
    pub(crate) width: Option<usize>,
}

impl Theme {
    /// No colours, nothing live: files, pipes, logs of CI.
    pub(crate) const PLAIN: Self = Self { colour: false, live: false, width: None };

    /// The theme for a stream, by what it is and what the environment asks for.
    pub(crate) fn of(stream: &impl IsTerminal) -> Self {
        let width = if stream.is_terminal() { columns() } else { None };
        Self { width, ..Self::from(stream.is_terminal(), |name| std::env::var(name).ok()) }
    }

    /// `NO_COLOR` (<https://no-color.org>) turns colours off, `CLICOLOR_FORCE` turns them on without a terminal, `TERM=dumb`
    /// turns off all but plain lines.
    pub(crate) fn from(terminal: bool, environment: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| environment(name).is_some_and(|value: String| !value.is_empty());
        let dumb = environment("TERM").is_some_and(|term| term == "dumb");
        let forced = environment("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
        Self {
            colour: !set("NO_COLOR") && ((terminal && !dumb) || forced),
            live: terminal && !dumb,
            width: None,
        }
    }

    /// The same for a terminal as wide as it is now.
    pub(crate) fn resized(self) -> Self {
        Self { width: if self.live { columns().or(self.width) } else { self.width }, ..self }
    }

    /// `text` in the colour of `tone`.
    pub(crate) fn paint(self, tone: Tone, text: impl Display) -> String {
        let style = Style::new();
        let style = match tone {
            Tone::Plain => style,
            Tone::Strong => style.bold(),
            Tone::Dim => style.dimmed(),
            Tone::Good => style.fg_color(Some(AnsiColor::Green.into())),
            Tone::Bad => style.fg_color(Some(AnsiColor::Red.into())).bold(),
            Tone::Warn => style.fg_color(Some(AnsiColor::Yellow.into())),
            Tone::Active => style.fg_color(Some(AnsiColor::Cyan.into())),
        };
        let text = text.to_string();
        if !self.colour || tone == Tone::Plain || text.is_empty() {
            return text;
        }
        format!("{style}{text}{style:#}")
    }
}

/// Columns of the terminal, where there is one.
pub(super) fn columns() -> Option<usize> {
    terminal_size::terminal_size().map(|(columns, _)| usize::from(columns.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(terminal: bool, set: &[(&str, &str)]) -> Theme {
        Theme::from(terminal, |name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn only_a_terminal_is_coloured_and_live() {
        assert_eq!(theme(true, &[("TERM", "xterm")]), Theme { colour: true, live: true, width: None });
        assert_eq!(theme(false, &[("TERM", "xterm")]), Theme::PLAIN);
    }

    #[test]
    fn the_environment_can_turn_colours_off_and_on() {
        assert_eq!(theme(true, &[("NO_COLOR", "1")]), Theme { colour: false, live: true, width: None });
        assert!(theme(true, &[("NO_COLOR", "")]).colour, "empty means not set");
        assert_eq!(theme(true, &[("TERM", "dumb")]), Theme::PLAIN);
        assert_eq!(
            theme(false, &[("CLICOLOR_FORCE", "1")]),
            Theme { colour: true, live: false, width: None }
        );
        assert!(!theme(true, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]).colour);
    }

    #[test]
    fn paint_ends_what_it_begins() {
        let coloured = Theme { colour: true, live: false, width: None };
        assert_eq!(coloured.paint(Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
        assert_eq!(coloured.paint(Tone::Plain, "ok"), "ok");
        assert_eq!(Theme::PLAIN.paint(Tone::Bad, "no"), "no");
    }
}
