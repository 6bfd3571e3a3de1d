//! Answers of effects from the journal of a run.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{
    record::{Chain, Entry, Outcome, Sealed},
    store::Store,
};
use crate::{
    error::{RunError, codes},
    event::Kind,
};

/// What the journal knows about one effect.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) kind: Kind,
    pub(crate) effect: String,
    pub(crate) print: String,
    pub(crate) input: String,
    /// `None`: an intent without an outcome.
    pub(crate) outcome: Option<(Outcome, u32, u64)>,
}

/// The effects of a run by id.
#[derive(Debug, Default)]
pub struct Replay {
    effects: Mutex<HashMap<String, Recorded>>,
}

impl Replay {
    /// Reads the journal of a run and verifies it on the way.
    ///
    /// # Errors
    /// The store cannot be read, a record was altered or cannot be decoded.
    pub async fn load(store: &dyn Store, run: &str) -> Result<Self, RunError> {
        let (send, receive) = std::sync::mpsc::channel::<Vec<Sealed>>();
        // Decoding on a thread of its own, while the store reads the next page.
        let reader = std::thread::spawn(move || -> Result<Self, RunError> {
            let (mut chain, mut replay) = (Chain::default(), Self::default());
            for sealed in receive.into_iter().flatten() {
                chain
                    .follow(&sealed)
                    .map_err(|b| RunError::new(codes::JOURNAL, format!("record {}: {}", b.seq, b.why)))?;
                replay.add(sealed)?;
            }
            Ok(replay)
        });
        let mut after = 0;
        loop {
            let page = store.page(run, after).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            if send.send(page).is_err() {
                // The reader has found something wrong; it says what.
                break;
            }
        }
        drop(send);
        reader
            .join()
            .unwrap_or_else(|_| Err(RunError::new(codes::INTERNAL, "the journal could not be decoded")))
    }

    fn add(&mut self, sealed: Sealed) -> Result<(), RunError> {
        // Only effects are answered; decoding the rest would be wasted.
        if !sealed.body.starts_with("{\"intent\":") && !sealed.body.starts_with("{\"outcome\":") {
            return Ok(());
        }
        let entry = serde_json::from_str(&sealed.body).map_err(|e| {
            RunError::new(codes::JOURNAL, format!("record {} cannot be read: {e}", sealed.seq))
        })?;
        let effects = self.effects.get_mut().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Entry::Intent { kind, effect, print, input, .. } => {
                effects.insert(sealed.id, Recorded { kind, effect, print, input, outcome: None });
            }
            Entry::Outcome { kind, effect, print, input, attempts, elapsed_ms, result, .. } => {
                let outcome = Some((result, attempts, elapsed_ms));
                match effects.get_mut(&sealed.id) {
                    Some(recorded) => recorded.outcome = outcome,
                    None => {
                        let input = input.unwrap_or_default();
                        effects.insert(sealed.id, Recorded { kind, effect, print, input, outcome });
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether nothing is recorded, or all of it has been answered.
    pub fn is_empty(&self) -> bool {
        self.effects().is_empty()
    }

    fn effects(&self) -> MutexGuard<'_, HashMap<String, Recorded>> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is recorded of the effect of that id, which must be the same one. An id is asked for once in a run.
    ///
    /// # Errors
    /// `diverged`, showing both sides.
    pub(crate) fn take(
        &self,
        id: &str,
        kind: Kind,
        effect: &str,
        print: &str,
        input: &str,
    ) -> Result<Option<Recorded>, RunError> {
        let Some(recorded) = self.effects().remove(id) else { return Ok(None) };
        if recorded.kind == kind && recorded.effect == effect && recorded.print == print {
            return Ok(Some(recorded));
        }
        let side = |effect: &str, input: &str| {
            if input.is_empty() { effect.to_owned() } else { format!("{effect} {input}") }
        };
        let message = format!("the script does something else at {id} than the journal says");
        Err(RunError::new(codes::DIVERGED, message)
            .hint(format!("journal: {}", side(&recorded.effect, &recorded.input)))
            .hint(format!("script:  {}", side(effect, input)))
            .hint("a script must do the same between effects each time it runs: no input but parameters and effects"))
    }
}
