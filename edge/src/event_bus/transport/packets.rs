//! MQTT 3.1.1 as it goes over the wire, cut into packets of bounded size. Pure.

use bytes::{Buf as _, Bytes, BytesMut};

use super::super::broker::PACKET_BYTES_MAX;

/// Kinds of packets (MQTT 3.1.1 §2.2.1).
pub(super) mod kind {
    pub(in super::super) const CONNACK: u8 = 2;
    pub(in super::super) const PUBLISH: u8 = 3;
    pub(in super::super) const PUBACK: u8 = 4;
    pub(in super::super) const PUBREC: u8 = 5;
    pub(in super::super) const PUBREL: u8 = 6;
    pub(in super::super) const PUBCOMP: u8 = 7;
    pub(in super::super) const SUBSCRIBE: u8 = 8;
    pub(in super::super) const SUBACK: u8 = 9;
    pub(in super::super) const UNSUBSCRIBE: u8 = 10;
    pub(in super::super) const UNSUBACK: u8 = 11;
    pub(in super::super) const PINGRESP: u8 = 13;
}

/// What a broker sent that no broker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sent {0}: is mqtt.server the address of a broker that speaks MQTT 3.1.1?")]
pub(super) struct Nonsense(pub(super) &'static str);

/// A whole packet.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    bytes: Bytes,
    /// Where the fixed header ends.
    body_at: usize,
}

impl Packet {
    /// All of it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    pub(super) fn flags(&self) -> u8 {
        self.bytes[0] & 15
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.bytes[self.body_at..]
    }
}

/// What is next in a stream.
#[derive(Clone, Debug)]
pub(super) enum Next {
    /// A packet.
    Whole(Packet),
    /// The beginning of a PUBLISH, up to its payload; the rest is passed over.
    TooLarge(Packet),
}

/// Cuts a stream of bytes into packets of at most [`PACKET_BYTES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Packets {
    buffer: BytesMut,
    /// Bytes still to come of a packet that is passed over.
    passing: usize,
}

impl Packets {
    /// Where to read into.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        // A large message is not kept room for.
        if self.buffer.is_empty() && self.buffer.capacity() > 64 << 10 {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(4 << 10);
        &mut self.buffer
    }

    /// The next packet, when all of it has come.
    pub(super) fn next(&mut self) -> Result<Option<Next>, Nonsense> {
        let passed = self.passing.min(self.buffer.len());
        self.buffer.advance(passed);
        self.passing -= passed;
        let Some((body_at, length)) = header(&self.buffer)? else { return Ok(None) };
        let whole = body_at + length;
        if whole <= PACKET_BYTES_MAX {
            return Ok((self.buffer.len() >= whole).then(|| Next::Whole(Packet { bytes: self.buffer.split_to(whole).freeze(), body_at })));
        }
        if self.buffer[0] >> 4 != kind::PUBLISH {
            return Err(Nonsense("a packet that is longer than its kind ever is"));
        }
        let Some(topic) = number(&self.buffer, body_at) else { return Ok(None) };
        let payload_at = body_at + 2 + usize::from(topic) + 2;
        if self.buffer.len() < payload_at {
            return Ok(None);
        }
        let head = Packet { bytes: self.buffer.split_to(payload_at).freeze(), body_at };
        self.passing = whole - payload_at;
        Ok(Some(Next::TooLarge(head)))
    }
}

/// Length of the fixed header and of what follows it (MQTT 3.1.1 §2.2.3).
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, Nonsense> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * place);
        if *byte < 128 {
            return Ok(Some((place + 2, length)));
        }
    }
    if bytes.len() < 5 { Ok(None) } else { Err(Nonsense("a packet whose length has more than four bytes")) }
}

/// The two bytes there, as a number.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]))
}
