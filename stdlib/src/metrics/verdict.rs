//! The verdict on a series of looks at metrics: pass, fail, inconclusive or no data.
//!
//! Pure: it is told when each look happened and what was read, and asks nothing itself. [`Watch`] judges the moment, which is
//! what a continuous guard needs; [`Watch::over`] judges the whole of a hold.
//!
//! **Invariants.** No data is never a pass. Only a look that itself shows every bound kept, with enough data, can end a hold
//! with a pass. Only a look that itself shows a bound broken can fail it. Time is counted from the first look that was really
//! made: time that nobody watched counts for nothing.

use std::{collections::BTreeMap, fmt, time::Duration};

use contraflow_runtime::quantity::{Comparison, Span, Unit};
use serde::{Deserialize, Serialize};

use super::Reading;

/// What is watched, and how much of a breach or of silence is put up with.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// The bound of each metric.
    pub bounds: BTreeMap<String, Comparison>,
    /// Observations that a reading must rest on to count as data.
    pub min_samples: u64,
    /// Looks that may find a metric's bound broken before that is a failure.
    pub failure_limit: u32,
    /// How long a bound must stay broken before that is a failure.
    pub sustained: Duration,
    /// How many measurements in a row may fail because the source is unreachable.
    pub inconclusive_limit: u32,
}

/// How long the bounds have to be kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Length {
    /// How long.
    pub hold: Duration,
    /// Whether time without enough data is waited out instead of counted.
    pub wait_for_data: bool,
    /// Share (0..1) of the time for which there must be enough data, unless it is waited for.
    pub coverage: f64,
    /// After this long it is over, decided or not.
    pub timeout: Duration,
}

/// What a look at one metric came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// The source answered.
    Read(Reading),
    /// The source could not be asked, and why.
    Unreachable(String),
}

/// A verdict, with the reason where it is not a pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every bound is kept, and there is enough data to say so.
    Pass,
    /// Bounds are broken beyond the limits.
    Fail(Vec<Breach>),
    /// Too few samples, a source out of reach, or a breach that is not yet beyond the limits.
    Inconclusive(String),
    /// Nothing to judge by.
    NoData(String),
}

impl Verdict {
    /// The name used in results and errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail(_) => "fail",
            Self::Inconclusive(_) => "inconclusive",
            Self::NoData(_) => "no_data",
        }
    }
}

/// A bound that is broken. Its `Display` fits behind "source: ".
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// The metric.
    pub metric: String,
    /// Its bound.
    pub bound: Comparison,
    /// What was read.
    pub value: f64,
    /// When the bound was first seen broken without having been kept since; counted from the first look.
    pub since: Span,
    /// Looks that found it broken.
    pub broken: u32,
    /// All looks so far.
    pub looks: u32,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { metric, bound, value, since, broken, looks } = self;
        let value = show_against(bound, *value);
        let s = if *looks == 1 { "" } else { "s" };
        write!(f, "{metric} was {value}, expected {bound}, for {broken} of {looks} measurement{s}, since ")?;
        if since.0.is_zero() { f.write_str("the first") } else { write!(f, "{since} after the first") }
    }
}

/// A value that breaks its bound, in the bound's unit: with as many digits as it takes to tell the two apart, and `exactly` where
/// nothing does.
fn show_against(bound: &Comparison, value: f64) -> String {
    let shown = bound.show(value);
    if value == bound.bound {
        return format!("exactly {shown}");
    }
    if shown != bound.show(bound.bound) {
        return shown;
    }
    let (scale, unit) = match bound.unit {
        Unit::Number => (1.0, ""),
        Unit::Percent => (100.0, "%"),
        Unit::Seconds if bound.bound >= 1.0 => (1.0, "s"),
        Unit::Seconds => (1e3, "ms"),
    };
    (1..=17)
        .map(|digits| [value, bound.bound].map(|number| format!("{:.digits$}{unit}", number * scale)))
        .find_map(|[value, bound]| (value != bound).then_some(value))
        // They differ by less than the scale can tell.
        .unwrap_or_else(|| format!("{shown} but not exactly that"))
}

/// What one metric is at a look.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Kept(f64),
    Broken(f64),
    #[default]
    NoData,
    /// `None`: the source cannot tell how many there are.
    TooFew(Option<u64>),
    Unreachable(String),
}

impl State {
    fn of(seen: Option<&Seen>, bound: &Comparison, min_samples: u64) -> Self {
        let reading = match seen {
            None => return Self::NoData,
            Some(Seen::Unreachable(why)) => return Self::Unreachable(why.clone()),
            Some(Seen::Read(reading)) => reading,
        };
        let Some(value) = reading.normal().value else { return Self::NoData };
        match reading.samples {
            Some(0) if min_samples > 0 => Self::NoData,
            Some(n) if n < min_samples => Self::TooFew(Some(n)),
            None if min_samples > 1 => Self::TooFew(None),
            _ if bound.holds(value) => Self::Kept(value),
            _ => Self::Broken(value),
        }
    }

