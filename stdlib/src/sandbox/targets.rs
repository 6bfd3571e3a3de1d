//! The route, the deployment and the secret of the sandbox as targets.

use std::sync::Arc;

use async_trait::async_trait;
use contraflow_runtime::{
    effect::Progress,
    provider::{Provider, ProviderError},
};
use zeroize::Zeroizing;

use super::{POOLS, Sandbox, World, pool::Pool};
use crate::{
    codes,
    deploy::{Deploy, Replicas},
    secrets::Secrets,
    traffic::{Traffic, Weights, still_open, unknown_pool},
};

/// The route `web`.
pub(super) struct Route(pub(super) Arc<Sandbox>);

#[async_trait]
impl Provider for Route {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        "built-in router on 127.0.0.1".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let world = self.0.world().await?;
        Ok(format!("router at http://{}, 2 pools: {}", world.route, self.0.balancer.weights()))
    }
}

#[async_trait]
impl Traffic for Route {
    async fn weights(&self) -> Result<Weights, ProviderError> {
        Ok(self.0.balancer.weights())
    }

    async fn set_weights(&self, want: &Weights) -> Result<(), ProviderError> {
        want.check("web", POOLS)?;
        self.would_take(want).await?;
        self.0.balancer.set(want);
        Ok(())
    }

    async fn would_take(&self, want: &Weights) -> Result<(), ProviderError> {
        let world = self.0.world().await?;
        let now = self.0.balancer.weights();
        for (name, pool) in &world.router.pools {
            if want.share(name) > now.share(name) && pool.ready() == 0 {
                return Err(ProviderError::terminal(
                    codes::TRAFFIC,
                    format!("{name} of web would get {}, but no replica of it is ready", want.share(name)),
                )
                .hint(format!("start some first: deploy::scale(\"web/{name}\", 3)")));
            }
        }
        Ok(())
    }

    async fn settled(&self, want: &Weights) -> Result<Progress, ProviderError> {
        let world = self.0.world().await?;
        let waiting = |done, total, message| Ok(Progress::Waiting { done, total, message });
        let now = self.0.balancer.weights();
        if POOLS.iter().any(|pool| now.share(pool) != want.share(pool)) {
            return waiting(0, 0, format!("weights are {now}, not {want}"));
        }
        let (used, unused): (Vec<&Arc<Pool>>, Vec<&Arc<Pool>>) =
            world.router.pools.values().partition(|pool| !want.share(pool.name).is_none());
        if let Some(pool) = used.iter().find(|pool| pool.ready() == 0) {
            return waiting(0, 0, format!("no replica of {} is ready", pool.name));
        }
        let drained = unused.iter().filter(|pool| pool.open() == 0).count();
        match unused.iter().map(|pool| (pool.open() as u64, pool.name)).find(|(open, _)| *open > 0) {
            Some((open, pool)) => waiting(drained as u64, unused.len() as u64, still_open(open, pool)),
            None => Ok(Progress::Settled),
        }
    }

    async fn address(&self, pool: Option<&str>) -> Result<String, ProviderError> {
        let world = self.0.world().await?;
        Ok(match pool {
            None => format!("http://{}", world.route),
            Some(pool) => format!("http://{}", pool_of(world, pool)?.address()),
        })
    }
}

fn pool_of<'w>(world: &'w World, name: &str) -> Result<&'w Arc<Pool>, ProviderError> {
    world.router.pools.get(name).ok_or_else(|| unknown_pool("web", name, POOLS))
}

/// The deployment `web`.
pub(super) struct Deployment(pub(super) Arc<Sandbox>);

/// More replicas than this are refused: each is a server in this process.
const MOST_REPLICAS: u32 = 50;

#[async_trait]
impl Provider for Deployment {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        "built-in HTTP servers on 127.0.0.1".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        let world = self.0.world().await?;
        let pools = world.router.pools.values();
        let shown: Vec<String> =
            pools.map(|pool| format!("{} {} of {} ready", pool.name, pool.ready(), pool.wanted())).collect();
        Ok(shown.join(", "))
    }
}

#[async_trait]
impl Deploy for Deployment {
    async fn replicas(&self, pool: &str) -> Result<Replicas, ProviderError> {
        Ok(Replicas(pool_of(self.0.world().await?, pool)?.wanted()))
    }

    async fn ready(&self, pool: &str) -> Result<u32, ProviderError> {
        Ok(pool_of(self.0.world().await?, pool)?.ready())
    }

    async fn scale(&self, pool: &str, want: Replicas) -> Result<(), ProviderError> {
        let pool = pool_of(self.0.world().await?, pool)?;
        if want.0 > MOST_REPLICAS {
            return Err(ProviderError::terminal(
                codes::DEPLOY,
                format!(
                    "{} replicas of {} in the sandbox: it runs {MOST_REPLICAS} at most",
                    want.0, pool.name
                ),
            ));
        }
        pool.scale(want.0);
        Ok(())
    }
}

/// The secret `deploy-token`.
pub(super) struct Token;

#[async_trait]
impl Provider for Token {
    fn kind(&self) -> &'static str {
        "sandbox"
    }

    fn describe(&self) -> String {
        "a made-up value".to_owned()
    }

    async fn check(&self) -> Result<String, ProviderError> {
        Ok("there".to_owned())
    }
}

#[async_trait]
impl Secrets for Token {
    async fn value(&self) -> Result<Zeroizing<String>, ProviderError> {
        Ok(Zeroizing::new("sandbox-deploy-token".to_owned()))
    }
}
