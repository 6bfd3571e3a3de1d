//! Work that nobody waits for: what is shown and logged of a run never holds the run up.
//!
//! A pipe that nobody reads blocks whoever writes to it. So a thread of its own writes, from a queue of limited length; what does not
//! fit is dropped, and counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

/// A queue with a thread that works it off.
pub(crate) struct Background<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Something was given, or done.
    changed: Condvar,
    most: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// An item is being worked on.
    busy: bool,
    /// How many items were dropped since the last one that was worked on.
    dropped: usize,
    /// How many items have been worked on.
    done: u64,
    /// Somebody waited in vain when so many had been done.
    stuck_at: Option<u64>,
    over: bool,
}

/// What can be waited for.
trait Settle: Send + Sync {
    fn settle(&self, patience: Duration);
}

static ALL: Mutex<Vec<Weak<dyn Settle>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until everything that was given has been worked off, for as long as that makes headway: a reader that takes nothing for
/// `patience` is not waited for.
pub(crate) fn settle(patience: Duration) {
    let all: Vec<Arc<dyn Settle>> = lock(&ALL).iter().filter_map(Weak::upgrade).collect();
    all.iter().for_each(|one| one.settle(patience));
}

impl<T: Send + 'static> Background<T> {
    /// A queue of at most `most` items. `work` gets each, with how many before it were dropped.
    pub(crate) fn new(name: &str, most: usize, work: impl FnMut(T, usize) + Send + 'static) -> Self {
        let state =
            State { waiting: VecDeque::new(), busy: false, dropped: 0, done: 0, stuck_at: None, over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), most });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || of_thread.run(work));
        // Without a thread nothing is shown, and the run goes on.
        lock(&shared.state).over = thread.is_err();
        let weak: Weak<Shared<T>> = Arc::downgrade(&shared);
        lock(&ALL).push(weak);
        Self { shared }
    }

    /// Gives an item, or drops it if too many wait already. Returns at once.
    pub(crate) fn give(&self, item: T) {
        let mut state = lock(&self.shared.state);
        if state.over || state.waiting.len() >= self.shared.most {
            state.dropped += 1;
            return;
        }
        state.waiting.push_back(item);
        self.shared.changed.notify_all();
    }
}

impl<T> Background<T> {
    /// Waits until all has been worked off, as [`settle`].
    pub(crate) fn settle(&self, patience: Duration) {
        self.shared.wait(patience);
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        lock(&self.shared.state).over = true;
        self.shared.changed.notify_all();
    }
}

impl<T> Shared<T> {
    fn run(&self, mut work: impl FnMut(T, usize)) {
        loop {
            let mut state = lock(&self.state);
            let item = loop {
                if let Some(item) = state.waiting.pop_front() {
                    break item;
                }
                if state.over {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.busy = true;
            let dropped = std::mem::take(&mut state.dropped);
            drop(state);
            work(item, dropped);
            let mut state = lock(&self.state);
            state.busy = false;
            state.done += 1;
            self.changed.notify_all();
        }
    }

    fn wait(&self, patience: Duration) {
        let mut state = lock(&self.state);
        let (mut done, mut since) = (state.done, Instant::now());
        while state.busy || !state.waiting.is_empty() {
            if state.stuck_at == Some(state.done) {
                return;
            }
            if state.done != done {
                (done, since) = (state.done, Instant::now());
            }
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                // Nobody waits twice for the same.
                state.stuck_at = Some(state.done);
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<T: Send> Settle for Shared<T> {
    fn settle(&self, patience: Duration) {
        self.wait(patience);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_gives_is_never_held_up_by_whoever_takes() {
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let (seen, all_seen) = mpsc::channel();
        let queue = Background::new("test", 3, move |n: usize, dropped| {
            if n == 0 {
                let _ = entered.send(());
                let _ = released.recv();
            }
            let _ = seen.send((n, dropped));
        });
        queue.give(0);
        has_entered.recv().expect("works on the first");
        // Nobody takes anything: three wait, the others are dropped, and giving returns.
        (1..=10).for_each(|n| queue.give(n));
        queue.settle(Duration::from_millis(1));
        queue.settle(Duration::from_secs(3600));
        release.send(()).expect("is released");
        let seen: Vec<(usize, usize)> = (0..4).map(|_| all_seen.recv().expect("is worked on")).collect();
        assert_eq!(seen, [(0, 0), (1, 7), (2, 0), (3, 0)]);
    }
}
