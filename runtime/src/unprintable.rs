//! Script values that must not become text, such as secrets.
//!
//! Rhai 1.27 drops an error that `to_string` answers while it fills in `` `${value}` `` or prints an array, and takes the
//! name of the type instead: the script would go on and send that. So the refusal is also remembered here, for the thread that
//! runs the script, and whoever runs it asks before anything leaves the script and after each operation.

use std::cell::{Cell, RefCell};

use rhai::{Dynamic, EvalAltResult, Position};

use crate::error::RunError;

thread_local! {
    static REFUSED: Cell<bool> = const { Cell::new(false) };
    static WHY: RefCell<Option<RunError>> = const { RefCell::new(None) };
}

/// Refuses to make text of a value: the error to answer, which is also remembered until [`take_refused`].
pub fn refuse(error: RunError) -> Box<EvalAltResult> {
    REFUSED.set(true);
    WHY.with_borrow_mut(|why| {
        why.get_or_insert_with(|| error.clone());
    });
    Box::new(EvalAltResult::ErrorRuntime(Dynamic::from(error), Position::NONE))
}

/// Whether this thread's script tried to make text of such a value. Cheap enough to ask at every operation.
pub fn refused() -> bool {
    REFUSED.get()
}

/// Why, once.
pub fn take_refused() -> Option<RunError> {
    if !REFUSED.replace(false) {
        return None;
    }
    WHY.take()
}
