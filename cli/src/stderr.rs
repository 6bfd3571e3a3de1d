//! Standard error: what is wrong, and the log of the program itself. A reader that is slow, gone or asleep, and a full disk, lose
//! lines and nothing else.

use std::{
    io::{self, Write},
    sync::OnceLock,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::{background::Background, report::format::harmless};

/// Most pieces of text that wait to be written.
const MOST: usize = 8192;

/// How long a reader that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

fn queue() -> &'static Background<Vec<u8>> {
    static QUEUE: OnceLock<Background<Vec<u8>>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        Background::new("stderr", MOST, |text: Vec<u8>, dropped| {
            let mut stderr = io::stderr();
            // There is nowhere left to complain to.
            if dropped > 0 {
                let _ = writeln!(stderr, "({dropped} lines of the log were dropped: nobody read them)");
            }
            let _ = stderr.write_all(&text).and_then(|()| stderr.flush());
        })
    })
}

/// Writes text that a person waits for. Returns once it is there, or after a while without.
pub(crate) fn write(text: &str) {
    if text.is_empty() {
        return;
    }
    queue().give(harmless(text).into_owned().into_bytes());
    queue().settle(PATIENCE);
}

/// Where log lines go: never an error, never held up.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        queue().give(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}
