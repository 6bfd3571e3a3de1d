//! Quantities that runbooks write as text: durations, percentages, sizes and comparisons.
//!
//! Scripts pass them as strings (`"90s"`, `"0.1%"`, `"512MiB"`, `"< 200ms"`); option structs decode them into these types,
//! so a wrong one is refused before anything happens.

use std::{fmt, str::FromStr, time::Duration};

use jiff::{
    SignedDuration,
    fmt::friendly::{Designator, Spacing, SpanPrinter},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a quantity could not be read. The text fits behind “`name`: ”.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct QuantityError(String);

/// A length of time, written `"90s"`, `"1h30m"`, `"250ms"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

impl Span {
    /// A span of whole seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }

    /// A span of milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || {
            QuantityError(format!(
                "bad duration \"{text}\": expected a number with ms, s, m, h or d, such as \"90s\" or \
                 \"1h30m\""
            ))
        };
        let trimmed = text.trim();
        // The friendly format also reads ISO 8601 and calendar units; a runbook wants one way to write it.
        if trimmed.is_empty()
            || !trimmed.starts_with(|c: char| c.is_ascii_digit())
            || trimmed.contains(['P', 'T', 'y', 'w', 'u', 'n', 'µ', ':', ','])
            || trimmed.contains("mo")
        {
            return Err(bad());
        }
        let days = trimmed.split_once('d');
        let (days, rest) = match days {
            Some((n, rest)) => (n.trim().parse::<u32>().map_err(|_| bad())?, rest.trim()),
            None => (0, trimmed),
        };
        let rest = if rest.is_empty() {
            SignedDuration::ZERO
        } else {
            rest.parse::<SignedDuration>().map_err(|_| bad())?
        };
        let rest = Duration::try_from(rest).map_err(|_| bad())?;
        Ok(Self(Duration::from_secs(u64::from(days) * 86_400) + rest))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let printer = SpanPrinter::new().designator(Designator::Compact).spacing(Spacing::None);
        // Below a second, milliseconds; above, whole milliseconds: nobody reads nanoseconds in a run log.
        let whole = Duration::from_millis(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX));
        let shown =
            if whole.is_zero() { Duration::from_micros(u64::from(self.0.subsec_micros())) } else { whole };
        match SignedDuration::try_from(shown) {
            Ok(signed) => f.write_str(&printer.duration_to_string(&signed)),
            Err(_) => write!(f, "{}s", self.0.as_secs()),
        }
    }
}

/// A moment for people: to the second, in UTC.
pub fn moment(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A share of a whole, written `"0.1%"` or `"25%"`; kept as percent.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad =
            || QuantityError(format!("bad percentage \"{text}\": expected a number and %, such as \"0.1%\""));
        let number =
            text.trim().strip_suffix('%').ok_or_else(bad)?.trim().parse::<f64>().map_err(|_| bad())?;
        if number.is_finite() { Ok(Self(number)) } else { Err(bad()) }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A number of bytes, written `"512KiB"`, `"1MiB"`, `"10MB"` or `"100B"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let bad = || {
            QuantityError(format!(
                "bad size \"{text}\": expected a number with B, KiB, MiB or GiB, such as \"1MiB\""
            ))
        };
        let trimmed = text.trim();
        let (unit, factor) = SIZE_UNITS.iter().find(|(unit, _)| trimmed.ends_with(unit)).ok_or_else(bad)?;
        let number = trimmed.trim_end_matches(unit).trim().parse::<u64>().map_err(|_| bad())?;
        number.checked_mul(*factor).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &SIZE_UNITS[..3] {
            if self.0 >= *factor {
                let whole = self.0 as f64 / *factor as f64;
                return if whole.fract() == 0.0 {
                    write!(f, "{whole}{unit}")
                } else {
                    write!(f, "{whole:.1}{unit}")
                };
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// How a measured value is compared with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// What a bound was written in, so that a measured value is shown the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A bare number.
    Number,
    /// Percent. A metric that counts a share as 0..1 is compared as `value * 100`.
    Percent,
    /// A duration. A metric in seconds is compared in seconds.
    Seconds,
}

/// A bound on a measured value: `"< 0.1%"`, `"<= 200ms"`, `"> 3"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// How to compare.
    pub operator: Operator,
    /// The bound, in the base unit of [`Unit`]: a share 0..1 for percent, seconds for durations.
    pub bound: f64,
    /// How the bound was written.
    pub unit: Unit,
}

