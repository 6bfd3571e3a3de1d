//! The findings for a browser: one file that needs nothing else.

use std::fmt::Write as _;

use contraflow_runtime::{
    effect::{EffectId, Segment},
    rehearsal::{Findings, Tried},
};

use super::{
    Group, Mark, Rehearsed, counted,
    deaths::deaths,
    human::{and_others, none_found},
    junit::escape,
    matrix::{Cell, Matrix},
    planned, timeline, unknown,
};
use crate::report::{
    format::{count, span},
    theme::Theme,
};

const EFFECTS: &str = "Effects and faults";
const SCENARIOS: &str = "All scenarios";

const STYLE: &str = include_str!("page.css");

/// All that was found.
pub(crate) fn html(rehearsed: &Rehearsed, findings: &Findings, groups: &[Group]) -> String {
    let title = format!("{} {}", rehearsed.runbook, rehearsed.version);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Rehearsal of {0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Rehearsal of {0}</h1>\n",
        escape(&title)
    );
    summary(rehearsed, findings, groups, &mut page);
    for (n, group) in groups.iter().enumerate() {
        violation(rehearsed, n, group, &mut page);
    }
    let unknown = unknown(findings);
    if !unknown.is_empty() {
        page.push_str("<h2>Missing values</h2>\n<ul>\n");
        for (why, tried, others) in unknown {
            let _ = writeln!(
                page,
                "<li>{}<br><span class=\"dim\">in <code>{}</code>{}</span></li>",
                escape(why),
                escape(&tried.scenario.to_string()),
                and_others(others)
            );
        }
        page.push_str("</ul>\n");
    }
    table(findings, groups, &mut page);
    scenarios(findings, &mut page);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn summary(rehearsed: &Rehearsed, findings: &Findings, groups: &[Group], page: &mut String) {
    let _ = writeln!(
        page,
        "<p class=\"dim\">in {}, {}</p>",
        escape(&rehearsed.environment),
        escape(&rehearsed.origin())
    );
    let violated = findings.violated().count();
    let (class, verdict) = match groups.len() {
        0 => ("", format!("No violations{}.", none_found(findings))),
        n => (" violation", format!("{} in {}.", count(n, "violation"), count(violated, "scenario"))),
    };
    let _ = writeln!(page, "<div class=\"verdict{class}\">\n<p><strong>{verdict}</strong></p>");
    if let Some(planned) = planned(findings) {
        let mark = Mark::of(planned);
        let why = planned.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let _ = writeln!(
            page,
            "<p>As planned: {} {}{} ({} simulated, {})</p>",
            mark.sign,
            mark.meaning,
            escape(&why),
            span(findings.planned_ms),
            count(findings.records, "record")
        );
    }
    let effects = findings.effects.iter().filter(|row| !row.faults.is_empty()).count();
    let _ = writeln!(
        page,
        "<p>{} of {}: {}</p>",
        count(findings.tried.len(), "scenario"),
        count(effects, "effect"),
        counted(findings)
    );
    if findings.not_tried > 0 {
        let _ = writeln!(
            page,
            "<p>{} and their follow-ups not tried: the rehearsal was stopped early</p>",
            count(findings.not_tried, "scenario")
        );
    }
    page.push_str("</div>\n<nav>");
    for (id, title, there) in [
        ("violation-0", "Violations", !groups.is_empty()),
        ("effects", EFFECTS, true),
        ("scenarios", SCENARIOS, true),
    ] {
        if there {
            let _ = write!(page, "<a href=\"#{id}\">{title}</a>");
        }
    }
    page.push_str("</nav>\n");
}

fn violation(rehearsed: &Rehearsed, n: usize, group: &Group, page: &mut String) {
    if n == 0 {
        page.push_str("<h2>Violations</h2>\n");
    }
    let name = group.scenario.to_string();
    let others = and_others(group.others);
    let _ = writeln!(
        page,
        "<section class=\"found\" id=\"violation-{n}\">\n<h3>{} {}</h3>\n<p>{}</p>\n<p class=\"dim\">in <code>{}</code>{others}</p>",
        Mark::VIOLATION.sign,
        escape(&group.invariant),
        escape(&group.told()),
        escape(&name)
    );
    let lines = timeline::around(group, Theme::PLAIN);
    let lines: Vec<String> = lines.iter().map(|line| escape(line)).collect();
    let _ = writeln!(
        page,
        "<pre tabindex=\"0\">{}</pre>\n<p><code>$ {}</code></p>\n</section>",
        lines.join("\n"),
        escape(&rehearsed.replay(&name))
    );
}

fn table(findings: &Findings, groups: &[Group], page: &mut String) {
    let matrix = Matrix::of(findings, usize::MAX);
    if matrix.columns.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2 id=\"effects\">{EFFECTS}</h2>\n<div class=\"scroll\" role=\"region\" aria-label=\"{EFFECTS}\" tabindex=\"0\">\n<table>\n<thead><tr><th scope=\"col\">effect</th>"
    );
    for column in &matrix.columns {
        let _ = write!(page, "<th scope=\"col\"><span>{}</span></th>", escape(column.name()));
    }
    page.push_str("</tr></thead>\n");
    for (lines, title) in matrix.blocks.iter().zip(["", "rollback"]) {
        if lines.is_empty() {
            continue;
        }
        page.push_str("<tbody>\n");
        if !title.is_empty() {
            let _ = writeln!(
                page,
                "<tr><th scope=\"rowgroup\" class=\"block\" colspan=\"{}\">{title}</th></tr>",
                matrix.columns.len() + 1
            );
        }
        for line in lines {
            let row = line.row;
            let _ = write!(
                page,
                "<tr><th scope=\"row\" title=\"{}\"><code>{}</code></th>",
                escape(&format!("{} {}", row.effect, row.what)),
                breakable(&row.id)
            );
            line.cells.iter().for_each(|cell| self::cell(&matrix, cell, groups, page));
            page.push_str("</tr>\n");
        }
        page.push_str("</tbody>\n");
    }
    page.push_str("</table>\n</div>\n<ul class=\"legend\">\n");
    for mark in matrix.legend() {
        let _ =
            writeln!(page, "<li><span class=\"{}\">{}</span>{}</li>", mark.class, mark.sign, mark.meaning);
    }
    page.push_str("</ul>\n");
    if planned(findings).is_some_and(|planned| !planned.violations.is_empty()) {
        page.push_str("<p class=\"dim\">Violations of the run as planned are not marked again.</p>\n");
    }
    let deaths = deaths(findings, &matrix.known);
    if deaths.is_empty() {
        return;
    }
    page.push_str("<ul>\n");
    for deaths in deaths {
        let names: Vec<&str> = deaths.other.iter().map(|(_, name)| &**name).collect();
        let end = if names.is_empty() {
            "same outcome".to_owned()
        } else {
            format!("different outcome with {}", names.join(", "))
        };
        let _ = writeln!(page, "<li>{}: {}</li>", escape(&deaths.what), escape(&end));
    }
    page.push_str("</ul>\n");
}

