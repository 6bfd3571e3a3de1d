//! What a provider of Contraflow is written against.
//!
//! A provider stands behind a target of the configuration and does what effects ask of it. This crate holds what it needs for
//! that and no more: it knows neither the script engine nor the store nor the kernel, so that families of providers compile
//! beside the standard library and not after it.

pub mod clock;
pub mod codes;
pub mod config;
#[cfg(feature = "contract")]
pub mod contract;
pub mod db;
pub mod deploy;
pub mod effect_id;
pub mod error;
#[cfg(feature = "http")]
pub mod http;
pub mod metrics;
pub mod notify;
pub mod on;
pub mod provider;
pub mod quantity;
pub mod registry;
pub mod schema;
pub mod secret;
pub mod secrets;
pub mod target;
pub mod text;
pub mod traffic;
