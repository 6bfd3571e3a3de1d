//! What a person or a program sees of a run: consumers of the runtime's events, and the tables of the other commands.
//!
//! [`human::Human`] shows a run as it happens, [`plan::PlanReport`] shows a plan once it is complete, [`json::JsonLines`]
//! passes events on. All numbers that they print come from the events, never from this machine's clock, so the same events
//! give the same text; only the live region of a terminal, which leaves nothing behind, counts on its own.

pub(crate) mod effect;
pub(crate) mod format;
pub(crate) mod human;
pub(crate) mod json;
mod live;
pub(crate) mod markdown;
mod narrator;
pub(crate) mod place;
pub(crate) mod plan;
pub(crate) mod rehearsal;
#[cfg(test)]
mod samples;
pub(crate) mod table;
pub(crate) mod theme;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use contraflow_runtime::{
    effect::EffectId,
    event::{Envelope, Event, NoteLevel, Sink},
};

use crate::{args::Output, background::Background};

/// Most events of a run that wait to be shown; those behind them are dropped, and the run goes on.
const MOST_WAITING: usize = 10_000;

/// Shows a run, to people or to programs, from a thread of its own: a reader that takes nothing never holds up the run.
pub(crate) fn of_run(output: Output) -> Arc<dyn Sink> {
    let sink: Box<dyn Sink> = match output {
        Output::Human => Box::new(human::Human::new(Out::stdout(), theme::Theme::of(&io::stdout()))),
        Output::Json => Box::new(json::JsonLines::new(Out::stdout())),
    };
    let show = move |event: Envelope, dropped: usize| {
        if dropped > 0 {
            let text = format!("{dropped} lines were dropped here: nobody read them");
            let note = Event::Note { id: EffectId::default(), level: NoteLevel::Log, text, replayed: false };
            sink.event(&Envelope { event: note, ..event.clone() });
        }
        sink.event(&event);
    };
    Arc::new(Aside(Background::new("report", MOST_WAITING, show)))
}

/// A sink that lets a thread of its own do the work.
struct Aside(Background<Envelope>);

impl Sink for Aside {
    fn event(&self, event: &Envelope) {
        self.0.give(event.clone());
    }
}

/// Where a reporter writes. A reader that went away (`contraflow run … | head`) ends the output, not the run.
pub(crate) struct Out {
    to: Box<dyn Write + Send>,
    closed: Arc<AtomicBool>,
    is_stdout: bool,
}

impl Out {
    /// Writes to `to`.
    pub(crate) fn new(to: impl Write + Send + 'static) -> Self {
        Self { to: Box::new(to), closed: Arc::default(), is_stdout: false }
    }

    /// Writes to standard output.
    pub(crate) fn stdout() -> Self {
        Self { is_stdout: true, ..Self::new(io::stdout()) }
    }

    /// A flag that is set once nobody reads any more.
    pub(crate) fn closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }

    /// Whether questions and their answers may stand in the same place.
    pub(crate) fn is_stdout(&self) -> bool {
        self.is_stdout
    }

    /// Writes whole lines and sends them off.
    pub(crate) fn write(&mut self, text: &str) {
        if self.closed.load(Ordering::Relaxed) || text.is_empty() {
            return;
        }
        if self.to.write_all(format::harmless(text).as_bytes()).and_then(|()| self.to.flush()).is_err() {
            // Broken pipe or a full disk: there is nowhere left to complain to, and the run itself is journaled.
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}
