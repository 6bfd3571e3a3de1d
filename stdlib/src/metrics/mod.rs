//! `metrics`: named measurements, and gates on them.
//!
//! [`query`] reads one value, [`hold`] watches bounds for a while, [`verdict`] decides, [`prometheus`] is a source.

use std::collections::BTreeMap;

pub use contraflow_provider::metrics::*;
use contraflow_runtime::{
    quantity::{Comparison, Span},
    script::{ScriptContext, ScriptResult, argument, options},
    target::Target,
};
use rhai::{Module, NativeCallContext, combine_with_exported_module};

pub mod hold;
pub mod prometheus;
pub mod query;
pub mod verdict;

/// The script module `metrics`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("Metrics: queried once, or watched over time as a gate.");
    combine_with_exported_module!(&mut module, "metrics", query::script);
    combine_with_exported_module!(&mut module, "metrics", hold::script);
    options::<query::Options>(&mut module, "query");
    options::<hold::Options>(&mut module, "hold");
    argument::<BTreeMap<String, Comparison>>(&mut module, "hold", "bounds");
    argument::<Span>(&mut module, "hold", "duration");
    module
}

/// What readings of a source depend on: the source, the route of the same name (a shift of its traffic changes what is
/// measured), and what the script names besides.
pub(crate) fn depends_on(source: &str, more: &[Target]) -> Vec<Target> {
    let mut targets = vec![Target::new("metrics", source), Target::new("traffic", source)];
    targets.extend(more.iter().filter(|target| !targets.contains(target)).cloned().collect::<Vec<_>>());
    targets
}

/// Refuses a `depends_on` that is not made of whole target names.
fn check_depends_on(cx: &NativeCallContext<'_>, targets: &[Target]) -> ScriptResult<()> {
    let whole = |target: &&Target| {
        target.as_str().split_once('/').is_some_and(|(noun, name)| !noun.is_empty() && !name.is_empty())
    };
    match targets.iter().find(|target| !whole(target)) {
        None => Ok(()),
        Some(wrong) => Err(cx.bad_argument(
            "depends_on",
            &format!("\"{wrong}\" is not the name of a target: expected noun/name, such as \"deploy/web\""),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_call_each_primitive_with_and_without_options() {
        let module = module();
        let mut functions: Vec<String> = module.gen_fn_signatures_with_mapper(Into::into).collect();
        functions.sort();
        let [hold, hold_with, query, query_with] = functions.as_slice() else { panic!("{functions:?}") };
        assert!(hold.starts_with("hold(") && !hold.contains("options"), "{hold}");
        assert!(hold_with.starts_with("hold(") && hold_with.contains("options"), "{hold_with}");
        assert!(query.starts_with("query(") && !query.contains("options"), "{query}");
        assert!(query_with.starts_with("query(") && query_with.contains("options"), "{query_with}");
    }
}
