//! What a provider of `secrets` can do, and how providers get at the bytes of a secret.

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::{
    error::codes,
    on::On,
    provider::{Provider, ProviderError},
    secret::Text,
};

/// Where one secret is kept. Each secret is a target of its own: `[env.production.secrets.deploy-token]`.
#[async_trait]
pub trait Secrets: Provider {
    /// The secret's value. Errors never hold any of it.
    async fn value(&self) -> Result<Zeroizing<String>, ProviderError>;
}

crate::capability!(dyn Secrets, "secrets");

/// The bytes of a text: what providers use in place of [`Text::reveal`].
///
/// A resumed run answers `secrets::get` from the journal, which holds no bytes. So a secret that the vault does not hold is
/// read from where it is kept, by its name, and put into the vault first.
///
/// # Errors
/// The secret is not bound here any more, or cannot be read.
pub async fn ensure(on: &On, text: &Text) -> Result<Zeroizing<String>, ProviderError> {
    for name in text.names() {
        if !on.vault().holds(name) {
            let value = on.get::<dyn Secrets>(name)?.value().await?;
            on.vault().keep(name, value);
        }
    }
    text.reveal(on.vault()).map_err(|e| ProviderError::terminal(codes::SECRET, e.to_string()))
}

/// Refuses a value that cannot be a secret. `whence` says where it was read.
///
/// # Errors
/// `secret`: it is empty.
pub fn usable(value: Zeroizing<String>, whence: &str) -> Result<Zeroizing<String>, ProviderError> {
    if value.trim().is_empty() {
        return Err(ProviderError::terminal(codes::SECRET, format!("{whence} is empty")));
    }
    Ok(value)
}

/// What a check says about a secret besides where it was found. It begins with a comma where there is something to say.
pub fn remark(value: &str) -> &'static str {
    if value.len() < 4 { ", but it is too short to be redacted from output" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::{provider::Providers, secret::SecretText};

    /// A secret that counts how often it was read.
    #[derive(Default)]
    struct Counted(AtomicU32);

    #[async_trait]
    impl Provider for Counted {
        fn kind(&self) -> &'static str {
            "counted"
        }

        fn describe(&self) -> String {
            "a test".to_owned()
        }

        async fn check(&self) -> Result<String, ProviderError> {
            Ok("there".to_owned())
        }
    }

    #[async_trait]
    impl Secrets for Counted {
        async fn value(&self) -> Result<Zeroizing<String>, ProviderError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Zeroizing::new("hunter2-hunter2".to_owned()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn bytes_that_the_vault_lacks_are_read_once_by_name() {
        let mut providers = Providers::new("test");
        let secret = Arc::new(Counted::default());
        providers.bind::<dyn Secrets>("deploy-token", secret.clone());
        let on = On::detached(Arc::new(providers));
        let bearer = Text::Secret(SecretText::named("deploy-token").surrounded("Bearer ", ""));
        for _ in 0..3 {
            assert_eq!(ensure(&on, &bearer).await.expect("bound").as_str(), "Bearer hunter2-hunter2");
        }
        assert_eq!(secret.0.load(Ordering::SeqCst), 1);
        assert_eq!(on.vault().scrub("x hunter2-hunter2"), "x <secret deploy-token>");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_secret_that_is_not_bound_is_named() {
        let on = On::detached(Arc::new(Providers::new("test")));
        let error = ensure(&on, &Text::Secret(SecretText::named("nope"))).await.expect_err("not bound");
        assert_eq!(error.code.as_str(), codes::UNKNOWN_TARGET);
        assert_eq!(error.message, "no secrets target named \"nope\" in environment \"test\"");
        assert_eq!(ensure(&on, &"plain".into()).await.expect("plain").as_str(), "plain");
    }
}
