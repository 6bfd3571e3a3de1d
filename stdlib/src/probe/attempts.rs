//! How a probe repeats itself, and how it reports that it did not pass.

use std::{fmt, future::Future, time::Duration};

use contraflow_runtime::{
    effect::{Limits, On},
    provider::{ProviderError, Retry},
    quantity::Span,
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::json;

use crate::codes;

/// How often something is tried, counting the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Attempts(u32);

impl Attempts {
    /// At least one.
    pub const fn new(n: u32) -> Self {
        Self(if n == 0 { 1 } else { n })
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for Attempts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Count;
        impl de::Visitor<'_> for Count {
            type Value = Attempts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 1 to 100000")
            }

            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Attempts, E> {
                match u32::try_from(n) {
                    Ok(n @ 1..=100_000) => Ok(Attempts(n)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(n), &self)),
                }
            }

            fn visit_i64<E: de::Error>(self, n: i64) -> Result<Attempts, E> {
                u64::try_from(n)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
                    .and_then(|n| self.visit_u64(n))
            }
        }
        from.deserialize_u64(Count)
    }
}

/// How a probe repeats itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tries {
    /// How often.
    pub attempts: Attempts,
    /// Time between two attempts.
    pub interval: Span,
    /// Time limit for one attempt.
    pub timeout: Span,
}

impl Tries {
    /// Once, for at most ten seconds; a second between repetitions.
    pub const DEFAULT: Self =
        Self { attempts: Attempts(1), interval: Span::secs(1), timeout: Span::secs(10) };

    /// The longest that it can take.
    pub fn longest(&self) -> Duration {
        self.timeout.0.saturating_add(self.interval.0).saturating_mul(self.attempts.0)
    }

    /// What the kernel has to grant: it all in one go, since a probe repeats itself.
    pub fn limits(&self) -> Limits {
        Limits {
            timeout: self.longest().saturating_add(Duration::from_secs(5)),
            attempts: 1,
            ..Limits::default()
        }
    }
}

/// What was expected, and what came instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// What would have passed.
    pub expected: String,
    /// What came.
    pub got: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Miss {
    pub(crate) fn new(expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Why one try did not pass.
#[derive(Debug)]
pub enum Failure {
    /// The next one may.
    Miss(Miss),
    /// No try can: the question cannot be asked.
    Hopeless(ProviderError),
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

impl Failure {
    /// An error met while getting ready: worth another try if it says so.
    pub(crate) fn setup(expected: &str, error: ProviderError) -> Self {
        match error.retry {
            Retry::Safe { .. } => Self::Miss(Miss::new(expected, error.message)),
            Retry::Never => Self::Hopeless(error),
        }
    }
}

/// Something that can be tried again and again.
pub trait Attempt: Sync {
    /// What passing gives.
    type Value: Send;

    /// How often and how long.
    fn tries(&self) -> &Tries;

    /// What is tried, for people: `GET https://shop.example.com/health`.
    fn subject(&self) -> String;

    /// Where that turned out to be, if the subject does not say it.
    fn address(&self) -> Option<String> {
        None
    }

    /// Tries once.
    fn once(&self, on: &On) -> impl Future<Output = Result<Self::Value, Failure>> + Send;
}

/// A try that passed.
#[derive(Debug)]
pub struct Hit<T> {
    /// What it gave.
    pub value: T,
    /// Which one it was, from 1.
    pub attempts: u32,
}

/// Tries until it passes. `report` says how each failed try came out.
///
/// # Errors
/// `probe-failed` with what was expected, what came and how often it was tried; or why it cannot be tried at all.
pub async fn repeat<A: Attempt>(
    on: &On,
    attempt: &A,
    report: impl Fn(u32, &Miss) + Send,
) -> Result<Hit<A::Value>, ProviderError> {
    let tries = attempt.tries();
    let start = on.clock().monotonic();
    let mut count = 1;
    loop {
        let miss = match tokio::time::timeout(tries.timeout.0, attempt.once(on)).await {
            Ok(Ok(value)) => return Ok(Hit { value, attempts: count }),
            Ok(Err(Failure::Hopeless(error))) => return Err(error),
            Ok(Err(Failure::Miss(miss))) => miss,
            Err(_) => Miss::new(format!("an answer within {}", tries.timeout), "none in that time"),
        };
        if count >= tries.attempts.0 {
            let elapsed = on.clock().monotonic().saturating_sub(start);
            return Err(failed(on, attempt, miss, count, elapsed));
        }
        report(count, &miss);
        on.clock().sleep(tries.interval.0).await;
        count += 1;
    }
}

/// Says after each failed try how it came out.
pub(crate) fn progress<'p>(on: &'p On, tries: &Tries) -> impl Fn(u32, &Miss) + Send + use<'p> {
    let total = u64::from(tries.attempts.0);
    move |count, miss| {
        on.progress(u64::from(count), total, format!("attempt {count} of {total}: {}", miss.got));
    }
}

fn failed(on: &On, attempt: &impl Attempt, miss: Miss, count: u32, elapsed: Duration) -> ProviderError {
    let scrub = |text: &str| on.vault().scrub(text).into_owned();
    let (expected, got) = (scrub(&miss.expected), scrub(&miss.got));
    let tried = if count == 1 {
        "tried once".to_owned()
    } else {
        format!("tried {count} times in {}", Span(elapsed))
    };
    let reason = format!("expected {expected}, got {got} ({tried})");
    let subject = scrub(&attempt.subject());
    let error = match attempt.address() {
        None => ProviderError::terminal(codes::PROBE_FAILED, reason).about(subject),
        Some(address) => {
            ProviderError::terminal(codes::PROBE_FAILED, format!("{subject} ({}): {reason}", scrub(&address)))
        }
    };
    let error = error.detail(json!({ "expected": expected, "got": got, "attempts": count }));
    match miss.hint {
        Some(hint) => error.hint(scrub(&hint)),
        None => error,
    }
}

/// A span of time in milliseconds, to the microsecond.
pub(crate) fn millis(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e6).round() / 1e3
}

