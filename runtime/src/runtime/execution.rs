//! One execution of a script: its kernel, its thread, and what goes on next to it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use super::{Inner, Report, Runtime};
use crate::{
    bundle::Bundle,
    error::{NextStep, RunError, codes},
    event::{Envelope, RunOutcome, Sink},
    executor::Executor,
    journal::{
        Heartbeat, Journal, Keeper, Replay, Request, RequestKind, RunStatus, Store, StoreError,
        record::GENESIS,
        run::{HEARTBEAT_INTERVAL, LEASE},
    },
    kernel::{Ended, Kernel, Setup, enforcement::Enforcement},
    plan::Draft,
    quantity::Span,
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

/// How long the store may leave heartbeats unanswered before the runner stops itself. Well before its lease ends, so that nothing of it
/// is under way any more when another may take the run over.
const PATIENCE: Duration = Duration::from_secs(LEASE.as_secs() * 2 / 3);

/// Sends heartbeats, and does what others ask of the run. In real time: the store compares them with a clock of its own.
///
/// **Invariant:** a runner whose heartbeats the store has not taken for two thirds of its lease has nothing under way.
async fn heartbeat(journal: Arc<Journal>, kernel: Arc<Kernel>, over: CancellationToken) {
    let mut held = Instant::now();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(HEARTBEAT_INTERVAL) => {}
        }
        // The lease counts from when it was sent.
        let sent = Instant::now();
        let answer = tokio::time::timeout(PATIENCE.saturating_sub(held.elapsed()), journal.heartbeat()).await;
        match answer {
            Ok(Ok(Heartbeat::Held(request))) => {
                held = sent;
                match request {
                    Some(Request { kind: RequestKind::Pause, by }) => kernel.life.stop.pause(&by),
                    Some(Request { kind: RequestKind::Abort, by }) => kernel.life.stop.end(&by),
                    Some(Request { kind: RequestKind::Rollback, by }) => kernel.life.stop.cancel_by(&by),
                    None => {}
                }
            }
            Ok(Ok(Heartbeat::Lost)) => {
                let lost = RunError::from(StoreError::lost(&kernel.facts.run));
                kernel.end_with(lost.clone());
                kernel.life.stop.cut_off(lost);
                return;
            }
            // Until then, a store out of reach shows itself where it is needed.
            Ok(Err(_)) | Err(_) if held.elapsed() < PATIENCE => {}
            Ok(Err(_)) | Err(_) => {
                let text = format!(
                    "the run store has not answered for {}: everything under way is stopped, because another runner \
                     may take the run over after {}",
                    Span(PATIENCE),
                    Span(LEASE)
                );
                let error = RunError::new(codes::JOURNAL, text)
                    .hint("make the run store reachable")
                    .next_step(NextStep::ResumeRun { run: kernel.facts.run.to_string() });
                kernel.end_with(error.clone());
                kernel.life.stop.cut_off(error);
                return;
            }
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
