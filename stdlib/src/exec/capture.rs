//! What a command prints: passed on line by line, and kept for the result, both bounded.
//!
//! A command may print a gigabyte in one line or in a billion. It is neither slowed down nor kept in memory: of the lines as
//! many are passed on as a person can follow, of the text the beginning and the end are kept.

use std::{io::BufRead, mem, time::Duration};

use contraflow_runtime::{effect::On, event::Stream, quantity::Size};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest part of a line that is passed on, in bytes.
const LONGEST_LINE: usize = 4096;
/// Lines that are passed on at once, after a quiet time.
const AT_ONCE: u32 = 200;
/// Lines that are passed on in each further second.
const PER_SECOND: u32 = 50;
/// A quiet time.
const QUIET: Duration = Duration::from_secs(10);
/// After this time without output the last line is passed on, so that one sees where a command hangs.
const IDLE: Duration = Duration::from_secs(1);

/// One stream of a command.
pub(super) struct Capture {
    stream: Stream,
    /// Bytes to keep.
    keep: usize,
    /// Bytes around every cut, so that a secret that lies across it is seen whole.
    margin: usize,
    total: u64,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// The line that is being printed.
    line: Line,
    /// What was printed before it, so that a secret of several lines is seen: base64 is printed like that.
    before: Vec<u8>,
    rate: Rate,
    /// Lines not passed on, and the last of them.
    hidden: u64,
    last_hidden: Line,
}

/// The kept text of a stream.
pub(super) struct Kept {
    pub(super) text: String,
    pub(super) truncated: bool,
}

/// A line, as far as it is passed on.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    length: usize,
}

impl Line {
    fn push(&mut self, bytes: &[u8], room: usize) {
        self.length = self.length.saturating_add(bytes.len());
        let room = room.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
    }
}

/// How many lines may still be passed on.
struct Rate {
    left: u32,
    since: Duration,
}

impl Rate {
    fn allows(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.since);
        if passed >= IDLE {
            self.left = if passed >= QUIET { AT_ONCE } else { self.left.max(PER_SECOND) };
            self.since = now;
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

impl Capture {
    pub(super) fn new(on: &On, stream: Stream, keep: Size) -> Self {
        Self {
            stream,
            keep: usize::try_from(keep.0).unwrap_or(usize::MAX),
            // And a little for a character that is cut.
            margin: on.vault().margin() + 4,
            total: 0,
            head: Vec::new(),
            tail: Vec::new(),
            line: Line::default(),
            before: Vec::new(),
            rate: Rate { left: AT_ONCE, since: on.clock().monotonic() },
            hidden: 0,
            last_hidden: Line::default(),
        }
    }

    /// Takes all that comes from `pipe`, until it is closed.
    pub(super) async fn read(&mut self, on: &On, mut pipe: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = if self.hidden == 0 {
                pipe.read(&mut buffer).await
            } else {
                tokio::select! {
                    biased;
                    read = pipe.read(&mut buffer) => read,
                    () = on.clock().sleep(IDLE) => {
                        self.show_last_hidden(on);
                        continue;
                    }
                }
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(n) => self.take(on, &buffer[..n]),
            }
        }
    }

    fn take(&mut self, on: &On, chunk: &[u8]) {
        self.keep(chunk);
        let room = LONGEST_LINE + self.margin;
        let now = on.clock().monotonic();
        let mut rest = chunk;
        while let Some((line, after)) = split_line(rest) {
            self.line.push(line, room);
            rest = after;
            if self.rate.allows(now) {
                self.show_last_hidden(on);
                self.show(on, &self.line);
                self.remember();
                self.line.clear();
                continue;
            }
            self.hide();
            // No further line of this chunk is shown: they are counted, and the last is remembered.
            if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                let lines = &rest[..end];
                let start = lines.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                self.hidden += lines[..start].iter().filter(|byte| **byte == b'\n').count() as u64;
                self.line.push(&lines[start..], room);
                self.hide();
                rest = &rest[end + 1..];
            }
            break;
        }
        self.line.push(rest, room);
    }

    /// Keeps the line that was shown as what comes before the next.
    fn remember(&mut self) {
        self.before.extend_from_slice(&self.line.bytes);
        self.before.push(b'\n');
        self.before.drain(..self.before.len().saturating_sub(self.margin));
    }

    fn hide(&mut self) {
        // What comes before is not known any more; what a line shows by itself is still seen.
        self.before.clear();
        self.hidden += 1;
        mem::swap(&mut self.line, &mut self.last_hidden);
        self.line.clear();
    }

    fn show_last_hidden(&mut self, on: &On) {
        if self.hidden > 1 {
            let hidden = self.hidden - 1;
            let lines = if hidden == 1 { "line" } else { "lines" };
            on.output(self.stream, &format!("… {hidden} {lines} not shown"));
        }
        if self.hidden > 0 {
            self.show(on, &self.last_hidden);
        }
        self.hidden = 0;
    }

