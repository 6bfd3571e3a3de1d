//! What a runbook says must hold, kept for whoever asks once a rehearsed run is over.

use rhai::{Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext};

use super::{Closure, Session, lock};
use crate::{
    kernel::cursor,
    script::{
        convert::kind,
        error::{describe, innermost, thrown},
    },
};

/// Something that a runbook says must hold.
pub(crate) struct ScriptInvariant {
    pub(crate) text: String,
    closure: Closure,
    /// How many moves there had been when it was made.
    pub(crate) since: usize,
}

/// Whether an invariant holds.
pub(crate) enum Holds {
    Yes,
    /// No, and what is the case instead.
    No(String),
    /// What it looks at is not known yet.
    Unknown(String),
}

impl ScriptInvariant {
    /// Whether it holds for states as scripts see them.
    pub(crate) fn holds(&self, engine: &Engine, world: Dynamic) -> Holds {
        #[expect(deprecated, reason = "see `Closure::context`")]
        let cx = self.closure.context.create_context(engine);
        match self.closure.body.call_within_context::<Dynamic>(&cx, (world,)) {
            Ok(value) => match value.as_bool() {
                Ok(true) => Holds::Yes,
                Ok(false) => Holds::No("it returned false".to_owned()),
                Err(_) => Holds::No(format!("it returned {}, not true or false", kind(&value))),
            },
            Err(error) => match innermost(&error) {
                EvalAltResult::ErrorPropertyNotFound(name, _) => {
                    Holds::Unknown(format!("it was never evaluated: there is no known state of `{name}`"))
                }
                other => Holds::No(thrown(&error).unwrap_or_else(|| describe(other)).message),
            },
        }
    }
}

impl Session {
    /// Keeps an invariant, where somebody will ask for it.
    pub(crate) fn keep_invariant(&self, cx: &NativeCallContext<'_>, text: &str, body: FnPtr) {
        let id = cursor::next("invariant");
        let Some(since) = self.kernel.invariant_since(&id) else { return };
        let invariant = ScriptInvariant { text: text.to_owned(), closure: Closure::new(cx, body), since };
        lock(&self.invariants).push(invariant);
    }

    /// Gives away what the script says must hold. From now on it may perform no effect: an invariant only looks.
    pub(crate) fn take_invariants(&self) -> Vec<ScriptInvariant> {
        let invariants = std::mem::take(&mut *lock(&self.invariants));
        if !invariants.is_empty() {
            self.kernel.life.forbid_effects();
        }
        invariants
    }
}
