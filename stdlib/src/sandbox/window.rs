//! What the router saw of a pool: a sliding window for gates, counters and a histogram for scrapers.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How far metrics look back.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// Upper bounds of the histogram in seconds; the last one is infinite.
pub(super) const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// More requests than this are not kept in a window: at that rate the latest are sample enough.
const MOST: usize = 200_000;

/// Requests to one pool.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Request>,
    totals: Totals,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    at: Instant,
    seconds: f64,
    failed: bool,
}

/// Everything since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    /// Answers by the first digit of their status, 1 to 5.
    pub(super) by_class: [u64; 5],
    /// Requests in each bucket, not cumulative; the last one is above all bounds.
    pub(super) buckets: [u64; BUCKETS.len() + 1],
    /// Time of all requests together.
    pub(super) seconds: f64,
}

/// The requests of a window, of one pool or several.
#[derive(Debug, Default)]
pub(super) struct Summary {
    seconds: Vec<f64>,
    failed: usize,
}

impl Seen {
    pub(super) fn record(&self, status: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        inner.totals.by_class[class] += 1;
        inner.totals.seconds += seconds;
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS.len());
        inner.totals.buckets[bucket] += 1;
        let now = Instant::now();
        while inner.recent.front().is_some_and(|r| now.duration_since(r.at) > WINDOW)
            || inner.recent.len() >= MOST
        {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Request { at: now, seconds, failed: status >= 500 });
    }

    pub(super) fn totals(&self) -> Totals {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).totals.clone()
    }

    /// Adds the requests of the window to `summary`.
    pub(super) fn add_to(&self, summary: &mut Summary) {
        let now = Instant::now();
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for request in inner.recent.iter().filter(|r| now.duration_since(r.at) <= WINDOW) {
            summary.seconds.push(request.seconds);
            summary.failed += usize::from(request.failed);
        }
    }
}

impl Summary {
    pub(super) fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Share of failed requests, 0 to 1.
    pub(super) fn error_rate(&self) -> Option<f64> {
        (!self.seconds.is_empty()).then(|| self.failed as f64 / self.seconds.len() as f64)
    }

    /// The time in seconds within which that share of requests was answered (nearest rank).
    pub(super) fn quantile(&mut self, q: f64) -> Option<f64> {
        self.seconds.sort_by(f64::total_cmp);
        let rank = (q * self.seconds.len() as f64).ceil().max(1.0);
        self.seconds.get(rank as usize - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks_and_no_requests_are_no_data() {
        let seen = Seen::default();
        let mut none = Summary::default();
        seen.add_to(&mut none);
        assert_eq!((none.error_rate(), none.quantile(0.95)), (None, None));
        for ms in 1..=100 {
            seen.record(if ms > 80 { 503 } else { 200 }, Duration::from_millis(ms));
        }
        let mut summary = Summary::default();
        seen.add_to(&mut summary);
        assert_eq!(summary.len(), 100);
        assert_eq!(summary.error_rate(), Some(0.2));
        assert_eq!((summary.quantile(0.5), summary.quantile(0.95)), (Some(0.05), Some(0.095)));
        let totals = seen.totals();
        assert_eq!(totals.by_class, [0, 80, 0, 0, 20]);
        assert_eq!(totals.buckets.iter().sum::<u64>(), 100);
        assert_eq!(totals.buckets[..6].iter().sum::<u64>(), 50);
    }
}
