//! What a place in a text may stand for: itself, or a character that is written there in another way.
//!
//! A character may be escaped more than once: JSON in JSON, a URL in HTML. So what an escape consists of is read in the same way
//! again, and what it stands for may begin a further one.

/// How often an escape may be escaped itself, other than with one more backslash.
const DEEPEST: u8 = 4;

/// Most readings of one place that are tried.
const MOST: usize = 24;

/// The names of the characters from U+00A0 to U+00FF in HTML.
const LATIN: &str = "nbsp iexcl cent pound curren yen brvbar sect uml copy ordf laquo not shy reg macr deg plusmn sup2 sup3 acute \
    micro para middot cedil sup1 ordm raquo frac14 frac12 frac34 iquest Agrave Aacute Acirc Atilde Auml Aring AElig Ccedil Egrave \
    Eacute Ecirc Euml Igrave Iacute Icirc Iuml ETH Ntilde Ograve Oacute Ocirc Otilde Ouml times Oslash Ugrave Uacute Ucirc Uuml \
    Yacute THORN szlig agrave aacute acirc atilde auml aring aelig ccedil egrave eacute ecirc euml igrave iacute icirc iuml eth \
    ntilde ograve oacute ocirc otilde ouml divide oslash ugrave uacute ucirc uuml yacute thorn yuml";

/// Names of other characters in HTML.
const NAMED: [(&str, char); 32] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("excl", '!'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("lpar", '('),
    ("rpar", ')'),
    ("ast", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("period", '.'),
    ("sol", '/'),
    ("colon", ':'),
    ("semi", ';'),
    ("equals", '='),
    ("quest", '?'),
    ("commat", '@'),
    ("lsqb", '['),
    ("bsol", '\\'),
    ("rsqb", ']'),
    ("Hat", '^'),
    ("lowbar", '_'),
    ("grave", '`'),
    ("lcub", '{'),
    ("verbar", '|'),
    ("rcub", '}'),
    ("NewLine", '\n'),
    ("Tab", '\t'),
];

/// One reading of a place: the bytes that it stands for, and where it ends. No bytes: a line was broken there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    bytes: [u8; 4],
    length: u8,
    pub(super) end: usize,
}

impl Reading {
    fn byte(byte: u8, end: usize) -> Self {
        Self { bytes: [byte, 0, 0, 0], length: 1, end }
    }

