//! `secrets`: values that scripts use and never see.
//!
//! Each secret is a target of its own. `secrets::get` gives a script a handle; the bytes stay in the run's vault, and whoever
//! sends them somewhere asks for them at that moment with [`ensure`].

pub use contraflow_provider::secrets::*;
use rhai::{Module, plugin::*};

pub mod env;
pub mod file;
pub mod get;
pub mod text;
mod value;

pub use value::secret_type;

/// The script module `secrets`.
pub fn module() -> Module {
    let mut m = Module::new();
    m.set_doc("[Secrets](../guide/secrets.md): used by scripts, but not visible to them.");
    combine_with_exported_module!(&mut m, "get", get::script);
    combine_with_exported_module!(&mut m, "text", text::script);
    m
}
