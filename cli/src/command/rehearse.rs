//! `contraflow rehearse`: tries a runbook against everything that can go wrong.

use std::{
    io::{Write as _, stderr, stdout},
    sync::Arc,
    time::{Duration, Instant},
};

use contraflow_runtime::{
    Beginning, LoadErrors, Rehearsal,
    error::{RunError, codes, did_you_mean},
    event::Sink,
    rehearsal::{End, Explore, Findings, Progress, Scenario},
};

use crate::{
    args::{Exit, Output, rehearsal::Rehearse},
    command::{Refused, print},
    context::Context,
    files, next,
    render::Sources,
    report::{
        rehearsal::{Group, Recorder, Rehearsed, html, human, json, junit, one_json},
        theme::Theme,
    },
    scenario,
    scripts::Scripts,
    session::{Session, read_params},
};

pub(super) async fn execute(args: &Rehearse, context: &Context) -> Result<Exit, Refused> {
    let session = Session::open(context, args.script.with.env.as_deref(), &args.script.with.faults)?;
    let bundle = Session::bundle(&args.script.file)?;
    let params = read_params(&args.script.with)?;
    let file = scenario::Scenario::find(args)?;
    let only = args.only.as_deref().map(named).transpose()?;
    let runtime = session.runtime().build();
    let beginning = Beginning { file: file.initial_state.clone(), look: !args.no_look };
    let refuse = |errors: LoadErrors| refuse(errors, &bundle, &file);
    let rehearsal = runtime.rehearsal(&bundle, &params, &beginning).map_err(refuse)?;
    let header = rehearsal.header();
    let rehearsed = Rehearsed {
        runbook: header.name.clone(),
        version: header.version.clone(),
        environment: session.environment().to_owned(),
        scenario: file.path.clone(),
        looked: !args.no_look,
        command: command(args, context.program.name),
    };
    if let Some(scenario) = only {
        return one(args, context, &rehearsal, &rehearsed, scenario).await;
    }
    let (mut findings, groups) = explore(&rehearsal, args.explore(), context).await.map_err(refuse)?;
    for tried in &mut findings.tried {
        next::add(&mut tried.hints, &tried.next, context.program.name);
    }
    if let Some(path) = &args.junit {
        files::replace(path, &junit(&rehearsed, &findings)).map_err(Refused::failed)?;
    }
    if let Some(path) = &args.html {
        files::replace(path, &html(&rehearsed, &findings, &groups)).map_err(Refused::failed)?;
    }
    match context.global.output {
        Output::Json => print(&json(&rehearsed, &findings, &groups)),
        Output::Human => {
            print(&human::report(&rehearsed, &findings, &groups, args.all, Theme::of(&stdout())))
        }
    }
    let planned = findings.tried.first().is_some_and(|tried| tried.end == End::Succeeded);
    Ok(if planned && groups.is_empty() { Exit::Success } else { Exit::Failed })
}

/// Explores, and plays the scenarios that show a violation once more, for how they go.
async fn explore(
    rehearsal: &Rehearsal,
    explore: Explore,
    context: &Context,
) -> Result<(Findings, Vec<Group>), LoadErrors> {
    let progress = Arc::clone(&explore.progress);
    let interrupt = tokio::spawn(interrupted(Arc::clone(&progress)));
    let shows = context.global.output == Output::Human && Theme::of(&stderr()).live;
    let watch = shows.then(|| tokio::spawn(show(progress, "rehearsing", "scenarios")));
    let begun = Instant::now();
    let found = rehearsal.explore(explore).await;
    if let Some(watch) = watch {
        watch.abort();
        tell(&format!("\r\u{1b}[Krehearsed in {:.1}s\n", begun.elapsed().as_secs_f64()));
    }
    let findings = found?;
    let mut groups = Group::all(&findings);
    for group in &mut groups {
        let recorder = Arc::<Recorder>::default();
        rehearsal.play(group.scenario.clone(), vec![Arc::clone(&recorder) as Arc<dyn Sink>]).await?;
        group.events = recorder.take();
    }
    interrupt.abort();
    Ok((findings, groups))
}

/// How often progress is shown.
const MOMENT: Duration = Duration::from_millis(200);

