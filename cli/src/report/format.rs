//! How durations, moments, counts and foreign text are written.

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use contraflow_runtime::{quantity::Span, secret::SecretText};
use jiff::Timestamp;
use serde_json::Value;

/// A duration in milliseconds for people: exact below a second, whole seconds above.
pub(crate) fn span(ms: u64) -> String {
    let ms = if ms < 1000 { ms } else { (ms + 500) / 1000 * 1000 };
    Span::millis(ms).to_string()
}

/// What is left of a wait, in whole seconds, rounded up so that it ends with `1s` and not with `0s`.
pub(crate) fn left(time: Duration) -> String {
    let secs = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    Span::secs(secs).to_string()
}

/// How long ago `then` was, in its largest unit: `3m ago`, `2d ago`.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    let secs = now.as_second() - then.as_second();
    let size = match secs.unsigned_abs() {
        0..5 => return "just now".to_owned(),
        s @ 5..60 => format!("{s}s"),
        s @ 60..3600 => format!("{}m", s / 60),
        s @ 3600..86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    };
    if secs < 0 { format!("in {size}") } else { format!("{size} ago") }
}

/// The beginning of a hash, by which people know it.
pub(crate) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// `1 change`, `2 changes`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// Most characters of a parameter that are shown.
const LONGEST_PARAMETER: usize = 100;

/// Parameters of a run in one line: `service = web, hold = 10s`. Long ones are cut off; the journal has all of them.
pub(crate) fn params(params: &Value) -> String {
    let Value::Object(map) = params else { return String::new() };
    let shown = |value: &Value| {
        let text = self::value(value);
        match text.char_indices().nth(LONGEST_PARAMETER) {
            Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.chars().count()),
            None => text,
        }
    };
    map.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect::<Vec<_>>().join(", ")
}

/// A JSON value for people. A secret shows its name.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.contains([',', '"', ' ', '\n']) => text.clone(),
        Value::Object(map) if map.len() == 1 && map.contains_key("$secret") => {
            serde_json::from_value::<SecretText>(value.clone())
                .map_or_else(|_| "<secret>".to_owned(), |secret| secret.to_string())
        }
        other => other.to_string(),
    }
}

/// Text that came from outside, safe to print: without escape sequences and control characters, which could otherwise
/// rewrite what a person sees. Line breaks stay; of a line that was redrawn with `\r`, its last state stays.
pub(crate) fn clean(text: &str) -> String {
    let text = text.trim_end();
    if !text.contains(|c: char| (c.is_control() && c != '\n') || turns_text(c)) {
        return text.to_owned();
    }
    let mut cleaned = String::with_capacity(text.len());
    for (i, line) in text.split('\n').enumerate() {
        if i > 0 {
            cleaned.push('\n');
        }
        let line = line.trim_end_matches('\r');
        clean_line(line.rsplit_once('\r').map_or(line, |(_, last)| last), &mut cleaned);
    }
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

fn clean_line(line: &str, into: &mut String) {
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // Control sequence (ECMA-48 5.4): parameters, then one final byte from @ to ~.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // Strings (OSC, DCS, SOS, PM, APC) end with BEL or ESC \.
                Some(']' | 'P' | 'X' | '^' | '_') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                // Intermediate bytes, such as the ( of a character set, are followed by one more.
                Some(' '..='/') => {
                    chars.next();
                }
                _ => {}
            },
            '\t' => into.push_str("    "),
            c if c.is_control() || turns_text(c) => {
                let _ = write!(into, "{}", c.escape_unicode());
            }
            c => into.push(c),
        }
    }
}

/// What is about to be written, with the colours of this program and nothing else that a terminal would act on. Foreign text has been
/// cleaned where it came in; whatever comes through all the same is shown here, not done. JSON stays what it is.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let acts = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns_text(c);
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(acts) {
        safe.push_str(&rest[..at]);
        rest = &rest[at..];
        let colour = colour(rest);
        if colour > 0 {
            safe.push_str(&rest[..colour]);
            rest = &rest[colour..];
        } else if let Some(c) = rest.chars().next() {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
            rest = &rest[c.len_utf8()..];
        }
    }
    safe.push_str(rest);
    Cow::Owned(safe)
}

/// Bytes of the sequence that sets a colour (ECMA-48 8.3.117, SGR) at the beginning of a text; 0 if there is none.
fn colour(text: &str) -> usize {
    const LONGEST: usize = 20;
    let Some(parameters) = text.strip_prefix("\u{1b}[") else { return 0 };
    match parameters.find(|c: char| !c.is_ascii_digit() && c != ';') {
        Some(end) if end <= LONGEST && parameters[end..].starts_with('m') => end + 3,
        _ => 0,
    }
}

