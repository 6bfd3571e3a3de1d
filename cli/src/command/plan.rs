//! `cutover plan`: what a run would do.

use std::{io::stdout, sync::Arc};

use cutover_runtime::{
    Stop,
    event::{RunOutcome, Sink},
};

use crate::{
    args::{Exit, Global, Output, Plan},
    command::{Refused, complain},
    interrupt,
    report::{Out, json::JsonLines, plan::PlanReport, theme::Theme},
    session::{Session, read_params},
};

pub(super) async fn execute(args: &Plan, global: &Global) -> Result<Exit, Refused> {
    let exit = plan(args, global).await;
    // With --detailed-exitcode, 2 means changes, so that everything that went wrong is 1.
    match exit {
        Err(refused) if args.detailed_exitcode => {
            Ok(complain(&refused.errors, &refused.sources, global, Exit::Failed))
        }
        other => other,
    }
}

async fn plan(args: &Plan, global: &Global) -> Result<Exit, Refused> {
    let sink: Arc<dyn Sink> = match global.output {
        Output::Human => Arc::new(PlanReport::new(Out::stdout(), Theme::of(&stdout()))),
        Output::Json => Arc::new(JsonLines::new(Out::stdout())),
    };
    let session = Session::open(global, args.script.env.as_deref(), &args.script.faults)?;
    let bundle = Session::bundle(&args.script.file)?;
    let params = read_params(&args.script)?;
    let runtime = session.runtime().sink(sink).build();
    let stop = Stop::default();
    interrupt::watch(&stop);
    let report =
        runtime.plan_until(&bundle, &params, &stop).await.map_err(|e| session.refuse(e.0, &bundle))?;
    if let Some(error) = &report.error {
        let exit = complain(std::slice::from_ref(error), &bundle.files, global, Exit::from(report.outcome));
        return Ok(if args.detailed_exitcode { Exit::Failed } else { exit });
    }
    debug_assert_eq!(report.outcome, RunOutcome::Succeeded);
    Ok(if args.detailed_exitcode && report.changes > 0 { Exit::Changes } else { Exit::Success })
}
