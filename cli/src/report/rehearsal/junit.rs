//! The findings as CI systems read them.

use std::fmt::Write as _;

use contraflow_runtime::rehearsal::{End, Findings, Scenario, Tried};

use super::Rehearsed;
use crate::report::format::clean;

/// One suite, with one case for each scenario. Times are left out: those of a rehearsal are simulated.
pub(crate) fn junit(rehearsed: &Rehearsed, findings: &Findings) -> String {
    let tests = findings.tried.len();
    let failures = findings.violated().count();
    let skipped = findings.tried.iter().filter(|tried| is_skipped(tried)).count();
    let name = escape(&rehearsed.runbook);
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"contraflow rehearse\" {counts}>\n  <testsuite name=\"{name}\" {counts}>\n    <properties>\n"
    );
    for (key, value) in [
        ("version", &*rehearsed.version),
        ("environment", &*rehearsed.environment),
        ("from", &*rehearsed.origin()),
        ("not tried", &*findings.not_tried.to_string()),
    ] {
        let _ = writeln!(text, "      <property name=\"{key}\" value=\"{}\"/>", escape(value));
    }
    text.push_str("    </properties>\n");
    for tried in &findings.tried {
        case(rehearsed, tried, &mut text);
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn is_skipped(tried: &Tried) -> bool {
    tried.end == End::Unknown && tried.violations.is_empty()
}

fn case(rehearsed: &Rehearsed, tried: &Tried, text: &mut String) {
    let (class, name) = names(&rehearsed.runbook, &tried.scenario);
    let _ = write!(text, "    <testcase classname=\"{}\" name=\"{}\"", escape(&class), escape(&name));
    let Some(first) = tried.violations.first() else {
        if is_skipped(tried) {
            let why = escape(tried.why.as_deref().unwrap_or_default());
            let _ = write!(text, ">\n      <skipped message=\"{why}\"/>\n    </testcase>\n");
        } else {
            text.push_str("/>\n");
        }
        return;
    };
    let mut told = String::new();
    for violation in &tried.violations {
        let _ = write!(told, "{}", violation.invariant);
        if !violation.why.is_empty() {
            let _ = write!(told, ": {}", violation.why);
        }
        if let Some(after) = &violation.after {
            let _ = write!(told, " (after {after})");
        }
        told.push('\n');
    }
    let _ = write!(told, "$ {}", rehearsed.replay(&tried.scenario.to_string()));
    let _ = write!(
        text,
        ">\n      <failure message=\"{}\" type=\"invariant\">{}</failure>\n    </testcase>\n",
        escape(&first.invariant),
        escape(&told)
    );
}

/// The class and the name of a case: the effect and what goes wrong with it.
fn names(runbook: &str, scenario: &Scenario) -> (String, String) {
    if let (Some((id, fault)), None, false) = (scenario.faults.last(), scenario.crash, scenario.backwards) {
        let before =
            Scenario { faults: scenario.faults[..scenario.faults.len() - 1].to_vec(), ..Scenario::default() };
        let name = if before.is_as_planned() { fault.to_string() } else { format!("{fault} after {before}") };
        return (id.to_string(), name);
    }
    (runbook.to_owned(), scenario.to_string())
}

/// Text as it may stand in XML, also between quotes. What XML cannot say at all is shown instead.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in clean(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' => escaped.push_str("&#10;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_runbook_says_can_leave_its_place() {
        assert_eq!(escape("a<b> & \"c\" 'd'\ne"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;&#10;e");
        assert_eq!(escape("bell\u{7} \u{1b}[31mred\u{0} \u{ffff}"), "bell\\u{7} red\\u{0} \u{fffd}");
    }
}
