//! The bytes of a secret reach neither script nor journal nor events nor reports, however careless a server is.

use contraflow_runtime::event::RunOutcome;

use crate::lab::{Lab, secret_value};

/// Everything that left a run, in one text.
fn all(lab: &Lab, report: &contraflow_runtime::Report) -> String {
    let events = lab.events.lock().unwrap();
    let mut text = serde_json::to_string(&*events).unwrap();
    text += &format!("{report:?}");
    text += &serde_json::to_string(report).unwrap();
    for record in lab.tokio.block_on(lab.store.records(&report.run)).unwrap() {
        text += &record.id;
        text += &record.body;
    }
    text
}

#[test]
fn the_bytes_of_a_secret_appear_nowhere() {
    for script in [
        r#"let v = lab::blab("tok"); note(`${v}`); step(v.echo, || lab::ring(v.echo)); v.keys().for_each(|k| note(k));"#,
        r#"lab::blab_and_fail("tok");"#,
        r#"step("s", || { try { lab::blab_and_fail("tok") } catch (e) { note(`${e.message} ${e.hints} ${e.detail}`); fail(`again: ${e.detail}`) } });"#,
        r#"lab::set("a", 1); on_rollback(|| { lab::blab_and_fail("tok") }); fail("x");"#,
        r#"lab::set("a", 1); let v = lab::blab("tok"); on_rollback(|| { throw v; }); throw v;"#,
        r#"let v = lab::blab("tok"); parallel([|| fail(v.echo), || fail(v.echo)]);"#,
        r#"let v = lab::blab("tok"); let m = #{}; m[v.echo]"#,
    ] {
        let lab = Lab::new();
        let report = lab.run(script);
        let text = all(&lab, &report);
        assert!(!text.contains(&secret_value("tok")), "{script}\n{text}");
        assert!(text.contains("<secret tok>"), "{script}\n{text}");
    }
}

#[test]
fn a_script_sees_the_same_on_replay_when_a_server_echoes_a_secret() {
    let lab = Lab::new();
    let first = lab.run(
        r#"let v = lab::blab("tok"); note(`${v.echo.len()}`); lab::ring(v.echo); if v.echo.len() > 25 { lab::set("a", 1) }"#,
    );
    assert_eq!(first.outcome, RunOutcome::Succeeded, "{:?}", first.error);
    let run = lab.tokio.block_on(lab.store.find(&first.run)).unwrap().remove(0);
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    assert_eq!((again.outcome, again.error, again.changes), (first.outcome, first.error, first.changes));
}

#[test]
fn a_secret_that_is_also_a_word_of_the_record_hides_only_itself() {
    // A password such as "note" must not switch scrubbing off for the others.
    use contraflow_runtime::{
        clock::SystemClock,
        event::{Emitter, Envelope, Event, NoteLevel},
        secret::Vault,
    };
    use std::sync::{Arc, Mutex};
    let vault = Arc::new(Vault::default());
    for word in ["note", "level", "text", "event", "changed", "observed", "hunter2-and-more"] {
        vault.keep(format!("{}-{}", word.len(), &word[..1]), word.to_owned().into());
    }
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = Arc::clone(&seen);
    let sink: Arc<dyn contraflow_runtime::event::Sink> =
        Arc::new(move |event: &Envelope| list.lock().unwrap().push(serde_json::to_string(event).unwrap()));
    let emitter = Emitter::new("r", [sink], Arc::new(SystemClock::default()), vault);
    emitter.emit(Event::Note {
        id: "1:note".into(),
        level: NoteLevel::Note,
        text: "it is hunter2-and-more".into(),
        replayed: false,
    });
    let seen = seen.lock().unwrap();
    assert!(!seen[0].contains("hunter2-and-more"), "{seen:?}");
    assert!(seen[0].contains("it is <secret"), "{seen:?}");
}

