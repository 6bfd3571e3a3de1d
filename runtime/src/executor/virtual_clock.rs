//! Time that passes only where something waits for it.
//!
//! **Invariant:** everything of a rehearsed run happens on one thread. Time moves on when nothing else can, to the next moment
//! that something waits for, so that the same scenario takes the same path each time.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::clock::{BoxFuture, Clock};

/// When every rehearsal begins: 2001-01-01T00:00:00Z.
const BEGINNING: i64 = 978_307_200;

/// A clock that is moved by whoever runs the work that waits for it.
#[derive(Default)]
pub(crate) struct VirtualClock {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    /// Moments that somebody waits for, each with a number that tells them apart.
    timers: BTreeSet<(Duration, u64)>,
    numbers: u64,
    /// Work that goes on next to the script.
    tasks: Vec<BoxFuture<'static, ()>>,
    /// Something was waited for that never came.
    stuck: bool,
}

/// How often something that never comes may be waited for: whoever was told so waits for no more than a few things on its way out.
const PATIENCE: u32 = 1000;

impl VirtualClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the time back to a moment: where branches begin that are run one after the other.
    pub(crate) fn set(&self, now: Duration) {
        self.state().now = now;
    }

    /// Work that goes on whenever the script waits.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.state().tasks.push(Box::pin(task));
    }

    /// Forgets all that goes on next to the script: the process that did it has died.
    pub(crate) fn die(&self) {
        let tasks = {
            let mut state = self.state();
            state.timers.clear();
            std::mem::take(&mut state.tasks)
        };
        drop(tasks);
    }

    /// Whether something was waited for that never came.
    pub(crate) fn was_stuck(&self) -> bool {
        self.state().stuck
    }

    /// Moves on to the next moment that somebody waits for. `false`: there is none.
    fn advance(&self) -> bool {
        let mut state = self.state();
        let Some((at, _)) = state.timers.pop_first() else { return false };
        state.now = state.now.max(at);
        true
    }

    /// Runs work to its end, letting time pass where it waits. `stuck` is called where it waits for something that never comes; it
    /// has to see to it that it comes.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>, stuck: impl Fn()) -> T {
        let mut work = pin!(work);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        let mut patience = PATIENCE;
        loop {
            woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
                return done;
            }
            self.poll_tasks(&mut context);
            if !woken.0.load(Ordering::Relaxed) && !self.advance() {
                self.state().stuck = true;
                patience -= 1;
                assert!(patience > 0, "a rehearsed effect ignores the request to stop");
                stuck();
            }
        }
    }

    fn poll_tasks(&self, context: &mut Context<'_>) {
        // A task may begin others.
        let mut tasks = std::mem::take(&mut self.state().tasks);
        tasks.retain_mut(|task| task.as_mut().poll(context).is_pending());
        let mut state = self.state();
        tasks.append(&mut state.tasks);
        state.tasks = tasks;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let since = SignedDuration::try_from(self.monotonic()).unwrap_or(SignedDuration::MAX);
        let beginning = Timestamp::new(BEGINNING, 0).unwrap_or(Timestamp::UNIX_EPOCH);
        beginning.saturating_add(since).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.state().now
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(Sleep { clock: self, span, timer: None })
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Sleep<'c> {
    clock: &'c VirtualClock,
    span: Duration,
    timer: Option<(Duration, u64)>,
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        let (at, number) = match self.timer {
            Some(timer) => timer,
            None => {
                state.numbers += 1;
                (state.now.saturating_add(self.span), state.numbers)
            }
        };
        if state.now >= at {
            return Poll::Ready(());
        }
        state.timers.insert((at, number));
        drop(state);
        self.timer = Some((at, number));
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.clock.state().timers.remove(&timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    #[test]
    fn time_passes_only_where_something_waits_and_goes_from_moment_to_moment() {
        let clock = VirtualClock::default();
        assert_eq!(clock.now().to_string(), "2001-01-01T00:00:00Z");
        let first = clock.run(
            async {
                tokio::select! {
                    () = clock.sleep(hours(3)) => "three",
                    () = clock.sleep(hours(2)) => "two",
                }
            },
            || panic!("stuck"),
        );
        assert_eq!((first, clock.monotonic()), ("two", hours(2)));
        // What lost the race waits no longer.
        clock.run(clock.sleep(hours(5)), || panic!("stuck"));
        assert_eq!(clock.monotonic(), hours(7));
    }

    #[test]
    fn what_goes_on_next_to_the_script_can_stop_it() {
        let clock = Arc::new(VirtualClock::default());
        let token = CancellationToken::new();
        let (other, cancel) = (Arc::clone(&clock), token.clone());
        clock.spawn(async move {
            other.sleep(hours(1)).await;
            cancel.cancel();
        });
        clock.run(token.cancelled(), || panic!("stuck"));
        assert_eq!(clock.monotonic(), hours(1));
    }

    #[test]
    fn work_that_waits_for_nothing_is_told_so() {
        let clock = VirtualClock::default();
        let token = CancellationToken::new();
        clock.run(token.cancelled(), || token.cancel());
        assert_eq!(clock.monotonic(), Duration::ZERO);
    }
}
