//! A store whose appends pass a gate, which may delay or refuse them.

use std::sync::Arc;

use async_trait::async_trait;
use contraflow_runtime::{
    Bundle,
    effect::Reply,
    journal::{
        Asked, Heartbeat, Holder, Lock, LockStore, Maintenance, PlanStore, QuestionStore, RecordStore,
        Request, Run, RunStatus, RunStore, Sealed, Store, StoreError, Used,
    },
};

/// What appends pass.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Before records are written.
    async fn before(&self, records: &[Sealed], durable: bool) -> Result<(), StoreError>;

    /// After they were.
    async fn after(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Before anything else is written.
    fn open(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The store behind the gate.
pub struct Gated<G> {
    pub inner: Arc<dyn Store>,
    pub gate: G,
}

#[async_trait]
impl<G: Gate> RunStore for Gated<G> {
    async fn create(&self, run: &Run, bundle: &Bundle, holder: &Holder) -> Result<(), StoreError> {
        self.inner.create(run, bundle, holder).await
    }
    async fn create_planned(
        &self,
        run: &Run,
        bundle: &Bundle,
        holder: &Holder,
        used: &Used,
    ) -> Result<Option<String>, StoreError> {
        self.inner.create_planned(run, bundle, holder, used).await
    }
    async fn acquire(&self, run: &str, epoch: i64, holder: &Holder) -> Result<bool, StoreError> {
        self.inner.acquire(run, epoch, holder).await
    }
    async fn rebind(&self, run: &str, epoch: i64, bundle: &Bundle) -> Result<(), StoreError> {
        self.gate.open()?;
        self.inner.rebind(run, epoch, bundle).await
    }
    async fn heartbeat(&self, run: &str, epoch: i64) -> Result<Heartbeat, StoreError> {
        self.gate.open()?;
        self.inner.heartbeat(run, epoch).await
    }
    async fn request(&self, run: &str, request: &Request) -> Result<(), StoreError> {
        self.inner.request(run, request).await
    }
    async fn end(
        &self,
        run: &str,
        epoch: i64,
        status: RunStatus,
        at: jiff::Timestamp,
    ) -> Result<(), StoreError> {
        self.gate.open()?;
        self.inner.end(run, epoch, status, at).await
    }
    async fn runs(&self, limit: u32) -> Result<Vec<Run>, StoreError> {
        self.inner.runs(limit).await
    }
    async fn find(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        self.inner.find(id).await
    }
    async fn bundle(&self, hash: &str) -> Result<Option<Bundle>, StoreError> {
        self.inner.bundle(hash).await
    }
}

#[async_trait]
impl<G: Gate> RecordStore for Gated<G> {
    async fn append(
        &self,
        run: &str,
        epoch: i64,
        records: &[Sealed],
        durable: bool,
    ) -> Result<(), StoreError> {
        self.gate.before(records, durable).await?;
        self.inner.append(run, epoch, records, durable).await?;
        self.gate.after().await
    }
    async fn last(&self, run: &str) -> Result<Option<Sealed>, StoreError> {
        self.inner.last(run).await
    }
    async fn page(&self, run: &str, after: u64) -> Result<Vec<Sealed>, StoreError> {
        self.inner.page(run, after).await
    }
}

#[async_trait]
impl<G: Gate> LockStore for Gated<G> {
    async fn lock(
        &self,
        run: &str,
        epoch: i64,
        environment: &str,
        target: &str,
    ) -> Result<Option<Lock>, StoreError> {
        self.gate.open()?;
        self.inner.lock(run, epoch, environment, target).await
    }
    async fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        self.inner.locks().await
    }
}

#[async_trait]
impl<G: Gate> QuestionStore for Gated<G> {
    async fn ask(&self, epoch: i64, asked: &Asked) -> Result<(), StoreError> {
        self.gate.open()?;
        self.inner.ask(epoch, asked).await
    }
    async fn asked(&self, run: Option<&str>) -> Result<Vec<Asked>, StoreError> {
        self.inner.asked(run).await
    }
    async fn answer(&self, run: &str, id: &str, reply: &Reply) -> Result<bool, StoreError> {
        self.inner.answer(run, id, reply).await
    }
    async fn answers(&self, run: &str, id: &str) -> Result<Vec<Reply>, StoreError> {
        self.inner.answers(run, id).await
    }
    async fn close(&self, run: &str, epoch: i64, id: &str) -> Result<(), StoreError> {
        self.gate.open()?;
        self.inner.close(run, epoch, id).await
    }
}

#[async_trait]
impl<G: Gate> PlanStore for Gated<G> {
    async fn plan_used(&self, plan: &str) -> Result<Option<String>, StoreError> {
        self.inner.plan_used(plan).await
    }
    async fn binding(&self, run: &str) -> Result<Option<String>, StoreError> {
        self.inner.binding(run).await
    }
    async fn approve(&self, plan: &str, until: jiff::Timestamp, reply: &Reply) -> Result<(), StoreError> {
        self.inner.approve(plan, until, reply).await
    }
    async fn approvals(&self, plan: &str) -> Result<Vec<Reply>, StoreError> {
        self.inner.approvals(plan).await
    }
    async fn void_approvals(&self, plan: &str) -> Result<(), StoreError> {
        self.inner.void_approvals(plan).await
    }
}

#[async_trait]
impl<G: Gate> Maintenance for Gated<G> {
    async fn prune(&self, before: jiff::Timestamp) -> Result<u64, StoreError> {
        self.inner.prune(before).await
    }
    async fn check(&self) -> Result<Vec<String>, StoreError> {
        self.inner.check().await
    }
    fn describe(&self) -> String {
        self.inner.describe()
    }
}
