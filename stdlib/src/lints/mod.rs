//! What is probably wrong with a runbook, as far as it takes knowledge of pools and routes to see it. One file each.

pub(crate) mod retire;
pub(crate) mod rollback;

use contraflow_runtime::script::outline::{Call, Node, Outline, Value};

use crate::traffic::Share;

/// A pool with its deployment or route, as a script writes it: `web/blue`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PoolRef {
    route: String,
    pool: String,
}

impl PoolRef {
    fn parse(text: &str) -> Option<Self> {
        let (route, pool) = text.split_once('/')?;
        Some(Self { route: route.to_owned(), pool: pool.to_owned() })
    }

    fn name(&self) -> String {
        format!("{}/{}", self.route, self.pool)
    }
}

/// Whether a number is 0 for sure.
fn is_zero(value: &Value) -> bool {
    value.is(&|value| *value == Value::Int(0))
}

/// A share of traffic as scripts write it: `25`, `0.5`, `"0.5%"`. Unknown for what is none.
fn share(value: &Value) -> Option<Share> {
    match value {
        Value::Int(number) => Share::try_from(*number).ok(),
        Value::Float(number) => Share::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// Whether a share is no traffic for sure.
fn is_none(value: &Value) -> bool {
    value.is(&|value| share(value) == Some(Share::NONE))
}

/// Whether a share may be such a one.
fn may_be(value: &Value, such: fn(Share) -> bool) -> bool {
    value.may_be(&|value| share(value).is_none_or(such))
}

/// The pools that a runbook scales to zero by name.
fn retired(outline: &Outline) -> Vec<PoolRef> {
    fn collect(nodes: &[Node], into: &mut Vec<PoolRef>) {
        for node in nodes {
            match node {
                Node::Call(call) => into.extend(retires(call).filter(|pool| !into.contains(pool))),
                Node::Part(part) => part.bodies.iter().for_each(|body| collect(body, into)),
                _ => {}
            }
        }
    }
    let mut pools = Vec::new();
    collect(&outline.body, &mut pools);
    pools
}

/// The pool that a call scales to zero.
fn retires(call: &Call) -> Option<PoolRef> {
    (call.name == "deploy::scale" && is_zero(call.arg(1)))
        .then(|| call.arg(0).name().and_then(PoolRef::parse))
        .flatten()
}

/// What a call says about where the traffic of a pool goes.
enum Gets {
    /// The pool gets none.
    None,
    /// The pool gets some, or a part of the traffic is not given to another.
    Some(String),
    /// It does not say.
    Unknown,
}

/// What a change of weights means for a pool. `None`: it is another route, or no change of weights.
fn gets(call: &Call, pool: &PoolRef) -> Option<Gets> {
    let shows = |value: &Value| share(value).map_or_else(|| "a share".to_owned(), |share| share.to_string());
    let route = call.arg(0).is_named(&pool.route);
    let here = route == Some(true);
    match &*call.name {
        "traffic::shift" => {
            let share = call.arg(2);
            let (Some(name), Some(own)) = (call.arg(1).name(), call.arg(1).is_named(&pool.pool)) else {
                return Some(Gets::Unknown);
            };
            let none =
                if own { may_be(share, Share::is_none) } else { may_be(share, |share| share == Share::ALL) };
            match (here, none) {
                (_, true) if here || !own => Some(Gets::None),
                (true, false) => Some(Gets::Some(format!("{name} gets {}", shows(share)))),
                _ if route.is_none() => Some(Gets::Unknown),
                _ => None,
            }
        }
        "traffic::set" => match call.arg(1) {
            Value::Map(weights) if here => match weights.get(&pool.pool) {
                Some(weight) if !may_be(weight, Share::is_none) => {
                    Some(Gets::Some(format!("{} gets {}", pool.pool, shows(weight))))
                }
                _ => Some(Gets::None),
            },
            Value::Map(_) if route.is_some() => None,
            _ => Some(Gets::Unknown),
        },
        _ => None,
    }
}
