//! `cutover show`: a run as it was, from its journal.

use std::{collections::BTreeSet, io::stdout};

use cutover_runtime::{
    event::{Kind, Sink},
    journal::{Entry, Record, history},
};

use crate::{
    args::{Exit, Global, Output, Show},
    command::{Refused, print},
    report::{
        Out,
        format::clean,
        human::Human,
        json::JsonLines,
        theme::{Theme, Tone, symbol},
    },
    session::{Place, failed, find_run},
};

pub(super) async fn execute(args: &Show, global: &Global) -> Result<Exit, Refused> {
    let (store, run) = find_run(&Place::find(global)?, &args.run).await?;
    let sealed = store.records(&run.id).await.map_err(failed)?;
    let records: Vec<Record> = sealed
        .iter()
        .map(|record| {
            record.open().map_err(|e| {
                let message = format!("record {} of {} cannot be read: {e}", record.seq, run.id);
                Refused::failed(cutover_runtime::error::RunError::new("journal", message))
            })
        })
        .collect::<Result<_, _>>()?;
    if args.records {
        for (record, sealed) in records.iter().zip(&sealed) {
            let hash: String = sealed.hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            let line = match global.output {
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
    let for_programs = args.events || global.output == Output::Json;
    let sink: Box<dyn Sink> = if for_programs {
        Box::new(JsonLines::new(Out::stdout()))
    } else {
        print(&format!(
            "{}  {} {}  {}  by {}  {}\n",
            run.id, run.runbook, run.version, run.environment, run.started_by, run.started_at
        ));
        Box::new(Human::new(Out::stdout(), Theme { live: false, ..Theme::of(&stdout()) }))
    };
    for event in &events {
        sink.event(event);
    }
    if !for_programs {
        print(&open_end(&records, Theme::of(&stdout())));
    }
    Ok(Exit::Success)
}

/// What a person must know of a run without an end: that it has none, and what was being done when the journal stops.
fn open_end(records: &[Record], theme: Theme) -> String {
    let ended = |record: &Record| matches!(record.entry, Entry::RunEnded { .. });
    let Some(last) = records.last().filter(|_| !records.iter().any(ended)) else { return String::new() };
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
        let doubt = format!("begun at {}: done, half done or not done", record.at);
        Some(format!("{mark} {what} ({doubt})\n"))
    });
    let heading =
        format!("no end is recorded: it is still at work, or its process ended at or after {}", last.at);
    format!("\n{}\n{}", theme.paint(Tone::Warn, heading), begun.collect::<String>())
}

#[cfg(test)]
mod tests {
    use cutover_runtime::{event::RunOutcome, target::Target};

    use super::*;

    fn record(id: &str, entry: Entry) -> Record {
        Record { seq: 0, at: "2026-03-01T12:00:00Z".parse().expect("a time"), id: id.to_owned(), entry }
    }

    fn intent(id: &str, text: &str) -> Record {
        let (input, print, effect) = (String::new(), String::new(), "traffic.shift".to_owned());
        let target = Some(Target::new("traffic", "web"));
        let text = text.to_owned();
        record(
            id,
            Entry::Intent { kind: Kind::Change, effect, print, input, target, from: None, to: None, text },
        )
    }

    fn outcome(id: &str) -> Record {
        let outcome = serde_json::json!({ "outcome": {
            "kind": "change", "effect": "traffic.shift", "print": "", "attempts": 1, "elapsed_ms": 1,
            "result": { "unchanged": { "state": null, "text": "" } },
        } });
        record(id, serde_json::from_value(outcome).expect("an outcome"))
    }

    #[test]
    fn a_change_without_an_outcome_is_shown_as_one_in_doubt() {
        let mut records =
            vec![intent("a", "blue 100 -> blue 95"), outcome("a"), intent("b", "blue 95 -> blue 75")];
        assert_eq!(
            open_end(&records, Theme::PLAIN),
            "\nno end is recorded: it is still at work, or its process ended at or after 2026-03-01T12:00:00Z\n\
             ! traffic.shift web: blue 95 -> blue 75 (begun at 2026-03-01T12:00:00Z: done, half done or not done)\n"
        );
        records
            .push(record("", Entry::RunEnded { outcome: RunOutcome::Succeeded, error: None, elapsed_ms: 1 }));
        assert_eq!(open_end(&records, Theme::PLAIN), "");
    }
}
