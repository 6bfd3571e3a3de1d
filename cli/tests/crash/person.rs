//! People who answer what a run asks, from another process.

use std::time::{Duration, Instant};

use crate::{
    lab::contraflow::{Contraflow, Done, PATIENCE},
    world::World,
};

/// What was decided, by effect.
pub(crate) type Decisions = Vec<(String, &'static str)>;

/// How many decisions one run may ask for.
const MOST: usize = 8;

/// Decides what became of an effect in doubt, after a look at the world. `None`: the run did not pause for that.
pub(crate) fn decide(world: &World, paused: &Done) -> Option<(String, &'static str)> {
    let (_, command) = paused.err.split_once("decide: contraflow approve ")?;
    let id = command.split_whitespace().nth(1)?.to_owned();
    let can_repeat = command.contains("--choose again|");
    let there = world.files().contains_key("commands");
    // What a rollback asks is whether it was taken back, or else whether there is anything to take back.
    let taking_back = id.starts_with("rollback/") && can_repeat;
    let done = id.ends_with("exec.run") && there != taking_back;
    let choice = match (done, can_repeat) {
        (true, _) => "done",
        (false, true) => "again",
        (false, false) => "fail",
    };
    world.contraflow.run(&["approve", "last", &id, "--choose", choice]).exits(0);
    Some((id, choice))
}

/// Goes on with a run, or with its rollback, and answers what it asks, until it comes to an end or dies.
pub(crate) fn go_on(
    world: &World,
    contraflow: &Contraflow,
    command: &str,
    decisions: &mut Decisions,
) -> Done {
    loop {
        let done = contraflow.run(&[command, "last", "--yes"]);
        if done.code != 5 || decisions.len() > MOST {
            return done;
        }
        match decide(world, &done) {
            Some(decision) => decisions.push(decision),
            None => return done,
        }
    }
}

/// Somebody who approves once, whoever works on the run at that moment, or nobody.
#[derive(Default)]
pub(crate) struct Approver {
    pub(crate) approved: bool,
}

impl Approver {
    /// Runs a command that waits for an approval to its end. One that was given is not given again.
    pub(crate) fn attend(&mut self, world: &World, contraflow: &Contraflow, arguments: &[&str]) -> Done {
        let mut running = contraflow.start(arguments);
        let begun = Instant::now();
        // If it is never asked, whoever waits for the end says so.
        while running.is_running() && !self.approved && begun.elapsed() < PATIENCE {
            self.look(world);
        }
        running.end()
    }

    /// Approves if something is asked.
    pub(crate) fn look(&mut self, world: &World) {
        let begun = Instant::now();
        self.approved = world.contraflow.run(&["approve", "last", "--as", "bob"]).code == 0;
        std::thread::sleep(Duration::from_millis(40).saturating_sub(begun.elapsed()));
    }
}
