//! What a script may use up: operations, memory, nesting, time.

use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    clock::Clock,
    error::{RunError, codes},
};

/// Bounds on what one run's script may use up by itself. Waiting for effects does not count as operations.
#[derive(Debug, Clone, Copy)]
pub struct ScriptLimits {
    /// Most operations of the interpreter, over the whole run (a million takes some 25 ms).
    pub max_operations: u64,
    /// Most bytes that `memory` may report, if it is set.
    pub max_memory: u64,
    /// Bytes that the process holds at this moment, such as the operating system says. Asked about once in a millisecond.
    pub memory: Option<fn() -> u64>,
    /// Longest time from the start of the run to its end.
    pub max_wall_time: Duration,
    /// Longest text in bytes; all texts in an array or map count together.
    pub max_string: usize,
    /// Most items of an array, with those of the arrays in it.
    pub max_array: usize,
    /// Most entries of a map, with those of the maps in it; all maps in an array count together.
    pub max_map: usize,
    /// Deepest nesting of calls. A step takes three levels.
    pub max_call_levels: usize,
}

impl Default for ScriptLimits {
    fn default() -> Self {
        Self {
            max_operations: 200_000_000,
            max_memory: 512 << 20,
            memory: None,
            max_wall_time: Duration::from_secs(24 * 60 * 60),
            // Room for what 10,000 probes at once find out: nine entries and two addresses each.
            max_string: 16 << 20,
            max_array: 1_000_000,
            max_map: 1_000_000,
            max_call_levels: 128,
        }
    }
}

/// Operations between two looks at the shared counters: an atomic per operation would cost more than most operations.
const STRIDE: u64 = 128;

/// Operations that a script still gets once it has used up all: in them it may come by a call that can tell where it is.
const GRACE: u64 = 4096;

/// Processor time that an operation may take. One that takes longer, because what it works on is large, counts as several.
const USUAL: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 1000 } else { 50 });

/// Operations of usual length between two looks take no longer than this: only then is the processor asked.
const SLOW: Duration = Duration::from_micros(if cfg!(debug_assertions) { 4000 } else { 200 });

thread_local! {
    static SINCE: Cell<u64> = const { Cell::new(0) };
    /// When this thread last looked, and how much processor time it had taken then; not known once it did something other than run
    /// the script.
    static LOOKED: Cell<Option<(Instant, Option<Duration>)>> = const { Cell::new(None) };
    /// The limit, of a script on this thread that has used up its operations.
    static USED_UP: Cell<Option<u64>> = const { Cell::new(None) };
}

/// What this thread did just now was not the script's own work.
pub(crate) fn worked_elsewhere() {
    LOOKED.set(None);
}

/// How many operations more than `STRIDE` those since the last look count as.
fn surcharge() -> u64 {
    let now = Instant::now();
    let Some((since, before)) = LOOKED.replace(Some((now, None))) else { return 0 };
    if now.duration_since(since) < SLOW {
        return 0;
    }
    // It may also have been another process that took so long.
    let taken = processor_time();
    LOOKED.set(Some((now, taken)));
    let (Some(taken), Some(before)) = (taken, before) else { return 0 };
    let operations = taken.saturating_sub(before).as_nanos() / USUAL.as_nanos();
    u64::try_from(operations).unwrap_or(u64::MAX).saturating_sub(STRIDE)
}

