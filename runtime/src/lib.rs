//! The runtime of Contraflow: runs one runbook in one of several worlds.
//!
//! A script calls primitives, a primitive hands an [`effect`] to the [`kernel`], the kernel journals it and lets a
//! world carry it out. The runtime knows no vendor and prints nothing.

mod budget;
mod bundle;
mod control;
mod crash;
pub mod effect;
pub mod event;
mod executor;
pub mod journal;
pub mod kernel;
mod library;
pub mod lint;
mod lock;
pub mod plan;
mod question;
pub mod rehearsal;
mod runtime;
pub mod script;
mod stop;
mod vocabulary;
pub mod world;

pub use bundle::{Bundle, Given};
pub use contraflow_provider::{
    clock, config, error, provider, quantity, registry, schema, secret, target, text,
};
pub use library::{Library, Page};
pub use plan::SavedPlan;
pub use rhai;
pub use runtime::{
    Approvals, Beginning, Builder, LoadErrors, Planned, Rehearsal, Report, Runtime, SANDBOX, Takeover,
};
pub use script::Header;
pub use stop::Stop;
