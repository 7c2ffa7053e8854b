#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)] // Tests fail loudly.

mod beehive;
mod faults;
mod keeping;
mod tree;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Context, Handler, WrapFuture};

use crate::testing::Probe;
use crate::{
    AskError, ChildSpec, EventKind, Fence, Group, Handle, Lease, Mail, MsgId, NoRoom, Policy, Reply, Running, SendError, State, Supervisor, Work,
    eventually, mailbox, mailbox_with_bytes,
};

const SOON: Duration = Duration::from_secs(10);

/// What a test actor is asked to do.
enum Do {
    Note(u32),
    /// Panics as long as the counter is above 0.
    PanicWhile(Arc<AtomicU32>),
    PanicAlways,
    /// Blocks the thread until the flag is set; then notes whether its fence holds.
    Block(Arc<AtomicBool>, Arc<Mutex<Vec<bool>>>),
    Ask(Reply<usize>),
    Large(usize),
}

impl Mail for Do {
    fn kind(&self) -> &'static str {
        match self {
            Self::Note(_) => "Note",
            Self::PanicWhile(_) => "PanicWhile",
            Self::PanicAlways => "PanicAlways",
            Self::Block(..) => "Block",
            Self::Ask(_) => "Ask",
            Self::Large(_) => "Large",
        }
    }
    fn describe(&self) -> String {
        format!("a message of kind {}", self.kind())
    }
    fn bytes(&self) -> usize {
        if let Self::Large(bytes) = self { *bytes } else { 16 }
    }
}

type Notes = Arc<Mutex<Vec<u32>>>;

struct Clerk {
    notes: Notes,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

impl Handler<Lease<Do>> for Clerk {
    type Result = ();
    fn handle(&mut self, lease: Lease<Do>, _: &mut Self::Context) {
        let fence = lease.fence();
        lease.each(|_, message| self.one(message, &fence));
    }
}

impl Clerk {
    fn one(&self, message: &Do, fence: &Fence) {
        match message {
            Do::Note(n) => self.notes.lock().unwrap().push(*n),
            Do::PanicWhile(left) => assert!(left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err(), "told to panic"),
            Do::PanicAlways => panic!("poison"),
            Do::Block(release, held) => {
                while !release.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
                held.lock().unwrap().push(fence.holds());
            }
            Do::Ask(reply) => {
                reply.send(self.notes.lock().unwrap().len());
            }
            Do::Large(_) => {}
        }
    }
}

fn quick() -> Policy {
    Policy { backoff: Duration::from_millis(1), kill_grace: Duration::from_millis(20), sweep_every: Duration::from_millis(10), ..Policy::default() }
}

fn clerk(policy: Policy, capacity: usize) -> (Handle<Do>, Notes, Running) {
    let handle = mailbox("clerk", capacity);
    let notes = Notes::default();
    let theirs = notes.clone();
    let running =
        Supervisor::new("test", policy).child(ChildSpec::new(&handle, move || Clerk { notes: theirs.clone() })).start(|why| panic!("{why}"));
    (handle, notes, running)
}

fn run<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

/// An hour passes in milliseconds; everything runs on this thread.
fn virtual_time<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::with_tokio_rt(|| tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()).block_on(test)
}

#[test]
fn what_is_queued_survives_a_panic_in_order_and_the_message_in_hand_is_handed_out_again() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 10_000);
        let twice = Arc::new(AtomicU32::new(2));
        for n in 0..5000 {
            handle.try_send(Do::Note(n)).unwrap();
            if n == 2500 {
                handle.try_send(Do::PanicWhile(twice.clone())).unwrap();
            }
        }
        eventually!(SOON, notes.lock().unwrap().len() == 5000);
        assert!(notes.lock().unwrap().windows(2).all(|w| w[0] + 1 == w[1]));
        let view = handle.observe().view();
        assert_eq!((view.restarts, view.panics, view.handled, view.quarantined), (2, 2, 5001, 0));
        assert!(view.last_words.contains("told to panic"), "{}", view.last_words);
        running.shutdown().await;
    });
}

