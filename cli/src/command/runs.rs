//! `contraflow runs`: what was run, newest first.

use std::io::stdout;

use contraflow_runtime::{
    effect::Reply,
    journal::{Asked, Store},
};
use jiff::Timestamp;

use crate::{
    args::{Exit, Output, Runs},
    command::{Refused, print},
    context::Context,
    report::{
        table::{self, RunRow},
        theme::Theme,
    },
    session::{Place, failed},
};

pub(super) async fn execute(args: &Runs, context: &Context) -> Result<Exit, Refused> {
    let limit = if args.all { u32::MAX } else { args.limit };
    let (runs, asked) = match Place::find(context)?.look().await? {
        Some(store) => (store.runs(limit).await.map_err(failed)?, asked(&*store, None).await?),
        None => (Vec::new(), Vec::new()),
    };
    let rows: Vec<RunRow> = runs.into_iter().map(|run| RunRow::new(run, &asked)).collect();
    match context.global.output {
        Output::Json => print(&table::json(&rows)),
        Output::Human if rows.is_empty() => {
            print(&format!("no runs yet: start one with `{} run FILE`\n", context.program.name));
        }
        Output::Human => print(&table::columns(&rows, Timestamp::now(), Theme::of(&stdout()))),
    }
    Ok(Exit::Success)
}

/// The open questions of a run, or of all, each with the answers that were given so far: a run takes them only while it is at work.
pub(super) async fn asked(store: &dyn Store, run: Option<&str>) -> Result<Vec<(Asked, Vec<Reply>)>, Refused> {
    let mut all = Vec::new();
    for asked in store.asked(run).await.map_err(failed)? {
        let replies = store.answers(&asked.run, &asked.id).await.map_err(failed)?;
        all.push((asked, replies));
    }
    Ok(all)
}
