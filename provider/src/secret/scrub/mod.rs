//! Finds secrets in text, in all the ways in which programs write them.
//!
//! Every line of output, every message and every journal record passes here. A list of forms cannot be complete: each program leaves
//! other characters as they are, and forms come in one another. So a text is read the other way round. At each place where a secret
//! may begin, it is compared character by character, each as it is or [escaped](escapes) in any way. What may be base64 or
//! hexadecimal is [decoded](blocks) and searched like a text of its own, and what is found there stands for the place it came from.
//!
//! All bytes of secrets in here are wiped when it is dropped.

mod blocks;
mod escapes;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, collections::BTreeSet};

use zeroize::Zeroizing;

use blocks::Alphabet;
use escapes::{introduces, is, readings};

/// Secrets shorter than this are not searched for in text: they would match everywhere.
const SHORTEST: usize = 4;

/// Lines of a secret of many lines shorter than this are not searched for.
const SHORTEST_LINE: usize = 8;

/// How often base64 or hexadecimal text may be encoded in the same way again.
const DEEPEST: u8 = 3;

/// What stands where a text was cut, with a space before it or without.
const CUT: [&[u8]; 2] = ["…".as_bytes(), " …".as_bytes()];

/// The shortest beginning of a secret that is hidden where a text was cut; in decoded text, the shortest beginning or end of one that
/// is hidden where its line was broken.
const SHORTEST_END: usize = 6;

/// In decoded text: the shortest piece of a secret that is hidden if its line holds nothing else.
const SHORTEST_PIECE: usize = 16;

/// Bytes in which a byte of a secret may be written: an escape for HTML of a code point, or `\u0041` in hexadecimal.
const WIDEST: usize = 12;

/// The most that [`Scrubber::margin`] asks for.
const MOST_MARGIN: usize = 256 << 10;

/// What to look for.
pub(super) struct Scrubber {
    /// By first byte; with the same first byte, longest first.
    needles: Vec<Needle>,
    /// Where in `needles` those that begin with a byte start; one more for the end.
    starts: [usize; 257],
    /// Bytes with which a secret may begin, as itself or as an escape.
    begins: [bool; 256],
    /// All pieces of four bytes, sorted.
    pieces: Zeroizing<Vec<u32>>,
    shortest: usize,
    longest: usize,
}

struct Needle {
    text: Zeroizing<String>,
    name: String,
}

impl Needle {
    fn bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Whether its beginning is to be hidden where a text was cut. That of an address is no secret, and shown on purpose.
    fn is_cut(&self) -> bool {
        !self.text.contains("://")
    }

    fn first(&self) -> u8 {
        self.bytes().first().copied().unwrap_or_default()
    }
}

/// A secret in a text.
#[derive(Debug, Clone, Copy)]
struct Found {
    start: usize,
    end: usize,
    needle: usize,
}

/// Which ends of a text are breaks within a longer one.
#[derive(Debug, Clone, Copy, Default)]
struct Breaks {
    before: bool,
    behind: bool,
}

/// How far a secret was found.
#[derive(Debug, Clone, Copy)]
struct Reach {
    /// In the text.
    end: usize,
    /// In the secret.
    until: usize,
}

impl Default for Scrubber {
    fn default() -> Self {
        Self {
            needles: Vec::new(),
            starts: [0; 257],
            begins: [false; 256],
            pieces: Zeroizing::default(),
            shortest: usize::MAX,
            longest: 0,
        }
    }
}

fn piece(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.first_chunk()?))
}

