//! Strategies, kinds of children, subtrees, and what is changed at run time.

use super::*;
use crate::{ControlError, Drill, Registry, Restart, Strategy, TreeView};

/// Clerks named after letters, in one supervisor.
struct Office {
    running: Running,
    desks: Vec<(Handle<Do>, Notes)>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn desk(name: &'static str) -> (Handle<Do>, Notes, ChildSpec) {
    let (handle, notes) = (mailbox(name, 100), Notes::default());
    let theirs = notes.clone();
    let spec = ChildSpec::new(&handle, move || Clerk { notes: theirs.clone() });
    (handle, notes, spec)
}

fn office(strategy: Strategy, restart: Restart) -> Office {
    let mut root = Supervisor::new("office", quick()).strategy(strategy);
    let mut desks = Vec::new();
    for name in NAMES {
        let (handle, notes, spec) = desk(name);
        root = root.child(spec.restart(restart));
        desks.push((handle, notes));
    }
    Office { running: root.start(|why| panic!("{why}")), desks }
}

impl Office {
    fn restarts(&self) -> Vec<u64> {
        self.desks.iter().map(|(handle, _)| handle.observe().view().restarts).collect()
    }

    fn states(&self) -> Vec<State> {
        self.desks.iter().map(|(handle, _)| handle.observe().view().state).collect()
    }

    fn tree(&self) -> TreeView {
        self.running.registry().trees()[0].clone()
    }

