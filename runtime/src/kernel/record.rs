//! What the kernel writes to the journal and tells its listeners of each effect.

use std::time::Duration;

use contraflow_provider::effect_id::EffectId;

use super::{Call, Kernel};
use crate::{
    error::{NextStep, RunError, codes},
    event::{EffectResult, Event, Grade, Kind},
    journal::{
        Entry, Outcome,
        replay::{Ended, Intent, Mark, Recorded},
    },
    target::Target,
    world::{Foresight, Known},
};

/// What the journal says about an effect that the script asks for.
pub(super) enum Past {
    /// Nothing: it is to be performed.
    New,
    /// How it ended.
    Ended(Ended),
    /// It was about to happen; nobody knows whether it did.
    Doubt(Intent),
}

/// A record that is written once, whatever is replayed.
pub(crate) struct Kept {
    /// It was in the journal already.
    pub(crate) replayed: bool,
    /// For how long the run had been worked on then.
    pub(crate) worked: Option<Duration>,
}

impl Kernel {
    /// Adds a record; answers its place. A journal that is full to the brim is written out by whoever fills it.
    pub(crate) fn keep(&self, id: &EffectId, entry: &Entry) -> u64 {
        if self.earlier.replay_only {
            return u64::MAX;
        }
        let added = self.journal.add(self.shared.clock.now(), id, entry);
        if added.full {
            // A failure stays in the journal and stops the run at the next intent, or at its end.
            let _ = self.block_on(self.journal.flush());
        }
        added.seq
    }

    /// As [`Kernel::keep`], unless the journal has it.
    pub(super) fn keep_once(&self, id: &EffectId, mark: Mark, entry: &Entry) -> Kept {
        // Should the journal not be readable, the next effect says so.
        let worked = match self.earlier.replay.is_empty() {
            true => None,
            false => self.earlier.replay.take_mark(id, mark).ok().flatten().map(|(_, worked)| worked),
        };
        if worked.is_none() {
            self.keep(id, entry);
        }
        Kept { replayed: worked.is_some(), worked }
    }

    /// As [`Kernel::keep`], from async code.
    pub(super) async fn keep_async(&self, id: &EffectId, entry: &Entry) -> u64 {
        if self.earlier.replay_only {
            return u64::MAX;
        }
        let added = self.journal.add(self.shared.clock.now(), id, entry);
        if added.full {
            let _ = self.journal.flush().await;
        }
        added.seq
    }

    /// As [`Kernel::keep`], from async code that may be broken off: it only adds. Whoever breaks off a writing loses what is being
    /// written.
    pub(super) fn keep_for_later(&self, id: &EffectId, entry: &Entry) {
        if !self.earlier.replay_only {
            self.journal.add(self.shared.clock.now(), id, entry);
        }
    }

    /// What the journal says about an effect.
    pub(super) fn past(&self, call: &Call) -> Result<Past, RunError> {
        if self.earlier.is_none() {
            // Whether it may begin was asked a moment ago.
            self.earlier.go_live(&self.life.budget)?;
            return Ok(Past::New);
        }
        let recorded =
            self.earlier.replay.take(&call.id, call.kind, call.effect, &call.fingerprint, &call.input)?;
        if let Some(Recorded { intent: Some(intent), .. }) = &recorded {
            let _ = call.place.set(intent.seq);
        }
        match recorded {
            Some(Recorded { outcome: Some(Ended { outcome: Outcome::Failed { .. }, .. }), .. })
                if self.life.is_rolling_back()
                    && !self.earlier.replay_only
                    && self.earlier.replay.left_over()? =>
            {
                Ok(Past::New)
            }
            Some(Recorded { outcome: Some(ended), .. }) => Ok(Past::Ended(ended)),
            Some(Recorded { intent: Some(intent), .. }) if !self.earlier.replay_only => {
                Ok(Past::Doubt(intent))
            }
            _ => {
                self.may_begin()?;
                if self.earlier.replay_only {
                    let text = format!("the journal has no outcome for {}, which the script needs", call.id);
                    return Err(RunError::new(codes::DIVERGED, text)
                        .hint("the run stopped there, or its journal is incomplete"));
                }
                Ok(Past::New)
            }
        }
    }

    /// What a resumed run needs again and cannot get: neither the script nor its rollback can do without.
    pub(super) fn not_resumable(&self, call: &Call, what: &str, error: RunError) -> RunError {
        if self.is_over(&error) {
            return error;
        }
        let message = format!("{what} is no longer available: {}", error.message);
        let resume = NextStep::ResumeRun { run: self.facts.run.to_string() };
        let next = error.next.into_iter().chain([resume]).collect();
        let effect = Some(call.id.clone());
        RunError { effect, hints: error.hints, next, ..RunError::new(codes::NOT_RESUMABLE, message) }
    }

