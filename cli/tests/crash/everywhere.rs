//! Death at every place.

use std::{
    io::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::Value;

use crate::{
    balancer::Balancer,
    lab::contraflow::{Contraflow, Done},
    person::{Approver, Decisions, decide, go_on},
    story::is_stopped_somewhere,
    world::{End, Store, World},
};

/// Where a process can die: at each write to the journal and at each apply, before and after it.
const PLACES: [&str; 4] = ["append-before", "append-after", "apply-before", "apply-after"];

/// Ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// So many worlds are used at the same time: most of a run is waiting for servers and for the disk.
const WORLDS: usize = 3;

/// What dies, and what is to come of it.
#[derive(Clone, Copy)]
struct Plot {
    /// For people.
    name: &'static str,
    store: Store,
    /// How the story is to end.
    end: &'static str,
    /// Whether the run comes to its end undisturbed, and what dies is its rollback.
    later: bool,
    /// The exit code of whoever brings it to its end.
    exit: i32,
    /// Only each so many-th place, where not all are.
    each: u32,
}

/// Whether each place of all plots is taken, which takes some ten minutes.
fn all_places() -> bool {
    std::env::var_os("CONTRAFLOW_TEST_ALL_PLACES").is_some()
}

fn dying(contraflow: &Contraflow, place: &str, n: u32) -> Contraflow {
    contraflow.clone().set("CONTRAFLOW_CRASH", format!("{place}:{n}"))
}

impl Plot {
    /// Only each so many-th place is taken.
    fn each(&self) -> u32 {
        if all_places() { 1 } else { self.each }
    }

    /// What is done before somebody dies.
    fn begin(&self, world: &World) {
        world.reset();
        if self.later {
            world.run(self.end).exits(0);
        }
    }

    /// What dies.
    fn act(&self, contraflow: &Contraflow) -> Done {
        if self.later {
            contraflow.run(&["rollback", "last", "--yes"])
        } else {
            contraflow.run(&["run", "story.rhai", "--yes", "--param", &format!("end={}", self.end)])
        }
    }

    fn taken_up_by(&self) -> &'static str {
        if self.later { "rollback" } else { "resume" }
    }

    /// How it ends if nobody dies.
    fn undisturbed(&self, world: &World) -> End {
        self.begin(world);
        self.act(&world.contraflow).exits(self.exit);
        self.settled(world.end())
    }

    /// Without what is different each time.
    fn settled(&self, mut end: End) -> End {
        if ["breach", "branch"].contains(&self.end) {
            end.changed.retain(|id| !is_stopped_somewhere(id));
            end.undone.retain(|id| !is_stopped_somewhere(id));
            end.sets.clear();
        }
        end
    }

    /// Dies at the `n`-th passing of `place` and is taken up. `None`: it came to its end before.
    fn die(&self, world: &World, place: &str, n: u32, wanted: &End) -> Option<(Decisions, u32)> {
        self.begin(world);
        let done = self.act(&dying(&world.contraflow, place, n));
        if done.code != KILLED {
            done.exits(self.exit);
            return None;
        }
        let (mut decisions, mut deaths) = (Decisions::new(), 1);
        let which = n / self.each();
        let mut done = None;
        if which.is_multiple_of(5) {
            // Whoever takes it up dies as well, sooner or later.
            let contraflow = dying(&world.contraflow, PLACES[(which / 5) as usize % PLACES.len()], 1 + n % 7);
            done = Some(go_on(world, &contraflow, self.taken_up_by(), &mut decisions));
            deaths += u32::from(done.as_ref().is_some_and(|done| done.code == KILLED));
        }
        done.filter(|done| done.code != KILLED)
            .unwrap_or_else(|| go_on(world, &world.contraflow, self.taken_up_by(), &mut decisions))
            .exits(self.exit);
        let mut end = self.settled(world.end());
        // A change of weights that another branch's death broke off half way is made once more.
        if decisions.iter().any(|(id, _)| id.contains("traffic")) {
            end.sets.clone_from(&wanted.sets);
        }
        end.is(wanted);
        Some((decisions, deaths))
    }

    /// Dies everywhere, and is taken up each time.
    fn everywhere(&self) {
        let Some(first) = World::start(self.store) else { return };
        let wanted = self.undisturbed(&first);
        if self.exit == 3 || self.later {
            assert_eq!(wanted.weights, Balancer::first());
        }
        let undoing = if self.exit == 3 { undoing_begins(&first.records()) } else { [0; 2] };
        drop(first);
        self.with_worlds(undoing, |world, place, n| self.die(world, place, n, &wanted));
    }

    /// Lets `die` die at each place, for `n` = 1, 2, 3 …, until it comes to its end before. Before the number in `undoing`, for
    /// writes and for applies, only now and then: runs that succeed die there as well.
    fn with_worlds(
        &self,
        undoing: [u32; 2],
        die: impl Fn(&World, &str, u32) -> Option<(Decisions, u32)> + Sync,
    ) {
        let begun = Instant::now();
        let each = self.each();
        let undoing = if all_places() { [0; 2] } else { undoing };
        let worlds: Vec<World> = (0..WORLDS).map_while(|_| World::start(self.store)).collect();
        if worlds.is_empty() {
            return;
        }
        let tally = Tally::default();
        let turn = AtomicU32::new(0);
        // Which places it never came to any more.
        let over = PLACES.map(|_| AtomicBool::new(false));
        let work = |world: &World| {
            while !over.iter().all(|over| over.load(Ordering::Relaxed)) {
                let turn = turn.fetch_add(1, Ordering::Relaxed);
                let (place, n) = (turn as usize % PLACES.len(), (turn / 4 + 1) * each);
                let seldom = n < undoing[place / 2] && !(n / each).is_multiple_of(4);
                if seldom || over[place].load(Ordering::Relaxed) {
                    continue;
                }
                match catch_unwind(AssertUnwindSafe(|| die(world, PLACES[place], n))) {
                    Ok(Some((decisions, deaths))) => tally.passed(&decisions, deaths),
                    Ok(None) => over[place].store(true, Ordering::Relaxed),
                    Err(panic) => {
                        tally.failed(format!("{}:{n}: {}", PLACES[place], text(&*panic)), world);
                    }
                }
            }
        };
        thread::scope(|scope| {
            for world in &worlds {
                scope.spawn(|| work(world));
            }
        });
        tally.tell(self, begun);
    }
}

