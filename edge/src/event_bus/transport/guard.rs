//! What of a broker's bytes may reach the library: packets of MQTT 3.1.1 that are whole, well formed, and answer something
//! that was sent. Pure.
//!
//! The library trusts a broker. It frees a publication for any answer that has its number, also for one of the wrong kind
//! (paho C 1.3.16, `MQTTAsync_cycle`: PUBCOMP, and SUBACK in `MQTTAsync_receiveThread`), and needs it afterwards. So every
//! connection to a broker that is not ours is read along here, both ways, and one on which something comes that nobody
//! asked for is ended before the library has seen it.

use std::collections::{HashMap, HashSet};

use super::packets::{Next, Nonsense, Packet, kind, number};

/// What is to be done with a packet of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The library gets it.
    Pass,
    /// It gets nothing of it; the broker gets this, if it waits for an answer.
    Keep(Option<[u8; 4]>),
}

/// What the library waits for under a packet identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Puback,
    Pubrec,
    Pubcomp,
    /// With so many filters.
    Suback(usize),
    Unsuback,
}

/// What is on the way under one packet identifier.
///
/// The library may send a publication or a release again on the same connection (paho C, `MQTTProtocol_retry`), and each is
/// answered. The first answer is the library's; the others are late, and it has no use for them.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    awaited: Option<Awaited>,
    /// How often that was sent again.
    again: u32,
    /// Answers that are still to come of what was answered already; they come before that of anything sent later.
    late: u32,
}

/// One connection to a broker, read along.
#[derive(Debug, Default)]
pub(super) struct Guard {
    introduced: bool,
    slots: HashMap<u16, Slot>,
    /// Messages with QoS 2 that were kept from the library and that the broker has not released.
    kept: HashSet<u16>,
}

impl Guard {
    /// Whether the broker has answered CONNECT.
    pub(super) fn is_introduced(&self) -> bool {
        self.introduced
    }

    /// The library sent this.
    pub(super) fn sent(&mut self, packet: &Packet) {
        let awaited = match packet.kind() {
            kind::PUBLISH => match packet.flags() >> 1 & 3 {
                0 => return,
                1 => Awaited::Puback,
                _ => Awaited::Pubrec,
            },
            kind::PUBREL => Awaited::Pubcomp,
            kind::SUBSCRIBE => Awaited::Suback(filters(packet.body())),
            kind::UNSUBSCRIBE => Awaited::Unsuback,
            _ => return,
        };
        let at = if packet.kind() == kind::PUBLISH { topic_end(packet.body()) } else { Some(0) };
        if let Some(id) = at.and_then(|at| number(packet.body(), at)) {
            let slot = self.slots.entry(id).or_default();
            if slot.awaited == Some(awaited) {
                slot.again += 1;
            } else {
                *slot = Slot { awaited: Some(awaited), again: 0, late: slot.late };
            }
        }
    }

    /// The broker sent this.
    pub(super) fn heard(&mut self, next: &Next) -> Result<Verdict, Nonsense> {
        let (Next::Whole(packet) | Next::TooLarge(packet)) = next;
        let body = packet.body();
        if packet.kind() == kind::CONNACK {
            // MQTT 3.1.1 §3.2.
            let fits = !self.introduced && packet.flags() == 0 && body.len() == 2 && body[0] < 2;
            self.introduced = true;
            return if fits { Ok(Verdict::Pass) } else { Err(Nonsense("a CONNACK out of place or out of shape")) };
        }
        if !self.introduced {
            return Err(Nonsense("something else before its CONNACK"));
        }
        if packet.kind() == kind::PUBLISH {
            return self.published(packet, matches!(next, Next::TooLarge(_)));
        }
        if packet.flags() != if packet.kind() == kind::PUBREL { 2 } else { 0 } {
            return Err(Nonsense("a packet with flags that its kind has not"));
        }
        if packet.kind() == kind::PINGRESP {
            return if body.is_empty() { Ok(Verdict::Pass) } else { Err(Nonsense("a PINGRESP with a body")) };
        }
        let id = number(body, 0).filter(|_| body.len() == 2 || packet.kind() == kind::SUBACK);
        let id = id.ok_or(Nonsense("a packet of an unknown kind or without its identifier"))?;
        if packet.kind() == kind::PUBREL {
            return Ok(if self.kept.remove(&id) { Verdict::Keep(Some(answer(0x70, id))) } else { Verdict::Pass });
        }
        self.answered(packet.kind(), id, &body[2..])
    }

