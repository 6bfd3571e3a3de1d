//! The journal against what the disk can do: changes per second next to a bare `fdatasync` loop, reads, replay, and the stores
//! alone.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use contraflow_bench::Bench;
use contraflow_runtime::{
    Bundle,
    effect::EffectId,
    journal::{Holder, PostgresStore, Run, RunStatus, Sealed, SqliteStore, Store},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jiff::Timestamp;

/// Bytes that one change adds to SQLite's log: a page and its frame header.
const COMMIT: usize = 4096 + 24;

/// On the disk of the build directory, not in memory.
fn folder() -> tempfile::TempDir {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    tempfile::tempdir_in(target).expect("a folder to measure in")
}

fn durable(c: &mut Criterion) {
    let folder = folder();
    let mut group = c.benchmark_group("durable");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).throughput(Throughput::Elements(1));
    let mut file = File::create(folder.path().join("bare")).expect("a file");
    group.bench_function("bare fdatasync of one page", |b| {
        b.iter(|| {
            file.write_all(&[7; COMMIT]).expect("write");
            file.sync_data().expect("sync");
        });
    });
    let bench = Bench::new(folder.path());
    group.bench_function("change", |b| {
        b.iter_custom(|n| {
            // One run of n changes: starting a run is not what is measured here.
            let start = Instant::now();
            bench.run(&format!("for i in 1..={n} {{ bench::set(i); }} bench::set(0);"));
            start.elapsed()
        });
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    let folder = folder();
    let bench = Bench::new(folder.path());
    let mut group = c.benchmark_group("reads");
    group.sample_size(10).throughput(Throughput::Elements(20_000));
    group.bench_function("20,000 journaled reads", |b| {
        b.iter(|| bench.run("for i in 0..20000 { bench::look(i); }"))
    });
    group.finish();
}

fn replay(c: &mut Criterion) {
    let folder = folder();
    let bench = Bench::new(folder.path());
    let run = bench.run("for i in 0..100000 { bench::look(i); }").run;
    let mut group = c.benchmark_group("replay");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    group.bench_function("100,000 effects", |b| b.iter(|| bench.replay(&run)));
    group.finish();
}

fn resume(c: &mut Criterion) {
    let folder = folder();
    let bench = Bench::new(folder.path());
    // What lies behind the last look is never reached: each time the run is paused there.
    let run = bench.begin("for i in 0..100000 { bench::look(i); } for i in 1..1000 { bench::look(-i); }").run;
    let mut group = c.benchmark_group("resume");
    group.sample_size(10).throughput(Throughput::Elements(100_000));
    group.bench_function("to the first effect behind 100,000", |b| b.iter(|| bench.resume(&run)));
    group.finish();
}

/// A store by itself: SQLite, and PostgreSQL where `CONTRAFLOW_BENCH_POSTGRES` is the URL of a database.
fn stores(c: &mut Criterion) {
    let tokio = tokio::runtime::Runtime::new().expect("threads");
    let folder = folder();
    let sqlite = tokio.block_on(SqliteStore::open(folder.path())).expect("a store");
    measure(c, &tokio, "SQLite", &sqlite);
    if let Ok(url) = std::env::var("CONTRAFLOW_BENCH_POSTGRES") {
        let postgres = tokio.block_on(PostgresStore::connect(&url)).expect("a store");
        measure(c, &tokio, "PostgreSQL", &postgres);
    }
}

fn measure(c: &mut Criterion, tokio: &tokio::runtime::Runtime, name: &str, store: &dyn Store) {
    const READ: usize = 10_000;
    let mut group = c.benchmark_group(format!("store on {name}"));
    group.sample_size(10);
    let mut chain = Written::begin(tokio, store, "append");
    for (what, durable, each) in [
        ("one record, durable", true, 1),
        ("one record, not durable", false, 1),
        ("100 records, not durable", false, 100),
    ] {
        group.throughput(Throughput::Elements(each as u64));
        group.bench_function(what, |b| {
            b.iter_custom(|n| (0..n).map(|_| chain.append(tokio, store, each, durable)).sum());
        });
    }
    let mut chain = Written::begin(tokio, store, "read");
    chain.append(tokio, store, READ, true);
    group.throughput(Throughput::Elements(READ as u64));
    group.bench_function("10,000 records, read", |b| {
        b.iter(|| assert_eq!(tokio.block_on(store.records(&chain.run)).expect("records").len(), READ));
    });
    group.finish();
}

/// A run whose records go straight to a store.
struct Written {
    run: String,
    seq: u64,
    hash: [u8; 32],
}

impl Written {
    fn begin(tokio: &tokio::runtime::Runtime, store: &dyn Store, what: &str) -> Self {
        let bundle = Bundle::single("bench.rhai", "");
        let run = Run {
            id: format!("{what}-{}", Timestamp::now().as_millisecond()),
            runbook: "bench".to_owned(),
            version: "1".to_owned(),
            environment: "bench".to_owned(),
            params: serde_json::Value::Null,
            bundle: bundle.hash(),
            status: RunStatus::Running,
            epoch: 1,
            started_by: "bench".to_owned(),
            started_at: Timestamp::now(),
            ended_at: None,
            held: None,
            plan: None,
        };
        tokio.block_on(store.create(&run, &bundle, &Holder::this("bench"))).expect("a run");
        Self { run: run.id, seq: 0, hash: [0; 32] }
    }

    /// Appends so many records at once; answers how long the store took.
    fn append(
        &mut self,
        tokio: &tokio::runtime::Runtime,
        store: &dyn Store,
        records: usize,
        durable: bool,
    ) -> Duration {
        let next = |_| {
            self.seq += 1;
            let body = format!("{{\"note\":{{\"level\":\"note\",\"text\":\"{}\"}}}}", self.seq);
            let id = EffectId::from(format!("{}:note", self.seq));
            let sealed = Sealed::seal(self.seq, Timestamp::UNIX_EPOCH, &id, body, &self.hash);
            self.hash = sealed.hash;
            sealed
        };
        let records: Vec<_> = (0..records).map(next).collect();
        let start = Instant::now();
        tokio.block_on(store.append(&self.run, 1, &records, durable)).expect("written");
        start.elapsed()
    }
}

criterion_group!(benches, durable, reads, replay, resume, stores);
criterion_main!(benches);
