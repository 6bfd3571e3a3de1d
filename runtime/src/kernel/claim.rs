//! What a runbook says must hold, asked after a rehearsed run has taken its course.

use std::sync::atomic::Ordering;

use rhai::{Engine, FnPtr};

use super::{Kernel, lock};
use crate::rehearsal::{Claim, Held, Holds, RehearsedWorld, Violation, view};

impl Kernel {
    /// Keeps a claim, where somebody will ask for it.
    #[expect(
        deprecated,
        reason = "the only way to keep a call's context for later; volatile, not deprecated"
    )]
    pub(crate) fn claim(
        &self,
        id: &str,
        text: &str,
        body: FnPtr,
        context: impl FnOnce() -> Box<rhai::NativeCallContextStore>,
    ) {
        let Some(world) = self.world.rehearsed() else { return };
        let since = world.claimed(id);
        lock(&self.state.claims).push(Claim { text: text.to_owned(), body, context: context(), since });
    }

    /// The claims that did not hold at some moment, each with the first of them. `strictly`: one that could never be asked, because what
    /// it looks at never came to be known, counts as well.
    pub(crate) fn broken_claims(
        &self,
        engine: &Engine,
        world: &RehearsedWorld,
        strictly: bool,
    ) -> Vec<Violation> {
        let claims = std::mem::take(&mut *lock(&self.state.claims));
        if claims.is_empty() {
            return Vec::new();
        }
        self.state.judging.store(true, Ordering::Relaxed);
        let held = world.outside.held();
        claims.into_iter().filter_map(|claim| broken(&claim, engine, &held, strictly)).collect()
    }
}

/// The first moment at which a claim did not hold.
fn broken(claim: &Claim, engine: &Engine, held: &Held, strictly: bool) -> Option<Violation> {
    let violation = |after, why| Some(Violation { invariant: claim.text.clone(), after, why });
    let mut unknown = None;
    let mut moves = 0..;
    let broken = held.review(|moment, states| {
        if moves.next() < Some(claim.since) {
            return None;
        }
        match claim.holds(engine, view(states)) {
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
