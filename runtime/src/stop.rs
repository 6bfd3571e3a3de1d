//! Stopping a run from outside.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    error::{RunError, codes},
    lock::lock,
};

/// Stops a run from outside. What is asked first counts, except that a pause and more haste are always heard.
#[derive(Debug, Clone)]
pub struct Stop {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cancel: CancellationToken,
    abort: CancellationToken,
    why: Mutex<Option<RunError>>,
    /// A pause counts also behind something else: undoing is paused as well.
    pause: Mutex<Option<RunError>>,
    on_hold: watch::Sender<bool>,
}

impl Default for Stop {
    fn default() -> Self {
        let inner = Inner {
            cancel: CancellationToken::new(),
            abort: CancellationToken::new(),
            why: Mutex::default(),
            pause: Mutex::default(),
            on_hold: watch::Sender::new(false),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Stop {
    fn because(&self, error: RunError) {
        lock(&self.inner.why).get_or_insert(error);
        self.inner.cancel.cancel();
    }

    /// Stops the script at the next safe point; what was done is then undone.
    pub fn cancel(&self) {
        self.because(cancelled());
    }

    /// Stops the script at the next safe point; what was done is then undone. `by` says who wants it.
    pub fn cancel_by(&self, by: &str) {
        self.because(RunError::new(codes::CANCELLED, format!("{by} told the run to stop and roll back")));
    }

    /// Stops at the next safe point; the run can be resumed later.
    pub fn pause(&self, by: &str) {
        let paused = RunError::new(codes::PAUSED, format!("{by} paused the run"));
        lock(&self.inner.pause).get_or_insert(paused.clone());
        self.because(paused);
    }

    /// Why the run is to be paused, if it is.
    pub(crate) fn pausing(&self) -> Option<RunError> {
        lock(&self.inner.pause).clone()
    }

    /// Breaks everything off now, undoing included; the run can be resumed later.
    pub fn pause_now(&self, by: &str) {
        self.pause(by);
        self.inner.abort.cancel();
    }

    /// Breaks everything off now, undoing included, because of `error`: this runner may no longer touch what others may by now.
    pub(crate) fn cut_off(&self, error: RunError) {
        lock(&self.inner.pause).get_or_insert(error.clone());
        self.because(error);
        self.inner.abort.cancel();
    }

    /// Ends the run at the next safe point; what was done stays.
    pub fn end(&self, by: &str) {
        self.because(RunError::new(codes::ABORTED, format!("{by} ended the run; its changes stay")));
    }

    /// Stops everything now, undoing included.
    pub fn abort(&self) {
        self.cancel();
        self.inner.abort.cancel();
    }

    /// Lets the script wait at its next safe point, or go on. What is under way goes on meanwhile.
    pub fn hold(&self, hold: bool) {
        self.inner.on_hold.send_replace(hold);
    }

    /// Whether it was told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancel.is_cancelled()
    }

    /// Whether everything is to be broken off.
    pub(crate) fn is_aborted(&self) -> bool {
        self.inner.abort.is_cancelled()
    }

    /// Completes when everything is to be broken off.
    pub(crate) async fn aborted(&self) {
        self.inner.abort.cancelled().await;
    }

    pub(crate) fn is_held(&self) -> bool {
        *self.inner.on_hold.borrow()
    }

    /// Completes when the script may go on, or is to stop.
    pub(crate) async fn released(&self) {
        let mut on_hold = self.inner.on_hold.subscribe();
        tokio::select! {
            () = self.inner.cancel.cancelled() => {}
            _ = on_hold.wait_for(|on_hold| !on_hold) => {}
        }
    }

    /// A token that fires when the script is to stop.
    pub(crate) fn child(&self) -> CancellationToken {
        self.inner.cancel.child_token()
    }

    /// Why the run is to stop.
    pub(crate) fn why(&self) -> RunError {
        self.pausing().or_else(|| lock(&self.inner.why).clone()).unwrap_or_else(cancelled)
    }
}

fn cancelled() -> RunError {
    RunError::new(codes::CANCELLED, "the run was told to stop")
}
