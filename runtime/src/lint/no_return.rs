//! A write after the point of no return that no guard watches.

use super::{Around, Lint, Walk, Warning, flow};
use crate::script::{
    EffectClass,
    outline::{Call, Outline, Place},
};

const NAME: &str = "unguarded-write";

/// Finds changes and actions behind a `point_of_no_return` that are not inside a `guard`.
pub(super) struct UnguardedWrite;

impl Lint for UnguardedWrite {
    fn name(&self) -> &'static str {
        NAME
    }

    fn about(&self) -> &'static str {
        "a change after the point of no return without a guard"
    }

    fn look(&self, outline: &Outline) -> Vec<Warning> {
        let mut search = Search { found: Vec::new() };
        flow(&outline.body, None, &mut search);
        search.found
    }
}

struct Search {
    found: Vec<Warning>,
}

impl Walk for Search {
    /// The point of no return that has been passed for sure.
    type State = Option<Place>;

    fn call(&mut self, call: &Call, passed: &mut Self::State, around: Around) {
        if call.name == "point_of_no_return" {
            *passed = Some(call.place.clone());
            return;
        }
        let Some(point) = passed.as_ref().filter(|_| call.class.is_some_and(EffectClass::writes)) else {
            return;
        };
        // What repairs must not be stopped by a guard, and what a closure does may happen inside one.
        if around.guarded || around.undoing || around.catching || around.loose {
            return;
        }
        let there = if point.file == call.place.file {
            format!("line {}", point.line)
        } else {
            format!("{}:{}", point.file, point.line)
        };
        let message = format!("`{}` acts after the point of no return ({there}) without a guard", call.name);
        self.found.push(
            Warning::of_call(NAME, call, message)
                .why(
                    "if it goes bad, nothing stops the run, and a rollback cannot restore what was there \
                    before that point",
                )
                .help(
                    "put it inside guard(#{ metric: \"web.error_rate\", above: \"1%\", sustained: \"1m\" \
                    }, || { … })",
                )
                .help(format!("or do it before the point of no return ({there})")),
        );
    }

    fn unknown(&mut self, _: &mut Self::State) {}

    fn either(&self, a: Self::State, b: Self::State) -> Self::State {
        a.filter(|_| b.is_some())
    }
}
