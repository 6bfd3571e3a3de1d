//! Finds secrets in text, in all the ways in which they are commonly written.
//!
//! Every line of output, every message and every journal record passes here, so what to look for is prepared when a secret is
//! kept, not when a text is scrubbed. One pass over the text: the first byte selects the few forms that can begin there. All
//! bytes of secrets in here are wiped when it is dropped.

use std::borrow::Cow;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use zeroize::Zeroizing;

/// Secrets shorter than this are not searched for in text: they would match everywhere.
const SHORTEST: usize = 4;

/// Lines of a secret of many lines, and pieces of base64, shorter than this are not searched for.
const SHORTEST_PIECE: usize = 8;

/// Everything but RFC 3986 unreserved characters is percent-encoded.
const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What to look for.
pub(super) struct Scrubber {
    /// By first byte; with the same first byte, longest first.
    forms: Vec<Form>,
    /// Where in `forms` those that begin with a byte start; one more for the end.
    starts: [usize; 257],
    longest: usize,
}

struct Form {
    text: Zeroizing<String>,
    name: String,
}

impl Default for Scrubber {
    fn default() -> Self {
        Self { forms: Vec::new(), starts: [0; 257], longest: 0 }
    }
}

impl Scrubber {
    /// Looks for `value` from now on, and shows `name` for it.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let value = value.trim_end_matches(['\n', '\r']);
        if value.len() < SHORTEST {
            return;
        }
        for text in written(value) {
            self.longest = self.longest.max(text.len());
            if !self.forms.iter().any(|form| form.text == text) {
                self.forms.push(Form { text, name: name.to_owned() });
            }
        }
        let first = |form: &Form| form.text.as_bytes().first().copied().unwrap_or_default();
        self.forms.sort_by_key(|form| (first(form), std::cmp::Reverse(form.text.len())));
        for byte in 0..self.starts.len() {
            self.starts[byte] = self.forms.partition_point(|form| usize::from(first(form)) < byte);
        }
    }

    /// Length of the longest form.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// The part of `text` from byte `from` to byte `to` with secrets replaced; one that reaches over an end of the part is
    /// replaced as well.
    pub(super) fn scrub<'t>(&self, text: &'t str, from: usize, to: usize) -> Cow<'t, str> {
        let (from, to) = (text.floor_char_boundary(from), text.floor_char_boundary(to.max(from)));
        let mut shown = String::new();
        let mut done = from;
        let mut next = 0;
        let mut found = false;
        while let Some((start, end, name)) = self.find(text, next) {
            next = end;
            if end <= from {
                continue;
            }
            if start >= to {
                break;
            }
            found = true;
            shown.push_str(text.get(done..start).unwrap_or_default());
            shown.push_str("<secret ");
            shown.push_str(name);
            shown.push('>');
            done = end;
        }
        if !found {
            return Cow::Borrowed(text.get(from..to).unwrap_or_default());
        }
        shown.push_str(text.get(done..to).unwrap_or_default());
        Cow::Owned(shown)
    }

    /// The first stretch of secrets at or after byte `at`. Secrets that overlap are one stretch.
    fn find(&self, text: &str, at: usize) -> Option<(usize, usize, &str)> {
        if self.forms.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        let mut stretch: Option<(usize, usize, &str)> = None;
        for i in at..bytes.len() {
            if let Some((start, end, name)) = stretch
                && i >= end
            {
                return Some((start, end, name));
            }
            let first = usize::from(bytes[i]);
            let here = &self.forms[self.starts[first]..self.starts[first + 1]];
            // Forms are valid text, so a match begins and ends between characters.
            let Some(form) = here.iter().find(|form| bytes[i..].starts_with(form.text.as_bytes())) else {
                continue;
            };
            let reach = i + form.text.len();
            stretch = match stretch {
                None => Some((i, reach, &form.name)),
                Some((start, end, name)) => Some((start, end.max(reach), name)),
            };
        }
        stretch
    }
}

/// The ways in which a secret's bytes are commonly written.
fn written(value: &str) -> Vec<Zeroizing<String>> {
    let mut forms = vec![Zeroizing::new(value.to_owned())];
    let mut add = |form: String| forms.push(Zeroizing::new(form));

    if let Ok(json) = serde_json::to_string(value) {
        let json = &json[1..json.len() - 1];
        // Some JSON writers make text safe for HTML.
        add(json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"));
        add(json.to_owned());
    }
    let percent = percent_encoding::utf8_percent_encode(value, UNRESERVED).to_string();
    add(percent.replace("%20", "+"));
    add(lower_escapes(&percent));
    add(percent);
    add(STANDARD.encode(value));
    add(URL_SAFE.encode(value));
    // Within a longer text, such as `user:password`, base64 depends on where the secret begins: three ways, without the
    // characters that also depend on its neighbours.
    for before in 0..3_usize {
        let mut bytes = Zeroizing::new(vec![0_u8; before]);
        bytes.extend_from_slice(value.as_bytes());
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        for encoded in [STANDARD.encode(&*bytes), URL_SAFE.encode(&*bytes)].map(Zeroizing::new) {
            if let Some(own) = encoded.get(own.clone())
                && own.len() >= SHORTEST_PIECE
            {
                add(own.to_owned());
            }
        }
    }
    // A secret of many lines (a key) may come out line by line.
    for line in value.lines().map(str::trim) {
        if line.len() >= SHORTEST_PIECE && line.len() < value.len() {
            add(line.to_owned());
        }
    }
    forms
}

/// Percent-encoding with small hexadecimal digits.
fn lower_escapes(percent: &str) -> String {
    let mut lower = String::with_capacity(percent.len());
    let mut digits = 0;
    for letter in percent.chars() {
        lower.push(if digits > 0 { letter.to_ascii_lowercase() } else { letter });
        digits = if letter == '%' { 2_u8 } else { digits.saturating_sub(1) };
    }
    lower
}

#[cfg(test)]
mod tests {
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
    fn short_secrets_are_left_alone() {
        assert_eq!(scrub(&[("pin", "123")], "123 and 1234"), "123 and 1234");
    }

    #[test]
    fn a_long_text_with_many_secrets_takes_one_pass() {
        let secrets: Vec<_> = (0..50).map(|i| (format!("s{i}"), format!("{i}-secret-{i}-value"))).collect();
        let secrets: Vec<_> = secrets.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let scrubber = scrubber(&secrets);
        let text = "deployed 17 of 42 replicas to green, 3 failed their probe\n".repeat(20_000);
        let start = std::time::Instant::now();
        assert!(matches!(scrubber.scrub(&text, 0, text.len()), Cow::Borrowed(_)));
        // 1.2 MB in a build without optimization; looking for each of 600 forms by itself takes seconds.
        assert!(start.elapsed().as_millis() < 1000, "{:?}", start.elapsed());
    }
}
