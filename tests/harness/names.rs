//! Names, values and ports that no other test uses.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use rand::Rng as _;

/// `<prefix>-<8 hexadecimal digits>`, random.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:08x}", rand::rng().random::<u32>())
}

/// A random reading with one decimal, from `low` to `low` + 20.
pub fn reading(low: u32) -> String {
    let mut random = rand::rng();
    format!("{}.{}", low + random.random_range(0..20), random.random_range(0..10))
}

// Below the range from which the system gives ports to outgoing connections (32768 and up), and not handed out twice.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A TCP port of 127.0.0.1 that is free now and is given to nobody else in this process.
///
/// # Panics
/// When there is none among 17,000.
pub fn port() -> u16 {
    // Two test processes start at different places.
    let start = u32::from(FIRST) + std::process::id() * 37 % u32::from(LAST - FIRST);
    for _ in FIRST..LAST {
        let offset = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let candidate = u32::from(FIRST) + (start - u32::from(FIRST) + offset) % u32::from(LAST - FIRST);
        let candidate = u16::try_from(candidate).expect("below LAST");
        if TcpListener::bind(("127.0.0.1", candidate)).is_ok() {
            return candidate;
        }
    }
    panic!("no free port between {FIRST} and {LAST}");
}