impl Comparison {
    /// Whether `value` (a share 0..1, seconds, or a number) keeps the bound.
    pub fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Below => value < self.bound,
            Operator::AtMost => value <= self.bound,
            Operator::Above => value > self.bound,
            Operator::AtLeast => value >= self.bound,
            Operator::Equal => value == self.bound,
            Operator::NotEqual => value != self.bound,
        }
    }

    /// `value` in the unit that the bound was written in.
    pub fn show(&self, value: f64) -> String {
        self.unit.show(value)
    }
}

impl Unit {
    /// Reads a bare quantity: `"0.1%"` is 0.001, `"200ms"` is 0.2, `"3"` is 3.
    pub fn read(text: &str) -> Result<(f64, Self), QuantityError> {
        let text = text.trim();
        if text.ends_with('%') {
            return text.parse::<Percent>().map(|p| (p.0 / 100.0, Self::Percent));
        }
        if let Ok(number) = text.parse::<f64>() {
            return if number.is_finite() {
                Ok((number, Self::Number))
            } else {
                Err(QuantityError(format!("bad number \"{text}\"")))
            };
        }
        text.parse::<Span>().map(|s| (s.0.as_secs_f64(), Self::Seconds)).map_err(|_| {
            QuantityError(format!(
                "bad value \"{text}\": expected a number, a percentage such as \"0.1%\" \
                or a duration such as \"200ms\""
            ))
        })
    }

    /// `value` written in this unit.
    ///
    /// The largest number stands for an infinity, which JSON cannot write.
    pub fn show(self, value: f64) -> String {
        match self {
            _ if value >= f64::MAX => "+Inf".to_owned(),
            _ if value <= f64::MIN => "-Inf".to_owned(),
            Self::Number => format!("{}", round(value)),
            Self::Percent => format!("{}%", round(value * 100.0)),
            Self::Seconds if value.is_finite() && value >= 0.0 => {
                Span(Duration::from_secs_f64(value.min(1e12))).to_string()
            }
            Self::Seconds => format!("{value}s"),
        }
    }
}

/// A measured value with as many digits as people read. One that is not zero never becomes it.
fn round(value: f64) -> f64 {
    if value.abs() >= 100.0 {
        return value.round();
    }
    let rounded = (value * 1000.0).round() / 1000.0;
    if rounded == 0.0 && value != 0.0 { with_digits(value, 2) } else { rounded }
}

/// The number closest to `value` with so many significant digits.
fn with_digits(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits.saturating_sub(1)).parse().unwrap_or(value)
}

impl Unit {
    /// A bound as it was written: unlike a measured value it is not rounded. It reads back as itself.
    fn exact(self, bound: f64) -> String {
        // What the conversion between units adds in the last binary digits was not written.
        let plain = |number: f64| with_digits(number, 15).to_string();
        match self {
            Self::Number => plain(bound),
            Self::Percent => format!("{}%", plain(bound * 100.0)),
            Self::Seconds => {
                let shown = self.show(bound);
                match Self::read(&shown) {
                    Ok((same, Self::Seconds)) if same == bound => shown,
                    _ if bound.abs() < 1.0 => format!("{}ms", plain(bound * 1000.0)),
                    _ => format!("{}s", plain(bound)),
                }
            }
        }
    }
}

