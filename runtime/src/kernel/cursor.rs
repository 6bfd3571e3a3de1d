//! Where a script is: the open steps, and the ids that follow from them.
//!
//! An id is made of the open steps, a counter in each scope and the branch number in a `parallel`, so it depends on what the
//! script does and never on timing: `preflight/1:probe.http`, `shift-25/2:par[0]/1:probe.http`.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::cancel_scope::CancelScope;
use crate::error::Frame;

struct Scope {
    path: String,
    counter: u32,
    names: HashMap<String, u32>,
}

/// The place of one thread of a script.
pub(crate) struct Cursor {
    scopes: Vec<Scope>,
    frames: Vec<Frame>,
    cancel: CancellationToken,
    /// The cancellation scopes around this place, outermost first.
    cancel_scopes: Vec<Arc<CancelScope>>,
    /// Time that the effects so far would take; only plans add to it.
    planned: Planned,
}

/// Time that effects would take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    /// At least.
    pub(crate) least: Duration,
    /// With what changes are expected to take, as far as that is known.
    expected: Duration,
}

impl Planned {
    /// What is expected beyond the least.
    pub(crate) fn estimated(self) -> Duration {
        self.expected.saturating_sub(self.least)
    }

    /// The time of both next to each other.
    pub(crate) fn beside(self, other: Self) -> Self {
        Self { least: self.least.max(other.least), expected: self.expected.max(other.expected) }
    }
}

thread_local! {
    static CURSOR: RefCell<Option<Cursor>> = const { RefCell::new(None) };
}

impl Cursor {
    /// A place at the beginning of `path`, within `frames`.
    pub(crate) fn new(path: &str, frames: Vec<Frame>, cancel: CancellationToken) -> Self {
        let scope = Scope { path: path.to_owned(), counter: 0, names: HashMap::new() };
        Self { scopes: vec![scope], frames, cancel, cancel_scopes: Vec::new(), planned: Planned::default() }
    }
}

fn with<T>(work: impl FnOnce(&mut Cursor) -> T) -> T {
    CURSOR.with_borrow_mut(|slot| {
        work(slot.get_or_insert_with(|| Cursor::new("", Vec::new(), CancellationToken::new())))
    })
}

fn join(path: &str, segment: &str) -> String {
    if path.is_empty() { segment.to_owned() } else { format!("{path}/{segment}") }
}

/// Runs `work` with this thread at `cursor`; answers its result and the time planned meanwhile.
pub(crate) fn enter<T>(cursor: Cursor, work: impl FnOnce() -> T) -> (T, Planned) {
    /// Puts the former place back, also when `work` panics.
    struct Restore(Option<Cursor>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURSOR.set(self.0.take());
        }
    }
    let restore = Restore(CURSOR.replace(Some(cursor)));
    let result = work();
    let planned = with(|cursor| cursor.planned);
    drop(restore);
    (result, planned)
}

/// The id of the next effect here.
pub(crate) fn next(effect: &str) -> String {
    with(|cursor| {
        let Some(scope) = cursor.scopes.last_mut() else { return effect.to_owned() };
        scope.counter += 1;
        let mut id = String::with_capacity(scope.path.len() + effect.len() + 8);
        if !scope.path.is_empty() {
            id.push_str(&scope.path);
            id.push('/');
        }
        id.push_str(itoa(scope.counter, &mut [0; 10]));
        id.push(':');
        id.push_str(effect);
        id
    })
}

fn itoa(mut n: u32, buffer: &mut [u8; 10]) -> &str {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        if n == 0 {
            return std::str::from_utf8(&buffer[start..]).unwrap_or("0");
        }
    }
}

/// Opens a step: its effects get ids below the answered one. The same name again in one scope gets a number.
pub(crate) fn open(name: &str, frame: Frame) -> String {
    with(|cursor| {
        let mut slug = slug(name);
        // What is undone gets the id of what it undoes, below `rollback`.
        if slug == "rollback" {
            slug.push_str("-step");
        }
        let Some(scope) = cursor.scopes.last_mut() else { return slug };
        let count = scope.names.entry(slug.clone()).or_insert(0);
        *count += 1;
        let segment = if *count == 1 { slug } else { format!("{slug}#{count}") };
        let path = join(&scope.path, &segment);
        cursor.scopes.push(Scope { path: path.clone(), counter: 0, names: HashMap::new() });
        cursor.frames.push(frame);
        path
    })
}

