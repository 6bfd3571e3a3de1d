//! What a provider of `notify` can do: messages to people.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    on::On,
    provider::{Provider, ProviderError},
};

/// A message to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The text.
    pub text: String,
    /// How loud: `info`, `warning`, `critical`.
    #[serde(default)]
    pub severity: Severity,
}

/// How loud a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record.
    #[default]
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must look now.
    Critical,
}

/// Somewhere to send messages, such as a chat channel.
#[async_trait]
pub trait Notify: Provider {
    /// Sends one message. `on.idempotency_key()` is passed on where the receiver takes one.
    async fn send(&self, on: &On, message: &Message) -> Result<(), ProviderError>;

    /// Whether the receiver recognizes a message it already got by its idempotency key.
    fn is_idempotent(&self) -> bool {
        false
    }
}

crate::capability!(dyn Notify, "notify");
