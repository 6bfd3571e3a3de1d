//! `probe`: checks from outside. A probe repeats itself until it passes or its attempts are used up, and changes nothing.

use contraflow_runtime::{
    effect::{Verdict, VerdictName},
    provider::ProviderError,
    script::{argument, options},
};
use rhai::{Module, plugin::combine_with_exported_module};

pub mod all;
pub mod attempts;
pub mod dns;
pub mod endpoint;
mod expect;
pub mod http;
mod security;
pub mod tcp;
pub mod tls;

/// How a probe can come to something bad, for rehearsals.
pub(crate) fn verdicts(what: &str) -> Vec<Verdict> {
    let error = ProviderError::terminal(crate::codes::PROBE_FAILED, "rehearsed: it does not pass");
    vec![Verdict::new(VerdictName::Fails, error.about(what))]
}

/// The script module `probe`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("Health checks: each passes or fails the step.");
    combine_with_exported_module!(&mut module, "probe", http::script);
    combine_with_exported_module!(&mut module, "probe", tcp::script);
    combine_with_exported_module!(&mut module, "probe", tls::script);
    combine_with_exported_module!(&mut module, "probe", dns::script);
    combine_with_exported_module!(&mut module, "probe", all::script);
    options::<http::Options>(&mut module, "http");
    argument::<crate::http::message::Where>(&mut module, "http", "target");
    options::<tcp::Options>(&mut module, "tcp");
    argument::<endpoint::Endpoint>(&mut module, "tcp", "target");
    options::<tls::Options>(&mut module, "tls");
    argument::<endpoint::Endpoint>(&mut module, "tls", "target");
    options::<dns::Options>(&mut module, "dns");
    options::<all::Options>(&mut module, "all");
    module
}

#[cfg(test)]
mod tests {
    use rhai::{Engine, EvalAltResult};

    #[test]
    fn every_function_can_be_called_with_and_without_options() {
        let mut engine = Engine::new();
        engine.register_static_module("probe", super::module().into());
        engine.register_static_module("http", crate::http::module().into());
        for call in [
            r#"probe::http("web")"#,
            r#"probe::http("web", #{})"#,
            r#"probe::tcp("web")"#,
            r#"probe::tcp("web", #{})"#,
            r#"probe::tls("web")"#,
            r#"probe::tls("web", #{})"#,
            r#"probe::dns("web")"#,
            r#"probe::dns("web", #{})"#,
            r#"probe::all(["web"])"#,
            r#"probe::all(["web"], #{})"#,
            r#"http::get("web")"#,
            r#"http::get("web", #{})"#,
            r#"http::request("POST", "web")"#,
            r#"http::request("POST", "web", #{})"#,
        ] {
            // Outside a run each of them is refused, but found.
            let error = engine.eval::<rhai::Dynamic>(call).expect_err("outside a run");
            assert!(!matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)), "{call}: {error}");
        }
        let error = engine.eval::<rhai::Dynamic>("probe::http(1)").expect_err("no such function");
        assert!(matches!(*error, EvalAltResult::ErrorFunctionNotFound(..)), "{error}");
    }
}
