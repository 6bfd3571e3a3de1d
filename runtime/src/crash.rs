//! Places where a test lets the process die, as if by `kill -9`. Only debug builds have them.

/// Dies here if the variable `CONTRAFLOW_CRASH` names this place and how often it is passed first: `apply-after:3`.
#[cfg(debug_assertions)]
pub(crate) fn point(place: &'static str) {
    use std::{
        collections::HashMap,
        sync::{Mutex, OnceLock, PoisonError},
    };

    static WANTED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: Mutex<Option<HashMap<&'static str, u64>>> = Mutex::new(None);

    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("CONTRAFLOW_CRASH").ok()?;
        let (place, count) = text.split_once(':')?;
        Some((place.to_owned(), count.parse().ok()?))
    });
    let Some((wanted, count)) = wanted else { return };
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let n = passed.get_or_insert_default().entry(place).or_insert(0);
    *n += 1;
    if place == wanted && *n == *count {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::SIGKILL);
    }
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) fn point(_: &'static str) {}
