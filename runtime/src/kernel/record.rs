//! What the kernel writes to the journal and tells its listeners of each effect.

use std::time::Duration;

use super::{Call, Kernel, cancelled};
use crate::{
    error::{RunError, codes},
    event::{EffectResult, Event, Grade},
    journal::{Entry, Outcome, replay::Recorded},
    target::Target,
};

impl Kernel {
    /// Adds a record. A journal that is full to the brim is written out by whoever fills it.
    pub(super) fn keep(&self, id: &str, entry: &Entry) {
        if !self.replay_only && self.journal.add(self.shared.clock.now(), id, entry) {
            // A failure stays in the journal and stops the run at the next intent, or at its end.
            let _ = self.block_on(self.journal.flush());
        }
    }

    /// As [`Kernel::keep`], from async code.
    pub(super) async fn keep_async(&self, id: &str, entry: &Entry) {
        if !self.replay_only && self.journal.add(self.shared.clock.now(), id, entry) {
            let _ = self.journal.flush().await;
        }
    }

    /// The recorded outcome of an effect, if the journal has one.
    pub(super) fn recorded(&self, call: &Call) -> Result<Option<(Outcome, u32, u64)>, RunError> {
        if self.replay.is_empty() && !self.replay_only {
            return Ok(None);
        }
        match self.replay.take(&call.id, call.kind, call.effect, &call.print, &call.input)? {
            Some(Recorded { outcome: Some(outcome), .. }) => Ok(Some(outcome)),
            _ if self.replay_only => Err(RunError::new(
                codes::DIVERGED,
                format!("the journal has no outcome for {}, which the script asks for", call.id),
            )
            .hint("the run stopped there, or its journal is not complete")),
            _ => Ok(None),
        }
    }

    pub(super) fn started(&self, call: &Call, target: Option<&Target>, text: String) {
        if !self.shared.emitter.is_silent() {
            self.emit(Event::EffectStarted {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target: target.cloned(),
                text,
            });
        }
    }

    /// Makes the intent durable. Nothing may be applied unless this succeeds.
    pub(super) async fn intend(
        &self,
        call: &Call,
        target: Option<&Target>,
        states: Option<(&serde_json::Value, &serde_json::Value)>,
        text: &str,
    ) -> Result<(), RunError> {
        // A last safe point: whoever waited for its turn may have been told to stop meanwhile.
        if call.cancel.is_cancelled() || self.abort.is_cancelled() {
            return Err(cancelled());
        }
        if !self.journal.is_kept() {
            return Ok(());
        }
        let entry = Entry::Intent {
            kind: call.kind,
            effect: call.effect.to_owned(),
            print: call.print.clone(),
            input: call.input.clone(),
            target: target.cloned(),
            from: states.map(|(from, _)| from.clone()),
            to: states.map(|(_, to)| to.clone()),
            text: text.to_owned(),
        };
        self.journal.add(self.shared.clock.now(), &call.id, &entry);
        self.journal.barrier().await
    }

    /// Records and tells how an effect ended.
    pub(super) async fn ended(&self, call: &Call, ending: Ending) {
        let Ending { outcome, attempts, grade, target, about, intended, at_least, note } = ending;
        let elapsed = if at_least.is_zero() { self.now().saturating_sub(call.started) } else { at_least };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let told = (!self.shared.emitter.is_silent()).then(|| tell(&outcome, note));
        if self.journal.is_kept() && !self.replay_only {
            let input = (!intended).then(|| call.input.clone());
            let entry = Entry::Outcome {
                kind: call.kind,
                effect: call.effect.to_owned(),
                print: call.print.clone(),
                input,
                target: target.clone(),
                about: if intended { String::new() } else { about.clone() },
                attempts,
                elapsed_ms,
                result: outcome,
            };
            self.keep_async(&call.id, &entry).await;
        }
        if let Some(result) = told {
            self.emit(Event::EffectEnded {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target,
                about,
                grade,
                attempts,
                elapsed_ms,
                replayed: false,
                result,
            });
        }
    }

    /// Tells that an effect was answered from the journal.
    pub(super) fn replayed(
        &self,
        call: &Call,
        target: Option<Target>,
        about: impl FnOnce() -> String,
        outcome: &Outcome,
        attempts: u32,
        elapsed_ms: u64,
    ) {
        if self.shared.emitter.is_silent() {
            return;
        }
        self.emit(Event::EffectEnded {
            id: call.id.clone(),
            kind: call.kind,
            effect: call.effect.to_owned(),
            target,
            about: about(),
            grade: Grade::Observed,
            attempts,
            elapsed_ms,
            replayed: true,
            result: tell(outcome, None),
        });
    }
}

/// How an effect ended, for the journal and for events.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) attempts: u32,
    pub(super) grade: Grade,
    pub(super) target: Option<Target>,
    pub(super) about: String,
    /// Whether an intent holds the input already.
    pub(super) intended: bool,
    pub(super) at_least: Duration,
    pub(super) note: Option<String>,
}

impl Ending {
    pub(super) fn new(outcome: Outcome, attempts: u32) -> Self {
        Self {
            outcome,
            attempts,
            grade: Grade::Observed,
            target: None,
            about: String::new(),
            intended: false,
            at_least: Duration::ZERO,
            note: None,
        }
    }
}

fn tell(outcome: &Outcome, foreseen: Option<String>) -> EffectResult {
    let mut result = EffectResult::from(outcome.clone());
    if let EffectResult::Changed { note, .. } = &mut result {
        *note = foreseen;
    }
    result
}