    /// Tells how an effect failed, and keeps it unless it has not ended: what broke off with the run is found out about later.
    pub(super) async fn failed(
        &self,
        call: &Call,
        error: RunError,
        ending: impl FnOnce(Ending) -> Ending,
    ) -> Result<Known, RunError> {
        let error = RunError { effect: Some(call.id.clone()), ..error };
        let outcome = Outcome::Failed { error: error.clone(), possibly_applied: None };
        self.ended(call, ending(Ending::new(outcome, 1))).await;
        Err(error)
    }

    pub(super) fn started(&self, call: &Call, target: Option<&Target>, text: String) {
        if !self.emitter.is_silent() {
            self.emit(Event::EffectStarted {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target: target.cloned(),
                text,
                waits_for: call.waits_for,
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
        if call.cancel.is_cancelled() || self.life.stop.is_aborted() {
            return Err(self.why_stopped());
        }
        if !self.journal.is_kept() {
            return Ok(());
        }
        let new_script = self.earlier.take_new_script();
        if let Some(bundle) = new_script {
            // From here on these are the scripts that the journal follows from.
            self.journal.rebind(&bundle).await?;
        }
        let entry = Entry::Intent {
            kind: call.kind,
            effect: call.effect.to_owned(),
            fingerprint: call.fingerprint.clone(),
            input: call.input.clone(),
            target: target.cloned(),
            from: states.map(|(from, _)| from.clone()),
            to: states.map(|(_, to)| to.clone()),
            text: text.to_owned(),
            waits_for: call.waits_for,
        };
        let added = self.journal.add(self.shared.clock.now(), &call.id, &entry);
        let _ = call.place.set(added.seq);
        self.journal.barrier().await
    }

    /// Records and tells how an effect ended. Answers the place of the record.
    pub(super) async fn ended(&self, call: &Call, ending: Ending) -> u64 {
        self.sketch(call, &ending);
        let Ending { outcome, attempts, grade, target, about, intended, at_least, foresight } = ending;
        let elapsed = if at_least.is_zero() { self.now().saturating_sub(call.started) } else { at_least };
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let told = (!self.emitter.is_silent()).then(|| tell(&outcome, foresight));
        let mut seq = u64::MAX;
        if !self.earlier.replay_only && !leaves_open(call.kind, &outcome) {
            let input = (!intended).then(|| call.input.clone());
            let entry = Entry::Outcome {
                kind: call.kind,
                effect: call.effect.to_owned(),
                fingerprint: call.fingerprint.clone(),
                input,
                target: target.clone(),
                about: if intended { String::new() } else { about.clone() },
                attempts,
                elapsed_ms,
                result: outcome,
            };
            seq = self.keep_async(&call.id, &entry).await;
        }
        if let Some(result) = told {
            self.emit(Event::EffectEnded {
                id: call.id.clone(),
                kind: call.kind,
                effect: call.effect.to_owned(),
                target,
                about,
                waits_for: call.waits_for,
                grade,
                attempts,
                elapsed_ms,
                replayed: false,
                result,
            });
        }
        seq
    }

    /// Tells that an effect was answered from the journal.
    pub(super) fn replayed(
        &self,
        call: &Call,
        target: Option<Target>,
        about: impl FnOnce() -> String,
        Ended { outcome, attempts, elapsed_ms, .. }: &Ended,
    ) {
        if self.emitter.is_silent() {
            return;
        }
        self.emit(Event::EffectEnded {
            id: call.id.clone(),
            kind: call.kind,
            effect: call.effect.to_owned(),
            target,
            about: about(),
            waits_for: call.waits_for,
            grade: Grade::Observed,
            attempts: *attempts,
            elapsed_ms: *elapsed_ms,
            replayed: true,
            result: tell(outcome, Foresight::default()),
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
    pub(super) foresight: Foresight,
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
            foresight: Foresight::default(),
        }
    }
}

/// Whether an effect has not ended although it broke off: the run is paused or was lost, and whoever goes on with it performs the
/// effect or finds out about it. What only looks or waits and was stopped with its part of the script leaves nothing behind.
fn leaves_open(kind: Kind, outcome: &Outcome) -> bool {
    let Outcome::Failed { error, possibly_applied } = outcome else { return false };
    error.is_pause()
        || error.is(codes::LOST)
        || error.is(codes::ABORTED)
        || (error.is(codes::STOPPED) && possibly_applied.is_none() && matches!(kind, Kind::Read | Kind::Wait))
}

fn tell(outcome: &Outcome, foresight: Foresight) -> EffectResult {
    let mut result = EffectResult::from(outcome);
    if let EffectResult::Changed { note, estimate, .. } = &mut result {
        (*note, *estimate) = (foresight.note, foresight.estimate);
    }
    result
}
