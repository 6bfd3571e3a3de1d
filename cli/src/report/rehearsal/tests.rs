//! What is shown of hand-made findings.

use contraflow_runtime::{
    error::RunError,
    event::{Kind, Mode, RunOutcome},
    rehearsal::{End, Findings, Row, Scenario, Tried, Violation},
};
use insta::assert_snapshot;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::report::{format::clean, samples::Story, theme::Theme};

fn rehearsed() -> Rehearsed {
    Rehearsed {
        runbook: "shift".into(),
        version: "1.0.0".into(),
        environment: "sandbox".into(),
        scenario: Some("shift.scenario.toml".into()),
        looked: false,
        command: "contraflow rehearse shift.rhai --no-look".into(),
    }
}

fn row(id: &str, kind: Kind, effect: &str, faults: &[&str]) -> Row {
    Row {
        id: id.into(),
        kind,
        effect: effect.into(),
        what: "web".into(),
        faults: faults.iter().map(|fault| fault.parse().expect("a fault")).collect(),
    }
}

fn tried(name: &str, end: End) -> Tried {
    let why = (end != End::Succeeded).then(|| format!("why of <{name}> & \"more\""));
    Tried {
        scenario: name.parse().expect("a scenario"),
        end,
        why,
        hints: Vec::new(),
        next: Vec::new(),
        left: Vec::new(),
        elapsed_ms: 65_000,
        struck: true,
        violations: Vec::new(),
    }
}

fn violates(name: &str, end: End, invariant: &str, after: Option<&str>) -> Tried {
    let violation = Violation {
        invariant: invariant.into(),
        after: after.map(Into::into),
        why: "web/green gets 5% & has no replicas".into(),
    };
    Tried { violations: vec![violation], ..tried(name, end) }
}

fn good() -> Findings {
    Findings {
        effects: vec![
            row("1:traffic.shift", Kind::Change, "traffic.shift", &["refused", "lost-answer", "killed"]),
            row("2:metrics.hold", Kind::Wait, "metrics.hold", &["fails", "no-data", "breach(2:guard)"]),
            row("3:sleep", Kind::Wait, "sleep", &[]),
            row("rollback/1:traffic.shift", Kind::Change, "traffic.shift", &["refused", "lost-answer"]),
        ],
        tried: vec![
            tried("as-planned", End::Succeeded),
            tried("1:traffic.shift=refused", End::Failed),
            tried("1:traffic.shift=lost-answer", End::Succeeded),
            tried("1:traffic.shift=killed", End::Succeeded),
            tried("2:metrics.hold=fails", End::RolledBack),
            tried("2:metrics.hold=no-data", End::RolledBack),
            tried("2:metrics.hold=breach(2:guard)", End::RolledBack),
            tried("crash@1", End::Succeeded),
            tried("crash@2", End::Succeeded),
            tried("branches-backwards", End::Succeeded),
            tried("2:metrics.hold=fails+rollback/1:traffic.shift=refused", End::RollbackIncomplete),
            tried("2:metrics.hold=fails+rollback/1:traffic.shift=lost-answer", End::RolledBack),
            tried("2:metrics.hold=fails+crash@3", End::RolledBack),
        ],
        not_tried: 0,
        records: 3,
        planned_ms: 65_000,
    }
}

fn bad() -> Findings {
    let mut findings = good();
    let capacity = "traffic only goes to pools with capacity";
    findings.tried[2] =
        violates("1:traffic.shift=lost-answer", End::Succeeded, capacity, Some("1:traffic.shift"));
    findings.tried[3] = violates("1:traffic.shift=killed", End::Succeeded, capacity, Some("1:traffic.shift"));
    findings.tried[8] = violates("crash@2", End::Paused, "ends or can be resumed", None);
    findings.not_tried = 1;
    findings.tried.pop();
    findings.tried.pop();
    findings
}

fn unknown_states() -> Findings {
    let mut planned = tried("as-planned", End::Unknown);
    planned.why = Some("the scenario file has no initial state for traffic/web".into());
    planned.hints = vec!["add it under [states]: \"traffic/web\" = …".into()];
    let mut again = planned.clone();
    again.scenario = Scenario::crash(1);
    Findings {
        effects: vec![row("1:traffic.shift", Kind::Change, "traffic.shift", &["unreachable"])],
        tried: vec![planned, tried("1:traffic.shift=unreachable", End::Failed), again],
        not_tried: 0,
        records: 2,
        planned_ms: 0,
    }
}

