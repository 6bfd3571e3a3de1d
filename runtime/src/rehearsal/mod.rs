//! Rehearsals: a runbook runs in a simulated world, once as planned and once for every way in which something can go wrong.
//!
//! **Invariant:** a rehearsal changes nothing outside and depends on nothing but the bundle, its parameters, the scene and the
//! scenario: the same of these is the same course, to the byte.

pub(crate) mod clock;
pub(crate) mod course;
pub(crate) mod explorer;
mod faults;
mod invariant;
pub(crate) mod judge;
mod outside;
pub(crate) mod paths;
mod players;
mod scenario;
pub(crate) mod scene;
mod world;

pub(crate) use self::{
    course::Stage,
    explorer::Explorer,
    invariant::{Claim, Holds},
    outside::Held,
    scene::view,
};
pub use self::{
    explorer::{End, Explore, Findings, Progress, Row, Tried},
    invariant::{Invariant, Violation},
    outside::States,
    paths::{Asks, Bounds, Branch, Decision, Done, Paths},
    scenario::{Fault, Scenario},
    scene::{Answer, SceneFile},
    world::RehearsedWorld,
};
