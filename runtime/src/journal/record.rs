//! What a journal holds: typed entries, sealed into a hash chain.
//!
//! **Invariant:** what a version of records once wrote, every later version reads. Names of entries and fields are part of that form.
//! Fields may be added if they may be missing; anything else raises [`VERSION`], and the entries of the version before stay readable
//! beside the new ones. `runtime/tests/stored` holds a journal of each version.

use contraflow_provider::effect_id::EffectId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    error::{RunError, codes},
    event::WaitsFor,
    question::Reply,
    target::Target,
    vocabulary::{Doubt, Grade, Kind, LeftOver, NoteLevel, RunOutcome, Undo},
};

/// The version of the records that this program writes.
pub const VERSION: u32 = 1;

/// One thing that was journaled.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A change or an action is about to be applied, or a wait began. Durable before it is applied.
    Intent {
        /// Kind of effect.
        kind: Kind,
        /// Its name, `noun.verb`.
        effect: String,
        /// Fingerprint of its input.
        fingerprint: String,
        /// Its canonical input, as JSON text.
        input: String,
        /// What it changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Target>,
        /// State before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Value>,
        /// State wanted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<Value>,
        /// What it is, for people.
        text: String,
        /// What ends it, if it is a wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        waits_for: Option<WaitsFor>,
    },
    /// An effect ended.
    Outcome {
        /// Kind of effect.
        kind: Kind,
        /// Its name, `noun.verb`.
        effect: String,
        /// Fingerprint of its input.
        fingerprint: String,
        /// Its canonical input as JSON text, where no intent holds it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<String>,
        /// What it changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<Target>,
        /// What it was about, for people, where no intent says so.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        about: String,
        /// How often it was tried.
        attempts: u32,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
        /// What it came to.
        result: Outcome,
    },
    /// A step opened.
    StepStarted {
        /// Its name as the script gives it.
        name: String,
    },
    /// A step closed.
    StepEnded {
        /// Its name as the script gives it.
        name: String,
        /// Whether its body ran to the end.
        ok: bool,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
    /// A person answered.
    Replied {
        /// The answer.
        reply: Reply,
    },
    /// A wait has looked and goes on.
    Checkpoint {
        /// How long it has waited so far, in milliseconds, not counting the time when nobody worked on the run.
        waited_ms: u64,
        /// What it remembers.
        memory: Value,
    },
    /// Nobody knew whether an effect had happened: its intent was there and its outcome was not. What was found out.
    DoubtResolved {
        /// What was found or decided.
        resolution: Doubt,
        /// How, for people.
        text: String,
    },
    /// The script said how to undo something in its own way.
    UndoRegistered {
        /// Where, for people.
        place: String,
    },
    /// The script passed a point of no return: nothing before it is undone.
    NoReturn {
        /// Why.
        why: String,
    },
    /// A guard began to watch.
    GuardStarted {
        /// What it watches, for people.
        watching: Vec<String>,
    },
    /// A guard, a deadline or a failed branch stopped the part of the script with this id.
    ScopeStopped {
        /// Why.
        error: RunError,
    },
    /// A part of the script that could be stopped came to its end.
    ScopeEnded {},
    /// The run stopped and can go on.
    Paused {
        /// Why.
        error: RunError,
    },
    /// A runner took the run over.
    Resumed {
        /// Who, as `user@host`.
        by: String,
        /// The run's epoch from here on.
        epoch: i64,
        /// Whether it is to be rolled back.
        rollback: bool,
    },
    /// The script had something to say.
    Note {
        /// How loud.
        level: NoteLevel,
        /// What.
        text: String,
    },
    /// Undoing began.
    RollbackStarted {
        /// Why.
        error: RunError,
        /// How many things there were to undo.
        entries: usize,
    },
    /// Undoing ended.
    RollbackEnded {
        /// What is still there.
        left: Vec<LeftOver>,
    },
    /// The run ended.
    RunEnded {
        /// How.
        outcome: RunOutcome,
        /// Why, unless it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<RunError>,
        /// How long it took, in milliseconds.
        elapsed_ms: u64,
    },
}

