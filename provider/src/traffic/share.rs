//! Shares of traffic in whole percent, and how they are dealt out so that they always add up to 100.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::Weights;
use crate::{
    codes,
    error::{codes as runtime_codes, did_you_mean},
    provider::ProviderError,
    schema::{JsonSchema, NumberOrText, Schema, SchemaGenerator},
};

/// A whole number of percent, 0 to 100. Scripts write `25` or `"25%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Share(u32);

impl Share {
    /// All of it.
    pub const ALL: Self = Self(100);

    /// The number of percent.
    pub const fn percent(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Share {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        u32::try_from(number).ok().filter(|n| *n <= 100).map(Self).ok_or_else(|| {
            format!("{number} is no share of traffic: want a whole number of percent from 0 to 100")
        })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
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
        NumberOrText::json_schema(generator)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Number;
        impl de::Visitor<'_> for Number {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of percent from 0 to 100")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Share, E> {
                Share::try_from(number).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Share, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Share, E> {
                if number.fract() == 0.0 && number.abs() <= 1e9 {
                    // In range, so nothing is cut off.
                    return self.visit_i64(number as i64);
                }
                Err(E::custom(format!(
                    "{number} is no share of traffic: want a whole number of percent from 0 to 100"
                )))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Share, E> {
                let number = text.trim();
                match number.strip_suffix('%').unwrap_or(number).trim().parse() {
                    Ok(number) => self.visit_i64(number),
                    Err(_) => Err(E::custom(format!(
                        "\"{text}\" is no share of traffic: want a whole number of percent from 0 to 100"
                    ))),
                }
            }
        }
        from.deserialize_any(Number)
    }
}

impl Weights {
    /// These weights with `share` for `pool` of `route`; the rest is spread over the other pools in proportion to what they
    /// have now. Asking for the share that a pool has changes nothing.
    ///
    /// # Errors
    /// A pool that the route does not have, or a rest that nothing says how to spread.
    pub fn with_share(&self, route: &str, pool: &str, share: Share) -> Result<Self, ProviderError> {
        if !self.0.contains_key(pool) {
            return Err(unknown_pool(route, pool, self.0.keys().map(String::as_str)));
        }
        let rest = 100 - share.percent();
        let others: BTreeMap<&str, u64> = self
            .0
            .iter()
            .filter(|(name, _)| *name != pool)
            .map(|(name, w)| (&**name, u64::from(*w)))
            .collect();
        let refuse = |why: String| Err(ProviderError::terminal(codes::TRAFFIC, why));
        let mut dealt = if rest == 0 || others.values().any(|w| *w > 0) {
            deal(rest, &others)
        } else {
            match others.len() {
                0 => {
                    return refuse(format!("{pool} is the only pool of {route} and has to have 100 percent"));
                }
                1 => others.keys().map(|name| (*name, rest)).collect(),
                _ => {
                    return refuse(format!(
                        "the {rest} percent that {pool} of {route} would give up have nowhere to go: no other pool has weight"
                    ))
                    .map_err(|e| {
                        let names: Vec<String> = self.0.keys().map(|name| format!("{name}: …")).collect();
                        e.hint(format!(
                            "say it for all pools: traffic::set(\"{route}\", #{{ {} }})",
                            names.join(", ")
                        ))
                    });
                }
            }
        };
        dealt.insert(pool, share.percent());
        Ok(Self(dealt.into_iter().map(|(name, w)| (name.to_owned(), w)).collect()))
    }

