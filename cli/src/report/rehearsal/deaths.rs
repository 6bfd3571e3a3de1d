//! What became of runs whose process died, and of branches in another order.

use contraflow_runtime::rehearsal::{End, Findings, Scenario, Tried};

use super::{Known, Mark};
use crate::report::format::count;

/// Scenarios that must come to one end.
pub(super) struct Deaths {
    /// What happens in them.
    pub(super) what: String,
    /// Those that came to another end, or to a violation.
    pub(super) other: Vec<(Mark, String)>,
}

/// All of them: where all went as planned, on ways back, and branches in another order.
pub(super) fn deaths(findings: &Findings, known: &Known<'_>) -> Vec<Deaths> {
    let end_of = |scenario: &Scenario| known.all.get(scenario).map(|tried| tried.end);
    let differ = |tried: &Tried, end: Option<End>| {
        // Of what else goes wrong, the line says it already.
        let Scenario { crash, backwards, .. } = tried.scenario;
        let name = Scenario { crash, backwards, ..Scenario::default() }.to_string();
        (known.is_new_in(tried) || Some(tried.end) != end).then(|| (known.mark(tried), name))
    };
    let mut bases: Vec<(Scenario, Vec<&Tried>)> = Vec::new();
    for tried in findings.tried.iter().filter(|tried| tried.scenario.crash.is_some()) {
        let base = Scenario { crash: None, ..tried.scenario.clone() };
        match bases.iter_mut().find(|(known, _)| *known == base) {
            Some((_, crashed)) => crashed.push(tried),
            None => bases.push((base, vec![tried])),
        }
    }
    let mut found = Vec::new();
    // Two faults at once have many ways back; those of which there is nothing to say are told in one line.
    let (mut ways, mut records) = (Vec::new(), 0);
    for (base, crashed) in bases {
        let n = count(crashed.len(), "record");
        let end = end_of(&base);
        let other: Vec<_> = crashed.iter().filter_map(|tried| differ(tried, end)).collect();
        if base.is_as_planned() {
            found.push(Deaths { what: format!("killed at each of {n} and resumed"), other });
        } else if other.is_empty() {
            records += crashed.len();
            ways.push(base);
        } else {
            let what = format!("killed at each of {n} during the rollback from {base} and resumed");
            found.push(Deaths { what, other });
        }
    }
    let from = match &*ways {
        [] => None,
        [one] => Some(format!("the rollback from {one}")),
        more => Some(format!("{} rollbacks", more.len())),
    };
    if let Some(from) = from {
        let what = format!("killed at each of {} during {from} and resumed", count(records, "record"));
        found.push(Deaths { what, other: Vec::new() });
    }
    for tried in findings.tried.iter().filter(|tried| tried.scenario.backwards) {
        let base = Scenario { backwards: false, ..tried.scenario.clone() };
        let what = match base.is_as_planned() {
            true => "branches of each `parallel` last to first".to_owned(),
            false => format!("branches of each `parallel` last to first, with {base}"),
        };
        found.push(Deaths { what, other: differ(tried, end_of(&base)).into_iter().collect() });
    }
    found
}
