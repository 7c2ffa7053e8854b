#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    id: MsgId,
    bytes: usize,
    delete: bool,
}

impl Outgoing for Note {
    fn id(&self) -> &MsgId {
        &self.id
    }
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn is_delete(&self) -> bool {
        self.delete
    }
}

/// `ab` rests on `a`.
impl Key for &'static str {
    fn rests_on(&self) -> [Option<Self>; 2] {
        [(self.len() > 1).then(|| &self[..1]), None]
    }
}

type Box = Outbox<&'static str, Note>;

fn id(text: &str) -> MsgId {
    MsgId::new(text).unwrap()
}

fn update(text: &str) -> Note {
    Note { id: id(text), bytes: 10, delete: false }
}

fn delete(text: &str) -> Note {
    Note { delete: true, ..update(text) }
}

fn outbox() -> Box {
    Outbox::new(Limits { window: 2, window_bytes: 1_000, keys_max: 4, bytes_max: 100 })
}

fn next(outbox: &mut Box, now: u64) -> Option<String> {
    outbox.next(now).map(|note| note.id.to_string())
}

/// All that is ready, in order.
fn drain(outbox: &mut Box, now: u64) -> Vec<String> {
    std::iter::from_fn(|| next(outbox, now)).collect()
}

#[test]
fn frames_go_out_in_order_and_only_as_many_as_the_window_holds() {
    let mut outbox = outbox();
    for (key, note) in [("a", "1"), ("b", "2"), ("c", "3")] {
        outbox.push(key, update(note)).unwrap();
    }
    assert_eq!(drain(&mut outbox, 0), ["1", "2"]);
    assert_eq!(outbox.in_flight(), 2);
    assert_eq!(outbox.acknowledged(&id("2")), Some("b"));
    assert_eq!(drain(&mut outbox, 0), ["3"]);
    outbox.acknowledged(&id("1"));
    outbox.acknowledged(&id("3"));
    assert_eq!((outbox.len(), outbox.bytes(), outbox.in_flight(), outbox.due()), (0, 0, 0, None));
}

#[test]
fn only_so_many_bytes_are_on_their_way_but_one_frame_always_is() {
    let outbox = |window_bytes| Outbox::<&'static str, Note>::new(Limits { window: 9, window_bytes, keys_max: 9, bytes_max: 1_000 });
    let mut narrow = outbox(1);
    let mut wide = outbox(15);
    for (key, text) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        narrow.push(key, update(text)).unwrap();
        wide.push(key, update(text)).unwrap();
    }
    assert_eq!(drain(&mut narrow, 0), ["1"], "one, however large");
    assert_eq!(drain(&mut wide, 0), ["1", "2"], "until the limit is passed");
    assert!(wide.acknowledged(&id("1")).is_some() && wide.refused(&id("2"), "no").is_some());
    assert_eq!(drain(&mut wide, 0), ["3", "4"]);
    wide.forget(&"d");
    wide.push("e", update("5")).unwrap();
    assert_eq!(drain(&mut wide, 0), ["5"], "what is forgotten is not on its way");
    wide.reset();
    assert_eq!(drain(&mut wide, 0), ["3", "5"], "nothing is after a new connection");
}

#[test]
fn the_newest_frame_of_a_key_replaces_what_was_not_sent_and_keeps_its_place() {
    let mut outbox = outbox();
    for (key, note) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")] {
        outbox.push(key, update(note)).unwrap();
    }
    assert_eq!(outbox.bytes(), 20);
    assert_eq!(drain(&mut outbox, 0), ["4", "2"]);
    assert_eq!(outbox.counters().coalesced, 2);
}

#[test]
fn a_newer_frame_waits_for_the_answer_of_the_one_on_its_way() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    assert_eq!(next(&mut outbox, 0).as_deref(), Some("1"));
    outbox.push("a", update("2")).unwrap();
    outbox.push("a", update("3")).unwrap();
    assert_eq!(next(&mut outbox, 0), None);
    outbox.acknowledged(&id("1"));
    assert_eq!(drain(&mut outbox, 0), ["3"]);
}

#[test]
fn without_an_answer_the_newer_frame_goes_out_in_place_of_the_older() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    next(&mut outbox, 0);
    outbox.push("a", update("2")).unwrap();
    assert_eq!((outbox.tick(4_999), outbox.due()), (0, Some(5_000)));
    assert_eq!(outbox.tick(5_000), 1);
    assert_eq!(drain(&mut outbox, 5_000), ["2"]);
    assert_eq!(outbox.acknowledged(&id("1")), None, "a late answer to the older one settles nothing");
    assert_eq!(outbox.acknowledged(&id("2")), Some("a"));
    assert_eq!(outbox.bytes(), 0);
}