impl Scrubber {
    /// Looks for `value` from now on, and shows `name` for it.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let value = value.trim_end_matches(['\n', '\r']);
        if value.len() < SHORTEST {
            return;
        }
        self.need(name, value);
        // A secret of many lines (a key) may come out line by line.
        for line in value.lines().map(str::trim) {
            if line.len() >= SHORTEST_LINE && line.len() < value.len() {
                self.need(name, line);
            }
        }
        let key = |needle: &Needle| (needle.first(), std::cmp::Reverse(needle.text.len()));
        self.needles.sort_by_key(key);
        for byte in 0..self.starts.len() {
            self.starts[byte] = self.needles.partition_point(|needle| usize::from(needle.first()) < byte);
        }
        let first = |byte: u8| self.starts[usize::from(byte)] < self.starts[usize::from(byte) + 1];
        for byte in 0..=u8::MAX {
            self.begins[usize::from(byte)] = first(byte)
                || match byte {
                    b'%' | b'\\' | b'&' | b'=' => true,
                    b'+' => first(b' '),
                    _ => false,
                };
        }
        self.pieces.sort_unstable();
        self.pieces.dedup();
    }

    fn need(&mut self, name: &str, text: &str) {
        if self.needles.iter().any(|needle| *needle.text == text) {
            return;
        }
        self.pieces.extend(text.as_bytes().windows(SHORTEST).filter_map(piece));
        self.shortest = self.shortest.min(text.len());
        self.longest = self.longest.max(text.len());
        self.needles.push(Needle { text: Zeroizing::new(text.to_owned()), name: name.to_owned() });
    }

    /// How much of a text must be known on either side of a cut, so that a secret that lies across it is seen whole.
    pub(super) fn margin(&self) -> usize {
        if self.longest == 0 { 0 } else { (self.longest * WIDEST + 64).min(MOST_MARGIN) }
    }

    /// The part of `text` from byte `from` to byte `to` with secrets replaced; one that reaches over an end of the part is
    /// replaced as well.
    pub(super) fn scrub<'t>(&self, text: &'t str, from: usize, to: usize) -> Cow<'t, str> {
        let (from, to) = (text.floor_char_boundary(from), text.floor_char_boundary(to.max(from)));
        let mut shown = String::new();
        let mut done = from;
        for found in self.stretches(text) {
            if found.end <= from {
                continue;
            }
            if found.start >= to {
                break;
            }
            shown.push_str(text.get(done..found.start).unwrap_or_default());
            shown.push_str("<secret ");
            shown.push_str(&self.needles[found.needle].name);
            shown.push('>');
            done = found.end;
        }
        if shown.is_empty() {
            return Cow::Borrowed(text.get(from..to).unwrap_or_default());
        }
        shown.push_str(text.get(done..to).unwrap_or_default());
        Cow::Owned(shown)
    }

    /// Where secrets stand, in order. Secrets that overlap are one stretch.
    fn stretches(&self, text: &str) -> Vec<Found> {
        if self.needles.is_empty() || text.len() < self.shortest.min(SHORTEST_END) {
            return Vec::new();
        }
        let mut found = Vec::new();
        self.search(text.as_bytes(), 0, Breaks::default(), &mut found);
        found.sort_by_key(|found| (found.start, std::cmp::Reverse(found.end)));
        let mut stretches: Vec<Found> = Vec::new();
        for next in found {
            match stretches.last_mut() {
                Some(last) if next.start < last.end => last.end = last.end.max(next.end),
                _ => stretches.push(next),
            }
        }
        for stretch in &mut stretches {
            stretch.start = text.floor_char_boundary(stretch.start);
            stretch.end = text.ceil_char_boundary(stretch.end);
        }
        stretches
    }

    fn search(&self, bytes: &[u8], depth: u8, breaks: Breaks, found: &mut Vec<Found>) {
        if breaks.before {
            self.search_end(bytes, breaks, found);
        }
        for (start, byte) in bytes.iter().enumerate() {
            if self.begins[usize::from(*byte)]
                && let Some((end, needle)) = self.at(bytes, start, breaks)
            {
                found.push(Found { start, end, needle });
            }
        }
        if depth == DEEPEST {
            return;
        }
        let shortest = self.shortest.min(SHORTEST_END);
        for alphabet in [Alphabet::Base64, Alphabet::Hex] {
            alphabet.decode(bytes, shortest, self.margin() * 2, |decoded| {
                let breaks = Breaks { before: decoded.begins, behind: decoded.ends };
                let mut inner = Vec::new();
                self.search(decoded.bytes, depth + 1, breaks, &mut inner);
                for Found { start, end, needle } in inner {
                    let Some((start, mut end)) = decoded.place(start, end) else { continue };
                    // What fills the last group belongs to it.
                    while alphabet == Alphabet::Base64
                        && let Some(behind) = is(bytes, end, b'=')
                    {
                        end = behind;
                    }
                    found.push(Found { start, end, needle });
                }
            });
        }
    }

    /// The longest secret that begins at a place.
    fn at(&self, bytes: &[u8], start: usize, breaks: Breaks) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize)> = None;
        let mut try_all = |first: u8| {
            for needle in self.starts[usize::from(first)]..self.starts[usize::from(first) + 1] {
                let (text, cut) = (self.needles[needle].bytes(), self.needles[needle].is_cut());
                let Some(reach) = follow(bytes, (start, text, 0), breaks.behind, cut) else { continue };
                let whole = reach.until == text.len() || reach.until >= SHORTEST_END;
                if whole && best.is_none_or(|(end, _)| reach.end > end) {
                    best = Some((reach.end, needle));
                }
            }
        };
        let byte = bytes[start];
        try_all(byte);
        if introduces(byte) {
            let mut tried = BTreeSet::from([byte]);
            for reading in readings(bytes, start).escapes() {
                if let Some(first) = reading.bytes().first()
                    && tried.insert(*first)
                {
                    try_all(*first);
                }
            }
        }
        best
    }

    /// The end of a secret, or a piece of it, with which a decoded text begins.
    fn search_end(&self, bytes: &[u8], breaks: Breaks, found: &mut Vec<Found>) {
        for start in 0..SHORTEST.min(bytes.len()) {
            let Some(begin) = bytes.get(start..).and_then(piece) else { return };
            if self.pieces.binary_search(&begin).is_err() {
                continue;
            }
            for (needle, text) in self.needles.iter().map(Needle::bytes).enumerate() {
                for from in 1..text.len().saturating_sub(SHORTEST - 1) {
                    if piece(&text[from..]) != Some(begin) {
                        continue;
                    }
                    let Some(reach) = follow(bytes, (start, text, from), breaks.behind, false) else {
                        continue;
                    };
                    let least = if reach.until == text.len() { SHORTEST_END } else { SHORTEST_PIECE };
                    if reach.until - from >= least {
                        found.push(Found { start: 0, end: reach.end, needle });
                    }
                }
            }
        }
    }
}

