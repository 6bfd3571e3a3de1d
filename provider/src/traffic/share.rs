//! Shares of traffic in steps of 0.01 %, and how they are dealt out so that they always add up to 100 %.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::Weights;
use crate::{
    codes,
    error::{codes as runtime_codes, did_you_mean},
    provider::ProviderError,
    schema::{FractionOrText, JsonSchema, Schema, SchemaGenerator},
};

/// A share of traffic from 0 % to 100 %, in basis points (0.01 %). Scripts write `25`, `0.5` or `"0.5%"`.
///
/// Its form in the journal and in scripts is the number of percent: an integer where it is whole (`25`), a fraction otherwise
/// (`0.5`). So integers compare with integers in scripts, and one share has one form in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(u32);

/// 100 % in basis points.
const WHOLE: u32 = 10_000;

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// All of it.
    pub const ALL: Self = Self(WHOLE);

    /// A number of hundredths of a percent, 0 to 10,000.
    pub const fn from_basis_points(n: u32) -> Option<Self> {
        if n <= WHOLE { Some(Self(n)) } else { None }
    }

    /// The number of hundredths of a percent.
    pub const fn basis_points(self) -> u32 {
        self.0
    }

    /// The number of percent.
    pub fn percent(self) -> f64 {
        percent(u64::from(self.0))
    }

    /// Whether it is nothing.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// Percent from basis points. Dividing by 100 gives the float that is nearest to the decimal, the one that `0.1` in a script
/// means too.
fn percent(basis_points: u64) -> f64 {
    basis_points as f64 / 100.0
}

fn not_a_percentage(what: impl fmt::Display) -> String {
    format!("{what} is not a percentage from 0 to 100")
}

impl TryFrom<i64> for Share {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let share = u32::try_from(number).ok().and_then(|n| Self::from_basis_points(n.checked_mul(100)?));
        share.ok_or_else(|| not_a_percentage(number))
    }
}

impl TryFrom<f64> for Share {
    type Error = String;

    fn try_from(number: f64) -> Result<Self, String> {
        let exact = number * 100.0;
        let rounded = exact.round();
        if !(0.0..=f64::from(WHOLE)).contains(&rounded) {
            return Err(not_a_percentage(number));
        }
        // A script may have computed it: 0.1 + 0.2 is 0.30000000000000004.
        if (exact - rounded).abs() > 1e-6 {
            return Err(format!("{number}% is too fine: the smallest step is 0.01%"));
        }
        // In range, so nothing is cut off.
        Ok(Self(rounded as u32))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim();
        let number = number.strip_suffix('%').unwrap_or(number).trim_end();
        let plain = number.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
        match number.parse::<f64>() {
            Ok(number) if plain => Self::try_from(number),
            _ => {
                Err(format!("{}, such as \"25%\" or \"0.5%\"", not_a_percentage(format_args!("\"{text}\""))))
            }
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.percent())
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            to.serialize_u32(self.0 / 100)
        } else {
            to.serialize_f64(self.percent())
        }
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        FractionOrText::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl de::Visitor<'_> for Number {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a percentage from 0 to 100")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Share, E> {
                Share::try_from(number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Share, E> {
                Share::try_from(number).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Number)
    }
}

impl<const N: usize> TryFrom<[(&str, f64); N]> for Weights {
    type Error = String;

    /// Weights from percent, such as `[("blue", 99.5), ("green", 0.5)]`. Whether they add up is not asked.
    fn try_from(pools: [(&str, f64); N]) -> Result<Self, String> {
        let shares =
            pools.map(|(pool, percent)| Share::try_from(percent).map(|share| (pool.to_owned(), share)));
        shares.into_iter().collect::<Result<_, _>>().map(Self)
    }
}

