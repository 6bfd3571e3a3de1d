//! `contraflow resume` and `contraflow rollback`: a run is taken up again. One that is at work is asked to undo itself.

use std::sync::Arc;

use contraflow_runtime::{
    Stop, Takeover,
    error::codes,
    event::RunOutcome,
    journal::{RequestKind, Run, RunStatus, Store},
};

use crate::{
    args::{
        Exit,
        later::{Resume, Rollback, TakeUp},
    },
    command::{Refused, ask},
    context::Context,
    interrupt,
    people::who_answers,
    report,
    scripts::Scripts,
    session::{Place, Session, find_run, who},
};

pub(super) async fn execute(args: &Resume, context: &Context) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(context)?, &args.take_up.run).await?;
    let new_script = args.from_new_script.as_deref().map(Session::bundle).transpose()?;
    take_up(store, run, &args.take_up, new_script, false, context).await
}

pub(super) async fn roll_back(args: &Rollback, context: &Context) -> Result<Exit, Refused> {
    let (store, mut run) = find_run(&Place::find(context)?, &args.take_up.run).await?;
    if run.is_alive() && !args.take_up.take_over {
        run = ask::ask(&*store, run, RequestKind::Rollback, !args.no_wait).await?;
        let exit = match run.status {
            RunStatus::Running if run.is_alive() => Some(Exit::Success),
            RunStatus::Ended(RunOutcome::RolledBack) => Some(Exit::Success),
            // It tried, or somebody stopped it meanwhile: whoever asked decides.
            RunStatus::Ended(outcome @ (RunOutcome::RollbackIncomplete | RunOutcome::Paused)) => {
                Some(Exit::from(outcome))
            }
            // It died or came to another end before it heard.
            RunStatus::Running | RunStatus::Ended(_) => None,
        };
        if let Some(exit) = exit {
            ask::tell(&run, context);
            return Ok(exit);
        }
    }
    take_up(store, run, &args.take_up, None, true, context).await
}

async fn take_up(
    store: Arc<dyn Store>,
    run: Run,
    args: &TakeUp,
    new_script: Option<Scripts>,
    rollback: bool,
    context: &Context,
) -> Result<Exit, Refused> {
    let session = Session::open(context, Some(&run.environment), &[])?;
    // A run that was begun here may go on here, whatever the environment has become meanwhile; its state is what counts.
    let known = store.bundle(&run.bundle).await.map_err(|e| Refused::failed(e.into()))?;
    let bundle = new_script.clone().or(known.map(Scripts::stored));
    let new_script = new_script.map(Scripts::into_bundle);
    let sink = report::of_run(context.global.output);
    let runtime = session
        .runtime()
        .sink(sink)
        .people(who_answers(args.yes, args.wait, context))
        .store(Arc::clone(&store))
        .started_by(who())
        .build();
    let stop = Stop::default();
    interrupt::watch(&stop, context.program.name);
    let how = Takeover { take_over: args.take_over, new_script };
    let report = if rollback {
        runtime.roll_back(&run, how, &stop).await
    } else {
        runtime.resume(&run, how, &stop).await
    };
    let report = report.map_err(|errors| match (errors.0.as_slice(), &bundle) {
        ([error], _) if error.is(codes::NOT_RESUMABLE) || error.is(codes::JOURNAL) => {
            Refused::failed(error.clone())
        }
        (_, Some(bundle)) => session.refuse(errors.0, bundle),
        (_, None) => Refused::input(errors.0, crate::render::Sources::new()),
    })?;
    // Whoever asked for the rollback wants to know whether it was done.
    let done = rollback && report.outcome == RunOutcome::RolledBack;
    let exit = if done { Exit::Success } else { Exit::from(report.outcome) };
    let Some(error) = report.error.filter(|_| !done) else { return Ok(exit) };
    let exit = if error.is(codes::INTERNAL) && exit == Exit::Failed { Exit::Internal } else { exit };
    Ok(bundle.unwrap_or_default().complain(error, context, exit))
}
