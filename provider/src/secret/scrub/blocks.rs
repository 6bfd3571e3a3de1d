//! Base64 and hexadecimal text, wherever it stands in a text and however its lines are broken.
//!
//! Where the first group begins cannot be told, so every beginning is tried. A run is decoded in windows that overlap: it may be as
//! long as the text.

use zeroize::Zeroizing;

use super::escapes::{introduces, is, readings};

/// How bytes are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// The standard one and the one for URLs at once.
    Base64,
    /// Digits in either case, with or without something between two bytes.
    Hex,
}

/// A digit and where it stands.
#[derive(Clone, Copy)]
struct Digit {
    value: u8,
    start: usize,
    end: usize,
}

enum Token {
    Digit(Digit),
    /// Belongs to the run, and means nothing.
    Between(usize),
    Other,
}

/// A part of a run, decoded.
pub(super) struct Decoded<'d> {
    pub(super) bytes: &'d [u8],
    /// Whether the run begins with it.
    pub(super) begins: bool,
    /// Whether the run ends with it.
    pub(super) ends: bool,
    digits: &'d [Digit],
    bits: usize,
}

impl Decoded<'_> {
    /// Where in the text the bytes from `start` to `end` are written.
    pub(super) fn place(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let first = self.digits.get(start * 8 / self.bits)?;
        let last = self.digits.get((end * 8).checked_sub(1)? / self.bits)?;
        Some((first.start, last.end))
    }
}

impl Alphabet {
    fn bits(self) -> usize {
        match self {
            Self::Base64 => 6,
            Self::Hex => 4,
        }
    }

    /// How many beginnings there are to try.
    fn beginnings(self) -> usize {
        match self {
            Self::Base64 => 4,
            Self::Hex => 2,
        }
    }

    fn value(self, byte: u8) -> Option<u8> {
        match (self, byte) {
            (Self::Hex, _) => char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()),
            (Self::Base64, b'A'..=b'Z') => Some(byte - b'A'),
            (Self::Base64, b'a'..=b'z') => Some(byte - b'a' + 26),
            (Self::Base64, b'0'..=b'9') => Some(byte - b'0' + 52),
            (Self::Base64, b'+' | b'-') => Some(62),
            (Self::Base64, b'/' | b'_') => Some(63),
            _ => None,
        }
    }

    /// Whether it may stand between two digits. `broken`: a line was broken there, behind which a text may be indented.
    fn between(self, byte: u8, broken: bool) -> bool {
        match byte {
            b'\n' | b'\r' => true,
            b' ' | b'\t' => broken || self == Self::Hex,
            b':' | b'-' | b',' => self == Self::Hex,
            _ => false,
        }
    }

    fn token(self, bytes: &[u8], at: usize, broken: bool) -> Token {
        let byte = bytes[at];
        if let (Self::Hex, b'0') = (self, byte)
            && let Some(end) = is(bytes, at + 1, b'x')
        {
            return Token::Between(end);
        }
        if let Some(value) = self.value(byte) {
            return Token::Digit(Digit { value, start: at, end: at + 1 });
        }
        if self.between(byte, broken) {
            return Token::Between(at + 1);
        }
        if introduces(byte) {
            return self.escaped(bytes, at).unwrap_or(Token::Other);
        }
        Token::Other
    }

    /// What an escape means in a run.
    fn escaped(self, bytes: &[u8], at: usize) -> Option<Token> {
        let readings = readings(bytes, at);
        if self == Self::Hex {
            let backslashes = readings.iter().filter(|reading| reading.one() == Some(b'\\'));
            if let Some(end) = backslashes.filter_map(|reading| is(bytes, reading.end, b'x')).min() {
                return Some(Token::Between(end));
            }
        }
        let tokens = readings.escapes().filter_map(|reading| {
            let token = match reading.one() {
                Some(byte) => match self.value(byte) {
                    Some(value) => Token::Digit(Digit { value, start: at, end: reading.end }),
                    None if self.between(byte, false) => Token::Between(reading.end),
                    None => return None,
                },
                None if reading.bytes().is_empty() => Token::Between(reading.end),
                None => return None,
            };
            Some((reading.end, token))
        });
        tokens.max_by_key(|(end, _)| *end).map(|(_, token)| token)
    }

    /// Decodes all runs of at least `shortest` bytes, from every beginning. Two windows of a run have `overlap` digits in common.
    pub(super) fn decode(
        self,
        bytes: &[u8],
        shortest: usize,
        overlap: usize,
        mut found: impl FnMut(&Decoded<'_>),
    ) {
        let window = overlap * 4 + 8192;
        let mut digits: Zeroizing<Digits> = Zeroizing::default();
        let mut buffer = Zeroizing::new(Vec::new());
        let (mut at, mut begins, mut broken) = (0, true, false);
        while at < bytes.len() {
            match self.token(bytes, at, broken) {
                Token::Digit(digit) => {
                    digits.0.push(digit);
                    (at, broken) = (digit.end, false);
                    if digits.0.len() == window {
                        self.beginnings_of(&digits.0, (begins, false), shortest, &mut buffer, &mut found);
                        digits.0.drain(..window - overlap);
                        begins = false;
                    }
                }
                Token::Between(end) => {
                    broken |= matches!(bytes[at], b'\n' | b'\r' | b'\\' | b'=' | b'&');
                    at = end;
                }
                Token::Other => {
                    self.beginnings_of(&digits.0, (begins, true), shortest, &mut buffer, &mut found);
                    digits.0.clear();
                    (at, begins, broken) = (at + 1, true, false);
                }
            }
        }
        self.beginnings_of(&digits.0, (begins, true), shortest, &mut buffer, &mut found);
    }

    fn beginnings_of(
        self,
        digits: &[Digit],
        (begins, ends): (bool, bool),
        shortest: usize,
        buffer: &mut Vec<u8>,
        found: &mut impl FnMut(&Decoded<'_>),
    ) {
        let bits = self.bits();
        if digits.len() * bits < shortest * 8 {
            return;
        }
        for first in 0..self.beginnings() {
            let digits = &digits[first..];
            buffer.clear();
            let (mut kept, mut held) = (0_u32, 0);
            for digit in digits {
                kept = (kept << bits) | u32::from(digit.value);
                held += bits;
                if held >= 8 {
                    held -= 8;
                    buffer.push((kept >> held).to_le_bytes()[0]);
                }
            }
            if buffer.len() >= shortest {
                found(&Decoded { bytes: buffer, begins, ends, digits, bits });
            }
        }
    }
}

/// Wiped when it is dropped.
#[derive(Default)]
struct Digits(Vec<Digit>);

impl zeroize::Zeroize for Digits {
    fn zeroize(&mut self) {
        self.0.iter_mut().for_each(|digit| digit.value.zeroize());
        self.0.clear();
    }
}
