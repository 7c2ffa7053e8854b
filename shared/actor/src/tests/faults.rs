//! Panics in every place where an actor runs our code, drills, and what the process makes of them.

use super::*;
use crate::{Drill, Health};

/// Panics in one place of its life, as often as it is told.
struct Fragile {
    place: Place,
    left: Arc<AtomicU32>,
    notes: Notes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Constructor,
    Started,
    Stopped,
    Drop,
}

fn fails(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

impl Fragile {
    fn at(&self, place: Place) {
        assert!(!(self.place == place && fails(&self.left)), "fragile at {place:?}");
    }
}

impl Actor for Fragile {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.at(Place::Started);
    }
    fn stopped(&mut self, _: &mut Self::Context) {
        self.at(Place::Stopped);
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at(Place::Drop);
        }
    }
}

impl Handler<Lease<Do>> for Fragile {
    type Result = ();
    fn handle(&mut self, lease: Lease<Do>, _: &mut Self::Context) {
        lease.each(|_, message| match message {
            Do::Note(n) => self.notes.lock().unwrap().push(*n),
            Do::PanicWhile(left) => assert!(!fails(left), "told to panic"),
            _ => {}
        });
    }
}

#[test]
fn a_panic_in_the_constructor_in_started_in_stopped_and_in_drop_is_one_death_and_no_message_is_lost() {
    run(async {
        for place in [Place::Constructor, Place::Started, Place::Stopped, Place::Drop] {
            let (handle, notes, left) = (mailbox("fragile", 100), Notes::default(), Arc::new(AtomicU32::new(1)));
            let (theirs, count) = (notes.clone(), left.clone());
            let make = move || {
                assert!(!(place == Place::Constructor && fails(&count)), "fragile at {place:?}");
                Fragile { place, left: count.clone(), notes: theirs.clone() }
            };
            handle.try_send(Do::Note(1)).unwrap();
            // `stopped` and `drop` run when something else ends the actor.
            handle.try_send(Do::PanicWhile(Arc::new(AtomicU32::new(1)))).unwrap();
            handle.try_send(Do::Note(2)).unwrap();
            let running = Supervisor::new("test", quick()).child(ChildSpec::new(&handle, make)).start(|why| panic!("{why}"));
            eventually!(SOON, *notes.lock().unwrap() == [1, 2]);
            assert_eq!(left.load(Ordering::SeqCst), 0, "{place:?}");
            let view = handle.observe().view();
            assert_eq!((view.state, view.handled, view.quarantined), (State::Up, 3, 0), "{place:?}");
            running.shutdown().await;
        }
    });
}

#[test]
fn a_panic_drill_restarts_an_idle_actor_without_harm() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 100);
        running.drill("clerk", Drill::Panic).await.unwrap();
        eventually!(SOON, handle.observe().view().restarts == 1);
        handle.send(Do::Note(1)).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [1]);
        assert!(handle.observe().view().last_words.contains("fault drill"));
        running.shutdown().await;
    });
}

#[test]
fn a_panic_drill_with_a_message_in_hand_quarantines_it_at_the_third_death() {
    run(async {
        let (handle, notes, running) = clerk(quick(), 100);
        running.drill("clerk", Drill::PanicInHand(3)).await.unwrap();
        handle.try_send(Do::Note(1)).unwrap();
        handle.try_send(Do::Note(2)).unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [2]);
        let quarantine = running.registry().quarantine().of("clerk");
        assert_eq!(quarantine.len(), 1);
        assert!(quarantine[0].kind == "Note" && quarantine[0].last_words.contains("fault drill"), "{quarantine:?}");
        assert_eq!(running.registry().trees()[0].deaths, 0, "deaths that end in quarantine do not count");
        assert!(running.registry().events().iter().any(|e| e.kind == EventKind::Quarantined && e.text.contains(&quarantine[0].id)));
        running.shutdown().await;
    });
}

#[test]
fn a_hang_drill_is_found_fenced_and_replaced() {
    run(async {
        let policy = Policy { ping_every: Duration::from_millis(20), silent_for: Duration::from_millis(100), ..quick() };
        let (handle, notes, running) = clerk(policy, 100);
        running.drill("clerk", Drill::Hang(Duration::from_secs(60))).await.unwrap();
        handle.send(Do::Note(1)).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [1]);
        // One that gets no processor for so long is taken for another.
        assert!(handle.observe().view().hangs >= 1);
        assert_eq!(handle.observe().view().quarantined, 0);
        eventually!(SOON, running.registry().trees()[0].zombies == 0);
        running.shutdown().await;
    });
}

