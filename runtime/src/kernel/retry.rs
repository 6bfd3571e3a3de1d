//! Deadlines and further tries.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::AssertUnwindSafe,
    time::Duration,
};

use futures_util::FutureExt as _;

use super::{Call, Kernel};
use crate::{
    effect::Limits,
    error::{RunError, codes},
    event::Event,
    executor::defect,
    provider::{ProviderError, Retry},
    quantity::Span,
};

/// When work may be broken off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    /// As soon as the run is told to stop: it only looks or waits.
    AtOnce,
    /// When it is done: breaking it off would leave something half done. Where the part of the script around it took too long, it is
    /// told to end itself.
    WhenDone,
}

/// Work that did not succeed, and how often it was tried.
pub(super) struct GaveUp {
    pub(super) error: RunError,
    pub(super) attempts: u32,
}

/// How long work may take to end itself when everything is broken off.
const LAST_GRACE: Duration = Duration::from_secs(2);

impl Kernel {
    /// Tries `work` until it succeeds, fails for good, or the tries are used up.
    pub(super) async fn attempt<T>(
        &self,
        call: &Call,
        limits: &Limits,
        interruption: Interruption,
        mut work: impl AsyncFnMut() -> Result<T, ProviderError>,
    ) -> Result<(T, u32), GaveUp> {
        let mut attempt = 1;
        let began = self.shared.clock.monotonic();
        let left = || {
            let taken = self.shared.clock.monotonic().saturating_sub(began);
            limits.total.map_or(Duration::MAX, |total| total.saturating_sub(taken))
        };
        loop {
            let timed = Limits { timeout: limits.timeout.min(left()), ..*limits };
            let error = match self.once(call, &timed, interruption, work()).await {
                Ok(value) => return Ok((value, attempt)),
                Err(error) => error,
            };
            let wait = match error.retry {
                Retry::Safe { after } if attempt < limits.attempts => {
                    Some(backoff(limits, attempt, &call.id).max(after.unwrap_or_default()))
                }
                _ => None,
            };
            let wait = match wait {
                Some(wait) if wait < left() => wait,
                _ => {
                    let mut error = RunError::from(error);
                    if attempt > 1 {
                        error.message = format!("{} (tried {attempt} times)", error.message);
                        error.tried = Some(attempt);
                    }
                    error.effect = Some(call.id.clone());
                    return Err(GaveUp { error, attempts: attempt });
                }
            };
            self.emit(Event::Retrying {
                id: call.id.clone(),
                attempt,
                attempts: limits.attempts,
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                error: error.into(),
            });
            tokio::select! {
                biased;
                error = self.broken_off(call) => return Err(GaveUp { error, attempts: attempt }),
                () = self.shared.clock.sleep(wait) => {}
            }
            // Somebody else may have taken the run over meanwhile. A runner that cannot find out whether it has sends nothing more.
            if interruption == Interruption::WhenDone
                && let Err(error) = self.journal.hold().await
            {
                return Err(GaveUp { error, attempts: attempt });
            }
            attempt += 1;
        }
    }

    /// Completes when a wait must not go on: the run is told to stop, or to end itself, or has taken too long.
    pub(super) async fn broken_off(&self, call: &Call) -> RunError {
        let late = async {
            match self.life.budget.time_left() {
                Some(left) => self.shared.clock.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => self.why_stopped(),
            () = self.life.stop.aborted() => self.why_stopped(),
            () = late => self.life.budget.out_of_time(),
        }
    }

    /// The error of work that broke itself off: it tells that it was stopped, and not whether the run is paused, undone, or goes on
    /// without this part of the script.
    fn broken_off_by(&self, call: &Call, error: ProviderError) -> ProviderError {
        if error.code.as_str() != codes::CANCELLED || !call.on().cancelled().is_cancelled() {
            return error;
        }
        let why = self.why_stopped();
        if why.is(codes::CANCELLED) { error } else { why.into() }
    }

    /// One try, with its deadline.
    async fn once<T>(
        &self,
        call: &Call,
        limits: &Limits,
        interruption: Interruption,
        work: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        // Should a provider panic, its change may have been made all the same: that is for the caller to find out.
        let work = AssertUnwindSafe(work)
            .catch_unwind()
            .map(|done| done.unwrap_or_else(|panic| Err(defect(&*panic).into())));
        let stopped = async {
            call.cancel.cancelled().await;
            if interruption == Interruption::WhenDone {
                if !self.is_late() {
                    return std::future::pending().await;
                }
                call.end.cancel();
                self.shared.clock.sleep(limits.stop_grace).await;
            }
        };
        let broken_off = async {
            self.life.stop.aborted().await;
            if interruption == Interruption::WhenDone {
                call.end.cancel();
                self.shared.clock.sleep(LAST_GRACE).await;
            }
        };
        let timeout = limits.timeout;
        tokio::select! {
            biased;
            result = work => result.map_err(|error| self.broken_off_by(call, error)),
            () = stopped => Err(self.why_stopped().into()),
            () = broken_off => Err(self.why_stopped().into()),
            () = self.shared.clock.sleep(timeout) => {
                Err(ProviderError::terminal(codes::TIMEOUT, format!("{} did not end within {}", call.effect, Span(timeout))))
            }
        }
    }
}

/// Exponential, with jitter between half and the whole. The jitter follows from the effect's id, so that it is the same in each
/// simulation and differs between effects that failed together.
fn backoff(limits: &Limits, attempt: u32, id: &str) -> Duration {
    let doubled = limits.backoff.saturating_mul(1 << (attempt - 1).min(16)).min(limits.backoff_max);
    let mut hash = DefaultHasher::new();
    (id, attempt).hash(&mut hash);
    let share = 0.5 + (hash.finish() >> 11) as f64 / (1u64 << 54) as f64;
    doubled.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound_with_jitter_between_half_and_whole() {
        let limits = Limits {
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(1),
            ..Limits::default()
        };
        for (attempt, whole) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
            for id in ["a", "b", "c"] {
                let wait = backoff(&limits, attempt, id);
                let whole = Duration::from_millis(whole);
                assert!(wait >= whole / 2 && wait <= whole, "{attempt}: {wait:?}");
            }
        }
        assert_ne!(backoff(&limits, 1, "a"), backoff(&limits, 1, "b"));
    }
}
