//! Tables of `contraflow runs` and `contraflow targets`: aligned columns for people, JSON for programs.

use contraflow_runtime::{
    effect::{EffectId, Reply},
    journal::{Asked, Run},
};
use jiff::Timestamp;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::{
    format::{ago, clean, short, span},
    theme::{Theme, Tone},
};

/// Something that can be a row.
pub(crate) trait Row: Serialize {
    /// The headings of the columns.
    const HEADINGS: &'static [&'static str];

    /// One cell for each heading, each in its tone. `now` is for relative times.
    fn cells(&self, now: Timestamp) -> Vec<(Tone, String)>;
}

/// A run, as `contraflow runs` lists it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunRow {
    /// Its id.
    pub(crate) run: String,
    /// Name and version of its runbook.
    pub(crate) runbook: String,
    /// Environment.
    pub(crate) environment: String,
    /// How it ended, or `running`.
    pub(crate) state: String,
    /// Whether a process works on it.
    pub(crate) alive: bool,
    /// The answers that it waits for.
    pub(crate) waits_for: Vec<Waiting>,
    /// When it began.
    pub(crate) started: Timestamp,
    /// How long it took, once it has ended.
    pub(crate) elapsed_ms: Option<u64>,
    /// Who began it.
    pub(crate) started_by: String,
    /// Hash of the saved plan that it was started from.
    pub(crate) plan: Option<String>,
}

/// A question that a run waits for.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Waiting {
    /// Its id.
    pub(crate) id: EffectId,
    /// What is asked.
    pub(crate) question: String,
    /// Who may answer. Empty: everybody.
    pub(crate) by: String,
    /// Since when.
    pub(crate) since: Timestamp,
    /// When the question can no longer be answered.
    pub(crate) until: Option<Timestamp>,
    /// How many different people must say yes.
    pub(crate) at_least: u32,
    /// What the answers come to. None: more are wanted.
    pub(crate) answered: Option<bool>,
    /// Who has answered.
    pub(crate) answered_by: Vec<String>,
}

impl Waiting {
    fn new(Asked { id, question, at, until, .. }: &Asked, replies: &[Reply]) -> Self {
        let heard = question.hear(replies);
        Self {
            id: id.clone(),
            question: question.text.clone(),
            by: question.rule.told(),
            since: *at,
            until: *until,
            at_least: question.rule.at_least.max(1),
            answered: heard.verdict,
            answered_by: heard.counted.into_iter().map(|reply| reply.by).collect(),
        }
    }

    /// In words: `retire the old pool? (by ops, 12m left)`. What was answered waits only for the run to go on.
    fn told(&self, now: Timestamp, alive: bool) -> String {
        if let Some(yes) = self.answered {
            let (word, by) = (if yes { "yes" } else { "no" }, self.answered_by.join(", "));
            let next = if alive { "" } else { "; ready to resume" };
            return format!("{} (answered: {word} by {by}{next})", self.question);
        }
        let so_far = (!self.answered_by.is_empty()).then(|| {
            format!("{} of {}: {}", self.answered_by.len(), self.at_least, self.answered_by.join(", "))
        });
        let by = (!self.by.is_empty()).then(|| format!("by {}", self.by));
        let left = self.until.map(|until| match u64::try_from(until.duration_since(now).as_millis()) {
            Ok(left) => format!("{} left", span(left)),
            Err(_) => "too late".to_owned(),
        });
        let terms: Vec<String> = by.into_iter().chain(so_far).chain(left).collect();
        if terms.is_empty() {
            self.question.clone()
        } else {
            format!("{} ({})", self.question, terms.join(", "))
        }
    }
}

impl RunRow {
    /// The row of a run, with those of the open questions that it asks, and the answers to each so far.
    pub(crate) fn new(run: Run, asked: &[(Asked, Vec<Reply>)]) -> Self {
        Self {
            alive: run.is_alive(),
            waits_for: asked
                .iter()
                .filter(|(asked, _)| asked.run == run.id)
                .map(|(asked, replies)| Waiting::new(asked, replies))
                .collect(),
            elapsed_ms: run
                .ended_at
                .map(|end| u64::try_from(end.duration_since(run.started_at).as_millis()).unwrap_or(0)),
            run: run.id,
            runbook: format!("{} {}", run.runbook, run.version),
            environment: run.environment,
            state: run.status.as_str().to_owned(),
            started: run.started_at,
            started_by: run.started_by,
            plan: run.plan,
        }
    }
}

