//! `secrets::get` reads a secret and gives the script a handle to it.

use contraflow_runtime::{
    effect::{On, Read},
    provider::{Capability, ProviderError},
    script::{Reads, ScriptContext, convert::Unknown},
    secret::SecretText,
    target::Target,
};
use rhai::plugin::*;
use serde::Serialize;

use super::Secrets;

/// Reads one secret into the run's vault. Its value, and so the journal, holds only the name.
#[derive(Debug, Clone, Serialize)]
pub struct Get {
    name: String,
}

impl Read for Get {
    const ID: &'static str = "secrets.get";

    type Value = SecretText;

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn depends_on(&self) -> Vec<Target> {
        vec![Target::new(<dyn Secrets>::NOUN, &self.name)]
    }

    fn again_on_resume(&self) -> bool {
        true
    }

    fn assumed(&self) -> Option<SecretText> {
        Some(SecretText::named(&self.name))
    }

    async fn read(&self, on: &On) -> Result<SecretText, ProviderError> {
        let value = on.get::<dyn Secrets>(&self.name)?.value().await?;
        on.vault().keep(&self.name, value);
        Ok(SecretText::named(&self.name))
    }
}

/// Script functions.
#[export_module]
pub mod script {
    /// Reads the secret `name`; returns a handle for options and arguments that take a secret.
    ///
    /// The script never sees the value: the handle cannot be printed, joined or compared. A resumed run reads the
    /// secret again when it needs it.
    ///
    /// ```rhai
    /// type_of(secrets::get("deploy-token")) == "secret"
    /// ```
    #[rhai_fn(return_raw, volatile)]
    pub fn get(cx: NativeCallContext<'_>, name: &str) -> Reads {
        // Whatever an answer looks like, it is data: handles are made here, and nowhere else.
        cx.read(Get { name: name.to_owned() }).map(|read| match read.is::<Unknown>() {
            true => read,
            false => Dynamic::from(SecretText::named(name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contraflow_runtime::provider::Providers;

    use super::*;
    use crate::secrets::env::{Env, Settings};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_journal_sees_a_handle_and_the_vault_the_bytes() {
        let mut providers = Providers::new("test");
        let secret = Arc::new(
            Env::new(
                Settings { variable: "CARGO_PKG_NAME".to_owned() },
                &contraflow_provider::config::Detached::new("/", std::env::vars_os()),
            )
            .expect("a name"),
        );
        providers.bind::<dyn Secrets>("deploy-token", secret);
        let on = On::detached(Arc::new(providers));
        let effect = Get { name: "deploy-token".to_owned() };
        let handle = effect.read(&on).await.expect("set");
        assert_eq!(serde_json::to_string(&handle).expect("json"), r#"{"$secret":[{"name":"deploy-token"}]}"#);
        assert_eq!(on.vault().reveal(&handle).expect("kept").as_str(), "contraflow-stdlib");
        assert_eq!(effect.depends_on(), [Target::new("secrets", "deploy-token")]);
    }
}
