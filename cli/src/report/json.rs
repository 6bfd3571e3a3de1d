//! `--output json`: each event as one line of JSON.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use contraflow_runtime::event::{Envelope, Sink};

use super::Out;

/// Writes one envelope a line, each as soon as it happened.
pub(crate) struct JsonLines {
    out: Mutex<Out>,
    closed: Arc<AtomicBool>,
}

impl JsonLines {
    /// Writes to `out`.
    pub(crate) fn new(out: Out) -> Self {
        Self { closed: out.closed(), out: Mutex::new(out) }
    }

    /// Whether nobody reads any more. Events are then dropped; the run goes on.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

impl Sink for JsonLines {
    fn event(&self, event: &Envelope) {
        if self.is_closed() {
            return;
        }
        // Every field of an event has a JSON form: keys are strings, numbers are finite.
        if let Ok(mut line) = serde_json::to_string(event) {
            line.push('\n');
            self.out.lock().unwrap_or_else(PoisonError::into_inner).write(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::report::samples::{self, Buffer};

    #[test]
    fn each_event_is_one_line_that_reads_back() {
        let buffer = Buffer::default();
        let sink = JsonLines::new(Out::new(buffer.clone()));
        let events = samples::incomplete();
        events.iter().for_each(|event| sink.event(event));
        let text = buffer.text();
        let read: Vec<Envelope> =
            text.lines().map(|line| serde_json::from_str(line).expect("one event")).collect();
        assert_eq!(read, events);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn fields_are_named_as_documented() {
        let buffer = Buffer::default();
        let sink = JsonLines::new(Out::new(buffer.clone()));
        sink.event(&samples::success()[3]);
        insta::assert_snapshot!(buffer.text(), @r#"{"v":1,"run":"01K3","at":"2026-03-01T12:00:03Z","event":"effect_ended","id":"preflight/1:probe.http","kind":"read","effect":"probe.http","grade":"observed","attempts":1,"elapsed_ms":12,"result":"answered","text":"200 in 12ms"}"#);
    }

    struct Gone(Arc<std::sync::atomic::AtomicUsize>);

    impl io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_ends_the_output_quietly() {
        let writes = Arc::default();
        let sink = JsonLines::new(Out::new(Gone(Arc::clone(&writes))));
        assert!(!sink.is_closed());
        samples::success().iter().for_each(|event| sink.event(event));
        assert!(sink.is_closed());
        assert_eq!(writes.load(Ordering::Relaxed), 1, "nothing is sent after the first refusal");
    }
}
