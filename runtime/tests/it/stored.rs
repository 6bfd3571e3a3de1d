//! What earlier versions have stored is read, shown, resumed and undone by this one.
//!
//! `runtime/tests/stored` has a folder for each version of records: a store with runs that hold every kind of record, the events
//! that they are shown as, and a saved plan. The folder of the current version is written by
//! `UPDATE_STORED=1 cargo test -p contraflow-runtime --test it stored`, as long as that version is not released; those before it
//! are never written again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use contraflow_runtime::{
    SavedPlan, Stop, Takeover,
    event::RunOutcome,
    journal::{
        Record, Run, SqliteStore, history,
        record::{VERSION, verify},
    },
    world::YesToAll,
};
use serde_json::Value;
use sqlx::{Connection as _, Row as _};

use crate::{
    lab::{Fault, Lab},
    resume::{Kill, again, run_and_die},
};

/// Does what can be undone. Has, with its neighbours below, records of every kind.
const WHOLE: &str = r#"
    let seen = lab::look("a");
    note("begins");
    step("one", || { lab::set("a", seen + 1); lab::set("a", seen + 1); lab::ring("first", #{ undoable: true }); });
    on_rollback(|| lab::ring("was undone"));
    parallel([|| lab::set("b", 2), || lab::guard("c", 3, || lab::look("c"))]);
    confirm("go on?");
    lab::set("c", 2);
"#;

/// Fails half-way through a change, after one that cannot be undone, while a guard watches.
const BREACHED: &str = r#"
    lab::set("d", 666);
    try { lab::set("e", 5); } catch { note("half-way"); }
    lab::guard("f", 3, || { lab::set("f", 9); sleep("10m"); });
"#;

/// Waits, and has no way back.
const WAITS: &str = r#"
    lab::set("g", 1);
    point_of_no_return("told");
    lab::set("h", 2);
    lab::wait_for("i", 7);
    lab::ring("last");
"#;

/// Dies while a change is in doubt.
const DIES: &str =
    r#"lab::set("j", 1); step("two", || lab::set("k", 2)); lab::ring("done"); lab::set("l", 3);"#;

/// Is planned.
const PLANNED: &str = r#"lab::set("a", 1); lab::set("c", 0); confirm("ring?"); lab::ring("done");"#;

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stored/v{version}"))
}

/// A lab whose lamps have these levels; all others are at 0. Runs that hold locks have lamps of their own.
fn lab(levels: &[(&str, i64)]) -> Lab {
    let lab = Lab { people: Some(Arc::new(YesToAll { by: "ana@desk".into() })), ..Lab::new() };
    let dark = ('a'..='l').map(|lamp| (lamp.to_string(), 0));
    let lit = levels.iter().map(|(lamp, level)| ((*lamp).to_owned(), *level));
    lab.lamps.board().lamps.extend(dark.chain(lit));
    lab
}

/// A lab on the store of a version, as that version left it.
fn stored(version: u32, levels: &[(&str, i64)]) -> Lab {
    let mut lab = lab(levels);
    let place = lab.folder.path().join("stored");
    fs::create_dir(&place).unwrap();
    let dump = fs::read_to_string(folder(version).join("store.sql")).unwrap();
    lab.store = lab.tokio.block_on(async {
        let url = format!("sqlite:{}?mode=rwc", place.join("contraflow.db").display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(dump)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Arc::new(SqliteStore::open(&place).await.unwrap())
    });
    lab
}

fn runs(lab: &Lab) -> Vec<Run> {
    lab.tokio.block_on(lab.store.runs(100)).unwrap()
}

/// The one run that ended, or died, like this.
fn run_that(lab: &Lab, status: &str) -> Run {
    let mut found: Vec<Run> = runs(lab).into_iter().filter(|run| run.status.as_str() == status).collect();
    assert_eq!(found.len(), 1, "{status}: {found:?}");
    found.remove(0)
}

fn records(lab: &Lab, run: &Run) -> Vec<Record> {
    let sealed = lab.tokio.block_on(lab.store.records(&run.id)).unwrap();
    verify(&sealed).unwrap();
    sealed.iter().map(|record| record.open().unwrap()).collect()
}

/// The events of all runs, one a line.
fn shown(lab: &Lab) -> Vec<Value> {
    let mut runs = runs(lab);
    runs.sort_by_key(|run| (run.started_at, run.id.clone()));
    runs.iter()
        .flat_map(|run| history(run, &records(lab, run)))
        .map(|event| serde_json::to_value(event).unwrap())
        .collect()
}

/// Whether a value has all that another has; fields may have been added.
fn includes(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            then.iter().all(|(field, value)| now.get(field).is_some_and(|now| includes(now, value)))
        }
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| includes(now, then))
        }
        _ => now == then,
    }
}

