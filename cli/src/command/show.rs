//! `contraflow show`: a run as it was, from its journal.

use std::{collections::BTreeSet, io::stdout};

use contraflow_runtime::{
    effect::Reply,
    event::{Kind, Sink},
    journal::{Asked, Entry, Holder, Lock, Record, Run, RunStatus, history},
};

use crate::{
    args::{Exit, Output, Show},
    command::{Refused, print, runs},
    context::Context,
    next,
    report::{
        Out,
        format::{clean, moment},
        human::Human,
        json::JsonLines,
        theme::{Theme, Tone, symbol},
    },
    session::{Place, failed, find_run},
};

pub(super) async fn execute(args: &Show, context: &Context) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(context)?, &args.run).await?;
    let sealed = store.records(&run.id).await.map_err(failed)?;
    let records: Vec<Record> = sealed
        .iter()
        .map(|record| record.open().map_err(|error| Refused::failed(error.into())))
        .collect::<Result<_, _>>()?;
    if args.records {
        for (record, sealed) in records.iter().zip(&sealed) {
            let hash: String = sealed.hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            let line = match context.global.output {
                Output::Json => serde_json::to_string(record).unwrap_or_default(),
                Output::Human => {
                    format!("{:>5}  {}  {hash}  {}  {}", record.seq, record.at, record.id, sealed.body)
                }
            };
            print(&format!("{line}\n"));
        }
        return Ok(Exit::Success);
    }
    let events = history(&run, &records);
    let for_programs = args.events || context.global.output == Output::Json;
    let sink: Box<dyn Sink> = if for_programs {
        Box::new(JsonLines::new(Out::stdout()))
    } else {
        print(&format!(
            "{}  {} {}  {}  by {}  {}\n",
            run.id,
            clean(&run.runbook),
            clean(&run.version),
            clean(&run.environment),
            clean(&run.started_by),
            moment(run.started_at)
        ));
        Box::new(Human::new(Out::stdout(), Theme { live: false, ..Theme::of(&stdout()) }))
    };
    for event in &events {
        sink.event(event);
    }
    if !for_programs {
        let asked = runs::asked(&*store, Some(&run.id)).await?;
        let locks = store.locks().await.map_err(failed)?;
        let theme = Theme::of(&stdout());
        print(&open_end(&run, &records, theme));
        print(&how_on(context.program.name, &run, &asked, &locks, theme));
    }
    Ok(Exit::Success)
}

/// What a person must know of a run without an end: that it has none, and what was being done when the journal stops.
fn open_end(run: &Run, records: &[Record], theme: Theme) -> String {
    let Some(last) = records.last().filter(|_| run.status == RunStatus::Running) else {
        return String::new();
    };
    let outcome = |record: &Record| matches!(record.entry, Entry::Outcome { .. });
    let over: BTreeSet<&str> = records.iter().filter(|record| outcome(record)).map(|r| &*r.id).collect();
    let begun = records.iter().filter(|record| !over.contains(&*record.id)).filter_map(|record| {
        let Entry::Intent { kind: Kind::Change | Kind::Action, effect, target, text, .. } = &record.entry
        else {
            return None;
        };
        let target = target.as_ref().map(|target| format!(" {}", target.name())).unwrap_or_default();
        let what = clean(&format!("{effect}{target}: {text}"));
        let mark = theme.paint(Tone::Warn, symbol::WARN);
        let doubt = format!("started at {}: done, partly done or not done", moment(record.at));
        Some(format!("{mark} {what} ({doubt})\n"))
    });
    let heading = match &run.held {
        Some(held) if run.is_alive() => {
            let Holder { who, host, pid } = &held.by;
            clean(&format!("running: {who}, process {pid} on {host}"))
        }
        _ => format!("its process died at or after {}", moment(last.at)),
    };
    format!("\n{}\n{}", theme.paint(Tone::Warn, heading), begun.collect::<String>())
}