#[test]
fn a_slow_drill_slows_each_batch_until_it_is_taken_back() {
    virtual_time(async {
        let handle = mailbox("slow", 100);
        let notes = Notes::default();
        let theirs = notes.clone();
        let spec = ChildSpec::new(&handle, move || Clerk { notes: theirs.clone() }).here();
        let running = Supervisor::new("test", Policy::default()).child(spec).start(|why| panic!("{why}"));
        running.drill("slow", Drill::Slow(Duration::from_secs(10))).await.unwrap();
        for n in 0..10 {
            handle.try_send(Do::Note(n)).unwrap();
        }
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert_eq!(notes.lock().unwrap().len(), 3);
        running.drill("slow", Drill::Slow(Duration::ZERO)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(notes.lock().unwrap().len(), 10);
        assert_eq!(handle.observe().view().hangs, 0, "slow is not silent");
        running.shutdown().await;
    });
}

#[test]
fn more_blocked_threads_than_allowed_escalate() {
    run(async {
        let policy = Policy { ping_every: Duration::from_millis(10), silent_for: Duration::from_millis(40), zombies_max: 1, ..quick() };
        let handle = mailbox::<Do>("stuck", 10);
        let escalated = Arc::new(Mutex::new(Vec::new()));
        let theirs = escalated.clone();
        let running = Supervisor::new("test", policy)
            .child(ChildSpec::new(&handle, || Clerk { notes: Notes::default() }))
            .start(move |why| theirs.lock().unwrap().push(why));
        let release = Arc::new(AtomicBool::new(false));
        for _ in 0..2 {
            handle.try_send(Do::Block(release.clone(), Arc::default())).unwrap();
        }
        eventually!(SOON, !escalated.lock().unwrap().is_empty());
        assert!(escalated.lock().unwrap()[0].contains("threads are blocked"));
        assert!(matches!(running.registry().health(), Health::Red(_)));
        release.store(true, Ordering::SeqCst);
    });
}

#[test]
fn back_off_doubles_up_to_its_limit_and_an_old_death_is_forgotten() {
    virtual_time(async {
        let handle = mailbox::<Do>("dying", 10);
        let left = Arc::new(AtomicU32::new(8));
        let births = Arc::new(Mutex::new(Vec::new()));
        let (count, seen) = (left.clone(), births.clone());
        let make = move || {
            seen.lock().unwrap().push(tokio::time::Instant::now());
            assert!(!fails(&count), "not yet");
            Clerk { notes: Notes::default() }
        };
        let policy = Policy { intensity: 100, backoff_max: Duration::from_secs(1), ..Policy::default() };
        let running = Supervisor::new("test", policy).child(ChildSpec::new(&handle, make).here()).start(|why| panic!("{why}"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let births = births.lock().unwrap().clone();
        let pauses: Vec<u128> = births.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
        // tokio's clock ticks in whole ms and rounds up.
        let wanted = [0, 100, 200, 400, 800, 1000, 1000, 1000];
        assert!(pauses.iter().zip(wanted).all(|(pause, wanted)| pause.abs_diff(wanted) <= 1), "{pauses:?}");
        assert_eq!(pauses.len(), wanted.len());
        assert_eq!(running.registry().trees()[0].deaths, 8);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(running.registry().trees()[0].deaths, 0);
        running.shutdown().await;
    });
}

#[test]
fn shutdown_keeps_its_deadline_though_an_actor_does_not_end() {
    virtual_time(async {
        let (handle, _, running) = waiter(0, true, Policy::default());
        handle.try_send(Do::Note(1)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = tokio::time::Instant::now();
        let second = running.clone();
        let (_, _) = tokio::join!(running.shutdown(), second.shutdown());
        assert_eq!(began.elapsed().as_secs(), Policy::default().shutdown_for.as_secs());
    });
}

#[test]
fn the_watchdog_hears_of_a_supervisor_that_gives_no_sign_of_life() {
    let registry = crate::Registry::new();
    assert_eq!(registry.health(), Health::Green, "before the start nothing is expected");
    virtual_time(async {
        let registry = crate::Registry::new();
        registry.beat(5_000);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(registry.health(), Health::Green);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(registry.health(), Health::Red("the supervisor has given no sign of life for 6 s".into()));
        registry.rest();
        assert_eq!(registry.health(), Health::Green);
    });
}
