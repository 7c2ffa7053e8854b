//! Panics, hangs and restarts at random under load: nothing is lost, nothing takes effect twice, order is kept.
//!
//! Two stages: the first commits and tells the second. Each keeps a ledger in place of the
//! database: a commit happens under its lock, checks the fence there, and refuses what it has already (handlers are
//! idempotent because they commit before they tell). `SKEP_SOAK_SECONDS` says how long (5 if not set), `SKEP_SOAK_SEED`
//! repeats the faults of a run as far as threads allow.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)] // A failed step is the test's failure.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Context, Handler, WrapFuture};
use actor::{ChildSpec, Drill, Fence, Handle, Lease, Mail, Meta, NoRoom, Policy, Room, State, Strategy, Supervisor, Work, mailbox};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SENDERS: u32 = 2;
const LANES: usize = 2;
/// Faults per message of the first stage; one message in so many.
const ONE_IN: u32 = 2_000;

/// What a sender sent as its n-th message.
#[derive(Clone)]
struct Numbered {
    sender: u32,
    number: u32,
    /// How often it has made trouble by itself: once at most, so that no message reaches the quarantine.
    trouble: Arc<AtomicU32>,
}

impl Mail for Numbered {
    fn kind(&self) -> &'static str {
        "Numbered"
    }
}

/// The database of one stage.
#[derive(Default)]
struct Ledger {
    /// Of each sender the number of the next message, and how many took effect.
    next: Mutex<HashMap<u32, u32>>,
    effects: AtomicU64,
    repeated: AtomicU64,
    fenced: AtomicU64,
    gaps: AtomicU64,
}

