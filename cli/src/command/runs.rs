//! `cutover runs`: what was run, newest first.

use std::io::stdout;

use cutover_runtime::journal::{Asked, Store as _, StoreError};
use jiff::Timestamp;

use crate::{
    args::{Exit, Global, Output, Runs},
    command::{Refused, print},
    report::{
        table::{self, RunRow, Waiting},
        theme::Theme,
    },
    session::{Session, look},
};

pub(super) async fn execute(args: &Runs, global: &Global) -> Result<Exit, Refused> {
    let folder = Session::folder_of_runs(global)?;
    let limit = if args.all { u32::MAX } else { args.limit };
    let failed = |e: StoreError| Refused::failed(e.into());
    let (runs, asked) = match look(&folder).await? {
        Some(store) => (store.runs(limit).await.map_err(failed)?, store.asked(None).await.map_err(failed)?),
        None => (Vec::new(), Vec::new()),
    };
    let rows: Vec<RunRow> = runs
        .into_iter()
        .map(|run| RunRow {
            alive: run.is_alive(),
            waits_for: asked
                .iter()
                .filter(|asked| asked.run == run.id)
                .map(|Asked { id, question, at, until, .. }| Waiting {
                    id: id.clone(),
                    question: question.text.clone(),
                    by: question.rule.by.clone(),
                    since: *at,
                    until: *until,
                })
                .collect(),
            elapsed_ms: run
                .ended_at
                .map(|end| u64::try_from(end.duration_since(run.started_at).as_millis()).unwrap_or(0)),
            run: run.id,
            runbook: format!("{} {}", run.runbook, run.version),
            environment: run.environment,
            state: run.status.as_str().to_owned(),
            started: run.started_at,
            started_by: run.started_by,
        })
        .collect();
    match global.output {
        Output::Json => print(&table::json(&rows)),
        Output::Human if rows.is_empty() => print("no runs yet: begin with `cutover run FILE`\n"),
        Output::Human => print(&table::columns(&rows, Timestamp::now(), Theme::of(&stdout()))),
    }
    Ok(Exit::Success)
}