    /// What happened to whom, since that many events.
    fn diary(&self, kind: EventKind) -> Vec<String> {
        self.running.registry().events().iter().filter(|e| e.kind == kind).map(|e| e.actor.clone()).collect()
    }
}

fn panic_once() -> Do {
    Do::PanicWhile(Arc::new(AtomicU32::new(1)))
}

#[test]
fn one_for_one_restarts_the_dead_alone() {
    run(async {
        let office = office(Strategy::OneForOne, Restart::Permanent);
        office.desks[1].0.try_send(panic_once()).unwrap();
        eventually!(SOON, office.restarts() == [0, 1, 0] && office.tree().state == State::Up);
        office.running.shutdown().await;
    });
}

#[test]
fn rest_for_one_restarts_the_dead_and_those_started_after_it_in_start_order() {
    run(async {
        let office = office(Strategy::RestForOne, Restart::Permanent);
        for n in 0..50 {
            office.desks[2].0.try_send(Do::Note(n)).unwrap();
        }
        office.desks[1].0.try_send(panic_once()).unwrap();
        eventually!(SOON, office.restarts() == [0, 1, 1] && office.states() == [State::Up; 3]);
        assert_eq!(office.diary(EventKind::Restarted), ["b", "c"]);
        // A sibling's restart is no death of one's own, and costs no message.
        eventually!(SOON, office.desks[2].1.lock().unwrap().len() == 50);
        assert!(office.desks[2].1.lock().unwrap().windows(2).all(|w| w[0] + 1 == w[1]));
        assert_eq!((office.tree().deaths, office.tree().strategy.as_str()), (1, "rest-for-one"));
        office.running.shutdown().await;
    });
}

#[test]
fn one_for_all_restarts_everybody_in_start_order() {
    run(async {
        let office = office(Strategy::OneForAll, Restart::Permanent);
        office.desks[2].0.try_send(panic_once()).unwrap();
        eventually!(SOON, office.restarts() == [1, 1, 1] && office.states() == [State::Up; 3]);
        assert_eq!(office.diary(EventKind::Restarted), ["a", "b", "c"]);
        office.running.shutdown().await;
    });
}

#[test]
fn a_sibling_with_a_blocked_thread_is_fenced_and_restarted_with_the_others() {
    run(async {
        let office = office(Strategy::OneForAll, Restart::Permanent);
        let (release, held) = (Arc::new(AtomicBool::new(false)), Arc::default());
        office.desks[0].0.try_send(Do::Block(release.clone(), Arc::clone(&held))).unwrap();
        eventually!(SOON, office.desks[0].0.observe().view().in_hand.is_some());
        office.desks[2].0.try_send(panic_once()).unwrap();
        eventually!(SOON, office.restarts() == [1, 1, 1]);
        assert_eq!(office.desks[0].0.observe().view().hangs, 0, "it did not hang, its sibling died");
        release.store(true, Ordering::SeqCst);
        eventually!(SOON, held.lock().unwrap().len() == 2);
        held.lock().unwrap().sort_unstable();
        assert_eq!(*held.lock().unwrap(), [false, true], "the first incarnation is fenced, the second one holds");
        office.running.shutdown().await;
    });
}

/// Ends by itself when it is told to note 0.
struct Leaver;

impl Actor for Leaver {
    type Context = Context<Self>;
}

impl Handler<Lease<Do>> for Leaver {
    type Result = ();
    fn handle(&mut self, lease: Lease<Do>, ctx: &mut Self::Context) {
        lease.each(|_, message| match message {
            Do::Note(0) => actix::ActorContext::stop(ctx),
            Do::PanicWhile(left) => assert!(left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err(), "told to"),
            _ => {}
        });
    }
}

#[test]
fn permanent_children_come_back_always_transient_ones_after_a_death_temporary_ones_never() {
    run(async {
        for (restart, after_leaving, after_dying) in [(Restart::Permanent, 1, 1), (Restart::Transient, 0, 1), (Restart::Temporary, 0, 0)] {
            for (message, restarts) in [(Do::Note(0), after_leaving), (panic_once(), after_dying)] {
                let handle = mailbox::<Do>("leaver", 10);
                let running =
                    Supervisor::new("root", quick()).child(ChildSpec::new(&handle, || Leaver).restart(restart)).start(|why| panic!("{why}"));
                handle.try_send(message).unwrap();
                let wanted = if restarts > 0 { State::Up } else { State::Stopped };
                let view = || handle.observe().view();
                eventually!(SOON, view().restarts == restarts && view().state == wanted && view().in_hand.is_none());
                assert_ne!(running.registry().health(), crate::Health::Red(String::new()));
                running.shutdown().await;
            }
        }
    });
}

#[test]
fn a_supervisor_that_gives_up_is_restarted_by_the_one_above_and_its_children_keep_their_messages() {
    run(async {
        let ((victim, _, victim_spec), (bystander, notes, bystander_spec)) = (desk("victim"), desk("bystander"));
        let strict = Policy { intensity: 1, ..quick() };
        let below = Supervisor::new("below", strict).child(victim_spec).child(bystander_spec);
        let running = Supervisor::new("root", quick()).child(ChildSpec::tree(below)).start(|why| panic!("{why}"));
        let restarted = |tree: &str| running.registry().trees().iter().any(|t| t.name == tree && t.state == State::Up);
        // Two deaths are more than one: `below` gives up, and starts again.
        victim.try_send(Do::PanicWhile(Arc::new(AtomicU32::new(2)))).unwrap();
        eventually!(SOON, victim.observe().view().panics == 2);
        bystander.send(Do::Note(7)).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [7] && restarted("below"));
        let trees = running.registry().trees();
        assert_eq!(trees.iter().map(|t| (t.name.as_str(), t.parent.as_str())).collect::<Vec<_>>(), [("root", ""), ("below", "root")]);
        assert_eq!(trees[0].deaths, 1, "one death of the supervisor below");
        assert_eq!(victim.observe().view().parent, "below");
        assert!(running.registry().events().iter().any(|e| e.kind == EventKind::GaveUp && e.actor == "victim"));
        running.shutdown().await;
        assert!(victim.is_closed() && bystander.is_closed());
    });
}

#[test]
fn escalation_climbs_to_the_process_when_supervisors_give_up_too_often() {
    run(async {
        let (victim, _, spec) = desk("victim");
        let strict = Policy { intensity: 1, ..quick() };
        let escalated = Arc::new(Mutex::new(Vec::new()));
        let theirs = escalated.clone();
        let below = Supervisor::new("below", strict.clone()).child(spec);
        let running = Supervisor::new("root", strict).child(ChildSpec::tree(below)).start(move |why| theirs.lock().unwrap().push(why));
        let always = Arc::new(AtomicU32::new(u32::MAX));
        // Each message dies three times at most, so it takes several.
        for _ in 0..4 {
            victim.try_send(Do::PanicWhile(always.clone())).unwrap();
        }
        eventually!(SOON, escalated.lock().unwrap().len() == 1);
        let why = escalated.lock().unwrap()[0].clone();
        assert!(why.contains("root: below died more than 1 times") && why.contains("told to panic"), "{why}");
        assert!(matches!(running.registry().health(), crate::Health::Red(_)));
    });
}

