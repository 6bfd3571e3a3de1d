//! Whether the requests that a route deals out say that its weights are in effect.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::Weights;

/// How sure a count must be to contradict weights: by chance it does so once in e^16, some nine million times.
const EVIDENCE: f64 = 16.0;

/// Counts requests under new weights, for each instance of a route that deals them out by itself.
///
/// Weights are in effect when the counts contradict the old weights and fit the new ones, or, with little traffic, when the time for
/// counting is over and they contradict nothing. As long as counts contradict the new weights they are not in effect, whatever the
/// route says of itself.
#[derive(Debug)]
pub struct Measure {
    time: Duration,
    baselines: Mutex<BTreeMap<usize, Baseline>>,
}

/// Counts from which requests under the present weights are counted.
#[derive(Debug, Clone)]
struct Baseline {
    since: Instant,
    dealt: BTreeMap<String, u64>,
    /// The weights before.
    old: Option<Weights>,
}

impl Measure {
    /// Counts for at most `time`. With none, nothing is counted.
    pub fn new(time: Duration) -> Self {
        Self { time, baselines: Mutex::default() }
    }

    /// Counts at instance `n` from these numbers on; `old` is what was set before.
    pub fn count_from(&self, n: usize, dealt: BTreeMap<String, u64>, old: Option<Weights>) {
        self.start(n, dealt, old);
    }

    fn baselines(&self) -> MutexGuard<'_, BTreeMap<usize, Baseline>> {
        self.baselines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, n: usize, dealt: BTreeMap<String, u64>, old: Option<Weights>) -> Baseline {
        let baseline = Baseline { since: Instant::now(), dealt, old };
        self.baselines().insert(n, baseline.clone());
        baseline
    }

    /// Whether what instance `n` has dealt to each pool until now says that it uses `want`. `slack` is how far, in proportion, a
    /// share may be off where the way in which requests are dealt does not follow weights exactly.
    ///
    /// # Errors
    /// What is being waited for.
    pub fn fits(
        &self,
        n: usize,
        dealt: &BTreeMap<String, u64>,
        want: &Weights,
        slack: f64,
    ) -> Result<(), String> {
        if self.time.is_zero() {
            return Ok(());
        }
        let known = self.baselines().get(&n).cloned();
        let forgot = |known: &Baseline| dealt.iter().any(|(pool, n)| known.dealt.get(pool) > Some(n));
        let baseline = match known {
            // It began to count again, such as after a restart.
            Some(known) if forgot(&known) => self.start(n, dealt.clone(), known.old),
            Some(known) => known,
            None => self.start(n, dealt.clone(), None),
        };
        let counts: BTreeMap<&str, u64> = dealt
            .iter()
            .map(|(pool, n)| (&**pool, n.saturating_sub(baseline.dealt.get(pool).copied().unwrap_or(0))))
            .collect();
        let total: u64 = counts.values().sum();
        let refutes = |weights: &Weights| {
            let share = |pool: &str| f64::from(weights.share(pool).basis_points()) / 10_000.0;
            counts.iter().any(|(pool, n)| contradicts(*n, total, share(pool), slack))
        };
        if refutes(want) {
            let split: Vec<String> = counts.iter().map(|(pool, n)| format!("{pool} {n}")).collect();
            // Stragglers of before are forgotten this way; what goes on is seen again.
            self.start(n, dealt.clone(), baseline.old);
            return Err(format!(
                "weights are {want}, but the last {total} request{} split {}",
                if total == 1 { " was" } else { "s were" },
                split.join(", ")
            ));
        }
        if baseline.since.elapsed() >= self.time || baseline.old.as_ref().is_some_and(refutes) {
            return Ok(());
        }
        Err(format!("counting requests under the new weights, {total} so far"))
    }
}

