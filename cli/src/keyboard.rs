//! The lines that a person types. One thread reads them; whoever asked last gets the next one.

use std::{
    io::{BufRead as _, stdin},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;

static WAITING: Mutex<Vec<(u64, oneshot::Sender<Option<String>>)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(0);
static READER: Once = Once::new();

fn waiting() -> MutexGuard<'static, Vec<(u64, oneshot::Sender<Option<String>>)>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a place back when whoever waits for a line gives up.
struct Place(u64);

impl Drop for Place {
    fn drop(&mut self) {
        waiting().retain(|(n, _)| *n != self.0);
    }
}

/// The next line, without its end. `None`: the input has ended. Giving up loses no line.
pub(crate) async fn line() -> Option<String> {
    let (send, receive) = oneshot::channel();
    let place = Place(NEXT.fetch_add(1, Ordering::Relaxed));
    waiting().push((place.0, send));
    READER.call_once(|| {
        std::thread::spawn(read);
    });
    let line = receive.await.ok().flatten();
    drop(place);
    line
}

fn read() {
    loop {
        let mut text = String::new();
        let line = match stdin().lock().read_line(&mut text) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
        };
        let over = line.is_none();
        // A line that nobody waits for is kept until somebody does.
        while !hand_over(&line) {
            std::thread::sleep(PATIENCE);
        }
        if over {
            break;
        }
    }
    loop {
        // Whoever asks from now on is told the same.
        hand_over(&None);
        std::thread::sleep(PATIENCE);
    }
}

/// How often to look for somebody who asks.
const PATIENCE: std::time::Duration = std::time::Duration::from_millis(20);

/// Gives a line to whoever asked last. `false`: nobody waits.
fn hand_over(line: &Option<String>) -> bool {
    loop {
        let Some((_, asker)) = waiting().pop() else { return false };
        if asker.send(line.clone()).is_ok() {
            return true;
        }
    }
}