#[test]
fn a_deletion_is_neither_replaced_nor_overtaken_by_an_update() {
    let mut outbox = outbox();
    outbox.push("a", delete("gone")).unwrap();
    outbox.push("a", update("new")).unwrap();
    outbox.push("a", update("newer")).unwrap();
    assert_eq!(drain(&mut outbox, 0), ["gone"]);
    // Not even when its answer is late.
    outbox.tick(5_000);
    assert_eq!(drain(&mut outbox, 5_000), ["gone"]);
    outbox.acknowledged(&id("gone"));
    assert_eq!(drain(&mut outbox, 5_000), ["newer"]);
}

#[test]
fn a_deletion_replaces_everything_that_waits() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    outbox.push("a", delete("2")).unwrap();
    outbox.push("a", update("3")).unwrap();
    outbox.push("a", delete("4")).unwrap();
    assert_eq!(outbox.bytes(), 10);
    assert_eq!(drain(&mut outbox, 0), ["4"], "an insert and its delete do not vanish: the peer may know the object");
}

#[test]
fn a_deletion_goes_out_in_place_of_an_unanswered_deletion_or_update() {
    for first in [update("1"), delete("1")] {
        let mut outbox = outbox();
        outbox.push("a", first).unwrap();
        next(&mut outbox, 0);
        outbox.push("a", delete("2")).unwrap();
        outbox.push("a", update("3")).unwrap();
        outbox.tick(5_000);
        assert_eq!(drain(&mut outbox, 5_000), ["2"]);
        outbox.acknowledged(&id("2"));
        assert_eq!(drain(&mut outbox, 5_000), ["3"]);
    }
}

#[test]
fn without_an_answer_a_frame_is_sent_again_ever_more_slowly() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    next(&mut outbox, 0);
    let mut now = 0;
    for wait in [5_000, 10_000, 20_000, 40_000, 60_000, 60_000] {
        assert_eq!(outbox.due(), Some(now + wait));
        assert_eq!(outbox.tick(now + wait - 1), 0);
        now += wait;
        assert_eq!((outbox.tick(now), outbox.tick(now)), (1, 0));
        assert_eq!(drain(&mut outbox, now), ["1"]);
    }
    assert_eq!((outbox.counters().sent, outbox.counters().resent), (1, 6));
    assert_eq!(outbox.acknowledged(&id("1")), Some("a"));
}

#[test]
fn frames_that_are_late_need_no_room_in_the_window_and_keep_their_order() {
    let mut outbox = outbox();
    for (key, note) in [("b", "1"), ("a", "2"), ("c", "3")] {
        outbox.push(key, update(note)).unwrap();
    }
    assert_eq!(drain(&mut outbox, 0), ["1", "2"]);
    outbox.tick(6_000);
    assert_eq!(drain(&mut outbox, 6_000), ["1", "2"]);
}

#[test]
fn a_late_frame_that_is_answered_before_it_is_sent_again_is_not_sent_again() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    next(&mut outbox, 0);
    outbox.tick(5_000);
    outbox.acknowledged(&id("1"));
    assert_eq!(next(&mut outbox, 5_000), None);
    outbox.push("a", update("2")).unwrap();
    assert_eq!(drain(&mut outbox, 5_000), ["2"]);
}

#[test]
fn a_refused_frame_is_parked_until_its_key_changes() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    next(&mut outbox, 0);
    assert_eq!(outbox.refused(&id("1"), "no containers"), Some("a"));
    assert_eq!(outbox.parked().collect::<Vec<_>>(), [(&"a", "no containers")]);
    assert_eq!((outbox.tick(1 << 40), next(&mut outbox, 1 << 40), outbox.bytes()), (0, None, 0));
    outbox.reset();
    assert_eq!(next(&mut outbox, 1 << 40), None);
    outbox.push("a", update("2")).unwrap();
    assert_eq!(drain(&mut outbox, 0), ["2"]);
    assert_eq!(outbox.parked().count(), 0);
}

#[test]
fn a_refusal_does_not_park_what_changed_meanwhile() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    next(&mut outbox, 0);
    outbox.push("a", update("2")).unwrap();
    outbox.refused(&id("1"), "no");
    assert_eq!(drain(&mut outbox, 0), ["2"]);
}

#[test]
fn after_a_new_connection_all_that_was_on_its_way_goes_out_again_first() {
    let mut outbox = outbox();
    for (key, note) in [("c", "1"), ("a", "2"), ("b", "3")] {
        outbox.push(key, update(note)).unwrap();
    }
    assert_eq!(drain(&mut outbox, 0), ["1", "2"]);
    outbox.push("a", update("4")).unwrap();
    outbox.reset();
    assert_eq!((outbox.in_flight(), outbox.due(), outbox.bytes()), (0, None, 30));
    assert_eq!(drain(&mut outbox, 0), ["1", "4"]);
    assert_eq!(outbox.acknowledged(&id("2")), None);
    outbox.acknowledged(&id("1"));
    assert_eq!(drain(&mut outbox, 0), ["3"]);
}

