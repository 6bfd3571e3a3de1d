//! Databases whose schema can be migrated.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Fixture, on, on_of};
use crate::{
    codes as own,
    contract::describes_itself,
    db::{Applied, Database, Migration, Record, Schema, Table, Version, Work, checksum},
    error::codes,
    provider::{ProviderError, Retry},
    quantity::Span,
};

/// All of it, each part on a database that `fresh` makes.
///
/// # Panics
/// The contract is broken.
pub async fn holds<F: Fixture>(fresh: impl AsyncFn() -> F) {
    describes_itself(&*fresh().await.database()).await;
    files_apply_in_order_and_go_back(&fresh().await).await;
    the_history_is_what_was_applied(&fresh().await).await;
    the_way_back_is_kept_in_the_history(&fresh().await).await;
    what_has_no_way_back_stays(&fresh().await).await;
    a_history_that_somebody_else_moved_is_left_alone(&fresh().await).await;
    a_file_that_fails_halfway_keeps_those_before_it(&fresh().await).await;
    a_file_outside_a_transaction_runs_as_it_is(&fresh().await).await;
    a_second_migration_waits_for_the_lock(&fresh().await).await;
    two_at_once_apply_each_file_once(&fresh().await).await;
    a_statement_that_takes_too_long_is_ended(&fresh().await).await;
    a_rehearsal_finds_what_fails_and_leaves_nothing(&fresh().await).await;
}

/// A migration of that name, such as `0001_users`.
fn file(name: &str, up: &str, down: Option<&str>) -> Migration {
    let version = Version::read(name.split('_').next().unwrap_or_default()).expect("a number in front");
    let ending = if down.is_some() { "up.sql" } else { "sql" };
    Migration {
        version,
        name: name.to_owned(),
        file: format!("{name}.{ending}"),
        checksum: checksum(up),
        up: up.to_owned(),
        down: down.map(str::to_owned),
    }
}

fn users() -> Migration {
    let up = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT);\n";
    file("0001_users", up, Some("DROP TABLE users;\n"))
}

/// Three migrations: users, an e-mail column, one row.
fn three() -> Vec<Migration> {
    vec![
        users(),
        file(
            "0002_email",
            "ALTER TABLE users ADD COLUMN email TEXT;\n",
            Some("ALTER TABLE users DROP COLUMN email;\n"),
        ),
        file(
            "0003_ann",
            "INSERT INTO users VALUES (1, 'ann', 'ann@example.com');\n",
            Some("DELETE FROM users WHERE id = 1;\n"),
        ),
    ]
}

/// The three and one more.
fn three_and(more: Migration) -> Vec<Migration> {
    let mut all = three();
    all.push(more);
    all
}

/// What leads from the first `from` of the migrations to the first `to`.
fn work(migrations: &[Migration], from: usize, to: usize) -> Work {
    let first = |n: usize| {
        let applied = |m: &Migration| Applied { version: m.version.clone(), checksum: m.checksum.clone() };
        Schema(migrations[..n].iter().map(applied).collect())
    };
    Work {
        table: Table::default(),
        from: first(from),
        to: first(to),
        migrations: migrations.to_owned(),
        lock_timeout: Span::secs(5),
        statement_timeout: Span::secs(300),
    }
}

async fn ready(fixture: &dyn Fixture) -> Arc<dyn Database> {
    let database = fixture.database();
    database.ready().await.expect("ready");
    assert!(database.migrations().is_some(), "the database has migrations");
    database
}

async fn migrate(fixture: &dyn Fixture, work: &Work) -> Result<(), ProviderError> {
    ready(fixture).await.migrations().expect("migrations").migrate(&on(), work).await
}

async fn rehearse(fixture: &dyn Fixture, work: &Work) -> Result<Option<String>, ProviderError> {
    ready(fixture).await.migrations().expect("migrations").rehearse(&on(), work).await
}

async fn history(fixture: &dyn Fixture) -> Vec<Record> {
    let database = ready(fixture).await;
    database.migrations().expect("migrations").history(&Table::default()).await.expect("history")
}

async fn applied(fixture: &dyn Fixture) -> String {
    Schema::of(history(fixture).await).to_string()
}

async fn files_apply_in_order_and_go_back(fixture: &dyn Fixture) {
    let files = three();
    assert_eq!(applied(fixture).await, "no migrations", "no table yet is no error");
    migrate(fixture, &work(&files, 0, 1)).await.expect("the first");
    assert_eq!(applied(fixture).await, "0001");
    migrate(fixture, &work(&files, 1, 3)).await.expect("the rest");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
    let ann = json!([{ "name": "ann", "email": "ann@example.com" }]);
    assert_eq!(fixture.rows("SELECT name, email FROM users").await, ann);
    migrate(fixture, &work(&files, 3, 1)).await.expect("back");
    assert_eq!(applied(fixture).await, "0001");
    fixture.run("INSERT INTO users VALUES (2, 'bob')").await;
    let bob = json!([{ "id": 2, "name": "bob" }]);
    assert_eq!(fixture.rows("SELECT * FROM users").await, bob, "row and column are gone");
    migrate(fixture, &work(&files, 1, 3)).await.expect("again");
    migrate(fixture, &work(&files, 1, 3)).await.expect("what is there already is left alone");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
    assert_eq!(fixture.rows("SELECT id FROM users ORDER BY id").await, json!([{ "id": 1 }, { "id": 2 }]));
}

