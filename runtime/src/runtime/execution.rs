//! One execution of a script: its kernel, its thread, and what goes on next to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use super::{Inner, Report, Runtime};
use crate::{
    effect::Surroundings,
    error::{RunError, codes},
    event::{Emitter, Event, Mode, RunOutcome},
    executor::Executor,
    journal::{
        Entry, Heartbeat, Journal, Keeper, Replay, Request, RequestKind, RunStatus, Store, StoreError,
        record::GENESIS, run::HEARTBEAT_INTERVAL,
    },
    kernel::{Ended, Kernel, State, enforcement::Enforcement},
    plan::Draft,
    script::{self, Budget, Bundle, Header, Loaded},
    secret::Vault,
    stop::Stop,
    world::World,
};

/// Stack of the thread that runs a script: a step in a function takes some 70 KB in a debug build.
pub(crate) const STACK: usize = 64 << 20;

/// How often buffered records are handed to the store, so that others can look at a run while it goes on.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// A bundle that can be run.
pub(crate) struct Prepared {
    pub(crate) header: Header,
    pub(crate) loaded: Loaded,
    pub(crate) params: BTreeMap<String, Value>,
    pub(crate) bundle: Arc<Bundle>,
}

/// What distinguishes one execution of a script from another.
pub(super) struct Execution {
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) replay: Replay,
    pub(super) replay_only: bool,
    pub(super) run: String,
    pub(super) epoch: i64,
    /// Place and hash of the last record.
    pub(super) last: (u64, [u8; 32]),
    pub(super) only_undo: Option<RunError>,
    pub(super) new_script: Option<Bundle>,
    /// Who began the run, if that is not whoever runs it now.
    pub(super) started_by: Option<String>,
    /// The plan that it must keep to.
    pub(super) enforcement: Option<Enforcement>,
    /// Where a plan collects what it foresees.
    pub(super) draft: Option<Arc<Draft>>,
    /// Nobody hears its events.
    pub(super) silent: bool,
}

impl Execution {
    pub(super) fn new(run: String) -> Self {
        Self {
            store: None,
            replay: Replay::default(),
            replay_only: false,
            run,
            epoch: 1,
            last: (0, GENESIS),
            only_undo: None,
            new_script: None,
            started_by: None,
            enforcement: None,
            draft: None,
            silent: false,
        }
    }
}

impl Runtime {
    pub(super) async fn execute(
        &self,
        prepared: Prepared,
        world: Arc<dyn World>,
        execution: Execution,
        stop: &Stop,
    ) -> Report {
        let (run, replay_only) = (execution.run.clone(), execution.replay_only);
        let kernel = Arc::new(self.kernel(&prepared, world, execution, stop));
        let journal = Arc::clone(&kernel.journal);
        let over = CancellationToken::new();
        let helpers: Vec<_> = if journal.is_kept() {
            vec![
                tokio::spawn(flush(Arc::clone(&journal), over.clone())),
                tokio::spawn(heartbeat(Arc::clone(&journal), Arc::clone(&kernel), over.clone())),
            ]
        } else {
            Vec::new()
        };
        // Also if nobody waits for the run any more.
        let over = over.drop_guard();
        let unwatched = Unwatched(Some(stop.clone()));
        let ended = on_a_thread(Arc::clone(&kernel), Arc::clone(&self.inner), prepared).await;
        unwatched.came_to_its_end();
        drop(over);
        for helper in helpers {
            // Not broken off: the records that it holds would be lost.
            let _ = helper.await;
        }
        let mut ended = ended.unwrap_or_else(|| kernel.died());
        let lost = ended.error.as_ref().is_some_and(|error| error.is(codes::LOST));
        let durable = journal.acted();
        let now = kernel.shared.clock.now();
        if !replay_only
            && !lost
            && let Err(error) = journal.end(RunStatus::Ended(ended.outcome), now, durable).await
            && ended.error.is_none()
        {
            // All is done, but the journal does not say so: going on brings it to its end.
            ended.outcome = RunOutcome::Paused;
            ended.error = Some(error);
        }
        kernel.tell_end(&ended);
        kernel.release();
        if let Some(draft) = &kernel.state.draft {
            draft.scrub(&kernel.shared.vault);
        }
        let Ended { outcome, error, left, changes, elapsed_ms, estimate_ms } = ended;
        Report { run, outcome, error, left, changes, elapsed_ms, estimate_ms }
    }

