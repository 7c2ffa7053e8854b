//! A closed loop: so many requests are in flight, and each answer makes room for the next. Every answer is checked.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::PATIENCE;
use super::client::{Client, Message, Requests};
use crate::machine;

/// The property that is updated and asked for.
pub const PROPERTY: &str = "property-0";

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Update,
    Get,
}

impl Kind {
    fn request(self) -> &'static str {
        match self {
            Self::Update => "twin/update",
            Self::Get => "twin/get",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    /// From sending to answer, ms, in the order of the answers.
    pub latencies: Vec<f64>,
    /// From the first request to the last answer.
    took: Duration,
    /// Processor time of this process meanwhile, µs.
    pub own_cpu_us: f64,
}

impl Measured {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answers() / self.took.as_secs_f64()
    }

    /// How many there were.
    #[allow(clippy::cast_precision_loss, reason = "a count below 2^52")]
    pub fn answers(&self) -> f64 {
        self.latencies.len() as f64
    }
}

/// A device's topics, and what was sent to it last.
struct Device {
    requests: [String; 2],
    results: [String; 2],
    last_value: Option<u64>,
}

impl Device {
    fn new(id: &str) -> Self {
        let topic = |kind: Kind, end: &str| format!("$hw/events/device/{id}/{}{end}", kind.request());
        Self {
            requests: [Kind::Update, Kind::Get].map(|kind| topic(kind, "")),
            results: [Kind::Update, Kind::Get].map(|kind| topic(kind, "/result")),
            last_value: None,
        }
    }
}

/// One request under way.
#[derive(Default)]
struct Slot {
    device: usize,
    event_id: String,
    /// What the answer must show; `None` for the twin of a device to which nothing was sent yet.
    value: Option<u64>,
    sent: Option<Instant>,
}

/// A connection that asks for these devices.
pub struct Load<'d> {
    client: Client,
    names: &'d [String],
    fleet: Fleet,
}

/// The devices, and how far the asking is.
struct Fleet {
    devices: Vec<Device>,
    next_device: usize,
    /// Values and event ids grow by one with each request.
    number: u64,
    payload: String,
}

/// What a result must say.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(default)]
    code: Option<i64>,
    #[serde(default, borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    twin: HashMap<Cow<'a, str>, Option<Property<'a>>>,
}

#[derive(Deserialize)]
struct Property<'a> {
    #[serde(default, borrow)]
    actual: Option<Side<'a>>,
}

#[derive(Deserialize)]
struct Side<'a> {
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl<'d> Load<'d> {
    /// Subscribes to the results of these devices.
    ///
    /// # Errors
    /// The endpoint refused.
    pub fn new(mut client: Client, names: &'d [String]) -> Result<Self, String> {
        let mut filters: Vec<String> = Vec::new();
        for name in names {
            let device = name.split('/').map(|_| "+").collect::<Vec<_>>().join("/");
            let kinds = [Kind::Update, Kind::Get].map(|kind| format!("$hw/events/device/{device}/{}/result", kind.request()));
            filters.extend(kinds.into_iter().filter(|filter| !filters.contains(filter)).collect::<Vec<_>>());
        }
        client.subscribe(&filters)?;
        let devices = names.iter().map(|name| Device::new(name)).collect();
        Ok(Self { client, names, fleet: Fleet { devices, next_device: 0, number: 0, payload: String::new() } })
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.names.len()
    }

    /// Asks `count` times, with `in_flight` requests under way.
    ///
    /// # Errors
    /// An answer that is wrong, or missing.
    pub fn count(&mut self, kind: Kind, in_flight: usize, count: usize) -> Result<Measured, String> {
        self.drive(kind, in_flight, |asked| asked < count)
    }

    /// Asks for so long, with `in_flight` requests under way; waits for the answers to all of them.
    ///
    /// # Errors
    /// An answer that is wrong, or missing.
    pub fn window(&mut self, kind: Kind, in_flight: usize, window: Duration) -> Result<Measured, String> {
        let began = Instant::now();
        self.drive(kind, in_flight, |_| began.elapsed() < window)
    }

    /// Asks for each device once: its twin must show the value that was acknowledged last.
    ///
    /// # Errors
    /// It does not.
    pub fn last_values_are_shown(&mut self) -> Result<(), String> {
        self.fleet.next_device = 0;
        let count = self.names.len();
        self.drive(Kind::Get, 1, |asked| asked < count).map(drop)
    }

    fn drive(&mut self, kind: Kind, in_flight: usize, mut more: impl FnMut(usize) -> bool) -> Result<Measured, String> {
        let Self { client: Client { requests, answers }, names, fleet } = self;
        let mut slots: Vec<Slot> = std::iter::repeat_with(Slot::default).take(in_flight).collect();
        let (mut asked, mut waiting) = (0, 0);
        let mut latencies = Vec::new();
        let (began, cpu) = (Instant::now(), machine::cpu_ns());
        for (at, slot) in slots.iter_mut().enumerate() {
            if more(asked) {
                fleet.ask(kind, at, slot, requests);
                (asked, waiting) = (asked + 1, waiting + 1);
            }
        }
        while waiting > 0 {
            requests.send()?;
            if !answers.receive()? {
                let missing: Vec<&str> = slots.iter().filter(|slot| slot.sent.is_some()).map(|slot| names[slot.device].as_str()).collect();
                return Err(format!("no answer within {} s to {waiting} requests, for {}", PATIENCE.as_secs(), missing.join(" ")));
            }
            while let Some(message) = answers.next()? {
                let at = check(kind, &message, &slots, &fleet.devices)?;
                let slot = &mut slots[at];
                latencies.extend(slot.sent.take().map(|sent| sent.elapsed().as_secs_f64() * 1e3));
                waiting -= 1;
                if more(asked) {
                    fleet.ask(kind, at, slot, requests);
                    (asked, waiting) = (asked + 1, waiting + 1);
                }
            }
        }
        Ok(Measured { latencies, took: began.elapsed(), own_cpu_us: (machine::cpu_ns() - cpu) / 1e3 })
    }
}

