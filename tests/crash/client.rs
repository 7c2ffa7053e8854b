//! As much of an MQTT 3.1.1 client as a device needs, over a blocking socket: the end of its connection is the end of the
//! daemon, seen at once.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// How long the daemon may take for an answer; a killed one is known at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection of a device.
pub struct Client {
    stream: BufReader<TcpStream>,
    packets: u16,
}

/// A message with a JSON body.
pub struct Message {
    pub topic: String,
    pub body: Value,
}

impl Client {
    /// Connects with a clean session and subscribes.
    pub fn connect(port: u16, id: &str, filters: &[String]) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream), packets: 0 };
        // Protocol level 4, clean session, no keep-alive.
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0];
        text(&mut body, id);
        client.send(0x10, &body)?;
        client.expect(2, |answer| answer == [0, 0])?;
        let mut body = client.packet().to_vec();
        for filter in filters {
            text(&mut body, filter);
            body.push(1);
        }
        client.send(0x82, &body)?;
        client.expect(9, |answer| answer[2..].iter().all(|granted| *granted < 0x80))?;
        Ok(client)
    }

    /// Publishes at quality of service 1, and does not wait.
    pub fn publish(&mut self, topic: &str, body: &Value) -> io::Result<()> {
        let mut bytes = Vec::new();
        text(&mut bytes, topic);
        bytes.extend(self.packet());
        bytes.extend(body.to_string().into_bytes());
        self.send(0x32, &bytes)
    }

    /// The next message, acknowledged.
    pub fn next(&mut self) -> io::Result<Message> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
        }
    }

    /// The next message, acknowledged; `None` when nothing arrives for a time.
    pub fn next_within(&mut self, time: Duration) -> io::Result<Option<Message>> {
        while self.has_more_within(time)? {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn has_more_within(&mut self, time: Duration) -> io::Result<bool> {
        self.stream.get_ref().set_read_timeout(Some(time))?;
        let more = match self.stream.fill_buf() {
            Ok([]) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        };
        self.stream.get_ref().set_read_timeout(Some(PATIENCE))?;
        more
    }

    /// One packet; `None` when it is no message.
    fn take(&mut self) -> io::Result<Option<Message>> {
        let (head, body) = self.receive()?;
        if head >> 4 != 3 {
            return Ok(None);
        }
        let (length, rest) = body.split_first_chunk::<2>().ok_or_else(|| invalid("a PUBLISH without a topic"))?;
        let (topic, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(|| invalid("a topic beyond the packet"))?;
        let mut payload = rest;
        if head & 0b110 != 0 {
            let (packet, rest) = rest.split_first_chunk::<2>().ok_or_else(|| invalid("a PUBLISH without an identifier"))?;
            self.send(0x40, packet)?;
            payload = rest;
        }
        let body = serde_json::from_slice(payload).map_err(io::Error::other)?;
        Ok(Some(Message { topic: String::from_utf8_lossy(topic).into_owned(), body }))
    }

    fn packet(&mut self) -> [u8; 2] {
        self.packets = self.packets.checked_add(1).unwrap_or(1);
        self.packets.to_be_bytes()
    }

    fn expect(&mut self, kind: u8, accept: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        let (head, body) = self.receive()?;
        if head >> 4 == kind && accept(&body) { Ok(()) } else { Err(invalid(&format!("packet {kind} expected, got {head:#x} {body:?}"))) }
    }

    fn send(&mut self, head: u8, body: &[u8]) -> io::Result<()> {
        let mut packet = vec![head];
        let mut left = body.len();
        loop {
            let low = u8::try_from(left % 128).expect("below 128");
            left /= 128;
            packet.push(if left > 0 { low | 128 } else { low });
            if left == 0 {
                break;
            }
        }
        packet.extend(body);
        self.stream.get_mut().write_all(&packet)
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let head = self.byte()?;
        let mut length = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            length |= usize::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((head, body))
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).map(|()| byte[0])
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u16::try_from(text.len()).expect("short names").to_be_bytes());
    bytes.extend(text.bytes());
}

fn invalid(words: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}