/// The groups, as they are when their scenarios have been played again.
fn groups(findings: &Findings) -> Vec<Group> {
    let mut groups = Group::all(findings);
    for group in &mut groups {
        let story = Story::new(Mode::Rehearsal).open("shift").shift("1:traffic.shift", 0, 5);
        let error = RunError::new("gate-failed", "error_rate was 3%");
        group.events = story.close("shift", true, 60).end(RunOutcome::RolledBack, Some(error), 65_000, 0);
    }
    groups
}

fn shown(findings: &Findings, width: Option<usize>) -> String {
    human::report(&rehearsed(), findings, &groups(findings), false, Theme { width, ..Theme::PLAIN })
}

#[test]
fn a_runbook_that_stands_everything_is_one_table() {
    assert_snapshot!(shown(&good(), None), @"
    Rehearsal of shift 1.0.0 in sandbox
      from shift.scenario.toml; everything else is unknown
      as planned: ✓ succeeded (1m5s, 3 records)

                       refused
                       │  lost-answer
                       │  │  fails
                       │  │  │  no-data
                       │  │  │  │  breach
                       │  │  │  │  │  killed
    1:traffic.shift    –  ✓  ·  ·  ·  ✓
    2:metrics.hold     ·  ·  ↩  ↩  ↩  ·
    rollback
      1:traffic.shift  !  ↩  ·  ·  ·  ·

    ✓ succeeded   ↩ rolled back   – failed with nothing to undo   ! needs a person: rollback incomplete
    · not possible
    ✓ killed at each of 2 records and resumed: same outcome
    ✓ killed at each of 1 record during the rollback from 2:metrics.hold=fails and resumed: same outcome
    ✓ branches of each `parallel` last to first: same outcome

    13 scenarios of 3 effects: 6 succeeded, 5 rolled back, 1 failed with nothing to undo, 1 needs a person
    no violations
    ");
}

#[test]
fn a_violation_is_told_with_the_shortest_way_to_it() {
    assert_snapshot!(shown(&bad(), None), @"
    Rehearsal of shift 1.0.0 in sandbox
      from shift.scenario.toml; everything else is unknown
      as planned: ✓ succeeded (1m5s, 3 records)

                       refused
                       │  lost-answer
                       │  │  fails
                       │  │  │  no-data
                       │  │  │  │  breach
                       │  │  │  │  │  killed
    1:traffic.shift    –  ✗  ·  ·  ·  ✗
    2:metrics.hold     ·  ·  ↩  ↩  ↩  ·
    rollback
      1:traffic.shift  !  _  ·  ·  ·  ·

    ↩ rolled back   – failed with nothing to undo   ! needs a person: rollback incomplete
    ✗ VIOLATION: an invariant does not hold   _ not tried   · not possible
    ✗ killed at each of 2 records and resumed: different outcome with crash@2
    ✓ branches of each `parallel` last to first: same outcome

    ✗ traffic only goes to pools with capacity
      web/green gets 5% & has no replicas, after 1:traffic.shift
      in  1:traffic.shift=killed and 1 other scenario
          1s   ▸ shift
          4s → ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
          5s   ✓ shift (60ms)
          6s   rolled back after 1m5s: error_rate was 3%
      $ contraflow rehearse shift.rhai --no-look --only '1:traffic.shift=killed' --trace

    ✗ ends or can be resumed
      web/green gets 5% & has no replicas
      in  crash@2
          1s   ▸ shift
          4s   ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
          5s   ✓ shift (60ms)
          6s   rolled back after 1m5s: error_rate was 3%
      $ contraflow rehearse shift.rhai --no-look --only 'crash@2' --trace

    11 scenarios of 3 effects: 5 succeeded, 3 rolled back, 1 failed with nothing to undo, 1 needs a person, 1 paused
    1 scenario and their follow-ups not tried: the rehearsal was stopped early
    2 violations in 3 scenarios
    ");
}

#[test]
fn what_the_scenario_does_not_say_is_told_with_what_to_do() {
    assert_snapshot!(shown(&unknown_states(), None), @r#"
    Rehearsal of shift 1.0.0 in sandbox
      from shift.scenario.toml; everything else is unknown
      as planned: ? the scenario file has no initial state for traffic/web (0s, 2 records)

                     unreachable
    1:traffic.shift  –

    – failed with nothing to undo
    ✓ killed at each of 1 record and resumed: same outcome

    ? the scenario file has no initial state for traffic/web
      in  as-planned and 1 other scenario
      help: add it under [states]: "traffic/web" = …

    3 scenarios of 1 effect: 1 failed with nothing to undo, 2 unknown
    no violations, but the run as planned cannot be rehearsed to its end
    "#);
}

#[test]
fn no_row_of_the_table_is_broken_however_narrow_the_terminal_is() {
    let mut findings = bad();
    findings.effects.push(row(
        "a-step-with-a-very-long-name-indeed/another-one-inside-of-it/1:traffic.shift",
        Kind::Change,
        "traffic.shift",
        &["refused", "inconclusive", "times-out", "never-settles", "denied"],
    ));
    for width in 46..130 {
        let text = shown(&findings, Some(width));
        let lines = text.lines().filter(|line| !line.starts_with("  $"));
        for line in lines {
            assert!(line.width() <= width, "{width}: {line}");
        }
    }
    let narrow = shown(&findings, Some(50));
    assert!(narrow.contains("verdict") && !narrow.contains("inconclusive"), "{narrow}");
    let wide = shown(&findings, Some(120));
    assert!(wide.contains("a-step-with-a-very-long-name-indeed/another-one-inside-of-it/1:traffic.shift"));
}

#[test]
fn colours_add_nothing_to_the_words() {
    let theme = Theme { colour: true, ..Theme::PLAIN };
    let coloured = human::report(&rehearsed(), &bad(), &groups(&bad()), true, theme);
    assert!(coloured.contains("\u{1b}[31m"));
    let plain = human::report(&rehearsed(), &bad(), &groups(&bad()), true, Theme::PLAIN);
    assert_eq!(clean(&coloured), clean(&plain));
}

#[test]
fn what_does_not_hold_as_planned_is_not_the_fault_of_a_fault() {
    let mut findings = good();
    for tried in &mut findings.tried {
        let scenario = tried.scenario.to_string();
        *tried = violates(&scenario, tried.end, "weights add up to 100", Some("1:traffic.shift"));
    }
    let text = shown(&findings, None);
    assert!(text.contains("as planned: ✗ succeeded"), "{text}");
    assert!(text.contains("1:traffic.shift    –  ✓"), "{text}");
    assert!(text.contains("in  as-planned and 12 other scenarios"), "{text}");
}

#[test]
fn what_the_first_of_two_faults_brings_about_is_not_marked_at_the_second() {
    let mut findings = good();
    let heeds = |name: &str| violates(name, End::Succeeded, "acts on failed checks", Some("2:metrics.hold"));
    findings.tried[4] = heeds("2:metrics.hold=fails");
    for at in [11, 12] {
        let name = findings.tried[at].scenario.to_string();
        findings.tried[at] = heeds(&name);
    }
    let text = shown(&findings, None);
    assert!(text.contains("2:metrics.hold     ·  ·  ✗"), "{text}");
    assert!(text.contains("rollback\n  1:traffic.shift  !  ✓"), "{text}");
    assert!(text.contains("✓ killed at each of 1 record during the rollback"), "{text}");
    assert!(text.contains("in  2:metrics.hold=fails and 2 other scenarios"), "{text}");
}

#[test]
fn one_scenario_is_its_verdict_behind_how_it_goes() {
    let group = groups(&bad()).remove(0);
    let tried = &bad().tried[2];
    assert_snapshot!(human::one(&rehearsed(), tried, Some(&group.events), Theme::PLAIN), @"
    Rehearsal of shift 1.0.0 in sandbox
      from shift.scenario.toml; everything else is unknown

          1s   ▸ shift
          4s   ~ traffic.shift web: blue 100, green 0 -> blue 95, green 5
          5s   ✓ shift (60ms)
          6s   rolled back after 1m5s: error_rate was 3%

    ✗ 1:traffic.shift=lost-answer: succeeded (1m5s)
      ✗ traffic only goes to pools with capacity: web/green gets 5% & has no replicas (after 1:traffic.shift)
    ");
}

#[test]
fn programs_get_one_document_with_a_version() {
    let mut findings = bad();
    findings.effects.truncate(1);
    findings.tried.truncate(3);
    assert_snapshot!(json(&rehearsed(), &findings, &groups(&findings)), @r#"
    {
      "v": 1,
      "runbook": "shift",
      "version": "1.0.0",
      "environment": "sandbox",
      "scenario_file": "shift.scenario.toml",
      "looked": false,
      "effects": [
        {
          "id": "1:traffic.shift",
          "kind": "change",
          "effect": "traffic.shift",
          "what": "web",
          "faults": [
            "refused",
            "lost-answer",
            "killed"
          ]
        }
      ],
      "tried": [
        {
          "scenario": "as-planned",
          "end": "succeeded",
          "elapsed_ms": 65000,
          "struck": true
        },
        {
          "scenario": "1:traffic.shift=refused",
          "end": "failed",
          "why": "why of <1:traffic.shift=refused> & \"more\"",
          "elapsed_ms": 65000,
          "struck": true
        },
        {
          "scenario": "1:traffic.shift=lost-answer",
          "end": "succeeded",
          "elapsed_ms": 65000,
          "struck": true,
          "violations": [
            {
              "invariant": "traffic only goes to pools with capacity",
              "after": "1:traffic.shift",
              "why": "web/green gets 5% & has no replicas"
            }
          ]
        }
      ],
      "not_tried": 1,
      "records": 3,
      "planned_ms": 65000,
      "violations": [
        {
          "invariant": "traffic only goes to pools with capacity",
          "after": "1:traffic.shift",
          "why": "web/green gets 5% & has no replicas",
          "scenario": "1:traffic.shift=lost-answer",
          "others": 0
        }
      ]
    }
    "#);
    let group = groups(&findings).remove(0);
    let one: serde_json::Value =
        serde_json::from_str(&one_json(&rehearsed(), &findings.tried[2], Some(&group.events))).expect("JSON");
    assert_eq!((&one["v"], &one["scenario"]), (&1.into(), &"1:traffic.shift=lost-answer".into()));
    assert_eq!(one["events"].as_array().map(Vec::len), Some(group.events.len()));
}

#[test]
fn ci_systems_get_one_case_for_each_scenario() {
    let mut findings = bad();
    findings.tried.push(tried("1:traffic.shift=refused+rollback/x=killed", End::Unknown));
    findings.tried.drain(4..7);
    assert_snapshot!(junit(&rehearsed(), &findings), @r#"
    <?xml version="1.0" encoding="UTF-8"?>
    <testsuites name="contraflow rehearse" tests="9" failures="3" errors="0" skipped="1">
      <testsuite name="shift" tests="9" failures="3" errors="0" skipped="1">
        <properties>
          <property name="version" value="1.0.0"/>
          <property name="environment" value="sandbox"/>
          <property name="from" value="from shift.scenario.toml; everything else is unknown"/>
          <property name="not tried" value="1"/>
        </properties>
        <testcase classname="shift" name="as-planned"/>
        <testcase classname="1:traffic.shift" name="refused"/>
        <testcase classname="1:traffic.shift" name="lost-answer">
          <failure message="traffic only goes to pools with capacity" type="invariant">traffic only goes to pools with capacity: web/green gets 5% &amp; has no replicas (after 1:traffic.shift)&#10;$ contraflow rehearse shift.rhai --no-look --only &#39;1:traffic.shift=lost-answer&#39; --trace</failure>
        </testcase>
        <testcase classname="1:traffic.shift" name="killed">
          <failure message="traffic only goes to pools with capacity" type="invariant">traffic only goes to pools with capacity: web/green gets 5% &amp; has no replicas (after 1:traffic.shift)&#10;$ contraflow rehearse shift.rhai --no-look --only &#39;1:traffic.shift=killed&#39; --trace</failure>
        </testcase>
        <testcase classname="shift" name="crash@1"/>
        <testcase classname="shift" name="crash@2">
          <failure message="ends or can be resumed" type="invariant">ends or can be resumed: web/green gets 5% &amp; has no replicas&#10;$ contraflow rehearse shift.rhai --no-look --only &#39;crash@2&#39; --trace</failure>
        </testcase>
        <testcase classname="shift" name="branches-backwards"/>
        <testcase classname="rollback/1:traffic.shift" name="refused after 2:metrics.hold=fails"/>
        <testcase classname="rollback/x" name="killed after 1:traffic.shift=refused">
          <skipped message="why of &lt;1:traffic.shift=refused+rollback/x=killed&gt; &amp; &quot;more&quot;"/>
        </testcase>
      </testsuite>
    </testsuites>
    "#);
}

#[test]
fn the_page_for_browsers_needs_nothing_else() {
    let page = html(&rehearsed(), &bad(), &groups(&bad()));
    let (head, body) = page.split_once("</style>").expect("a style");
    for outside in ["http:", "https:", "url(", "@import", "<script", "<link", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(head.contains("prefers-color-scheme: dark") && head.contains("@media print"));
    assert_snapshot!(body, @r##"

    </head>
    <body>
    <main>
    <h1>Rehearsal of shift 1.0.0</h1>
    <p class="dim">in sandbox, from shift.scenario.toml; everything else is unknown</p>
    <div class="verdict violation">
    <p><strong>2 violations in 3 scenarios.</strong></p>
    <p>As planned: ✓ succeeded (1m5s simulated, 3 records)</p>
    <p>11 scenarios of 3 effects: 5 succeeded, 3 rolled back, 1 failed with nothing to undo, 1 needs a person, 1 paused</p>
    <p>1 scenario and their follow-ups not tried: the rehearsal was stopped early</p>
    </div>
    <nav><a href="#violation-0">Violations</a><a href="#effects">Effects and faults</a><a href="#scenarios">All scenarios</a></nav>
    <h2>Violations</h2>
    <section class="found" id="violation-0">
    <h3>✗ traffic only goes to pools with capacity</h3>
    <p>web/green gets 5% &amp; has no replicas, after 1:traffic.shift</p>
    <p class="dim">in <code>1:traffic.shift=killed</code> and 1 other scenario</p>
    <pre tabindex="0">      1s   ▸ shift
          4s → ~ traffic.shift web: blue 100, green 0 -&gt; blue 95, green 5
          5s   ✓ shift (60ms)
          6s   rolled back after 1m5s: error_rate was 3%</pre>
    <p><code>$ contraflow rehearse shift.rhai --no-look --only &#39;1:traffic.shift=killed&#39; --trace</code></p>
    </section>
    <section class="found" id="violation-1">
    <h3>✗ ends or can be resumed</h3>
    <p>web/green gets 5% &amp; has no replicas</p>
    <p class="dim">in <code>crash@2</code></p>
    <pre tabindex="0">      1s   ▸ shift
          4s   ~ traffic.shift web: blue 100, green 0 -&gt; blue 95, green 5
          5s   ✓ shift (60ms)
          6s   rolled back after 1m5s: error_rate was 3%</pre>
    <p><code>$ contraflow rehearse shift.rhai --no-look --only &#39;crash@2&#39; --trace</code></p>
    </section>
    <h2 id="effects">Effects and faults</h2>
    <div class="scroll" role="region" aria-label="Effects and faults" tabindex="0">
    <table>
    <thead><tr><th scope="col">effect</th><th scope="col"><span>refused</span></th><th scope="col"><span>lost-answer</span></th><th scope="col"><span>fails</span></th><th scope="col"><span>no-data</span></th><th scope="col"><span>breach</span></th><th scope="col"><span>killed</span></th></tr></thead>
    <tbody>
    <tr><th scope="row" title="traffic.shift web"><code>1:traffic.shift</code></th><td class="failed" title="1:traffic.shift=refused: failed with nothing to undo (why of &lt;1:traffic.shift=refused&gt; &amp; &quot;more&quot;)">–</td><td class="violation" title="1:traffic.shift=lost-answer: VIOLATION: an invariant does not hold (traffic only goes to pools with capacity)"><a href="#violation-0">✗</a></td><td class="" title="not possible">·</td><td class="" title="not possible">·</td><td class="" title="not possible">·</td><td class="violation" title="1:traffic.shift=killed: VIOLATION: an invariant does not hold (traffic only goes to pools with capacity)"><a href="#violation-0">✗</a></td></tr>
    <tr><th scope="row" title="metrics.hold web"><code>2:metrics.hold</code></th><td class="" title="not possible">·</td><td class="" title="not possible">·</td><td class="back" title="2:metrics.hold=fails: rolled back (why of &lt;2:metrics.hold=fails&gt; &amp; &quot;more&quot;)">↩</td><td class="back" title="2:metrics.hold=no-data: rolled back (why of &lt;2:metrics.hold=no-data&gt; &amp; &quot;more&quot;)">↩</td><td class="back" title="2:metrics.hold=breach(2:guard): rolled back (why of &lt;2:metrics.hold=breach(2:guard)&gt; &amp; &quot;more&quot;)">↩</td><td class="" title="not possible">·</td></tr>
    </tbody>
    <tbody>
    <tr><th scope="rowgroup" class="block" colspan="7">rollback</th></tr>
    <tr><th scope="row" title="traffic.shift web"><code>1:traffic.shift</code></th><td class="person" title="2:metrics.hold=fails+rollback/1:traffic.shift=refused: needs a person: rollback incomplete (why of &lt;2:metrics.hold=fails+rollback/1:traffic.shift=refused&gt; &amp; &quot;more&quot;)">!</td><td class="untried" title="not tried">_</td><td class="" title="not possible">·</td><td class="" title="not possible">·</td><td class="" title="not possible">·</td><td class="" title="not possible">·</td></tr>
    </tbody>
    </table>
    </div>
    <ul class="legend">
    <li><span class="back">↩</span>rolled back</li>
    <li><span class="failed">–</span>failed with nothing to undo</li>
    <li><span class="person">!</span>needs a person: rollback incomplete</li>
    <li><span class="violation">✗</span>VIOLATION: an invariant does not hold</li>
    <li><span class="untried">_</span>not tried</li>
    <li><span class="">·</span>not possible</li>
    </ul>
    <ul>
    <li>killed at each of 2 records and resumed: different outcome with crash@2</li>
    <li>branches of each `parallel` last to first: same outcome</li>
    </ul>
    <details id="scenarios">
    <summary>All scenarios</summary>
    <ul>
    <li>✓ <code>as-planned</code> <span class="dim">succeeded (1m5s)</span></li>
    <li>– <code>1:traffic.shift=refused</code> <span class="dim">failed with nothing to undo: why of &lt;1:traffic.shift=refused&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    <li>✗ <code>1:traffic.shift=lost-answer</code> <span class="dim">succeeded (1m5s)</span></li>
    <li>✗ <code>1:traffic.shift=killed</code> <span class="dim">succeeded (1m5s)</span></li>
    <li>↩ <code>2:metrics.hold=fails</code> <span class="dim">rolled back: why of &lt;2:metrics.hold=fails&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    <li>↩ <code>2:metrics.hold=no-data</code> <span class="dim">rolled back: why of &lt;2:metrics.hold=no-data&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    <li>↩ <code>2:metrics.hold=breach(2:guard)</code> <span class="dim">rolled back: why of &lt;2:metrics.hold=breach(2:guard)&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    <li>✓ <code>crash@1</code> <span class="dim">succeeded (1m5s)</span></li>
    <li>✗ <code>crash@2</code> <span class="dim">paused: why of &lt;crash@2&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    <li>✓ <code>branches-backwards</code> <span class="dim">succeeded (1m5s)</span></li>
    <li>! <code>2:metrics.hold=fails+rollback/1:traffic.shift=refused</code> <span class="dim">needs a person: rollback incomplete: why of &lt;2:metrics.hold=fails+rollback/1:traffic.shift=refused&gt; &amp; &quot;more&quot; (1m5s)</span></li>
    </ul>
    </details>
    </main>
    </body>
    </html>
    "##);
}