#[test]
fn after_a_new_connection_an_unanswered_deletion_still_comes_before_the_update() {
    let mut outbox = outbox();
    outbox.push("a", delete("1")).unwrap();
    next(&mut outbox, 0);
    outbox.push("a", update("2")).unwrap();
    outbox.tick(5_000);
    outbox.reset();
    assert_eq!(drain(&mut outbox, 0), ["1"]);
    outbox.acknowledged(&id("1"));
    assert_eq!(drain(&mut outbox, 0), ["2"]);
}

#[test]
fn an_answer_to_nothing_changes_nothing() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    assert_eq!((outbox.acknowledged(&id("1")), outbox.refused(&id("x"), "no")), (None, None), "it was not sent");
    next(&mut outbox, 0);
    outbox.acknowledged(&id("1"));
    assert_eq!(outbox.acknowledged(&id("1")), None);
    assert_eq!(outbox.counters().acknowledged, 1);
}

#[test]
fn a_full_outbox_gives_the_frame_back_and_keeps_what_it_has() {
    let mut outbox = outbox();
    for key in ["a", "b", "c", "d"] {
        outbox.push(key, update(key)).unwrap();
    }
    assert_eq!(outbox.push("e", update("e")), Err(Full(update("e"))));
    let big = Note { bytes: 71, ..update("big") };
    assert_eq!(outbox.push("a", big.clone()), Err(Full(big)));
    outbox.push("a", Note { bytes: 70, ..update("fits") }).unwrap();
    outbox.push("b", delete("gone")).unwrap();
    assert_eq!((outbox.bytes(), outbox.len(), outbox.counters().full), (100, 4, 2));
}

#[test]
fn what_is_forgotten_is_not_sent_and_its_answer_means_nothing() {
    let mut outbox = outbox();
    outbox.push("a", update("1")).unwrap();
    outbox.push("b", update("2")).unwrap();
    next(&mut outbox, 0);
    outbox.push("a", update("3")).unwrap();
    outbox.forget(&"a");
    outbox.forget(&"z");
    assert_eq!(outbox.acknowledged(&id("1")), None);
    assert_eq!(drain(&mut outbox, 0), ["2"]);
    outbox.acknowledged(&id("2"));
    assert!(outbox.is_empty() && outbox.bytes() == 0);
}

#[derive(Clone, Debug)]
enum Step {
    Push(usize, bool),
    Send,
    Deliver,
    LoseOne,
    Wait(u64),
    Reconnect,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS.len(), proptest::bool::weighted(0.3)).prop_map(|(key, delete)| Step::Push(key, delete)),
        6 => Just(Step::Send),
        5 => Just(Step::Deliver),
        1 => Just(Step::LoseOne),
        2 => (0_u64..20_000).prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
    ]
}

const KEYS: &[&str] = &["a", "b", "c"];

/// A lossy but ordered link and a peer that does as it is told.
#[derive(Default)]
struct Peer {
    link: VecDeque<(&'static str, Note)>,
    holds: BTreeMap<&'static str, MsgId>,
}

impl Peer {
    fn deliver(&mut self) -> Option<MsgId> {
        let (key, note) = self.link.pop_front()?;
        if note.delete {
            self.holds.remove(key);
        } else {
            self.holds.insert(key, note.id.clone());
        }
        Some(note.id)
    }
}

proptest! {
    /// Whatever is lost, late or cut: in the end the peer holds what was pushed last for each key, the outbox is
    /// empty, and no update ever arrived in the place of a deletion that it had not seen.
    #[test]
    fn the_peer_ends_up_with_the_newest_of_each_key(steps in proptest::collection::vec(any_step(), 0..120)) {
        let mut outbox: Box = Outbox::new(Limits { window: 2, window_bytes: 12, keys_max: 8, bytes_max: 1_000 });
        let (mut peer, mut now, mut serial) = (Peer::default(), 0_u64, 0);
        let mut newest: BTreeMap<&'static str, Note> = BTreeMap::new();
        let mut keys: HashMap<MsgId, &'static str> = HashMap::new();
        let send = |outbox: &mut Box, peer: &mut Peer, keys: &HashMap<MsgId, &'static str>, now: u64| {
            outbox.next(now).map(|note| peer.link.push_back((keys[&note.id], note.clone()))).is_some()
        };
        for step in steps {
            match step {
                Step::Push(key, is_delete) => {
                    serial += 1;
                    let note = if is_delete { delete(&serial.to_string()) } else { update(&serial.to_string()) };
                    keys.insert(note.id.clone(), KEYS[key]);
                    newest.insert(KEYS[key], note.clone());
                    outbox.push(KEYS[key], note).unwrap();
                }
                Step::Send => { send(&mut outbox, &mut peer, &keys, now); }
                Step::Deliver => if let Some(id) = peer.deliver() { outbox.acknowledged(&id); },
                // The frame arrives and its answer is lost.
                Step::LoseOne => { peer.deliver(); }
                Step::Wait(millis) => { now += millis; outbox.tick(now); }
                Step::Reconnect => { peer.link.clear(); outbox.reset(); }
            }
            prop_assert!(outbox.in_flight() <= 2);
            prop_assert_eq!(outbox.bytes() % 10, 0);
        }
        for _ in 0..100 {
            while send(&mut outbox, &mut peer, &keys, now) {}
            while let Some(id) = peer.deliver() { outbox.acknowledged(&id); }
            now += RESEND_MS_MAX;
            outbox.tick(now);
        }
        prop_assert!(outbox.is_empty(), "{:?}", outbox);
        prop_assert_eq!((outbox.bytes(), outbox.in_flight()), (0, 0));
        for (key, note) in newest {
            prop_assert_eq!(peer.holds.get(key), (!note.delete).then_some(&note.id), "{}", key);
        }
    }
}

