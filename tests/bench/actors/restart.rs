//! Restart: from a panic to the first message that the next incarnation handles, with a full mailbox behind it.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use actix_rt::System;
use actor::{ChildSpec, Handle, Lease, Mail, Policy, Supervisor};
use tokio::sync::mpsc;

use crate::Outcome;
use crate::figures::{Figures, Goal, quantile};

/// Series of panics; each gives a p99.
const SERIES: usize = 5;
/// Panics in one series.
const PANICS: usize = 200;
/// Messages handled before the panic.
const BEFORE: u32 = 5_000;
/// Messages that wait at the moment of the panic, behind the one that causes it.
const BEHIND: u32 = 10_000;
const LAST: u32 = BEFORE + 1 + BEHIND;
/// Longer than anything that goes right.
const DEADLINE: Duration = Duration::from_secs(30);

enum Load {
    /// Holds the actor until everything is queued.
    Hold(Mutex<Receiver<()>>),
    /// One of 1 … [`LAST`]; the one after [`BEFORE`] panics once.
    Item(u32),
}
impl Mail for Load {
    fn kind(&self) -> &'static str {
        match self {
            Self::Hold(_) => "Hold",
            Self::Item(_) => "Item",
        }
    }
}

/// What outlives an incarnation.
#[derive(Default)]
struct Record {
    armed: bool,
    panicked: Option<Instant>,
    resumed: Option<Instant>,
    seen: Vec<u32>,
}

struct Fragile {
    record: Arc<Mutex<Record>>,
    ends: mpsc::UnboundedSender<()>,
}
impl Actor for Fragile {
    type Context = Context<Self>;
}
impl Handler<Lease<Load>> for Fragile {
    type Result = ();
    fn handle(&mut self, lease: Lease<Load>, _: &mut Self::Context) {
        lease.each(|_, load| match load {
            // A sender that is gone releases, too.
            Load::Hold(released) => drop(lock(released).recv_timeout(DEADLINE)),
            Load::Item(number) => self.item(*number),
        });
    }
}

impl Fragile {
    fn item(&self, number: u32) {
        let mut record = lock(&self.record);
        if number == BEFORE + 1 {
            if std::mem::take(&mut record.armed) {
                record.panicked = Some(Instant::now());
                drop(record);
                panic!("as the benchmark wants it");
            }
            record.resumed = Some(Instant::now());
        }
        record.seen.push(number);
        if number == LAST {
            // Nobody listens only while the scenario ends.
            let _ = self.ends.send(());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn run(figures: &mut Figures) -> Outcome {
    for batch in [1, 512] {
        let times = System::new().block_on(measure(batch))?;
        let of_each = |of: f64| times.chunks(PANICS).map(|series| quantile(series, of)).collect::<Vec<_>>();
        let title = format!("restart, {BEHIND} waiting, batch {batch}");
        figures.add(format!("{title}: p50"), "ms", &of_each(0.5));
        figures.add(format!("{title}: p99 of {PANICS}"), "ms", &of_each(0.99)).goal(Goal::AtMost(5.0));
        figures.add(format!("{title}: max of {PANICS}"), "ms", &of_each(1.0));
    }
    Ok(())
}

async fn measure(batch: usize) -> Result<Vec<f64>, String> {
    // Twice the room: the repetition before is told of its last message before the mailbox has taken it off its books.
    let handle = actor::mailbox("fragile", 2 * LAST as usize);
    let record = Arc::new(Mutex::new(Record::default()));
    let (ends, mut ended) = mpsc::unbounded_channel();
    let spec = {
        let record = record.clone();
        ChildSpec::new(&handle, move || Fragile { record: record.clone(), ends: ends.clone() }).batch(batch)
    };
    // Each death is judged as the first one within the period: its restart is immediate.
    let policy = Policy { period: Duration::ZERO, ..Policy::default() };
    let running = Supervisor::new("bench", policy).child(spec).start(|why| panic!("{why}"));
    let mut times = Vec::with_capacity(SERIES * PANICS);
    for repetition in 1..=SERIES * PANICS {
        *lock(&record) = Record { armed: true, seen: Vec::with_capacity(LAST as usize), ..Record::default() };
        fill(&handle)?;
        tokio::time::timeout(DEADLINE, ended.recv()).await.map_err(|_| format!("messages were lost at restart {repetition}"))?;
        times.push(judge(&lock(&record))?);
        let restarts = handle.observe().view().restarts;
        if restarts != repetition as u64 {
            return Err(format!("{restarts} restarts after {repetition} panics"));
        }
    }
    running.shutdown().await;
    Ok(times)
}

fn fill(handle: &Handle<Load>) -> Outcome {
    let (release, released) = channel();
    handle.try_send(Load::Hold(Mutex::new(released))).map_err(|error| error.to_string())?;
    for number in 1..=LAST {
        handle.try_send(Load::Item(number)).map_err(|error| error.to_string())?;
    }
    release.send(()).map_err(|_| "the actor did not wait".to_owned())
}

/// Time of the restart in ms, if every message was handled once and in order.
fn judge(record: &Record) -> Result<f64, String> {
    if !record.seen.iter().copied().eq(1..=LAST) {
        return Err(format!("{} of {LAST} messages were handled after a panic, or not in order", record.seen.len()));
    }
    let (Some(panicked), Some(resumed)) = (record.panicked, record.resumed) else {
        return Err("the actor did not panic".to_owned());
    };
    Ok(resumed.duration_since(panicked).as_secs_f64() * 1e3)
}
