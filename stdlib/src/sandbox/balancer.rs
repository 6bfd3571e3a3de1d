//! Which pool gets the next request.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::POOLS;
use crate::traffic::{Share, Weights};

/// Smooth weighted round robin, as nginx does it: deterministic, exact over every 100 requests where the shares are whole percentages, and a pool with a small share
/// gets its requests spread out instead of in a row.
#[derive(Debug)]
pub(super) struct Balancer(Mutex<BTreeMap<String, Lane>>);

#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    weight: Share,
    credit: i64,
}

impl Balancer {
    /// All traffic on the first pool.
    pub(super) fn new() -> Self {
        let lanes = POOLS.iter().enumerate().map(|(i, pool)| {
            let weight = if i == 0 { Share::ALL } else { Share::NONE };
            ((*pool).to_owned(), Lane { weight, credit: 0 })
        });
        Self(Mutex::new(lanes.collect()))
    }

    pub(super) fn weights(&self) -> Weights {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Weights(lanes.iter().map(|(pool, lane)| (pool.clone(), lane.weight)).collect())
    }

    pub(super) fn share(&self, pool: &str) -> Share {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(pool).map_or(Share::NONE, |lane| lane.weight)
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
        let total: i64 = lanes.values().map(|lane| i64::from(lane.weight.basis_points())).sum();
        for lane in lanes.values_mut() {
            lane.credit += i64::from(lane.weight.basis_points());
        }
        // A pool without weight never has credit, and some pool always has weight.
        let best =
            lanes.iter_mut().filter(|(_, lane)| !lane.weight.is_none()).max_by_key(|(_, lane)| lane.credit);
        best.map_or_else(String::new, |(pool, lane)| {
            lane.credit -= total;
            pool.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of `n` requests go to green, of that many percent.
    fn picked(balancer: &Balancer, green: f64, n: usize) -> Vec<bool> {
        let weights = Weights::try_from([("blue", 100.0 - green), ("green", green)]);
        balancer.set(&weights.expect("shares"));
        (0..n).map(|_| balancer.next() == "green").collect()
    }

    #[test]
    fn every_100_requests_are_split_exactly_and_evenly_spread() {
        let balancer = Balancer::new();
        for green in 0..=100 {
            let picked = picked(&balancer, f64::from(green), 100);
            assert_eq!(picked.iter().filter(|green| **green).count(), green as usize);
            if (1..=50).contains(&green) {
                assert!(!picked.windows(2).any(|pair| pair[0] && pair[1]), "{green}: two in a row");
            }
        }
    }

    #[test]
    fn a_share_below_one_percent_gets_its_requests_and_no_more() {
        let balancer = Balancer::new();
        for (green, of_10_000) in [(0.5, 50), (0.1, 10), (0.01, 1), (99.99, 9_999)] {
            let picked = picked(&balancer, green, 10_000);
            assert_eq!(picked.iter().filter(|green| **green).count(), of_10_000);
        }
    }
}
