//! What is kept of a run, and that it is enough.

use contraflow_runtime::{
    event::RunOutcome,
    journal::{RunStatus, record::verify},
};

use crate::lab::{Fault, Lab};

const SCRIPT: &str = r#"
note("begin");
let seen = lab::look("a");
step("first", || { lab::set("a", seen + 1); lab::set("a", seen + 1); });
parallel([|| lab::set("b", 4), || lab::ring("ding", #{ undoable: true })]);
try { lab::expect("a", 77); } catch (e) { note(e.message); }
sleep("1ms");
on_rollback(|| lab::set("c", 1));
"#;

fn kept(lab: &Lab, run: &str) -> contraflow_runtime::journal::Run {
    lab.tokio.block_on(lab.store.find(run)).unwrap().remove(0)
}

#[test]
fn a_finished_run_is_replayed_from_its_journal_without_touching_any_provider() {
    for (end, outcome) in [("", RunOutcome::Succeeded), ("fail(\"enough\");", RunOutcome::RolledBack)] {
        let lab = Lab::new();
        let first = lab.run(&format!("{SCRIPT}{end}"));
        assert_eq!(first.outcome, outcome, "{:?}", first.error);
        let before = (lab.log(), lab.lamps.board().rings.clone());
        lab.events.lock().unwrap().clear();
        // Were a provider asked, it would give other answers now.
        lab.lamps.board().lamps.clear();
        let again = lab.tokio.block_on(lab.runtime().replay(&kept(&lab, &first.run))).unwrap();
        assert_eq!(
            (again.outcome, again.changes, &again.error),
            (first.outcome, first.changes, &first.error)
        );
        assert_eq!((lab.log(), lab.lamps.board().rings.clone()), before);
        assert!(lab.events.lock().unwrap().iter().all(|e| {
            !matches!(&e.event, contraflow_runtime::event::Event::EffectEnded { replayed: false, .. })
        }));
    }
}

#[test]
fn records_form_a_chain_and_the_run_ends_with_its_outcome() {
    let lab = Lab::new();
    let report = lab.run(SCRIPT);
    let run = kept(&lab, &report.run);
    assert_eq!(run.status, RunStatus::Ended(RunOutcome::Succeeded));
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    assert!(records.len() > 12, "{}", records.len());
    verify(&records).unwrap();
    let mut forged = records.clone();
    forged[4].body = forged[4].body.replace("observed", "assumed").replace("level", "Level");
    assert_eq!(verify(&forged).unwrap_err().seq, 5);
}

#[test]
fn the_intent_is_in_the_store_before_the_provider_is_asked() {
    let lab = Lab::new();
    // The provider hangs in its apply; meanwhile the intent can be read from another connection.
    lab.fault("a", [Fault::Hangs]);
    let store = lab.store.clone();
    let tokio = lab.tokio.handle().clone();
    std::thread::scope(|scope| {
        let looked = scope.spawn(move || {
            for _ in 0..200 {
                let found = tokio.block_on(async {
                    let run = store.runs(1).await.unwrap().pop()?;
                    let records = store.records(&run.id).await.unwrap();
                    records.iter().find(|r| r.body.contains("{\"intent\":")).map(|r| r.body.clone())
                });
                if let Some(found) = found {
                    return found;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            String::new()
        });
        lab.run(r#"lab::set("a", 5);"#);
        let intent = looked.join().unwrap();
        assert!(intent.contains(r#""from":0,"to":5"#), "{intent}");
    });
}

#[test]
fn a_script_that_does_something_else_on_replay_is_stopped_with_both_sides() {
    let lab = Lab::new();
    let report = lab.run(r#"lab::set("a", 1);"#);
    let mut run = kept(&lab, &report.run);
    let other = lab.run(r#"lab::set("a", 2);"#);
    run.bundle = kept(&lab, &other.run).bundle;
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    let error = again.error.unwrap();
    assert_eq!(error.code.as_str(), "diverged");
    assert_eq!(error.hints[0], r#"journal: lab.set {"lamp":"a","to":1}"#);
    assert_eq!(error.hints[1], r#"script:  lab.set {"lamp":"a","to":2}"#);
}

#[test]
fn a_store_that_cannot_be_written_stops_the_run_before_anything_is_applied() {
    let lab = Lab::new();
    // Somebody drops the table while the run goes on.
    let sabotage = lab.folder.path().join("contraflow.db");
    assert!(sabotage.exists());
    lab.tokio.block_on(async {
        use sqlx::Connection as _;
        let mut c = sqlx::SqliteConnection::connect(&format!("sqlite:{}", sabotage.display())).await.unwrap();
        sqlx::raw_sql("DROP TABLE records").execute(&mut c).await.unwrap();
    });
    let report = lab.run(r#"lab::look("a"); try { lab::set("a", 1); } catch { lab::set("b", 1); }"#);
    assert_eq!(report.outcome, RunOutcome::Paused, "it can go on once the journal can be written");
    assert_eq!(report.error.unwrap().code.as_str(), "journal");
    assert!(lab.log().is_empty());
}

#[test]
fn the_store_is_private_and_refuses_a_folder_it_cannot_use() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    let mode = std::fs::metadata(lab.folder.path().join("contraflow.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let blocked = lab.folder.path().join("file");
    std::fs::write(&blocked, "x").unwrap();
    let error = lab
        .tokio
        .block_on(contraflow_runtime::journal::SqliteStore::open(&blocked.join("state")))
        .unwrap_err();
    assert!(error.message.contains("file/state"), "{error}");
    assert!(error.hints[0].contains("--state-dir"));
}

#[test]
fn a_damaged_or_foreign_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contraflow.db");
    std::fs::write(&path, "this is no database, it is a letter to the editor, and quite a long one").unwrap();
    let tokio = tokio::runtime::Runtime::new().unwrap();
    let error = tokio.block_on(contraflow_runtime::journal::SqliteStore::open(folder.path())).unwrap_err();
    assert!(error.message.contains("not a database"), "{error}");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("this is no database"));
}
