//! Errors that end an effect, a step or a run, and the codes they carry.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    effect_id::EffectId,
    provider::{ProviderError, Retry},
};

/// A stable name of one kind of error, such as `probe-failed`. Each has a page in the documentation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Code(Cow<'static, str>);

impl Code {
    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Code {
    fn from(code: &'static str) -> Self {
        Self(Cow::Borrowed(code))
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)+) => {
        /// The codes of the runtime. Libraries of primitives add their own.
        pub mod codes {
            $($(#[$doc])* pub const $name: &str = $text;)+

            /// All of them, for documentation.
            pub const ALL: &[&str] = &[$($text),+];
        }
    };
}

codes! {
    /// The script does not parse.
    SYNTAX = "syntax";
    /// A name in the script means nothing, or not what its arguments need.
    UNKNOWN_FUNCTION = "unknown-function";
    /// A variable that is not defined.
    UNKNOWN_VARIABLE = "unknown-variable";
    /// One name stands for two things.
    AMBIGUOUS_NAME = "ambiguous-name";
    /// A closure takes a loop variable that will have moved on when it runs.
    LOOP_CAPTURE = "loop-capture";
    /// The header `const RUNBOOK` is missing something or has something it should not.
    HEADER = "header";
    /// An import that cannot be loaded.
    IMPORT = "import";
    /// A parameter that is missing, unknown or of the wrong type.
    PARAMETER = "parameter";
    /// An argument or option of a primitive that cannot be used.
    ARGUMENT = "argument";
    /// A script error of Rhai's own: a wrong type, an index out of bounds.
    SCRIPT = "script";
    /// The script itself called `fail` or threw.
    FAILED = "failed";
    /// A limit on operations, memory, depth or time was reached.
    LIMIT = "limit";
    /// A name that no target of the environment has.
    UNKNOWN_TARGET = "unknown-target";
    /// A provider that could not be reached.
    UNREACHABLE = "unreachable";
    /// A provider that answered, but not with what was asked for.
    PROVIDER = "provider";
    /// An effect that took longer than its deadline.
    TIMEOUT = "timeout";
    /// A change that was applied but did not come into effect.
    NOT_SETTLED = "not-settled";
    /// A policy refused the effect.
    DENIED_BY_POLICY = "denied-by-policy";
    /// A person said no.
    DENIED = "denied";
    /// A question that nobody is there to answer.
    NO_ANSWER = "no-answer";
    /// The run was told to stop.
    CANCELLED = "cancelled";
    /// The run was told to pause: it can go on later.
    PAUSED = "paused";
    /// A person ended the run; its changes stay.
    ABORTED = "aborted";
    /// Another runner has taken the run over.
    LOST = "lost";
    /// A part of the script was told to stop: by a guard, a deadline or a branch that failed.
    STOPPED = "stopped";
    /// What a guard watches went bad.
    GUARD_BREACHED = "guard-breached";
    /// Another run has the target for itself.
    LOCKED = "locked";
    /// Nobody knows whether an effect happened, and a person has to decide.
    IN_DOUBT = "in-doubt";
    /// The run cannot be resumed or rolled back the way it stands.
    NOT_RESUMABLE = "not-resumable";
    /// The script, run again, did not do what the journal says it did.
    DIVERGED = "diverged";
    /// The journal could not be written or read.
    JOURNAL = "journal";
    /// A secret that does not exist or cannot be used this way.
    SECRET = "secret";
    /// A plan needs a value that only a real run can produce.
    UNKNOWN_IN_PLAN = "unknown-in-plan";
    /// A saved plan that cannot be used: altered, expired, used up, or no longer true.
    SAVED_PLAN = "saved-plan";
    /// Something that is not in the plan of the run, about which a person has to decide.
    OUTSIDE_PLAN = "outside-plan";
    /// An undo that could not be carried out.
    UNDO_FAILED = "undo-failed";
    /// A defect of Contraflow itself.
    INTERNAL = "internal";
}

/// One place in a script on the way to an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What stands there: `traffic::shift`, `step "migrate"`.
    pub what: String,
    /// Path of the script, as in its bundle.
    pub source: String,
    /// Line, from 1. 0 where it is not known.
    pub line: usize,
    /// Column, from 1. 0 where it is not known.
    pub column: usize,
}

/// Something that can be done next, as data: a program says how, such as with the command that does it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum NextStep {
    /// See how a run stands.
    ShowRun {
        /// The run.
        run: String,
    },
    /// Resume a crashed or paused run.
    ResumeRun {
        /// The run.
        run: String,
    },
    /// Roll back a run.
    RollBackRun {
        /// The run.
        run: String,
    },
    /// Abort a run that somebody works on.
    AbortRun {
        /// The run.
        run: String,
    },
    /// Resume, roll back or abandon a run that nobody works on.
    RecoverRun {
        /// The run.
        run: String,
    },
    /// List the runs.
    ListRuns,
    /// Answer a question of a run.
    Answer {
        /// The run.
        run: String,
        /// Id of the question.
        question: EffectId,
        /// The answers there are, besides yes and no.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        choices: Vec<String>,
    },
    /// Let others answer the questions of the run.
    LetOthersAnswer,
    /// Approve the saved plan.
    ApprovePlan,
    /// Make a new plan and save it.
    MakePlan,
    /// Write down what the targets look like now, for rehearsals.
    TakeSnapshot,
    /// Create or update the tables of the store.
    MigrateStore,
}

