//! What must hold at every moment of a rehearsed run.

use contraflow_provider::effect_id::EffectId;
use rhai::Engine;

use super::{
    initial_state::view,
    simulation::{Simulated, States},
};
use crate::script::{Holds, ScriptInvariant};

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

/// The invariants of the script that did not hold at some moment, each with the first of them. `strictly`: one that could never be
/// asked, because what it looks at never came to be known, counts as well.
pub(super) fn broken(
    invariants: Vec<ScriptInvariant>,
    engine: &Engine,
    simulated: &Simulated,
    strictly: bool,
) -> Vec<Violation> {
    invariants
        .into_iter()
        .filter_map(|invariant| first_broken(&invariant, engine, simulated, strictly))
        .collect()
}

/// The first moment at which an invariant did not hold.
fn first_broken(
    invariant: &ScriptInvariant,
    engine: &Engine,
    simulated: &Simulated,
    strictly: bool,
) -> Option<Violation> {
    let violation = |after, why| Some(Violation { invariant: invariant.text.clone(), after, why });
    let mut unknown = None;
    let mut moves = 0..;
    let broken = simulated.review(|moment, states| {
        if moves.next() < Some(invariant.since) {
            return None;
        }
        match invariant.holds(engine, view(states)) {
            Holds::Yes => unknown = Some(String::new()),
            Holds::No(why) => return violation(moment.map(|moment| moment.id.clone()), why),
            Holds::Unknown(why) => {
                unknown.get_or_insert(why);
            }
        }
        None
    });
    if broken.is_some() {
        return broken;
    }
    unknown.filter(|why| strictly && !why.is_empty()).and_then(|why| violation(None, why))
}

/// Something that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// What must hold.
    pub invariant: String,
    /// The effect after which it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<EffectId>,
    /// What was the case instead.
    pub why: String,
}
