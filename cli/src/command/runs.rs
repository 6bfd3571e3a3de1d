//! `cutover runs`: what was run, newest first.

use std::io::stdout;

use jiff::Timestamp;

use crate::{
    args::{Exit, Global, Output, Runs},
    command::{Refused, print},
    report::{
        table::{self, RunRow},
        theme::Theme,
    },
    session::{Place, failed},
};

pub(super) async fn execute(args: &Runs, global: &Global) -> Result<Exit, Refused> {
    let limit = if args.all { u32::MAX } else { args.limit };
    let (runs, asked) = match Place::find(global)?.look().await? {
        Some(store) => (store.runs(limit).await.map_err(failed)?, store.asked(None).await.map_err(failed)?),
        None => (Vec::new(), Vec::new()),
    };
    let rows: Vec<RunRow> = runs.into_iter().map(|run| RunRow::new(run, &asked)).collect();
    match global.output {
        Output::Json => print(&table::json(&rows)),
        Output::Human if rows.is_empty() => print("no runs yet: begin with `cutover run FILE`\n"),
        Output::Human => print(&table::columns(&rows, Timestamp::now(), Theme::of(&stdout()))),
    }
    Ok(Exit::Success)
}