    /// A message for us.
    fn published(&mut self, packet: &Packet, too_large: bool) -> Result<Verdict, Nonsense> {
        let body = packet.body();
        let qos = packet.flags() >> 1 & 3;
        let end = topic_end(body).filter(|end| *end <= body.len()).ok_or(Nonsense("a message whose topic is longer than itself"))?;
        let name = std::str::from_utf8(&body[2..end]).ok().filter(|name| is_name(name));
        if name.is_none() {
            return Err(Nonsense("a message under a topic that is none"));
        }
        let id = match (qos, number(body, end)) {
            (0, _) => None,
            (1 | 2, Some(id)) if id != 0 => Some(id),
            _ => return Err(Nonsense("a message without its identifier, or with a QoS that there is not")),
        };
        if !too_large {
            return Ok(Verdict::Pass);
        }
        if let (2, Some(id)) = (qos, id) {
            self.kept.insert(id);
        }
        Ok(Verdict::Keep(id.map(|id| answer(if qos == 1 { 0x40 } else { 0x50 }, id))))
    }

    /// An answer to something that was sent.
    fn answered(&mut self, kind: u8, id: u16, rest: &[u8]) -> Result<Verdict, Nonsense> {
        let slot = self.slots.entry(id).or_default();
        if kind == kind::PUBREC {
            // The library answers it in any case (MQTT 3.1.1 §4.3.3); what it then sends is what is awaited next.
            let fits = matches!(slot.awaited, None | Some(Awaited::Pubrec | Awaited::Pubcomp));
            return if fits { Ok(Verdict::Pass) } else { Err(UNASKED) };
        }
        if slot.late > 0 && matches!(kind, kind::PUBACK | kind::PUBCOMP) {
            slot.late -= 1;
            return Ok(Verdict::Keep(None));
        }
        let fits = match (kind, slot.awaited) {
            (kind::PUBACK, Some(Awaited::Puback)) | (kind::PUBCOMP, Some(Awaited::Pubcomp)) | (kind::UNSUBACK, Some(Awaited::Unsuback)) => true,
            (kind::SUBACK, Some(Awaited::Suback(filters))) => rest.len() == filters && rest.iter().all(|code| matches!(code, 0..=2 | 0x80)),
            _ => false,
        };
        if !fits {
            return Err(UNASKED);
        }
        *slot = Slot { awaited: None, again: 0, late: slot.again };
        if slot.late == 0 {
            self.slots.remove(&id);
        }
        Ok(Verdict::Pass)
    }
}

const UNASKED: Nonsense = Nonsense("an answer to what nobody had sent");