#[test]
fn a_panic_inside_a_supervisor_below_restarts_it_with_its_children() {
    run(async {
        let (handle, notes, spec) = desk("desk");
        let running =
            Supervisor::new("root", quick()).child(ChildSpec::tree(Supervisor::new("below", quick()).child(spec))).start(|why| panic!("{why}"));
        handle.send(Do::Note(1)).await.unwrap();
        // What is in hand when it dies would be done again.
        eventually!(SOON, handle.observe().view().handled == 1);
        running.drill("below", Drill::Panic).await.unwrap();
        handle.send(Do::Note(2)).await.unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [1, 2] && handle.observe().view().epoch == 2);
        assert!(running.registry().events().iter().any(|e| e.actor == "below" && e.text.contains("panicked")));
        running.shutdown().await;
    });
}

#[test]
fn a_panic_inside_the_root_supervisor_ends_the_process_with_the_reason_and_leaves_no_actor_unwatched() {
    run(async {
        let (handle, _, spec) = desk("desk");
        let escalated = Arc::new(Mutex::new(Vec::new()));
        let theirs = escalated.clone();
        let running = Supervisor::new("root", quick()).child(spec).start(move |why| theirs.lock().unwrap().push(why));
        running.drill("root", Drill::Panic).await.unwrap();
        eventually!(SOON, escalated.lock().unwrap().len() == 1);
        assert!(escalated.lock().unwrap()[0].contains("the supervisor itself panicked: fault drill"));
        assert!(matches!(running.registry().health(), crate::Health::Red(_)), "the watchdog is fed no more");
        assert_eq!(running.restart("desk").await, Err(ControlError::Stopping));
        handle.try_send(Do::Note(1)).unwrap();
        // Its thread may take a moment to hear of the end; then nobody serves it any more.
        eventually!(SOON, handle.ask(Duration::from_millis(50), Do::Ask).await == Err(AskError::Deadline));
    });
}

#[test]
fn commands_find_their_actor_anywhere_in_the_tree_and_unknown_names_are_told() {
    run(async {
        let (deep, _, spec) = desk("deep");
        let lower = Supervisor::new("lower", quick()).child(spec);
        let upper = Supervisor::new("upper", quick()).child(ChildSpec::tree(lower));
        let running = Supervisor::new("root", quick()).child(ChildSpec::tree(upper)).start(|why| panic!("{why}"));
        running.restart("deep").await.unwrap();
        eventually!(SOON, deep.observe().view().restarts == 1);
        running.restart("lower").await.unwrap();
        eventually!(SOON, deep.observe().view().restarts == 2);
        assert_eq!(running.restart("nobody").await, Err(ControlError::Unknown("nobody".into())));
        assert_eq!(running.drill("lower", Drill::Slow(SOON)).await, Err(ControlError::NotAnActor("lower".into())));
        running.set_policy(Policy { intensity: 77, ..quick() });
        eventually!(SOON, running.registry().trees().iter().all(|tree| tree.deaths_max == 77));
        running.shutdown().await;
        assert_eq!(running.restart("deep").await, Err(ControlError::Stopping));
    });
}

#[test]
fn a_restart_by_an_operator_is_no_death() {
    run(async {
        let office = office(Strategy::OneForOne, Restart::Permanent);
        for n in 1..=20 {
            office.running.restart("b").await.unwrap();
            eventually!(SOON, office.restarts()[1] == n);
        }
        assert_eq!(office.tree().deaths, 0);
        office.running.shutdown().await;
    });
}

#[test]
fn registries_of_two_supervisors_are_apart_and_a_shared_one_shows_both() {
    run(async {
        let shared = Registry::new();
        let ((_, _, one), (_, _, other)) = (desk("one"), desk("other"));
        let first = Supervisor::new("first", quick()).registered(&shared).child(one).start(|why| panic!("{why}"));
        let second = Supervisor::new("second", quick()).child(other).start(|why| panic!("{why}"));
        eventually!(SOON, shared.views().len() == 1 && second.registry().views().len() == 1);
        assert_eq!(shared.details("one").unwrap().actor.name, "one");
        assert!(shared.details("other").is_none());
        first.shutdown().await;
        second.shutdown().await;
    });
}