/// Whether `n` of `total` requests are too many or too few for a pool with this share, give or take `slack`: by chance, that would
/// happen with a probability below e^-[`EVIDENCE`] (Chernoff's bound; exact for nothing and all).
fn contradicts(n: u64, total: u64, share: f64, slack: f64) -> bool {
    if total == 0 {
        return false;
    }
    let seen = n as f64 / total as f64;
    // Nothing and all are meant exactly, however requests are dealt.
    let (least, most) = if share == 0.0 || share == 1.0 {
        (share, share)
    } else {
        let by = slack * share.min(1.0 - share);
        (share - by, share + by)
    };
    let expected = seen.clamp(least, most);
    let term = |seen: f64, expected: f64| if seen == 0.0 { 0.0 } else { seen * (seen / expected).ln() };
    total as f64 * (term(seen, expected) + term(1.0 - seen, 1.0 - expected)) > EVIDENCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(green: f64) -> Weights {
        Weights::try_from([("blue", 100.0 - green), ("green", green)]).expect("shares")
    }

    fn dealt(blue: u64, green: u64) -> BTreeMap<String, u64> {
        [("blue".to_owned(), blue), ("green".to_owned(), green)].into()
    }

    #[test]
    fn a_count_contradicts_a_share_only_where_chance_does_not_explain_it() {
        assert!(!contradicts(0, 0, 0.05, 0.0) && !contradicts(1, 1, 0.05, 0.0));
        // Half in place of a twentieth is seen within twenty requests, a seventh needs hundreds.
        assert!(contradicts(10, 20, 0.05, 0.0) && !contradicts(3, 20, 0.05, 0.0));
        assert!(contradicts(70, 500, 0.05, 0.0));
        assert!(!contradicts(40, 500, 0.05, 0.5) && contradicts(150, 500, 0.05, 0.5));
        // Nothing is nothing, and all is all.
        assert!(contradicts(1, 1_000_000, 0.0, 1.0) && contradicts(999_999, 1_000_000, 1.0, 1.0));
    }

    #[test]
    fn shares_that_requests_contradict_are_not_in_effect() {
        let measure = Measure::new(Duration::from_secs(3600));
        measure.count_from(0, dealt(100, 0), Some(weights(0.0)));
        let waiting = measure.fits(0, &dealt(100, 0), &weights(5.0), 0.0).expect_err("nothing counted");
        assert_eq!(waiting, "counting requests under the new weights, 0 so far");
        // The old weights are refuted by one request, the new ones by nothing.
        assert_eq!(measure.fits(0, &dealt(119, 1), &weights(5.0), 0.0), Ok(()));
        let wrong = measure.fits(0, &dealt(150, 50), &weights(5.0), 0.0).expect_err("half of them");
        assert_eq!(
            wrong,
            "weights are blue 95, green 5, but the last 100 requests were split blue 50, green 50"
        );
        // Counted anew from there, also after a restart that forgot all counts.
        assert!(measure.fits(0, &dealt(150, 50), &weights(5.0), 0.0).is_err_and(|m| m.ends_with("0 so far")));
        assert!(measure.fits(0, &dealt(3, 0), &weights(5.0), 0.0).is_err_and(|m| m.ends_with("0 so far")));
    }

    #[test]
    fn one_request_on_a_pool_without_weight_is_one_too_many() {
        let measure = Measure::new(Duration::from_nanos(1));
        measure.count_from(0, dealt(7, 7), Some(weights(50.0)));
        let wrong = measure.fits(0, &dealt(8, 107), &weights(100.0), 0.5).expect_err("one on blue");
        assert!(wrong.ends_with("the last 101 requests were split blue 1, green 100"), "{wrong}");
        assert_eq!(measure.fits(0, &dealt(8, 207), &weights(100.0), 0.5), Ok(()));
        // Nothing is counted where nothing is asked for.
        assert_eq!(Measure::new(Duration::ZERO).fits(0, &dealt(8, 0), &weights(100.0), 0.0), Ok(()));
    }
}