#[test]
fn what_rests_on_another_key_waits_for_its_answer_and_for_no_one_else() {
    for answer in [Box::acknowledged as fn(&mut Box, &MsgId) -> Option<&'static str>, |outbox, id| outbox.refused(id, "no")] {
        let mut outbox = outbox();
        outbox.push("a", update("below")).unwrap();
        outbox.push("ab", update("above")).unwrap();
        outbox.push("c", update("other")).unwrap();
        assert_eq!(drain(&mut outbox, 0), ["below", "other"]);
        outbox.acknowledged(&id("other"));
        assert_eq!(next(&mut outbox, 1), None, "the window has room, and it waits");
        // Below it is sent again: it waits on.
        outbox.tick(RESEND_MS_FIRST);
        assert_eq!(drain(&mut outbox, RESEND_MS_FIRST), ["below"]);
        outbox.push("a", update("below again")).unwrap();
        answer(&mut outbox, &id("below"));
        assert_eq!(drain(&mut outbox, RESEND_MS_FIRST), ["below again"]);
        answer(&mut outbox, &id("below again"));
        assert_eq!(drain(&mut outbox, RESEND_MS_FIRST), ["above"], "what was refused is answered, too");
    }
}

#[test]
fn a_device_comes_before_what_is_wanted_of_it_and_the_full_list_before_both() {
    let device = |name: &str| DeviceId::new(name).unwrap();
    let mut outbox: Outbox<OutboxKey, Note> = Outbox::new(Limits::default());
    outbox.push(OutboxKey::Membership(device("lamp")), update("bind lamp")).unwrap();
    for (key, note) in
        [(OutboxKey::Twin(device("lamp")), "lamp"), (OutboxKey::Attributes(device("lamp")), "attributes"), (OutboxKey::Twin(device("fan")), "fan")]
    {
        outbox.push(key, update(note)).unwrap();
    }
    let all =
        |outbox: &mut Outbox<OutboxKey, Note>| -> Vec<String> { std::iter::from_fn(|| outbox.next(0).map(|note| note.id.to_string())).collect() };
    assert_eq!(all(&mut outbox), ["bind lamp", "fan"]);
    outbox.push(OutboxKey::MembershipDetail, update("all")).unwrap();
    outbox.acknowledged(&id("bind lamp"));
    assert_eq!(all(&mut outbox), ["all"]);
    outbox.acknowledged(&id("all"));
    assert_eq!(all(&mut outbox), ["lamp", "attributes"]);
}

#[test]
fn an_outbox_whose_frames_are_all_answered_keeps_no_heap() {
    let mut outbox = Box::new(Limits::default());
    for (key, frame) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")] {
        outbox.push(key, Note { id: id(frame), bytes: 1, delete: false }).unwrap();
        outbox.next(0).unwrap();
    }
    for frame in ["1", "2", "3", "4"] {
        outbox.acknowledged(&id(frame)).unwrap();
    }
    outbox.refused(&id("5"), "no").unwrap();
    assert!(outbox.flying.capacity() > 0, "a parked key is something");
    outbox.forget(&"e");
    assert_eq!((outbox.len(), outbox.flying.capacity(), outbox.ready.capacity()), (0, 0, 0));
}