impl Weights {
    /// These weights with `share` for `pool` of `route`; the rest is spread over the other pools in proportion to what they
    /// have now. Asking for the share that a pool has changes nothing.
    ///
    /// Where all of it was in whole percent, it stays so; otherwise the step is the finest that was used before or is asked for.
    /// A plan stays readable then, and a load balancer with coarse weights can still express it.
    ///
    /// # Errors
    /// A pool that the route does not have, or a rest that nothing says how to spread.
    pub fn with_share(&self, route: &str, pool: &str, share: Share) -> Result<Self, ProviderError> {
        if !self.0.contains_key(pool) {
            return Err(unknown_pool(route, pool, self.0.keys().map(String::as_str)));
        }
        let rest = Share(WHOLE - share.0);
        let others: BTreeMap<&str, u64> = self
            .0
            .iter()
            .filter(|(name, _)| *name != pool)
            .map(|(name, w)| (&**name, u64::from(w.0)))
            .collect();
        let refuse = |why: String| Err(ProviderError::terminal(codes::TRAFFIC, why));
        let mut dealt: BTreeMap<&str, Share> = if rest.is_none() || others.values().any(|w| *w > 0) {
            let step = self.0.values().fold(gcd(100, share.0), |step, w| gcd(step, w.0));
            deal(u64::from(rest.0 / step), &others)
                .into_iter()
                // At most the rest, which is a u32.
                .map(|(name, steps)| (name, Share(u32::try_from(steps).unwrap_or(0) * step)))
                .collect()
        } else {
            match others.len() {
                0 => {
                    return refuse(format!("{pool} is the only pool of {route} and must have 100%"));
                }
                1 => others.keys().map(|name| (*name, rest)).collect(),
                _ => {
                    return refuse(format!(
                        "the {rest} that {pool} of {route} would lose has nowhere to go: no other pool has \
                         weight"
                    ))
                    .map_err(|e| {
                        let names: Vec<String> = self.0.keys().map(|name| format!("{name}: …")).collect();
                        e.hint(format!(
                            "set all pools: traffic::set(\"{route}\", #{{ {} }})",
                            names.join(", ")
                        ))
                    });
                }
            }
        };
        dealt.insert(pool, share);
        Ok(Self(dealt.into_iter().map(|(name, w)| (name.to_owned(), w)).collect()))
    }

    /// Shares from weights on any scale, as a provider reads them, to the nearest 0.01 %. A pool that has any weight gets at
    /// least that: 0 means that it gets no traffic.
    ///
    /// `None`: no pool has weight, or more pools have weight than there are steps of 0.01 %.
    pub fn normalized(raw: &BTreeMap<&str, u64>) -> Option<Self> {
        let dealt = apportion(u64::from(WHOLE), raw)?;
        // At most the whole, which is a u32.
        let share = |n: u64| u32::try_from(n).map_or(Share::ALL, Share);
        Some(Self(dealt.into_iter().map(|(name, w)| (name.to_owned(), share(w))).collect()))
    }

    /// The sum of all shares in percent. Nothing is lost in adding.
    pub fn total_percent(&self) -> f64 {
        percent(self.total())
    }

    fn total(&self) -> u64 {
        self.0.values().map(|w| u64::from(w.0)).sum()
    }

    /// Whether the shares add up to exactly 100 %.
    pub fn is_whole(&self) -> bool {
        self.total() == u64::from(WHOLE)
    }

    /// The share of `pool`; none for one that is not named.
    pub fn share(&self, pool: &str) -> Share {
        self.0.get(pool).copied().unwrap_or_default()
    }

    /// Checks weights that a provider is asked to set on a route with these pools.
    ///
    /// # Errors
    /// A pool that the route does not have, or a sum other than 100 %.
    pub fn check<'a>(
        &self,
        route: &str,
        pools: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Result<(), ProviderError> {
        for pool in self.0.keys() {
            if !pools.clone().into_iter().any(|known| known == pool) {
                return Err(unknown_pool(route, pool, pools));
            }
        }
        if !self.is_whole() {
            return Err(ProviderError::terminal(
                codes::TRAFFIC,
                format!("the weights of {route} add up to {}%, not to 100%: {self}", self.total_percent()),
            ));
        }
        Ok(())
    }
}

