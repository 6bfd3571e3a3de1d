//! Scripts: how they are loaded and checked, and how primitives take part in them.

mod answers;
mod arguments;
mod bundle;
mod check;
mod conditions;
mod context;
pub mod convert;
mod effect_class;
mod engine;
mod error;
mod header;
pub mod outline;
mod prepared;
mod session;
mod standard;
mod syntax;
mod values;

pub use crate::{
    budget::ScriptLimits,
    bundle::{Bundle, Given},
};
pub use arguments::{Argument, argument, each, options};
pub use bundle::MAX_SOURCE;
pub use check::check;
pub(crate) use check::load;
pub(crate) use conditions::Places;
pub(crate) use context::takes;
pub use context::{ScriptContext, ScriptError, ScriptResult};
pub use effect_class::{Acts, Changes, Checks, EffectClass, Gives, Reads, Tells};
pub use engine::{ArgumentDoc, FunctionDoc, Functions, Modules};
pub(crate) use engine::{Loaded, build};
pub(crate) use error::innermost;
pub(crate) use header::to_script;
pub use header::{Header, Param, ParamType};
pub(crate) use prepared::{Prepared, STACK};
pub(crate) use session::{Holds, ScriptInvariant, Session};
