//! Who has which role, for approvals.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::did_you_mean;

/// Those who have a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Their names, without machine.
    pub members: Vec<String>,
    /// Whether the person who started a run may answer in this role.
    #[serde(default)]
    pub may_be_starter: bool,
}

/// What stands for everybody but the person who started the run.
pub const SOMEBODY_ELSE: &str = "somebody-else";

/// Whether all that `by` names can be meant: where there are roles, each is a role or somebody who has one. Without roles, each is
/// taken for the name of a person.
///
/// # Errors
/// What cannot be meant, for people.
pub fn check_approvers(by: &[String], roles: &BTreeMap<String, Role>) -> Result<(), String> {
    let known = |one: &&String| {
        *one == SOMEBODY_ELSE
            || roles.contains_key(*one)
            || roles.values().any(|role| role.members.contains(one))
    };
    let Some(unknown) = by.iter().find(|one| !roles.is_empty() && !known(one)) else { return Ok(()) };
    let meant = did_you_mean(unknown, roles.keys().map(String::as_str))
        .map_or_else(String::new, |close| format!(": did you mean \"{close}\"?"));
    Err(format!("\"{unknown}\" is neither a role nor a member of one{meant}"))
}