/// What an effect came to, with all that a resumed run needs to answer it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A target was moved and the new state is in effect.
    Changed {
        /// State before.
        from: Value,
        /// State after.
        to: Value,
        /// `from` for people.
        from_text: String,
        /// `to` for people.
        to_text: String,
        /// Whether it can be undone.
        undo: Undo,
    },
    /// The target already was as desired.
    Unchanged {
        /// Its state.
        state: Value,
        /// The state for people.
        text: String,
    },
    /// An action was performed.
    Performed {
        /// Its output.
        value: Value,
        /// What it did, for people.
        text: String,
    },
    /// A read or a wait answered.
    Answered {
        /// The answer.
        value: Value,
        /// What was found, for people.
        text: String,
        /// How sure it is.
        #[serde(default = "observed", skip_serializing_if = "is_observed")]
        grade: Grade,
    },
    /// It failed.
    Failed {
        /// Why.
        error: RunError,
        /// For a change that may have happened all the same: the move that has to be undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        possibly_applied: Option<Moved>,
    },
}

/// A move of a target from one state to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// State before.
    pub from: Value,
    /// State wanted; for a move that failed, where it got to, if somebody looked.
    pub to: Value,
    /// It may be half done in a way that the state does not show: the target may be at `from` and not be as it was.
    #[serde(default, skip_serializing_if = "is_false")]
    pub half_done: bool,
}

impl Moved {
    /// A move that the states show in full.
    pub fn new(from: Value, to: Value) -> Self {
        Self { from, to, half_done: false }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn observed() -> Grade {
    Grade::Observed
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_observed(grade: &Grade) -> bool {
    *grade == Grade::Observed
}

/// A record as it is kept: its body is the JSON text of an [`Entry`], its hash covers it and all before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Place in the run, from 1.
    pub seq: u64,
    /// The version of its form: of the body, and of how it is hashed.
    pub v: u32,
    /// When, in milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: i64,
    /// Id of the effect, step or place.
    pub id: EffectId,
    /// JSON text of the entry.
    pub body: String,
    /// SHA-256 over the hash before and all fields above.
    pub hash: [u8; 32],
}

/// The hash before the first record of a run.
pub const GENESIS: [u8; 32] = [0; 32];

impl Sealed {
    /// Seals an entry behind the record whose hash is `before`.
    pub fn seal(seq: u64, at: Timestamp, id: &EffectId, body: String, before: &[u8; 32]) -> Self {
        let at_ms = at.as_millisecond();
        let hash = chain(before, seq, VERSION, at_ms, id, &body);
        Self { seq, v: VERSION, at_ms, id: id.clone(), body, hash }
    }

    /// Whether it is what was sealed behind `before`.
    pub fn follows(&self, before: &[u8; 32]) -> bool {
        self.hash == chain(before, self.seq, self.v, self.at_ms, &self.id, &self.body)
    }

    /// The record with its entry decoded.
    ///
    /// # Errors
    /// A newer version of Contraflow wrote it, or its body is not an entry.
    pub fn open(&self) -> Result<Record, Unreadable> {
        Ok(Record {
            seq: self.seq,
            v: self.v,
            at: Timestamp::from_millisecond(self.at_ms).unwrap_or_default(),
            id: self.id.clone(),
            entry: decode(self.seq, self.v, &self.body)?,
        })
    }
}

/// Decodes the body of a record.
pub(super) fn decode(seq: u64, v: u32, body: &str) -> Result<Entry, Unreadable> {
    if v > VERSION {
        return Err(Unreadable::Newer { seq, v });
    }
    serde_json::from_str(body).map_err(|why| Unreadable::Malformed { seq, why: why.to_string() })
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A newer version of Contraflow wrote it.
    #[error("record {seq}: {}", newer(*v))]
    Newer {
        /// Its place.
        seq: u64,
        /// Its version.
        v: u32,
    },
    /// Its body is not an entry of its version.
    #[error("record {seq} cannot be read: {why}")]
    Malformed {
        /// Its place.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// What to do about a record of a newer version.
const USE_NEWER: &str = "use the version of Contraflow that wrote it, or a later one";

/// What to do about a chain that does not hold.
const COMPARE: &str = "the store was altered: compare it with a backup";

fn newer(v: u32) -> String {
    format!("a newer version of Contraflow wrote it (records of version {v}; this one reads up to {VERSION})")
}

impl Unreadable {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Newer { .. } => USE_NEWER,
            Self::Malformed { .. } => COMPARE,
        }
    }
}

impl From<Unreadable> for RunError {
    fn from(error: Unreadable) -> Self {
        Self::new(codes::JOURNAL, error.to_string()).hint(error.hint())
    }
}

fn chain(before: &[u8; 32], seq: u64, v: u32, at_ms: i64, id: &str, body: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(seq.to_be_bytes());
    hash.update(v.to_be_bytes());
    hash.update(at_ms.to_be_bytes());
    hash.update((id.len() as u64).to_be_bytes());
    hash.update(id);
    hash.update(body);
    hash.finalize().into()
}

/// A record with its entry decoded.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// Place in the run, from 1.
    pub seq: u64,
    /// The version in which it was written.
    pub v: u32,
    /// When.
    pub at: Timestamp,
    /// Id of the effect, step or place.
    pub id: EffectId,
    /// What.
    pub entry: Entry,
}

/// The first record that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Place where the chain breaks.
    pub seq: u64,
    /// What is wrong there.
    pub why: String,
    /// What to do next.
    pub hint: &'static str,
}