async fn the_history_is_what_was_applied(fixture: &dyn Fixture) {
    let files = three_and(file("0004_more", "SELECT 1;\n", None));
    migrate(fixture, &work(&files, 0, 4)).await.expect("applied");
    let record = |m: &Migration| Record {
        version: m.version.clone(),
        name: m.name.clone(),
        checksum: m.checksum.clone(),
        down_checksum: m.down.as_deref().map(checksum),
        down: m.down.clone(),
    };
    assert_eq!(history(fixture).await, files.iter().map(record).collect::<Vec<_>>());
    let other: Table = serde_json::from_value("another_history".into()).expect("a name");
    let database = ready(fixture).await;
    let found = database.migrations().expect("migrations").history(&other).await;
    assert_eq!(found, Ok(Vec::new()), "each table is a history of its own");
}

async fn the_way_back_is_kept_in_the_history(fixture: &dyn Fixture) {
    let files = three();
    migrate(fixture, &work(&files, 0, 3)).await.expect("applied");
    let gone = Work { migrations: Vec::new(), ..work(&files, 3, 0) };
    migrate(fixture, &gone).await.expect("back without the files");
    assert_eq!(applied(fixture).await, "no migrations");
    // Refused if it were still there.
    fixture.run("CREATE TABLE users (id INTEGER)").await;
}

async fn what_has_no_way_back_stays(fixture: &dyn Fixture) {
    let files = three_and(file("0004_drop", "DROP TABLE users;\n", None));
    migrate(fixture, &work(&files, 0, 4)).await.expect("applied");
    let e = migrate(fixture, &work(&files, 4, 0)).await.expect_err("no way back");
    assert_eq!((e.code.as_str(), &*e.message), (own::MIGRATION, "0004_drop has no down file"));
    assert_eq!(applied(fixture).await, "0001, 0002, 0003, 0004", "nothing was taken back");
}

async fn a_history_that_somebody_else_moved_is_left_alone(fixture: &dyn Fixture) {
    let files = three();
    migrate(fixture, &work(&files, 0, 3)).await.expect("applied");
    for moved in [work(&files, 0, 2), work(&files, 2, 1)] {
        let e = migrate(fixture, &moved).await.expect_err("it has what neither end has");
        assert_eq!((e.code.as_str(), e.retry), (own::MIGRATION, Retry::Never), "{e:?}");
    }
    let changed = file("0002_email", "ALTER TABLE users ADD COLUMN mail TEXT;\n", None);
    let e = migrate(fixture, &work(&[users(), changed], 0, 2)).await.expect_err("another file was applied");
    assert_eq!((e.code.as_str(), e.retry), (own::MIGRATION, Retry::Never), "{e:?}");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
}

async fn a_file_that_fails_halfway_keeps_those_before_it(fixture: &dyn Fixture) {
    let bad =
        "-- a comment;\nINSERT INTO users VALUES (2, 'bob', NULL);\n\nINSERT INTO nowhere VALUES (1);\n";
    let files = three_and(file("0004_bad", bad, None));
    let e = migrate(fixture, &work(&files, 0, 4)).await.expect_err("fails");
    assert_eq!((e.code.as_str(), e.retry), (own::MIGRATION, Retry::Never));
    assert!(e.message.starts_with("0004_bad.sql line 4: ") && e.message.contains("nowhere"), "{}", e.message);
    assert!(e.message.ends_with("; applied now: 0001, 0002, 0003"), "{}", e.message);
    let detail = json!({ "file": "0004_bad.sql", "applied": ["0001", "0002", "0003"] });
    assert_eq!(e.detail, Some(detail));
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
    let n = fixture.rows("SELECT count(*) AS n FROM users").await;
    assert_eq!(n, json!([{ "n": 1 }]), "its first line is undone");
    let files = three_and(file("0004_bad", "INSERT INTO users VALUES (2, 'bob', NULL);\n", None));
    migrate(fixture, &work(&files, 0, 4)).await.expect("put right");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003, 0004");
}

async fn a_file_outside_a_transaction_runs_as_it_is(fixture: &dyn Fixture) {
    let sql = fixture.outside_transaction();
    let down = Some("DROP INDEX by_name;\n");
    let files = three_and(file("0004_index", sql, down));
    let e = migrate(fixture, &work(&files, 0, 4)).await.expect_err("needs the directive");
    assert_eq!(e.hints, ["begin the file with `-- contraflow: no-transaction`"], "{e:?}");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
    let files = three_and(file("0004_index", &format!("-- contraflow: no-transaction\n{sql}"), down));
    migrate(fixture, &work(&files, 3, 4)).await.expect("applied");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003, 0004");
    migrate(fixture, &work(&files, 4, 0)).await.expect("all taken back");
    assert_eq!(applied(fixture).await, "no migrations");
}

