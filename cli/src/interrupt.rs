//! Ctrl-C and the signals that end processes.
//!
//! Ctrl-C at a terminal: the run waits at its next safe point, and the person decides. Once more, or without a terminal, it is
//! paused. SIGTERM and SIGHUP pause it: a machine that is drained loses nothing.

use std::io::{Write as _, stderr};

use contraflow_runtime::Stop;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Exit, keyboard, people::Terminal, session::who};

/// Listens for signals from now on.
pub(crate) fn watch(stop: &Stop, program: &'static str) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return;
        };
        let mut times = 0;
        loop {
            let by_hand = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => false,
                _ = hangup.recv() => false,
            };
            times += 1;
            match times {
                1 if by_hand && Terminal::is_there() => {
                    stop.hold(true);
                    tokio::select! {
                        biased;
                        _ = interrupt.recv() => {
                            times += 1;
                            now(&stop, program);
                        }
                        _ = terminate.recv() => pause(&stop, "SIGTERM"),
                        goes_on = decide(&stop) => if goes_on { times = 0 },
                    }
                    stop.hold(false);
                }
                1 => pause(&stop, if by_hand { "Ctrl-C" } else { "a signal to end" }),
                2 => now(&stop, program),
                _ => std::process::exit(i32::from(Exit::Interrupted as u8)),
            }
        }
    });
}

fn pause(stop: &Stop, why: &str) {
    tell(&format!("{why}: pausing at the next safe point; once more to break off"));
    stop.pause(&who());
}

fn now(stop: &Stop, program: &str) {
    tell(&format!("breaking off now; `{program} show last` tells how it stands and how to go on"));
    stop.pause_now(&who());
}

/// Asks the person at the terminal. Answers whether the run simply goes on.
async fn decide(stop: &Stop) -> bool {
    tell("the run waits at its next safe point; what is under way goes on");
    loop {
        let _ = write!(
            stderr(),
            "  r = stop and undo what was done, p = pause, c = go on; Ctrl-C again = pause now [r/p/c] "
        )
        .and_then(|()| stderr().flush());
        let Some(line) = keyboard::line().await else {
            pause(stop, "nobody is there to decide");
            return false;
        };
        match line.trim().to_lowercase().as_str() {
            "r" | "rollback" | "roll back" => {
                tell("stopping at the next safe point, then undoing what was done");
                stop.cancel_by(&who());
                return false;
            }
            "p" | "pause" => {
                stop.pause(&who());
                return false;
            }
            "c" | "continue" | "go on" => return true,
            _ => {}
        }
    }
}

fn tell(text: &str) {
    let _ = writeln!(stderr(), "\n{text}");
}