    fn letter(letter: char, end: usize) -> Self {
        let mut bytes = [0; 4];
        let length = u8::try_from(letter.encode_utf8(&mut bytes).len()).unwrap_or_default();
        Self { bytes, length, end }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// The byte, if it is one.
    pub(super) fn one(&self) -> Option<u8> {
        (self.length == 1).then_some(self.bytes[0])
    }
}

/// The readings of one place; the first is the byte itself.
pub(super) struct Readings {
    list: [Reading; MOST],
    length: usize,
}

impl Readings {
    fn push(&mut self, reading: Reading) {
        if self.length < MOST && !self.list[..self.length].contains(&reading) {
            self.list[self.length] = reading;
            self.length += 1;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reading> {
        self.list[..self.length].iter()
    }

    /// All but the byte itself.
    pub(super) fn escapes(&self) -> impl Iterator<Item = &Reading> {
        self.list[1..self.length].iter()
    }
}

/// Whether an escape may begin with it.
pub(super) fn introduces(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&' | b'=' | b'\'' | b'"' | b'+')
}

/// All that may be written at a place, which is in `bytes`.
pub(super) fn readings(bytes: &[u8], at: usize) -> Readings {
    At { bytes, level: DEEPEST }.readings(at)
}

/// The end of a certain byte, if it stands at a place, however it is written.
pub(super) fn is(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    At { bytes, level: DEEPEST }.is(at, &[byte])
}

/// A text that is read, and how much deeper.
#[derive(Clone, Copy)]
struct At<'b> {
    bytes: &'b [u8],
    level: u8,
}

impl At<'_> {
    fn raw(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn readings(self, at: usize) -> Readings {
        let first = Reading::byte(self.raw(at).unwrap_or_default(), at + 1);
        let mut found = Readings { list: [first; MOST], length: 1 };
        let mut next = 0;
        while next < found.length {
            let reading = found.list[next];
            next += 1;
            if let Some(byte) = reading.one() {
                self.escaped(byte, reading.end, &mut found);
            }
        }
        found
    }

    /// The byte at a place if it is as `wanted`, however it is written.
    fn want(self, at: usize, wanted: impl Fn(u8) -> bool) -> Option<(u8, usize)> {
        let raw = self.raw(at)?;
        if wanted(raw) {
            return Some((raw, at + 1));
        }
        if self.level == 0 || !matches!(raw, b'%' | b'\\' | b'&') {
            return None;
        }
        let deeper = Self { level: self.level - 1, ..self }.readings(at);
        // A shorter one would leave a piece of an escape behind.
        let fitting =
            deeper.escapes().filter_map(|one| Some((one.one().filter(|byte| wanted(*byte))?, one.end)));
        fitting.max_by_key(|(_, end)| *end)
    }

    fn is(self, at: usize, wanted: &[u8]) -> Option<usize> {
        wanted.iter().try_fold(at, |at, byte| Some(self.want(at, |found| found == *byte)?.1))
    }

    /// Every end of some quotes: two of them may be one that is doubled, or two.
    fn quotes(self, at: usize, wanted: &[u8], found: &mut dyn FnMut(usize)) {
        let Some((first, rest)) = wanted.split_first() else { return found(at) };
        let Some(raw) = self.raw(at) else { return };
        if raw == *first {
            self.quotes(at + 1, rest, found);
        } else if self.level > 0 && matches!(raw, b'%' | b'\\' | b'&') {
            let deeper = Self { level: self.level - 1, ..self }.readings(at);
            let fitting = deeper.escapes().filter(|reading| reading.one() == Some(*first));
            fitting.for_each(|reading| self.quotes(reading.end, rest, found));
        }
    }

    /// From `least` to `most` digits.
    fn number(self, at: usize, least: usize, most: usize, radix: u32) -> Option<(u32, usize)> {
        let (mut number, mut end, mut digits) = (0_u32, at, 0);
        while digits < most
            && let Some((digit, after)) = self.want(end, |byte| char::from(byte).is_digit(radix))
        {
            number = number.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?)?;
            (end, digits) = (after, digits + 1);
        }
        (digits >= least).then_some((number, end))
    }

    fn hex_byte(self, at: usize) -> Option<Reading> {
        let (number, end) = self.number(at, 2, 2, 16)?;
        Some(Reading::byte(u8::try_from(number).ok()?, end))
    }

    /// A character by the four digits of its code, or by twice four.
    fn unit(self, at: usize) -> Option<Reading> {
        let (high, end) = self.number(at, 4, 4, 16)?;
        if let Some(letter) = char::from_u32(high) {
            return Some(Reading::letter(letter, end));
        }
        let between = self.readings(end);
        let mut between = between.iter().filter(|reading| matches!(reading.one(), Some(b'\\' | b'%')));
        let second = between.find_map(|reading| self.is(reading.end, b"u"))?;
        let (low, end) = self.number(second, 4, 4, 16)?;
        let pair = [u16::try_from(high).ok()?, u16::try_from(low).ok()?];
        let letter = char::decode_utf16(pair).next()?.ok()?;
        Some(Reading::letter(letter, end))
    }

    /// What stands at `at` behind `byte`, if both together are an escape.
    fn escaped(self, byte: u8, at: usize, found: &mut Readings) {
        match byte {
            b'%' => {
                let unit = self.is(at, b"u").and_then(|at| self.unit(at));
                self.hex_byte(at).into_iter().chain(unit).for_each(|reading| found.push(reading));
            }
            b'\\' => self.behind_backslash(at, found),
            b'&' => self.entity(at).into_iter().for_each(|reading| found.push(reading)),
            // Quoted-printable, which also breaks lines.
            b'=' => {
                self.hex_byte(at).into_iter().for_each(|reading| found.push(reading));
                self.line_break(at, found);
            }
            // SQL and CSV double quotes; a shell leaves its quotes, writes one and goes back.
            b'\'' => {
                for way in [&b"'"[..], b"\\''", b"\"'\"'"] {
                    self.quotes(at, way, &mut |end| found.push(Reading::byte(b'\'', end)));
                }
            }
            b'"' => self.quotes(at, b"\"", &mut |end| found.push(Reading::byte(b'"', end))),
            b'+' => found.push(Reading::byte(b' ', at)),
            _ => {}
        }
    }

