//! Ctrl-C and the signals that end processes.
//!
//! Ctrl-C at a terminal: the run waits at its next safe point, and the person decides. Once more, or without a terminal, it is
//! paused. SIGTERM and SIGHUP pause it: a machine that is drained loses nothing. What is under way then has a bounded time to end.

use std::time::Duration;

use contraflow_runtime::Stop;
use tokio::signal::unix::{SignalKind, signal};

use crate::{args::Exit, keyboard, people::Terminal, screen, session::who, stderr};

/// How long what is under way may go on after SIGTERM or SIGHUP: whoever sent it kills the process after a while.
const STOP_GRACE: Duration = Duration::from_secs(20);

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
            let (by_hand, name) = tokio::select! {
                _ = interrupt.recv() => (true, "Ctrl-C"),
                _ = terminate.recv() => (false, "SIGTERM"),
                _ = hangup.recv() => (false, "SIGHUP"),
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
                        _ = terminate.recv() => pause(&stop, &received("SIGTERM")),
                        goes_on = decide(&stop) => if goes_on { times = 0 },
                    }
                    stop.hold(false);
                }
                1 => {
                    pause(&stop, &received(name));
                    if !by_hand {
                        let stop = stop.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(STOP_GRACE).await;
                            now(&stop, program);
                        });
                    }
                }
                2 => now(&stop, program),
                _ => std::process::exit(i32::from(Exit::Interrupted as u8)),
            }
        }
    });
}

fn received(name: &str) -> String {
    format!("received {name}: pausing at the next safe point; send it again to stop now")
}

// Done first and told afterwards: whether anybody reads it must not matter.

fn pause(stop: &Stop, why: &str) {
    stop.pause(&who());
    tell(why);
}

fn now(stop: &Stop, program: &str) {
    stop.pause_now(&who());
    tell(&format!("stopping now; `{program} show last` shows the state of the run and how to continue"));
}

/// Asks the person at the terminal. Answers whether the run simply goes on.
async fn decide(stop: &Stop) -> bool {
    let here = screen::Question::begin();
    here.say("\nthe run holds at its next safe point; operations in progress finish first\n");
    loop {
        here.prompt("  r = roll back, p = pause, c = continue; Ctrl-C again = pause now [r/p/c] ");
        let Some(line) = keyboard::line().await else {
            pause(stop, "no answer at the terminal: pausing at the next safe point");
            return false;
        };
        match line.trim().to_lowercase().as_str() {
            "r" | "rollback" | "roll back" => {
                stop.cancel_by(&who());
                here.say("stopping at the next safe point, then rolling back\n");
                return false;
            }
            "p" | "pause" => {
                stop.pause(&who());
                here.say("pausing at the next safe point\n");
                return false;
            }
            "c" | "continue" | "go on" => return true,
            _ => {}
        }
    }
}

fn tell(text: &str) {
    stderr::write(&format!("\n{text}\n"));
}
