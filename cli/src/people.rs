//! Questions, answered at the terminal.

use std::{
    io::{IsTerminal as _, stderr, stdin},
    sync::Arc,
};

use async_trait::async_trait;
use contraflow_runtime::{
    effect::{Choice, EffectId, Question, QuestionKind, Reply},
    error::codes,
    provider::ProviderError,
    world::{Elsewhere, NoPeople, People, YesToAll},
};

use crate::{args::Output, context::Context, keyboard, report::format::clean, screen, session::who};

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
    async fn ask(&self, _: &EffectId, question: &Question) -> Result<Reply, ProviderError> {
        let _turn = self.turn.lock().await;
        let here = screen::Question::begin();
        if !self.announced {
            here.say(&format!("  {}\n", clean(&question.text)));
        }
        let nobody =
            || ProviderError::terminal(codes::NO_ANSWER, format!("nobody answered \"{}\"", question.text));
        let mut reply = match question.kind {
            QuestionKind::Checklist => tick(&here, &question.items).await,
            QuestionKind::Doubt => choose(&here, &question.choices).await,
            QuestionKind::Manual => yes_or_no(&here, "done? [y/N]").await,
            QuestionKind::Confirm | QuestionKind::Approve | QuestionKind::OutsidePlan => {
                yes_or_no(&here, "[y/N]").await
            }
        }
        .ok_or_else(nobody)?;
        reply.by.clone_from(&self.who);
        Ok(reply)
    }
}

/// Who answers the questions of a run that is started here.
pub(crate) fn who_answers(yes: bool, wait: bool, context: &Context) -> Arc<dyn People> {
    if yes {
        Arc::new(YesToAll { by: who() })
    } else if wait {
        Arc::new(Elsewhere)
    } else if Terminal::is_there() {
        Arc::new(Terminal::new(who(), context.global.output == Output::Human))
    } else {
        Arc::new(NoPeople)
    }
}

/// Asks until the answer is clear. `None`: the input ended.
async fn yes_or_no(here: &screen::Question, prompt: &str) -> Option<Reply> {
    loop {
        here.prompt(&format!("  {prompt} "));
        let line = keyboard::line().await?;
        // A comment may follow the answer: `y checked the dashboard`.
        let line = line.trim();
        let (word, comment) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let comment = (!comment.trim().is_empty()).then(|| comment.trim().to_owned());
        let yes = match word.to_lowercase().as_str() {
            "y" | "yes" | "done" => true,
            "n" | "no" | "" => false,
            _ => {
                here.say("  answer y or n; text after it is kept as a comment\n");
                continue;
            }
        };
        return Some(Reply { comment, ..Reply::new(yes, "") });
    }
}

/// Asks for one point after the other; the first no ends it.
async fn tick(here: &screen::Question, items: &[String]) -> Option<Reply> {
    let mut comments = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let reply = yes_or_no(here, &format!("{}. {} [y/N]", i + 1, clean(item))).await?;
        comments.extend(reply.comment.iter().map(|comment| format!("{item}: {comment}")));
        if !reply.yes {
            let comment = reply.comment.map_or_else(|| item.clone(), |comment| format!("{item}: {comment}"));
            return Some(Reply { comment: Some(comment), ..Reply::new(false, "") });
        }
    }
    let comment = (!comments.is_empty()).then(|| comments.join("; "));
    Some(Reply { comment, ..Reply::new(true, "") })
}

/// Asks for one of several words.
async fn choose(here: &screen::Question, choices: &[Choice]) -> Option<Reply> {
    let names: Vec<&str> = choices.iter().map(|choice| &*choice.name).collect();
    loop {
        here.prompt(&format!("  [{}] ", names.join("/")));
        let line = keyboard::line().await?;
        if let Some(choice) = choices.iter().find(|choice| choice.name == line.trim()) {
            return Some(Reply { choice: Some(choice.name.clone()), ..Reply::new(true, "") });
        }
        for choice in choices {
            here.say(&format!("  {}: {}\n", choice.name, clean(&choice.text)));
        }
    }
}
