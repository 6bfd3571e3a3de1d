//! What begins also ends, in events and in the journal, whatever goes wrong.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use contraflow_runtime::{
    Runtime,
    event::{Envelope, Event, RunOutcome},
    journal::{RunStatus, Sealed, Store, StoreError, record::verify},
};

use crate::{
    gate::{Gate, Gated},
    lab::{Fault, Lab},
};

/// What is open at the end of a list of events.
fn open(events: &[Envelope]) -> Vec<String> {
    let mut open: BTreeMap<String, i32> = BTreeMap::new();
    for event in events {
        let (key, by) = match &event.event {
            Event::EffectStarted { id, .. } => (format!("effect {id}"), 1),
            Event::EffectEnded { id, .. } => (format!("effect {id}"), -1),
            Event::StepStarted { id, .. } => (format!("step {id}"), 1),
            Event::StepEnded { id, .. } => (format!("step {id}"), -1),
            Event::RollbackStarted { .. } => ("rollback".into(), 1),
            Event::RollbackEnded { .. } => ("rollback".into(), -1),
            Event::RunStarted { .. } => ("run".into(), 1),
            Event::RunEnded { .. } => ("run".into(), -1),
            _ => continue,
        };
        *open.entry(key).or_default() += by;
    }
    open.into_iter().filter(|(_, n)| *n != 0).map(|(key, n)| format!("{key} {n:+}")).collect()
}

#[test]
fn everything_that_starts_ends() {
    for script in [
        r#"step("s", || lab::set("a", 1));"#,
        r#"step("s", || { step("t", || fail("no")) });"#,
        r#"step("s", || { step("t", || throw "out") });"#,
        r#"step("s", || { step("t", || lab::explode()) });"#,
        r#"step("s", || { step("t", || lab::set("p", 1)) });"#,
        r#"parallel([|| step("s", || lab::explode()), || step("t", || lab::set("p", 1)), || step("u", || sleep("2ms"))]);"#,
        r#"lab::set("b", 1); on_rollback(|| step("s", || lab::explode())); fail("no");"#,
        r#"lab::set("b", 1); on_rollback(|| step("s", || lab::set("p", 1))); fail("no");"#,
        r#"step("s", || { loop { } });"#,
        r#"step("s", || { 1 + [] });"#,
        r#"step("s", || { lab::ring("broken") });"#,
        r#"step("s", || { lab::wait_for("a", 9) });"#,
    ] {
        let mut lab = Lab::new();
        lab.limits.max_operations = 100_000;
        lab.lamps.board().lamps.insert("p".into(), 0);
        lab.fault("p", [Fault::Panics]);
        lab.run(script);
        assert_eq!(open(&lab.events.lock().unwrap()), [""; 0], "{script}");
    }
}

#[test]
fn everything_that_starts_ends_when_the_journal_cannot_be_written() {
    for effect in [r#"lab::set("a", 1)"#, r#"lab::ring("x")"#, r#"sleep("1ms")"#] {
        let lab = Lab::new();
        lab.tokio.block_on(async {
            use sqlx::Connection as _;
            let path = lab.folder.path().join("contraflow.db");
            let mut c = sqlx::SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
            sqlx::raw_sql("DROP TABLE records").execute(&mut c).await.unwrap();
        });
        let report = lab.run(&format!("step(\"s\", || {effect});"));
        assert_eq!(report.error.unwrap().code.as_str(), "journal", "{effect}");
        assert_eq!(open(&lab.events.lock().unwrap()), [""; 0], "{effect}");
    }
}

/// A store that takes its time, or refuses.
struct Slow {
    lazy: Duration,
    refuse: AtomicBool,
}

#[async_trait]
impl Gate for Slow {
    async fn before(&self, _: &[Sealed], durable: bool) -> Result<(), StoreError> {
        if self.refuse.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::new("the disk is full"));
        }
        if !durable {
            tokio::time::sleep(self.lazy).await;
        }
        Ok(())
    }
}

#[test]
fn records_on_their_way_to_a_slow_store_arrive_before_the_run_ends() {
    let lab = Lab::new();
    let slow = Slow { lazy: Duration::from_millis(1500), refuse: AtomicBool::new(false) };
    let store: Arc<dyn Store> = Arc::new(Gated { inner: Arc::clone(&lab.store), gate: slow });
    let runtime = Runtime::builder().store(store).build();
    // The records are handed over after 100 ms; the run ends while they are on their way.
    let bundle =
        Lab::bundle("for i in 0..300 { note(`${i}`); let n = 0; while n < 300 { n += 1; } } note(\"last\");");
    let report = lab.tokio.block_on(runtime.run(&bundle, &BTreeMap::new())).unwrap();
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    verify(&records).unwrap();
    assert!(records.iter().any(|r| r.body.contains("last")));
}

#[test]
fn many_branches_write_one_chain() {
    let lab = Lab::new();
    let report = lab.run(
        r#"let jobs = []; for n in 0..40 { let n = n; jobs.push(|| { for i in 0..20 { note(`${n} ${i}`); lab::look("a"); } lab::set("b", n); }); }
        parallel(jobs);"#,
    );
    assert_eq!(report.outcome, RunOutcome::Succeeded, "{:?}", report.error);
    let records = lab.tokio.block_on(lab.store.records(&report.run)).unwrap();
    verify(&records).unwrap();
    assert!(records.len() > 1600, "{}", records.len());
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    assert_eq!(run.status, RunStatus::Ended(RunOutcome::Succeeded));
    let again = lab.tokio.block_on(lab.runtime().replay(&run)).unwrap();
    assert_eq!((again.outcome, again.changes), (report.outcome, report.changes));
}

#[test]
fn the_story_of_a_run_counts_the_same_changes_as_its_report() {
    let lab = Lab::new();
    lab.fault("c", [Fault::HalfDone(7)]);
    let report = lab.run(
        r#"lab::set("a", 1); on_rollback(|| lab::set("b", 2)); try { lab::set("c", 9) } catch { } fail("enough");"#,
    );
    assert_eq!(report.outcome, RunOutcome::RolledBack, "{:?}", report.left);
    let run = lab.tokio.block_on(lab.store.find(&report.run)).unwrap().remove(0);
    let records: Vec<_> = lab
        .tokio
        .block_on(lab.store.records(&report.run))
        .unwrap()
        .iter()
        .map(|r| r.open().unwrap())
        .collect();
    let told = contraflow_runtime::journal::history(&run, &records);
    let Some(Event::RunEnded { changes, .. }) = told.last().map(|e| &e.event) else { panic!("no end") };
    assert_eq!((*changes, report.changes), (2, 2));
}
