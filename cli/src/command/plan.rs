//! `contraflow plan`: what a run would do.

use std::{
    io::stdout,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use contraflow_runtime::{
    Runtime, SavedPlan, Stop,
    error::codes,
    event::{RunOutcome, Sink},
    journal::Store,
};

use crate::{
    args::{Exit, Output, Plan},
    command::{Refused, complain, paths, print},
    context::Context,
    files, interrupt,
    needs::{Held, Need},
    render::Sources,
    report::{
        Out,
        json::JsonLines,
        plan::{PlanReport, foot, saved},
        theme::Theme,
    },
    scripts::Scripts,
    session::{Place, Session, failed, read_params, read_plan, who},
};

pub(super) async fn execute(args: &Plan, context: &Context) -> Result<Exit, Refused> {
    let exit = match &args.show {
        Some(file) => show(file, context).await,
        None if args.all_paths => paths::execute(args, context).await,
        None => plan(args, context).await,
    };
    // With --detailed-exitcode, 2 means changes, so that everything that went wrong is 1.
    match exit {
        Err(refused) if args.detailed_exitcode => {
            Ok(complain(&refused.errors, &refused.sources, context, Exit::Failed))
        }
        other => other,
    }
}

async fn plan(args: &Plan, context: &Context) -> Result<Exit, Refused> {
    let sink: Arc<dyn Sink> = match context.global.output {
        Output::Human => Arc::new(PlanReport::new(Out::stdout(), Theme::of(&stdout()))),
        Output::Json => Arc::new(JsonLines::new(Out::stdout())),
    };
    let refused = |error| Refused::input(vec![error], Sources::new());
    if let Some(save) = args.save.as_deref().filter(|save| !args.force && save.symlink_metadata().is_ok()) {
        return Err(refused(files::exists(save)));
    }
    let session = Session::open(context, args.with.env.as_deref(), &args.with.faults)?;
    let bundle = Session::bundle(args.file.as_deref().unwrap_or(Path::new("")))?;
    let params = read_params(&args.with)?;
    let mut builder = session.runtime().sink(sink).started_by(who());
    let store = earlier(&session).await;
    if let Some(store) = &store {
        builder = builder.store(Arc::clone(store));
    }
    let runtime = builder.build();
    let stop = Stop::default();
    interrupt::watch(&stop, context.program.name);
    let planned = runtime.foresee(&bundle, &params, &stop).await.map_err(|e| session.refuse(e.0, &bundle))?;
    let report = &planned.report;
    if let Some(error) = &report.error {
        let mut error = error.clone();
        if args.save.is_some() {
            error.hints.push("the plan was not saved: only a complete plan can be saved".to_owned());
        }
        let exit = bundle.complain(error, context, Exit::from(report.outcome));
        return Ok(if args.detailed_exitcode { Exit::Failed } else { exit });
    }
    debug_assert_eq!(report.outcome, RunOutcome::Succeeded);
    let needs = Need::look(&planned.foreseen, runtime.providers()).await;
    let changed =
        |target: &str| planned.foreseen.changes.iter().any(|change| change.target.as_str() == target);
    let held = match &store {
        // What lives in this process no other run can reach.
        Some(store) if !runtime.providers().is_ephemeral() => {
            Held::look(&**store, session.environment(), changed).await
        }
        _ => Vec::new(),
    };
    let mut kept: Option<(PathBuf, SavedPlan)> = None;
    if let Some(file) = &args.save {
        let plan = runtime.save(&planned, &bundle, args.expires.0.0).map_err(Refused::failed)?;
        let write = if args.force { files::replace_private } else { files::create_private };
        write(file, &plan.to_json()).map_err(refused)?;
        kept = Some((file.clone(), plan));
    }
    let foot = foot::Foot {
        foreseen: &planned.foreseen,
        needs: &needs,
        held: &held,
        approvals: &session.approvals(),
        saved: kept.as_ref().map(|(file, plan)| (&**file, plan)),
        program: context.program.name,
    };
    match context.global.output {
        Output::Human => print(&foot.show(Theme::of(&stdout()))),
        Output::Json => print(&foot.json()),
    }
    Ok(if args.detailed_exitcode && report.changes > 0 { Exit::Changes } else { Exit::Success })
}

/// A plan waits no longer than this for a store that only says how long earlier runs took.
const PATIENCE: Duration = Duration::from_secs(2);

/// The store with earlier runs, if there is one. A plan can do without.
async fn earlier(session: &Session) -> Option<Arc<dyn Store>> {
    let place = session.place().ok()?;
    tokio::time::timeout(PATIENCE, place.look()).await.ok()?.ok()?
}

/// A saved plan again.
async fn show(file: &Path, context: &Context) -> Result<Exit, Refused> {
    let plan = read_plan(file)?;
    if context.global.output == Output::Json {
        print(&format!("{}\n", serde_json::to_string(&plan).unwrap_or_default()));
        return Ok(Exit::Success);
    }
    let (mut used, mut said) = (None, Vec::new());
    if let Some(store) = Place::find(context)?.look().await? {
        used = store.plan_used(&plan.id).await.map_err(failed)?;
        said = store.approvals(&plan.id).await.map_err(failed)?;
    }
    let theme = Theme::of(&stdout());
    print(&saved::show(&plan, used.as_deref(), &said, jiff::Timestamp::now(), theme));
    Ok(Exit::Success)
}

/// A run of a saved plan.
pub(super) async fn run(
    runtime: &Runtime,
    plan: &SavedPlan,
    stop: &Stop,
) -> Result<contraflow_runtime::Report, Refused> {
    runtime.run_plan(plan, stop).await.map_err(|errors| {
        let refused = [codes::SAVED_PLAN, codes::DENIED_BY_POLICY, codes::DENIED, codes::JOURNAL];
        match errors.0.as_slice() {
            [error] if refused.iter().any(|code| error.is(code)) || !error.frames.is_empty() => {
                Scripts::stored(plan.bundle.clone()).failed(error.clone())
            }
            _ => Scripts::stored(plan.bundle.clone()).refuse(errors.0),
        }
    })
}