/// Why an effect, a step or a run did not succeed.
///
/// The message is a lowercase fragment. It is worded once, here; reporters only lay it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// What kind of error.
    pub code: Code,
    /// What happened.
    pub message: String,
    /// What the message begins with that the effect's description says as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Id of the effect that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<EffectId>,
    /// Where in the script, innermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// What to do next, most useful first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// The same as data, where a program can say how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<NextStep>,
    /// How often it was tried, where the message says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<u32>,
    /// Structured facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl RunError {
    /// An error without a place yet.
    pub fn new(code: impl Into<Code>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            subject: None,
            effect: None,
            frames: Vec::new(),
            hints: Vec::new(),
            next: Vec::new(),
            tried: None,
            detail: None,
        }
    }

    /// The message without what the effect's description says.
    pub fn reason(&self) -> &str {
        let subject = self.subject.as_deref();
        let reason = subject.and_then(|subject| self.message.strip_prefix(subject)?.strip_prefix(": "));
        reason.unwrap_or(&self.message)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds what to do next, as data.
    #[must_use]
    pub fn next_step(mut self, step: NextStep) -> Self {
        self.next.push(step);
        self
    }

    /// Adds a place.
    #[must_use]
    pub fn at(
        mut self,
        what: impl Into<String>,
        source: impl Into<String>,
        line: usize,
        column: usize,
    ) -> Self {
        self.frames.push(Frame { what: what.into(), source: source.into(), line, column });
        self
    }

    /// Whether it is of that kind.
    pub fn is(&self, code: &str) -> bool {
        self.code.as_str() == code
    }

    /// Whether the run stops here without an end, and can go on later.
    pub fn is_pause(&self) -> bool {
        [
            codes::PAUSED,
            codes::DIVERGED,
            codes::JOURNAL,
            codes::IN_DOUBT,
            codes::OUTSIDE_PLAN,
            codes::NOT_RESUMABLE,
        ]
        .contains(&self.code.as_str())
    }

    /// Whether a script may catch it. What stops a run from outside cannot be caught.
    pub fn is_catchable(&self) -> bool {
        ![
            codes::CANCELLED,
            codes::PAUSED,
            codes::ABORTED,
            codes::LOST,
            codes::STOPPED,
            codes::IN_DOUBT,
            codes::OUTSIDE_PLAN,
            codes::DIVERGED,
            codes::JOURNAL,
            codes::NOT_RESUMABLE,
            codes::LIMIT,
            codes::UNKNOWN_IN_PLAN,
            codes::INTERNAL,
        ]
        .contains(&self.code.as_str())
    }
}

impl From<ProviderError> for RunError {
    fn from(error: ProviderError) -> Self {
        let ProviderError { code, message, subject, retry: _, hints, next, detail } = error;
        Self { code, message, subject, effect: None, frames: Vec::new(), hints, next, tried: None, detail }
    }
}

impl From<RunError> for ProviderError {
    fn from(error: RunError) -> Self {
        let RunError { code, message, subject, hints, next, detail, .. } = error;
        Self { code, message, subject, retry: Retry::Never, hints, next, detail }
    }
}

/// The name among `known` that `wrong` was probably meant to be.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
