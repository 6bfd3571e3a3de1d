//! `notify`: messages to people.

pub use contraflow_provider::notify::*;
use rhai::{Module, plugin::*};

pub mod console;
mod endpoint;
pub mod send;
pub mod slack;
pub mod webhook;

/// The script module `notify`.
pub fn module() -> Module {
    let mut m = Module::new();
    combine_with_exported_module!(&mut m, "send", send::script);
    m
}

#[cfg(test)]
mod lab;