impl FromStr for Comparison {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        const OPERATORS: [(&str, Operator); 6] = [
            ("<=", Operator::AtMost),
            (">=", Operator::AtLeast),
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<", Operator::Below),
            (">", Operator::Above),
        ];
        let trimmed = text.trim();
        let (sign, operator) =
            OPERATORS.iter().find(|(sign, _)| trimmed.starts_with(sign)).ok_or_else(|| {
                QuantityError(format!(
                    "bad comparison \"{text}\": expected an operator and a value, such as \"< \
                200ms\" or \"<= 0.1%\""
                ))
            })?;
        let (bound, unit) = Unit::read(&trimmed[sign.len()..])?;
        Ok(Self { operator: *operator, bound, unit })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.operator {
            Operator::Below => "<",
            Operator::AtMost => "<=",
            Operator::Above => ">",
            Operator::AtLeast => ">=",
            Operator::Equal => "==",
            Operator::NotEqual => "!=",
        };
        write!(f, "{sign} {}", self.unit.exact(self.bound))
    }
}

macro_rules! as_text {
    ($($name:ident: $want:literal, without $lacks:literal),+ $(,)?) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($want)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        Err(E::custom(format_args!(concat!("{} has no ", $lacks, ": expected \
                            ", $want), number)))
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        Err(E::custom(format_args!(concat!("{} has no ", $lacks, ": expected \
                            ", $want), number)))
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        Err(E::custom(format_args!(concat!("{} has no ", $lacks, ": expected \
                            ", $want), number)))
                    }
                }
                from.deserialize_any(Text)
            }
        }
    )+};
}

as_text! {
    Span: "a duration string such as \"90s\"", without "unit",
    Percent: "a percentage string such as \"0.1%\"", without "%",
    Size: "a size string such as \"1MiB\"", without "unit",
    Comparison: "a comparison string such as \"< 200ms\"", without "operator",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<T: FromStr<Err = QuantityError> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|e| e.to_string(), |v| v.to_string())
    }

    #[test]
    fn durations_read_and_print_the_same_way() {
        for text in ["90s", "250ms", "1h30m", "15m", "2h"] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.to_string().parse::<Span>().expect("printed form reads back"), span, "{text}");
        }
        assert_eq!(shown::<Span>("90s"), "1m30s");
        assert_eq!("1d12h".parse::<Span>(), Ok(Span::secs(36 * 3600)));
    }

    #[test]
    fn a_bad_duration_says_what_is_wanted() {
        for text in ["5x", "", "abc", "10", "-5s", "PT5S", "5 years"] {
            assert!(shown::<Span>(text).starts_with("bad duration"), "{text}: {}", shown::<Span>(text));
        }
    }

    #[test]
    fn comparisons_keep_their_unit() {
        assert_eq!(shown::<Comparison>("< 0.1%"), "< 0.1%");
        assert_eq!(shown::<Comparison>("<=200ms"), "<= 200ms");
        for text in [
            "< 0.0001%",
            "< 0.0000005",
            "> 1234.5",
            "< 0.07%",
            ">= 99.9999%",
            "< 0.5ms",
            "< 1.5ms",
            "<= 1.2345s",
            "== 0",
            "> -3.25",
            "< 1m30s",
            "< 29%",
        ] {
            assert_eq!(shown::<Comparison>(text), text, "a bound is shown as it was written");
        }
        assert_eq!(
            Unit::Percent.show(0.000_000_21),
            "0.000021%",
            "a measured value that is not zero is not shown as zero"
        );
        assert_eq!(Unit::Number.show(0.0), "0");
        assert_eq!(shown::<Comparison>(">= 3"), ">= 3");
        let bound: Comparison = "< 0.1%".parse().expect("comparison");
        for infinite in [f64::INFINITY, f64::MAX] {
            assert_eq!((bound.show(infinite), bound.show(-infinite)), ("+Inf".to_owned(), "-Inf".to_owned()));
            assert!(!bound.holds(infinite));
        }
        assert!(bound.holds(0.0005) && !bound.holds(0.001) && !bound.holds(f64::NAN));
    }

    #[test]
    fn sizes_read_binary_and_decimal_units() {
        assert_eq!("1MiB".parse::<Size>(), Ok(Size(1 << 20)));
        assert_eq!(shown::<Size>("1536KiB"), "1.5MiB");
        assert!(shown::<Size>("lots").starts_with("bad size"));
    }
}
