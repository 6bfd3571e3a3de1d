//! `contraflow snapshot`: writes down what a rehearsal looks at.

use std::{collections::BTreeMap, fmt::Write as _};

use contraflow_runtime::{
    Beginning,
    error::{RunError, codes},
    rehearsal::{Explore, InitialStateFile},
};

use crate::{
    args::{Exit, Output, rehearsal::Snapshot},
    command::{Refused, print, rehearse::refuse},
    context::Context,
    files,
    report::format::clean,
    scenario::Scenario,
    session::{Session, read_params},
};

pub(super) async fn execute(args: &Snapshot, context: &Context) -> Result<Exit, Refused> {
    let session = Session::open(context, args.script.with.env.as_deref(), &args.script.with.faults)?;
    let bundle = Session::bundle(&args.script.file)?;
    let params = read_params(&args.script.with)?;
    if let Some(out) = args.out.as_ref().filter(|out| !args.force && out.symlink_metadata().is_ok()) {
        // Told before anything is looked at.
        return Err(Refused::failed(files::exists(out).hint("or replace it with --force")));
    }
    let refuse = |errors| refuse(errors, &bundle, &Scenario::default());
    let runtime = session.runtime().build();
    let beginning = Beginning { look: true, ..Beginning::default() };
    let rehearsal = runtime.rehearsal(&bundle, &params, &beginning).map_err(refuse)?;
    rehearsal.explore(Explore::default()).await.map_err(refuse)?;
    let header = rehearsal.header();
    let given = rehearsal.params().iter().filter(|(name, _)| params.contains_key(*name));
    let initial_state =
        rehearsal.snapshot(given.map(|(name, value)| (name.clone(), value.clone())).collect());
    let title = format!("{} {} in {}", header.name, header.version, session.environment());
    let text = written(&title, &initial_state, &rehearsal.unseen()).map_err(Refused::failed)?;
    let Some(out) = &args.out else {
        print(&text);
        return Ok(Exit::Success);
    };
    let done = if args.force { files::replace(out, &text) } else { files::create(out, &text) };
    done.map_err(Refused::failed)?;
    let shown = out.display();
    match context.global.output {
        Output::Json => print(&format!("{}\n", serde_json::json!({ "written": [shown.to_string()] }))),
        Output::Human => print(&format!(
            "wrote {shown}\n\nNext:\n  {} rehearse {} --scenario {shown} --no-look\n",
            context.program.name,
            args.script.file.display()
        )),
    }
    Ok(Exit::Success)
}

/// The text of the file.
fn written(
    title: &str,
    initial_state: &InitialStateFile,
    unseen: &BTreeMap<String, String>,
) -> Result<String, RunError> {
    let body = toml::to_string_pretty(initial_state).map_err(|e| {
        RunError::new(codes::ARGUMENT, format!("the snapshot cannot be written as TOML: {e}"))
    })?;
    let title = clean(title).replace('\n', " ");
    let mut text = format!("# Initial state for a rehearsal of {title}.\n");
    for (key, why) in unseen {
        let _ = writeln!(text, "# Not read: {}", clean(&format!("{key}: {why}")).replace('\n', " "));
    }
    let _ = write!(text, "\n{body}");
    Ok(text)
}
