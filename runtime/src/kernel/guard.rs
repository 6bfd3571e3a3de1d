//! Guards: something is watched while a part of the script runs, and stops it when it goes bad.

use std::{sync::Arc, time::Duration};

use contraflow_provider::effect_id::EffectId;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Call, Kernel, cancel_scope::CancelScope, cursor};
use crate::{
    effect::AnyWait,
    error::{RunError, codes},
    event::{Event, Kind},
    journal::{Entry, replay::Mark},
    quantity::Span,
    world::Known,
};

impl Kernel {
    /// Begins a guard. What each of `watches` looks at is told by its description.
    pub(crate) fn begin_guard(&self, watches: &[Arc<dyn AnyWait>]) -> Result<EffectId, RunError> {
        self.stopped()?;
        let id = cursor::next(EffectId::GUARD);
        let watching: Vec<String> = watches.iter().map(|watch| watch.describe()).collect();
        let entry = Entry::GuardStarted { watching: watching.clone() };
        let replayed = self.keep_once(&id, Mark::GuardStarted, &entry).replayed;
        self.emit(Event::GuardStarted { id: id.clone(), watching, replayed });
        Ok(id)
    }

    /// Polls each of `watches` until what is answered is dropped. One that ends, or fails, stops `scope` with its error.
    pub(crate) fn watch_over(
        self: &Arc<Self>,
        scope: &Arc<CancelScope>,
        id: &EffectId,
        watches: Vec<Arc<dyn AnyWait>>,
    ) -> Result<DropGuard, RunError> {
        let over = CancellationToken::new();
        let watching = over.clone().drop_guard();
        for (n, watch) in watches.into_iter().enumerate() {
            let call = self.call(Kind::Wait, watch.effect(), String::new(), id.branch(n))?;
            self.sketch_needs(|| watch.depends_on());
            if self.sums_up_time() {
                self.block_on(self.foresee(&call, &*watch))?;
            } else if !self.earlier.replay_only {
                let (kernel, scope, over) = (Arc::clone(self), Arc::clone(scope), over.clone());
                self.executor.spawn(async move {
                    tokio::select! {
                        () = over.cancelled() => {}
                        error = kernel.watch(&call, &*watch) => {
                            kernel.stop_and_tell(&scope, error);
                        }
                    }
                });
            }
        }
        Ok(watching)
    }

    /// The error of what takes at least `least` and may take `span`.
    pub(crate) fn too_long(&self, what: &str, least: Duration, span: Duration) -> Option<RunError> {
        (least > span).then(|| {
            let text = format!("{what} takes at least {}, but its timeout is {}", Span(least), Span(span));
            RunError::new(codes::TIMEOUT, text)
        })
    }

    /// Stops `scope` after `span`, unless what is answered is dropped before. The time when nobody worked on the run does not count;
    /// `begun`: for how long it had been worked on when what is limited began.
    pub(crate) fn limit_time(
        self: &Arc<Self>,
        scope: &Arc<CancelScope>,
        what: &str,
        span: Duration,
        begun: Option<Duration>,
    ) -> DropGuard {
        let over = CancellationToken::new();
        if !self.earlier.replay_only {
            let (kernel, scope, over) = (Arc::clone(self), Arc::clone(scope), over.clone());
            let late = RunError::new(codes::TIMEOUT, format!("{what} did not end within {}", Span(span)));
            self.executor.spawn(async move {
                let work = async {
                    kernel.earlier.goes_live().await;
                    let passed = begun
                        .zip(kernel.earlier.replay.worked().ok())
                        .map_or(Duration::ZERO, |(begun, worked)| worked.saturating_sub(begun));
                    kernel.shared.clock.sleep(span.saturating_sub(passed)).await;
                };
                tokio::select! {
                    () = over.cancelled() => {}
                    () = work => {
                        scope.is_late();
                        kernel.stop_and_tell(&scope, late);
                    }
                }
            });
        }
        over.drop_guard()
    }

    /// Stops a scope, unless it has ended, and tells so.
    pub(crate) fn stop_and_tell(self: &Arc<Self>, scope: &Arc<CancelScope>, mut error: RunError) {
        self.scrub(&mut error);
        if !self.stop_scope(scope, error) && !self.earlier.replay_only && scope.stopped().is_none() {
            let (kernel, scope) = (Arc::clone(self), Arc::clone(scope));
            self.executor.spawn(async move { kernel.stop_when_due(&scope).await });
        }
    }

    /// A guard that could not even look is found in the plan.
    async fn foresee(&self, call: &Call, watch: &dyn AnyWait) -> Result<Known, RunError> {
        let nothing = self.waiting(call, Duration::ZERO, None, Vec::new(), false);
        let waited = self.world.wait(call.on(), watch, nothing.as_waiting()).await;
        waited.map(|waited| waited.answer).map_err(RunError::from)
    }

    /// Watches until there is a reason to stop.
    async fn watch(&self, call: &Call, watch: &dyn AnyWait) -> RunError {
        self.earlier.goes_live().await;
        self.world.watch(call.on(), watch).await.into()
    }
}
