//! A bundle that can be run, and what its thread needs.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Header, Loaded};
use crate::bundle::Bundle;

/// Stack of the thread that runs a script: a step in a function takes some 70 KB in a debug build.
pub(crate) const STACK: usize = 64 << 20;

/// A bundle that can be run.
pub(crate) struct Prepared {
    pub(crate) header: Header,
    pub(crate) loaded: Loaded,
    pub(crate) params: BTreeMap<String, Value>,
    pub(crate) bundle: Arc<Bundle>,
}
