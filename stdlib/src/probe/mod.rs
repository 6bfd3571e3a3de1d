//! `probe`: checks from outside. A probe repeats itself until it passes or its attempts are used up, and changes nothing.

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

/// The script module `probe`.
pub fn module() -> Module {
    let mut module = Module::new();
    combine_with_exported_module!(&mut module, "probe", http::script);
    combine_with_exported_module!(&mut module, "probe", tcp::script);
    combine_with_exported_module!(&mut module, "probe", tls::script);
    combine_with_exported_module!(&mut module, "probe", dns::script);
    combine_with_exported_module!(&mut module, "probe", all::script);
    module
}
