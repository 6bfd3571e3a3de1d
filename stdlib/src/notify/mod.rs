//! `notify`: messages to people.

use std::sync::Arc;

use async_trait::async_trait;
use contraflow_runtime::{
    effect::On,
    provider::{Capability, Provider, ProviderError, Providers},
};
use rhai::{Module, plugin::*};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Entry};

pub mod console;
mod endpoint;
pub mod send;
pub mod slack;
pub mod webhook;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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

impl Capability for dyn Notify {
    const NOUN: &'static str = "notify";
}

/// The script module `notify`.
pub fn module() -> Module {
    let mut m = Module::new();
    combine_with_exported_module!(&mut m, "send", send::script);
    m
}

/// Binds a receiver from the configuration.
///
/// # Errors
/// An unknown provider or a setting that cannot be used.
pub fn bind(entry: &Entry, into: &mut Providers) -> Result<(), ConfigError> {
    let wrong = |(key, message): (&'static str, String)| entry.bad_setting(key, &message);
    match &*entry.provider {
        "console" => {
            let console = Arc::new(console::Console::new(entry.settings()?));
            into.bind::<dyn Notify>(&entry.name, console.clone(), console);
        }
        "slack" => {
            let slack = Arc::new(slack::Slack::new(entry.settings()?).map_err(wrong)?);
            into.bind::<dyn Notify>(&entry.name, slack.clone(), slack);
        }
        "webhook" => {
            let webhook = Arc::new(webhook::Webhook::new(entry.settings()?).map_err(wrong)?);
            into.bind::<dyn Notify>(&entry.name, webhook.clone(), webhook);
        }
        _ => return Err(entry.unknown_provider(&["console", "slack", "webhook"])),
    }
    Ok(())
}

#[cfg(test)]
mod lab;
