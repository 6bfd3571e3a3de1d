//! Guards: something is watched while a part of the script runs, and stops it when it goes bad.

use std::{sync::Arc, time::Duration};

use rhai::NativeCallContext;
use tokio_util::sync::CancellationToken;

use super::{AnyWait, Call, Kernel, cancel_scope::CancelScope, cursor};
use crate::{
    error::{RunError, codes},
    event::{Event, Kind},
    journal::{Entry, replay::Mark},
    quantity::Span,
    script::ScriptResult,
    world::Known,
};

impl Kernel {
    /// Runs `body` while each of `watches` is polled. One that ends, or fails, stops the body with its error. What each watches is
    /// told by its description.
    pub(crate) fn guard(
        self: &Arc<Self>,
        cx: &NativeCallContext<'_>,
        watches: Vec<Arc<dyn AnyWait>>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        self.stopped().map_err(|error| self.throw(cx, error))?;
        let id = cursor::next("guard");
        let watching: Vec<String> = watches.iter().map(|watch| watch.describe()).collect();
        let entry = Entry::GuardStarted { watching: watching.clone() };
        let replayed = self.keep_once(&id, Mark::GuardStarted, &entry).replayed;
        self.emit(Event::GuardStarted { id: id.clone(), watching, replayed });
        self.within(cx, &id, |scope| {
            let over = CancellationToken::new();
            let _over = over.clone().drop_guard();
            for (n, watch) in watches.into_iter().enumerate() {
                let call = self
                    .call(Kind::Wait, watch.effect(), String::new(), format!("{id}[{n}]"))
                    .map_err(|error| self.throw(cx, error))?;
                self.sketch_needs(|| watch.depends_on());
                if self.is_plan() {
                    self.block_on(self.foresee(&call, &*watch)).map_err(|error| self.throw(cx, error))?;
                } else if !self.replay_only {
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
            body()
        })
    }

    /// Runs `body` for at most `span`, not counting the time when nobody worked on the run.
    pub(crate) fn limited(
        self: &Arc<Self>,
        cx: &NativeCallContext<'_>,
        id: &str,
        what: &str,
        span: Duration,
        begun: Option<Duration>,
        body: impl FnOnce() -> ScriptResult,
    ) -> ScriptResult {
        if self.is_plan() {
            let before = cursor::planned();
            let value = self.guarded(cx, body)?;
            let least = cursor::planned().saturating_sub(before);
            if least <= span {
                return Ok(value);
            }
            let text = format!("{what} takes at least {}, but its timeout is {}", Span(least), Span(span));
            return Err(self.throw(cx, RunError::new(codes::TIMEOUT, text)));
        }
        self.within(cx, id, |scope| {
            let over = CancellationToken::new();
            let _over = over.clone().drop_guard();
            if !self.replay_only {
                let (kernel, scope, over) = (Arc::clone(self), Arc::clone(scope), over.clone());
                let late = RunError::new(codes::TIMEOUT, format!("{what} did not end within {}", Span(span)));
                self.executor.spawn(async move {
                    let work = async {
                        kernel.goes_live().await;
                        let passed = begun
                            .zip(kernel.replay.worked().ok())
                            .map_or(Duration::ZERO, |(begun, worked)| worked.saturating_sub(begun));
                        kernel.shared.clock.sleep(span.saturating_sub(passed)).await;
                    };
                    tokio::select! {
                        () = over.cancelled() => {}
                        () = work => kernel.stop_and_tell(&scope, late),
                    }
                });
            }
            body()
        })
    }

    /// Stops a scope, unless it has ended, and tells so.
    pub(crate) fn stop_and_tell(self: &Arc<Self>, scope: &Arc<CancelScope>, mut error: RunError) {
        self.scrub(&mut error);
        if !self.stop_scope(scope, error) && !self.replay_only && scope.stopped().is_none() {
            let (kernel, scope) = (Arc::clone(self), Arc::clone(scope));
            self.executor.spawn(async move { kernel.stop_when_due(&scope).await });
        }
    }

    /// Completes once effects are no longer answered from the journal only.
    pub(super) async fn goes_live(&self) {
        if !self.replay.is_empty() || self.only_undo.is_some() {
            self.live.cancelled().await;
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
        self.goes_live().await;
        self.world.watch(call.on(), watch).await.into()
    }
}
