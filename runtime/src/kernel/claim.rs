//! What a runbook says must hold, asked after a rehearsed run has taken its course.

use rhai::{Engine, FnPtr};

use super::{Kernel, lock};
use crate::rehearsal::{Claim, RehearsedWorld, Violation, view};

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

    /// The claims that did not hold at some moment, each with the first of them.
    pub(crate) fn broken_claims(&self, engine: &Engine, world: &RehearsedWorld) -> Vec<Violation> {
        let claims = std::mem::take(&mut *lock(&self.state.claims));
        if claims.is_empty() {
            return Vec::new();
        }
        self.state.judging.store(true, std::sync::atomic::Ordering::Relaxed);
        let held = world.outside.held();
        let mut broken = Vec::new();
        for claim in claims {
            for (n, (moment, states)) in held.timeline().enumerate() {
                if n < claim.since {
                    continue;
                }
                if let Err(why) = claim.holds(engine, view(&states)) {
                    let after = moment.map(|moment| moment.id.clone());
                    broken.push(Violation { invariant: claim.text, after, why });
                    break;
                }
            }
        }
        broken
    }
}