impl Row for RunRow {
    const HEADINGS: &'static [&'static str] =
        &["RUN", "RUNBOOK", "ENV", "STATE", "STARTED", "TOOK", "BY", "PLAN", "WAITS FOR"];

    fn cells(&self, now: Timestamp) -> Vec<(Tone, String)> {
        // Without a process it does not run: it died, and waits to be taken up.
        let dead = self.state == "running" && !self.alive;
        let state = if dead { "died" } else { &*self.state };
        let tone = match state {
            "died" => Tone::Bad,
            "succeeded" => Tone::Good,
            "failed" | "rollback_incomplete" | "aborted" => Tone::Bad,
            "rolled_back" | "paused" => Tone::Warn,
            _ => Tone::Active,
        };
        vec![
            (Tone::Strong, self.run.clone()),
            (Tone::Plain, self.runbook.clone()),
            (Tone::Plain, self.environment.clone()),
            (tone, state.replace('_', " ")),
            (Tone::Plain, ago(now, self.started)),
            (Tone::Plain, self.elapsed_ms.map_or_else(|| "-".to_owned(), span)),
            (Tone::Plain, self.started_by.clone()),
            (Tone::Plain, self.plan.as_deref().map(short).unwrap_or_default().to_owned()),
            (
                Tone::Active,
                self.waits_for
                    .iter()
                    .map(|waiting| waiting.told(now, self.alive))
                    .collect::<Vec<_>>()
                    .join("; "),
            ),
        ]
    }
}

/// A target, as `contraflow targets` lists it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TargetRow {
    /// Capability and name, such as `traffic/web`.
    pub(crate) target: String,
    /// Kind of its provider.
    pub(crate) provider: String,
    /// Where that points.
    pub(crate) at: String,
    /// What a check found, if one was made: what answered, or why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check: Option<Check>,
}

/// What the check of a target found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// Whether it can be used.
    pub(crate) ok: bool,
    /// What answered, or why it cannot be used.
    pub(crate) text: String,
}

impl Row for TargetRow {
    const HEADINGS: &'static [&'static str] = &["TARGET", "PROVIDER", "AT", "CHECK"];

    fn cells(&self, _: Timestamp) -> Vec<(Tone, String)> {
        let check = match &self.check {
            None => (Tone::Plain, String::new()),
            Some(Check { ok: true, text }) => (Tone::Good, format!("ok: {text}")),
            Some(Check { ok: false, text }) => (Tone::Bad, format!("failed: {text}")),
        };
        vec![
            (Tone::Strong, self.target.clone()),
            (Tone::Plain, self.provider.clone()),
            (Tone::Plain, self.at.clone()),
            check,
        ]
    }
}

