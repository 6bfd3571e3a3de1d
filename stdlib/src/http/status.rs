//! Which HTTP statuses are accepted, as scripts write them: `200`, `[200, 404]`, `"2xx"`, `"200-399"`.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeSeq};

/// A set of statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// 200 to 299.
    pub fn success() -> Self {
        Self(vec![200..=299])
    }

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self::success()
    }
}

const WANT: &str =
    "a status such as 200, a class such as \"2xx\", a range such as \"200-399\", or an array of these";

fn one(status: u64) -> Result<RangeInclusive<u16>, String> {
    match u16::try_from(status) {
        Ok(status @ 100..=599) => Ok(status..=status),
        _ => Err(format!("{status} is not an HTTP status: expected a number from 100 to 599")),
    }
}

fn parse(text: &str) -> Result<RangeInclusive<u16>, String> {
    let bad = || format!("bad status \"{text}\": expected {WANT}");
    let trimmed = text.trim();
    if let Some(class) = trimmed.strip_suffix("xx").or_else(|| trimmed.strip_suffix("XX")) {
        return match class.parse::<u16>() {
            Ok(class @ 1..=5) => Ok(class * 100..=class * 100 + 99),
            _ => Err(bad()),
        };
    }
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| bad()).and_then(one);
    match trimmed.split_once('-') {
        None => number(trimmed),
        Some((from, to)) => {
            let (from, to) = (*number(from)?.start(), *number(to)?.end());
            if from <= to { Ok(from..=to) } else { Err(bad()) }
        }
    }
}

fn show(range: &RangeInclusive<u16>) -> String {
    let (from, to) = (*range.start(), *range.end());
    if from == to {
        from.to_string()
    } else if from.is_multiple_of(100) && to == from + 99 {
        format!("{}xx", from / 100)
    } else {
        format!("{from}-{to}")
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = self.0.iter().map(show).collect();
        f.write_str(&shown.join(" or "))
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(self.0.len()))?;
        for range in &self.0 {
            list.serialize_element(&show(range))?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> de::Visitor<'de> for Any {
            type Value = Statuses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANT)
            }

            fn visit_u64<E: de::Error>(self, status: u64) -> Result<Statuses, E> {
                one(status).map(|range| Statuses(vec![range])).map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, status: i64) -> Result<Statuses, E> {
                self.visit_u64(u64::try_from(status).unwrap_or_default())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Statuses, E> {
                parse(text).map(|range| Statuses(vec![range])).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Statuses, A::Error> {
                let mut all = Vec::new();
                while let Some(Statuses(ranges)) = items.next_element()? {
                    all.extend(ranges);
                }
                if all.is_empty() {
                    return Err(de::Error::custom(format!(
                        "an empty array accepts nothing: expected {WANT}"
                    )));
                }
                Ok(Statuses(all))
            }
        }
        from.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: Value) -> Result<Statuses, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn a_number_a_class_a_range_and_an_array_are_accepted() {
        for (written, shown, inside, outside) in [
            (json!(204), "204", 204, 200),
            (json!("204"), "204", 204, 205),
            (json!("2xx"), "2xx", 299, 300),
            (json!("200-399"), "200-399", 399, 400),
            (json!([200, "3xx"]), "200 or 3xx", 301, 201),
        ] {
            let statuses = read(written.clone()).expect("accepted");
            assert_eq!(statuses.to_string(), shown, "{written}");
            assert!(statuses.contains(inside) && !statuses.contains(outside), "{written}");
            let again = serde_json::to_value(&statuses).expect("json");
            assert_eq!(read(again).expect("reads back"), statuses, "{written}");
        }
    }

    #[test]
    fn what_is_no_status_is_refused_with_what_is_wanted() {
        for written in [
            json!(42),
            json!(-1),
            json!(600),
            json!("6xx"),
            json!("ok"),
            json!("300-200"),
            json!([]),
            json!(true),
        ] {
            let error = read(written.clone()).expect_err("refused");
            assert!(error.contains("want") || error.contains("expected"), "{written}: {error}");
        }
    }
}
