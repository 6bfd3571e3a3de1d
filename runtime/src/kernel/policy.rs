//! A hook that may refuse effects before they happen.

use contraflow_provider::effect_id::EffectId;
use serde_json::Value;

use crate::{event::Kind, target::Target};

/// An effect that is about to happen.
#[derive(Debug)]
pub struct Request<'a> {
    /// Environment of the run.
    pub environment: &'a str,
    /// Id of the effect.
    pub id: &'a EffectId,
    /// Its kind.
    pub kind: Kind,
    /// Its name, `noun.verb`.
    pub effect: &'a str,
    /// What it changes.
    pub target: Option<&'a Target>,
    /// For a change, state before and wanted.
    pub states: Option<(&'a Value, &'a Value)>,
    /// What it does, for people.
    pub text: &'a str,
    /// Whether it undoes something.
    pub rollback: bool,
}

/// Decides whether an effect may happen. Asked in every world before changes and actions; must not block.
pub trait Policy: Send + Sync {
    /// Allows it, or says why not.
    ///
    /// # Errors
    /// The reason, a lowercase fragment that fits behind “refused by policy: ”.
    fn allow(&self, request: &Request<'_>) -> Result<(), String>;
}
