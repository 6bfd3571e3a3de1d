//! The contract of `deploy`.

use std::sync::Arc;

use super::{describes_itself, eventually, is_unknown};
use crate::deploy::{Deploy, Replicas};

/// All of it, on a deployment with a pool `blue` that may have 1 to 4 replicas.
///
/// # Panics
/// The contract is broken.
pub async fn holds(deploy: Arc<dyn Deploy>) {
    describes_itself(&*deploy).await;
    for want in [2, 4, 1, 1, 3] {
        deploy.scale("blue", Replicas(want)).await.expect("scaled");
        assert_eq!(deploy.replicas("blue").await, Ok(Replicas(want)), "what was set is what is read");
        eventually("all replicas ready", || async { (deploy.ready("blue").await == Ok(want)).then_some(()) })
            .await;
    }
    is_unknown(&deploy.replicas("bleu").await.expect_err("no such pool"), "blue");
    is_unknown(&deploy.ready("bleu").await.expect_err("no such pool"), "blue");
    is_unknown(&deploy.scale("bleu", Replicas(1)).await.expect_err("no such pool"), "blue");
    assert_eq!(deploy.replicas("blue").await, Ok(Replicas(3)), "a refusal changes nothing");
}
