//! Ctrl-C and the signals that mean the same.

use std::io::{Write as _, stderr};

use cutover_runtime::Stop;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Exit;

/// Listens for signals from now on: the first stops the run at the next safe point and lets it undo what it did, the second
/// stops undoing as well, the third ends the process.
pub(crate) fn watch(stop: &Stop) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for time in 1.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match time {
                1 => {
                    tell(
                        "stopping at the next safe point, then undoing what was done; once more to stop without undoing",
                    );
                    stop.cancel();
                }
                2 => {
                    tell("stopping now; `cutover show last` tells what is left");
                    stop.abort();
                }
                _ => std::process::exit(i32::from(Exit::Interrupted as u8)),
            }
        }
    });
}

fn tell(text: &str) {
    let _ = writeln!(stderr(), "\n{text}");
}
