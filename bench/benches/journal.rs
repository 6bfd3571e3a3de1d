//! The journal against what the disk can do: changes per second next to a bare `fdatasync` loop, reads, and replay.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{
    fs::File,
    io::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cutover_bench::Bench;

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

criterion_group!(benches, durable, reads, replay, resume);
criterion_main!(benches);
