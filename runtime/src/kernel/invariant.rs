//! What a runbook says must hold, asked after a rehearsed run is over.

use std::sync::atomic::Ordering;

use rhai::{Engine, FnPtr};

use super::{Kernel, lock};
use crate::rehearsal::{Holds, RehearsedWorld, ScriptInvariant, Simulated, Violation, view};

impl Kernel {
    /// Keeps an invariant, where somebody will ask for it.
    #[expect(
        deprecated,
        reason = "the only way to keep a call's context for later; volatile, not deprecated"
    )]
    pub(crate) fn keep_invariant(
        &self,
        id: &str,
        text: &str,
        body: FnPtr,
        context: impl FnOnce() -> Box<rhai::NativeCallContextStore>,
    ) {
        let Some(world) = self.world.rehearsed() else { return };
        let since = world.invariant_since(id);
        lock(&self.state.script_invariants).push(ScriptInvariant {
            text: text.to_owned(),
            body,
            context: context(),
            since,
        });
    }

    /// The invariants of the script that did not hold at some moment, each with the first of them. `strictly`: one that could never be asked, because what
    /// it looks at never came to be known, counts as well.
    pub(crate) fn broken_invariants(
        &self,
        engine: &Engine,
        world: &RehearsedWorld,
        strictly: bool,
    ) -> Vec<Violation> {
        let script_invariants = std::mem::take(&mut *lock(&self.state.script_invariants));
        if script_invariants.is_empty() {
            return Vec::new();
        }
        self.state.checking_invariants.store(true, Ordering::Relaxed);
        let simulated = world.simulation.state();
        script_invariants
            .into_iter()
            .filter_map(|invariant| broken(&invariant, engine, &simulated, strictly))
            .collect()
    }
}

/// The first moment at which an invariant did not hold.
fn broken(
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
