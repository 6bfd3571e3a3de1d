//! What every store must do, whatever keeps it, and what only one of them does.
//!
//! SQLite is always tried. PostgreSQL is where `CONTRAFLOW_TEST_POSTGRES` is the URL of a database of a superuser; each test makes a
//! database of its own there and drops it. Without it, those tests are skipped, unless `CONTRAFLOW_TEST_SERVERS=1` says that servers
//! must be there.

mod contract;
mod sqlite;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod server;

use std::sync::Arc;

use contraflow_runtime::{
    Bundle,
    effect::EffectId,
    journal::{
        Holder, Run, RunStatus, Sealed, Store,
        record::{GENESIS, verify},
    },
};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;

/// A place for a store.
pub(super) struct Place {
    open: Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Store>> + Send + Sync>,
    /// Removed in the end.
    _kept: Box<dyn std::any::Any + Send + Sync>,
}

impl Place {
    /// The store there, by connections of its own.
    pub(super) async fn open(&self) -> Arc<dyn Store> {
        (self.open)().await
    }
}

/// A run with one script, as a runner begins it.
pub(super) fn begun(id: &str) -> (Run, Bundle, Holder) {
    begun_with(id, &format!("// the script of {id}"))
}

pub(super) fn begun_with(id: &str, script: &str) -> (Run, Bundle, Holder) {
    let bundle = Bundle::single("run.rhai", script);
    let run = Run {
        id: id.to_owned(),
        runbook: "blue-green".to_owned(),
        version: "1.2".to_owned(),
        environment: "production".to_owned(),
        params: json!({ "to": "green", "hold": "10s" }),
        bundle: bundle.hash(),
        status: RunStatus::Running,
        epoch: 1,
        started_by: "ann@laptop".to_owned(),
        started_at: Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap(),
        ended_at: None,
        held: None,
        plan: None,
    };
    (run, bundle, Holder::this("ann@laptop"))
}

/// Begins a run in a store.
pub(super) async fn begin(store: &dyn Store, id: &str) -> Run {
    let (run, bundle, holder) = begun(id);
    store.create(&run, &bundle, &holder).await.unwrap();
    run
}

/// The records `from..=to` of a chain. The same for the same arguments.
pub(super) fn chain(from: u64, to: u64) -> Vec<Sealed> {
    chain_of(from, to, |seq| format!("{{\"note\":{{\"level\":\"info\",\"text\":\"\\\"{seq}\\\" – né\"}}}}"))
}

pub(super) fn chain_of(from: u64, to: u64, body: impl Fn(u64) -> String) -> Vec<Sealed> {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    let mut before = GENESIS;
    let mut all = Vec::new();
    for seq in 1..=to {
        let id = EffectId::from(format!("step-\"é\"'{seq}'/1:lab.look"));
        let sealed = Sealed::seal(seq, at, &id, body(seq), &before);
        before = sealed.hash;
        all.push(sealed);
    }
    all.split_off(usize::try_from(from - 1).unwrap())
}

/// Panics unless the run has exactly the records `1..=to` of that chain.
pub(super) async fn holds(store: &dyn Store, run: &str, to: u64) {
    let records = store.records(run).await.unwrap();
    verify(&records).unwrap_or_else(|broken| panic!("{run}: record {}: {}", broken.seq, broken.why));
    assert_eq!(records.len() as u64, to, "{run}");
    assert_eq!(records, chain(1, to), "{run}");
}
