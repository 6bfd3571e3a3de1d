//! `http`: requests to any server.
//!
//! `http::get` looks, `http::request` acts. A check that passes or fails, and is repeated until it passes, is `probe::http`.

use contraflow_runtime::script::{argument, options};
use rhai::{Module, plugin::combine_with_exported_module};

pub mod call;
pub mod exchange;
pub mod get;
pub mod message;
pub mod request;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;

/// The script module `http`.
pub fn module() -> Module {
    let mut module = Module::new();
    module.set_doc("HTTP requests. To check whether a service is healthy, use [`probe`](probe.md).");
    combine_with_exported_module!(&mut module, "http", get::script);
    combine_with_exported_module!(&mut module, "http", request::script);
    options::<get::Options>(&mut module, "get");
    argument::<message::Where>(&mut module, "get", "url");
    options::<request::Options>(&mut module, "request");
    argument::<message::Method>(&mut module, "request", "method");
    argument::<message::Where>(&mut module, "request", "url");
    module
}
