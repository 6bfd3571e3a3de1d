//! Faults that can be switched on in the sandbox: what `--fault` takes, and when one is in force.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use contraflow_runtime::{
    error::did_you_mean,
    quantity::{Comparison, Percent, Span, Unit},
};
use tokio::sync::watch;

use super::{POOLS, balancer::Balancer};

/// Something that goes wrong, and from when on.
///
/// Written `SUBJECT.KIND=VALUE@CONDITION`, such as `green.error_rate=20%`, `green.latency=500ms@5s`,
/// `green.dead@weight>=50` or `sink.status=500`. A fault with several conditions is in force when all of them hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub what: What,
    /// Time from the start of the sandbox, or from when the fault was set if that is later, until it is in force.
    pub after: Duration,
    /// Share of traffic, in percent, that the pool has to have for the fault to be in force.
    pub weight: Option<Comparison>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// That share (0 to 1) of the pool's answers is 500, except those of `/health`.
    ErrorRate {
        /// The pool.
        pool: String,
        /// The share, 0 to 1.
        share: f64,
    },
    /// Every answer of the pool takes that much longer.
    Latency {
        /// The pool.
        pool: String,
        /// How much longer.
        by: Duration,
    },
    /// The pool's replicas are gone: open connections break, new ones are refused.
    Dead {
        /// The pool.
        pool: String,
    },
    /// The router refuses connections.
    RouterDown,
    /// The message sink refuses connections.
    SinkDown,
    /// The message sink answers with that status and keeps nothing.
    SinkStatus(u16),
}

impl What {
    /// The pool it is about.
    fn pool(&self) -> Option<&str> {
        match self {
            Self::ErrorRate { pool, .. } | Self::Latency { pool, .. } | Self::Dead { pool } => Some(pool),
            Self::RouterDown | Self::SinkDown | Self::SinkStatus(_) => None,
        }
    }

    /// Whether it takes a server away, so that somebody has to watch for it.
    fn is_switch(&self) -> bool {
        matches!(self, Self::Dead { .. } | Self::RouterDown | Self::SinkDown)
    }

    /// Whether both are about the same thing, whatever the strength.
    fn is_like(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.pool() == other.pool()
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate { pool, share } => write!(f, "{pool}.error_rate={}", Unit::Percent.show(*share)),
            Self::Latency { pool, by } => write!(f, "{pool}.latency={}", Span(*by)),
            Self::Dead { pool } => write!(f, "{pool}.dead"),
            Self::RouterDown => f.write_str("router.down"),
            Self::SinkDown => f.write_str("sink.down"),
            Self::SinkStatus(status) => write!(f, "sink.status={status}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if let Some(weight) = &self.weight {
            write!(f, "@weight{}", weight.to_string().replace(' ', ""))?;
        }
        if !self.after.is_zero() {
            write!(f, "@{}", Span(self.after))?;
        }
        Ok(())
    }
}

/// Why the text of a fault cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad fault \"{text}\": {why}")]
pub struct FaultError {
    text: String,
    why: String,
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        parse(text.trim()).map_err(|why| FaultError { text: text.to_owned(), why })
    }
}

fn parse(text: &str) -> Result<Fault, String> {
    let mut parts = text.split('@').map(str::trim);
    let what = what(parts.next().unwrap_or_default())?;
    let mut fault = Fault { what, after: Duration::ZERO, weight: None };
    for condition in parts {
        if let Some(weight) = condition.strip_prefix("weight") {
            if fault.what.pool().is_none() {
                return Err("only a pool has a weight".to_owned());
            }
            let mut weight: Comparison = weight.parse().map_err(|_| {
                format!(
                    "bad condition \"{condition}\": expected a comparison with a percentage, such as \
                     weight>=50"
                )
            })?;
            match weight.unit {
                Unit::Percent => (weight.bound, weight.unit) = (weight.bound * 100.0, Unit::Number),
                Unit::Number => {}
                Unit::Seconds => {
                    return Err(format!("bad condition \"{condition}\": a weight is a percentage"));
                }
            }
            fault.weight = Some(weight);
        } else {
            let after = condition.strip_prefix("after=").unwrap_or(condition);
            let after: Span = after.parse().map_err(|_| {
                format!(
                    "bad condition \"{condition}\": expected a time such as 5s, or a weight such as \
                     weight>=50"
                )
            })?;
            fault.after = after.into();
        }
    }
    Ok(fault)
}

