//! `contraflow abandon`: a run that nobody works on is given up; its targets are free again.

use contraflow_runtime::journal;
use jiff::Timestamp;

use crate::{
    args::{Exit, Output, later::Abandon},
    command::{Refused, print},
    context::Context,
    session::{Place, find_run, who},
};

pub(super) async fn execute(args: &Abandon, context: &Context) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(context)?, &args.run).await?;
    let locks = store.locks().await.map_err(|e| Refused::failed(e.into()))?;
    let freed: Vec<String> =
        locks.into_iter().filter(|lock| lock.run == run.id).map(|lock| lock.target).collect();
    journal::abandon(&*store, &run, &who(), Timestamp::now()).await.map_err(Refused::failed)?;
    match context.global.output {
        Output::Json => {
            print(&format!("{}\n", serde_json::json!({ "run": run.id, "state": "aborted", "freed": freed })));
        }
        Output::Human => {
            let freed = if freed.is_empty() {
                "it held no locks".to_owned()
            } else {
                format!("released locks: {}", freed.join(", "))
            };
            print(&format!(
                "run {0} is abandoned; {freed}\nits changes stay; to undo them: {1} rollback {0}\n",
                run.id, context.program.name
            ));
        }
    }
    Ok(Exit::Success)
}
