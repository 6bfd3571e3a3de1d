//! `contraflow approve` and `contraflow deny`: answers for a run that waits somewhere else.

use std::{io::Read as _, path::Path};

use contraflow_runtime::{
    effect::{EffectId, Evidence, Reply},
    error::{NextStep, RunError, codes},
    journal::{Asked, Run},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::{
    args::{Exit, Output, later::Answer},
    command::{Refused, print},
    context::Context,
    render::Sources,
    report::format::{clean, moment, short},
    session::{Place, Session, failed, find_run, read_plan, who},
};

pub(super) async fn execute(args: &Answer, yes: bool, context: &Context) -> Result<Exit, Refused> {
    if let Some(file) = &args.plan {
        return of_plan(args, file, yes, context).await;
    }
    let (store, run) = find_run(&Place::find(context)?, args.run.as_deref().unwrap_or_default()).await?;
    let open = store.asked(Some(&run.id)).await.map_err(failed)?;
    let asked = which(&run, open, args.step.as_deref())?;
    let reply = reply(args, yes)?;
    let before = store.answers(&run.id, &asked.id).await.map_err(failed)?;
    let heard = asked.question.hear(&before);
    if heard.verdict.is_some() {
        let by = heard.people().join(", ");
        let error = RunError::new(codes::NO_ANSWER, format!("already answered by {by}"));
        return Err(Refused::failed(error.next_step(NextStep::ShowRun { run: run.id.clone() })));
    }
    let admitted = asked.question.admits(&reply, &before);
    if let (Err(why), [_, ..], None) = (&admitted, asked.question.choices.as_slice(), &args.choose) {
        let names: Vec<&str> = asked.question.choices.iter().map(|choice| &*choice.name).collect();
        let error = RunError::new(codes::ARGUMENT, why.clone()).hint(format!("--choose {}", names.join("|")));
        return Err(Refused::input(vec![error], Sources::new()));
    }
    if let Err(why) = admitted {
        return Err(Refused::failed(RunError::new(codes::DENIED, why)));
    }
    if !store.answer(&run.id, &asked.id, &reply).await.map_err(failed)? {
        let when = asked.until.map(|until| format!(" since {}", moment(until))).unwrap_or_default();
        let error = RunError::new(codes::NO_ANSWER, format!("the question can no longer be answered{when}"));
        return Err(Refused::failed(error.next_step(NextStep::ShowRun { run: run.id.clone() })));
    }
    match context.global.output {
        Output::Json => print(&format!(
            "{}\n",
            serde_json::json!({ "run": run.id, "id": asked.id, "reply": reply, "alive": run.is_alive() })
        )),
        Output::Human => {
            let word = if yes { "yes" } else { "no" };
            print(&format!("{word} to \"{}\", by {}\n", clean(&asked.question.text), clean(&reply.by)));
            if !run.is_alive() {
                let program = context.program.name;
                print(&format!("the run is not running; resume it: {program} resume {}\n", run.id));
            }
        }
    }
    Ok(Exit::Success)
}

fn reply(args: &Answer, yes: bool) -> Result<Reply, Refused> {
    let by = args.name.clone().unwrap_or_else(who);
    let mut evidence: Vec<Evidence> = args.links.iter().cloned().map(Evidence::Link).collect();
    for path in &args.files {
        evidence.push(file(path)?);
    }
    Ok(Reply {
        comment: args.comment.clone(),
        choice: args.choose.clone(),
        evidence,
        at: Some(Timestamp::now()),
        ..Reply::new(yes, by)
    })
}

/// What is said to a saved plan is kept under its hash: it holds for nothing else.
async fn of_plan(args: &Answer, file: &Path, yes: bool, context: &Context) -> Result<Exit, Refused> {
    let plan = read_plan(file)?;
    let session = Session::open(context, Some(&plan.environment), &[])?;
    plan.usable(session.environment(), Timestamp::now()).map_err(Refused::failed)?;
    let store = session.place()?.open().await?;
    if let Some(run) = store.plan_used(&plan.id).await.map_err(failed)? {
        let error = RunError::new(codes::SAVED_PLAN, format!("the plan was already used by run {run}"));
        return Err(Refused::failed(error));
    }
    let reply = reply(args, yes)?;
    let before = store.approvals(&plan.id).await.map_err(failed)?;
    // Who will run it is not known yet; whether that is the same person is found out then.
    let question = session.runtime().build().question("");
    question.admits(&reply, &before).map_err(|why| Refused::failed(RunError::new(codes::DENIED, why)))?;
    store.approve(&plan.id, plan.expires_at, &reply).await.map_err(failed)?;
    match context.global.output {
        Output::Json => print(&format!("{}\n", serde_json::json!({ "plan": plan.id, "reply": reply }))),
        Output::Human => {
            let word = if yes { "yes" } else { "no" };
            let (runbook, id) = (&plan.runbook, short(&plan.id));
            print(&format!("{word} to the plan {id} of {runbook}, by {}\n", clean(&reply.by)));
        }
    }
    Ok(Exit::Success)
}

/// The one question that is meant.
fn which(run: &Run, open: Vec<Asked>, step: Option<&str>) -> Result<Asked, Refused> {
    let meant = |asked: &Asked| step.is_none_or(|step| asked.id.is_meant_by(step));
    let ids: Vec<EffectId> = open.iter().map(|asked| asked.id.clone()).collect();
    let mut meant: Vec<Asked> = open.into_iter().filter(|asked| meant(asked)).collect();
    match meant.len() {
        1 => Ok(meant.remove(0)),
        0 => {
            let error = match step {
                Some(step) if !ids.is_empty() => RunError::new(
                    codes::NO_ANSWER,
                    format!("run {} has no open question in \"{step}\"", run.id),
                )
                .hint(format!("it waits for {}", ids.join(", "))),
                _ => RunError::new(codes::NO_ANSWER, format!("run {} has no open question", run.id))
                    .next_step(NextStep::ShowRun { run: run.id.clone() }),
            };
            Err(Refused::failed(error))
        }
        n => {
            let within = step.map(|step| format!(" in \"{step}\"")).unwrap_or_default();
            // Branches ask in any order.
            let mut ids: Vec<&str> = meant.iter().map(|asked| &*asked.id).collect();
            ids.sort_unstable();
            let error =
                RunError::new(codes::ARGUMENT, format!("run {} has {n} open questions{within}", run.id))
                    .hint(format!("choose one: {}", ids.join(", ")));
            Err(Refused::input(vec![error], Sources::new()))
        }
    }
}

/// A file by its name, size and checksum.
fn file(path: &Path) -> Result<Evidence, Refused> {
    let shown = path.display().to_string();
    let read = |path: &Path| -> std::io::Result<(u64, String)> {
        let mut file = std::fs::File::open(path)?;
        let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 64 << 10]);
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hash.update(&buffer[..n]);
            size += n as u64;
        }
        Ok((size, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
    };
    let (size, sha256) = read(path).map_err(|e| {
        Refused::input(vec![RunError::new(codes::ARGUMENT, format!("--file {shown}: {e}"))], Sources::new())
    })?;
    Ok(Evidence::File { path: shown, size, sha256 })
}
