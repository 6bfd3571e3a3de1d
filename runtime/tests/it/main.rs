//! Tests of the runtime against a small world in memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop right there")]
#![expect(unreachable_pub, reason = "rhai registers only the functions of a module that are `pub`")]

mod check;
mod clock;
mod completeness;
mod determinism;
mod effects;
mod estimates;
mod gate;
mod guard;
mod honesty;
mod identity;
mod journal;
mod lab;
mod layers;
mod names;
mod outline;
mod paths;
mod people;
mod places;
mod plan;
mod plans;
mod random;
mod rehearsal;
mod resume;
mod rollback;
mod sandbox;
mod secrets;
mod stopping;
mod store;
mod stored;