    fn show(&self, on: &On, line: &Line) {
        let bytes = line.bytes.strip_suffix(b"\r").unwrap_or(&line.bytes);
        let (shown, margin) = lossy_at(bytes, LONGEST_LINE);
        let before = String::from_utf8_lossy(&self.before);
        let whole = format!("{before}{shown}{margin}");
        let text = on.vault().scrub_part(&whole, before.len(), before.len() + shown.len());
        // Progress bars print over what they printed before.
        let text = text.rsplit('\r').next().unwrap_or_default();
        if line.length > LONGEST_LINE {
            let more = Size((line.length - LONGEST_LINE) as u64);
            on.output(self.stream, &format!("{text}… {more} more"));
        } else {
            on.output(self.stream, text);
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        self.total += chunk.len() as u64;
        let room = (self.keep + self.margin).saturating_sub(self.head.len()).min(chunk.len());
        self.head.extend_from_slice(&chunk[..room]);
        let most = self.keep / 2 + self.margin;
        self.tail.extend_from_slice(&chunk[chunk.len().saturating_sub(most)..]);
        // Moved down only now and then: each byte is copied a constant number of times.
        if self.tail.len() > most * 2 + (64 << 10) {
            self.tail.drain(..self.tail.len() - most);
        }
    }

    /// Passes on what is left after the stream has ended.
    pub(super) fn end(&mut self, on: &On) {
        self.show_last_hidden(on);
        if self.line.length > 0 {
            let line = mem::take(&mut self.line);
            self.show(on, &line);
        }
    }

    /// The kept text, scrubbed. If it was cut, the cut is marked.
    pub(super) fn kept(&self, on: &On) -> Kept {
        if self.total <= self.keep as u64 {
            let text = String::from_utf8_lossy(&self.head);
            return Kept { text: on.vault().scrub(&text).into_owned(), truncated: false };
        }
        let half = self.keep / 2;
        let (head, margin) = lossy_at(&self.head, half);
        let whole = format!("{head}{margin}");
        let head = on.vault().scrub_part(&whole, 0, head.len()).into_owned();
        let tail = &self.tail[self.tail.len().saturating_sub(half + self.margin)..];
        let (margin, tail) = lossy_at(tail, tail.len().saturating_sub(half));
        let whole = format!("{margin}{tail}");
        let tail = on.vault().scrub_part(&whole, margin.len(), whole.len());
        let left_out = Size(self.total - 2 * half as u64);
        let newline = if head.is_empty() || head.ends_with('\n') { "" } else { "\n" };
        Kept { text: format!("{head}{newline}… {left_out} not kept …\n{tail}"), truncated: true }
    }
}

/// The first line without its end, and what follows.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // The standard library's own search is fast in every kind of build.
    let length = (&mut &*bytes).skip_until(b'\n').unwrap_or_default();
    let (line, rest) = bytes.split_at(length);
    Some((line.strip_suffix(b"\n")?, rest))
}

