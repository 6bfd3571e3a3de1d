//! Questions that are answered from elsewhere, by those who may.

use std::{collections::BTreeMap, thread, time::Duration};

use contraflow_runtime::{
    Report,
    effect::{Reply, Role},
    event::{Event, RunOutcome},
};

use crate::lab::Lab;

/// Runs a script while people answer what is asked.
fn answered(lab: &Lab, script: &str, replies: Vec<Reply>) -> Report {
    let (store, handle) = (lab.store.clone(), lab.tokio.handle().clone());
    thread::scope(|scope| {
        scope.spawn(move || {
            let asked = loop {
                if let Some(asked) = handle.block_on(store.asked(None)).unwrap().pop() {
                    break asked;
                }
                thread::sleep(Duration::from_millis(5));
            };
            for reply in replies {
                assert!(handle.block_on(store.answer(&asked.run, &asked.id, &reply)).unwrap());
            }
        });
        lab.run(script)
    })
}

fn notes(lab: &Lab) -> Vec<String> {
    lab.events
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::Note { text, .. } = &e.event { Some(text.clone()) } else { None })
        .collect()
}

#[test]
fn an_approval_comes_from_those_who_may_and_as_many_as_must() {
    let lab = Lab::new();
    let script = r#"
        let got = approve("go on?", #{ by: "managers", at_least: 2 });
        note(`by ${got.by}`);
        lab::set("a", 1);
    "#;
    let replies = ["cy", "starter", "ana@desk", "ana@laptop", "bo"].map(|name| Reply::new(true, name));
    let report = answered(&lab, script, replies.into());
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let notes = notes(&lab);
    assert!(notes[0].contains("cy may not answer"), "{notes:?}");
    assert!(notes[1].contains("starter"), "{notes:?}");
    assert!(notes[2].contains("ana has already said yes"), "{notes:?}");
    assert_eq!(notes[3], r#"by ["ana@desk", "bo"]"#);
}

#[test]
fn one_no_is_a_no() {
    let lab = Lab::new();
    let no = Reply { comment: Some("not today".into()), ..Reply::new(false, "bo") };
    let report = answered(
        &lab,
        r#"lab::set("a", 1); approve("go on?", #{ at_least: 2 }); lab::set("b", 1);"#,
        vec![Reply::new(true, "ana"), no],
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack);
    assert_eq!(report.error.unwrap().message, r#"bo denied "go on?": not today"#);
}

#[test]
fn an_expired_question_is_a_no_unless_the_script_says_otherwise_and_cannot_be_answered() {
    let lab = Lab::new();
    let report = lab.run(r#"approve("go on?", #{ timeout: "30ms" });"#);
    assert_eq!(report.error.unwrap().message, r#"nobody approved "go on?" within 30ms"#);
    assert!(
        !lab.tokio.block_on(lab.store.answer(&report.run, "1:approve", &Reply::new(true, "ana"))).unwrap()
    );
    let report = lab.run(
        r#"if approve("go on?", #{ timeout: "30ms", on_timeout: "approve" }).approved { fail("nobody did") }"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
}

#[test]
fn a_role_without_anybody_who_may_answer_is_refused_at_once() {
    let lab = Lab::new();
    for (options, want) in [
        ("by: \"lonely\"", "nobody may answer"),
        ("by: \"ana\", at_least: 2", "only 1 may answer, but 2 must"),
        ("at_least: 0", "expected 1 or more"),
        ("timeout: \"0s\"", "expected more than 0s"),
        ("by: 3", "expected a name or a list of names"),
        ("on_timeout: \"maybe\"", "on_timeout"),
    ] {
        let report = lab.run(&format!("let options = #{{ {options} }}; approve(\"go on?\", options);"));
        let message = report.error.unwrap().message;
        assert!(message.contains(want), "{options}: {message}");
    }
}

/// The roles of the lab.
pub fn roles() -> BTreeMap<String, Role> {
    let role = |members: &[&str]| Role {
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        may_be_starter: false,
    };
    BTreeMap::from([
        ("managers".to_owned(), role(&["ana", "bo", "starter"])),
        ("lonely".to_owned(), role(&["starter"])),
    ])
}