async fn a_second_migration_waits_for_the_lock(fixture: &dyn Fixture) {
    let files = three();
    migrate(fixture, &work(&files, 0, 1)).await.expect("the first");
    let slow = work(&[users(), file("0002_slow", fixture.slow(), None)], 1, 2);
    let database = ready(fixture).await;
    let running =
        tokio::spawn(async move { database.migrations().expect("migrations").migrate(&on(), &slow).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let quick = Work { lock_timeout: Span::millis(300), ..work(&files, 1, 3) };
    let e = migrate(fixture, &quick).await.expect_err("locked");
    assert_eq!((e.code.as_str(), e.retry), (codes::TIMEOUT, Retry::Safe { after: None }), "{e:?}");
    assert!(e.message.contains("for longer than 300ms"), "{}", e.message);
    for part in fixture.lock_holder() {
        assert!(e.message.contains(part), "{part:?} is not in: {}", e.message);
    }
    assert_eq!(applied(fixture).await, "0001");
    // Whoever wants to know whether it still lands waits for the same lock.
    let database = ready(fixture).await;
    let migrations = database.migrations().expect("migrations");
    let e = migrations.fence(&on_of("another"), &Table::default(), Span::millis(300)).await;
    let e = e.expect_err("a migration of another run is under way");
    assert_eq!(e.code.as_str(), codes::TIMEOUT, "{e:?}");
    // What is cut short leaves nothing behind, not even the lock.
    running.abort();
    assert!(running.await.expect_err("it took longer than that").is_cancelled());
    let fence = migrations.fence(&on_of("another"), &Table::default(), Span::secs(20)).await;
    fence.expect("nothing is under way any more");
    assert_eq!(applied(fixture).await, "0001", "nothing landed behind the fence");
    let patient = Work { lock_timeout: Span::secs(20), ..work(&files, 1, 3) };
    migrate(fixture, &patient).await.expect("the lock is free");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
}

async fn two_at_once_apply_each_file_once(fixture: &dyn Fixture) {
    let all = Work { lock_timeout: Span::secs(20), ..work(&three(), 0, 3) };
    let (one, two) = tokio::join!(migrate(fixture, &all), migrate(fixture, &all));
    // The second finds the work done, or that somebody is doing it; never does it do it again.
    for e in [one, two].into_iter().filter_map(Result::err) {
        assert!(e.message.contains("another process has just run it"), "{}", e.message);
    }
    assert_eq!(fixture.rows("SELECT count(*) AS n FROM users").await, json!([{ "n": 1 }]));
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
}

async fn a_statement_that_takes_too_long_is_ended(fixture: &dyn Fixture) {
    let sql = format!("CREATE TABLE a (b INTEGER);\n{};\n", fixture.slow());
    let slow = Work { statement_timeout: Span::millis(300), ..work(&[file("0001_slow", &sql, None)], 0, 1) };
    let begun = Instant::now();
    let e = migrate(fixture, &slow).await.expect_err("too slow");
    assert!(begun.elapsed() < Duration::from_secs(20), "ended by its limit: {:?}", begun.elapsed());
    assert_eq!((e.code.as_str(), e.retry), (codes::TIMEOUT, Retry::Never), "{e:?}");
    assert!(e.message.starts_with("0001_slow.sql line 2: "), "{}", e.message);
    assert_eq!(applied(fixture).await, "no migrations");
    // Refused if what came before the slow statement were not undone.
    fixture.run("CREATE TABLE a (b INTEGER)").await;
}

async fn a_rehearsal_finds_what_fails_and_leaves_nothing(fixture: &dyn Fixture) {
    let files = three_and(file("0004_bad", "INSERT INTO users VALUES (1, 'again', NULL);\n", None));
    let good = rehearse(fixture, &work(&files, 0, 3)).await.expect("no error");
    assert_eq!(applied(fixture).await, "no migrations");
    if !fixture.can_rehearse() {
        assert_eq!(good, None, "what cannot be tried has no verdict");
        return;
    }
    let good = good.expect("it can be tried");
    assert!(good.starts_with("3 migrations apply cleanly "), "{good}");
    migrate(fixture, &work(&files, 0, 3)).await.expect("for real");
    let e = rehearse(fixture, &work(&files, 3, 4)).await.expect_err("the row is there");
    assert_eq!(e.code.as_str(), own::MIGRATION);
    assert!(e.message.starts_with("0004_bad.sql line 1: "), "{}", e.message);
    assert_eq!(e.detail, Some(json!({ "file": "0004_bad.sql" })), "nothing is applied by it");
    assert_eq!(applied(fixture).await, "0001, 0002, 0003");
    let names: Value = fixture.rows("SELECT name FROM users").await;
    assert_eq!(names, json!([{ "name": "ann" }]));
}