/// An id without the sign that it undoes, which goes on in another row behind a step where the window is narrow.
fn breakable(id: &EffectId) -> String {
    let parts = id.parts().filter(|part| part.segment != Segment::Rollback);
    parts.map(|part| escape(part.text)).collect::<Vec<_>>().join("/<wbr>")
}

fn cell(matrix: &Matrix<'_>, cell: &Cell<'_>, groups: &[Group], page: &mut String) {
    let mark = matrix.mark(cell);
    let Some(tried) = cell.speaks(&matrix.known) else {
        let _ = write!(page, "<td class=\"{}\" title=\"{}\">{}</td>", mark.class, mark.meaning, mark.sign);
        return;
    };
    let violation = matrix.known.new_in(tried).next();
    let what = violation
        .map_or_else(|| tried.why.clone().unwrap_or_default(), |violation| violation.invariant.clone());
    let mut told = format!("{}: {}", tried.scenario, mark.meaning);
    if !what.is_empty() {
        let _ = write!(told, " ({what})");
    }
    let group = violation.and_then(|found| {
        groups.iter().position(|group| group.invariant == found.invariant && group.after == found.after)
    });
    let sign = match group {
        Some(n) => format!("<a href=\"#violation-{n}\">{}</a>", mark.sign),
        None => mark.sign.to_owned(),
    };
    let _ = write!(page, "<td class=\"{}\" title=\"{}\">{sign}</td>", mark.class, escape(&told));
}

fn scenarios(findings: &Findings, page: &mut String) {
    let _ = write!(page, "<details id=\"scenarios\">\n<summary>{SCENARIOS}</summary>\n<ul>\n");
    for tried in &findings.tried {
        let Tried { scenario, why, elapsed_ms, struck, .. } = tried;
        let never = if *struck { "" } else { ", the run does not reach it" };
        let mark = Mark::of(tried);
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let _ = writeln!(
            page,
            "<li>{} <code>{}</code> <span class=\"dim\">{}{} ({}{never})</span></li>",
            mark.sign,
            escape(&scenario.to_string()),
            Mark::of_end(tried.end).meaning,
            escape(&why),
            span(*elapsed_ms)
        );
    }
    page.push_str("</ul>\n</details>\n");
}
