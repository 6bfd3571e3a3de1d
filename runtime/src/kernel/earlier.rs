//! What earlier runners of the run have left, and what follows from it for this one.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::lock;
use crate::{
    budget::Budget,
    bundle::Bundle,
    error::{RunError, codes},
    journal::Replay,
    stop::Stop,
};

/// How often a branch looks whether the others have come to the end of the journal.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the journal already has, and what may come after it.
pub(crate) struct Earlier {
    pub(crate) replay: Replay,
    /// Nothing may happen that is not in `replay`.
    pub(crate) replay_only: bool,
    /// Nothing new may begin: what was done is to be undone, for this reason.
    pub(crate) only_undo: Option<RunError>,
    /// Other scripts than those that made the journal: they must do all that is in it before they go on.
    new_script: Mutex<Option<Bundle>>,
    /// Fires at the first effect that is not answered from the journal.
    live: CancellationToken,
    /// Threads on which the script is running besides the first, each branch of a `parallel` one; not those that wait for others.
    branches: AtomicUsize,
    /// How many of them are where the journal ends, with another script than the one that made it.
    at_the_end: AtomicUsize,
}

impl Earlier {
    pub(super) fn new(
        replay: Replay,
        replay_only: bool,
        only_undo: Option<RunError>,
        new_script: Option<Bundle>,
    ) -> Self {
        Self {
            replay,
            replay_only,
            only_undo,
            new_script: Mutex::new(new_script),
            live: CancellationToken::new(),
            branches: AtomicUsize::default(),
            at_the_end: AtomicUsize::default(),
        }
    }

    /// Whether the run begins, so that nothing is answered or refused because of the past.
    pub(super) fn is_none(&self) -> bool {
        self.replay.is_empty() && !self.replay_only && self.only_undo.is_none()
    }

    /// Why everything is to be undone, if undoing had begun or is what this runner is there for.
    pub(super) fn undoing(&self) -> Result<Option<RunError>, RunError> {
        Ok(self.replay.undoing()?.or_else(|| self.only_undo.clone()))
    }

    /// Completes once effects are no longer answered from the journal only.
    pub(super) async fn goes_live(&self) {
        if !self.replay.is_empty() || self.only_undo.is_some() {
            self.live.cancelled().await;
        }
    }

    /// From now on there is something new: guards watch, deadlines count.
    pub(super) fn go_live(&self, budget: &Budget) -> Result<(), RunError> {
        if !self.live.is_cancelled() {
            budget.worked_before(self.replay.worked()?);
            self.live.cancel();
        }
        Ok(())
    }

    /// The scripts that the journal follows from now on, once.
    pub(super) fn take_new_script(&self) -> Option<Bundle> {
        lock(&self.new_script).take()
    }

    /// Lets other scripts than those that made the journal go on, if they did all that is in it.
    pub(super) fn accept_new_script(&self, stop: &Stop) -> Result<(), RunError> {
        if lock(&self.new_script).is_none() {
            return Ok(());
        }
        self.others_at_the_end(stop);
        if let Some((id, recorded)) = self.replay.left()? {
            let message = format!("the new script diverges before {id}, which the journal says was done");
            let error = RunError::new(codes::DIVERGED, message)
                .hint(format!("journal: {} {}", recorded.effect, recorded.input))
                .hint("a new script must first do everything that was done, in the same steps");
            return Err(error);
        }
        Ok(())
    }

    /// Why a script that came to its end has not succeeded: it was to be undone only, or did not do all that the journal says.
    pub(super) fn unasked(&self) -> Option<RunError> {
        if self.replay.is_empty() {
            return self.only_undo.clone();
        }
        match self.replay.left() {
            Err(error) => Some(error),
            Ok(None) => self.undoing().unwrap_or_else(Some),
            Ok(Some((id, recorded))) => {
                let message = format!("the script ended without {id}, which is in the journal");
                let what = format!("{} {}", recorded.effect, recorded.input);
                Some(
                    RunError::new(codes::DIVERGED, message)
                        .hint(format!("journal: {what}"))
                        .hint("script:  nothing"),
                )
            }
        }
    }

    /// A script that ended before it did all that its journal says has not told how to undo it.
    ///
    /// # Errors
    /// That it did not, in place of the error that ended it.
    pub(super) fn cut_short(&self, error: RunError) -> Result<RunError, RunError> {
        if self.replay_only || self.replay.is_empty() {
            return Ok(error);
        }
        let undone = match self.replay.left()? {
            Some((id, _)) => Some(id),
            None => self.replay.unregistered()?,
        };
        let Some(id) = undone else { return Ok(error) };
        let message = format!("the script ended before {id}, which is in the journal: {}", error.message);
        let hint = "nothing was undone: the script did not reach everything that would have to be undone";
        Err(RunError { code: codes::DIVERGED.into(), message, ..error }.hint(hint))
    }

    /// Runs the branches of a `parallel` on `threads` threads, which count as such until they end. The last hands over to whoever
    /// waits for them.
    pub(crate) fn branching(&self, threads: usize) -> Branching<'_> {
        self.branches.fetch_add(threads.saturating_sub(1), Ordering::Relaxed);
        Branching { branches: &self.branches, left: AtomicUsize::new(threads) }
    }

    /// Waits until all branches have done what the journal says of them, or can do no more.
    fn others_at_the_end(&self, stop: &Stop) {
        self.at_the_end.fetch_add(1, Ordering::Relaxed);
        while !self.replay.is_answered()
            && self.at_the_end.load(Ordering::Relaxed) <= self.branches.load(Ordering::Relaxed)
            && !stop.is_aborted()
        {
            std::thread::sleep(LOOK_AGAIN);
        }
        self.at_the_end.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Branches that are running.
pub(crate) struct Branching<'e> {
    branches: &'e AtomicUsize,
    left: AtomicUsize,
}

impl Branching<'_> {
    /// One of the threads has come to its end.
    pub(crate) fn ended(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 1 {
            self.branches.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