/// Milliseconds for people.
pub(crate) fn show_millis(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1}ms") } else { Span::millis(ms.round() as u64).to_string() }
}

/// What is said about a try that passed: nothing but the time it took, unless it took several.
pub(crate) fn show_attempts(latency_ms: f64, attempts: u32) -> String {
    let latency = show_millis(latency_ms);
    if attempts > 1 { format!("{latency}, attempt {attempts}") } else { latency }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::http::testing::{detached, with_secret};

    struct Flaky {
        tries: Tries,
        passes_at: u32,
        asked: AtomicU32,
    }

    impl Attempt for Flaky {
        type Value = u32;

        fn tries(&self) -> &Tries {
            &self.tries
        }

        fn subject(&self) -> String {
            "the thing".to_owned()
        }

        async fn once(&self, _: &On) -> Result<u32, Failure> {
            let count = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            match count {
                n if n == self.passes_at => Ok(n),
                99 => Err(Failure::Hopeless(ProviderError::terminal("argument", "cannot be asked"))),
                n => Err(Miss::new("yes", format!("no {n} s3cr3t-value")).into()),
            }
        }
    }

    fn flaky(attempts: u32, passes_at: u32) -> Flaky {
        let tries =
            Tries { attempts: Attempts::new(attempts), interval: Span::millis(1), timeout: Span::secs(1) };
        Flaky { tries, passes_at, asked: AtomicU32::new(0) }
    }

    #[tokio::test]
    async fn it_is_tried_until_it_passes_and_no_longer() {
        let probe = flaky(5, 3);
        let hit = repeat(&detached(), &probe, |_, _| {}).await.expect("passes");
        assert_eq!((hit.value, hit.attempts, probe.asked.load(Ordering::SeqCst)), (3, 3, 3));
    }

    #[tokio::test]
    async fn a_failure_says_what_was_expected_what_came_and_how_often_without_secrets() {
        let seen = std::sync::Mutex::new(Vec::new());
        let on = with_secret("token", "s3cr3t-value");
        let error =
            repeat(&on, &flaky(2, 7), |n, miss| seen.lock().expect("lock").push((n, miss.got.clone())))
                .await
                .expect_err("fails");
        assert_eq!(error.code.as_str(), "probe-failed");
        assert_eq!(error.retry, Retry::Never);
        assert!(
            error.message.starts_with("the thing: expected yes, got no 2 <secret token> (tried 2 times in "),
            "{}",
            error.message
        );
        assert_eq!(
            error.detail,
            Some(json!({ "expected": "yes", "got": "no 2 <secret token>", "attempts": 2 }))
        );
        assert_eq!(seen.lock().expect("lock").len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_asked_is_not_asked_again() {
        let probe = flaky(5, 0);
        probe.asked.store(98, Ordering::SeqCst);
        let error = repeat(&detached(), &probe, |_, _| {}).await.expect_err("fails");
        assert_eq!((error.code.as_str(), probe.asked.load(Ordering::SeqCst)), ("argument", 99));
    }

    #[test]
    fn the_deadline_has_room_for_all_attempts() {
        let tries = Tries { attempts: Attempts::new(30), interval: Span::secs(2), timeout: Span::secs(10) };
        assert!(tries.limits().timeout >= Duration::from_secs(360));
        assert_eq!(tries.limits().attempts, 1);
        let endless = Tries { timeout: Span(Duration::MAX), ..tries };
        assert_eq!(endless.limits().timeout, Duration::MAX);
    }

    #[test]
    fn a_number_of_attempts_is_at_least_one() {
        let read = |value| serde_json::from_value::<Attempts>(value).map(Attempts::get);
        assert_eq!(read(json!(3)).expect("three"), 3);
        for wrong in [json!(0), json!(-1), json!(1_000_000), json!("3"), json!(1.5)] {
            let error = read(wrong).expect_err("refused").to_string();
            assert!(error.contains("a whole number from 1 to 100000"), "{error}");
        }
    }
}
