//! `contraflow pause` and `contraflow abort`: a run that goes on somewhere else is told to stop.

use std::time::Duration;

use contraflow_runtime::{
    error::{RunError, codes},
    event::RunOutcome,
    journal::{Request, RequestKind, Run, RunStatus, Store},
};

use crate::{
    args::{Exit, Output, later::Ask},
    command::{Refused, print},
    context::Context,
    next,
    session::{Place, failed, find_run, who},
};

/// How often to look whether it has stopped.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(super) async fn pause(args: &Ask, context: &Context) -> Result<Exit, Refused> {
    execute(args, RequestKind::Pause, RunOutcome::Paused, context).await
}

pub(super) async fn abort(args: &Ask, context: &Context) -> Result<Exit, Refused> {
    execute(args, RequestKind::Abort, RunOutcome::Aborted, context).await
}

async fn execute(
    args: &Ask,
    kind: RequestKind,
    wanted: RunOutcome,
    context: &Context,
) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(context)?, &args.run).await?;
    if !run.is_alive() {
        let (id, stands) = (&run.id, run.status.as_str().replace('_', " "));
        let error = match run.status {
            RunStatus::Running => {
                RunError::new(codes::NOT_RESUMABLE, format!("run {id} is not running: its process died"))
            }
            RunStatus::Ended(_) => {
                RunError::new(codes::NOT_RESUMABLE, format!("run {id} is not running: {stands}"))
            }
        };
        let error = if run.status.can_go_on() {
            error.hint(next::ways_on(context.program.name, &run))
        } else {
            error
        };
        return Err(Refused::failed(error));
    }
    let run = ask(&*store, run, kind, !args.no_wait).await?;
    tell(&run, context);
    let met = run.is_alive() || run.status == RunStatus::Ended(wanted);
    Ok(if met { Exit::Success } else { Exit::Failed })
}

/// Asks something of a run that is at work. With `wait`, returns when nobody works on it any more; answers how it stands.
pub(super) async fn ask(
    store: &dyn Store,
    mut run: Run,
    kind: RequestKind,
    wait: bool,
) -> Result<Run, Refused> {
    store.request(&run.id, &Request { kind, by: who() }).await.map_err(failed)?;
    while wait && run.is_alive() {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = store.find(&run.id).await.map_err(failed)?;
        run = found.into_iter().find(|found| found.id == run.id).unwrap_or(run);
    }
    Ok(run)
}

/// Prints how a run stands that was asked something.
pub(super) fn tell(run: &Run, context: &Context) {
    let stands = run.status.as_str();
    match context.global.output {
        Output::Json => print(&format!("{}\n", serde_json::json!({ "run": run.id, "state": stands }))),
        Output::Human if run.is_alive() => {
            print(&format!("requested: run {} stops at its next safe point\n", run.id));
        }
        Output::Human if run.status == RunStatus::Ended(RunOutcome::RollbackIncomplete) => {
            print(&format!(
                "run {0}: rollback incomplete; see what is left: {1} show {0}\n",
                run.id, context.program.name
            ));
        }
        Output::Human => print(&format!("run {}: {}\n", run.id, stands.replace('_', " "))),
    }
}
