//! `cutover show`: a run as it was, from its journal.

use std::io::stdout;

use cutover_runtime::{
    event::Sink,
    journal::{Record, Store as _, history},
};

use crate::{
    args::{Exit, Global, Output, Show},
    command::{Refused, print},
    report::{Out, human::Human, json::JsonLines, theme::Theme},
    session::{Session, find_run},
};

pub(super) async fn execute(args: &Show, global: &Global) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Session::folder_of_runs(global)?, &args.run).await?;
    let sealed = store.records(&run.id).await.map_err(|e| Refused::failed(e.into()))?;
    let records: Vec<Record> = sealed
        .iter()
        .map(|record| {
            record.open().map_err(|e| {
                let message = format!("record {} of {} cannot be read: {e}", record.seq, run.id);
                Refused::failed(cutover_runtime::error::RunError::new("journal", message))
            })
        })
        .collect::<Result<_, _>>()?;
    if args.records {
        for (record, sealed) in records.iter().zip(&sealed) {
            let hash: String = sealed.hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            let line = match global.output {
                Output::Json => serde_json::to_string(record).unwrap_or_default(),
                Output::Human => {
                    format!("{:>5}  {}  {hash}  {}  {}", record.seq, record.at, record.id, sealed.body)
                }
            };
            print(&format!("{line}\n"));
        }
        return Ok(Exit::Success);
    }
    let events = history(&run, &records);
    let sink: Box<dyn Sink> = if args.events || global.output == Output::Json {
        Box::new(JsonLines::new(Out::stdout()))
    } else {
        print(&format!(
            "{}  {} {}  {}  by {}  {}\n",
            run.id, run.runbook, run.version, run.environment, run.started_by, run.started_at
        ));
        Box::new(Human::new(Out::stdout(), Theme { live: false, ..Theme::of(&stdout()) }))
    };
    for event in &events {
        sink.event(event);
    }
    Ok(Exit::Success)
}