/// The greatest common divisor. That of anything and 0 is the other.
const fn gcd(a: u32, b: u32) -> u32 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    x
}

/// Deals `whole` out in proportion to `weights`: everybody gets the share rounded down, what is left goes to the largest
/// remainders, the first by name where they are equal. All weights 0: everybody gets 0.
fn deal<'a>(whole: u64, weights: &BTreeMap<&'a str, u64>) -> BTreeMap<&'a str, u64> {
    let total: u128 = weights.values().map(|w| u128::from(*w)).sum();
    if total == 0 {
        return weights.keys().map(|name| (*name, 0)).collect();
    }
    let exact = |w: u64| u128::from(w) * u128::from(whole);
    let mut dealt: BTreeMap<&str, u64> = weights
        .iter()
        // At most `whole`, which is a u64.
        .map(|(name, w)| (*name, u64::try_from(exact(*w) / total).unwrap_or(whole)))
        .collect();
    let mut by_remainder: Vec<&str> = weights.keys().copied().collect();
    by_remainder.sort_by_key(|name| std::cmp::Reverse(exact(weights[name]) % total));
    let left = whole - dealt.values().sum::<u64>();
    for (name, _) in by_remainder.into_iter().zip(0..left) {
        *dealt.entry(name).or_default() += 1;
    }
    dealt
}

/// Deals `whole` out in proportion to `weights`; whoever has any weight gets at least 1.
///
/// `None`: nobody has weight, or more have than there is to deal.
pub fn apportion<'a>(whole: u64, weights: &BTreeMap<&'a str, u64>) -> Option<BTreeMap<&'a str, u64>> {
    let with_weight = weights.values().filter(|w| **w > 0).count() as u64;
    if with_weight == 0 || with_weight > whole {
        return None;
    }
    let mut dealt = deal(whole, weights);
    while let Some((poor, _)) = dealt.iter().find(|(name, n)| **n == 0 && weights[*name] > 0) {
        let poor = *poor;
        let (rich, n) = dealt.iter().max_by_key(|(_, n)| **n)?;
        let (rich, n) = (*rich, *n);
        dealt.insert(rich, n - 1);
        dealt.insert(poor, 1);
    }
    Some(dealt)
}

/// The error for a pool that `route` does not have.
pub fn unknown_pool<'a>(
    route: &str,
    pool: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> ProviderError {
    let error = ProviderError::terminal(
        runtime_codes::UNKNOWN_TARGET,
        format!("{route} has no pool named \"{pool}\""),
    );
    match did_you_mean(pool, known.clone()) {
        Some(close) => error.hint(format!("did you mean \"{close}\"?")),
        None => {
            let known: Vec<&str> = known.into_iter().collect();
            error.hint(format!("pools of {route}: {}", known.join(", ")))
        }
    }
}

