//! Which pool gets the next request.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::POOLS;
use crate::traffic::Weights;

/// Smooth weighted round robin, as nginx does it: deterministic, exact over every 100 requests, and a pool with a small share
/// gets its requests spread out instead of in a row.
#[derive(Debug)]
pub(super) struct Balancer(Mutex<BTreeMap<String, Lane>>);

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    weight: u32,
    credit: i64,
}

impl Balancer {
    /// All traffic on the first pool.
    pub(super) fn new() -> Self {
        let lanes = POOLS
            .iter()
            .enumerate()
            .map(|(i, pool)| ((*pool).to_owned(), Lane { weight: if i == 0 { 100 } else { 0 }, credit: 0 }));
        Self(Mutex::new(lanes.collect()))
    }

    pub(super) fn weights(&self) -> Weights {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Weights(lanes.iter().map(|(pool, lane)| (pool.clone(), lane.weight)).collect())
    }

    pub(super) fn share(&self, pool: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(pool).map_or(0, |lane| lane.weight)
    }

    /// Sets all weights at once.
    pub(super) fn set(&self, weights: &Weights) {
        for (pool, lane) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            *lane = Lane { weight: weights.share(pool), credit: 0 };
        }
    }

    /// The pool for the next request.
    pub(super) fn next(&self) -> String {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: i64 = lanes.values().map(|lane| i64::from(lane.weight)).sum();
        for lane in lanes.values_mut() {
            lane.credit += i64::from(lane.weight);
        }
        // A pool without weight never has credit, and some pool always has weight.
        let best = lanes.iter_mut().filter(|(_, lane)| lane.weight > 0).max_by_key(|(_, lane)| lane.credit);
        best.map_or_else(String::new, |(pool, lane)| {
            lane.credit -= total;
            pool.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_100_requests_are_split_exactly_and_evenly_spread() {
        let balancer = Balancer::new();
        for green in 0..=100 {
            balancer.set(&Weights([("blue".to_owned(), 100 - green), ("green".to_owned(), green)].into()));
            let picked: Vec<bool> = (0..100).map(|_| balancer.next() == "green").collect();
            assert_eq!(picked.iter().filter(|green| **green).count(), green as usize);
            if (1..=50).contains(&green) {
                assert!(!picked.windows(2).any(|pair| pair[0] && pair[1]), "{green}: two in a row");
            }
        }
    }
}