pub(super) async fn show(progress: Arc<Progress>, doing: &str, things: &str) {
    loop {
        tokio::time::sleep(MOMENT).await;
        let (played, known) = progress.get();
        tell(&format!("\r\u{1b}[K{doing}: {played} of {known} {things} known so far"));
    }
}

/// Ctrl-C ends it with what was found so far; once more, at once.
pub(super) async fn interrupted(progress: Arc<Progress>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        progress.stop();
        tell("\nstopping with the results so far; press Ctrl-C again to stop now\n");
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(i32::from(Exit::Interrupted as u8));
    }
}

pub(super) fn tell(text: &str) {
    let _ = stderr().write_all(text.as_bytes()).and_then(|()| stderr().flush());
}

/// Plays one scenario.
async fn one(
    args: &Rehearse,
    context: &Context,
    rehearsal: &Rehearsal,
    rehearsed: &Rehearsed,
    scenario: Scenario,
) -> Result<Exit, Refused> {
    let recorder = Arc::<Recorder>::default();
    let failed = |errors: LoadErrors| Refused::input(errors.0, Sources::new());
    let mut tried =
        rehearsal.play(scenario, vec![Arc::clone(&recorder) as Arc<dyn Sink>]).await.map_err(failed)?;
    if !tried.struck {
        // It may be a name that there is not, or two faults of which one keeps the run from the other.
        let findings = rehearsal.explore(Explore::default()).await.map_err(failed)?;
        if !findings.tried.iter().any(|known| known.scenario == tried.scenario) {
            return Err(unknown(&tried.scenario.to_string(), &findings));
        }
    }
    next::add(&mut tried.hints, &tried.next, context.program.name);
    let events = recorder.take();
    let events = args.trace.then_some(&*events);
    match context.global.output {
        Output::Json => print(&one_json(rehearsed, &tried, events)),
        Output::Human => print(&human::one(rehearsed, &tried, events, Theme::of(&stdout()))),
    }
    Ok(if tried.violations.is_empty() && tried.end != End::Unknown { Exit::Success } else { Exit::Failed })
}

fn named(text: &str) -> Result<Scenario, Refused> {
    text.parse().map_err(|why| {
        let error = RunError::new(codes::ARGUMENT, format!("no such scenario: {why}"))
            .hint("`rehearse --all` lists all names");
        Refused::input(vec![error], Sources::new())
    })
}

fn unknown(name: &str, findings: &Findings) -> Refused {
    let names: Vec<String> = findings.tried.iter().map(|tried| tried.scenario.to_string()).collect();
    let error = RunError::new(codes::ARGUMENT, format!("the run never reaches the scenario \"{name}\""));
    let error = match did_you_mean(name, names.iter().map(String::as_str)) {
        Some(close) => error.hint(format!("did you mean \"{close}\"?")),
        None => error,
    };
    Refused::input(vec![error.hint("`rehearse --all` lists all")], Sources::new())
}

/// Errors of a bundle, its parameters or the scenario.
pub(super) fn refuse(errors: LoadErrors, bundle: &Scripts, file: &scenario::Scenario) -> Refused {
    let mut sources = bundle.sources();
    let errors = errors.0.into_iter().map(|error| file.place(bundle.placed(error), &mut sources)).collect();
    Refused::input(errors, sources)
}

/// The command that rehearses the same.
fn command(args: &Rehearse, program: &str) -> String {
    let mut words = vec![program.to_owned(), "rehearse".to_owned(), args.script.file.display().to_string()];
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    if let Some(environment) = &args.script.with.env {
        option("--env", environment.clone());
    }
    if let Some(path) = &args.script.with.params_file {
        option("--params", path.display().to_string());
    }
    for param in &args.script.with.params {
        option("-p", format!("{}={}", param.name, param.text));
    }
    for fault in &args.script.with.faults {
        option("--fault", fault.clone());
    }
    if let Some(path) = &args.scenario {
        option("--scenario", path.display().to_string());
    }
    if args.no_look {
        words.push("--no-look".to_owned());
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_take_them_apart() {
        for (word, shown) in
            [("a/b.rhai", "a/b.rhai"), ("", "''"), ("note=it's on", "'note=it'\\''s on'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(word), shown);
        }
    }
}