/// Whether a message may go under it (MQTT 3.1.1 §4.7.1).
fn is_name(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

fn answer(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// Where the text at the beginning ends.
fn topic_end(body: &[u8]) -> Option<usize> {
    number(body, 0).map(|length| 2 + usize::from(length))
}

/// How many filters a SUBSCRIBE has; the library wrote it.
fn filters(body: &[u8]) -> usize {
    let (mut at, mut count) = (2, 0);
    while let Some(length) = number(body, at) {
        at += 2 + usize::from(length) + 1;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use proptest::prelude::*;

    use super::super::packets::Packets;
    use super::*;

    fn cut(bytes: &[u8]) -> Result<Vec<Next>, Nonsense> {
        let mut packets = Packets::default();
        packets.buffer().extend_from_slice(bytes);
        std::iter::from_fn(|| packets.next().transpose()).collect()
    }

    fn only(bytes: &[u8]) -> Next {
        let mut all = cut(bytes).unwrap();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    fn introduced() -> Guard {
        let mut guard = Guard::default();
        assert_eq!(guard.heard(&only(&[0x20, 2, 0, 0])), Ok(Verdict::Pass));
        guard
    }

    fn sent(guard: &mut Guard, bytes: &[u8]) {
        let Next::Whole(packet) = only(bytes) else { panic!("{bytes:?}") };
        guard.sent(&packet);
    }

    fn hears(guard: &mut Guard, bytes: &[u8]) -> bool {
        guard.heard(&only(bytes)) == Ok(Verdict::Pass)
    }

    const PUBLISH_1: &[u8] = &[0x32, 6, 0, 1, b't', 0, 7, b'x'];
    const PUBLISH_2: &[u8] = &[0x34, 6, 0, 1, b't', 0, 7, b'x'];
    const PUBACK: &[u8] = &[0x40, 2, 0, 7];
    const PUBREC: &[u8] = &[0x50, 2, 0, 7];
    const PUBREL: &[u8] = &[0x62, 2, 0, 7];
    const PUBCOMP: &[u8] = &[0x70, 2, 0, 7];
    const SUBSCRIBE: &[u8] = &[0x82, 6, 0, 7, 0, 1, b'a', 1];
    const SUBACK: &[u8] = &[0x90, 3, 0, 7, 1];
    const UNSUBSCRIBE: &[u8] = &[0xa2, 5, 0, 7, 0, 1, b'a'];
    const UNSUBACK: &[u8] = &[0xb0, 2, 0, 7];

    #[test]
    fn of_all_answers_only_the_one_that_is_waited_for_passes_and_only_once() {
        let answers = [PUBACK, PUBCOMP, SUBACK, UNSUBACK];
        for (asked, right) in [(PUBLISH_1, PUBACK), (SUBSCRIBE, SUBACK), (UNSUBSCRIBE, UNSUBACK), (PUBREL, PUBCOMP)] {
            for answer in answers {
                let mut guard = introduced();
                assert!(!hears(&mut guard, answer), "nothing was asked");
                sent(&mut guard, asked);
                assert_eq!(hears(&mut guard, answer), answer == right, "{asked:?} {answer:?}");
            }
            let mut guard = introduced();
            sent(&mut guard, asked);
            assert!(hears(&mut guard, right) && !hears(&mut guard, right), "twice");
        }
    }

    #[test]
    fn what_is_sent_again_is_answered_again_and_the_library_hears_it_once() {
        for (asked, answer) in [(PUBLISH_1, PUBACK), (PUBREL, PUBCOMP)] {
            let mut guard = introduced();
            for _ in 0..3 {
                sent(&mut guard, asked);
            }
            assert!(hears(&mut guard, answer));
            // Another message under the same number: its answer comes behind those that are late.
            sent(&mut guard, asked);
            for _ in 0..2 {
                assert_eq!(guard.heard(&only(answer)), Ok(Verdict::Keep(None)));
            }
            assert!(hears(&mut guard, answer));
            assert!(guard.heard(&only(answer)).is_err());
        }
    }

    #[test]
    fn qos_2_goes_step_by_step() {
        let mut guard = introduced();
        sent(&mut guard, PUBLISH_2);
        assert!(!hears(&mut guard, PUBCOMP) && !hears(&mut guard, PUBACK));
        assert!(hears(&mut guard, PUBREC) && hears(&mut guard, PUBREC), "a repetition does no harm");
        assert!(!hears(&mut guard, PUBCOMP), "the library has not released it");
        sent(&mut guard, PUBREL);
        assert!(hears(&mut guard, PUBREC) && hears(&mut guard, PUBCOMP));
        sent(&mut guard, PUBLISH_1);
        assert!(!hears(&mut guard, PUBREC), "of a message with QoS 1");
    }

    #[test]
    fn a_suback_has_a_code_for_each_filter() {
        for bytes in [&[0x90, 2, 0, 7][..], &[0x90, 4, 0, 7, 1, 1], &[0x90, 3, 0, 7, 3], &[0x90, 3, 0, 7, 0x81]] {
            let mut guard = introduced();
            sent(&mut guard, SUBSCRIBE);
            assert!(!hears(&mut guard, bytes), "{bytes:?}");
        }
        let mut guard = introduced();
        sent(&mut guard, SUBSCRIBE);
        assert!(hears(&mut guard, &[0x90, 3, 0, 7, 0x80]), "a refusal is an answer");
    }

    #[test]
    fn what_is_no_packet_of_a_broker_does_not_pass() {
        for bytes in [
            &[0x20, 2, 0, 0][..],
            &[0x10, 2, 0, 0],
            &[0x82, 2, 0, 7],
            &[0xc0, 0],
            &[0xe0, 0],
            &[0xf0, 1, 0xff],
            &[0x00, 0],
            &[0xd0, 1, 0],
            &[0xd1, 0],
            &[0x60, 2, 0, 7],
            &[0x62, 3, 0, 7, 0],
            &[0x50, 1, 0],
            // Messages: a topic that is too long, empty, a filter, with NUL, no UTF-8; QoS 3; number 0; no number.
            &[0x30, 4, 0xff, 0xff, b'a', b'b'],
            &[0x30, 2, 0, 0],
            &[0x30, 3, 0, 1, b'#'],
            &[0x30, 3, 0, 1, 0],
            &[0x30, 3, 0, 1, 0xff],
            &[0x36, 5, 0, 1, b't', 0, 7],
            &[0x32, 5, 0, 1, b't', 0, 0],
            &[0x32, 3, 0, 1, b't'],
            &[0x30, 1, 0],
        ] {
            assert!(!hears(&mut introduced(), bytes), "{bytes:?}");
        }
        for bytes in [&[0x20, 2, 2, 0][..], &[0x20, 3, 0, 0, 0], &[0x20, 0], &[0x21, 2, 0, 0], PUBACK, b"HTTP/1.1"] {
            let first = cut(bytes).map(|all| all.into_iter().next());
            assert!(!matches!(first, Ok(Some(next)) if Guard::default().heard(&next).is_ok()), "{bytes:?}");
        }
        assert!(cut(b"\x20\xff\xff\xff\xff\xff").is_err());
        assert!(cut(b"\x40\xff\xff\xff\x7f").is_err(), "an answer of 256 MB");
    }

    #[test]
    fn messages_and_releases_pass() {
        for bytes in [PUBREL, &[0xd0, 0], &[0x30, 3, 0, 1, b't'], &[0x3d, 5, 0, 1, b't', 0, 9], &[0x31, 4, 0, 1, b't', b'x']] {
            assert!(hears(&mut introduced(), bytes), "{bytes:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_answered_and_passed_over() {
        for (first, answers) in [(0x30, vec![None]), (0x32, vec![Some([0x40, 2, 0, 7])]), (0x34, vec![Some([0x50, 2, 0, 7]), Some([0x70, 2, 0, 7])])]
        {
            let mut stream = vec![first];
            // 2 MiB and 5 bytes: topic `t`, a number or the first of the payload, payload.
            stream.extend([0x85, 0x80, 0x80, 1, 0, 1, b't', 0, 7]);
            stream.resize(stream.len() + (2 << 20), b'x');
            stream.extend(PUBREL);
            stream.extend([0xd0, 0]);
            let (mut guard, mut packets, mut said) = (introduced(), Packets::default(), Vec::new());
            let mut passed = Vec::new();
            for chunk in stream.chunks(1000) {
                packets.buffer().extend_from_slice(chunk);
                while let Some(next) = packets.next().unwrap() {
                    let (Next::Whole(packet) | Next::TooLarge(packet)) = &next;
                    match guard.heard(&next).unwrap() {
                        Verdict::Pass => passed.push(packet.bytes().to_vec()),
                        Verdict::Keep(answer) => said.push(answer),
                    }
                }
                assert!(packets.buffer().len() <= 1000);
            }
            assert_eq!(said, answers);
            let released = if first == 0x34 { vec![] } else { vec![PUBREL.to_vec()] };
            assert_eq!(passed, [released, vec![vec![0xd0, 0]]].concat());
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_cut_the_same_however_it_comes_and_no_bytes_make_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0_usize..64) {
            let at = at.min(bytes.len());
            let mut packets = Packets::default();
            let mut pieces = Vec::new();
            let mut failed = None;
            for part in [&bytes[..at], &bytes[at..]] {
                packets.buffer().extend_from_slice(part);
                while failed.is_none() {
                    match packets.next() {
                        Ok(Some(next)) => pieces.push(next),
                        Ok(None) => break,
                        Err(error) => failed = Some(error),
                    }
                }
            }
            match cut(&bytes) {
                Ok(whole) => {
                    prop_assert_eq!(failed, None);
                    prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
                }
                Err(error) => prop_assert_eq!(failed, Some(error)),
            }
            let mut guard = introduced();
            for next in &pieces {
                let _ = guard.heard(next);
                if let Next::Whole(packet) = next {
                    guard.sent(packet);
                }
            }
        }
    }
}
