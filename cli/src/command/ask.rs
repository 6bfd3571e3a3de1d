//! `cutover pause` and `cutover abort`: a run that goes on somewhere else is told to stop.

use std::time::Duration;

use cutover_runtime::{
    error::{RunError, codes},
    event::RunOutcome,
    journal::{Request, RequestKind, RunStatus},
};

use crate::{
    args::{Exit, Global, Output, later::Ask},
    command::{Refused, print},
    session::{Place, find_run, who},
};

/// How often to look whether it has stopped.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(super) async fn execute(args: &Ask, kind: RequestKind, global: &Global) -> Result<Exit, Refused> {
    let (store, mut run) = find_run(&Place::find(global)?, &args.run).await?;
    let failed = |e: cutover_runtime::journal::StoreError| Refused::failed(e.into());
    if !run.is_alive() {
        let (id, stands) = (&run.id, run.status.as_str().replace('_', " "));
        let error = match run.status {
            RunStatus::Running => {
                RunError::new(codes::NOT_RESUMABLE, format!("nobody works on run {id}: its process died"))
            }
            RunStatus::Ended(_) => {
                RunError::new(codes::NOT_RESUMABLE, format!("run {id} has stopped: {stands}"))
            }
        };
        let error = if run.status.can_go_on() {
            error.hint(format!("cutover resume {id}, cutover rollback {id}, or cutover abandon {id}"))
        } else {
            error
        };
        return Err(Refused::failed(error));
    }
    store.request(&run.id, &Request { kind, by: who() }).await.map_err(failed)?;
    while !args.no_wait && run.is_alive() {
        tokio::time::sleep(LOOK_EVERY).await;
        let found = store.find(&run.id).await.map_err(failed)?;
        run = found.into_iter().next().unwrap_or(run);
    }
    let stands = run.status.as_str();
    match global.output {
        Output::Json => print(&format!("{}\n", serde_json::json!({ "run": run.id, "state": stands }))),
        Output::Human if run.is_alive() => {
            print(&format!("asked: run {} stops at its next safe point\n", run.id));
        }
        Output::Human => print(&format!("run {}: {}\n", run.id, stands.replace('_', " "))),
    }
    let wanted = match kind {
        RequestKind::Pause => RunOutcome::Paused,
        RequestKind::Abort => RunOutcome::Aborted,
        RequestKind::Rollback => RunOutcome::RolledBack,
    };
    let met = run.is_alive() || run.status == RunStatus::Ended(wanted);
    Ok(if met { Exit::Success } else { Exit::Failed })
}
