//! A lock that serves in the order of asking.
//!
//! Five actors write through one connection. `std`'s mutex lets whoever runs take it again, so a
//! busy Twin could keep Membership waiting without bound; here each waits for those before it.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds one value for one thread at a time, first come, first served.
///
/// A panic while the value is held gives it back: whoever holds it keeps it consistent in `Drop`
/// (the store rolls its transaction back).
pub(super) struct FairLock<T> {
    queue: Mutex<Queue<T>>,
    turn: Condvar,
}

struct Queue<T> {
    next: u64,
    serving: u64,
    value: Option<T>,
}

impl<T> FairLock<T> {
    pub(super) fn new(value: T) -> Self {
        Self { queue: Mutex::new(Queue { next: 0, serving: 0, value: Some(value) }), turn: Condvar::new() }
    }

    /// Waits for its turn.
    pub(super) fn lock(&self) -> Held<'_, T> {
        let mut queue = self.queue();
        let ticket = queue.next;
        queue.next += 1;
        loop {
            if queue.serving == ticket
                && let Some(value) = queue.value.take()
            {
                return Held { lock: self, value: Some(value) };
            }
            queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many threads wait or work.
    pub(super) fn waiting(&self) -> u64 {
        let queue = self.queue();
        queue.next - queue.serving
    }

    // Nothing in here can panic while the queue is locked, so a poisoned one is as good as any.
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The value, until it is dropped.
pub(super) struct Held<'l, T> {
    lock: &'l FairLock<T>,
    value: Option<T>,
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_ref().expect("taken only in drop")
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("taken only in drop")
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let mut queue = self.lock.queue();
        queue.value = self.value.take();
        queue.serving += 1;
        drop(queue);
        self.lock.turn.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

    use std::panic::AssertUnwindSafe;
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn those_who_wait_are_served_in_the_order_of_asking() {
        let lock = Arc::new(FairLock::new(Vec::new()));
        let first = lock.lock();
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let theirs = Arc::clone(&lock);
                let thread = thread::spawn(move || theirs.lock().push(number));
                while lock.waiting() < number + 2 {
                    thread::yield_now();
                }
                thread
            })
            .collect();
        drop(first);
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*lock.lock(), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_of_the_holder_gives_the_value_back() {
        let lock = FairLock::new(1);
        let died = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut held = lock.lock();
            *held = 2;
            panic!("while holding");
        }));
        assert!(died.is_err());
        assert_eq!(*lock.lock(), 2);
    }
}