impl Fleet {
    /// Sends the next request of a slot: for the next device in turn, so that every device has its share.
    fn ask(&mut self, kind: Kind, at: usize, slot: &mut Slot, requests: &mut Requests) {
        self.number += 1;
        slot.device = self.next_device % self.devices.len();
        self.next_device = slot.device + 1;
        let (number, device) = (self.number, &mut self.devices[slot.device]);
        slot.event_id.clear();
        self.payload.clear();
        let _ = write!(slot.event_id, "{at}.{number}");
        let _ = match kind {
            Kind::Update => {
                device.last_value = Some(number);
                write!(
                    self.payload,
                    r#"{{"event_id":"{}","timestamp":0,"twin":{{"{PROPERTY}":{{"actual":{{"value":"{number}"}},"metadata":{{"type":"string"}}}}}}}}"#,
                    slot.event_id
                )
            }
            Kind::Get => write!(self.payload, r#"{{"event_id":"{}","timestamp":0}}"#, slot.event_id),
        };
        slot.value = device.last_value;
        requests.publish(&device.requests[kind as usize], self.payload.as_bytes());
        slot.sent = Some(Instant::now());
    }
}

/// The slot whose answer this is.
fn check(kind: Kind, message: &Message<'_>, slots: &[Slot], devices: &[Device]) -> Result<usize, String> {
    let wrong = |why: &str| format!("{why}: on {}: {}", message.topic, String::from_utf8_lossy(message.payload));
    let answer: Answer<'_> = serde_json::from_slice(message.payload).map_err(|error| wrong(&format!("an answer is no result ({error})")))?;
    if answer.code.is_some() || answer.reason.is_some() {
        return Err(wrong("a request was refused"));
    }
    let at = answer.event_id.split_once('.').and_then(|(at, _)| at.parse::<usize>().ok());
    let found = at.and_then(|at| Some((at, slots.get(at)?))).filter(|(_, slot)| slot.sent.is_some() && slot.event_id == answer.event_id);
    let Some((at, slot)) = found else { return Err(wrong("an answer belongs to no request")) };
    if devices[slot.device].results[kind as usize] != message.topic {
        return Err(wrong("an answer is on another device's topic"));
    }
    let shown = answer.twin.get(PROPERTY).and_then(|property| property.as_ref()?.actual.as_ref()).and_then(|side| side.value.parse().ok());
    match slot.value {
        Some(value) if shown != Some(value) => Err(wrong(&format!("{PROPERTY} is not {value}, which was sent"))),
        Some(_) | None => Ok(at),
    }
}