/// The versions of which something is stored.
fn versions() -> impl Iterator<Item = u32> {
    if std::env::var_os("UPDATE_STORED").is_some() {
        static WRITTEN: std::sync::Once = std::sync::Once::new();
        WRITTEN.call_once(write);
    }
    1..=VERSION
}

#[test]
fn every_stored_journal_verifies_and_is_shown_as_it_was() {
    for version in versions() {
        let lab = stored(version, &[]);
        assert_eq!(lab.tokio.block_on(lab.store.check()), Ok(vec![]), "v{version}");
        let now = shown(&lab);
        let then = fs::read_to_string(folder(version).join("events.jsonl")).unwrap();
        let then: Vec<Value> = then.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(now.len(), then.len(), "v{version}");
        for (now, then) in now.iter().zip(&then) {
            assert!(includes(now, then), "v{version}:\n{now:#}\n{then:#}");
        }
    }
}

#[test]
fn the_stored_journal_of_this_version_has_every_kind_of_record() {
    let version = versions().last().unwrap();
    let lab = stored(version, &[]);
    let mut kinds: BTreeSet<String> = BTreeSet::new();
    for run in runs(&lab) {
        for record in records(&lab, &run) {
            let entry = serde_json::to_value(&record.entry).unwrap();
            let (kind, fields) = entry.as_object().unwrap().iter().next().unwrap();
            let result = fields.get("result").and_then(Value::as_object).and_then(|map| map.keys().next());
            kinds.insert(result.map_or_else(|| kind.clone(), |result| format!("{kind}: {result}")));
        }
    }
    insta::assert_snapshot!(kinds.into_iter().collect::<Vec<_>>().join("\n"), @"
    checkpoint
    doubt_resolved
    guard_started
    intent
    no_return
    note
    outcome: answered
    outcome: changed
    outcome: failed
    outcome: performed
    outcome: unchanged
    paused
    replied
    resumed
    rollback_ended
    rollback_started
    run_ended
    scope_ended
    scope_stopped
    step_ended
    step_started
    undo_registered
    ");
}

#[test]
fn a_stored_run_that_died_is_resumed_and_applies_nothing_twice() {
    for version in versions() {
        // Its last change was applied, and nobody knew.
        let lab = stored(version, &[("j", 1), ("k", 2)]);
        let run = run_that(&lab, "running");
        let report = again(&lab, &run);
        assert_eq!(report.outcome, RunOutcome::Succeeded, "v{version}: {:?}", report.error);
        assert_eq!(lab.log(), ["l 0 -> 3"], "v{version}");
        assert_eq!(lab.lamps.board().rings.len(), 1, "v{version}");
        records(&lab, &run);
    }
}

#[test]
fn a_stored_run_that_was_paused_is_resumed() {
    for version in versions() {
        let lab = stored(version, &[("g", 1), ("h", 2), ("i", 7)]);
        let report = again(&lab, &run_that(&lab, "paused"));
        assert_eq!(report.outcome, RunOutcome::Succeeded, "v{version}: {:?}", report.error);
        assert_eq!((lab.log().len(), lab.lamps.board().rings.len()), (0, 1), "v{version}");
    }
}

#[test]
fn a_stored_run_is_rolled_back() {
    for version in versions() {
        let lab = stored(version, &[("a", 1), ("b", 2), ("c", 2)]);
        let run = run_that(&lab, "succeeded");
        let report =
            lab.tokio.block_on(lab.runtime().roll_back(&run, Takeover::default(), &Stop::default())).unwrap();
        assert_eq!(report.outcome, RunOutcome::RolledBack, "v{version}: {:?}", report.error);
        assert_eq!(["a", "b", "c"].map(|lamp| lab.level(lamp)), [0; 3], "v{version}");
        assert!(lab.log().contains(&"unring 1".to_owned()), "v{version}: {:?}", lab.log());
        records(&lab, &run);
    }
}

#[test]
fn a_stored_plan_is_run() {
    for version in versions() {
        let lab = stored(version, &[]);
        let plan = SavedPlan::parse(&fs::read_to_string(folder(version).join("lab.plan")).unwrap()).unwrap();
        let report = lab.tokio.block_on(lab.runtime().run_plan(&plan, &Stop::default())).unwrap();
        assert_eq!(report.outcome, RunOutcome::Succeeded, "v{version}: {:?}", report.error);
        assert_eq!((lab.level("a"), lab.lamps.board().rings.len()), (1, 1), "v{version}");
        assert_eq!(lab.tokio.block_on(lab.store.plan_used(&plan.id)), Ok(Some(report.run)), "v{version}");
    }
}

/// Writes the folder of the current version.
fn write() {
    let lab = lab(&[]);
    let ends = |script: &str, outcome: RunOutcome| {
        let report = lab.run(script);
        assert_eq!(report.outcome, outcome, "{:?}", report.error);
    };
    ends(WHOLE, RunOutcome::Succeeded);
    lab.fault("e", [Fault::HalfDone(3)]);
    ends(BREACHED, RunOutcome::RollbackIncomplete);
    let stop = Stop::default();
    let pauses = stop.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // While it waits, some time before it is tired of it.
            let begun = Instant::now();
            while lab.level("h") != 2 && begun.elapsed() < Duration::from_secs(20) {
                std::thread::yield_now();
            }
            std::thread::sleep(Duration::from_millis(150));
            pauses.pause("ana@desk");
        });
        let running = lab.runtime();
        let (bundle, params) = (Lab::bundle(WAITS), BTreeMap::new());
        let report = lab.tokio.block_on(running.run_until(&bundle, &params, &stop)).unwrap();
        assert_eq!(report.outcome, RunOutcome::Paused, "{:?}", report.error);
    });
    // One dies, is resumed and undone, and one is left as it died.
    let died = run_and_die(&lab, &format!("{DIES} fail(\"enough\");"), Kill::AfterApply(1)).unwrap();
    assert_eq!(again(&lab, &died).outcome, RunOutcome::RolledBack);
    run_and_die(&lab, DIES, Kill::AfterApply(1)).unwrap();
    lab.tokio.block_on(async {
        let reply = contraflow_runtime::effect::Reply::new(true, "ana@desk");
        let until = "9999-01-01T00:00:00Z".parse().unwrap();
        lab.store.approve("0123456789abcdef", until, &reply).await.unwrap();
    });
    for lamp in ["a", "b", "c"] {
        lab.lamps.board().lamps.insert(lamp.into(), 0);
    }
    let bundle = Lab::bundle(PLANNED);
    let planned =
        lab.tokio.block_on(lab.runtime().foresee(&bundle, &BTreeMap::new(), &Stop::default())).unwrap();
    let plan = lab.runtime().save(&planned, &bundle, Duration::from_secs(1000 * 365 * 24 * 3600)).unwrap();

    let folder = folder(VERSION);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lab.plan"), plan.to_json()).unwrap();
    let events: String = shown(&lab).iter().map(|event| format!("{event}\n")).collect();
    fs::write(folder.join("events.jsonl"), events).unwrap();
    fs::write(folder.join("store.sql"), lab.tokio.block_on(dump(lab.folder.path()))).unwrap();
}

/// A store as text, without the name of this machine.
async fn dump(place: &Path) -> String {
    let url = format!("sqlite:{}", place.join("contraflow.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "UPDATE runs SET holder = json_set(holder, '$.host', 'desk', '$.pid', 4711) WHERE holder IS NOT NULL",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.unwrap();
    let mut text = String::new();
    let schema = sqlx::query(
        "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC, name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for row in &schema {
        let (name, kind, sql): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        text.push_str(&format!("{sql};\n"));
        if kind != "table" {
            continue;
        }
        let columns: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT name FROM pragma_table_info('{name}')")))
                .fetch_all(&mut connection)
                .await
                .unwrap();
        let values: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
        let query = format!(
            "SELECT {} FROM {name} ORDER BY {}",
            values.join(" || ', ' || "),
            columns[..2].join(", ")
        );
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&mut connection).await.unwrap();
        for row in rows {
            text.push_str(&format!("INSERT INTO {name} ({}) VALUES ({row});\n", columns.join(", ")));
        }
    }
    text.push_str(&format!("PRAGMA user_version = {version};\n"));
    text
}