fn what(text: &str) -> Result<What, String> {
    let (name, value) =
        text.split_once('=').map_or((text, None), |(name, value)| (name.trim(), Some(value.trim())));
    let (subject, kind) = name
        .split_once('.')
        .ok_or("expected a server and its fault, such as green.error_rate=20%, green.dead or router.down")?;
    let kinds: &[&str] = match subject {
        "router" => &["down"],
        "sink" => &["down", "status"],
        pool if POOLS.contains(&pool) => &["error_rate", "latency", "dead"],
        other => {
            let known = POOLS.iter().copied().chain(["router", "sink"]);
            return Err(match did_you_mean(other, known.clone()) {
                Some(close) => format!("there is no server named \"{other}\", did you mean \"{close}\"?"),
                None => {
                    let known: Vec<&str> = known.collect();
                    format!("there is no server named \"{other}\"; there are {}", known.join(", "))
                }
            });
        }
    };
    let pool = || subject.to_owned();
    let needs = |example: &str| value.ok_or_else(|| format!("expected a value, such as {name}={example}"));
    match kind {
        _ if !kinds.contains(&kind) => Err(match did_you_mean(kind, kinds.iter().copied()) {
            Some(close) => format!("{subject} has no fault \"{kind}\", did you mean \"{close}\"?"),
            None => format!("{subject} has no fault \"{kind}\"; it has {}", kinds.join(", ")),
        }),
        "error_rate" => {
            let percent: Percent = needs("20%")?.parse().map_err(|e| format!("{e}"))?;
            if !(0.0..=100.0).contains(&percent.0) {
                return Err(format!("{percent} is not a percentage from 0% to 100%"));
            }
            Ok(What::ErrorRate { pool: pool(), share: percent.0 / 100.0 })
        }
        "latency" => {
            let by: Span = needs("500ms")?.parse().map_err(|e| format!("{e}"))?;
            Ok(What::Latency { pool: pool(), by: by.into() })
        }
        "status" => {
            let text = needs("500")?;
            let status = text.parse().ok().filter(|status| (200..=599).contains(status));
            status
                .map(What::SinkStatus)
                .ok_or_else(|| format!("\"{text}\" is not an HTTP status: expected 200 to 599"))
        }
        _ if value.is_some() => Err(format!("{name} takes no value")),
        "dead" => Ok(What::Dead { pool: pool() }),
        _ if subject == "router" => Ok(What::RouterDown),
        _ => Ok(What::SinkDown),
    }
}

/// How often a fault that takes a server away is looked at, since its conditions are times and weights.
const TICK: Duration = Duration::from_millis(20);

/// The faults of one sandbox.
#[derive(Debug)]
pub(super) struct Faults {
    list: RwLock<Vec<(Fault, Instant)>>,
    started: OnceLock<Instant>,
    balancer: Arc<Balancer>,
    changed: watch::Sender<()>,
}

impl Faults {
    pub(super) fn new(faults: &[Fault], balancer: Arc<Balancer>) -> Self {
        let now = Instant::now();
        let list = faults.iter().map(|fault| (fault.clone(), now)).collect();
        Self { list: RwLock::new(list), started: OnceLock::new(), balancer, changed: watch::Sender::new(()) }
    }

