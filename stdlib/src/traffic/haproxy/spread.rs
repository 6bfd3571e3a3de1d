//! From a share per pool to HAProxy's weight per server, a whole number from 0 to 256.
//!
//! HAProxy gives a server `its weight / the sum of all weights`, so a pool gets in proportion to the sum over its servers.
//! What can be expressed follows from that: a pool of `n` servers has a sum from 0 to `256 n`, and a share is one sum by the
//! total of all. Shares count as expressed when the sums read back as them, to the nearest 0.01 %:
//!
//! - every whole percentage, for any number of servers, exactly;
//! - two pools of one server each: every multiple of 0.5 %, exactly, and most steps of 0.01 % between 5 % and 95 %; the least
//!   share above 0 is 1/257, 0.39 %;
//! - every multiple of 0.1 % exactly where each pool has four servers or more.
//!
//! Other shares are refused, with the nearest that can be expressed.
//!
//! Whole percentages, and all that divides evenly with them, use one scale: the sum of a pool is `percent × scale`. The scale
//! is the largest that divides evenly for all pools where there is one. It depends only on how many servers the pools have:
//! between two such settings every weight moves in one direction, and no share overshoots on the way. Other shares need
//! another total; the nearest to the usual one is taken, so that little overshoots. Within a pool the sum is dealt out evenly;
//! where it does not divide, some servers have one more than others, so with a small share on many servers some may have none.

use std::collections::BTreeMap;

use crate::traffic::{Share, Weights, apportion};

/// HAProxy's largest weight.
const MOST: u64 = 256;

/// A pool: its name, the share it is to get, and its servers.
pub(super) type Pool<'a> = (&'a str, Share, Vec<&'a str>);

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

/// The greatest common divisor. That of anything and 0 is the other.
const fn gcd(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    x
}

/// The least common multiple, unless it is above `cap`.
fn lcm(a: u64, b: u64, cap: u64) -> Option<u64> {
    let least = (a / gcd(a, b)).checked_mul(b)?;
    (least <= cap).then_some(least)
}

/// The sum of weights of each pool that comes nearest to its share if all sums together are `total`. `None`: a pool has too few
/// servers for its sum, or there is less than one for each.
fn sums<'a>(pools: &[Pool<'a>], total: u64) -> Option<BTreeMap<&'a str, u64>> {
    let shares = pools.iter().map(|(pool, share, _)| (*pool, u64::from(share.basis_points()))).collect();
    let sums = apportion(total, &shares)?;
    pools.iter().all(|(pool, _, servers)| sums[pool] <= most(servers)).then_some(sums)
}

/// The largest sum of weights of these servers.
fn most(servers: &[&str]) -> u64 {
    MOST * servers.len() as u64
}

fn wanted(pools: &[Pool<'_>]) -> Weights {
    Weights(pools.iter().map(|(pool, share, _)| ((*pool).to_owned(), *share)).collect())
}

/// The sums that read back as the shares that are wanted: exact ones if there are, else within 0.005 %, with the total that is
/// nearest to the usual one.
fn expressed<'a>(pools: &[Pool<'a>]) -> Option<BTreeMap<&'a str, u64>> {
    let usual = 100 * scale(pools.iter().map(|(_, _, servers)| servers.len()).filter(|n| *n > 0));
    let largest: u64 = pools.iter().map(|(_, _, servers)| most(servers)).sum();
    // Exact where all shares of the total are whole numbers.
    let whole = u64::from(Share::ALL.basis_points());
    let exact =
        whole / pools.iter().fold(whole, |step, (_, share, _)| gcd(step, share.basis_points().into()));
    let below = usual / exact * exact;
    let by_distance =
        if usual - below <= exact / 2 { [below, below + exact] } else { [below + exact, below] };
    if let Some(sums) =
        by_distance.into_iter().filter(|total| *total > 0).find_map(|total| sums(pools, total))
    {
        return Some(sums);
    }
    let want = wanted(pools);
    (0..=largest)
        .flat_map(|distance| [usual.checked_sub(distance), Some(usual + distance)])
        .flatten()
        .filter(|total| (1..=largest).contains(total))
        .find_map(|total| sums(pools, total).filter(|sums| Weights::normalized(sums).as_ref() == Some(&want)))
}