/// How far the bytes of a secret behind `from` are found in a text behind `start`: to the secret's end, to a cut if it may be `cut`, or,
/// if the text is `broken` there, to the text's end.
fn follow(
    bytes: &[u8],
    (start, secret, from): (usize, &[u8], usize),
    broken: bool,
    cut: bool,
) -> Option<Reach> {
    let mut best: Option<Reach> = None;
    let mut reached = |reach: Reach| {
        if best.is_none_or(|best| (reach.until, reach.end) > (best.until, best.end)) {
            best = Some(reach);
        }
    };
    let mut places = vec![(from, start)];
    let mut tried: BTreeSet<(usize, usize)> = BTreeSet::new();
    while let Some((mut until, mut end)) = places.pop() {
        loop {
            if until == secret.len() {
                reached(Reach { end, until });
                break;
            }
            let Some(byte) = bytes.get(end) else {
                if broken {
                    reached(Reach { end, until });
                }
                break;
            };
            if introduces(*byte) {
                if tried.insert((until, end)) {
                    for reading in readings(bytes, end).iter() {
                        if secret[until..].starts_with(reading.bytes()) {
                            places.push((until + reading.bytes().len(), reading.end));
                        }
                    }
                }
                break;
            }
            if *byte != secret[until] {
                if cut && CUT.iter().any(|mark| bytes[end..].starts_with(mark)) {
                    reached(Reach { end, until });
                }
                break;
            }
            (until, end) = (until + 1, end + 1);
        }
    }
    best
}
