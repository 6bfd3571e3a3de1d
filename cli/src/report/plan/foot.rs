//! What stands below a plan: what it needs, who has to agree, and where it was saved.

use std::path::Path;

use contraflow_runtime::{
    Approvals, SavedPlan,
    plan::{Foreseen, PlannedQuestion},
};
use serde_json::json;

use crate::{
    needs::{Held, Need},
    report::{
        effect::Line,
        format::{clean, moment},
        theme::{Theme, Tone, symbol},
    },
};

/// The version of the JSON form of a plan. As with events, fields are added without raising it.
const VERSION: u32 = 1;

/// What stands below a plan.
pub(crate) struct Foot<'f> {
    pub(crate) foreseen: &'f Foreseen,
    pub(crate) needs: &'f [Need],
    /// What another run keeps for itself.
    pub(crate) held: &'f [Held],
    /// Who has to agree before it is run.
    pub(crate) approvals: &'f Approvals,
    /// Where it was saved.
    pub(crate) saved: Option<(&'f Path, &'f SavedPlan)>,
    /// What this program is called.
    pub(crate) program: &'f str,
}

impl Foot<'_> {
    /// For people.
    pub(crate) fn show(&self, theme: Theme) -> String {
        let mut lines = self.needed();
        lines.extend(self.held.iter().map(|held| {
            Line::default()
                .and(Tone::Warn, symbol::WARN)
                .and(Tone::Strong, format!(" {}", held.target))
                .and(Tone::Plain, format!(" is locked by run {} ({})", clean(&held.run), clean(&held.told())))
                .and(Tone::Dim, format!("; {} show {}", self.program, clean(&held.run)))
        }));
        lines.extend(asks(&self.foreseen.questions));
        lines.extend(agree(self.approvals));
        if let Some((file, plan)) = self.saved {
            let file = file.display();
            lines.push(headed(
                "Saved",
                &format!(
                    "{file}, until {}. Run it: {} run --plan {file}",
                    moment(plan.expires_at),
                    self.program
                ),
            ));
        }
        lines.iter().map(|line| line.paint(theme, "") + "\n").collect()
    }

    fn needed(&self) -> Vec<Line> {
        let missing: Vec<&Need> = self.needs.iter().filter(|need| !need.reachable).collect();
        let names: Vec<String> = self.needs.iter().map(Need::name).collect();
        if names.is_empty() {
            return Vec::new();
        }
        let end = match missing.len() {
            0 if names.len() == 1 => "; it is reachable.",
            0 => "; all are reachable.",
            _ => ".",
        };
        let mut lines = vec![headed("Needs", &format!("{}{end}", names.join(", ")))];
        lines.extend(missing.iter().map(|need| {
            Line::default()
                .and(Tone::Plain, "  ")
                .and(Tone::Bad, symbol::FAIL)
                .and(Tone::Strong, format!(" {}", need.name()))
                .and(Tone::Plain, format!(" cannot be reached: {}", need.says))
                .and(Tone::Dim, format!(" ({}, {})", need.provider, need.at))
        }));
        lines
    }

    /// For programs: one line behind the events.
    pub(crate) fn json(&self) -> String {
        let Approvals { by, at_least } = self.approvals;
        let saved = self.saved.map(|(file, plan)| {
            json!({ "id": plan.id, "file": file.display().to_string(), "expires_at": plan.expires_at })
        });
        let plan = json!({
            "v": VERSION,
            "plan": {
                "foreseen": self.foreseen,
                "needs": self.needs,
                "locked": self.held,
                "approvals": { "by": by, "at_least": at_least },
                "saved": saved,
            },
        });
        format!("{plan}\n")
    }
}

fn headed(head: &str, text: &str) -> Line {
    Line::default().and(Tone::Strong, format!("{head}: ")).and(Tone::Plain, text)
}

/// Who is asked while it runs.
pub(super) fn asks(questions: &[PlannedQuestion]) -> Option<Line> {
    let told: Vec<String> = questions
        .iter()
        .filter(|question| !question.by.is_empty() || question.at_least > 1)
        .map(|question| {
            let by = if question.by.is_empty() { "anybody" } else { &question.by };
            let by =
                if question.at_least > 1 { format!("{} of {by}", question.at_least) } else { by.to_owned() };
            format!("{} (\"{}\")", clean(&by), clean(&question.text))
        })
        .collect();
    (!told.is_empty()).then(|| headed("Asks", &format!("{}.", told.join("; "))))
}

/// Who agrees before it is run.
fn agree(approvals: &Approvals) -> Option<Line> {
    let Approvals { by, at_least } = approvals;
    let by = by.join(" or ");
    (*at_least > 0).then(|| headed("Approval", &format!("{at_least} of {by}, before a saved plan runs.")))
}
