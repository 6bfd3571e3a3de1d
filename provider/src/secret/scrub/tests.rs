//! What is found, and that nothing of it is left.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

use super::*;

fn scrubber(secrets: &[(&str, &str)]) -> Scrubber {
    let mut scrubber = Scrubber::default();
    for (name, value) in secrets {
        scrubber.add(name, value);
    }
    scrubber
}

fn scrub(secrets: &[(&str, &str)], text: &str) -> String {
    scrubber(secrets).scrub(text, 0, text.len()).into_owned()
}

#[test]
fn a_secret_within_another_or_over_another_leaves_nothing_behind() {
    let secrets = [("short", "hunter2"), ("long", "xhunter2x"), ("over", "2xyz")];
    assert_eq!(scrub(&secrets, "a xhunter2x b hunter2 c"), "a <secret long> b <secret short> c");
    assert_eq!(scrub(&secrets, "a xhunter2xyz b"), "a <secret long> b");
    assert_eq!(scrub(&secrets, "hunter2hunter2"), "<secret short><secret short>");
}

#[test]
fn base64_of_a_longer_text_with_the_secret_anywhere_in_it_is_found() {
    for before in ["", "u", "us", "use", "user:"] {
        for after in ["", "1", "12"] {
            let encoded = STANDARD.encode(format!("{before}correct horse battery{after}"));
            let shown = scrub(&[("p", "correct horse battery")], &encoded);
            assert!(shown.contains("<secret p>"), "{before} {after}: {shown}");
            assert!(shown.replace("<secret p>", "").len() <= before.len() * 2 + 8, "{shown}");
        }
    }
}

#[test]
fn percent_and_form_encoding_in_either_case_are_found() {
    let secrets = [("p", "a b/ü&c")];
    for text in ["a%20b%2F%C3%BC%26c", "a%20b%2f%c3%bc%26c", "a+b%2F%C3%BC%26c", r"a b/ü\u0026c"] {
        assert_eq!(scrub(&secrets, &format!("x={text};")), "x=<secret p>;");
    }
}

#[test]
fn a_key_of_many_lines_is_found_line_by_line() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nq83hf72bsx\n-----END KEY-----\n";
    for line in key.lines() {
        assert_eq!(scrub(&[("key", key)], &format!("> {line}")), "> <secret key>");
    }
}

#[test]
fn a_part_shows_nothing_of_a_secret_that_reaches_over_its_ends() {
    let scrubber = scrubber(&[("t", "hunter2")]);
    let text = "ab hunter2 cd hunter2 ef";
    assert_eq!(scrubber.scrub(text, 5, 16), "<secret t> cd <secret t>");
    assert_eq!(scrubber.scrub(text, 0, 2), "ab");
    assert_eq!(scrubber.scrub(text, 10, 13), " cd");
    assert_eq!(scrubber.scrub("äöü", 1, 3), "ä", "cuts only between characters");
}

#[test]
fn the_beginning_of_a_secret_before_a_cut_is_hidden() {
    let secrets = [("t", "correct horse battery")];
    let address = "https://hooks.example.com/T0/abc";
    assert_eq!(
        scrub(&[("u", address)], "https://hooks.example.com/… answered"),
        "https://hooks.example.com/… answered"
    );
    for (text, shown) in [
        ("got correct hor…", "got <secret t>…"),
        ("got correct hors … more", "got <secret t> … more"),
        ("got corr…", "got corr…"),
        ("got correct hor", "got correct hor"),
    ] {
        assert_eq!(scrub(&secrets, text), shown);
    }
}

#[test]
fn short_secrets_are_left_alone() {
    assert_eq!(scrub(&[("pin", "123")], "123 and 1234"), "123 and 1234");
}

/// What `text` is shown as. Not even two letters of the secret may be left in it as they were written, in `form`.
fn without(value: &str, text: &str, form: &str) -> Result<String, String> {
    let shown = scrub(&[("s", value)], text);
    let left = shown.replace("<secret s>", "\0");
    let letters: Vec<char> = form.chars().collect();
    let two = (2 * letters.len()).div_ceil(value.chars().count()).max(8);
    for window in letters.windows(letters.len().min(two)) {
        let window: String = window.iter().collect();
        if left.contains(&window) {
            return Err(format!("{text:?} -> {shown:?} has {window:?}"));
        }
    }
    Ok(shown)
}

