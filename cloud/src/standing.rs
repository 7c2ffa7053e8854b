//! How the API stands, as one module sees it: its watches and its requests. Read by the page without asking anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Clock as _, SystemClock};
use serde::Serialize;

use crate::cluster::ClusterError;

/// Longest text of an error that is kept, in characters.
const ERROR_CHARS_MAX: usize = 300;
/// A failure counts for so long unless it is followed by a success.
const RECENT: Duration = Duration::from_secs(15);

/// What one module and its earlier incarnations have seen of the API. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    in_flight: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    watches: Mutex<BTreeMap<&'static str, Watched>>,
    last: Mutex<Last>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Everything was listed once.
    listed: bool,
    failed: Option<Instant>,
}

impl Watched {
    fn stands(self) -> bool {
        self.listed && !is_recent(self.failed)
    }
}

#[derive(Debug, Default)]
struct Last {
    /// When the last request was not answered at all.
    unanswered: Option<Instant>,
    error: Option<Failure>,
}

/// While the API is away it is tried about once a second. That it is back is not always said: a watch that goes on is
/// silent until something changes.
fn is_recent(failed: Option<Instant>) -> bool {
    failed.is_some_and(|at| at.elapsed() < RECENT)
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// In words; never what was written.
    pub error: String,
    /// When, in ms since 1970.
    pub at_ms: i64,
}

/// The same as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiSnapshot {
    /// Watches, and whether each stands; one that failed in the last seconds does not.
    pub watches: BTreeMap<&'static str, bool>,
    /// Requests that wait for their answer.
    pub in_flight: u64,
    /// Requests since the start.
    pub requests: u64,
    /// Those that failed, refusals and conflicts among them.
    pub failed: u64,
    /// The last one of those, or the last interruption of a watch.
    pub last_error: Option<Failure>,
}

impl Standing {
    /// As it is now.
    #[must_use]
    pub fn snapshot(&self) -> ApiSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ApiSnapshot {
            watches: lock(&self.0.watches).iter().map(|(what, watched)| (*what, watched.stands())).collect(),
            in_flight: read(&self.0.in_flight),
            requests: read(&self.0.requests),
            failed: read(&self.0.failed),
            last_error: lock(&self.0.last).error.clone(),
        }
    }

    /// Why the API cannot be used, if it cannot.
    ///
    /// # Errors
    /// A watch that does not stand, or a last request that nobody answered.
    pub fn check(&self) -> Result<(), String> {
        let down: Vec<&str> = lock(&self.0.watches).iter().filter(|(_, watched)| !watched.stands()).map(|(watch, _)| *watch).collect();
        let last = lock(&self.0.last);
        let why = || last.error.as_ref().map(|failure| format!(": {}", failure.error)).unwrap_or_default();
        if !down.is_empty() {
            return Err(format!("no watch of {}{}", down.join(", "), why()));
        }
        if is_recent(last.unanswered) { Err(format!("the API does not answer{}", why())) } else { Ok(()) }
    }

    /// A watch begins.
    pub(crate) fn watch_begins(&self, what: &'static str) {
        lock(&self.0.watches).insert(what, Watched::default());
    }

    /// A watch has listed everything, or goes on.
    pub(crate) fn watch_stands(&self, what: &'static str) {
        lock(&self.0.watches).insert(what, Watched { listed: true, failed: None });
    }

    /// A watch was interrupted, or could not begin.
    pub(crate) fn watch_failed(&self, what: &'static str, error: &str) {
        lock(&self.0.watches).entry(what).or_default().failed = Some(Instant::now());
        self.note_error(&format!("watch of {what}: {error}"));
    }

    fn note_error(&self, error: &str) {
        let error = error.chars().take(ERROR_CHARS_MAX).collect();
        lock(&self.0.last).error = Some(Failure { error, at_ms: SystemClock.now().millis() });
    }

    /// Counts a request while it runs, and what came of it.
    pub(crate) async fn count<T>(&self, request: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
        let _running = Running::begin(&self.0.in_flight);
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let result = request.await;
        let unanswered = matches!(result, Err(ClusterError::Unavailable(_))).then(Instant::now);
        if let Err(error) = &result {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            // That something is not there is an answer.
            if !matches!(error, ClusterError::NotFound) {
                self.note_error(&error.to_string());
            }
        }
        lock(&self.0.last).unanswered = unanswered;
        result
    }
}

/// A request that is dropped half-way is in flight no more.
struct Running<'a>(&'a AtomicU64);

impl<'a> Running<'a> {
    fn begin(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Under these locks values are set one by one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    #[test]
    fn the_api_is_well_while_its_watches_stand_and_it_answers_even_with_a_refusal() {
        actix_rt::System::new().block_on(async {
            let standing = Standing::default();
            standing.watch_begins("pods");
            assert_eq!(standing.check().unwrap_err(), "no watch of pods");
            standing.watch_stands("pods");
            assert_eq!(standing.check(), Ok(()));
            standing.watch_failed("pods", "connection refused");
            assert_eq!(standing.check().unwrap_err(), "no watch of pods: watch of pods: connection refused");
            standing.watch_stands("pods");
            let refused = standing.count(async { Err::<(), _>(ClusterError::Refused { code: 403, message: "no".into() }) }).await;
            assert!(refused.is_err());
            assert_eq!(standing.check(), Ok(()));
            let _ = standing.count(async { Err::<(), _>(ClusterError::Unavailable("connection refused".into())) }).await;
            assert!(standing.check().unwrap_err().contains("connection refused"));
            standing.count(async { Ok(()) }).await.unwrap();
            let seen = standing.snapshot();
            assert_eq!((standing.check(), seen.requests, seen.failed, seen.in_flight), (Ok(()), 3, 2, 0));
        });
    }
}
