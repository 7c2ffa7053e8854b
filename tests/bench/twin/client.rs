//! A lean MQTT 3.1.1 client: QoS 0, one thread, blocking, no allocation per message. It must cost less than what it measures.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// Seconds; no run is silent for so long.
const KEEP_ALIVE: u16 = 600;
const BUFFER_BYTES: usize = 256 << 10;
/// A larger packet is no answer to anything that is asked here.
const PACKET_BYTES_MAX: usize = 4 << 20;

/// One connection, in two halves, so that an answer can be read while the next request is written.
pub struct Client {
    pub requests: Requests,
    pub answers: Answers,
}

/// What goes out: gathered, then sent at once.
pub struct Requests {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What comes in.
pub struct Answers {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that were not looked at yet.
    start: usize,
    end: usize,
}

/// A message as it came.
pub struct Message<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
}

impl Client {
    /// Connects, trying again until `within` is over.
    ///
    /// # Errors
    /// The last reason.
    pub fn connect(address: &str, within: Duration) -> Result<Self, String> {
        let began = Instant::now();
        loop {
            match Self::try_connect(address, within) {
                Ok(client) => return Ok(client),
                Err(error) if began.elapsed() > within => return Err(format!("no MQTT at {address} within {} s: {error}", within.as_secs())),
                // Nobody wakes us: a port that refuses does not tell when it will take.
                Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
    }

    fn try_connect(address: &str, within: Duration) -> Result<Self, String> {
        let connect = || {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(within))?;
            Ok((stream.try_clone()?, stream))
        };
        let (ours, theirs) = connect().map_err(|error: std::io::Error| error.to_string())?;
        let requests = Requests { stream: ours, buffer: Vec::with_capacity(BUFFER_BYTES) };
        let answers = Answers { stream: theirs, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 };
        let mut client = Self { requests, answers };
        let id = harness::names::unique("bench");
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0b10];
        body.extend(KEEP_ALIVE.to_be_bytes());
        text(&mut body, &id);
        client.requests.packet(CONNECT, &[&body]);
        match client.reply(CONNACK)?.as_slice() {
            [_, 0] => Ok(client),
            other => Err(format!("the connection was refused (CONNACK {other:?})")),
        }
    }

    /// Subscribes with QoS 0 and waits until it is so.
    ///
    /// # Errors
    /// The endpoint refused, or said nothing.
    pub fn subscribe(&mut self, filters: &[String]) -> Result<(), String> {
        let mut body = vec![0, 1];
        for filter in filters {
            text(&mut body, filter);
            body.push(0);
        }
        self.requests.packet(SUBSCRIBE, &[&body]);
        let reply = self.reply(SUBACK)?;
        if reply.get(2..).is_some_and(|codes| codes.len() == filters.len() && codes.iter().all(|code| *code <= 2)) {
            Ok(())
        } else {
            Err(format!("the subscription to {filters:?} was refused (SUBACK {reply:?})"))
        }
    }

    fn reply(&mut self, kind: u8) -> Result<Vec<u8>, String> {
        self.requests.send()?;
        loop {
            if let Some((found, start, end)) = self.answers.packet()? {
                if found == kind {
                    return Ok(self.answers.buffer[start..end].to_vec());
                }
            } else if !self.answers.receive()? {
                return Err("no reply in time".to_owned());
            }
        }
    }
}

impl Requests {
    /// Adds a message with QoS 0.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        let length = u16::try_from(topic.len()).expect("our topics are short").to_be_bytes();
        self.packet(PUBLISH, &[&length, topic.as_bytes(), payload]);
    }

    /// Sends what was gathered.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn send(&mut self) -> Result<(), String> {
        if !self.buffer.is_empty() {
            self.stream.write_all(&self.buffer).map_err(|error| format!("the connection was lost: {error}"))?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn packet(&mut self, kind: u8, parts: &[&[u8]]) {
        self.buffer.push(kind);
        let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
        while length > 127 {
            self.buffer.push((length & 127) as u8 | 128);
            length >>= 7;
        }
        self.buffer.push((length & 127) as u8);
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }
}

impl Answers {
    /// The next message that is here already.
    ///
    /// # Errors
    /// The endpoint does not speak MQTT 3.1.1, or sends with another QoS than was asked for.
    pub fn next(&mut self) -> Result<Option<Message<'_>>, String> {
        while let Some((kind, start, end)) = self.packet()? {
            if kind & 0xf0 != PUBLISH {
                continue;
            }
            let body = &self.buffer[start..end];
            let length = body.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
            let split = length.and_then(|length| body.get(2..)?.split_at_checked(length)).filter(|_| kind & 0b110 == 0);
            let (topic, payload) = split.ok_or("a message is no QoS 0 PUBLISH")?;
            let topic = std::str::from_utf8(topic).map_err(|error| format!("a topic is no text: {error}"))?;
            return Ok(Some(Message { topic, payload }));
        }
        Ok(None)
    }

    /// Waits until more is here; `false` when nothing came in time.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn receive(&mut self) -> Result<bool, String> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == self.buffer.len() {
            self.buffer.resize(self.end * 2, 0);
        }
        match self.stream.read(&mut self.buffer[self.end..]) {
            Ok(0) => Err("the endpoint closed the connection".to_owned()),
            Ok(count) => {
                self.end += count;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(format!("the connection was lost: {error}")),
        }
    }

    /// Sets for how long [`Self::receive`] waits.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn wait_at_most(&self, limit: Duration) -> Result<(), String> {
        self.stream.set_read_timeout(Some(limit)).map_err(|error| error.to_string())
    }

    /// Kind and place of the next packet, if it is here as a whole (MQTT 3.1.1 §2.2).
    fn packet(&mut self) -> Result<Option<(u8, usize, usize)>, String> {
        let bytes = &self.buffer[self.start..self.end];
        let (mut length, mut at) = (0, 1);
        loop {
            let Some(byte) = bytes.get(at) else { return Ok(None) };
            length |= usize::from(byte & 127) << (7 * (at - 1));
            at += 1;
            if byte & 128 == 0 {
                break;
            }
            if at > 4 {
                return Err("a packet has no valid length".to_owned());
            }
        }
        if length > PACKET_BYTES_MAX {
            return Err(format!("a packet of {length} bytes is larger than any answer"));
        }
        if bytes.len() < at + length {
            return Ok(None);
        }
        let (kind, start) = (bytes[0], self.start + at);
        self.start = start + length;
        Ok(Some((kind, start, self.start)))
    }
}

fn text(packet: &mut Vec<u8>, text: &str) {
    packet.extend(u16::try_from(text.len()).expect("our names are short").to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}
