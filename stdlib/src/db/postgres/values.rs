//! PostgreSQL's values as JSON.
//!
//! The binary forms are those of the `…_send` functions in the server's `src/backend/utils/adt`. Object identifiers of built-in
//! types never change: `src/include/catalog/pg_type.dat`.

use jiff::{Timestamp, civil, tz::TimeZone};
use serde_json::{Number, Value};
use sqlx::postgres::{PgTypeInfo, PgTypeKind};

/// Seconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
const EPOCH: i64 = 946_684_800;

/// A value of a type as JSON. `None`: the type cannot be represented in a script, or the bytes are not of the type.
pub(super) fn read(kind: &PgTypeInfo, bytes: &[u8]) -> Option<Value> {
    match kind.kind() {
        PgTypeKind::Enum(_) => return text(bytes),
        PgTypeKind::Domain(base) => return read(base, bytes),
        PgTypeKind::Array(element) => return array(element, bytes),
        _ => {}
    }
    match kind.oid()?.0 {
        16 => Some(Value::Bool(*bytes.first()? != 0)),
        20 => Some(i64::from_be_bytes(fixed(bytes)?).into()),
        21 => Some(i16::from_be_bytes(fixed(bytes)?).into()),
        23 => Some(i32::from_be_bytes(fixed(bytes)?).into()),
        26 => Some(u32::from_be_bytes(fixed(bytes)?).into()),
        // By its shortest decimal form: 0.1 is to be 0.1 and not 0.10000000149011612.
        700 => float(f32::from_be_bytes(fixed(bytes)?).to_string()),
        701 => float(f64::from_be_bytes(fixed(bytes)?).to_string()),
        1700 => numeric(bytes).map(Value::String),
        // "char", name, text, xml, unknown, bpchar, varchar.
        18 | 19 | 25 | 142 | 705 | 1042 | 1043 => text(bytes),
        114 => serde_json::from_slice(bytes).ok(),
        // jsonb has a version in front, which is 1.
        3802 => serde_json::from_slice(bytes.strip_prefix(&[1])?).ok(),
        1082 => date(i32::from_be_bytes(fixed(bytes)?)).map(Value::String),
        1083 => time(i64::from_be_bytes(fixed(bytes)?)).map(Value::String),
        1114 => moment(i64::from_be_bytes(fixed(bytes)?), false).map(Value::String),
        1184 => moment(i64::from_be_bytes(fixed(bytes)?), true).map(Value::String),
        1186 => interval(bytes).map(Value::String),
        2950 => uuid(bytes).map(Value::String),
        2278 => Some(Value::Null),
        _ if kind.to_string() == "citext" => text(bytes),
        _ => None,
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn text(bytes: &[u8]) -> Option<Value> {
    Some(Value::String(std::str::from_utf8(bytes).ok()?.to_owned()))
}

/// Infinity and NaN have no form in JSON and come as text.
fn float(shortest: String) -> Option<Value> {
    let value: f64 = shortest.parse().ok()?;
    Some(Number::from_f64(value).map_or(Value::String(shortest), Value::Number))
}

fn moment(micros: i64, in_utc: bool) -> Option<String> {
    match micros {
        i64::MAX => return Some("infinity".to_owned()),
        i64::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let at = Timestamp::from_microsecond(micros.checked_add(EPOCH * 1_000_000)?).ok()?;
    Some(if in_utc { at.to_string() } else { at.to_zoned(TimeZone::UTC).datetime().to_string() })
}

fn date(days: i32) -> Option<String> {
    match days {
        i32::MAX => return Some("infinity".to_owned()),
        i32::MIN => return Some("-infinity".to_owned()),
        _ => {}
    }
    let day = Timestamp::from_second(EPOCH + i64::from(days) * 86_400).ok()?;
    Some(day.to_zoned(TimeZone::UTC).date().to_string())
}

fn time(micros: i64) -> Option<String> {
    let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    if seconds == 86_400 {
        return Some("24:00:00".to_owned());
    }
    let part = |n: i64| i8::try_from(n).ok();
    let nanos = i32::try_from(micros * 1000).ok()?;
    let time = civil::Time::new(part(seconds / 3600)?, part(seconds / 60 % 60)?, part(seconds % 60)?, nanos);
    Some(time.ok()?.to_string())
}

/// ISO 8601, such as `P1Y2M3DT4H5M6.5S`: months, days and time are kept apart, as PostgreSQL does.
fn interval(bytes: &[u8]) -> Option<String> {
    let micros = i64::from_be_bytes(fixed(bytes.get(..8)?)?);
    let days = i32::from_be_bytes(fixed(bytes.get(8..12)?)?);
    let months = i32::from_be_bytes(fixed(bytes.get(12..)?)?);
    let mut text = "P".to_owned();
    for (n, unit) in [(months / 12, 'Y'), (months % 12, 'M'), (days, 'D')] {
        if n != 0 {
            text.push_str(&format!("{n}{unit}"));
        }
    }
    if micros != 0 {
        text.push('T');
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        for (n, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
            if n != 0 {
                text.push_str(&format!("{n}{unit}"));
            }
        }
        let rest = seconds % 60;
        if fraction != 0 {
            let sign = if micros < 0 { "-" } else { "" };
            let digits = format!("{:06}", fraction.abs());
            text.push_str(&format!("{sign}{}.{}S", rest.abs(), digits.trim_end_matches('0')));
        } else if rest != 0 {
            text.push_str(&format!("{rest}S"));
        }
    }
    Some(if text == "P" { "PT0S".to_owned() } else { text })
}

fn uuid(bytes: &[u8]) -> Option<String> {
    let all: [u8; 16] = fixed(bytes)?;
    let hex: String = all.iter().map(|b| format!("{b:02x}")).collect();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Digits to base 10000, with the weight of the first and the number of decimals to show.
fn numeric(bytes: &[u8]) -> Option<String> {
    let word = |i: usize| Some(u16::from_be_bytes(fixed(bytes.get(i * 2..i * 2 + 2)?)?));
    let signed = |i: usize| Some(i16::from_be_bytes(fixed(bytes.get(i * 2..i * 2 + 2)?)?));
    let (count, weight, sign, decimals) =
        (usize::from(word(0)?), signed(1)?, word(2)?, usize::from(word(3)?));
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let digits: Vec<u16> = (0..count).map(|i| word(4 + i)).collect::<Option<_>>()?;
    let group = |i: i32| usize::try_from(i).ok().and_then(|i| digits.get(i)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let mut text = if sign == 0x4000 { "-".to_owned() } else { String::new() };
    if weight < 0 {
        text.push('0');
    } else {
        text.push_str(&group(0).to_string());
        (1..=weight).for_each(|i| text.push_str(&format!("{:04}", group(i))));
    }
    if decimals > 0 {
        let groups = i32::try_from(decimals.div_ceil(4)).ok()?;
        let fraction: String = (1..=groups).map(|i| format!("{:04}", group(weight + i))).collect();
        text.push('.');
        text.push_str(fraction.get(..decimals)?);
    }
    Some(text)
}

/// Arrays of any number of dimensions, as arrays of arrays.
fn array(element: &PgTypeInfo, bytes: &[u8]) -> Option<Value> {
    let mut rest = bytes;
    let int = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_at_checked(4)?;
        *rest = tail;
        Some(i32::from_be_bytes(fixed(head)?))
    };
    let dimensions = usize::try_from(int(&mut rest)?).ok()?;
    // Whether there are nulls, and the type of the elements.
    int(&mut rest)?;
    int(&mut rest)?;
    let mut sizes = Vec::new();
    for _ in 0..dimensions {
        sizes.push(usize::try_from(int(&mut rest)?).ok()?);
        int(&mut rest)?;
    }
    let mut items = Vec::new();
    while !rest.is_empty() {
        match usize::try_from(int(&mut rest)?) {
            Ok(size) => {
                let (head, tail) = rest.split_at_checked(size)?;
                rest = tail;
                items.push(read(element, head)?);
            }
            Err(_) => items.push(Value::Null),
        }
    }
    for size in sizes.iter().skip(1).rev() {
        items = items.chunks((*size).max(1)).map(|row| Value::Array(row.to_vec())).collect();
    }
    Some(Value::Array(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|w| (*w as u16).to_be_bytes()).collect()
    }

    #[test]
    fn numerics_keep_every_digit() {
        for (bytes, text) in [
            (words(&[0, 0, 0, 0]), "0"),
            (words(&[1, 0, 0x4000, 0, 5]), "-5"),
            (words(&[2, 1, 0, 0, 1, 2345]), "12345"),
            (words(&[1, 1, 0, 0, 3]), "30000"),
            (words(&[2, 0, 0, 2, 12, 3400]), "12.34"),
            (words(&[1, -1, 0, 4, 5]), "0.0005"),
            (words(&[1, -2, 0, 6, 1200]), "0.000012"),
            (words(&[0, 0, 0xC000, 0]), "NaN"),
        ] {
            assert_eq!(numeric(&bytes).as_deref(), Some(text));
        }
        assert_eq!(numeric(&[0, 1]), None);
    }

    #[test]
    fn times_are_written_as_iso_8601() {
        assert_eq!(moment(0, true).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(moment(1_500_000, false).as_deref(), Some("2000-01-01T00:00:01.5"));
        assert_eq!(moment(i64::MAX, true).as_deref(), Some("infinity"));
        assert_eq!(date(-1).as_deref(), Some("1999-12-31"));
        assert_eq!(time(3_723_000_001).as_deref(), Some("01:02:03.000001"));
        let span = |micros: i64, days: i32, months: i32| {
            let mut bytes = micros.to_be_bytes().to_vec();
            bytes.extend(days.to_be_bytes());
            bytes.extend(months.to_be_bytes());
            interval(&bytes)
        };
        assert_eq!(span(14_706_500_000, 3, 14).as_deref(), Some("P1Y2M3DT4H5M6.5S"));
        assert_eq!(span(-500_000, 0, 0).as_deref(), Some("PT-0.5S"));
        assert_eq!(span(0, 0, 0).as_deref(), Some("PT0S"));
    }

    #[test]
    fn floats_are_what_they_were_written_as() {
        assert_eq!(float(0.1_f32.to_string()), Some(0.1.into()));
        assert_eq!(float(f64::NAN.to_string()), Some("NaN".into()));
    }
}
