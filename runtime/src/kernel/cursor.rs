//! Where a script is: the open steps, and the ids that follow from them.
//!
//! An id is made of the open steps, a counter in each scope and the branch number in a `parallel`, so it depends on what the
//! script does and never on timing: `preflight/1:probe.http`, `shift-25/2:par[0]/1:probe.http`.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use contraflow_provider::effect_id::EffectId;
use tokio_util::sync::CancellationToken;

use super::cancel_scope::CancelScope;
use crate::error::Frame;

struct Scope {
    path: EffectId,
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
    pub(crate) fn new(path: EffectId, frames: Vec<Frame>, cancel: CancellationToken) -> Self {
        let scope = Scope { path, counter: 0, names: HashMap::new() };
        Self { scopes: vec![scope], frames, cancel, cancel_scopes: Vec::new(), planned: Planned::default() }
    }
}

fn with<T>(work: impl FnOnce(&mut Cursor) -> T) -> T {
    CURSOR.with_borrow_mut(|slot| {
        work(
            slot.get_or_insert_with(|| {
                Cursor::new(EffectId::default(), Vec::new(), CancellationToken::new())
            }),
        )
    })
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
pub(crate) fn next(effect: &str) -> EffectId {
    with(|cursor| {
        let Some(scope) = cursor.scopes.last_mut() else { return EffectId::from(effect) };
        scope.counter += 1;
        scope.path.effect(scope.counter, effect)
    })
}

/// Opens a step: its effects get ids below the answered one. The same name again in one scope gets a number.
pub(crate) fn open(name: &str, frame: Frame) -> EffectId {
    with(|cursor| {
        let slug = EffectId::slug(name);
        let Some(scope) = cursor.scopes.last_mut() else { return EffectId::from(slug) };
        let count = scope.names.entry(slug.clone()).or_insert(0);
        *count += 1;
        let path = scope.path.step(&slug, *count);
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

/// Opens a part of the script that is no step: its effects and steps get ids below `id`. How far it got when it was stopped then
/// changes no id behind it.
pub(crate) fn open_part(id: &EffectId) {
    with(|cursor| cursor.scopes.push(Scope { path: id.clone(), counter: 0, names: HashMap::new() }));
}

/// Closes the part that was opened last.
pub(crate) fn close_part() {
    with(|cursor| {
        cursor.scopes.pop();
    });
}

/// The open steps, innermost first.
pub(crate) fn frames() -> Vec<Frame> {
    with(|cursor| cursor.frames.iter().rev().cloned().collect())
}

/// A place for branch `index` of the `parallel` with that id.
pub(crate) fn branch(id: &EffectId, index: usize) -> Cursor {
    with(|cursor| Cursor {
        cancel_scopes: cursor.cancel_scopes.clone(),
        ..Cursor::new(id.branch(index), cursor.frames.clone(), cursor.cancel.child_token())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame { what: String::new(), source: String::new(), line: 0, column: 0 }
    }

    #[test]
    fn ids_are_made_of_steps_counters_and_branches() {
        let ids = enter(Cursor::new(EffectId::default(), Vec::new(), CancellationToken::new()), || {
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