/// Rows below their headings, in columns. A column in which all cells are empty is left out; without rows there is no text.
pub(crate) fn columns<R: Row>(rows: &[R], now: Timestamp, theme: Theme) -> String {
    let cells: Vec<Vec<(Tone, String)>> = rows
        .iter()
        .map(|row| {
            let cells = row.cells(now).into_iter();
            cells.map(|(tone, text)| (tone, clean(&text).replace('\n', " "))).collect()
        })
        .collect();
    let used: Vec<(usize, &str)> = R::HEADINGS
        .iter()
        .enumerate()
        .filter(|(i, _)| cells.iter().any(|row| row.get(*i).is_some_and(|(_, text)| !text.is_empty())))
        .map(|(i, heading)| (i, *heading))
        .collect();
    if used.is_empty() {
        return String::new();
    }
    let widths: Vec<usize> = used
        .iter()
        .map(|(i, heading)| cells.iter().map(|row| row[*i].1.width()).max().unwrap_or(0).max(heading.width()))
        .collect();
    let line = |texts: Vec<(Tone, &str)>| {
        let last = texts.len() - 1;
        let mut line = String::new();
        for (i, (tone, text)) in texts.into_iter().enumerate() {
            line.push_str(&theme.paint(tone, text));
            if i < last {
                line.push_str(&" ".repeat(widths[i] - text.width() + 2));
            }
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    };
    let headings = line(used.iter().map(|(_, heading)| (Tone::Dim, *heading)).collect());
    let rows = cells.iter().map(|row| line(used.iter().map(|(i, _)| (row[*i].0, &*row[*i].1)).collect()));
    std::iter::once(headings).chain(rows).collect()
}

/// Rows as JSON, one object a line.
pub(crate) fn json<R: Row>(rows: &[R]) -> String {
    // Rows are plain structs: they always have a JSON form.
    rows.iter().filter_map(|row| serde_json::to_string(row).ok()).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use contraflow_runtime::effect::{Question, QuestionKind, Rule};
    use insta::assert_snapshot;

    use super::*;

    fn run(run: &str, runbook: &str, state: &str, elapsed_ms: Option<u64>) -> RunRow {
        RunRow {
            run: run.into(),
            runbook: runbook.into(),
            environment: "sandbox".into(),
            alive: true,
            waits_for: Vec::new(),
            state: state.into(),
            started: "2026-03-01T11:48:00Z".parse().expect("time"),
            elapsed_ms,
            started_by: "ana@ops1".into(),
            plan: None,
        }
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().expect("time")
    }

    fn target(target: &str, check: Option<Check>) -> TargetRow {
        TargetRow { target: target.into(), provider: "haproxy".into(), at: "/run/haproxy.sock".into(), check }
    }

    #[test]
    fn runs_stand_in_columns_by_what_a_terminal_shows() {
        let rows = [
            run("01K3A", "blue-green 1.0.0", "succeeded", Some(31_204)),
            run("01K3B", "größe 2.0.0", "rollback_incomplete", Some(900)),
            run("01K3C", "切替 1.0.0", "running", None),
        ];
        assert_snapshot!(columns(&rows, now(), Theme::PLAIN), @"
        RUN    RUNBOOK           ENV      STATE                STARTED  TOOK   BY
        01K3A  blue-green 1.0.0  sandbox  succeeded            12m ago  31s    ana@ops1
        01K3B  größe 2.0.0       sandbox  rollback incomplete  12m ago  900ms  ana@ops1
        01K3C  切替 1.0.0        sandbox  running              12m ago  -      ana@ops1
        ");
    }

    fn asked(rule: Rule) -> Asked {
        Asked {
            run: "01K3A".into(),
            id: "1:approve".into(),
            question: Question { rule, ..Question::new(QuestionKind::Approve, "retire blue?") },
            at: now(),
            until: Some("2026-03-01T12:10:00Z".parse().expect("time")),
        }
    }

    #[test]
    fn what_was_answered_no_longer_waits_for_people() {
        let two = Rule { by: "ops".into(), at_least: 2, ..Rule::default() };
        let says = |yes, who: &str| Reply::new(yes, who);
        let told = |replies: &[Reply], alive| Waiting::new(&asked(two.clone()), replies).told(now(), alive);
        let yes = [says(true, "bo"), says(true, "cy")];
        let all = [
            told(&[], false),
            told(&yes[..1], false),
            told(&yes, false),
            told(&yes, true),
            told(&[says(false, "bo")], false),
        ];
        assert_snapshot!(all.join("\n"), @"
        retire blue? (by ops, 10m left)
        retire blue? (by ops, 1 of 2: bo, 10m left)
        retire blue? (answered: yes by bo, cy; ready to resume)
        retire blue? (answered: yes by bo, cy)
        retire blue? (answered: no by bo; ready to resume)
        ");
        let json = serde_json::to_value(Waiting::new(&asked(two), &yes)).expect("json");
        assert_eq!(
            (&json["answered"], json["answered_by"].to_string()),
            (&true.into(), r#"["bo","cy"]"#.into())
        );
    }

    #[test]
    fn a_run_from_a_plan_names_it() {
        let plan = Some("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned());
        let rows = [
            RunRow { plan, ..run("01K3A", "web 1.0.0", "succeeded", Some(900)) },
            run("01K3B", "web 1.0.0", "succeeded", Some(900)),
        ];
        assert_snapshot!(columns(&rows, now(), Theme::PLAIN), @"
        RUN    RUNBOOK    ENV      STATE      STARTED  TOOK   BY        PLAN
        01K3A  web 1.0.0  sandbox  succeeded  12m ago  900ms  ana@ops1  9f86d081884c
        01K3B  web 1.0.0  sandbox  succeeded  12m ago  900ms  ana@ops1
        ");
    }

    #[test]
    fn a_column_that_nobody_uses_is_left_out() {
        assert_snapshot!(columns(&[target("traffic/web", None)], now(), Theme::PLAIN), @r#"
        TARGET       PROVIDER  AT
        traffic/web  haproxy   /run/haproxy.sock
        "#);
        let checked = [
            target("traffic/web", Some(Check { ok: true, text: "HAProxy 2.6.12, 2 pools".into() })),
            target("db/main", Some(Check { ok: false, text: "refused\nthe connection".into() })),
        ];
        assert_snapshot!(columns(&checked, now(), Theme::PLAIN), @r#"
        TARGET       PROVIDER  AT                 CHECK
        traffic/web  haproxy   /run/haproxy.sock  ok: HAProxy 2.6.12, 2 pools
        db/main      haproxy   /run/haproxy.sock  failed: refused the connection
        "#);
        assert_eq!(columns::<RunRow>(&[], now(), Theme::PLAIN), "");
    }

    #[test]
    fn programs_get_one_object_a_line() {
        let rows = [run("01K3A", "blue-green 1.0.0", "succeeded", None)];
        assert_snapshot!(json(&rows), @r#"{"run":"01K3A","runbook":"blue-green 1.0.0","environment":"sandbox","state":"succeeded","alive":true,"waits_for":[],"started":"2026-03-01T11:48:00Z","elapsed_ms":null,"started_by":"ana@ops1","plan":null}"#);
        assert_eq!(json(&[target("db/main", None)]).matches("check").count(), 0);
    }
}