#[test]
fn a_message_that_kills_three_times_is_quarantined_and_a_hostile_sender_cannot_stop_the_process() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 1000);
        for n in 0..20 {
            handle.try_send(Do::PanicAlways).unwrap();
            handle.try_send(Do::Note(n)).unwrap();
        }
        eventually!(SOON, notes.lock().unwrap().len() == 20);
        let quarantine = running.registry().quarantine().list();
        assert_eq!(quarantine.len(), 20);
        assert_eq!(quarantine[0].text, "a message of kind PanicAlways");
        assert!(quarantine[0].last_words.contains("poison"));
        assert_eq!(handle.observe().view().panics, 60);
        assert_eq!(handle.observe().view().state, State::Up);
        running.shutdown().await;
    });
}

#[test]
fn a_blocked_thread_is_fenced_and_replaced_and_its_late_work_does_not_count() {
    run(async {
        let policy = Policy { ping_every: Duration::from_millis(20), silent_for: Duration::from_millis(100), ..quick() };
        let (handle, notes, running) = clerk(policy, 100);
        let (release, held) = (Arc::new(AtomicBool::new(false)), Arc::default());
        handle.try_send(Do::Block(release.clone(), Arc::clone(&held))).unwrap();
        handle.try_send(Do::Note(1)).unwrap();
        // Three incarnations block on it, then it is quarantined and the next message is handled.
        eventually!(SOON, *notes.lock().unwrap() == [1]);
        // One that gets no processor for so long is taken for another.
        assert!(handle.observe().view().hangs >= 3);
        release.store(true, Ordering::SeqCst);
        eventually!(SOON, held.lock().unwrap().len() == 3);
        assert_eq!(*held.lock().unwrap(), [false, false, false]);
        assert_eq!(handle.observe().view().handled, 1);
        running.shutdown().await;
    });
}

#[test]
fn a_mailbox_is_bounded_in_messages_and_bytes_and_gives_back_what_it_does_not_take() {
    let handle = mailbox::<Do>("full", 2);
    assert!(handle.try_send(Do::Note(1)).is_ok());
    assert!(handle.clone().try_send(Do::Note(2)).is_ok());
    assert!(matches!(handle.clone().try_send(Do::Note(3)), Err(SendError::Full(Do::Note(3)))));
    assert!(handle.try_reserve().err() == Some(NoRoom::Full));
    assert_eq!(handle.observe().view().refused, 1);

    let handle = mailbox_with_bytes::<Do>("heavy", 100, 1000);
    assert!(handle.try_send(Do::Large(5000)).is_ok(), "one message above the limit is taken when nothing waits");
    assert!(matches!(handle.try_send(Do::Large(1)), Err(SendError::Full(_))));
}

#[test]
fn a_sender_that_waits_for_room_gets_it_when_the_actor_has_settled() {
    run(async {
        let handle = mailbox::<Do>("slow", 1);
        handle.send(Do::Note(1)).await.unwrap();
        let second = actix_rt::spawn({
            let handle = handle.clone();
            async move { handle.send(Do::Note(2)).await.unwrap() }
        });
        let probe = Probe::of(&handle);
        assert!(matches!(*probe.next(SOON).await.unwrap(), Do::Note(1)));
        assert!(matches!(*probe.next(SOON).await.unwrap(), Do::Note(2)));
        second.await.unwrap();
    });
}

#[test]
fn a_question_is_answered_or_fails_with_the_reason() {
    run(async {
        let (handle, _, running) = clerk(quick(), 100);
        assert_eq!(handle.ask(SOON, Do::Ask).await, Ok(0));
        let lost = mailbox::<Do>("nobody", 1);
        assert_eq!(lost.ask(Duration::from_millis(20), Do::Ask).await, Err(AskError::Deadline));
        running.shutdown().await;
        assert_eq!(handle.ask(SOON, Do::Ask).await, Err(AskError::Closed));
    });
}

#[test]
fn a_group_reaches_every_member_with_room() {
    #[derive(Clone)]
    struct News;
    impl Mail for News {
        fn kind(&self) -> &'static str {
            "News"
        }
    }
    let (a, b) = (mailbox::<News>("a", 1), mailbox::<News>("b", 2));
    let group = Group::new(vec![a.clone(), b.clone()]);
    assert_eq!(group.try_send(&News), 2);
    assert_eq!(group.try_send(&News), 1);
}

