//! The person who decides what became of an effect in doubt, after a look at the world.

use crate::{
    lab::cutover::{Cutover, Done},
    world::World,
};

/// What was decided, by effect.
pub(crate) type Decisions = Vec<(String, &'static str)>;

/// Decides what a run that paused asks about. `None`: it did not pause for that.
fn decide(world: &World, paused: &Done) -> Option<(String, &'static str)> {
    let (_, command) = paused.err.split_once("decide: cutover approve ")?;
    let id = command.split_whitespace().nth(1)?.to_owned();
    let done = id.ends_with("exec.run") && world.files().contains_key("commands");
    let choice = if done { "done" } else { "again" };
    world.cutover.run(&["approve", "last", &id, "--choose", choice]).exits(0);
    Some((id, choice))
}

/// Goes on with a run, or with its rollback, and answers what it asks, until it comes to an end or dies.
pub(crate) fn go_on(world: &World, cutover: &Cutover, command: &str, decisions: &mut Decisions) -> Done {
    loop {
        let done = cutover.run(&[command, "last", "--yes"]);
        if done.code != 5 || decisions.len() > 8 {
            return done;
        }
        match decide(world, &done) {
            Some(decision) => decisions.push(decision),
            None => return done,
        }
    }
}
