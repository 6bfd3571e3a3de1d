//! What stands on the terminal while a person types an answer.
//!
//! **Invariant:** nothing is drawn or written over a prompt. The live region is gone while one is open, and the lines of the run that
//! come meanwhile follow once it is answered.

use std::{
    io::{Write as _, stdout},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressDrawTarget};

use crate::{background, report::format::harmless, stderr};

struct Screen {
    /// Open questions, the last one on top, each with what it said last.
    open: Vec<(u64, String)>,
    next: u64,
    /// What is drawn over and over.
    live: Option<MultiProgress>,
    /// Lines for which there was no room.
    kept: String,
}

static SCREEN: Mutex<Screen> =
    Mutex::new(Screen { open: Vec::new(), next: 0, live: None, kept: String::new() });

fn screen() -> MutexGuard<'static, Screen> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long lines that come before a question are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Takes a live region out of the way of questions from now on.
pub(crate) fn lives(live: &MultiProgress) {
    let mut screen = screen();
    if !screen.open.is_empty() {
        live.set_draw_target(ProgressDrawTarget::hidden());
    }
    screen.live = Some(live.clone());
}

/// Writes lines of a run, at once or once there is room for them.
pub(crate) fn lines(text: &str, write: impl FnOnce()) {
    let mut screen = screen();
    if screen.open.is_empty() {
        write();
    } else {
        screen.kept.push_str(text);
    }
}

/// The run is over: nobody waits for an answer any more.
pub(crate) fn over() {
    let mut screen = screen();
    if !screen.open.is_empty() {
        screen.open.clear();
        screen.kept.insert(0, '\n');
    }
    screen.give_back();
}

/// A question that a person is to answer here. While there is one, the screen belongs to it.
pub(crate) struct Question(u64);

impl Question {
    /// Begins to ask.
    pub(crate) fn begin() -> Self {
        // What led to the question stands above it.
        background::settle(PATIENCE);
        let mut screen = screen();
        if let Some(live) = screen.live.as_ref().filter(|_| screen.open.is_empty()) {
            let _ = live.clear();
            live.set_draw_target(ProgressDrawTarget::hidden());
        }
        let id = screen.next;
        screen.next += 1;
        screen.open.push((id, String::new()));
        Self(id)
    }

    /// Says something, without a prompt.
    pub(crate) fn say(&self, text: &str) {
        stderr::write(text);
    }

    /// Shows a prompt, behind which the answer is typed. It is shown again if another question came in between.
    pub(crate) fn prompt(&self, text: &str) {
        if let Some((_, last)) = screen().open.iter_mut().find(|(id, _)| *id == self.0) {
            text.clone_into(last);
        }
        stderr::write(text);
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        let mut screen = screen();
        let was_last = screen.open.last().is_some_and(|(id, _)| *id == self.0);
        screen.open.retain(|(id, _)| *id != self.0);
        match screen.open.last() {
            Some((_, prompt)) if was_last => {
                let prompt = prompt.clone();
                drop(screen);
                stderr::write(&prompt);
            }
            Some(_) => {}
            None => screen.give_back(),
        }
    }
}

impl Screen {
    /// Shows what was kept, and what is drawn over and over.
    fn give_back(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            // A reader that went away is no reason to complain.
            let _ = stdout().write_all(harmless(&kept).as_bytes()).and_then(|()| stdout().flush());
        }
        if let Some(live) = &self.live {
            live.set_draw_target(ProgressDrawTarget::stdout());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_while_a_person_types() {
        // One test for all of it: there is one screen.
        let written = |text: &str| {
            let mut was = false;
            lines(text, || was = true);
            was
        };
        assert!(written("before\n"));
        let first = Question::begin();
        first.prompt("");
        assert!(!written("during\n"));
        let second = Question::begin();
        assert!(!written("during the second\n"));
        drop(second);
        assert!(!written("during the first again\n"));
        assert_eq!(screen().kept, "during\nduring the second\nduring the first again\n");
        screen().kept.clear();
        drop(first);
        assert!(written("after\n"));
        let left_open = Question::begin();
        over();
        assert!(written("the end\n"));
        drop(left_open);
        assert!(written("behind it\n"));
    }

    #[test]
    fn a_live_region_is_hidden_while_a_question_is_open() {
        // The test above may have a question open at the same time, which changes nothing here.
        let live = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        lives(&live);
        assert!(live.is_hidden());
        screen().live = None;
    }
}