/// `3 connections still on blue`.
pub fn still_open(open: u64, pool: &str) -> String {
    format!("{open} connection{} still on {pool}", if open == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights<const N: usize>(pools: [(&str, f64); N]) -> Weights {
        Weights::try_from(pools).expect("shares")
    }

    fn share(percent: f64) -> Share {
        Share::try_from(percent).expect("a share")
    }

    /// Weights of up to five pools that add up to 100 %, in steps of 0.01 %.
    fn any_weights(random: &mut fastrand::Rng) -> Weights {
        let raw: Vec<(String, u64)> = (0..random.usize(1..=5))
            .map(|i| (format!("p{i}"), if random.bool() { random.u64(0..1000) } else { 0 }))
            .collect();
        let raw: BTreeMap<&str, u64> = raw.iter().map(|(name, w)| (&**name, *w)).collect();
        Weights::normalized(&raw).unwrap_or_else(|| weights([("p0", 100.0)]))
    }

    #[test]
    fn a_shift_always_adds_up_to_100_and_asking_twice_changes_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut shifted = 0;
        for _ in 0..20_000 {
            let now = any_weights(&mut random);
            assert!(now.is_whole(), "{now}");
            let pool = format!("p{}", random.usize(0..now.0.len()));
            // Everyday steps: whole percent, halves, tenths, and the finest.
            let step = *random.choice([100, 50, 10, 1].iter()).expect("not empty");
            let percent = Share::from_basis_points(step * random.u32(0..=WHOLE / step)).expect("in range");
            let Ok(then) = now.with_share("web", &pool, percent) else {
                let others = now.0.iter().filter(|(name, _)| **name != pool);
                assert!(
                    others.clone().all(|(_, w)| w.is_none()) && others.count() != 1,
                    "{now} {pool} {percent}"
                );
                continue;
            };
            shifted += 1;
            assert!(then.is_whole(), "{now} -> {then}");
            assert_eq!(then.share(&pool), percent, "{now} -> {then}");
            assert_eq!(then.0.len(), now.0.len(), "{now} -> {then}");
            assert_eq!(then.with_share("web", &pool, percent).as_ref(), Ok(&then), "{now} -> {then}");
            // The order of the others by weight does not change.
            for (a, w) in now.0.iter().filter(|(name, _)| **name != pool) {
                for (b, v) in now.0.iter().filter(|(name, _)| **name != pool) {
                    assert!(w <= v || then.share(a) >= then.share(b), "{now} -> {then}");
                }
            }
        }
        assert!(shifted > 10_000, "{shifted}");
    }

    #[test]
    fn the_rest_is_spread_in_proportion() {
        let now = weights([("a", 60.0), ("b", 30.0), ("c", 10.0)]);
        assert_eq!(
            now.with_share("web", "c", share(40.0)),
            Ok(weights([("a", 40.0), ("b", 20.0), ("c", 40.0)]))
        );
        let now = weights([("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 97.0)]);
        assert_eq!(
            now.with_share("web", "d", share(0.0)),
            Ok(weights([("a", 34.0), ("b", 33.0), ("c", 33.0), ("d", 0.0)]))
        );
    }

    #[test]
    fn one_other_pool_gets_the_rest_and_several_without_weight_are_refused() {
        let now = weights([("blue", 0.0), ("green", 100.0)]);
        assert_eq!(
            now.with_share("web", "green", share(25.0)),
            Ok(weights([("blue", 75.0), ("green", 25.0)]))
        );
        let now = weights([("blue", 0.0), ("green", 100.0), ("red", 0.0)]);
        let error = now.with_share("web", "green", share(25.0)).expect_err("nowhere to go");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(
            error.hints[0].contains("traffic::set(\"web\", #{ blue: …, green: …, red: … })"),
            "{error:?}"
        );
        assert!(now.with_share("web", "green", Share::ALL).is_ok());
        let alone = weights([("blue", 100.0)]);
        let error = alone.with_share("web", "blue", share(25.0)).expect_err("the only pool");
        assert!(error.message.contains("only pool of web"), "{error}");
    }

    #[test]
    fn an_unknown_pool_is_answered_with_the_closest_name() {
        let now = weights([("blue", 95.0), ("green", 5.0)]);
        let error = now.with_share("web", "gren", share(25.0)).expect_err("unknown");
        assert_eq!(error.message, "web has no pool named \"gren\"");
        assert_eq!(error.hints, ["did you mean \"green\"?"]);
        let error = now.with_share("web", "x", share(25.0)).expect_err("unknown");
        assert_eq!(error.hints, ["pools of web: blue, green"]);
    }

    #[test]
    fn a_pool_with_any_weight_never_reads_as_0() {
        let read = |raw: &[(&'static str, u64)]| Weights::normalized(&raw.iter().copied().collect());
        assert_eq!(
            read(&[("blue", 10_000), ("green", 1)]),
            Some(weights([("blue", 99.99), ("green", 0.01)]))
        );
        assert_eq!(read(&[("blue", 1), ("green", 2)]), Some(weights([("blue", 33.33), ("green", 66.67)])));
        assert_eq!(read(&[("blue", 256), ("green", 0)]), Some(weights([("blue", 100.0), ("green", 0.0)])));
        assert_eq!(read(&[("blue", 0), ("green", 0)]), None);
    }

    #[test]
    fn a_pool_whose_weight_is_lost_in_rounding_reads_as_the_smallest_step() {
        let read = Weights::normalized(&BTreeMap::from([("blue", 1_000_000), ("green", 1)]));
        assert_eq!(read, Some(weights([("blue", 99.99), ("green", 0.01)])));
    }

    #[test]
    fn the_rest_is_dealt_in_the_finest_step_that_is_in_use() {
        let thirds = weights([("a", 20.0), ("b", 10.0), ("c", 70.0)]);
        for (asked, then) in [
            (50.0, "a 33, b 17, c 50"),
            (99.5, "a 0.5, b 0, c 99.5"),
            (99.9, "a 0.1, b 0, c 99.9"),
            (47.5, "a 35, b 17.5, c 47.5"),
            (33.33, "a 44.45, b 22.22, c 33.33"),
        ] {
            assert_eq!(thirds.with_share("web", "c", share(asked)).expect("shifted").to_string(), then);
        }
    }

    #[test]
    fn shares_read_numbers_and_percentages_and_refuse_the_rest() {
        let read = |json: serde_json::Value| serde_json::from_value::<Share>(json).map_err(|e| e.to_string());
        for (json, percent) in [
            (serde_json::json!(25), 25.0),
            ("25%".into(), 25.0),
            (25.0.into(), 25.0),
            (0.5.into(), 0.5),
            ("0.5%".into(), 0.5),
            (" 0.1 % ".into(), 0.1),
            ("99.99".into(), 99.99),
            ((0.1 + 0.2).into(), 0.3),
            (0.into(), 0.0),
        ] {
            assert_eq!(read(json), Ok(share(percent)));
        }
        for (wrong, why) in [
            (serde_json::json!(150), "150 is not a percentage from 0 to 100"),
            ((-1).into(), "-1 is not a percentage from 0 to 100"),
            (100.5.into(), "100.5 is not a percentage from 0 to 100"),
            ("-5%".into(), "-5 is not a percentage from 0 to 100"),
            (0.001.into(), "0.001% is too fine: the smallest step is 0.01%"),
            ("33.333%".into(), "33.333% is too fine: the smallest step is 0.01%"),
            ("half".into(), r#""half" is not a percentage from 0 to 100, such as "25%" or "0.5%""#),
            ("1e1".into(), r#""1e1" is not a percentage from 0 to 100, such as "25%" or "0.5%""#),
            ("inf".into(), r#""inf" is not a percentage from 0 to 100, such as "25%" or "0.5%""#),
        ] {
            assert_eq!(read(wrong), Err(why.to_owned()));
        }
        assert!(read(true.into()).expect_err("not a number").contains("expected a percentage from 0 to 100"));
    }

    #[test]
    fn every_share_has_one_form_in_json_and_comes_back_from_it() {
        for n in 0..=WHOLE {
            let share = Share::from_basis_points(n).expect("in range");
            let json = serde_json::to_string(&share).expect("json");
            assert_eq!(json.contains('.'), n % 100 != 0, "{json}");
            assert_eq!(serde_json::from_str::<Share>(&json).ok(), Some(share), "{json}");
            assert_eq!(share.to_string().parse(), Ok(share));
            // What a script would write for it is the same number.
            assert_eq!(json.parse(), Ok(share.percent()));
        }
        assert_eq!(Share::from_basis_points(WHOLE + 1), None);
    }
}
