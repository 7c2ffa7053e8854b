//! The controllers of the embedded API: they follow its history as a client would and write through the same
//! operations. Binding of pods, health of nodes, garbage.
//!
//! Invariant: nothing here is needed for correctness of an answer; a controller that restarts reads the store again.

mod collector;
mod lifecycle;
mod placement;
mod room;
mod scheduler;

use std::time::Duration;

use tokio::sync::watch;

use super::history::Event;
use super::kind::{self, Kind};
use super::object::Object;
use super::store::{Store, StoreError};

use collector::Collector;
use lifecycle::Lifecycle;
use scheduler::Scheduler;

/// How often the controllers look at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failure of the store.
const RETRY: Duration = Duration::from_secs(2);
/// Events per round.
const BATCH: usize = 256;

/// Runs the controllers until the API stops.
pub async fn run(store: Store, lease_duration: Duration, mut stopped: watch::Receiver<bool>) {
    loop {
        let ended = tokio::select! {
            outcome = follow(&store, lease_duration) => outcome,
            stopped = stopped.wait_for(|stopped| *stopped) => {
                // A closed channel means the same: nobody can stop us any more, so the process is ending.
                drop(stopped);
                return;
            }
        };
        if let Err(error) = ended {
            log::warn!(error:% = error; "embedded API: the controllers start again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

/// Reads the state and follows the history until the store fails or the history is cut.
async fn follow(store: &Store, lease_duration: Duration) -> Result<(), StoreError> {
    let mut changed = store.history().subscribe();
    let mut cursor = store.read_async(|snapshot| snapshot.revision()).await?;
    let mut scheduler = Scheduler::default();
    let mut lifecycle = Lifecycle::new(lease_duration);
    let mut collector = Collector::default();
    for kind in [&kind::NAMESPACES, &kind::NODES, &kind::LEASES, &kind::PODS] {
        for_each(store, kind, |object| {
            scheduler.existing(kind, &object);
            lifecycle.existing(kind, &object);
            collector.existing(kind, &object);
        })
        .await?;
    }
    loop {
        changed.borrow_and_update();
        let Ok((events, upto)) = store.history().after(cursor, None, BATCH) else { return Ok(()) };
        let more = events.len() == BATCH;
        for event in &events {
            scheduler.observe(event);
            lifecycle.observe(event);
            collector.observe(event);
        }
        cursor = upto;
        scheduler.act(store).await?;
        lifecycle.act(store).await?;
        collector.act(store, scheduler.nodes()).await?;
        if more {
            continue;
        }
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// Visits every object of a kind, page by page.
async fn for_each(store: &Store, kind: &'static Kind, mut visit: impl FnMut(Object)) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.read_async(move |snapshot| snapshot.page(kind, "", after.as_ref(), 200)).await?;
        page.items.iter().filter_map(|(_, _, text)| parse(text)).for_each(&mut visit);
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn parse(text: &str) -> Option<Object> {
    Object::new(serde_json::from_str(text).ok()?).ok()
}

/// The object in an event.
fn object_of(event: &Event) -> Option<Object> {
    parse(&event.body)
}
