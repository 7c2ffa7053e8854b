//! A watch of one kind of object that tells an actor what it sees, survives the API server's absences, and ends with
//! its actor.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actor::{Handle, Mail};
use futures_util::{StreamExt, pin_mut};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::standing::Standing;

/// One step of a watch. After `Begin` every object that exists is `Listed`, then `Complete`: what was known before and
/// was not listed is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// A full list begins.
    Begin,
    /// An object of the full list.
    Listed(T),
    /// The full list is complete.
    Complete,
    /// An object was added or changed.
    Applied(T),
    /// An object was deleted; this was its last form.
    Deleted(T),
}

impl<T> Change<T> {
    /// The same step about another form of the object; `None` when the object cannot be used.
    pub fn filter_map<U>(self, form: impl FnOnce(T) -> Option<U>) -> Option<Change<U>> {
        Some(match self {
            Self::Begin => Change::Begin,
            Self::Complete => Change::Complete,
            Self::Listed(object) => Change::Listed(form(object)?),
            Self::Applied(object) => Change::Applied(form(object)?),
            Self::Deleted(object) => Change::Deleted(form(object)?),
        })
    }
}

/// Tells the watches of one incarnation of an actor from those of the one before, whose last messages may still be in
/// the mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// One that was never used in this process.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A running watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch(tokio::task::JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Watches all objects of `api` that `config` selects, for as long as the result lives.
///
/// Whether it stands is told to `standing`. Each step goes through `message` to `to`, waiting for room, which holds the API server's stream back. Errors are
/// logged once per outage; the watch goes on with exponential back-off ([`PAUSE_MIN`] to [`PAUSE_MAX`]).
pub fn watch<K, M>(
    api: Api<K>,
    config: watcher::Config,
    to: Handle<M>,
    what: &'static str,
    standing: &Standing,
    mut message: impl FnMut(Change<K>) -> Option<M> + Send + 'static,
) -> Watch
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    M: Mail,
{
    let standing = standing.clone();
    standing.watch_begins(what);
    let task = async move {
        let mut failing = false;
        loop {
            let stream = watcher::watcher(api.clone(), config.clone())
                .backoff(Pause::default())
                // Who changed which field when is half of an object and nothing the edge reads.
                .modify(|object| object.managed_fields_mut().clear());
            pin_mut!(stream);
            while let Some(step) = stream.next().await {
                let change = match step {
                    Ok(event) => {
                        if failing {
                            failing = false;
                            log::info!(watch = what; "watch resumed");
                        }
                        match &event {
                            // A list that has begun can still fail; whatever comes after it cannot come without it.
                            watcher::Event::Init | watcher::Event::InitApply(_) => {}
                            watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_) => standing.watch_stands(what),
                        }
                        match event {
                            watcher::Event::Init => Change::Begin,
                            watcher::Event::InitApply(object) => Change::Listed(object),
                            watcher::Event::InitDone => Change::Complete,
                            watcher::Event::Apply(object) => Change::Applied(object),
                            watcher::Event::Delete(object) => Change::Deleted(object),
                        }
                    }
                    Err(error) => {
                        standing.watch_failed(what, &why(&error));
                        if !failing {
                            failing = true;
                            log::warn!(watch = what, error = why(&error).as_str(); "watch interrupted, it is tried again");
                        }
                        if is_gone(&error) {
                            break;
                        }
                        continue;
                    }
                };
                let Some(message) = message(change) else { continue };
                if to.send(message).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(PAUSE_MIN).await;
        }
    };
    Watch(tokio::spawn(task))
}

/// Whether the API server has forgotten the version that the watch stands at: everything must be listed again. `kube`
/// does that by itself when it hears so within a watch, but not when the watch is refused.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// The error without the whole Status that `kube` prints after it.
fn why(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}

/// Pause after the first failure of a watch.
pub const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries. Short, because a handful of watches does not burden an API server, and each second
/// here is a second in which edges work with old objects after an outage.
pub const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Doubling pauses with up to a quarter of jitter.
#[derive(Debug)]
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        Some(pause.mul_f64(rand::random_range(0.75..=1.0)))
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The settings of every watch here: short enough to notice a connection that died silently.
pub fn settings() -> watcher::Config {
    watcher::Config::default().timeout(u32::try_from(WATCH_TIMEOUT.as_secs()).expect("a few minutes"))
}

/// How long one watch request lasts before it is renewed.
const WATCH_TIMEOUT: Duration = Duration::from_secs(290);