    fn line_break(self, at: usize, found: &mut Readings) {
        let end = match (self.raw(at), self.raw(at + 1)) {
            (Some(b'\n'), _) => at + 1,
            (Some(b'\r'), Some(b'\n')) => at + 2,
            _ => return,
        };
        found.push(Reading { bytes: [0; 4], length: 0, end });
    }

    fn behind_backslash(self, at: usize, found: &mut Readings) {
        self.line_break(at, found);
        let Some(raw) = self.raw(at) else { return };
        self.backslashed(raw, at + 1, found);
        // Of many backslashes only the last can belong to an escape of a letter.
        let letter = |next: Option<u8>| matches!(next, Some(b'x' | b'u' | b'U' | b'0'..=b'7'));
        if self.level > 0 && (matches!(raw, b'%' | b'&') || (raw == b'\\' && letter(self.raw(at + 1)))) {
            for reading in (Self { level: self.level - 1, ..self }).readings(at).escapes() {
                if let Some(byte) = reading.one() {
                    self.backslashed(byte, reading.end, found);
                }
            }
        }
    }

    /// What a backslash with `byte` behind it, which ends at `end`, stands for.
    fn backslashed(self, byte: u8, end: usize, found: &mut Readings) {
        let braced = |at: usize| {
            let (number, end) = self.number(self.is(at, b"{")?, 1, 6, 16)?;
            Some(Reading::letter(char::from_u32(number)?, self.is(end, b"}")?))
        };
        let reading = match byte {
            b'u' => self.unit(end).or_else(|| braced(end)),
            b'U' => self
                .number(end, 8, 8, 16)
                .and_then(|(number, end)| Some(Reading::letter(char::from_u32(number)?, end))),
            b'x' => self.hex_byte(end).or_else(|| braced(end)),
            b'0'..=b'7' => {
                let first = u32::from(byte - b'0');
                self.number(end, 2, 2, 8)
                    .and_then(|(n, end)| Some(Reading::byte(u8::try_from(first * 64 + n).ok()?, end)))
            }
            b'n' => Some(Reading::byte(b'\n', end)),
            b't' => Some(Reading::byte(b'\t', end)),
            b'r' => Some(Reading::byte(b'\r', end)),
            b'b' => Some(Reading::byte(8, end)),
            b'f' => Some(Reading::byte(12, end)),
            b'v' => Some(Reading::byte(11, end)),
            b'a' => Some(Reading::byte(7, end)),
            b'e' | b'E' => Some(Reading::byte(27, end)),
            byte if byte.is_ascii() && !byte.is_ascii_alphanumeric() => Some(Reading::byte(byte, end)),
            _ => None,
        };
        reading.into_iter().for_each(|reading| found.push(reading));
    }

    fn entity(self, at: usize) -> Option<Reading> {
        if let Some(at) = self.is(at, b"#") {
            let number = |at: usize, radix: u32| {
                let (code, end) = self.number(at, 1, 8, radix)?;
                Some(Reading::letter(char::from_u32(code)?, self.is(end, b";")?))
            };
            let hex = self.is(at, b"x").or_else(|| self.is(at, b"X")).and_then(|at| number(at, 16));
            return hex.or_else(|| number(at, 10));
        }
        let mut name = String::new();
        let mut end = at;
        while let Some((letter, after)) = self.want(end, |byte| byte.is_ascii_alphanumeric()) {
            if name.len() == 8 {
                return None;
            }
            name.push(char::from(letter));
            end = after;
        }
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, letter)| *letter);
        let latin = || {
            let place = LATIN.split_ascii_whitespace().position(|known| known == name)?;
            char::from_u32(0xa0 + u32::try_from(place).ok()?)
        };
        let letter = named.or_else(latin)?;
        Some(Reading::letter(letter, self.is(end, b";")?))
    }
}
