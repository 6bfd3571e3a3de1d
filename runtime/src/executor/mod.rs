//! What drives a run's async work: the machine's own time, or that of a rehearsal.

mod virtual_clock;

use std::{future::Future, sync::Arc, time::Duration};

use tokio::runtime::Handle;

pub(crate) use self::virtual_clock::VirtualClock;
use crate::{
    clock::Clock as _,
    error::{RunError, codes},
    stop::Stop,
};

/// Who drives async work.
pub(crate) enum Executor {
    /// A tokio runtime; any number of threads wait for their work at the same time.
    Real(Handle),
    /// A clock that is moved by the one thread that waits.
    Virtual {
        clock: Arc<VirtualClock>,
        /// Branches of a `parallel` are run last to first.
        backwards: bool,
    },
}

impl Executor {
    /// Blocks until `work` is done. In a rehearsal, a run that waits for what never comes is paused by way of `stop`.
    pub(crate) fn block_on<T>(&self, stop: &Stop, work: impl Future<Output = T>) -> T {
        match self {
            Self::Real(handle) => handle.block_on(work),
            Self::Virtual { clock, .. } => clock.run(work, || stop.pause_now("nobody")),
        }
    }

    /// Lets `work` go on next to the script.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match self {
            Self::Real(handle) => drop(handle.spawn(work)),
            Self::Virtual { clock, .. } => clock.spawn(work),
        }
    }

    /// The clock of a rehearsal, where branches are run one after the other, all from the same moment on.
    pub(crate) fn in_turn(&self) -> Option<InTurn<'_>> {
        match self {
            Self::Real(_) => None,
            Self::Virtual { clock, backwards } => {
                let begun = clock.monotonic();
                Some(InTurn { clock, backwards: *backwards, begun, last: begun })
            }
        }
    }
}

/// Branches of which each begins at the same moment although they are run one after the other.
pub(crate) struct InTurn<'c> {
    clock: &'c VirtualClock,
    backwards: bool,
    begun: Duration,
    last: Duration,
}

impl InTurn<'_> {
    /// Runs each of so many branches.
    pub(crate) fn run(mut self, branches: usize, mut branch: impl FnMut(usize)) {
        for turn in 0..branches {
            self.clock.set(self.begun);
            branch(if self.backwards { branches - 1 - turn } else { turn });
            self.last = self.last.max(self.clock.monotonic());
        }
        // It is as late as for the last of them.
        self.clock.set(self.last);
    }
}

/// The error for a panic.
pub(crate) fn defect(panic: &(dyn std::any::Any + Send)) -> RunError {
    let what = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    RunError::new(codes::INTERNAL, format!("a defect in Contraflow or in a primitive: {what}"))
        .hint("the journal has everything done so far")
}