/// Closes the step that was opened last.
pub(crate) fn close() {
    with(|cursor| {
        cursor.scopes.pop();
        cursor.frames.pop();
    });
}

/// The open steps, innermost first.
pub(crate) fn frames() -> Vec<Frame> {
    with(|cursor| cursor.frames.iter().rev().cloned().collect())
}

/// A place for branch `index` of the `parallel` with that id.
pub(crate) fn branch(id: &str, index: usize) -> Cursor {
    with(|cursor| Cursor {
        cancel_scopes: cursor.cancel_scopes.clone(),
        ..Cursor::new(&format!("{id}[{index}]"), cursor.frames.clone(), cursor.cancel.child_token())
    })
}

/// Enters a cancellation scope.
pub(crate) fn enter_scope(scope: &Arc<CancelScope>) {
    with(|cursor| {
        cursor.cancel = scope.cancel.clone();
        cursor.cancel_scopes.push(Arc::clone(scope));
    });
}

/// Leaves the scope that was entered last; what stops this thread's work is then `cancel` again.
pub(crate) fn leave_scope(cancel: CancellationToken) {
    with(|cursor| {
        cursor.cancel_scopes.pop();
        cursor.cancel = cancel;
    });
}

/// The cancellation scopes around this place, outermost first.
pub(crate) fn cancel_scopes() -> Vec<Arc<CancelScope>> {
    with(|cursor| cursor.cancel_scopes.clone())
}

/// What stops the work of this thread.
pub(crate) fn cancel() -> CancellationToken {
    with(|cursor| cursor.cancel.clone())
}

/// Whether the work of this thread should stop.
pub(crate) fn is_cancelled() -> bool {
    with(|cursor| cursor.cancel.is_cancelled())
}

/// Adds to the time that the effects so far would take at least.
pub(crate) fn plan(span: Duration) {
    add(Planned { least: span, expected: span });
}

/// Adds to the time that the effects so far are expected to take, beyond what they take at least.
pub(crate) fn expect(span: Duration) {
    add(Planned { least: Duration::ZERO, expected: span });
}

/// Adds the time of what was done elsewhere.
pub(crate) fn add(more: Planned) {
    with(|Cursor { planned, .. }| {
        planned.least = planned.least.saturating_add(more.least);
        planned.expected = planned.expected.saturating_add(more.expected);
    });
}

/// The time that the effects of this thread would take at least.
pub(crate) fn planned() -> Duration {
    with(|cursor| cursor.planned.least)
}

/// A step's name as part of an id: lower case, words joined by `-`.
fn slug(name: &str) -> String {
    let mut slug = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_alphanumeric() || c == '_' || c == '.' {
            slug.extend(c.to_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    // A number in front would read like the counter of an effect.
    if slug.is_empty() { "step".to_owned() } else { slug.chars().take(60).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame { what: String::new(), source: String::new(), line: 0, column: 0 }
    }

    #[test]
    fn ids_are_made_of_steps_counters_and_branches() {
        let ids = enter(Cursor::new("", Vec::new(), CancellationToken::new()), || {
            let mut ids = vec![next("probe.http")];
            ids.push(open("Shift 25%", frame()));
            ids.push(next("traffic.shift"));
            let par = next("par");
            let inner = enter(branch(&par, 1), || next("probe.http")).0;
            ids.extend([par, inner]);
            close();
            ids.push(open("shift-25", frame()));
            ids.push(next("traffic.shift"));
            close();
            ids.push(next("note"));
            ids
        });
        assert_eq!(
            ids.0,
            [
                "1:probe.http",
                "shift-25",
                "shift-25/1:traffic.shift",
                "shift-25/2:par",
                "shift-25/2:par[1]/1:probe.http",
                "shift-25#2",
                "shift-25#2/1:traffic.shift",
                "2:note"
            ]
        );
    }
}
