//! An MQTT 3.1.1 client that sends what it is told, right or wrong: what mosquitto's clients refuse to send.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long an answer of the broker may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// One connection, with a clean session and without keep-alive.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    packet: u16,
}

impl RawClient {
    /// Connects to the broker on `port` of the loopback and waits for its CONNACK.
    ///
    /// # Panics
    /// When the broker does not take the client.
    #[track_caller]
    pub fn connect(port: u16, client_id: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("a socket takes a timeout");
        stream.set_write_timeout(Some(ANSWER_WITHIN)).expect("a socket takes a timeout");
        let mut client = Self { stream, packet: 0 };
        let mut body = text(b"MQTT");
        body.extend([4, 0x02, 0, 0]);
        body.extend(text(client_id.as_bytes()));
        client.send(&packet(0x10, &body)).expect("the broker reads");
        let (kind, body) = client.receive().expect("a CONNACK");
        assert_eq!((kind, body.as_slice()), (0x20, &[0, 0][..]), "the broker refuses the client");
        client
    }

    /// Publishes at QoS 1 and waits until the broker has acknowledged it.
    ///
    /// # Errors
    /// What happened to the connection instead.
    pub fn publish(&mut self, topic: &[u8], payload: &[u8]) -> Result<(), String> {
        self.packet = self.packet.wrapping_add(1).max(1);
        let number = self.packet.to_be_bytes();
        self.send(&publication(topic, payload, Some(number)))?;
        let (kind, body) = self.receive()?;
        if kind == 0x40 && body == number { Ok(()) } else { Err(format!("not a PUBACK: {kind:#x} {body:?}")) }
    }

    /// Publishes at QoS 0, so that nothing comes back.
    ///
    /// # Errors
    /// That the broker has closed the connection.
    pub fn publish_unconfirmed(&mut self, topic: &[u8], payload: &[u8]) -> Result<(), String> {
        self.send(&publication(topic, payload, None))
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// That the broker has closed the connection.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| error.to_string())
    }

    /// Waits until the broker ends this connection; whatever it says before is let go.
    ///
    /// # Errors
    /// That it does not.
    pub fn ends(mut self) -> Result<(), String> {
        let (until, mut bytes) = (Instant::now() + ANSWER_WITHIN, [0; 4096]);
        while Instant::now() < until {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(_) => return Ok(()),
            }
        }
        Err("the connection is still open".to_owned())
    }

    /// The next packet: its first byte, and what follows its length.
    fn receive(&mut self) -> Result<(u8, Vec<u8>), String> {
        let mut read = |buffer: &mut [u8]| self.stream.read_exact(buffer).map_err(|error| error.to_string());
        let mut byte = [0];
        read(&mut byte)?;
        let kind = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            read(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        read(&mut body)?;
        Ok((kind, body))
    }
}

/// A PUBLISH as it goes over the wire: at QoS 1 with a packet identifier, at QoS 0 without.
pub fn publication(topic: &[u8], payload: &[u8], number: Option<[u8; 2]>) -> Vec<u8> {
    let mut body = text(topic);
    body.extend(number.into_iter().flatten());
    body.extend(payload);
    packet(if number.is_some() { 0x32 } else { 0x30 }, &body)
}

/// A text of MQTT: two bytes of length, then itself.
fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a text of MQTT has at most 65,535 bytes");
    let mut out = length.to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).expect("seven bits");
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend(body);
    out
}
