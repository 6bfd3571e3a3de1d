//! `contraflow run`: does it.

use std::path::Path;

use contraflow_runtime::{
    SavedPlan, Stop,
    error::{RunError, codes},
};

use crate::{
    args::{Exit, Run},
    command::{Refused, plan},
    context::Context,
    interrupt,
    people::who_answers,
    render::Sources,
    report,
    scripts::Scripts,
    session::{Session, read_params, read_plan, who},
};

pub(super) async fn execute(args: &Run, context: &Context) -> Result<Exit, Refused> {
    let sink = report::of_run(context.global.output);
    let plan = args.plan.as_deref().map(|file| planned(file, args)).transpose()?;
    let environment = plan.as_ref().map(|plan| &*plan.environment).or(args.with.env.as_deref());
    let session = Session::open(context, environment, &args.with.faults)?;
    let file = args.file.as_deref().unwrap_or(Path::new(""));
    let bundle = match &plan {
        Some(plan) => Scripts::stored(plan.bundle.clone()),
        None => Session::bundle(file)?,
    };
    let params = read_params(&args.with)?;
    if plan.is_none() {
        session.allow_run(file)?;
    }
    let store = session.place()?.open().await?;
    let people = who_answers(args.yes, args.wait, context);
    let runtime = session.runtime().sink(sink).people(people).store(store).started_by(who()).build();
    let stop = Stop::default();
    interrupt::watch(&stop, context.program.name);
    let report = match &plan {
        Some(plan) => plan::run(&runtime, plan, &stop).await?,
        None => runtime.run_until(&bundle, &params, &stop).await.map_err(|e| session.refuse(e.0, &bundle))?,
    };
    let exit = Exit::from(report.outcome);
    let Some(error) = report.error else { return Ok(exit) };
    let exit = if error.is(codes::INTERNAL) && exit == Exit::Failed { Exit::Internal } else { exit };
    Ok(bundle.complain(error, context, exit))
}

/// The plan in a file, for the environment that may be named besides.
fn planned(file: &Path, args: &Run) -> Result<SavedPlan, Refused> {
    let plan = read_plan(file)?;
    match args.with.env.as_deref().filter(|env| *env != plan.environment) {
        None => Ok(plan),
        Some(env) => {
            let made = &plan.environment;
            let message = format!("the plan was made for the environment \"{made}\", not for \"{env}\"");
            let error = RunError::new(codes::SAVED_PLAN, message)
                .hint("remove --env (or CONTRAFLOW_ENV): a plan fixes its environment");
            Err(Refused::input(vec![error], Sources::new()))
        }
    }
}
