//! Rehearsals: a runbook runs in a simulated world, once as planned and once for every way in which something can go wrong.
//!
//! **Invariant:** a rehearsal changes nothing outside and depends on nothing but the bundle, its parameters, the initial state and the
//! scenario: the same of these is the same trial, to the byte.

pub(crate) mod explorer;
mod faults;
pub(crate) mod initial_state;
mod invariant;
pub(crate) mod oracle;
pub(crate) mod paths;
mod scenario;
mod simulation;
pub(crate) mod trial;
mod worker_pool;
mod world;

pub(crate) use self::{explorer::Explorer, trial::TrialSetup};
pub use self::{
    explorer::{End, Explore, Findings, Progress, Row, Tried},
    initial_state::{Answer, InitialStateFile},
    invariant::{Invariant, Violation},
    paths::{Asks, Bounds, Branch, Decision, PathEffect, Paths},
    scenario::{Fault, Scenario},
    simulation::States,
    world::RehearsedWorld,
};
