//! The findings for programs: one JSON document.

use contraflow_runtime::{
    event::Envelope,
    rehearsal::{Findings, Tried},
};
use serde::Serialize;

use super::{Group, Rehearsed};

/// Version of the documents. Fields are added without raising it; a change of meaning raises it.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Head<'r> {
    v: u32,
    runbook: &'r str,
    version: &'r str,
    environment: &'r str,
    /// The scenario file.
    scenario_file: Option<&'r str>,
    /// Whether what it does not say was looked at.
    looked: bool,
}

impl<'r> Head<'r> {
    fn of(rehearsed: &'r Rehearsed) -> Self {
        let Rehearsed { runbook, version, environment, scenario, looked, .. } = rehearsed;
        Self {
            v: VERSION,
            runbook,
            version,
            environment,
            scenario_file: scenario.as_deref(),
            looked: *looked,
        }
    }
}

#[derive(Serialize)]
struct All<'r> {
    #[serde(flatten)]
    head: Head<'r>,
    #[serde(flatten)]
    findings: &'r Findings,
    violations: Vec<Kind<'r>>,
}

/// Violations that say the same.
#[derive(Serialize)]
struct Kind<'r> {
    invariant: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'r str>,
    why: &'r str,
    /// The shortest scenario.
    scenario: String,
    /// How many others.
    others: usize,
}

/// All that was found.
pub(crate) fn json(rehearsed: &Rehearsed, findings: &Findings, groups: &[Group]) -> String {
    let violations = groups
        .iter()
        .map(|group| Kind {
            invariant: &group.invariant,
            after: group.after.as_deref(),
            why: &group.why,
            scenario: group.scenario.to_string(),
            others: group.others,
        })
        .collect();
    document(&All { head: Head::of(rehearsed), findings, violations })
}

#[derive(Serialize)]
struct One<'r> {
    #[serde(flatten)]
    head: Head<'r>,
    #[serde(flatten)]
    tried: &'r Tried,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'r [Envelope]>,
}

/// One scenario, with how it goes if that is wanted.
pub(crate) fn one_json(rehearsed: &Rehearsed, tried: &Tried, events: Option<&[Envelope]>) -> String {
    document(&One { head: Head::of(rehearsed), tried, events })
}

fn document(document: &impl Serialize) -> String {
    // Names of fields and plain values: there is nothing in it that JSON could not say.
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    format!("{text}\n")
}