impl Ledger {
    /// One transaction for a batch; `false` if its incarnation was replaced.
    fn commit<'m>(&self, fence: &Fence, batch: impl Iterator<Item = &'m Numbered>) -> bool {
        let mut next = self.next.lock().unwrap();
        if !fence.holds() {
            self.fenced.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        for message in batch {
            let expected = next.entry(message.sender).or_default();
            if message.number < *expected {
                self.repeated.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // A message that is ahead of its turn means that one was lost or overtaken.
            self.gaps.fetch_add(u64::from(message.number != *expected), Ordering::Relaxed);
            *expected = message.number + 1;
            self.effects.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

struct Faults {
    random: Mutex<StdRng>,
    on: AtomicBool,
    panics: AtomicU64,
    hangs: AtomicU64,
    /// Hangs whose commit was refused; one that got no processor for as long is refused, too, and is none.
    late: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Before the commit, so nothing has happened yet.
    PanicBefore,
    /// After the commit and before the effects are told.
    PanicBetween,
    /// After everything but before the lease is settled.
    PanicAfter,
    /// Blocks the thread before its commit, until long after it was fenced.
    Hang,
}

impl Faults {
    fn draw(&self, lease: &Lease<Numbered>) -> Fault {
        if !self.on.load(Ordering::Relaxed) {
            return Fault::None;
        }
        let mut random = self.random.lock().unwrap();
        for (_, message) in lease.iter() {
            if random.random_ratio(1, ONE_IN) && message.trouble.fetch_add(1, Ordering::Relaxed) == 0 {
                let fault = [Fault::PanicBefore, Fault::PanicBetween, Fault::PanicAfter, Fault::Hang][random.random_range(0..4)];
                // Each blocked thread lasts, so there are fewer of them.
                return if fault == Fault::Hang && random.random_ratio(9, 10) { Fault::PanicBefore } else { fault };
            }
        }
        Fault::None
    }

    fn panic_if(&self, drawn: Fault, at: Fault) {
        if drawn == at {
            self.panics.fetch_add(1, Ordering::Relaxed);
            panic!("soak");
        }
    }
}

/// Commits a batch, then tells the second stage of it.
struct First {
    ledger: Arc<Ledger>,
    faults: Arc<Faults>,
    second: Handle<Numbered>,
}

impl Actor for First {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let fails = self.faults.on.load(Ordering::Relaxed) && self.faults.random.lock().unwrap().random_ratio(1, 10);
        self.faults.panic_if(if fails { Fault::PanicBefore } else { Fault::None }, Fault::PanicBefore);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let fails = self.faults.on.load(Ordering::Relaxed) && self.faults.random.lock().unwrap().random_ratio(1, 10);
        self.faults.panic_if(if fails { Fault::PanicBefore } else { Fault::None }, Fault::PanicBefore);
    }
}

impl Handler<Lease<Numbered>> for First {
    type Result = ();

    fn handle(&mut self, lease: Lease<Numbered>, _: &mut Self::Context) {
        let mut rooms: Vec<Room<Numbered>> = Vec::new();
        for _ in 0..lease.len() {
            match self.second.try_reserve() {
                Ok(room) => rooms.push(room),
                Err(NoRoom::Full) => break,
                Err(NoRoom::Closed) => return lease.done(),
            }
        }
        if rooms.is_empty() {
            return lease.postpone_from(0, self.second.room());
        }
        let taken = rooms.len();
        let fault = self.faults.draw(&lease);
        self.faults.panic_if(fault, Fault::PanicBefore);
        if fault == Fault::Hang {
            self.faults.hangs.fetch_add(1, Ordering::Relaxed);
            let (fence, began) = (lease.fence(), Instant::now());
            while fence.holds() && began.elapsed() < Duration::from_secs(30) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            // The zombie is late on purpose: its successor is at work already.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        if !self.ledger.commit(&lease.fence(), lease.iter().take(taken).map(|(_, m)| m)) {
            self.faults.late.fetch_add(u64::from(fault == Fault::Hang), Ordering::Relaxed);
            return;
        }
        self.faults.panic_if(fault, Fault::PanicBetween);
        for ((meta, message), room) in lease.iter().zip(rooms) {
            room.send(Meta::child_of(meta, "first"), message.clone());
        }
        self.faults.panic_if(fault, Fault::PanicAfter);
        if taken == lease.len() { lease.done() } else { lease.postpone_from(taken, self.second.room()) }
    }
}

/// Waits a little before its commit, so that it can be aborted while it awaits.
struct Second {
    ledger: Arc<Ledger>,
    faults: Arc<Faults>,
}

impl Actor for Second {
    type Context = Context<Self>;
}

impl Handler<Lease<Numbered>> for Second {
    type Result = Work<Self>;

    fn handle(&mut self, lease: Lease<Numbered>, _: &mut Self::Context) -> Work<Self> {
        let wait = async move {
            tokio::task::yield_now().await;
            lease
        };
        Work::new(wait.into_actor(self).map(|lease, this, _| {
            let fault = this.faults.draw(&lease);
            this.faults.panic_if(fault, Fault::PanicBefore);
            if this.ledger.commit(&lease.fence(), lease.iter().map(|(_, m)| m)) {
                this.faults.panic_if(fault, Fault::PanicBetween);
                lease.done();
            }
        }))
    }
}

#[test]
fn under_panics_hangs_and_restarts_nothing_is_lost_repeated_or_overtaken() {
    let seconds = std::env::var("SKEP_SOAK_SECONDS").ok().map_or(5, |text| text.parse().expect("SKEP_SOAK_SECONDS is a number of seconds"));
    let seed = std::env::var("SKEP_SOAK_SEED").ok().map_or_else(rand::random, |text| text.parse().expect("SKEP_SOAK_SEED is a number"));
    eprintln!("soak: {seconds} s, seed {seed}");
    // Thousands of deaths are meant to be: their words would bury the figures.
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&"soak") && !info.to_string().contains("fault drill") {
            eprintln!("{info}");
        }
    }));
    actix_rt::System::new().block_on(soak(Duration::from_secs(seconds), seed));
}