/// The text up to byte `at` and the text from there, cut between characters.
fn lossy_at(bytes: &[u8], at: usize) -> (String, String) {
    let mut at = at.min(bytes.len());
    // A character has at most three bytes after its first.
    for _ in 0..3 {
        if at > 0 && bytes.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {
            at -= 1;
        }
    }
    let (before, after) = bytes.split_at(at);
    (String::from_utf8_lossy(before).into_owned(), String::from_utf8_lossy(after).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use contraflow_runtime::{
        event::{Envelope, Event, Sink, heard_by},
        provider::Providers,
    };
    use zeroize::Zeroizing;

    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl Sink for Lines {
        fn event(&self, event: &Envelope) {
            if let Event::Output { line, .. } = &event.event {
                self.0.lock().expect("lock").push(line.clone());
            }
        }
    }

    /// What is passed on and what is kept when `chunks` are printed and `keep` bytes kept.
    fn captured<'c>(keep: u64, chunks: impl IntoIterator<Item = &'c [u8]>) -> (Vec<String>, Kept) {
        let lines = Arc::new(Lines::default());
        let on = heard_by(lines.clone(), &On::detached(Arc::new(Providers::new("test"))));
        on.vault().keep("token", Zeroizing::new("hunter2-hunter2".to_owned()));
        let mut capture = Capture::new(&on, Stream::Stdout, Size(keep));
        for chunk in chunks {
            capture.take(&on, chunk);
        }
        capture.end(&on);
        let kept = capture.kept(&on);
        let lines = lines.0.lock().expect("lock").clone();
        (lines, kept)
    }

    fn text(keep: u64, text: &str) -> (Vec<String>, Kept) {
        captured(keep, [text.as_bytes()])
    }

    #[test]
    fn short_output_is_passed_on_and_kept_as_it_is() {
        let (lines, kept) = text(64, "one\r\ntwo\n\n 10%\r 20%\nlast");
        assert_eq!(lines, ["one", "two", "", " 20%", "last"]);
        assert_eq!(kept.text, "one\r\ntwo\n\n 10%\r 20%\nlast");
        assert!(!kept.truncated);
    }

    #[test]
    fn of_long_output_beginning_and_end_are_kept() {
        let (_, kept) = text(10, "abcdefghijklmnopqrstuvwxyz");
        assert_eq!(kept.text, "abcde\n… 16B not kept …\nvwxyz");
        assert!(kept.truncated);
        let (_, kept) = text(26, "abcdefghijklmnopqrstuvwxyz");
        assert!(!kept.truncated);
        let (_, kept) = text(0, "abc");
        assert_eq!(kept.text, "… 3B not kept …\n");
        // Cut between characters, also where a half is in the middle of one.
        let (_, kept) = text(7, "ääääääää");
        assert_eq!(kept.text, "ä\n… 10B not kept …\nää");
    }

    #[test]
    fn a_secret_across_chunks_is_scrubbed_wherever_it_is_split() {
        let printed = b"token: hunter2-hunter2 ok\n";
        for at in 0..printed.len() {
            let (lines, kept) = captured(64, [&printed[..at], &printed[at..]]);
            assert_eq!(lines, ["token: <secret token> ok"]);
            assert_eq!(kept.text, "token: <secret token> ok\n");
        }
    }

    #[test]
    fn a_secret_across_a_cut_leaves_no_piece_behind() {
        for before in 0..60 {
            let printed = format!("{}hunter2-hunter2{}", "a".repeat(before), "b".repeat(60 - before));
            for keep in [10, 20, 30, 40] {
                let (_, kept) = captured(keep, printed.as_bytes().chunks(7));
                for piece in ["hun", "er2", "2-h"] {
                    assert!(!kept.text.contains(piece), "{before} {keep}: {}", kept.text);
                }
            }
        }
        for before in LONGEST_LINE - 20..LONGEST_LINE + 20 {
            let printed = format!("{}hunter2-hunter2{}\n", "a".repeat(before), "b".repeat(60));
            let (lines, _) = captured(64, printed.as_bytes().chunks(1000));
            assert_eq!(lines.len(), 1);
            assert!(!lines[0].contains("hun") && !lines[0].contains("er2"), "{before}: {}", lines[0]);
        }
    }

    #[test]
    fn a_secret_in_base64_over_several_lines_is_scrubbed_in_each() {
        // The last line holds two bytes of it.
        for (printed, lines) in [
            (
                "x\naHVudGVy\nMi1odW50\nZXIy\ny\n",
                ["x", "<secret token>", "<secret token>", "<secret token>", "y"],
            ),
            (
                "x\n68756e746572322d68\n756e74657232\n\ny\n",
                ["x", "<secret token>", "<secret token>", "", "y"],
            ),
        ] {
            for size in [printed.len(), 1, 5] {
                assert_eq!(captured(64, printed.as_bytes().chunks(size)).0, lines);
            }
        }
    }

    #[test]
    fn a_long_line_is_cut() {
        let (lines, _) = text(64, &"x".repeat(10_000));
        assert_eq!(lines, [format!("{}… 5.8KiB more", "x".repeat(LONGEST_LINE))]);
    }

    #[test]
    fn of_many_lines_some_are_passed_on_and_the_rest_is_counted() {
        let printed: String = (1..=1000).map(|n| format!("{n}\n")).collect();
        // One chunk, and chunks that split lines.
        for size in [printed.len(), 7] {
            let (lines, _) = captured(64, printed.as_bytes().chunks(size));
            let at_once = AT_ONCE as usize;
            assert_eq!(lines.len(), at_once + 2);
            assert_eq!(lines[at_once - 1..], ["200", "… 799 lines not shown", "1000"]);
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_anything() {
        let (lines, kept) = captured(64, [&b"a\xff\xfeb\n"[..]]);
        assert_eq!(lines, ["a\u{fffd}\u{fffd}b"]);
        assert_eq!(kept.text, "a\u{fffd}\u{fffd}b\n");
    }

    #[test]
    fn lines_come_back_after_a_second_and_all_after_a_quiet_time() {
        let at = Duration::from_secs;
        let mut rate = Rate { left: AT_ONCE, since: at(0) };
        let burst = |rate: &mut Rate, now| (0..1000).filter(|_| rate.allows(now)).count();
        assert_eq!(burst(&mut rate, at(0)), 200);
        assert_eq!(burst(&mut rate, at(1)), 50);
        assert_eq!(burst(&mut rate, Duration::from_millis(1500)), 0);
        assert_eq!(burst(&mut rate, at(20)), 200);
    }
}