/// The weight of every server, from the share and the servers of each pool. `None`: these shares cannot be expressed.
pub(super) fn spread<'a>(pools: &[Pool<'a>]) -> Option<BTreeMap<&'a str, u32>> {
    let sums = expressed(pools)?;
    let mut weights = BTreeMap::new();
    for (pool, _, servers) in pools {
        let (sum, n) = (sums[pool], servers.len() as u64);
        for (i, server) in (0_u64..).zip(servers) {
            let weight = sum / n + u64::from(i < sum % n);
            // At most 256, since a sum is at most 256 for each server.
            weights.insert(*server, u32::try_from(weight).unwrap_or(u32::MAX));
        }
    }
    Some(weights)
}

/// The nearest weights that can be expressed: for the pool that is to get least, the nearest below and above what it should
/// have. Where it should have some, it has some.
pub(super) fn nearest(pools: &[Pool<'_>]) -> Vec<Weights> {
    let want = wanted(pools);
    let least = pools.iter().filter(|(_, share, _)| !share.is_none()).min_by_key(|(_, share, _)| *share);
    let Some((least, share, _)) = least else { return Vec::new() };
    let largest: u64 = pools.iter().map(|(_, _, servers)| most(servers)).sum();
    let [mut below, mut above] = [None::<(u32, Weights)>, None];
    for total in 1..=largest {
        let Some(read) = sums(pools, total).and_then(|sums| Weights::normalized(&sums)) else { continue };
        let off =
            |(pool, share): (&String, &Share)| share.basis_points().abs_diff(want.share(pool).basis_points());
        let distance = read.0.iter().map(off).max().unwrap_or(0);
        let best = if read.share(least) <= *share { &mut below } else { &mut above };
        if best.as_ref().is_none_or(|(other, _)| distance < *other) {
            *best = Some((distance, read));
        }
    }
    let mut both: Vec<(u32, Weights)> = [below, above].into_iter().flatten().collect();
    both.sort_by_key(|(distance, _)| *distance);
    both.into_iter().map(|(_, weights)| weights).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pool: &str, n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("{pool}{i}")).collect()
    }

    /// A pool that is to get that many basis points.
    fn pool<'a>(name: &'a str, basis_points: u32, servers: &'a [String]) -> Pool<'a> {
        let share = Share::from_basis_points(basis_points).expect("in range");
        (name, share, servers.iter().map(String::as_str).collect())
    }

    fn sum(set: &BTreeMap<&str, u32>, servers: &[String]) -> u64 {
        servers.iter().map(|s| u64::from(set[&**s])).sum()
    }

    /// Sets green to that many basis points and reads back what the pools get. `None`: it cannot be expressed.
    fn read_back(blues: &[String], greens: &[String], green: u32) -> Option<(u64, u64)> {
        let set = spread(&[pool("blue", 10_000 - green, blues), pool("green", green, greens)])?;
        assert!(set.values().all(|w| *w <= 256), "{green}: {set:?}");
        let (b, g) = (sum(&set, blues), sum(&set, greens));
        let read = Weights::normalized(&BTreeMap::from([("blue", b), ("green", g)])).expect("weight");
        assert_eq!(read.share("green").basis_points(), green, "{set:?}");
        assert!(read.is_whole());
        for servers in [blues, greens] {
            let of = |s: &String| set[&**s];
            let (least, most) = (servers.iter().map(of).min(), servers.iter().map(of).max());
            assert!(most <= least.map(|w| w + 1), "uneven: {set:?}");
        }
        Some((b, g))
    }

    #[test]
    fn every_percentage_on_every_number_of_servers_is_exact() {
        for blue in 1..=5 {
            for green in 1..=5 {
                let (blues, greens) = (names("blue", blue), names("green", green));
                for percent in 0..=100 {
                    let (b, g) = read_back(&blues, &greens, percent * 100).expect("a whole percentage");
                    // Exact, not only after rounding.
                    assert_eq!(g * 100, u64::from(percent) * (b + g), "{blue} {green} {percent}");
                }
            }
        }
    }

    #[test]
    fn halves_are_exact_everywhere_and_tenths_from_four_servers_on() {
        for blue in 1..=6 {
            for green in 1..=6 {
                let (blues, greens) = (names("blue", blue), names("green", green));
                let step = if blue >= 4 && green >= 4 { 10 } else { 50 };
                for share in (0..=10_000).step_by(step) {
                    let (b, g) = read_back(&blues, &greens, share)
                        .unwrap_or_else(|| panic!("{blue} and {green} servers: {share}"));
                    assert_eq!(g * 10_000, u64::from(share) * (b + g), "{blue} {green} {share}");
                }
            }
        }
    }

    #[test]
    fn what_a_pool_has_can_always_be_set_again() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..200 {
            let pools: Vec<(String, Vec<String>)> = (0..random.usize(2..=3))
                .map(|i| (format!("p{i}"), names(&format!("p{i}s"), random.usize(1..=3))))
                .collect();
            let has: BTreeMap<&str, u64> =
                pools.iter().map(|(p, servers)| (&**p, random.u64(0..=256 * servers.len() as u64))).collect();
            let Some(read) = Weights::normalized(&has) else { continue };
            let wanted: Vec<Pool<'_>> =
                pools.iter().map(|(p, servers)| pool(p, read.share(p).basis_points(), servers)).collect();
            let set = spread(&wanted).unwrap_or_else(|| panic!("{read} of {has:?}"));
            let again = pools.iter().map(|(p, servers)| (&**p, sum(&set, servers))).collect();
            assert_eq!(Weights::normalized(&again), Some(read), "{has:?} {set:?}");
        }
    }

    #[test]
    fn what_cannot_be_expressed_is_answered_with_the_nearest_that_can() {
        let (blues, greens) = (names("blue", 1), names("green", 1));
        let nearest = |green: u32| -> Vec<String> {
            assert_eq!(read_back(&blues, &greens, green), None, "{green}");
            let pools = [pool("blue", 10_000 - green, &blues), pool("green", green, &greens)];
            super::nearest(&pools).iter().map(ToString::to_string).collect()
        };
        // The least that one server of 256 can have beside another is 1 of 257.
        assert_eq!(nearest(10), ["blue 99.61, green 0.39"]);
        assert_eq!(nearest(5_003), ["blue 50, green 50", "blue 49.9, green 50.1"]);
    }

    #[test]
    fn most_fine_shares_can_be_expressed_in_the_middle() {
        let (blues, greens) = (names("blue", 1), names("green", 1));
        let tried: Vec<u32> = (500..=9_500).step_by(37).collect();
        let can = tried.iter().filter(|share| read_back(&blues, &greens, **share).is_some()).count();
        assert!(can > tried.len() * 3 / 4, "{can} of {}", tried.len());
    }

    #[test]
    fn pools_of_equal_size_are_dealt_out_evenly() {
        for n in 1..=5 {
            let (blues, greens) = (names("blue", n), names("green", n));
            for percent in 0..=100 {
                let pools =
                    [pool("blue", percent * 100, &blues), pool("green", (100 - percent) * 100, &greens)];
                let set = spread(&pools).expect("a whole percentage");
                let first = set["blue1"];
                assert!(blues.iter().all(|s| set[&**s] == first), "{n} {percent}: {set:?}");
            }
        }
    }

    #[test]
    fn large_pools_and_three_pools_stay_within_the_range() {
        let (many, few, one) = (names("a", 300), names("b", 7), names("c", 1));
        let set = spread(&[pool("a", 6_000, &many), pool("b", 3_000, &few), pool("c", 1_000, &one)])
            .expect("whole percentages");
        assert!(set.values().all(|w| *w <= 256));
        let sum = |servers: &[String]| sum(&set, servers);
        assert_eq!((sum(&many) * 10, sum(&few) * 20), (sum(&one) * 60, sum(&one) * 60));
    }
}
