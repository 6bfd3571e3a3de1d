//! `deploy::replicas` looks up how many replicas a pool has.

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    target::Target,
};
use serde::{Deserialize, Serialize};

use super::{Deploy, PoolName, Replicas};

/// How many replicas a pool is set to, and how many can take traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Set.
    pub desired: u32,
    /// Can take traffic now.
    pub ready: u32,
}

/// Reads the number of replicas.
#[derive(Debug, Clone, Serialize)]
pub struct ReadReplicas {
    /// The pool.
    pub pool: PoolName,
}

impl Read for ReadReplicas {
    const ID: &'static str = "deploy.replicas";
    type Value = Count;

    fn describe(&self) -> String {
        self.pool.to_string()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("deploy", &self.pool.to_string())]
    }

    async fn read(&self, on: &On) -> Result<Count, ProviderError> {
        let deployment = on.get::<dyn Deploy>(self.pool.deployment())?;
        let desired = deployment.replicas(self.pool.pool()).await?.0;
        Ok(Count { desired, ready: deployment.ready(self.pool.pool()).await? })
    }

    async fn read_after(&self, _: &On, state: &serde_json::Value) -> Result<Option<Count>, ProviderError> {
        // A change of replicas ends when exactly that many are ready.
        Ok(Replicas::deserialize(state).ok().map(|n| Count { desired: n.0, ready: n.0 }))
    }

    fn show(&self, value: &Count) -> String {
        format!("{} of {} ready", value.ready, value.desired)
    }
}

/// The script function.
#[rhai::export_module]
pub mod script {
    use contraflow_runtime::script::{Reads, ScriptContext as _};
    use rhai::NativeCallContext;

    use super::ReadReplicas;

    /// Returns how many replicas a pool is set to (`desired`) and how many of them can take traffic (`ready`).
    ///
    /// ```rhai
    /// let green = deploy::replicas("web/green");
    /// green.ready == green.desired
    /// ```
    #[rhai_fn(name = "replicas", return_raw, volatile)]
    pub fn replicas(cx: NativeCallContext<'_>, pool: &str) -> Reads {
        let pool = cx.arg("pool", pool.to_owned())?;
        cx.read(ReadReplicas { pool })
    }
}
