//! How many scenarios of a runbook with 30 effects are rehearsed in a second, on all cores.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::time::Duration;

use contraflow_bench::Bench;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Ten steps of three effects each: a read, a change, a wait.
const THIRTY: &str = r#"
for n in 1..=10 {
    let n = n;
    step(`step ${n}`, || {
        bench::look(n);
        bench::set(n);
        sleep("15m");
    });
}
"#;

fn scenarios(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder to measure in");
    let bench = Bench::new(folder.path());
    let mut group = c.benchmark_group("rehearsal");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for (name, pairs) in [("one fault at a time", false), ("every two faults", true)] {
        let tried = bench.rehearse(THIRTY, pairs);
        group.throughput(Throughput::Elements(u64::try_from(tried).unwrap_or_default()));
        group.bench_function(format!("30 effects, {name}: {tried} scenarios"), |b| {
            b.iter(|| bench.rehearse(THIRTY, pairs));
        });
    }
    // A week of it, in 672 waits of a quarter of an hour.
    group.throughput(Throughput::Elements(168));
    group.bench_function("hours of simulated time, in waits of 15 minutes", |b| {
        b.iter(|| bench.rehearse_once("for n in 0..672 { sleep(\"15m\"); }"));
    });
    group.finish();
}

criterion_group!(benches, scenarios);
criterion_main!(benches);
