//! Runs that die. The real binary is killed with SIGKILL at every place where a test can let it die, taken up again, and has to come
//! to the same end as a run that nobody disturbed: the same weights in a real HAProxy, the same schema in a real PostgreSQL, the
//! same messages, and nothing done twice.
//!
//! Only debug builds have places to die (`runtime/src/crash.rs`). Servers are those of `cli/tests/servers`, and missing ones are
//! handled as there: a test says so and does nothing, unless `CONTRAFLOW_TEST_SERVERS=1` says that they have to be there.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "these are tests")]

#[path = "../servers/lab/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod lab;

mod balancer;
mod everywhere;
mod messages;
mod pairs;
mod pause;
mod person;
mod story;
mod world;