#[test]
fn deaths_in_the_constructor_escalate_once_with_the_reason() {
    run(async {
        let handle = mailbox::<Do>("stillborn", 10);
        let escalated = Arc::new(Mutex::new(Vec::new()));
        let theirs = escalated.clone();
        let _running = Supervisor::new("test", quick())
            .child(ChildSpec::new(&handle, || -> Clerk { panic!("no disk") }))
            .start(move |why| theirs.lock().unwrap().push(why));
        eventually!(SOON, !escalated.lock().unwrap().is_empty());
        let why = escalated.lock().unwrap().clone();
        assert_eq!(why.len(), 1);
        assert!(why[0].contains("stillborn died more than 5 times") && why[0].contains("no disk"), "{why:?}");
        assert_eq!(handle.observe().view().state, State::GaveUp);
    });
}

struct Waiter {
    notes: Notes,
    fail: Arc<AtomicUsize>,
    hang: Arc<AtomicBool>,
}

impl Actor for Waiter {
    type Context = Context<Self>;
}

impl Handler<Lease<Do>> for Waiter {
    type Result = Work<Self>;
    fn handle(&mut self, lease: Lease<Do>, _: &mut Self::Context) -> Work<Self> {
        let (fail, hang) = (self.fail.clone(), self.hang.clone());
        Work::new(
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                assert!(fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err(), "in the middle");
                if hang.swap(false, Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                lease
            }
            .into_actor(self)
            .map(|lease, this, _| {
                lease.each(|_, m| {
                    if let Do::Note(n) = m {
                        this.notes.lock().unwrap().push(*n)
                    }
                })
            }),
        )
    }
}

fn waiter(fail: usize, hang: bool, policy: Policy) -> (Handle<Do>, Notes, Running) {
    let handle = mailbox("waiter", 100);
    let (notes, fail, hang) = (Notes::default(), Arc::new(AtomicUsize::new(fail)), Arc::new(AtomicBool::new(hang)));
    let theirs = notes.clone();
    let running = Supervisor::new("test", policy)
        .child(ChildSpec::new(&handle, move || Waiter { notes: theirs.clone(), fail: fail.clone(), hang: hang.clone() }).here())
        .start(|why| panic!("{why}"));
    (handle, notes, running)
}

#[test]
fn a_panic_while_a_handler_waits_restarts_the_actor_and_the_message_is_handed_out_again() {
    virtual_time(async {
        let (handle, notes, running) = waiter(1, false, Policy::default());
        handle.try_send(Do::Note(1)).unwrap();
        handle.try_send(Do::Note(2)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*notes.lock().unwrap(), [1, 2]);
        assert_eq!(handle.observe().view().restarts, 1);
        running.shutdown().await;
    });
}

#[test]
fn an_actor_that_waits_for_ever_is_found_after_its_silence_and_an_idle_one_is_left_alone() {
    virtual_time(async {
        let (handle, notes, running) = waiter(0, true, Policy::default());
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(handle.observe().view().restarts, 0, "an idle actor answers its pings");
        handle.try_send(Do::Note(1)).unwrap();
        tokio::time::sleep(Duration::from_secs(119)).await;
        assert_eq!(handle.observe().view().hangs, 0);
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(handle.observe().view().hangs, 1);
        assert_eq!(*notes.lock().unwrap(), [1], "the message was handed to the next incarnation");
        assert!(running.registry().events().iter().any(|e| e.kind == EventKind::Hung));
        running.shutdown().await;
    });
}

