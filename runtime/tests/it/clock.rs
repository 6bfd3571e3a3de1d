//! Runs in simulated time: hours that pass in moments.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use contraflow_runtime::{
    Bundle, Stop, Takeover,
    clock::{BoxFuture, Clock},
    event::{Event, RunOutcome},
    journal::{abandon, history},
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
fn a_paused_run_tells_later_for_how_long_each_runner_had_worked_on_it() {
    let lab = Lab::new();
    let pauses_after = |seconds: i64, stop: &Stop| {
        let (off, stop) = (Arc::clone(&lab.off), stop.clone());
        lab.lamps.board().after = Some(Arc::new(move || {
            off.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
            stop.pause("ana");
        }));
    };
    pauses_after(90, &lab.stop);
    let report = lab.run(r#"lab::set("a", 1); lab::set("b", 1); lab::set("c", 1);"#);
    assert_eq!(report.outcome, RunOutcome::Paused);
    let found = || lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    // Nobody works on it meanwhile.
    lab.off.fetch_add(9000, std::sync::atomic::Ordering::Relaxed);
    let stop = Stop::default();
    pauses_after(30, &stop);
    let again = lab.tokio.block_on(lab.runtime().resume(&found(), Takeover::default(), &stop)).unwrap();
    assert_eq!(again.outcome, RunOutcome::Paused);
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    let records: Vec<_> = records.iter().map(|record| record.open().unwrap()).collect();
    let paused = history(&found(), &records).into_iter().filter_map(|told| match told.event {
        Event::RunEnded { elapsed_ms, .. } => Some(elapsed_ms / 1000),
        _ => None,
    });
    assert_eq!(paused.collect::<Vec<_>>(), [90, 30]);
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
