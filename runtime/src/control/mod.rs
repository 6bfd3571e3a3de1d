//! Control words: plain functions that every script has, one file each.

#![expect(unreachable_pub, reason = "rhai registers only the functions of a module that are `pub`")]

mod approve;
mod checklist;
mod confirm;
mod fail;
mod invariant;
mod manual;
mod no_return;
mod note;
mod on_rollback;
mod parallel;
mod sleep;
mod step;

use rhai::{Module, combine_with_exported_module};

use crate::{
    quantity::Span,
    script::{argument, options},
};

/// All of them: one line each.
pub(crate) fn module() -> Module {
    let mut m = Module::new();
    combine_with_exported_module!(&mut m, "step", step::script);
    combine_with_exported_module!(&mut m, "parallel", parallel::script);
    combine_with_exported_module!(&mut m, "on_rollback", on_rollback::script);
    combine_with_exported_module!(&mut m, "point_of_no_return", no_return::script);
    combine_with_exported_module!(&mut m, "approve", approve::script);
    combine_with_exported_module!(&mut m, "checklist", checklist::script);
    combine_with_exported_module!(&mut m, "confirm", confirm::script);
    combine_with_exported_module!(&mut m, "manual", manual::script);
    combine_with_exported_module!(&mut m, "sleep", sleep::script);
    combine_with_exported_module!(&mut m, "note", note::script);
    combine_with_exported_module!(&mut m, "fail", fail::script);
    combine_with_exported_module!(&mut m, "invariant", invariant::script);
    options::<step::Options>(&mut m, "step");
    options::<parallel::Options>(&mut m, "parallel");
    options::<approve::Options>(&mut m, "approve");
    argument::<Vec<String>>(&mut m, "checklist", "items");
    argument::<Span>(&mut m, "sleep", "span");
    m
}