    /// Percent from weights on any scale, as a provider reads them. A pool that has any weight gets at least 1 percent: 0
    /// means that it gets no traffic.
    ///
    /// `None`: no pool has weight, or there are more pools with weight than percent.
    pub fn normalized(raw: &BTreeMap<&str, u64>) -> Option<Self> {
        let with_weight = raw.values().filter(|w| **w > 0).count();
        if with_weight == 0 || with_weight > 100 {
            return None;
        }
        let mut dealt = deal(100, raw);
        while let Some((poor, _)) = dealt.iter().find(|(name, share)| **share == 0 && raw[*name] > 0) {
            let poor = *poor;
            let (rich, share) = dealt.iter().max_by_key(|(_, share)| **share)?;
            let (rich, share) = (*rich, *share);
            dealt.insert(rich, share - 1);
            dealt.insert(poor, 1);
        }
        Some(Self(dealt.into_iter().map(|(name, w)| (name.to_owned(), w)).collect()))
    }

    /// The sum of all shares.
    pub fn total(&self) -> u64 {
        self.0.values().map(|w| u64::from(*w)).sum()
    }

    /// The share of `pool`; 0 for one that is not named.
    pub fn share(&self, pool: &str) -> u32 {
        self.0.get(pool).copied().unwrap_or(0)
    }

    /// Checks weights that a provider is asked to set on a route with these pools.
    ///
    /// # Errors
    /// A pool that the route does not have, or a sum other than 100.
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
        if self.total() != 100 {
            return Err(ProviderError::terminal(
                codes::TRAFFIC,
                format!("the weights of {route} add up to {}, not to 100: {self}", self.total()),
            ));
        }
        Ok(())
    }
}

