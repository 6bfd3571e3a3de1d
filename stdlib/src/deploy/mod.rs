//! `deploy`: pools of replicas.

pub use contraflow_provider::deploy::*;
use contraflow_runtime::script::{argument, options};
use rhai::{Module, combine_with_exported_module};

pub mod replicas;
pub mod scale;

/// The script module `deploy`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("Pools of replicas.");
    combine_with_exported_module!(&mut module, "scale", scale::script);
    combine_with_exported_module!(&mut module, "replicas", replicas::script);
    options::<scale::Options>(&mut module, "scale");
    argument::<u32>(&mut module, "scale", "replicas");
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_named_by_deployment_and_pool_split_at_the_first_slash() {
        let name = PoolName::try_from("web/blue/a").expect("a pool");
        assert_eq!((name.deployment(), name.pool(), &*name.to_string()), ("web", "blue/a", "web/blue/a"));
        for wrong in ["web", "web/", "/blue", ""] {
            assert!(PoolName::try_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_script_functions_are_found_with_and_without_options() {
        let mut engine = rhai::Engine::new();
        engine.register_static_module("deploy", module().into());
        for call in [
            r#"deploy::scale("web/blue", 2)"#,
            r#"deploy::scale("web/blue", 2, #{ settle: "1s" })"#,
            r#"deploy::replicas("web/blue")"#,
        ] {
            // Outside a run nothing can be done, but the function is there.
            let error = engine.eval::<rhai::Dynamic>(call).expect_err("outside a run");
            assert!(!matches!(*error, rhai::EvalAltResult::ErrorFunctionNotFound(..)), "{call}: {error}");
        }
        assert!(matches!(
            *engine.eval::<rhai::Dynamic>("deploy::scale()").expect_err("no such function"),
            rhai::EvalAltResult::ErrorFunctionNotFound(..)
        ));
    }
}
