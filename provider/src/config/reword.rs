//! Serde's errors in words for people.

use crate::error::did_you_mean;

/// The text of any serde error for people who have never seen a Rust type, and the name that was probably meant.
pub fn reword_text(text: &str) -> (String, Option<String>) {
    let quoted = |text: &str| text.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let mut message = text.to_owned();
    for (rust, plain) in [
        ("integer `", "the number `"),
        ("floating point `", "the number `"),
        ("string \"", "the text \""),
        ("boolean `", "`"),
        ("unit value", "nothing"),
        ("null", "nothing"),
        ("a sequence", "an array"),
        ("sequence", "an array"),
        ("struct variant", "a map"),
        ("unit variant", "a name alone"),
        ("newtype variant", "a name with a value"),
        ("tuple variant", "a name with an array"),
        ("newtype struct", "a value"),
        ("unit struct", "nothing"),
        ("byte array", "bytes"),
        ("map with a single key", "a map with one key"),
        ("Option value", "a value or nothing"),
        ("a borrowed string", "text"),
        ("a string", "text"),
        ("i64", "a whole number"),
        ("i32", "a whole number"),
        ("u64", "a whole number, 0 or more"),
        ("u32", "a whole number, 0 or more"),
        ("u16", "a whole number from 0 to 65535"),
        ("u8", "a whole number from 0 to 255"),
        ("usize", "a whole number, 0 or more"),
        ("f64", "a number"),
    ] {
        message = message.replace(rust, plain);
    }
    // `expected struct Options` names a Rust type.
    if let Some((before, after)) = message.split_once("expected struct ") {
        let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
        message = format!("{before}expected a map{}{rest}", if rest.is_empty() { "" } else { " " });
    }
    // So do `expected enum Kind`, `expected internally tagged enum Kind`, `expected tuple struct Pair with 2 elements`.
    for (rust, plain) in [
        ("expected internally tagged enum ", "expected a map"),
        ("expected adjacently tagged enum ", "expected a map"),
        ("expected enum ", "expected one of the accepted forms"),
        ("expected tuple struct ", "expected an array"),
    ] {
        if let Some((before, after)) = message.split_once(rust) {
            let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
            message = format!("{before}{plain}{}{rest}", if rest.is_empty() { "" } else { " " });
        }
    }
    if message.starts_with("data did not match any variant") {
        "not one of the accepted forms".clone_into(&mut message);
    }
    let names = quoted(text);
    let close = (text.starts_with("unknown field") || text.starts_with("unknown variant"))
        .then(|| names.split_first())
        .flatten()
        .and_then(|(wrong, known)| did_you_mean(wrong, known.iter().map(String::as_str)))
        .map(str::to_owned);
    message = message.replace("unknown variant", "unknown value");
    (message, close)
}
