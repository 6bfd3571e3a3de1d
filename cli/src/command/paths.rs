//! `contraflow plan --all-paths`: where a run can lead.

use std::{
    io::{stderr, stdout},
    path::Path,
    sync::Arc,
};

use contraflow_runtime::{
    LoadErrors, Stop,
    event::Sink,
    rehearsal::{Bounds, End, Paths, Progress},
};

use crate::{
    args::{Exit, Output, Plan},
    command::{
        Refused, print,
        rehearse::{interrupted, show, tell},
    },
    context::Context,
    report::{
        Out,
        plan::{PlanReport, paths},
        rehearsal::Recorder,
        theme::Theme,
    },
    session::{Session, read_params, who},
};

pub(super) async fn execute(args: &Plan, context: &Context) -> Result<Exit, Refused> {
    let session = Session::open(context, args.with.env.as_deref(), &args.with.faults)?;
    let file = args.file.as_deref().unwrap_or(Path::new(""));
    let bundle = Session::bundle(file)?;
    let params = read_params(&args.with)?;
    let heard = Arc::<Recorder>::default();
    let sink = Arc::clone(&heard) as Arc<dyn Sink>;
    let runtime = session.runtime().sink(sink).started_by(who()).build();
    let (stop, progress) = (Stop::default(), Arc::<Progress>::default());
    let interrupt = tokio::spawn(watch(stop.clone(), Arc::clone(&progress)));
    // A plan finds what would keep the run from coming to its end even if all is as assumed.
    let refuse = |errors: LoadErrors| session.refuse(errors.0, &bundle);
    let planned = runtime.foresee(&bundle, &params, &stop).await.map_err(refuse)?;
    if let Some(error) = &planned.report.error {
        if context.global.output == Output::Human {
            let plan = PlanReport::new(Out::stdout(), Theme::of(&stdout()));
            heard.take().iter().for_each(|event| plan.event(event));
        }
        let error = error.clone().hint("paths are shown only for a complete plan");
        return Ok(bundle.complain(error, context, Exit::from(planned.report.outcome)));
    }
    let most = usize::try_from(args.paths).unwrap_or(usize::MAX);
    let shows = context.global.output == Output::Human && Theme::of(&stderr()).live;
    let shown = shows.then(|| tokio::spawn(show(Arc::clone(&progress), "exploring", "ways")));
    let bounds = Bounds { paths: most, progress };
    let found = runtime.paths(&bundle, &params, bounds).await;
    if let Some(shown) = shown {
        shown.abort();
        tell("\r\u{1b}[K");
    }
    let found: Paths = found.map_err(refuse)?;
    interrupt.abort();
    match context.global.output {
        Output::Human => print(&paths::show(&found, Theme::of(&stdout()))),
        Output::Json => print(&paths::json(&found)),
    }
    Ok(match found.end {
        End::Succeeded if args.detailed_exitcode && planned.report.changes > 0 => Exit::Changes,
        End::Succeeded => Exit::Success,
        // What is there has moved since it was planned.
        _ => Exit::Failed,
    })
}

/// Ctrl-C ends the plan, or ends exploring with what was found so far.
async fn watch(stop: Stop, progress: Arc<Progress>) {
    let paused = async {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.pause(&who());
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = paused => {}
        () = interrupted(progress) => {}
    }
}