/// Processor time of this thread.
fn processor_time() -> Option<Duration> {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

/// The error for a script that has used up its operations on this thread, for a place that can be told.
pub(crate) fn used_up_here() -> Option<RunError> {
    USED_UP.take().map(too_many)
}

fn too_many(max: u64) -> RunError {
    RunError::new(codes::LIMIT, format!("the script ran more than {max} operations"))
        .hint("look for an endless loop, or raise limits.max_operations")
}

/// Between two looks at the memory: to ask how much the process holds takes longer than most of what a script does, and in that
/// time no script gets hold of much.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How much the memory has grown since a run began.
struct Watch {
    memory: Option<fn() -> u64>,
    since: Instant,
    /// When it was last looked at, in microseconds since then.
    looked: AtomicU64,
    /// What was held at the beginning.
    base: AtomicU64,
}

impl Watch {
    fn new(memory: Option<fn() -> u64>) -> Self {
        let watch =
            Self { memory, since: Instant::now(), looked: AtomicU64::new(0), base: AtomicU64::new(0) };
        watch.renew();
        watch
    }

    /// What is held now is not counted.
    fn renew(&self) {
        self.base.store(self.memory.map_or(0, |memory| memory()), Ordering::Relaxed);
    }

    /// By how many bytes it has grown. `None`: nobody counts, or it was looked at a moment ago.
    fn grown(&self) -> Option<u64> {
        let memory = self.memory?;
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        if Duration::from_micros(now.saturating_sub(self.looked.load(Ordering::Relaxed))) < LOOK_EVERY {
            return None;
        }
        self.looked.store(now, Ordering::Relaxed);
        Some(memory().saturating_sub(self.base.load(Ordering::Relaxed)))
    }
}

/// Counts what a run uses up, over all its threads and closures: the interpreter's own count starts anew in every closure that a
/// native function calls.
pub(crate) struct Budget {
    limits: ScriptLimits,
    operations: AtomicU64,
    memory: Watch,
    /// What was done is being undone, which takes the time it takes.
    undoing: AtomicBool,
    clock: Arc<dyn Clock>,
    started: Duration,
    /// The run's own deadline.
    deadline: Option<Duration>,
    /// For how long other runners worked on the run before.
    earlier: OnceLock<Duration>,
}

impl Budget {
    pub(crate) fn new(limits: ScriptLimits, deadline: Option<Duration>, clock: Arc<dyn Clock>) -> Self {
        USED_UP.set(None);
        Self {
            limits,
            operations: AtomicU64::new(0),
            memory: Watch::new(limits.memory),
            undoing: AtomicBool::new(false),
            started: clock.monotonic(),
            clock,
            deadline,
            earlier: OnceLock::new(),
        }
    }

    /// Counts what other runners took, once that is known.
    pub(crate) fn worked_before(&self, span: Duration) {
        let _ = self.earlier.set(span);
    }

    fn longest(&self) -> Duration {
        self.deadline.map_or(self.limits.max_wall_time, |deadline| deadline.min(self.limits.max_wall_time))
    }

    /// Gives the closures of a rollback as much again.
    pub(crate) fn renew(&self) {
        self.undoing.store(true, Ordering::Relaxed);
        self.operations.store(0, Ordering::Relaxed);
        USED_UP.set(None);
        self.memory.renew();
    }

    /// Counts one operation. `stop` is asked now and then whether the run should end.
    pub(crate) fn spend(&self, stop: impl Fn() -> Option<RunError>) -> Option<RunError> {
        let since = SINCE.get() + 1;
        if since < STRIDE {
            SINCE.set(since);
            return None;
        }
        SINCE.set(0);
        let spent = STRIDE.saturating_add(surcharge());
        let operations = self.operations.fetch_add(spent, Ordering::Relaxed).saturating_add(spent);
        let limit = |what: String, hint: &str| Some(RunError::new(codes::LIMIT, what).hint(hint));
        if let Some(over) = operations.checked_sub(self.limits.max_operations).filter(|over| *over > 0) {
            let max = self.limits.max_operations;
            if over > GRACE {
                USED_UP.set(None);
                return Some(too_many(max));
            }
            USED_UP.set(Some(max));
        }
        if self.memory.grown().is_some_and(|grown| grown > self.limits.max_memory) {
            let max = crate::quantity::Size(self.limits.max_memory);
            return limit(
                format!("the script uses more than {max} of memory"),
                "keep less in variables, or raise limits.max_memory",
            );
        }
        let now_and_then = |operations: u64| operations / (STRIDE * 64);
        if now_and_then(operations) != now_and_then(operations - spent)
            && let Some(error) = self.overdue()
        {
            return Some(error);
        }
        stop()
    }

    /// The error for a run that has taken too long.
    pub(crate) fn out_of_time(&self) -> RunError {
        self.too_long("took")
    }

    /// The error for a plan of a run that would be ended before it has done what takes `least`.
    pub(crate) fn would_be_late(&self, least: Duration) -> Option<RunError> {
        (least > self.longest()).then(|| self.too_long("would take"))
    }

    fn too_long(&self, takes: &str) -> RunError {
        let longest = self.longest();
        let error = RunError::new(
            codes::LIMIT,
            format!("the run {takes} longer than {}", crate::quantity::Span(longest)),
        );
        if longest < self.limits.max_wall_time {
            error.hint("that is the `deadline` in the header of the script")
        } else {
            error.hint("raise limits.max_wall_time")
        }
    }

    /// How long the run may still take; nothing while it is being undone.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let undoing = self.undoing.load(Ordering::Relaxed);
        let taken = || {
            let here = self.clock.monotonic().saturating_sub(self.started);
            here + self.earlier.get().copied().unwrap_or_default()
        };
        (!undoing).then(|| self.longest().saturating_sub(taken()))
    }

    /// The error for a run that has taken too long, if it has.
    pub(crate) fn overdue(&self) -> Option<RunError> {
        self.time_left().is_some_and(|left| left.is_zero()).then(|| self.out_of_time())
    }
}
