//! One execution of a script: its kernel, its thread, and what goes on next to it.

use std::{sync::Arc, thread, time::Duration};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use super::{Inner, Report, Runtime};
use crate::{
    bundle::Bundle,
    error::{RunError, codes},
    event::{Envelope, RunOutcome, Sink},
    executor::Executor,
    journal::{
        Heartbeat, Journal, Keeper, Replay, Request, RequestKind, RunStatus, Store, StoreError,
        record::GENESIS, run::HEARTBEAT_INTERVAL,
    },
    kernel::{Ended, Kernel, Setup, enforcement::Enforcement},
    plan::Draft,
    script::{self, Prepared, STACK, Session},
    stop::Stop,
    world::World,
};

/// How often buffered records are handed to the store, so that others can look at a run while it goes on.
const FLUSH_EVERY: Duration = Duration::from_millis(100);

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
        let session = Arc::new(self.session(&prepared, world, execution, stop));
        let kernel = Arc::clone(&session.kernel);
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
        let ended = on_a_thread(Arc::clone(&session), Arc::clone(&self.inner), prepared).await;
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
        session.release();
        if let Some(draft) = &kernel.plan.draft {
            draft.scrub(&kernel.shared.vault);
        }
        let Ended { outcome, error, left, changes, elapsed_ms, estimate_ms } = ended;
        Report { run, outcome, error, left, changes, elapsed_ms, estimate_ms }
    }

    /// The session of one execution.
    fn session(
        &self,
        prepared: &Prepared,
        world: Arc<dyn World>,
        execution: Execution,
        stop: &Stop,
    ) -> Session {
        let here = &self.inner.started_by;
        let mut sinks: Vec<Arc<dyn Sink>> = match &execution.draft {
            Some(draft) => {
                let draft = Arc::clone(draft);
                vec![Arc::new(move |event: &Envelope| draft.event(event))]
            }
            None => Vec::new(),
        };
        if !execution.silent {
            sinks.extend(self.inner.sinks.iter().cloned());
        }
        let kernel = Kernel::new(Setup {
            run: &execution.run,
            runbook: (&prepared.header.name, &prepared.header.version),
            params: &prepared.params,
            deadline: prepared.header.deadline.map(|span| span.0),
            limits: self.inner.limits,
            people: (execution.started_by.as_ref().unwrap_or(here), here),
            roles: Arc::clone(&self.inner.roles),
            providers: Arc::clone(&self.inner.providers),
            clock: Arc::clone(&self.inner.clock),
            vault: Arc::default(),
            sinks: sinks.into(),
            world,
            executor: Executor::Real(Handle::current()),
            policies: self.inner.policies.clone(),
            keeper: execution.store.map_or(Keeper::Nobody, Keeper::Store),
            epoch: execution.epoch,
            last: execution.last,
            replay: execution.replay,
            replay_only: execution.replay_only,
            only_undo: execution.only_undo,
            new_script: execution.new_script,
            enforcement: execution.enforcement,
            draft: execution.draft,
            stop,
            is_announced: false,
        });
        Session::new(Arc::new(kernel), Arc::clone(&prepared.bundle), Arc::clone(&prepared.loaded.places))
    }
}

/// Runs the script on a thread of its own: it blocks while async work is done for it. `None`: the thread could not run.
async fn on_a_thread(session: Arc<Session>, inner: Arc<Inner>, prepared: Prepared) -> Option<Ended> {
    let (send, receive) = oneshot::channel();
    let run = move || {
        let params = script::to_script(&prepared.params);
        let mut engine = script::build(&inner.functions, &inner.limits, Arc::clone(&prepared.loaded.imports));
        let _ = send.send(session.execute(&mut engine, &prepared.loaded, params));
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
                RequestKind::Pause => kernel.life.stop.pause(&by),
                RequestKind::Abort => kernel.life.stop.end(&by),
                RequestKind::Rollback => kernel.life.stop.cancel_by(&by),
            },
            Ok(Heartbeat::Lost) => {
                kernel.end_with(StoreError::lost(&kernel.facts.run).into());
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