fn hex_of(text: &str) -> String {
    text.bytes().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_secret_is_found_as_programs_print_it() {
    let aws = "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=";
    let odd = "pä\"ss'w&rd(1)<x> \\é\u{1f600}";
    let each = |form: fn(u8) -> String| aws.bytes().map(form).collect::<String>();
    for (value, form) in [
        (aws, "wJalrXUtnFEMI/K7MDENG%2BbPxRfiCY%3D".to_owned()),
        (aws, "wJalrXUtnFEMI%2FK7MDENG%2bbPxRfiCY%3D".to_owned()),
        (aws, "wJalrXUtnFEMI%252FK7MDENG%252BbPxRfiCY%253D".to_owned()),
        (aws, r"wJalrXUtnFEMI\/K7MDENG+bPxRfiCY=".to_owned()),
        (aws, r"wJalrXUtnFEMI\u002fK7MDENG\u002BbPxRfiCY\u003d".to_owned()),
        (aws, "wJalrXUtnFEMI&#x2F;K7MDENG&#43;bPxRfiCY&equals;".to_owned()),
        (aws, "wJalrXUtnFEMI/K7MDENG+bPxRfiCY=3D".to_owned()),
        (aws, "wJalrXUtnFEMI/K=\r\n7MDENG+bPxRfiCY=3D".to_owned()),
        (aws, hex_of(aws)),
        (aws, hex_of(aws).to_uppercase()),
        (aws, each(|byte| format!("{byte:02X}:"))),
        (aws, each(|byte| format!("\\x{byte:02x}"))),
        (aws, each(|byte| format!("0x{byte:02x}, "))),
        (aws, each(|byte| format!("%{byte:02x}"))),
        (aws, each(|byte| format!("\\{byte:03o}"))),
        (odd, "p%C3%A4%22ss'w%26rd(1)%3Cx%3E%20%5C%C3%A9%F0%9F%98%80".to_owned()),
        (odd, "p%C3%A4%22ss%27w%26rd%281%29%3Cx%3E+%5C%C3%A9%F0%9F%98%80".to_owned()),
        (odd, "p%u00E4%22ss%27w%26rd%281%29%3Cx%3E%20%5C%u00E9%uD83D%uDE00".to_owned()),
        (odd, r#"p\u00e4\"ss'w&rd(1)<x> \\\u00e9\ud83d\ude00"#.to_owned()),
        (odd, r#"p\u00E4\"ss\u0027w\u0026rd(1)\u003cx\u003e \\\u00E9\uD83D\uDE00"#.to_owned()),
        (odd, r#"pä\\\"ss'w&rd(1)<x> \\\\é😀"#.to_owned()),
        (odd, "pä&quot;ss&#x27;w&amp;rd(1)&lt;x&gt; \\é😀".to_owned()),
        (odd, "p&auml;&#34;ss&#39;w&amp;rd(1)&lt;x&gt; \\&eacute;&#128512;".to_owned()),
        (odd, "pä&amp;quot;ss&amp;#x27;w&amp;amp;rd(1)&amp;lt;x&amp;gt; \\é😀".to_owned()),
        (odd, r#"pä"ss'"'"'w&rd(1)<x> \é😀"#.to_owned()),
        (odd, r#"pä"ss'\''w&rd(1)<x> \é😀"#.to_owned()),
        (odd, r#"pä\"ss'\"'\"'w&rd(1)<x> \\é😀"#.to_owned()),
        (odd, r#"pä\"ss\'w\&rd\(1\)\<x\>\ \\é😀"#.to_owned()),
        (odd, r#"p\303\244"ss\'w&rd(1)<x> \\\303\251\360\237\230\200"#.to_owned()),
        (odd, r#"pä"ss''w&rd(1)<x> \é😀"#.to_owned()),
        (odd, r#"p\u{e4}\"ss'w&rd(1)<x> \\\u{e9}\u{1f600}"#.to_owned()),
        (odd, r#"p\xc3\xa4"ss\'w&rd(1)<x> \\\xc3\xa9\xf0\x9f\x98\x80"#.to_owned()),
        (odd, r#"p\u00e4"ss\'w&rd(1)<x> \\\u00e9\U0001F600"#.to_owned()),
        (odd, URL_SAFE_NO_PAD.encode(odd)),
        (odd, STANDARD.encode(hex_of(odd))),
        (odd, hex_of(&STANDARD.encode(odd))),
        (odd, STANDARD.encode(STANDARD.encode(odd))),
        (odd, STANDARD.encode(serde_json::to_string(odd).expect("text"))),
        (odd, STANDARD.encode(odd).replace('/', "\\/").replace('+', "\\u002b").replace('=', "\\u003d")),
        (odd, STANDARD.encode(odd).replace('/', "%2F").replace('+', "%2B").replace('=', "%3D")),
    ] {
        let shown = without(value, &format!("got: {form} ."), &form).unwrap_or_else(|left| panic!("{left}"));
        assert!(shown.starts_with("got: ") && shown.ends_with('.') && shown.len() < 24, "{form}: {shown}");
    }
}

#[test]
fn what_a_secret_ends_with_does_not_hide_it() {
    for value in [r"abc\", r"C:\new\", "100%", "abc&", "it's'", "\"quoted\""] {
        let json = serde_json::to_string(value).expect("text");
        for text in [json.clone(), serde_json::to_string(&json).expect("text")] {
            let shown = scrub(&[("s", value)], &text);
            assert!(shown.contains("<secret s>"), "{text} -> {shown}");
            assert!(!shown.contains(&value[1..3]), "{text} -> {shown}");
        }
    }
}

fn lines(text: &str, width: usize) -> Vec<String> {
    text.as_bytes().chunks(width).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

#[test]
fn base64_and_hexadecimal_in_lines_are_found_as_a_whole_and_line_by_line() {
    let key: String = (0..148_u16).map(|n| char::from(b'0' + (n * 7 % 75).to_le_bytes()[0])).collect();
    for before in ["", "u", "user:"] {
        for encoded in [STANDARD.encode(format!("{before}{key}")), hex_of(&format!("{before}{key}"))] {
            for width in [60, 64, 76] {
                let lines = lines(&encoded, width);
                for end in ["\n", "\r\n", "\n    ", "\\n", "\\\\n"] {
                    let shown = scrub(&[("s", &key)], &lines.join(end));
                    assert!(shown.len() <= "<secret s>".len() + 2 * before.len(), "{width} {end:?}: {shown}");
                }
                for (n, line) in lines.iter().enumerate() {
                    let shown = scrub(&[("s", &key)], line);
                    assert!(shown.contains("<secret s>") || line.len() <= 12, "{width}, line {n}: {shown}");
                }
            }
        }
    }
}

#[test]
fn what_is_no_secret_stays_as_it_is() {
    let scrubber = scrubber(&[("a", "correct horse battery"), ("b", "tok-0123456789")]);
    for text in [
        "deployed 17 of 42 replicas to green, 3 failed their probe",
        r#"{"path":"C:\\new\\table","html":"a &amp; b","url":"/a%20b?c=d+e"}"#,
        r#"de:ad:be:ef 00 11 22 QUJDREVGR0g= \\\\\\\\\\\\\\\\ %%% &&& '''' """" "#,
    ] {
        assert!(matches!(scrubber.scrub(text, 0, text.len()), Cow::Borrowed(_)), "{text}");
    }
}

#[test]
fn a_run_of_digits_longer_than_a_window_is_searched_in_all_of_it() {
    let value = "correct horse battery staple";
    for before in [0, 1, 5000, 8190, 9500, 12_345, 40_000] {
        let bytes = format!("{}{value}{}", "x".repeat(before), "y".repeat(20_000));
        for encoded in [STANDARD.encode(&bytes), hex_of(&bytes)] {
            assert_eq!(scrub(&[("s", value)], &encoded).matches("<secret s>").count(), 1, "{before}");
        }
    }
}

/// A way of writing text.
#[derive(Debug, Clone)]
enum Encoder {
    Json,
    JsonAscii,
    JsonSlash,
    Percent { left: String, lower: bool },
    PercentAll,
    Form,
    Html,
    HtmlNumbers,
    Shell,
    Backslashes,
    Hex { upper: bool, between: &'static str },
    HexEscapes,
    Base64 { url: bool, pad: bool, wrap: Option<usize> },
    Within { before: String, after: String },
}

impl Encoder {
    fn encode(&self, text: &str) -> String {
        let json = |text: &str| {
            let whole = serde_json::to_string(text).expect("text");
            whole[1..whole.len() - 1].to_owned()
        };
        let bytes = |form: &dyn Fn(u8) -> String| text.bytes().map(form).collect::<String>();
        let letters = |form: &dyn Fn(char) -> String| text.chars().map(form).collect::<String>();
        match self {
            Self::Json => json(text),
            Self::JsonAscii => json(text)
                .encode_utf16()
                .map(|unit| match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                    _ => format!("\\u{unit:04x}"),
                })
                .collect(),
            Self::JsonSlash => json(text).replace('/', "\\/"),
            Self::Percent { left, lower } => bytes(&|byte| match byte {
                _ if byte.is_ascii_alphanumeric() || left.as_bytes().contains(&byte) => {
                    char::from(byte).to_string()
                }
                _ if *lower => format!("%{byte:02x}"),
                _ => format!("%{byte:02X}"),
            }),
            Self::PercentAll => bytes(&|byte| format!("%{byte:02X}")),
            Self::Form => {
                Self::Percent { left: "*-._ ".to_owned(), lower: false }.encode(text).replace(' ', "+")
            }
            Self::Html => {
                let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                text.replace('"', "&quot;").replace('\'', "&#x27;")
            }
            Self::HtmlNumbers => letters(&|letter| match letter {
                _ if letter.is_ascii_alphanumeric() => letter.to_string(),
                _ => format!("&#{};", u32::from(letter)),
            }),
            Self::Shell => text.replace('\'', r#"'"'"'"#),
            Self::Backslashes => letters(&|letter| match letter {
                _ if letter.is_ascii_punctuation() || letter == ' ' => format!("\\{letter}"),
                _ => letter.to_string(),
            }),
            Self::Hex { upper, between } => {
                let byte = |byte| if *upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
                text.bytes().map(byte).collect::<Vec<_>>().join(between)
            }
            Self::HexEscapes => bytes(&|byte| format!("\\x{byte:02x}")),
            Self::Base64 { url, pad, wrap } => {
                let encoded = match (url, pad) {
                    (true, true) => URL_SAFE.encode(text),
                    (true, false) => URL_SAFE_NO_PAD.encode(text),
                    (false, true) => STANDARD.encode(text),
                    (false, false) => STANDARD_NO_PAD.encode(text),
                };
                wrap.map_or(encoded.clone(), |width| lines(&encoded, width).join("\n"))
            }
            Self::Within { before, after } => format!("{before}{text}{after}"),
        }
    }

    fn is_around(&self) -> bool {
        matches!(self, Self::Within { .. })
    }
}

fn encoder() -> impl Strategy<Value = Encoder> {
    let around = r#"[a-z]{0,6}[ =:,{}\[\]"]{1,2}"#;
    let between = prop_oneof![Just(""), Just(":"), Just(" ")];
    let wrap = prop_oneof![Just(None), Just(Some(64)), Just(Some(76))];
    prop_oneof![
        Just(Encoder::Json),
        Just(Encoder::JsonAscii),
        Just(Encoder::JsonSlash),
        ("[/~'()!*._:@&$,;-]{0,8}", any::<bool>()).prop_map(|(left, lower)| Encoder::Percent { left, lower }),
        Just(Encoder::PercentAll),
        Just(Encoder::Form),
        Just(Encoder::Html),
        Just(Encoder::HtmlNumbers),
        Just(Encoder::Shell),
        Just(Encoder::Backslashes),
        Just(Encoder::HexEscapes),
        (any::<bool>(), between).prop_map(|(upper, between)| Encoder::Hex { upper, between }),
        (any::<bool>(), any::<bool>(), wrap).prop_map(|(url, pad, wrap)| Encoder::Base64 { url, pad, wrap }),
        (around, around).prop_map(|(before, after)| Encoder::Within { before, after }),
    ]
}

/// A secret as people and programs make them: without white space around it.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9+/]{12,60}={0,2}",
        "[!-~]{8,40}",
        "[!-~][ -~äöüß€é😀]{6,30}[!-~]",
        "[A-Za-z0-9]{60,200}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_secret_is_found_in_a_random_nesting_of_encoders(
        value in secret(),
        encoders in prop::collection::vec(encoder(), 0..4),
    ) {
        let form = encoders.iter().fold(value.clone(), |text, encoder| encoder.encode(&text));
        let shown = scrub(&[("s", &value)], &form);
        prop_assert!(shown.contains("<secret s>"), "{form:?} -> {shown:?}");
        let bare = encoders.iter().filter(|encoder| !encoder.is_around());
        let form = bare.fold(value.clone(), |text, encoder| encoder.encode(&text));
        let left = without(&value, &form, &form);
        prop_assert!(left.is_ok(), "{value:?} {encoders:?} {left:?}");
    }

    #[test]
    fn a_part_of_a_text_shows_nothing_of_a_secret_across_its_ends(
        value in secret(),
        encoder in encoder().prop_filter("it stands for all of the text", |one| !one.is_around()),
        at in any::<prop::sample::Index>(),
    ) {
        let text = format!("#### {} ####", encoder.encode(&value));
        let scrubber = scrubber(&[("s", &value)]);
        let cut = at.index(text.len());
        for shown in [scrubber.scrub(&text, 0, cut), scrubber.scrub(&text, cut, text.len())] {
            let left = shown.replace("<secret s>", "");
            prop_assert!(left.len() <= 12, "{text:?} cut at {cut}: {shown:?}");
        }
    }
}
