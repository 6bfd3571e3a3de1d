//! What can be done next, in words: the commands of this program that do it.

use contraflow_runtime::{
    error::{NextStep, RunError},
    event::RunOutcome,
    journal::{Run, RunStatus},
};

/// The error with each of its next steps as a hint too.
pub(crate) fn worded(error: &RunError, program: &str) -> RunError {
    let mut error = error.clone();
    add(&mut error.hints, &error.next, program);
    error
}

/// Adds next steps to hints.
pub(crate) fn add(hints: &mut Vec<String>, next: &[NextStep], program: &str) {
    hints.extend(next.iter().map(|step| words(step, program)));
}

/// What can be done with a run that has not come to its end and that nobody works on.
pub(crate) fn ways_on(program: &str, run: &Run) -> String {
    let id = &run.id;
    match run.status {
        RunStatus::Ended(RunOutcome::RollbackIncomplete) => {
            format!("continue the rollback: {program} rollback {id}; close the run: {program} abandon {id}")
        }
        _ => format!(
            "resume: {program} resume {id}; undo: {program} rollback {id}; close: {program} abandon {id}"
        ),
    }
}

/// One step: what it is and the command that does it.
pub(crate) fn words(step: &NextStep, program: &str) -> String {
    let p = program;
    match step {
        NextStep::ShowRun { run } => format!("show the run: {p} show {run}"),
        NextStep::ResumeRun { run } => format!("then resume the run: {p} resume {run}"),
        NextStep::RollBackRun { run } => format!("roll it back: {p} rollback {run}"),
        NextStep::AbortRun { run } => format!("abort it first: {p} abort {run}"),
        NextStep::RecoverRun { run } => {
            // How it stands decides what works, and may have changed since.
            format!("if it is not running, {p} show {run} says how to go on with it or close it")
        }
        NextStep::ListRuns => format!("list them: {p} runs"),
        NextStep::Answer { run, question, choices } if choices.is_empty() => {
            format!("decide: {p} approve {run} {question}, or {p} deny {run} {question}")
        }
        NextStep::Answer { run, question, choices } => {
            format!("decide: {p} approve {run} {question} --choose {}", choices.join("|"))
        }
        NextStep::LetOthersAnswer => {
            format!("answer every question with --yes, or use --wait and answer with {p} approve RUN")
        }
        NextStep::ApprovePlan => format!("approve it: {p} approve --plan PLAN"),
        NextStep::MakePlan => format!("make a new plan: {p} plan FILE --save PLAN"),
        NextStep::TakeSnapshot => format!("or save the current state: {p} snapshot FILE -o SCENARIO"),
        NextStep::MigrateStore => format!("create or update its tables: {p} store migrate"),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::Command;

    use super::*;
    use crate::program::Program;

    fn sources(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                sources(&path, visit);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                visit(&path, &fs::read_to_string(&path).expect("a source"));
            }
        }
    }

    #[test]
    fn only_this_crate_names_commands() {
        let command = Program::default().command();
        let names: Vec<String> = command
            .get_subcommands()
            .map(Command::get_name)
            .map(|name| format!("contraflow {name}"))
            .collect();
        let mut named = Vec::new();
        for folder in ["runtime", "provider", "stdlib"] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("src");
            sources(&folder, &mut |path, text| {
                // Comments are for those who read the code or the book.
                for (n, line) in
                    text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
                {
                    if names.iter().any(|name| line.contains(name)) {
                        named.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
                    }
                }
            });
        }
        assert!(named.is_empty(), "say it as a `NextStep`:\n{}", named.join("\n"));
    }

    #[test]
    fn steps_name_the_command_of_the_program() {
        let error = RunError::new("locked", "web is locked")
            .hint("wait")
            .next_step(NextStep::RecoverRun { run: "r1".into() })
            .next_step(NextStep::Answer {
                run: "r1".into(),
                question: "1:confirm".into(),
                choices: Vec::new(),
            });
        assert_eq!(
            worded(&error, "deploy").hints,
            [
                "wait",
                "if it is not running, deploy show r1 says how to go on with it or close it",
                "decide: deploy approve r1 1:confirm, or deploy deny r1 1:confirm",
            ]
        );
    }
}
