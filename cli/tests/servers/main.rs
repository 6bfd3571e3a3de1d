//! The shipped runbook and the primitives behind it, driven by the real binary through a real `contraflow.toml` against real
//! servers: HAProxy, PostgreSQL, Prometheus, nginx and a webhook receiver.
//!
//! The configuration is the one that the guide shows (`docs/src/guide/real-servers.md`), letter by letter; addresses are put over it
//! by environment variables. Servers are started here from `PATH`, on free ports of loopback, and end with their test. PostgreSQL
//! is the one behind `CONTRAFLOW_TEST_POSTGRES`; each test has a database of its own there.
//!
//! Where something is not installed a test says so and does nothing, unless `CONTRAFLOW_TEST_SERVERS=1` says that it has to be there.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "these are tests")]

mod lab;

mod blue_green;
mod broken;
mod exec;
mod migrations;
mod store;
mod tls;