    /// The value, where it may be judged.
    fn value(&self) -> Option<f64> {
        match self {
            Self::Kept(value) | Self::Broken(value) => Some(*value),
            Self::NoData | Self::TooFew(_) | Self::Unreachable(_) => None,
        }
    }
}

/// What the values of one metric were, over the looks that had enough data, in base units (a share 0..1, seconds, a number).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// At the last look with data.
    pub last: f64,
    /// Lowest.
    pub min: f64,
    /// Highest.
    pub max: f64,
    /// Mean over the looks.
    pub mean: f64,
    /// Looks with enough data.
    pub looks: u32,
    /// Looks that found the bound broken.
    pub broken: u32,
}

impl Summary {
    fn add(&mut self, value: f64) {
        let first = self.looks == 0;
        self.looks = self.looks.saturating_add(1);
        self.last = value;
        self.min = if first { value } else { self.min.min(value) };
        self.max = if first { value } else { self.max.max(value) };
        // Weighted like this, the mean of finite values is finite.
        let n = f64::from(self.looks);
        self.mean = self.mean * ((n - 1.0) / n) + value / n;
    }
}

/// What is remembered of one metric.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Track {
    now: State,
    summary: Summary,
    /// Start of the breach that has not been seen to end.
    since: Option<Duration>,
    no_data: Duration,
    too_few: Duration,
    unreachable: Duration,
}

impl Track {
    fn take(&mut self, state: State, at: Duration, step: Duration) {
        match &state {
            State::Kept(value) => {
                self.summary.add(*value);
                self.since = None;
            }
            State::Broken(value) => {
                self.summary.add(*value);
                self.summary.broken = self.summary.broken.saturating_add(1);
                self.since.get_or_insert(at);
            }
            // Silence does not end a breach: it was last seen broken.
            State::NoData => self.no_data += step,
            State::TooFew(_) => self.too_few += step,
            State::Unreachable(_) => self.unreachable += step,
        }
        self.now = state;
    }

    fn dark(&self) -> Duration {
        self.no_data + self.too_few + self.unreachable
    }
}

/// The looks made so far. A resumed run goes on with them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Watch {
    /// When the first look was made.
    start: Option<Duration>,
    /// When the last one was, counted from the first.
    at: Duration,
    looks: u32,
    /// Time for which every metric had enough data.
    covered: Duration,
    /// Looks in a row, up to the last, at which the source was out of reach.
    unreachable: u32,
    tracks: BTreeMap<String, Track>,
    verdict: Option<Verdict>,
}

impl Watch {
    /// Takes in one look, made at `elapsed` (counted from any fixed moment), and judges that moment. A metric that is missing
    /// in `seen` has no data.
    pub fn look(&mut self, rules: &Rules, elapsed: Duration, seen: &BTreeMap<String, Seen>) -> Verdict {
        let start = *self.start.get_or_insert(elapsed);
        let at = elapsed.saturating_sub(start).max(self.at);
        // A look speaks for the time since the one before it.
        let step = at - self.at;
        self.at = at;
        self.looks = self.looks.saturating_add(1);
        for (name, bound) in &rules.bounds {
            let state = State::of(seen.get(name), bound, rules.min_samples);
            self.tracks.entry(name.clone()).or_default().take(state, at, step);
        }
        if self.tracks.values().all(|track| track.now.value().is_some()) {
            self.covered += step;
        }
        let unreachable = self.tracks.values().any(|track| matches!(track.now, State::Unreachable(_)));
        self.unreachable = if unreachable { self.unreachable.saturating_add(1) } else { 0 };
        let verdict = self.moment(rules);
        self.verdict = Some(verdict.clone());
        verdict
    }

    fn moment(&self, rules: &Rules) -> Verdict {
        let (beyond, within): (Vec<Breach>, Vec<Breach>) = self.breaches(rules).partition(|breach| {
            self.at.saturating_sub(breach.since.0) >= rules.sustained && breach.broken > rules.failure_limit
        });
        if !beyond.is_empty() {
            return Verdict::Fail(beyond);
        }
        let dark = self.dark_now(rules);
        if rules.bounds.is_empty() {
            return Verdict::NoData("no metric is watched".to_owned());
        }
        if self.tracks.values().any(|track| track.now == State::NoData) {
            return Verdict::NoData(dark.join("; "));
        }
        if dark.is_empty() && within.is_empty() {
            return Verdict::Pass;
        }
        let breaches = within.iter().map(|breach| format!("{breach}, which is within the limits"));
        Verdict::Inconclusive(dark.into_iter().chain(breaches).collect::<Vec<_>>().join("; "))
    }

    /// The bounds that the last look found broken.
    fn breaches<'a>(&'a self, rules: &'a Rules) -> impl Iterator<Item = Breach> + 'a {
        self.tracks.iter().filter_map(|(metric, track)| {
            let (State::Broken(value), Some(since)) = (&track.now, track.since) else { return None };
            Some(Breach {
                metric: metric.clone(),
                bound: *rules.bounds.get(metric)?,
                value: *value,
                since: Span(since),
                broken: track.summary.broken,
                looks: self.looks,
            })
        })
    }

