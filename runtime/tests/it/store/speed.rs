//! How fast stores are. Not run unless asked for: `cargo test --release … -- --ignored --nocapture speed`.

#![expect(clippy::print_stderr, reason = "says what was measured")]

use std::{sync::Arc, time::Instant};

use cutover_runtime::journal::{PostgresStore, SqliteStore, Store};

use super::{begin, chain, postgres::Scratch};

async fn measure(name: &str, store: &dyn Store) {
    begin(store, "r").await;
    let all = chain(1, 14_000);
    let mut at = 0;
    for (what, durable, each, times) in [
        ("durable, 1 record", true, 1, 500),
        ("lazy, 1 record", false, 1, 2000),
        ("lazy, 100 records", false, 100, 100),
    ] {
        let begun = Instant::now();
        for _ in 0..times {
            store.append("r", 1, &all[at..at + each], durable).await.unwrap();
            at += each;
        }
        let each_second = f64::from(times) / begun.elapsed().as_secs_f64();
        eprintln!("{name:10} {what:18} {each_second:8.0} appends/s");
    }
    let begun = Instant::now();
    let read = store.records("r").await.unwrap().len();
    eprintln!("{name:10} {:18} {:8.0} records/s", "read", read as f64 / begun.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn speed_of_both() {
    let folder = tempfile::tempdir_in(".").unwrap();
    measure("SQLite", &SqliteStore::open(folder.path()).await.unwrap()).await;
    let Some(scratch) = Scratch::create().await else { return };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&scratch.url()).await.unwrap());
    measure("PostgreSQL", &*store).await;
}
