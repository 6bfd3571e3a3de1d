//! Questions, answered at the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};

use async_trait::async_trait;
use cutover_runtime::{
    effect::{Question, QuestionKind, Reply},
    error::codes,
    provider::ProviderError,
    world::People,
};

use crate::report::format::clean;

/// The person at the terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    who: String,
    /// Whether the question itself stands on the screen already.
    announced: bool,
    /// Branches ask one after the other.
    turn: tokio::sync::Mutex<()>,
}

impl Terminal {
    pub(crate) fn new(who: String, announced: bool) -> Self {
        Self { who, announced, turn: tokio::sync::Mutex::default() }
    }

    /// Whether somebody can be asked here.
    pub(crate) fn is_there() -> bool {
        stdin().is_terminal() && stderr().is_terminal()
    }
}

#[async_trait]
impl People for Terminal {
    async fn ask(&self, _: &str, question: &Question) -> Result<Reply, ProviderError> {
        let _turn = self.turn.lock().await;
        let text = if self.announced { String::new() } else { format!("{} ", clean(&question.text)) };
        let kind = question.kind;
        let line = tokio::task::spawn_blocking(move || read(kind, &text)).await;
        let nobody =
            || ProviderError::terminal(codes::NO_ANSWER, format!("nobody answered \"{}\"", question.text));
        let (yes, comment) = line.map_err(|_| nobody())?.ok_or_else(nobody)?;
        Ok(Reply { yes, by: self.who.clone(), comment })
    }
}

/// Asks until the answer is clear. `None`: the input ended.
fn read(kind: QuestionKind, text: &str) -> Option<(bool, Option<String>)> {
    loop {
        let choice = match kind {
            QuestionKind::Confirm => "[y/N]",
            QuestionKind::Manual => "done? [y/N]",
        };
        write!(stderr(), "  {text}{choice} ").and_then(|()| stderr().flush()).ok()?;
        let mut line = String::new();
        if stdin().lock().read_line(&mut line).ok()? == 0 {
            return None;
        }
        // A comment may follow the answer: `y checked the dashboard`.
        let line = line.trim();
        let (word, comment) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let comment = (!comment.trim().is_empty()).then(|| comment.trim().to_owned());
        match word.to_lowercase().as_str() {
            "y" | "yes" | "done" => return Some((true, comment)),
            "n" | "no" | "" => return Some((false, comment)),
            _ => {
                writeln!(stderr(), "  answer y or n; words behind it are kept as a comment").ok()?;
            }
        }
    }
}