/// Deals `whole` out in proportion to `weights`: everybody gets the share rounded down, what is left goes to the largest
/// remainders, the first by name where they are equal. All weights 0: everybody gets 0.
fn deal<'a>(whole: u32, weights: &BTreeMap<&'a str, u64>) -> BTreeMap<&'a str, u32> {
    let total: u128 = weights.values().map(|w| u128::from(*w)).sum();
    if total == 0 {
        return weights.keys().map(|name| (*name, 0)).collect();
    }
    let exact = |w: u64| u128::from(w) * u128::from(whole);
    let mut dealt: BTreeMap<&str, u32> = weights
        .iter()
        // At most `whole`, which is a u32.
        .map(|(name, w)| (*name, u32::try_from(exact(*w) / total).unwrap_or(whole)))
        .collect();
    let mut by_remainder: Vec<&str> = weights.keys().copied().collect();
    by_remainder.sort_by_key(|name| std::cmp::Reverse(exact(weights[name]) % total));
    let left = whole - dealt.values().sum::<u32>();
    for name in by_remainder.into_iter().take(left as usize) {
        *dealt.entry(name).or_default() += 1;
    }
    dealt
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

    fn weights(pools: &[(&str, u32)]) -> Weights {
        Weights(pools.iter().map(|(name, w)| ((*name).to_owned(), *w)).collect())
    }

    fn share(n: u32) -> Share {
        Share::try_from(i64::from(n)).expect("a share")
    }

    /// Weights of up to five pools that add up to 100.
    fn any_weights(random: &mut fastrand::Rng) -> Weights {
        let raw: Vec<(String, u64)> = (0..random.usize(1..=5))
            .map(|i| (format!("p{i}"), if random.bool() { random.u64(0..1000) } else { 0 }))
            .collect();
        let raw: BTreeMap<&str, u64> = raw.iter().map(|(name, w)| (&**name, *w)).collect();
        Weights::normalized(&raw).unwrap_or_else(|| Weights(BTreeMap::from([("p0".to_owned(), 100)])))
    }

    #[test]
    fn a_shift_always_adds_up_to_100_and_asking_twice_changes_nothing() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut shifted = 0;
        for _ in 0..20_000 {
            let now = any_weights(&mut random);
            assert_eq!(now.total(), 100, "{now}");
            let pool = format!("p{}", random.usize(0..now.0.len()));
            let percent = random.u32(0..=100);
            let Ok(then) = now.with_share("web", &pool, share(percent)) else {
                let others = now.0.iter().filter(|(name, _)| **name != pool);
                assert!(
                    others.clone().all(|(_, w)| *w == 0) && others.count() != 1,
                    "{now} {pool} {percent}"
                );
                continue;
            };
            shifted += 1;
            assert_eq!(then.total(), 100, "{now} -> {then}");
            assert_eq!(then.share(&pool), percent, "{now} -> {then}");
            assert_eq!(then.0.len(), now.0.len(), "{now} -> {then}");
            assert_eq!(then.with_share("web", &pool, share(percent)).as_ref(), Ok(&then), "{now} -> {then}");
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
        let now = weights(&[("a", 60), ("b", 30), ("c", 10)]);
        assert_eq!(now.with_share("web", "c", share(40)), Ok(weights(&[("a", 40), ("b", 20), ("c", 40)])));
        let now = weights(&[("a", 1), ("b", 1), ("c", 1), ("d", 97)]);
        assert_eq!(
            now.with_share("web", "d", share(0)),
            Ok(weights(&[("a", 34), ("b", 33), ("c", 33), ("d", 0)]))
        );
    }

    #[test]
    fn one_other_pool_gets_the_rest_and_several_without_weight_are_refused() {
        let now = weights(&[("blue", 0), ("green", 100)]);
        assert_eq!(now.with_share("web", "green", share(25)), Ok(weights(&[("blue", 75), ("green", 25)])));
        let now = weights(&[("blue", 0), ("green", 100), ("red", 0)]);
        let error = now.with_share("web", "green", share(25)).expect_err("nowhere to go");
        assert_eq!(error.code.as_str(), codes::TRAFFIC);
        assert!(
            error.hints[0].contains("traffic::set(\"web\", #{ blue: …, green: …, red: … })"),
            "{error:?}"
        );
        assert!(now.with_share("web", "green", Share::ALL).is_ok());
        let alone = weights(&[("blue", 100)]);
        let error = alone.with_share("web", "blue", share(25)).expect_err("the only pool");
        assert!(error.message.contains("only pool of web"), "{error}");
    }

    #[test]
    fn an_unknown_pool_is_answered_with_the_closest_name() {
        let now = weights(&[("blue", 95), ("green", 5)]);
        let error = now.with_share("web", "gren", share(25)).expect_err("unknown");
        assert_eq!(error.message, "web has no pool named \"gren\"");
        assert_eq!(error.hints, ["did you mean \"green\"?"]);
        let error = now.with_share("web", "x", share(25)).expect_err("unknown");
        assert_eq!(error.hints, ["pools of web: blue, green"]);
    }

    #[test]
    fn a_pool_with_any_weight_never_reads_as_0() {
        let read = |raw: &[(&'static str, u64)]| Weights::normalized(&raw.iter().copied().collect());
        assert_eq!(read(&[("blue", 10_000), ("green", 1)]), Some(weights(&[("blue", 99), ("green", 1)])));
        assert_eq!(read(&[("blue", 1), ("green", 2)]), Some(weights(&[("blue", 33), ("green", 67)])));
        assert_eq!(read(&[("blue", 256), ("green", 0)]), Some(weights(&[("blue", 100), ("green", 0)])));
        assert_eq!(read(&[("blue", 0), ("green", 0)]), None);
    }

    #[test]
    fn shares_read_numbers_and_percentages_and_refuse_the_rest() {
        let read = |json: serde_json::Value| serde_json::from_value::<Share>(json).map_err(|e| e.to_string());
        assert_eq!(read(25.into()), Ok(share(25)));
        assert_eq!(read("25%".into()), Ok(share(25)));
        assert_eq!(read(25.0.into()), Ok(share(25)));
        for wrong in [serde_json::json!(101), (-1).into(), 2.5.into(), "half".into(), "0.5%".into()] {
            let error = read(wrong).expect_err("not a share");
            assert!(error.contains("want a whole number of percent from 0 to 100"), "{error}");
        }
        assert!(read(true.into()).expect_err("not a number").contains("expected a whole number of percent"));
    }
}