/// What a run waits for, what it holds, and how to go on with it.
fn how_on(program: &str, run: &Run, asked: &[(Asked, Vec<Reply>)], locks: &[Lock], theme: Theme) -> String {
    let mut lines = Vec::new();
    for (Asked { id, question, until, .. }, replies) in asked {
        let heard = question.hear(replies);
        if let Some(yes) = heard.verdict {
            let (tone, sign, word) =
                if yes { (Tone::Good, symbol::PASS, "yes") } else { (Tone::Bad, symbol::FAIL, "no") };
            let (mark, by) = (theme.paint(tone, sign), clean(&heard.people().join(", ")));
            lines.push(format!("{mark} answered, {word} by {by}: {}", clean(&question.text)));
            continue;
        }
        let mark = theme.paint(Tone::Active, symbol::ASK);
        let by =
            if question.rule.by.is_empty() { String::new() } else { format!(" by {}", question.rule.told()) };
        let until = until.map(|until| format!(", until {}", moment(until))).unwrap_or_default();
        lines.push(format!("{mark} waits for an answer{by}{until}: {}", clean(&question.text)));
        let choose = if question.choices.is_empty() {
            String::new()
        } else {
            let names: Vec<&str> = question.choices.iter().map(|choice| &*choice.name).collect();
            format!(" --choose {}", names.join("|"))
        };
        lines.push(format!("  {program} approve {} {id}{choose}", run.id));
    }
    if !run.status.can_go_on() || run.is_alive() {
        return lines.iter().map(|line| format!("{line}\n")).collect();
    }
    let held: Vec<&str> = locks.iter().filter(|lock| lock.run == run.id).map(|lock| &*lock.target).collect();
    if !held.is_empty() {
        lines.push(format!("locked by this run: {}", held.join(", ")));
    }
    lines.push(theme.paint(Tone::Active, next::ways_on(program, run)));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::target::Target;

    use contraflow_runtime::event::RunOutcome;

    use super::*;

    fn record(id: &str, entry: Entry) -> Record {
        Record { seq: 0, v: 1, at: "2026-03-01T12:00:00Z".parse().expect("a time"), id: id.into(), entry }
    }

    fn intent(id: &str, text: &str) -> Record {
        let (input, fingerprint, effect) = (String::new(), String::new(), "traffic.shift".to_owned());
        let target = Some(Target::new("traffic", "web"));
        let text = text.to_owned();
        record(
            id,
            Entry::Intent {
                kind: Kind::Change,
                effect,
                fingerprint,
                input,
                target,
                from: None,
                to: None,
                text,
                waits_for: None,
            },
        )
    }

    fn outcome(id: &str) -> Record {
        let outcome = serde_json::json!({ "outcome": {
            "kind": "change", "effect": "traffic.shift", "fingerprint": "", "attempts": 1, "elapsed_ms": 1,
            "result": { "unchanged": { "state": null, "text": "" } },
        } });
        record(id, serde_json::from_value(outcome).expect("an outcome"))
    }

    fn run(status: RunStatus) -> Run {
        Run {
            id: "web-k3fq7a".into(),
            runbook: "web".into(),
            version: "1".into(),
            environment: "production".into(),
            params: serde_json::json!({}),
            bundle: String::new(),
            status,
            epoch: 1,
            started_by: "ana@desk".into(),
            started_at: "2026-03-01T12:00:00Z".parse().expect("a time"),
            ended_at: None,
            held: None,
            plan: None,
        }
    }

    #[test]
    fn a_change_without_an_outcome_is_shown_as_one_in_doubt() {
        let records =
            vec![intent("a", "blue 100 -> blue 95"), outcome("a"), intent("b", "blue 95 -> blue 75")];
        assert_eq!(
            open_end(&run(RunStatus::Running), &records, Theme::PLAIN),
            "\nits process died at or after 2026-03-01T12:00:00Z\n\
             ! traffic.shift web: blue 95 -> blue 75 (started at 2026-03-01T12:00:00Z: done, partly done or \
             not done)\n"
        );
        let ended = run(RunStatus::Ended(RunOutcome::Succeeded));
        assert_eq!(open_end(&ended, &records, Theme::PLAIN), "");
    }

    #[test]
    fn a_run_that_can_go_on_says_how_what_it_waits_for_and_what_it_holds() {
        let paused = run(RunStatus::Ended(RunOutcome::Paused));
        let question = contraflow_runtime::effect::Question::new(
            contraflow_runtime::effect::QuestionKind::Confirm,
            "retire the old pool?",
        );
        let asked = Asked {
            run: paused.id.clone(),
            id: "retire/1:confirm".into(),
            question,
            at: paused.started_at,
            until: None,
        };
        let answered = Asked { id: "tell/1:confirm".into(), ..asked.clone() };
        let yes = vec![Reply::new(true, "bo")];
        let lock = Lock {
            environment: "production".into(),
            target: "traffic/web".into(),
            run: paused.id.clone(),
            started_by: paused.started_by.clone(),
            since: paused.started_at,
        };
        insta::assert_snapshot!(how_on("contraflow", &paused, &[(asked, Vec::new()), (answered, yes)], &[lock], Theme::PLAIN), @"
        ? waits for an answer: retire the old pool?
          contraflow approve web-k3fq7a retire/1:confirm
        ✓ answered, yes by bo: retire the old pool?
        locked by this run: traffic/web
        resume: contraflow resume web-k3fq7a; undo: contraflow rollback web-k3fq7a; close: contraflow abandon web-k3fq7a
        ");
        let over = run(RunStatus::Ended(RunOutcome::RolledBack));
        assert_eq!(how_on("contraflow", &over, &[], &[], Theme::PLAIN), "");
    }
}
