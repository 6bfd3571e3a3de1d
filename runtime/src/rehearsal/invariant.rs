//! What must hold at every moment of a rehearsed run.

use rhai::{Dynamic, Engine, EvalAltResult, FnPtr};

use super::simulation::States;
use crate::script::{innermost, thrown};

/// Something that must hold whatever goes wrong, such as that no traffic goes to a pool without capacity.
pub trait Invariant: Send + Sync {
    /// What must hold, in a few words.
    fn name(&self) -> &str;

    /// Looks at the states of all targets that the run has come to, by key: the target's name (`traffic/web`), with `#part` where a
    /// change says of which part of its target a state is.
    ///
    /// # Errors
    /// What does not hold.
    fn holds(&self, states: &States) -> Result<(), String>;
}

/// Something that a runbook says must hold.
pub(crate) struct ScriptInvariant {
    pub(crate) text: String,
    pub(crate) body: FnPtr,
    #[expect(
        deprecated,
        reason = "the only way to keep a call's context for later; volatile, not deprecated"
    )]
    pub(crate) context: Box<rhai::NativeCallContextStore>,
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
        #[expect(deprecated, reason = "see `ScriptInvariant::context`")]
        let cx = self.context.create_context(engine);
        match self.body.call_within_context::<Dynamic>(&cx, (world,)) {
            Ok(value) => match value.as_bool() {
                Ok(true) => Holds::Yes,
                Ok(false) => Holds::No("it returned false".to_owned()),
                Err(kind) => Holds::No(format!("it returned {kind}, not true or false")),
            },
            Err(error) => match innermost(&error) {
                EvalAltResult::ErrorPropertyNotFound(name, _) => {
                    Holds::Unknown(format!("it was never evaluated: there is no known state of `{name}`"))
                }
                other => Holds::No(thrown(&error).map_or_else(|| other.to_string(), |error| error.message)),
            },
        }
    }
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// What must hold.
    pub invariant: String,
    /// The effect after which it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What was the case instead.
    pub why: String,
}