/// How many writes, at the least, and how many applies there are before a run begins to undo what it did.
fn undoing_begins(records: &[Value]) -> [u32; 2] {
    let forward = records.iter().take_while(|record| !record["entry"]["rollback_started"].is_object());
    let intents: Vec<&Value> =
        forward.map(|record| &record["entry"]["intent"]).filter(|intent| intent.is_object()).collect();
    let applies = intents.iter().filter(|intent| intent["kind"] != "wait");
    [intents.len(), applies.count()].map(|n| u32::try_from(n).expect("a small number"))
}

#[derive(Default)]
struct Tally {
    points: AtomicU32,
    again: AtomicU32,
    decided: AtomicU32,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn passed(&self, decisions: &Decisions, deaths: u32) {
        self.points.fetch_add(1, Ordering::Relaxed);
        self.again.fetch_add(deaths - 1, Ordering::Relaxed);
        self.decided.fetch_add(u32::try_from(decisions.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    fn failed(&self, what: String, world: &World) {
        self.points.fetch_add(1, Ordering::Relaxed);
        let records = world.contraflow.run(&["show", "last", "--records"]).text();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push(format!("{what}\n{records}"));
        drop(failures);
        // So that it does not stand in the way of the next.
        world.contraflow.run(&["abandon", "last"]);
    }

    /// Told past the test runner, which shows what a test prints only when it fails.
    fn tell(&self, plot: &Plot, begun: Instant) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let points = self.points.load(Ordering::Relaxed);
        let passed = points as usize - failures.len();
        let (again, decided) = (self.again.load(Ordering::Relaxed), self.decided.load(Ordering::Relaxed));
        let seconds = begun.elapsed().as_secs();
        let line = format!(
            "killed: {} ({:?}): {points} points, {passed} passed, {again} of them killed twice, \
             {decided} decisions of a person, {seconds} s\n",
            plot.name, plot.store
        );
        drop(std::io::stderr().write_all(line.as_bytes()));
        let shown: Vec<&str> = failures.iter().take(3).map(String::as_str).collect();
        assert!(failures.is_empty(), "{} of {points} failed:\n{}", failures.len(), shown.join("\n\n"));
        assert!(points > 50 / plot.each, "only {points} places to die");
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

const RUN: Plot = Plot { name: "a run", store: Store::Sqlite, end: "well", later: false, exit: 0, each: 1 };

#[test]
fn a_run_killed_anywhere_comes_to_the_same_end_and_does_nothing_twice() {
    RUN.everywhere();
}

#[test]
fn a_run_that_fails_killed_anywhere_is_undone_as_if_nobody_had_died() {
    Plot { name: "a run that fails", end: "failure", exit: 3, ..RUN }.everywhere();
}

#[test]
fn a_run_that_a_guard_stops_killed_anywhere_is_undone_as_if_nobody_had_died() {
    Plot { name: "a run that a guard stops", end: "breach", exit: 3, each: 3, ..RUN }.everywhere();
}

#[test]
fn a_run_that_a_branch_stops_killed_anywhere_is_undone_as_if_nobody_had_died() {
    Plot { name: "a run that a branch stops", end: "branch", exit: 3, each: 3, ..RUN }.everywhere();
}

#[test]
fn a_later_rollback_killed_anywhere_is_gone_on_with_by_another() {
    Plot { name: "a later rollback", later: true, ..RUN }.everywhere();
}

/// Killed everywhere, and not taken up but undone at once.
#[test]
fn a_dead_run_can_be_rolled_back_from_wherever_it_died() {
    let plot = Plot { name: "a dead run, rolled back", each: 2, ..RUN };
    plot.with_worlds([0; 2], |world, place, n| {
        plot.begin(world);
        let done = plot.act(&dying(&world.contraflow, place, n));
        if done.code != KILLED {
            done.exits(plot.exit);
            return None;
        }
        let mut decisions = Decisions::new();
        let done = go_on(world, &world.contraflow, "rollback", &mut decisions);
        // Also where it had changed nothing yet.
        assert_eq!(done.code, 0, "{}", done.text());
        world.contraflow.run(&["verify", "last"]).exits(0);
        assert_eq!(world.balancer.weights(), Balancer::first());
        assert!(
            world
                .database
                .tables()
                .split(' ')
                .all(|table| ["marks", "_contraflow_migrations"].contains(&table))
        );
        let files = world.files();
        let left: Vec<_> = files.keys().filter(|file| *file != "orders-0").collect();
        assert!(left.is_empty(), "left: {left:?} {}", done.text());
        Some((decisions, 1))
    });
}

#[test]
fn an_approval_is_given_once_whoever_dies_around_it() {
    let plot = Plot { name: "a run that a person approves", each: 2, ..RUN };
    let Some(first) = World::start(plot.store) else { return };
    let wanted = plot.undisturbed(&first);
    drop(first);
    plot.with_worlds([0; 2], |world, place, n| {
        plot.begin(world);
        let mut bob = Approver::default();
        let done = bob.attend(world, &dying(&world.contraflow, place, n), &["run", "story.rhai"]);
        if done.code != KILLED {
            done.exits(0);
            return None;
        }
        let mut decisions = Decisions::new();
        // It may have died before it asked, or before it heard the answer.
        let mut done = bob.attend(world, &world.contraflow, &["resume", "last"]);
        while done.code == 5 && decisions.len() < 8 {
            decisions.extend(decide(world, &done));
            done = bob.attend(world, &world.contraflow, &["resume", "last"]);
        }
        done.exits(0);
        assert!(bob.approved);
        let mut end = plot.settled(world.end());
        if decisions.iter().any(|(id, _)| id.contains("traffic")) {
            end.sets.clone_from(&wanted.sets);
        }
        end.is(&wanted);
        let answers = world.records();
        let by = |record: &&Value| record["entry"]["replied"]["reply"]["by"] == "bob";
        assert_eq!(answers.iter().filter(by).count(), 1);
        Some((decisions, 1))
    });
}

#[test]
fn a_run_kept_in_postgresql_killed_anywhere_comes_to_the_same_end() {
    Plot { name: "a run", store: Store::Postgres, each: 3, ..RUN }.everywhere();
}

#[test]
fn a_run_that_fails_kept_in_postgresql_killed_anywhere_is_undone() {
    Plot { name: "a run that fails", store: Store::Postgres, end: "failure", exit: 3, each: 3, ..RUN }
        .everywhere();
}
