//! Answers of effects from the journal of a run.

use std::collections::HashMap;

use super::record::{Entry, Outcome, Sealed};
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
    effects: HashMap<String, Recorded>,
}

impl Replay {
    /// Reads the records of a run.
    ///
    /// # Errors
    /// A record that cannot be decoded.
    pub fn from_records(records: &[Sealed]) -> Result<Self, RunError> {
        let mut effects: HashMap<String, Recorded> = HashMap::with_capacity(records.len());
        for sealed in records {
            // Only effects are answered; decoding the rest would be wasted.
            if !sealed.body.starts_with("{\"intent\":") && !sealed.body.starts_with("{\"outcome\":") {
                continue;
            }
            let entry = serde_json::from_str(&sealed.body).map_err(|e| {
                RunError::new(codes::JOURNAL, format!("record {} cannot be read: {e}", sealed.seq))
            })?;
            match entry {
                Entry::Intent { kind, effect, print, input, .. } => {
                    effects.insert(sealed.id.clone(), Recorded { kind, effect, print, input, outcome: None });
                }
                Entry::Outcome { kind, effect, print, input, attempts, elapsed_ms, result, .. } => {
                    let outcome = Some((result, attempts, elapsed_ms));
                    match effects.get_mut(&sealed.id) {
                        Some(recorded) => recorded.outcome = outcome,
                        None => {
                            let input = input.unwrap_or_default();
                            effects
                                .insert(sealed.id.clone(), Recorded { kind, effect, print, input, outcome });
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(Self { effects })
    }

    /// How many effects there are.
    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// The effect of that id, which must be the same one.
    ///
    /// # Errors
    /// `diverged`, showing both sides.
    pub(crate) fn find(
        &self,
        id: &str,
        kind: Kind,
        effect: &str,
        print: &str,
        input: &str,
    ) -> Result<Option<&Recorded>, RunError> {
        let Some(recorded) = self.effects.get(id) else { return Ok(None) };
        if recorded.kind == kind && recorded.effect == effect && recorded.print == print {
            return Ok(Some(recorded));
        }
        let side = |effect: &str, input: &str| {
            if input.is_empty() { effect.to_owned() } else { format!("{effect} {input}") }
        };
        Err(RunError::new(codes::DIVERGED, format!("the script does something else at {id} than the journal says"))
            .hint(format!("journal: {}", side(&recorded.effect, &recorded.input)))
            .hint(format!("script:  {}", side(effect, input)))
            .hint("a script must do the same between effects each time it runs: no input but parameters and effects"))
    }
}