struct Patient {
    notes: Notes,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Actor for Patient {
    type Context = Context<Self>;
}

impl Handler<Lease<Do>> for Patient {
    type Result = ();
    fn handle(&mut self, lease: Lease<Do>, _: &mut Self::Context) {
        let notes: Vec<u32> = lease.iter().map(|(_, m)| if let Do::Note(n) = m { *n } else { 0 }).collect();
        let closed = self.gate.available_permits() == 0;
        if let Some(index) = notes.iter().position(|n| *n == 3).filter(|_| closed) {
            self.notes.lock().unwrap().extend(&notes[..index]);
            let gate = self.gate.clone();
            lease.postpone_from(index, async move { drop(gate.acquire().await) });
            return;
        }
        self.notes.lock().unwrap().extend(notes);
        lease.done();
    }
}

#[test]
fn what_is_postponed_waits_at_the_front_and_is_not_blamed() {
    virtual_time(async {
        let handle = mailbox("patient", 100);
        let (notes, gate) = (Notes::default(), Arc::new(tokio::sync::Semaphore::new(0)));
        let (n, g) = (notes.clone(), gate.clone());
        let running = Supervisor::new("test", Policy::default())
            .child(ChildSpec::new(&handle, move || Patient { notes: n.clone(), gate: g.clone() }).batch(64).here())
            .start(|why| panic!("{why}"));
        for n in 1..=5 {
            handle.try_send(Do::Note(n)).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(*notes.lock().unwrap(), [1, 2]);
        assert_eq!(handle.observe().view().hangs, 0, "an actor that waits for its turn answers its pings");
        gate.add_permits(1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*notes.lock().unwrap(), [1, 2, 3, 4, 5]);
        running.shutdown().await;
    });
}

#[test]
fn shutdown_drains_the_children_in_reverse_order() {
    run(async {
        let (first, second) = (mailbox::<Do>("first", 1000), mailbox::<Do>("second", 1000));
        let notes = Notes::default();
        let (a, b) = (notes.clone(), notes.clone());
        for n in 0..500 {
            first.try_send(Do::Note(1000 + n)).unwrap();
            second.try_send(Do::Note(n)).unwrap();
        }
        let running = Supervisor::new("test", Policy::default())
            .child(ChildSpec::new(&first, move || Clerk { notes: a.clone() }))
            .child(ChildSpec::new(&second, move || Clerk { notes: b.clone() }))
            .start(|why| panic!("{why}"));
        running.shutdown().await;
        assert_eq!(notes.lock().unwrap().len(), 1000, "what was accepted was handled");
        let stopped: Vec<_> = running.registry().events().iter().filter(|e| e.kind == EventKind::Stopped).map(|e| e.actor.clone()).collect();
        assert_eq!(stopped, ["second", "first"]);
    });
}

#[test]
fn an_operator_can_restart_an_actor_and_nothing_is_lost() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 1000);
        handle.try_send(Do::Note(1)).unwrap();
        eventually!(SOON, notes.lock().unwrap().len() == 1);
        running.restart("clerk").await.unwrap();
        eventually!(SOON, handle.observe().view().restarts == 1);
        handle.try_send(Do::Note(2)).unwrap();
        eventually!(SOON, notes.lock().unwrap().len() == 2);
        running.shutdown().await;
    });
}

#[test]
fn message_ids_are_unique_and_survive_their_text_form() {
    let ids: std::collections::HashSet<MsgId> = (0..1000).map(|_| MsgId::fresh()).collect();
    assert_eq!(ids.len(), 1000);
    for id in ids {
        let text = id.to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert_eq!(text.parse::<MsgId>().unwrap(), id);
    }
    for bad in ["", "x", "00000000-0000-4000-8000-00000000000g", "é0000000-0000-4000-8000-0000000000"] {
        assert!(bad.parse::<MsgId>().is_err());
    }
}

#[test]
fn a_message_knows_its_place_in_its_mailbox_and_a_ticket_drawn_later_is_not_below_it() {
    let probe = crate::testing::Probe::<Do>::new("probe", 8);
    let handle = probe.handle();
    let before = handle.ticket();
    handle.try_send(Do::Note(1)).unwrap();
    let between = handle.ticket();
    handle.try_reserve().unwrap().send(crate::Meta::new("test"), Do::Note(2));
    let after = handle.ticket();
    // What is put back keeps its place.
    drop(probe.lend(8));
    let places: Vec<_> = probe.drain().iter().map(|taken| taken.meta().place).collect();
    assert!(before < places[0] && places[0] <= between && between < places[1] && places[1] <= after);
}

#[test]
fn a_ticket_is_reached_when_everything_before_it_is_settled_or_quarantined() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 100);
        let nothing = mailbox::<Do>("empty", 1);
        assert!(nothing.reached(nothing.ticket()) && nothing.reached(crate::Ticket::default()));
        handle.try_send(Do::PanicAlways).unwrap();
        handle.try_send(Do::Note(1)).unwrap();
        let ticket = handle.ticket();
        let release = Arc::new(AtomicBool::new(false));
        handle.try_send(Do::Block(release.clone(), Arc::default())).unwrap();
        let later = handle.ticket();
        assert!(!handle.reached(later));
        tokio::time::timeout(SOON, handle.until(ticket)).await.unwrap();
        assert_eq!(*notes.lock().unwrap(), [1]);
        assert!(handle.reached(ticket) && !handle.reached(later));
        release.store(true, Ordering::SeqCst);
        tokio::time::timeout(SOON, handle.until(later)).await.unwrap();
        running.shutdown().await;
    });
}
