//! Runs in simulated time: hours that pass in moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use cutover_runtime::{
    Bundle,
    clock::{BoxFuture, Clock},
    event::RunOutcome,
    journal::{Store, abandon},
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::lab::Lab;

/// A clock that leaps to the end of the shortest sleep when everybody sleeps.
#[derive(Default)]
struct Simulated {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    begun: u64,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl Simulated {
    fn start() -> Arc<Self> {
        let clock = Arc::<Self>::default();
        let leaping = Arc::downgrade(&clock);
        thread::spawn(move || leap(&leaping));
        clock
    }
}

fn leap(clock: &Weak<Simulated>) {
    let mut before = BTreeSet::new();
    while let Some(clock) = clock.upgrade() {
        let mut state = clock.state.lock().unwrap();
        state.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        let sleeping: BTreeSet<_> = state.sleepers.keys().copied().collect();
        // Nobody came or went for a moment: nobody is about to.
        if sleeping == before
            && let Some(((until, _), sleeper)) = state.sleepers.pop_first()
        {
            state.now = state.now.max(until);
            let _ = sleeper.send(());
        }
        before = sleeping;
        drop(state);
        drop(clock);
        thread::sleep(Duration::from_millis(5));
    }
}

impl Clock for Simulated {
    fn now(&self) -> Timestamp {
        "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap() + self.monotonic()
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().unwrap().now
    }

    fn sleep(&self, span: Duration) -> BoxFuture<'_, ()> {
        let (send, receive) = oneshot::channel();
        let mut state = self.state.lock().unwrap();
        state.begun += 1;
        let key = (state.now + span, state.begun);
        state.sleepers.insert(key, send);
        Box::pin(async move { drop(receive.await) })
    }
}

#[test]
fn a_day_of_a_run_passes_in_moments_and_its_deadline_goes_by_the_same_clock() {
    let begun = Instant::now();
    let run = |deadline: &str| {
        let lab = Lab { clock: Some(Simulated::start()), ..Lab::new() };
        let script = format!(
            r#"const RUNBOOK = #{{ name: "lab", deadline: "{deadline}" }}; lab::set("a", 1); sleep("3h"); sleep("2h");"#
        );
        let bundle = Bundle::single("lab.rhai", script);
        lab.tokio.block_on(lab.runtime().run(&bundle, &BTreeMap::new())).unwrap()
    };
    let report = run("6h");
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    assert_eq!(report.elapsed_ms, 5 * 60 * 60 * 1000);
    let report = run("4h");
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.error);
    let error = report.error.unwrap();
    assert_eq!((error.code.as_str(), &*error.message), ("limit", "the run took longer than 4h"));
    assert_eq!(report.elapsed_ms, 4 * 60 * 60 * 1000);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_run_that_is_given_up_has_ended_at_the_time_of_whoever_gives_it_up() {
    let lab = Lab::new();
    let stop = lab.stop.clone();
    stop.pause("ana");
    let report = lab.run(r#"lab::set("a", 1);"#);
    assert_eq!(report.outcome, RunOutcome::Paused);
    let found = || lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    let at: Timestamp = "2031-03-01T12:00:00Z".parse().unwrap();
    lab.tokio.block_on(abandon(&*lab.store, &found(), "ana", at)).unwrap();
    assert_eq!(found().ended_at, Some(at));
    let last = lab.tokio.block_on(lab.store.last(&report.run)).unwrap().unwrap();
    assert_eq!(last.at_ms, at.as_millisecond());
}
