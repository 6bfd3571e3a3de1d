//! A saved plan, shown again.

use contraflow_runtime::{
    SavedPlan,
    effect::{EffectId, Reply},
    plan::{PlannedAction, PlannedChange},
};
use jiff::Timestamp;

use super::{Draft, foot, word};
use crate::report::{
    effect::{Line, about_long, label, takes},
    format::{clean, count, moment, params, short},
    theme::{Theme, Tone, symbol},
};

/// The plan for people, with what became of it.
pub(crate) fn show(
    plan: &SavedPlan,
    used: Option<&str>,
    said: &[Reply],
    now: Timestamp,
    theme: Theme,
) -> String {
    let foreseen = &plan.foreseen;
    if !plan.course.is_empty() {
        let mut draft = Draft::default();
        plan.course.events().iter().for_each(|event| draft.take(event));
        draft.remark(made(plan));
        let below: String =
            below(plan, used, said, now).iter().map(|line| line.paint(theme, "") + "\n").collect();
        return format!("{}{below}", draft.show(theme));
    }
    let mut lines = vec![
        Line::default()
            .and(Tone::Plain, "Plan of ")
            .and(Tone::Strong, format!("{} {}", plan.runbook, plan.version))
            .and(Tone::Plain, format!(" in {}", plan.environment)),
    ];
    let given = params(&serde_json::to_value(&plan.params).unwrap_or_default());
    if !given.is_empty() {
        lines.push(Line::default().and(Tone::Dim, format!("  {given}")));
    }
    let made = made(plan);
    lines.push(Line::default().and(Tone::Dim, made));
    lines.push(Line::default());
    lines.extend(foreseen.changes.iter().flat_map(changed));
    lines.extend(foreseen.actions.iter().map(acted));
    let asked = foreseen.questions.iter().map(|question| {
        Line::new(Tone::Active, symbol::ASK)
            .and(Tone::Plain, clean(&question.text))
            .and(Tone::Dim, at(&question.id))
    });
    lines.extend(asked);
    lines.push(Line::default());
    let moves = foreseen.changes.iter().filter(|change| change.moves()).count();
    let mut parts = vec![count(moves, "change"), count(foreseen.actions.len(), "action")];
    parts.push(count(foreseen.questions.len(), "question"));
    let known = foreseen.changes.iter().filter(|change| change.moves() && change.estimate.is_some()).count();
    let takes = takes(foreseen.at_least_ms, foreseen.estimate_ms, known, moves);
    let takes = takes.map(|takes| format!("; {takes}")).unwrap_or_default();
    lines.push(
        Line::default().and(Tone::Strong, "Plan: ").and(Tone::Plain, format!("{}{takes}.", parts.join(", "))),
    );
    lines.extend(below(plan, used, said, now));
    lines.iter().map(|line| line.paint(theme, "") + "\n").collect()
}

/// Who made it, and when.
fn made(plan: &SavedPlan) -> String {
    clean(&format!("  plan {}, made by {} at {}", short(&plan.id), plan.created_by, moment(plan.created_at)))
}

/// Who has to agree, who did, and what became of it.
fn below(plan: &SavedPlan, used: Option<&str>, said: &[Reply], now: Timestamp) -> Vec<Line> {
    let mut lines: Vec<Line> = foot::asks(&plan.foreseen.questions).into_iter().collect();
    for reply in said {
        let comment = reply.comment.as_deref().map(|text| format!(": {}", clean(text))).unwrap_or_default();
        let word = if reply.yes { "approved" } else { "denied" };
        lines.push(Line::default().and(Tone::Plain, format!("{word} by {}{comment}", clean(&reply.by))));
    }
    lines.push(match used {
        Some(run) => Line::default().and(Tone::Warn, format!("Used by run {run}: it cannot be run again.")),
        None if now >= plan.expires_at => {
            Line::default().and(Tone::Warn, format!("Expired at {}.", moment(plan.expires_at)))
        }
        None => {
            Line::default().and(Tone::Plain, format!("Can be run once, until {}.", moment(plan.expires_at)))
        }
    });
    lines
}

fn at(id: &EffectId) -> String {
    format!("  {id}")
}

fn changed(change: &PlannedChange) -> Vec<Line> {
    let name = clean(&label(&change.effect, Some(&change.target), ""));
    let id = format!("  {}  {}", word(change.grade), change.id);
    let about: Vec<String> =
        change.estimate.and_then(|estimate| about_long(estimate.ms)).into_iter().collect();
    let mut lines = vec![if change.moves() {
        Line::new(Tone::Active, symbol::CHANGE)
            .and(Tone::Plain, format!("{name}: {} -> {}", clean(&change.from_text), clean(&change.to_text)))
            .remarks(&about)
            .and(Tone::Dim, id)
    } else {
        Line::new(Tone::Dim, symbol::SAME)
            .and(Tone::Dim, format!("{name}: {} unchanged", clean(&change.to_text)))
            .and(Tone::Dim, id)
    }];
    if let contraflow_runtime::effect::Undo::Impossible(why) = &change.undo {
        lines.push(
            Line::new(Tone::Warn, &format!("  {}", symbol::WARN))
                .and(Tone::Strong, "point of no return")
                .and(Tone::Plain, format!(": {}", clean(why))),
        );
    }
    lines
}

fn acted(action: &PlannedAction) -> Line {
    Line::new(Tone::Active, symbol::ACTION)
        .and(Tone::Plain, format!("{} {}", action.effect, clean(&action.text)))
        .and(Tone::Dim, at(&action.id))
}
