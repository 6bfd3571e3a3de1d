//! Plays scenarios on all cores.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rhai::Engine;

use super::{explorer::Progress, scenario::Scenario, trial::TrialSetup};
use crate::{lock::lock, script::STACK};

/// Threads that play, and interpreters that nobody uses at the moment.
pub(super) struct WorkerPool<'s> {
    setup: &'s TrialSetup,
    idle: Mutex<Vec<Engine>>,
}

impl<'s> WorkerPool<'s> {
    pub(super) fn new(setup: &'s TrialSetup) -> Self {
        Self { setup, idle: Mutex::default() }
    }

    /// Plays each scenario. The answers come in the order of the scenarios. `None`: it `may` not be played; that is asked with how
    /// many were begun before.
    pub(super) fn all<T: Send>(
        &self,
        scenarios: &[Scenario],
        progress: &Progress,
        may: impl Fn(usize) -> bool + Sync,
        play: impl Fn(&Scenario, &mut Engine) -> T + Sync,
    ) -> Vec<Option<T>> {
        let slots: Vec<Mutex<Option<T>>> = scenarios.iter().map(|_| Mutex::new(None)).collect();
        let turn = AtomicUsize::new(0);
        progress.add_known(scenarios.len());
        let work = || {
            let idle = lock(&self.idle).pop();
            let mut engine = idle.unwrap_or_else(|| self.setup.engine());
            loop {
                let n = turn.fetch_add(1, Ordering::Relaxed);
                if n >= scenarios.len() || !may(n) {
                    break;
                }
                let played = play(&scenarios[n], &mut engine);
                *lock(&slots[n]) = Some(played);
                progress.add_played();
            }
            lock(&self.idle).push(engine);
        };
        let threads = thread::available_parallelism().map_or(1, usize::from).min(scenarios.len());
        thread::scope(|scope| {
            for _ in 0..threads {
                let worker = thread::Builder::new().name("rehearsal".into()).stack_size(STACK);
                // One that cannot be had is made up for by the others.
                let _ = worker.spawn_scoped(scope, work);
            }
        });
        slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}
