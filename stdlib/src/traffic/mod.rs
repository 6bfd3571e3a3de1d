//! `traffic`: routes and the weights of their pools.

pub use contraflow_provider::traffic::*;
use contraflow_runtime::script::{argument, options};
use rhai::{Module, combine_with_exported_module};

pub mod envoy;
pub mod haproxy;
pub mod set;
pub mod shift;
pub mod weights;

/// The script module `traffic`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("Routes that split traffic over pools.");
    combine_with_exported_module!(&mut module, "shift", shift::script);
    combine_with_exported_module!(&mut module, "set", set::script);
    combine_with_exported_module!(&mut module, "weights", weights::script);
    options::<shift::Options>(&mut module, "shift");
    argument::<Share>(&mut module, "shift", "percent");
    options::<shift::Options>(&mut module, "set");
    argument::<set::Split>(&mut module, "set", "weights");
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_functions_are_found_with_and_without_options() {
        let mut engine = rhai::Engine::new();
        engine.register_static_module("traffic", module().into());
        for call in [
            r#"traffic::shift("web", "green", 25)"#,
            r#"traffic::shift("web", "green", "25%", #{ drain: "1s" })"#,
            r#"traffic::set("web", #{ green: 100 })"#,
            r#"traffic::set("web", #{ green: 100 }, #{ timeout: "1s" })"#,
            r#"traffic::weights("web")"#,
        ] {
            // Outside a run nothing can be done, but the function is there.
            let error = engine.eval::<rhai::Dynamic>(call).expect_err("outside a run");
            assert!(!matches!(*error, rhai::EvalAltResult::ErrorFunctionNotFound(..)), "{call}: {error}");
        }
        assert!(matches!(
            *engine.eval::<rhai::Dynamic>("traffic::shift()").expect_err("no such function"),
            rhai::EvalAltResult::ErrorFunctionNotFound(..)
        ));
    }
}
