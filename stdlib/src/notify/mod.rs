//! `notify`: messages to people.

pub use contraflow_provider::notify::*;
use contraflow_runtime::script::options;
use rhai::{Module, plugin::*};

pub mod console;
mod endpoint;
pub mod send;
pub mod slack;
pub mod webhook;

/// The script module `notify`.
pub fn module() -> Module {
    let mut m = Module::new();
    m.set_doc("Messages to people.");
    combine_with_exported_module!(&mut m, "send", send::script);
    options::<send::Options>(&mut m, "send");
    m
}

#[cfg(test)]
mod lab;
