//! A broker that misbehaves by a script, and writes down what it is sent.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Kinds of packets (MQTT 3.1.1 §2.2.1); `ACCEPTED` is none: a connection was made.
pub(crate) const ACCEPTED: u8 = 0;
pub(crate) const CONNECT: u8 = 1;
pub(crate) const PUBLISH: u8 = 3;
pub(crate) const PUBREL: u8 = 6;
pub(crate) const SUBSCRIBE: u8 = 8;
pub(crate) const UNSUBSCRIBE: u8 = 10;
pub(crate) const PINGREQ: u8 = 12;

/// What a client sent.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) kind: u8,
    flags: u8,
    body: Vec<u8>,
}

impl Packet {
    /// Of CONNECT.
    pub(crate) fn is_clean_session(&self) -> bool {
        self.body[7] & 2 != 0
    }

    /// Topic, payload, QoS and retain flag of PUBLISH.
    pub(crate) fn publication(&self) -> (String, String, u8, bool) {
        let (topic, rest) = text(&self.body);
        let qos = (self.flags >> 1) & 3;
        let payload = &rest[if qos > 0 { 2 } else { 0 }..];
        (topic, String::from_utf8_lossy(payload).into_owned(), qos, self.flags & 1 != 0)
    }

    /// Filters of SUBSCRIBE with their QoS.
    pub(crate) fn subscriptions(&self) -> Vec<(String, u8)> {
        let (mut rest, mut all) = (&self.body[2..], Vec::new());
        while !rest.is_empty() {
            let (filter, after) = text(rest);
            all.push((filter, after[0]));
            rest = &after[1..];
        }
        all
    }

    /// The packet identifier.
    pub(crate) fn id_bytes(&self) -> [u8; 2] {
        let at = if self.kind == PUBLISH { 2 + usize::from(u16::from_be_bytes([self.body[0], self.body[1]])) } else { 0 };
        [self.body[at], self.body[at + 1]]
    }
}

fn text(bytes: &[u8]) -> (String, &[u8]) {
    let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    (String::from_utf8_lossy(&bytes[2..2 + length]).into_owned(), &bytes[2 + length..])
}

/// What a script does with a packet.
pub(crate) enum Answer {
    /// As a broker should.
    Properly,
    Bytes(Vec<u8>),
    Silence,
    Close,
}

type Script = Arc<dyn Fn(&Packet) -> Answer + Send + Sync>;

struct Shared {
    script: Mutex<Script>,
    packets: Mutex<Vec<Packet>>,
    connections: AtomicUsize,
    session_present: AtomicBool,
    stopped: AtomicBool,
}

/// The broker. It listens as long as it lives.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Scripted {
    pub(crate) fn start(script: impl Fn(&Packet) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(script)),
            packets: Mutex::default(),
            connections: AtomicUsize::new(0),
            session_present: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                serving.connections.fetch_add(1, Ordering::SeqCst);
                let shared = serving.clone();
                std::thread::spawn(move || {
                    let _ = shared.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, shared }
    }

    /// Goes on by another script.
    pub(crate) fn follow(&self, script: impl Fn(&Packet) -> Answer + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Behaves from now on.
    pub(crate) fn recover(&self) {
        self.follow(|_| Answer::Properly);
    }

    /// Says at each CONNECT that it has kept the session.
    pub(crate) fn keep_sessions(&self) {
        self.shared.session_present.store(true, Ordering::SeqCst);
    }

    /// Connections made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What arrived of that kind.
    pub(crate) fn packets(&self, kind: u8) -> Vec<Packet> {
        self.shared.packets.lock().unwrap().iter().filter(|packet| packet.kind == kind).cloned().collect()
    }

    /// Payloads that arrived, in order, repetitions included.
    pub(crate) fn payloads(&self) -> Vec<String> {
        self.packets(PUBLISH).iter().map(|packet| packet.publication().1).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut packet = Packet { kind: ACCEPTED, flags: 0, body: Vec::new() };
        loop {
            let script = self.script.lock().unwrap().clone();
            match script(&packet) {
                Answer::Properly => stream.write_all(&self.proper(&packet))?,
                Answer::Bytes(bytes) => stream.write_all(&bytes)?,
                Answer::Silence => {}
                Answer::Close => return Ok(()),
            }
            packet = read(&mut stream)?;
            self.packets.lock().unwrap().push(packet.clone());
        }
    }

    fn proper(&self, packet: &Packet) -> Vec<u8> {
        let acknowledge = |first: u8| {
            let [high, low] = packet.id_bytes();
            vec![first, 2, high, low]
        };
        match packet.kind {
            CONNECT => {
                let present = self.session_present.load(Ordering::SeqCst) && !packet.is_clean_session();
                vec![0x20, 2, u8::from(present), 0]
            }
            PUBLISH => match packet.publication().2 {
                1 => acknowledge(0x40),
                2 => acknowledge(0x50),
                _ => Vec::new(),
            },
            PUBREL => acknowledge(0x70),
            SUBSCRIBE => {
                let [high, low] = packet.id_bytes();
                let granted: Vec<u8> = packet.subscriptions().into_iter().map(|(_, qos)| qos).collect();
                [vec![0x90, u8::try_from(2 + granted.len()).unwrap(), high, low], granted].concat()
            }
            UNSUBSCRIBE => acknowledge(0xb0),
            PINGREQ => vec![0xd0, 0],
            _ => Vec::new(),
        }
    }
}

fn read(stream: &mut &TcpStream) -> io::Result<Packet> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let (kind, flags) = (byte[0] >> 4, byte[0] & 15);
    let (mut length, mut shift) = (0_usize, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 127) << shift;
        shift += 7;
        if byte[0] < 128 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Packet { kind, flags, body })
}