    /// Times count from the first call.
    pub(super) fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    pub(super) fn list(&self) -> Vec<Fault> {
        self.list
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(fault, _)| fault.clone())
            .collect()
    }

    /// Adds a fault in place of all like it.
    pub(super) fn set(&self, fault: Fault) {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        list.retain(|(other, _)| !other.what.is_like(&fault.what));
        list.push((fault, Instant::now()));
        drop(list);
        self.changed.send_replace(());
    }

    pub(super) fn clear(&self) {
        self.list.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.changed.send_replace(());
    }

    /// What `pick` makes of the faults that are in force.
    fn in_force<T>(&self, pick: impl Fn(&What) -> Option<T>) -> Vec<T> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let started = self.started.get().copied().unwrap_or(now);
        list.iter()
            .filter(|(fault, set)| now.duration_since(started.max(*set).min(now)) >= fault.after)
            .filter(|(fault, _)| match (&fault.weight, fault.what.pool()) {
                (Some(weight), Some(pool)) => weight.holds(self.balancer.share(pool).percent()),
                _ => true,
            })
            .filter_map(|(fault, _)| pick(&fault.what))
            .collect()
    }

    /// Share of answers of a pool that are errors; the highest of several faults.
    pub(super) fn error_rate(&self, of: &str) -> f64 {
        let found = self.in_force(|what| match what {
            What::ErrorRate { pool, share } if pool == of => Some(*share),
            _ => None,
        });
        found.into_iter().fold(0.0, f64::max)
    }

    /// By how much answers of a pool are late; the highest of several faults.
    pub(super) fn latency(&self, of: &str) -> Duration {
        let found = self.in_force(|what| match what {
            What::Latency { pool, by } if pool == of => Some(*by),
            _ => None,
        });
        found.into_iter().max().unwrap_or_default()
    }

    pub(super) fn is_dead(&self, of: &str) -> bool {
        !self.in_force(|what| matches!(what, What::Dead { pool } if pool == of).then_some(())).is_empty()
    }

    pub(super) fn is_router_down(&self) -> bool {
        !self.in_force(|what| matches!(what, What::RouterDown).then_some(())).is_empty()
    }

    pub(super) fn is_sink_down(&self) -> bool {
        !self.in_force(|what| matches!(what, What::SinkDown).then_some(())).is_empty()
    }

    pub(super) fn sink_status(&self) -> Option<u16> {
        let found = self.in_force(|what| match what {
            What::SinkStatus(status) => Some(*status),
            _ => None,
        });
        found.into_iter().max()
    }

    /// Completes when `holds` does. It is asked again when faults are set, and from time to time while one that takes a
    /// server away is there.
    pub(super) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if holds(self) {
                return;
            }
            let timed = {
                let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
                list.iter().any(|(fault, _)| fault.what.is_switch())
            };
            if timed {
                let _ = tokio::time::timeout(TICK, changed.changed()).await;
            } else if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Fault, String> {
        text.parse::<Fault>().map_err(|e| e.to_string())
    }

    #[test]
    fn faults_read_and_print_the_same_way() {
        for text in [
            "green.error_rate=20%",
            "blue.latency=500ms",
            "green.dead",
            "router.down",
            "sink.down",
            "sink.status=500",
            "green.error_rate=20%@5s",
            "green.dead@weight>=50",
            "green.latency=1s@weight<5@1m30s",
            "green.dead@weight>=0.5",
        ] {
            assert_eq!(read(text).expect(text).to_string(), text);
        }
        assert_eq!(read("green.dead@after=10s"), read("green.dead@10s"));
        assert_eq!(read("green.dead@weight>=50%"), read(" green.dead @ weight >= 50 "));
    }

    #[test]
    fn a_bad_fault_says_what_is_wanted() {
        for (text, why) in [
            ("gren.dead", "did you mean \"green\"?"),
            ("moon.dead", "there are blue, green, router, sink"),
            ("green.eror_rate=1%", "did you mean \"error_rate\"?"),
            ("router.dead", "router has no fault \"dead\"; it has down"),
            ("green", "expected a server and its fault"),
            ("green.error_rate", "expected a value, such as green.error_rate=20%"),
            ("green.error_rate=20", "bad percentage"),
            ("green.error_rate=120%", "not a percentage from 0% to 100%"),
            ("green.latency=fast", "bad duration"),
            ("green.dead=1", "takes no value"),
            ("sink.status=999", "expected 200 to 599"),
            ("green.dead@soon", "expected a time such as 5s"),
            ("green.dead@weight=50", "expected a comparison"),
            ("router.down@weight>5", "only a pool has a weight"),
        ] {
            let error = read(text).expect_err(text);
            assert!(
                error.starts_with(&format!("bad fault \"{text}\"")) && error.contains(why),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_fault_is_in_force_when_its_time_and_weight_have_come() {
        let balancer = Arc::new(Balancer::new());
        let all = ["green.error_rate=20%@weight>=50", "blue.latency=100ms@1h", "green.dead"];
        let faults: Vec<Fault> = all.iter().map(|text| read(text).expect(text)).collect();
        let faults = Faults::new(&faults, Arc::clone(&balancer));
        faults.start();
        assert!(faults.error_rate("green").abs() < f64::EPSILON);
        assert_eq!(faults.latency("blue"), Duration::ZERO);
        assert!(faults.is_dead("green") && !faults.is_dead("blue"));
        let half = crate::traffic::Weights::try_from([("blue", 50.0), ("green", 50.0)]);
        balancer.set(&half.expect("shares"));
        assert!((faults.error_rate("green") - 0.2).abs() < f64::EPSILON);
        // A fault set later takes the place of those like it.
        faults.set(read("green.error_rate=5%").expect("a fault"));
        assert!((faults.error_rate("green") - 0.05).abs() < f64::EPSILON);
        faults.clear();
        assert!(!faults.is_dead("green") && faults.list().is_empty());
    }
}