async fn soak(time: Duration, seed: u64) {
    let faults = Arc::new(Faults {
        random: Mutex::new(StdRng::seed_from_u64(seed)),
        on: AtomicBool::new(true),
        panics: AtomicU64::new(0),
        hangs: AtomicU64::new(0),
        late: AtomicU64::new(0),
    });
    let policy = Policy {
        ping_every: Duration::from_millis(10),
        silent_for: Duration::from_millis(60),
        sweep_every: Duration::from_millis(10),
        kill_grace: Duration::from_millis(20),
        backoff: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        intensity: usize::MAX,
        zombies_max: 1000,
        shutdown_for: Duration::from_secs(20),
        ..Policy::default()
    };
    let names = [("first-0", "second-0", "lane-0"), ("first-1", "second-1", "lane-1")];
    let mut root = Supervisor::new("soak", policy.clone());
    let mut lanes = Vec::new();
    for (number, (first_name, second_name, lane)) in names.into_iter().enumerate() {
        let (first, second) = (mailbox::<Numbered>(first_name, 512), mailbox::<Numbered>(second_name, 256));
        let ledgers = (Arc::new(Ledger::default()), Arc::new(Ledger::default()));
        let (kept, trouble, next) = (ledgers.1.clone(), faults.clone(), second.clone());
        let second_spec = ChildSpec::new(&second, move || Second { ledger: kept.clone(), faults: trouble.clone() }).batch(32);
        let (kept, trouble) = (ledgers.0.clone(), faults.clone());
        let first_spec = ChildSpec::new(&first, move || {
            // A constructor may panic, too.
            let fails = trouble.on.load(Ordering::Relaxed) && trouble.random.lock().unwrap().random_ratio(1, 20);
            trouble.panic_if(if fails { Fault::PanicBefore } else { Fault::None }, Fault::PanicBefore);
            First { ledger: kept.clone(), faults: trouble.clone(), second: next.clone() }
        })
        .batch(64);
        let strategy = [Strategy::RestForOne, Strategy::OneForAll][number % 2];
        root = root.child(ChildSpec::tree(Supervisor::new(lane, policy.clone()).strategy(strategy).child(second_spec).child(first_spec)));
        lanes.push((first, second, ledgers));
    }
    let running = root.start(|why| panic!("gave up: {why}"));

    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (stop, to) = (stop.clone(), lanes.iter().map(|(first, ..)| first.clone()).collect::<Vec<_>>());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async move {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for lane in &to {
                            lane.send(Numbered { sender, number, trouble: Arc::default() }).await.unwrap();
                        }
                        number += 1;
                    }
                    u64::from(number)
                })
            })
        })
        .collect();

    let began = Instant::now();
    let mut restarts = 0;
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let name = [names[0].0, names[0].1, names[1].2, names[1].1, names[1].0][restarts % 5];
        // A lane that is between two lives does not know its children; that is an answer, too.
        let _ = running.restart(name).await;
        let _ = running.drill(names[restarts % LANES].1, Drill::Panic).await;
        restarts += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let join = tokio::task::spawn_blocking(move || senders.into_iter().map(|s| s.join().unwrap()).sum::<u64>());
    let sent = tokio::time::timeout(Duration::from_secs(30), join)
        .await
        .unwrap_or_else(|_| panic!("a lane stands still: {:#?}", running.registry().trees()))
        .unwrap();
    faults.on.store(false, Ordering::Relaxed);
    for (_, _, (first, second)) in &lanes {
        actor::eventually!(Duration::from_secs(30), first.effects.load(Ordering::Relaxed) == sent && second.effects.load(Ordering::Relaxed) == sent);
    }
    // Each blocked thread comes to its commit when it wakes, and its fence holds it back.
    actor::eventually!(Duration::from_secs(30), faults.late.load(Ordering::Relaxed) == faults.hangs.load(Ordering::Relaxed));
    // The last death may be a moment ago.
    actor::eventually!(Duration::from_secs(5), running.registry().views().iter().all(|view| view.state == State::Up));
    for (first, second, ledgers) in &lanes {
        for (handle, ledger) in [(first, &ledgers.0), (second, &ledgers.1)] {
            let view = handle.observe().view();
            let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            eprintln!(
                "soak: {:8} {:9} effects, {} repeated and refused, {} late writes fenced, {} panics, {} hangs, {} restarts",
                view.name,
                count(&ledger.effects),
                count(&ledger.repeated),
                count(&ledger.fenced),
                view.panics,
                view.hangs,
                view.restarts
            );
            assert_eq!(count(&ledger.effects), sent, "{}: missing, or applied twice", view.name);
            assert_eq!(count(&ledger.gaps), 0, "{}: out of order", view.name);
            assert_eq!(view.quarantined, 0, "{}", view.name);
        }
    }
    let (panics, hangs) = (faults.panics.load(Ordering::Relaxed), faults.hangs.load(Ordering::Relaxed));
    eprintln!(
        "soak: {} messages through two stages in two lanes, {panics} panics, {hangs} blocked threads, {restarts} restarts: 0 missing, 0 twice, in order",
        sent * 2
    );
    assert!(panics > 0, "a soak without faults proves nothing");
    running.shutdown().await;
}