    /// What the last look could not tell.
    fn dark_now(&self, rules: &Rules) -> Vec<String> {
        let min = rules.min_samples;
        self.tracks
            .iter()
            .filter_map(|(metric, track)| match &track.now {
                State::Kept(_) | State::Broken(_) => None,
                State::NoData => Some(format!("{metric} has no data")),
                State::TooFew(Some(n)) => {
                    let s = if *n == 1 { "" } else { "s" };
                    Some(format!("{metric} has {n} sample{s}, expected {min}"))
                }
                State::TooFew(None) => {
                    Some(format!("{metric} has no `samples` query, but min_samples is {min}"))
                }
                State::Unreachable(why) => Some(format!("{metric} could not be read: {why}")),
            })
            .collect()
    }

    /// The verdict on a hold, or `None` while it goes on.
    ///
    /// A breach beyond the limits ends it at once. It passes at the first look that shows every bound kept after its time is
    /// over, so never while a breach is open.
    pub fn over(&self, rules: &Rules, length: &Length) -> Option<Verdict> {
        let moment = self.verdict.as_ref()?;
        if let Verdict::Fail(_) = moment {
            return Some(moment.clone());
        }
        if self.unreachable > rules.inconclusive_limit {
            let times = if self.unreachable == 1 { "measurement" } else { "measurements in a row" };
            let why = self.dark_now(rules).join("; ");
            return Some(Verdict::Inconclusive(format!("no answer for {} {times}: {why}", self.unreachable)));
        }
        let passes = *moment == Verdict::Pass;
        if length.wait_for_data {
            if passes && self.covered >= length.hold {
                return Some(Verdict::Pass);
            }
        } else if self.at >= length.hold {
            if self.covered.as_secs_f64() < self.at.as_secs_f64() * length.coverage {
                return Some(self.too_dark(rules));
            }
            if passes {
                return Some(Verdict::Pass);
            }
        }
        (self.at >= length.timeout).then(|| self.too_dark(rules))
    }

    /// Why time ran out without a decision.
    fn too_dark(&self, rules: &Rules) -> Verdict {
        if let (true, Some(moment)) = (self.at.is_zero(), &self.verdict) {
            // A single look is all there was time for.
            return moment.clone();
        }
        let total = Span(self.at);
        let min = rules.min_samples;
        let mut why = Vec::new();
        for (metric, track) in &self.tracks {
            let part = |span: Duration, what: &str| {
                (!span.is_zero()).then(|| format!("{metric} {what} for {} of {total}", Span(span)))
            };
            why.extend(part(track.no_data, "had no data"));
            if track.now != State::TooFew(None) {
                why.extend(part(track.too_few, &format!("had fewer than {min} samples")));
            } else if !track.too_few.is_zero() {
                why.push(format!("{metric} has no `samples` query, but min_samples is {min}"));
            }
            why.extend(part(track.unreachable, "could not be read"));
        }
        let open = self.breaches(rules).map(|breach| format!("{breach}, which is within the limits"));
        why.extend(open);
        if why.is_empty() {
            why.push(format!("there was enough data for only {} of {total}", Span(self.covered)));
        }
        let silent = self.tracks.values().map(|track| track.no_data).max().unwrap_or_default();
        let dark = self.tracks.values().map(Track::dark).max().unwrap_or_default();
        let why = why.join("; ");
        if rules.bounds.is_empty() || (!silent.is_zero() && silent * 2 >= dark) {
            Verdict::NoData(why)
        } else {
            Verdict::Inconclusive(why)
        }
    }

    /// Time since the first look.
    pub fn watched(&self) -> Duration {
        self.at
    }

    /// Time for which every metric had enough data.
    pub fn covered(&self) -> Duration {
        self.covered
    }

    /// How many looks were made.
    pub fn looks(&self) -> u32 {
        self.looks
    }

    /// What the values were. A metric that never had enough data is missing.
    pub fn summaries(&self) -> BTreeMap<String, Summary> {
        let seen = self.tracks.iter().filter(|(_, track)| track.summary.looks > 0);
        seen.map(|(metric, track)| (metric.clone(), track.summary)).collect()
    }

    /// The last look in a few words: `error_rate 0.02%, p95 no data`.
    pub fn glance(&self, rules: &Rules) -> String {
        let words = self.tracks.iter().map(|(metric, track)| {
            let value = match (&track.now, rules.bounds.get(metric)) {
                (State::Kept(value), Some(bound)) => bound.show(*value),
                (State::Broken(value), Some(bound)) => {
                    format!("{} (expected {bound})", show_against(bound, *value))
                }
                (State::TooFew(_), _) => "too few samples".to_owned(),
                (State::Unreachable(_), _) => "no answer".to_owned(),
                _ => "no data".to_owned(),
            };
            format!("{metric} {value}")
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
