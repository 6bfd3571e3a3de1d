//! `cutover run`: does it.

use std::{io::stdout, sync::Arc};

use cutover_runtime::{Stop, error::codes, event::Sink};

use crate::{
    args::{Exit, Global, Output, Run},
    command::{Refused, complain},
    interrupt,
    people::who_answers,
    report::{Out, human::Human, json::JsonLines, theme::Theme},
    session::{Session, read_params, who},
};

pub(super) async fn execute(args: &Run, global: &Global) -> Result<Exit, Refused> {
    let sink: Arc<dyn Sink> = match global.output {
        Output::Human => Arc::new(Human::new(Out::stdout(), Theme::of(&stdout()))),
        Output::Json => Arc::new(JsonLines::new(Out::stdout())),
    };
    let session = Session::open(global, args.script.env.as_deref(), &args.script.faults)?;
    let bundle = Session::bundle(&args.script.file)?;
    let params = read_params(&args.script)?;
    session.allow_run()?;
    let store = session.place()?.open().await?;
    let people = who_answers(args.yes, args.wait, global);
    let runtime = session.runtime().sink(sink).people(people).store(store).started_by(who()).build();
    let stop = Stop::default();
    interrupt::watch(&stop);
    let report =
        runtime.run_until(&bundle, &params, &stop).await.map_err(|e| session.refuse(e.0, &bundle))?;
    let exit = Exit::from(report.outcome);
    let Some(error) = report.error else { return Ok(exit) };
    let exit = if error.is(codes::INTERNAL) && exit == Exit::Failed { Exit::Internal } else { exit };
    Ok(complain(&[error], &bundle.files, global, exit))
}
