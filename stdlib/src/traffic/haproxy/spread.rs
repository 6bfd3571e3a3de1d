//! From percent per pool to HAProxy's weight per server, 0 to 256.
//!
//! HAProxy gives a server `its weight / the sum of all weights`, so a pool gets in proportion to the sum over its servers.
//! The sum of a pool is set to `percent × scale`: the shares of the pools are then exact for every percentage and every
//! number of servers, and read back as what was set. Within a pool the sum is dealt out evenly; where it does not divide,
//! some servers have one more than others, so with a few percent on many servers some may have none. The scale is the
//! largest that divides evenly for all pools where there is one. It depends only on how many servers the pools have: between
//! two settings every weight moves in one direction, and no share overshoots on the way.

use std::collections::BTreeMap;

/// HAProxy's largest weight.
const MOST: u64 = 256;

/// The scale for pools with these numbers of servers, none of them 0. At least 2.
fn scale(mut counts: impl Iterator<Item = usize> + Clone) -> u64 {
    let fewest = counts.clone().min().unwrap_or(1).max(1) as u64;
    let cap = fewest * MOST / 100;
    let even = counts.try_fold(1_u64, |all, n| lcm(all, n as u64, cap));
    match even {
        Some(even) => cap / even * even,
        None => cap,
    }
}

/// The least common multiple, unless it is above `cap`.
fn lcm(a: u64, b: u64, cap: u64) -> Option<u64> {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    let least = (a / x).checked_mul(b)?;
    (least <= cap).then_some(least)
}

/// The weight of every server, from the share in percent and the servers of each pool. A pool without servers gets none.
pub(super) fn spread<'a>(pools: &[(u32, Vec<&'a str>)]) -> BTreeMap<&'a str, u32> {
    let counts = pools.iter().map(|(_, servers)| servers.len()).filter(|n| *n > 0);
    let scale = scale(counts);
    let mut weights = BTreeMap::new();
    for (percent, servers) in pools {
        let sum = u64::from(*percent) * scale;
        let n = servers.len() as u64;
        for (i, server) in (0_u64..).zip(servers) {
            let weight = sum / n + u64::from(i < sum % n);
            // At most 256 by the choice of the scale.
            weights.insert(*server, u32::try_from(weight).unwrap_or(u32::MAX));
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Weights;

    fn names(pool: &str, n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("{pool}{i}")).collect()
    }

    #[test]
    fn every_percentage_on_every_number_of_servers_reads_back_exactly() {
        for blue in 1..=5 {
            for green in 1..=5 {
                let (blues, greens) = (names("blue", blue), names("green", green));
                for percent in 0..=100 {
                    let set = spread(&[
                        (percent, blues.iter().map(String::as_str).collect()),
                        (100 - percent, greens.iter().map(String::as_str).collect()),
                    ]);
                    assert!(set.values().all(|w| *w <= 256), "{blue} {green} {percent}: {set:?}");
                    let sum = |servers: &[String]| servers.iter().map(|s| u64::from(set[&**s])).sum::<u64>();
                    let (b, g) = (sum(&blues), sum(&greens));
                    // Exact, not only after rounding.
                    assert_eq!(b * 100, u64::from(percent) * (b + g), "{blue} {green} {percent}: {set:?}");
                    let read =
                        Weights::normalized(&BTreeMap::from([("blue", b), ("green", g)])).expect("weight");
                    assert_eq!((read.share("blue"), read.share("green")), (percent, 100 - percent));
                    for servers in [&blues, &greens] {
                        let of = |s: &String| set[&**s];
                        let (least, most) = (servers.iter().map(of).min(), servers.iter().map(of).max());
                        assert!(most <= least.map(|w| w + 1), "uneven: {set:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn pools_of_equal_size_are_dealt_out_evenly() {
        for n in 1..=5 {
            let (blues, greens) = (names("blue", n), names("green", n));
            for percent in 0..=100 {
                let set = spread(&[
                    (percent, blues.iter().map(String::as_str).collect()),
                    (100 - percent, greens.iter().map(String::as_str).collect()),
                ]);
                let first = set["blue1"];
                assert!(blues.iter().all(|s| set[&**s] == first), "{n} {percent}: {set:?}");
            }
        }
    }

    #[test]
    fn large_pools_and_three_pools_stay_within_the_range() {
        let (many, few, one) = (names("a", 300), names("b", 7), names("c", 1));
        let set = spread(&[
            (60, many.iter().map(String::as_str).collect()),
            (30, few.iter().map(String::as_str).collect()),
            (10, one.iter().map(String::as_str).collect()),
        ]);
        assert!(set.values().all(|w| *w <= 256));
        let sum = |servers: &[String]| servers.iter().map(|s| u64::from(set[&**s])).sum::<u64>();
        assert_eq!((sum(&many) * 10, sum(&few) * 20), (sum(&one) * 60, sum(&one) * 60));
    }
}