    /// The kernel of one execution, with a journal that goes on where it ended; says that the run begins.
    fn kernel(
        &self,
        prepared: &Prepared,
        world: Arc<dyn World>,
        execution: Execution,
        stop: &Stop,
    ) -> Kernel {
        let Execution {
            store,
            replay,
            replay_only,
            run,
            epoch,
            last: (seq, hash),
            only_undo,
            new_script,
            started_by,
            enforcement,
            draft,
            silent,
        } = execution;
        let environment = self.inner.providers.environment().to_owned();
        let clock = Arc::clone(&self.inner.clock);
        let vault = Arc::<Vault>::default();
        let sinks = if silent { Arc::default() } else { Arc::clone(&self.inner.sinks) };
        let emitter = Emitter::new(&run, sinks, Arc::clone(&clock), Arc::clone(&vault));
        emitter.emit(Event::RunStarted {
            runbook: prepared.header.name.clone(),
            version: prepared.header.version.clone(),
            environment: environment.clone(),
            mode: if replay_only { Mode::Replay } else { world.mode() },
            params: serde_json::to_value(&prepared.params).unwrap_or_default(),
            plan: enforcement.as_ref().map(|enforcement| enforcement.binding.plan.clone()),
        });
        let journal = Arc::new(Journal::new(
            store.map_or(Keeper::Nobody, Keeper::Store),
            &run,
            epoch,
            seq,
            hash,
            Arc::clone(&vault),
        ));
        if epoch > 1 {
            let (by, rollback) = (self.inner.started_by.clone(), only_undo.is_some());
            journal.add(clock.now(), "run", &Entry::Resumed { by: by.clone(), epoch, rollback });
            emitter.emit(Event::Resumed { by, epoch, rollback });
        }
        let deadline = prepared.header.deadline.map(|span| span.0);
        let budget = Budget::new(self.inner.limits, deadline, Arc::clone(&clock));
        Kernel {
            run: Arc::from(run),
            environment,
            bundle: Arc::clone(&prepared.bundle),
            places: Arc::clone(&prepared.loaded.places),
            shared: Arc::new(Surroundings {
                providers: Arc::clone(&self.inner.providers),
                clock,
                vault,
                reporter: Arc::new(emitter.clone()),
            }),
            emitter,
            world,
            journal,
            replay,
            replay_only,
            only_undo,
            new_script: Mutex::new(new_script),
            executor: Executor::Real(Handle::current()),
            policies: self.inner.policies.clone(),
            budget,
            // Its own, so that an error can stop all branches.
            cancel: stop.child(),
            stop: stop.clone(),
            live: CancellationToken::new(),
            roles: Arc::clone(&self.inner.roles),
            started_by: started_by.unwrap_or_else(|| self.inner.started_by.clone()),
            state: State::new(enforcement, draft),
        }
    }
}

/// Runs the script on a thread of its own: it blocks while async work is done for it. `None`: the thread could not run.
async fn on_a_thread(kernel: Arc<Kernel>, inner: Arc<Inner>, prepared: Prepared) -> Option<Ended> {
    let (send, receive) = oneshot::channel();
    let run = move || {
        let params = script::to_script(&prepared.params);
        let mut engine = script::build(&inner.functions, &inner.limits, Arc::clone(&prepared.loaded.imports));
        let _ = send.send(kernel.execute(&mut engine, &prepared.loaded, params));
    };
    thread::Builder::new().name("script".into()).stack_size(STACK).spawn(run).ok()?;
    receive.await.ok()
}

/// Hands buffered records to the store now and then. Others look at them in real time, whatever the clock of the run says.
async fn flush(journal: Arc<Journal>, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        if journal.flush().await.is_err() {
            // Whoever needs the journal next is told why it failed.
            return;
        }
    }
}

/// Sends heartbeats, and does what others ask of the run. In real time: the store compares them with a clock of its own.
async fn heartbeat(journal: Arc<Journal>, kernel: Arc<Kernel>, over: CancellationToken) {
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
        }
        match journal.heartbeat().await {
            Ok(Heartbeat::Held(Some(Request { kind, by }))) => match kind {
                RequestKind::Pause => kernel.stop.pause(&by),
                RequestKind::Abort => kernel.stop.end(&by),
                RequestKind::Rollback => kernel.stop.cancel_by(&by),
            },
            Ok(Heartbeat::Lost) => {
                kernel.end_with(StoreError::lost(&kernel.run).into());
                return;
            }
            // A store out of reach shows itself where it is needed.
            Ok(Heartbeat::Held(None)) | Err(_) => {}
        }
    }
}

/// Pauses a run that nobody waits for any more.
struct Unwatched(Option<Stop>);

impl Unwatched {
    fn came_to_its_end(mut self) {
        self.0.take();
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(stop) = self.0.take() {
            stop.pause_now("the program that ran it");
        }
    }
}
