//! Waiting for what must become true.

use std::time::{Duration, Instant};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until `check` gives a value; its error says what was seen instead.
///
/// # Panics
/// After `within`, with `what` and what was seen last.
#[track_caller]
pub fn eventually<T, E: std::fmt::Display>(what: &str, within: Duration, mut check: impl FnMut() -> Result<T, E>) -> T {
    let began = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) if began.elapsed() >= within => panic!("not within {} s: {what}; last seen: {seen}", within.as_secs()),
            Err(_) => pause(),
        }
    }
}

/// Looks for the whole time `during`, and fails as soon as `check` sees what must not happen.
///
/// # Panics
/// With `what` and what was seen.
#[track_caller]
pub fn never<E: std::fmt::Display>(what: &str, during: Duration, mut check: impl FnMut() -> Result<(), E>) {
    let began = Instant::now();
    while began.elapsed() < during {
        if let Err(seen) = check() {
            panic!("happened after {} ms, and must not: {what}; seen: {seen}", began.elapsed().as_millis());
        }
        pause();
    }
}

// The one place of the tests that sleeps: between two looks at other processes, which cannot wake us.
#[allow(clippy::disallowed_methods)]
pub(crate) fn pause() {
    std::thread::sleep(PAUSE);
}

/// `eventually!(30, "what", expression)`: waits up to 30 s until the `Result` of the expression is `Ok`, and gives its value.
#[macro_export]
macro_rules! eventually {
    ($seconds:expr, $what:expr, $check:expr $(,)?) => {
        $crate::wait::eventually($what, std::time::Duration::from_secs($seconds), || $check)
    };
}
