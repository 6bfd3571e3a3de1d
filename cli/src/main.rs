//! `cutover`: plans, runs and shows runbooks.

#[cfg_attr(not(test), expect(dead_code, reason = "connected to the runtime by the commands"))]
mod args;
#[expect(dead_code, reason = "connected to the runtime by the commands")]
mod render;
#[expect(dead_code, reason = "connected to the runtime by the commands")]
mod report;
#[cfg_attr(not(test), expect(dead_code, reason = "connected to the runtime by the commands"))]
mod scaffold;

fn main() {}
