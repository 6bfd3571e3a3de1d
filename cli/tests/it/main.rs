//! The command line as people and programs meet it: the real binary, in a folder and a state directory of its own.

#![expect(clippy::expect_used, reason = "a test that cannot go on should stop right there")]

mod check;
mod commands;
mod crash;
mod docs;
mod harness;
mod hostile;
mod input;
mod interrupt;
mod later;
mod migrations;
mod outside;
mod params;
mod paths;
mod people;
mod pipes;
mod plans;
mod providers;
mod rehearse;
mod secrets;
mod shift;
mod store;
