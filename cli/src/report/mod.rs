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

/// Where a reporter writes. A reader that went away (`contraflow run … | head`) ends the output, not the run.
pub(crate) struct Out {
    to: Box<dyn Write + Send>,
    closed: Arc<AtomicBool>,
}

impl Out {
    /// Writes to `to`.
    pub(crate) fn new(to: impl Write + Send + 'static) -> Self {
        Self { to: Box::new(to), closed: Arc::default() }
    }

    /// Writes to standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// A flag that is set once nobody reads any more.
    pub(crate) fn closed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.closed)
    }

    /// Writes whole lines and sends them off.
    pub(crate) fn write(&mut self, text: &str) {
        if self.closed.load(Ordering::Relaxed) || text.is_empty() {
            return;
        }
        if self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush()).is_err() {
            // Broken pipe or a full disk: there is nowhere left to complain to, and the run itself is journaled.
            self.closed.store(true, Ordering::Relaxed);
        }
    }
}
