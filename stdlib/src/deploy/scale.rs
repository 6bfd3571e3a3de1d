//! `deploy::scale` sets how many replicas a pool has.

use contraflow_runtime::script::{ScriptContext as _, ScriptResult};
use contraflow_runtime::{
    effect::{Change, Limits, On, Progress},
    provider::ProviderError,
    quantity::Span,
    target::Target,
};
use rhai::NativeCallContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Deploy, PoolName, Replicas};

/// Options of a change of replicas.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Time limit until exactly that many replicas are ready; after it, the change fails as `not-settled`.
    #[schemars(extend("default" = Span::from(Limits::default().settle)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settle: Option<Span>,
}

/// Sets the number of replicas.
#[derive(Debug, Clone, Serialize)]
pub struct Scale {
    /// The pool.
    pub pool: PoolName,
    /// How many.
    pub replicas: Replicas,
    /// Deadlines.
    #[serde(flatten)]
    pub options: Options,
}

impl Change for Scale {
    const ID: &'static str = "deploy.scale";
    type State = Replicas;

    fn target(&self) -> Target {
        Target::new("deploy", &self.pool.to_string())
    }

    async fn observe(&self, on: &On) -> Result<Replicas, ProviderError> {
        on.get::<dyn Deploy>(self.pool.deployment())?.replicas(self.pool.pool()).await
    }

    fn desired(&self, _now: &Replicas) -> Result<Replicas, ProviderError> {
        Ok(self.replicas)
    }

    async fn apply(&self, on: &On, _from: &Replicas, to: &Replicas) -> Result<(), ProviderError> {
        on.get::<dyn Deploy>(self.pool.deployment())?.scale(self.pool.pool(), *to).await
    }

    async fn settled(&self, on: &On, to: &Replicas) -> Result<Progress, ProviderError> {
        let ready = on.get::<dyn Deploy>(self.pool.deployment())?.ready(self.pool.pool()).await?;
        Ok(if ready == to.0 {
            Progress::Settled
        } else {
            Progress::Waiting {
                done: u64::from(ready.min(to.0)),
                total: u64::from(to.0),
                message: format!("{ready} of {} ready", to.0),
            }
        })
    }

    fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits { settle: self.options.settle.map_or(usual.settle, Into::into), ..usual }
    }
}

fn run(cx: &NativeCallContext<'_>, pool: &str, replicas: i64, options: Options) -> ScriptResult {
    let pool = cx.arg("pool", pool.to_owned())?;
    let replicas = cx.arg("replicas", replicas)?;
    cx.change(Scale { pool, replicas, options })
}

/// The script function.
#[rhai::export_module]
pub mod script {
    use contraflow_runtime::script::{Changes, ScriptContext as _};
    use rhai::{Map, NativeCallContext};

    use super::{Options, run};

    /// Sets how many replicas a pool has, waits until exactly that many are ready, and returns the number.
    ///
    /// ```rhai
    /// deploy::scale("web/blue", 2) == 2
    /// ```
    #[rhai_fn(name = "scale", return_raw, volatile)]
    pub fn scale(cx: NativeCallContext<'_>, pool: &str, replicas: i64) -> Changes {
        run(&cx, pool, replicas, Options::default())
    }

    /// ```rhai
    /// deploy::scale("web/green", 0, #{ settle: "1m" }) == 0
    /// ```
    #[rhai_fn(name = "scale", return_raw, volatile)]
    pub fn scale_with(cx: NativeCallContext<'_>, pool: &str, replicas: i64, options: Map) -> Changes {
        let options = cx.options(options)?;
        run(&cx, pool, replicas, options)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use async_trait::async_trait;
    use contraflow_runtime::provider::{Provider, Providers};

    use super::*;

    /// A pool of which one replica fewer is ready than it is set to.
    struct Late(AtomicU32);

    #[async_trait]
    impl Provider for Late {
        fn kind(&self) -> &'static str {
            "late"
        }
        fn describe(&self) -> String {
            String::new()
        }
        async fn check(&self) -> Result<String, ProviderError> {
            Ok(String::new())
        }
    }

    #[async_trait]
    impl Deploy for Late {
        async fn replicas(&self, _: &str) -> Result<Replicas, ProviderError> {
            Ok(Replicas(self.0.load(Ordering::Relaxed)))
        }
        async fn ready(&self, _: &str) -> Result<u32, ProviderError> {
            Ok(self.0.load(Ordering::Relaxed).saturating_sub(1))
        }
        async fn scale(&self, pool: &str, want: Replicas) -> Result<(), ProviderError> {
            assert_eq!(pool, "blue");
            self.0.store(want.0, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_scale_is_in_effect_only_when_that_many_are_ready() {
        let late = Arc::new(Late(AtomicU32::new(1)));
        let mut providers = Providers::new("test");
        providers.bind::<dyn Deploy>("web", late);
        let on = On::detached(Arc::new(providers));
        let pool = PoolName::try_from("web/blue").expect("a pool");
        let effect = Scale { pool, replicas: Replicas(3), options: Options::default() };
        assert_eq!(serde_json::to_string(&effect).expect("json"), r#"{"pool":"web/blue","replicas":3}"#);
        assert_eq!(effect.target().as_str(), "deploy/web/blue");
        let from = effect.observe(&on).await.expect("observed");
        let to = effect.desired(&from).expect("desired");
        assert_eq!((from.to_string(), to.to_string()), ("1 replica".to_owned(), "3 replicas".to_owned()));
        effect.apply(&on, &from, &to).await.expect("applied");
        assert_eq!(effect.observe(&on).await, Ok(Replicas(3)));
        let waiting = Progress::Waiting { done: 2, total: 3, message: "2 of 3 ready".to_owned() };
        assert_eq!(effect.settled(&on, &to).await, Ok(waiting));
        assert_eq!(effect.settled(&on, &Replicas(2)).await, Ok(Progress::Settled));
    }
}
