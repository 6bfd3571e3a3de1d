//! `traffic::weights` looks up how a route splits its traffic.

use contraflow_runtime::{
    effect::{On, Read},
    provider::ProviderError,
    target::Target,
};
use serde::{Deserialize as _, Serialize};

use super::{Traffic, Weights};

/// Reads the weights of a route.
#[derive(Debug, Clone, Serialize)]
pub struct ReadWeights {
    /// The route.
    pub route: String,
}

impl Read for ReadWeights {
    const ID: &'static str = "traffic.weights";
    type Value = Weights;

    fn describe(&self) -> String {
        self.route.clone()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new("traffic", &self.route)]
    }

    async fn read(&self, on: &On) -> Result<Weights, ProviderError> {
        on.get::<dyn Traffic>(&self.route)?.weights().await
    }

    async fn read_after(&self, _: &On, state: &serde_json::Value) -> Result<Option<Weights>, ProviderError> {
        Ok(Weights::deserialize(state).ok())
    }

    fn show(&self, value: &Weights) -> String {
        value.to_string()
    }
}

/// The script function.
#[rhai::export_module]
pub mod script {
    use contraflow_runtime::script::{Reads, ScriptContext as _};
    use rhai::NativeCallContext;

    use super::ReadWeights;

    /// Returns the weights of a route's pools in percent, as a map from pool to number. A whole percentage is an integer, any other a
    /// fraction, so `.green == 25` and `.green == 0.5` compare as written, and maps of whole percentages with maps of integers.
    ///
    /// ```rhai
    /// traffic::weights("web") == #{ blue: 100, green: 0 }
    /// ```
    #[rhai_fn(name = "weights", return_raw, volatile)]
    pub fn weights(cx: NativeCallContext<'_>, route: &str) -> Reads {
        cx.read(ReadWeights { route: route.to_owned() })
    }
}
