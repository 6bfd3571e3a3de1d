//! Scripts: how they are loaded and checked, and how primitives take part in them.

mod context;
pub mod convert;

pub use context::{ScriptContext, ScriptError, ScriptResult};
