//! Time as the kernel sees it.
//!
//! **Invariant:** nothing in the runtime or in a primitive asks the operating system for the time or sleeps on its own; it
//! asks the run's [`Clock`]. A simulated world can therefore let an hour pass in a microsecond. Only what keeps a journal goes by
//! real time: stores, heartbeats, and when records are handed to a store.

use std::{future::Future, pin::Pin, time::Duration};

use jiff::Timestamp;

/// A boxed future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where a run's time comes from.
pub trait Clock: Send + Sync {
    /// Wall-clock time, for records and people.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary start that never goes back, for durations and deadlines.
    fn monotonic(&self) -> Duration;

    /// Completes after `span`.
    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()>;
}

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()> {
        Box::pin(tokio::time::sleep(span))
    }
}
