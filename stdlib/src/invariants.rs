//! What must hold at every moment of a rehearsal, whatever goes wrong.

use contraflow_runtime::{
    rehearsal::{Invariant, States},
    target::Target,
};

use crate::traffic::Weights;

/// The routes that a run has come to, with their weights.
fn routes(states: &States) -> impl Iterator<Item = (&str, Weights)> {
    states.iter().filter_map(|(key, state)| {
        let route = key.strip_prefix("traffic/")?;
        Some((route, serde_json::from_value(state.clone()).ok()?))
    })
}

/// The weights of a route add up to exactly 100 %.
pub(crate) struct WholeWeights;

impl Invariant for WholeWeights {
    fn name(&self) -> &'static str {
        "weights add up to 100"
    }

    fn holds(&self, states: &States) -> Result<(), String> {
        for (route, weights) in routes(states) {
            if !weights.is_whole() {
                return Err(format!(
                    "the weights of {route} add up to {}: {weights}",
                    weights.total_percent()
                ));
            }
        }
        Ok(())
    }
}

/// No pool without replicas gets traffic, and none is retired that has some.
pub(crate) struct Capacity;

impl Invariant for Capacity {
    fn name(&self) -> &'static str {
        "traffic only goes to pools with capacity"
    }

    fn holds(&self, states: &States) -> Result<(), String> {
        for (route, Weights(weights)) in routes(states) {
            for (pool, weight) in weights.iter().filter(|(_, weight)| !weight.is_none()) {
                let replicas = states.get(Target::new("deploy", &format!("{route}/{pool}")).as_str());
                if replicas.and_then(serde_json::Value::as_u64) == Some(0) {
                    return Err(format!("{route}/{pool} gets {weight} of the traffic but has no replicas"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn states(blue: f64, green: f64, green_replicas: u32) -> States {
        let weights = json!({ "blue": blue, "green": green });
        [("traffic/web", weights), ("deploy/web/green", json!(green_replicas)), ("deploy/db/green", json!(0))]
            .map(|(key, state)| (key.to_owned(), state))
            .into()
    }

    #[test]
    fn weights_add_up_and_go_only_where_there_is_capacity() {
        for (world, whole, capacity) in [
            (states(100.0, 0.0, 0), true, true),
            (states(95.0, 5.0, 3), true, true),
            (states(95.0, 5.0, 0), true, false),
            (states(95.0, 4.0, 1), false, true),
            (states(99.9, 0.1, 1), true, true),
            (states(99.9, 0.1, 0), true, false),
            (states(99.9, 0.11, 1), false, true),
        ] {
            assert_eq!(WholeWeights.holds(&world).is_ok(), whole, "{world:?}");
            assert_eq!(Capacity.holds(&world).is_ok(), capacity, "{world:?}");
        }
        assert!(Capacity.holds(&states(0.0, 100.0, 0)).unwrap_err().contains("web/green gets 100%"));
    }
}