impl From<Broken> for RunError {
    fn from(broken: Broken) -> Self {
        Self::new(codes::JOURNAL, format!("record {}: {}", broken.seq, broken.why)).hint(broken.hint)
    }
}

/// Recomputes a chain, record by record.
#[derive(Debug, Clone)]
pub struct Chain {
    /// Hash of the last record.
    pub head: [u8; 32],
    /// Place of the last record.
    pub seq: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { head: GENESIS, seq: 0 }
    }
}

impl Chain {
    /// Takes the next record.
    ///
    /// # Errors
    /// It was changed, or something before it was removed or put in.
    pub fn follow(&mut self, record: &Sealed) -> Result<(), Broken> {
        let expected = self.seq + 1;
        if record.seq != expected {
            let why = format!("record {expected} is missing; next is {}", record.seq);
            return Err(Broken { seq: expected, why, hint: COMPARE });
        }
        // How a newer version hashes is not known here: what does not match may be whole.
        if record.v > VERSION {
            return Err(Broken { seq: record.seq, why: newer(record.v), hint: USE_NEWER });
        }
        if !record.follows(&self.head) {
            let why = "its hash does not match its content and the records before it".to_owned();
            return Err(Broken { seq: record.seq, why, hint: COMPARE });
        }
        (self.head, self.seq) = (record.hash, record.seq);
        Ok(())
    }
}

/// Recomputes the chain over all records of a run. Answers the last hash.
///
/// # Errors
/// The first record that was changed, removed or put in.
pub fn verify(records: &[Sealed]) -> Result<[u8; 32], Broken> {
    let mut chain = Chain::default();
    records.iter().try_for_each(|record| chain.follow(record))?;
    Ok(chain.head)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Sealed> {
        let mut before = GENESIS;
        (1..=5)
            .map(|seq| {
                let entry = Entry::StepStarted { name: format!("step {seq}") };
                let body = serde_json::to_string(&entry).expect("json");
                let sealed = Sealed::seal(seq, Timestamp::UNIX_EPOCH, &EffectId::from("a"), body, &before);
                before = sealed.hash;
                sealed
            })
            .collect()
    }

    #[test]
    fn an_untouched_chain_verifies() {
        assert!(verify(&records()).is_ok());
    }

    #[test]
    fn any_changed_field_breaks_the_chain_at_its_place() {
        let edits: [fn(&mut Sealed); 5] = [
            |r| r.body.push(' '),
            |r| r.id = "ax".into(),
            |r| r.at_ms += 1,
            |r| r.v -= 1,
            |r| r.hash[0] ^= 1,
        ];
        for edit in edits {
            let mut records = records();
            edit(&mut records[2]);
            assert_eq!(verify(&records).expect_err("broken").seq, 3);
        }
    }

    #[test]
    fn a_record_of_a_newer_version_is_not_taken_for_a_damaged_one() {
        let mut records = records();
        records[2].v = VERSION + 1;
        let broken = verify(&records).expect_err("newer");
        let told = RunError::from(broken);
        assert_eq!(
            told.message,
            "record 3: a newer version of Contraflow wrote it (records of version 2; this one reads up to 1)"
        );
        assert_eq!(told.hints, ["use the version of Contraflow that wrote it, or a later one"]);
        assert_eq!(RunError::from(records[2].open().expect_err("newer")), told);
    }

    #[test]
    fn a_removed_record_is_noticed() {
        let mut records = records();
        records.remove(1);
        assert_eq!(verify(&records).expect_err("broken").seq, 2);
    }
}