pub(crate) use contraflow_runtime::quantity::moment;

/// A text of many lines with its characters one for one, those that would do something to a terminal replaced.
pub(crate) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            '\r' => ' ',
            c if c.is_control() || turns_text(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

/// Bidirectional controls (Unicode UAX #9) make a terminal show characters in another order than they stand in.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_exact_below_a_second_and_whole_seconds_above() {
        let shown: Vec<String> = [0, 12, 999, 1000, 1499, 1500, 59_600, 3_723_400].map(span).into();
        assert_eq!(shown, ["0s", "12ms", "999ms", "1s", "1s", "2s", "1m", "1h2m3s"]);
    }

    #[test]
    fn what_is_left_is_rounded_up() {
        assert_eq!(left(Duration::from_millis(1)), "1s");
        assert_eq!(left(Duration::from_millis(61_000)), "1m1s");
        assert_eq!(left(Duration::ZERO), "0s");
    }

    #[test]
    fn moments_are_relative_to_now() {
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().expect("time");
        let at = |text: &str| ago(now, text.parse().expect("time"));
        assert_eq!(at("2026-03-01T11:59:58Z"), "just now");
        assert_eq!(at("2026-03-01T11:59:15Z"), "45s ago");
        assert_eq!(at("2026-03-01T11:00:30Z"), "59m ago");
        assert_eq!(at("2026-02-28T13:00:00Z"), "23h ago");
        assert_eq!(at("2026-02-01T12:00:00Z"), "28d ago");
        assert_eq!(at("2026-03-01T12:03:00Z"), "in 3m");
    }

    #[test]
    fn parameters_read_like_an_invocation_and_hide_secrets() {
        let shown = params(&json!({
            "hold": "10s", "note": "two words", "empty": "", "n": 3,
            "token": {"$secret": [{"name": "deploy-token"}]},
        }));
        assert!(shown.contains("hold = 10s") && shown.contains("n = 3"), "{shown}");
        assert!(shown.contains("note = \"two words\"") && shown.contains("empty = \"\""), "{shown}");
        assert!(shown.contains("token = <secret deploy-token>"), "{shown}");
        let long = params(&json!({ "a": "ü".repeat(1000), "b": "x".repeat(100) }));
        assert_eq!(long, format!("a = {}… (1000 characters), b = {}", "ü".repeat(100), "x".repeat(100)));
    }

    #[test]
    fn nothing_but_colours_of_all_that_is_written_is_acted_on() {
        let coloured = "\u{1b}[32mok\u{1b}[0m\n\tand {\"a\":\"\\u001b\"}";
        assert_eq!(harmless(coloured), coloured);
        assert_eq!(harmless("\u{1b}[2J\u{1b}]0;title\u{7}"), "\\u001b[2J\\u001b]0;title\\u0007");
        assert_eq!(harmless("a\rb \u{9b}2J \u{7f} \u{202e}x"), "a\\u000db \\u009b2J \\u007f \\u202ex");
        assert_eq!(harmless("\u{1b}"), "\\u001b");
        let json = serde_json::json!({ "a": "\u{9b}2J\u{202e}" }).to_string();
        let read: Value = serde_json::from_str(&harmless(&json)).expect("is still JSON");
        assert_eq!(read["a"], "\u{9b}2J\u{202e}");
    }

    #[test]
    fn moments_have_no_fractions_of_seconds() {
        let at: Timestamp = "2026-03-01T12:00:00.123456789Z".parse().expect("time");
        assert_eq!(moment(at), "2026-03-01T12:00:00Z");
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor_or_change_colours() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(clean("\u{1b}]0;title\u{7}text"), "text");
        assert_eq!(clean("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\"), "link");
        assert_eq!(clean("\u{1b}(Bascii"), "ascii");
        assert_eq!(clean("10%\r50%\r100%"), "100%");
        assert_eq!(clean("windows\r\nlines\r\n"), "windows\nlines");
        assert_eq!(clean("bell\u{7} and \u{9b}2J"), "bell\\u{7} and \\u{9b}2J");
        assert_eq!(clean("drop \u{202e}elbat"), "drop \\u{202e}elbat");
        assert_eq!(clean("a\tb\n"), "a    b");
        assert_eq!(clean("ends in \u{1b}["), "ends in");
    }
}
