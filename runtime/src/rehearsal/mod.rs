//! Rehearsals.

pub(crate) mod clock;