#[test]
fn a_secret_has_no_json_form_for_a_script_and_passes_through_arrays_and_maps() {
    let lab = Lab::new();
    let report = lab.run(
        r#"let s = lab::secret("tok"); let m = #{ a: [s, #{ b: s }] };
        let copy = m.a[1].b; if type_of(copy) != "secret" { fail(type_of(copy)) }
        let n = parallel([|| m.a[0]])[0]; if type_of(n) != "secret" { fail(type_of(n)) }"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let report = lab.run(r#"let s = lab::secret("tok"); let text = #{ a: s }.to_json(); lab::ring(text);"#);
    assert_eq!(report.outcome, RunOutcome::Failed, "{:?} {:?}", report.error, lab.lamps.board().rings);
}

#[test]
fn the_bytes_of_a_secret_are_in_no_snapshot_and_no_findings() {
    use contraflow_runtime::{Beginning, rehearsal::Explore};
    for script in [
        // Seen after, before and while the secret is read; in an answer, in an error, in a parameter.
        r#"let v = lab::blab("tok"); note(v.echo); lab::set("a", 1);"#,
        r#"try { lab::blab_and_fail("tok"); } catch (e) { note(e.message); } lab::blab("tok");"#,
    ] {
        let lab = Lab::new();
        let _on = lab.tokio.enter();
        let beginning = Beginning { look: true, ..Beginning::default() };
        let rehearsal =
            lab.runtime().rehearsal(&Lab::bundle(script), &Default::default(), &beginning).unwrap();
        let found = lab.tokio.block_on(rehearsal.explore(Explore::default())).unwrap();
        let params = [("p".to_owned(), serde_json::json!([secret_value("tok")]))];
        let snapshot = rehearsal.snapshot(params.into());
        let text = format!("{snapshot:?} {} {found:?}", serde_json::to_string(&snapshot).unwrap());
        assert!(!text.contains(&secret_value("tok")), "{script}: {text}");
        assert!(text.contains("<secret tok>"), "{script}: {text}");
    }
}

#[test]
fn no_data_becomes_a_handle_of_a_secret() {
    let lab = Lab::new();
    // What a script was given by others, and what it made itself.
    let report = lab.run(
        r##"
        let made = #{ "$secret": [#{ name: "tok" }] };
        let parsed = parse_json(`{"$secret":[{"name":"tok"}]}`);
        let caught = ();
        try { throw #{ "$secret": [#{ name: "tok" }] } } catch (e) { caught = e }
        if type_of(caught) != "map" || caught["$secret"] != made["$secret"] { fail(`${caught}`) }
        for data in [made, parsed] {
            if type_of(data) != "map" { fail(type_of(data)) }
            if data.to_json() != `{"$secret":[{"name":"tok"}]}` { fail(data.to_json()) }
        }
        "##,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    use contraflow_runtime::{script::convert, secret::Text};
    let forged = serde_json::json!({ "$secret": [{ "name": "tok" }] });
    let given = convert::from_json(forged);
    assert!(given.is_map());
    let told = convert::decode::<Text>(&given, "stdin").expect_err("a map is no text");
    assert!(told.message.starts_with("`stdin`"), "{told}");
    let handle = rhai::Dynamic::from(contraflow_runtime::secret::SecretText::named("tok"));
    assert!(matches!(convert::decode::<Text>(&handle, "stdin"), Ok(Text::Secret(_))));
}

#[test]
fn nothing_of_a_record_or_an_event_escapes_the_scrubber_by_its_name() {
    // Fields of any form are named in one list; a new one must be added there.
    let listed = ["detail", "from", "memory", "params", "state", "to", "value"];
    for source in [
        "event.rs",
        "journal/record.rs",
        "plan/mod.rs",
        "question.rs",
        "vocabulary.rs",
        "../../provider/src/error.rs",
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(source);
        let text = std::fs::read_to_string(path).unwrap();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let Some((field, kind)) = line.trim_start_matches("pub ").split_once(": ") else { continue };
            let whole = |part: &str| kind.trim_end_matches(',').ends_with(part) && !kind.contains('(');
            let data = ["Value", "Value>", "serde_json::Value>"].iter().any(|part| whole(part));
            assert!(!data || field.contains(' ') || listed.contains(&field), "{source}: {line}");
        }
    }
}
