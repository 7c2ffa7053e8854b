//! For the tests of Twin, Membership and Device: a real store, and probes in place of their peers.

use std::sync::Arc;

use actor::Fence;
use actor::testing::Probe;
use model::{Device, DeviceId, ManualClock, Timestamp};
use serde_json::Value;
use tempfile::TempDir;
use wire::hub::MsgId;
use wire::mqtt::Topic;
use wire::mqtt::payload::TwinUpdate;

use super::{CommunicationMessage, Effect};
use crate::membership::{Births, MembershipMessage};
use crate::store::{Read, Store, StoreError, Tx, device, pending_report};

/// When the tests take place.
pub(crate) const NOW: Timestamp = Timestamp(1_552_989_600_000);

/// A store in a directory of its own, probes, and a clock that stands still.
pub(crate) struct Workbench {
    pub store: Store,
    pub communication: Probe<CommunicationMessage>,
    pub membership: Probe<MembershipMessage>,
    pub births: Births,
    pub clock: ManualClock,
    _directory: TempDir,
}

impl Workbench {
    /// A workbench whose store has these devices.
    pub fn with(devices: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("edge.db")).unwrap();
        let bench = Self {
            store,
            communication: Probe::new("communication", 16),
            membership: Probe::new("membership", 16),
            births: Births::default(),
            clock: ManualClock::at(NOW),
            _directory: directory,
        };
        for id in devices {
            bench.write(|tx| device::insert(tx, &named(id)));
        }
        bench
    }

    pub fn clock(&self) -> Arc<ManualClock> {
        Arc::new(self.clock.clone())
    }

    pub fn write<T>(&self, body: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> T {
        self.store.write(&Fence::unfenced(), body).unwrap()
    }

    pub fn read<T>(&self, body: impl FnOnce(&mut Read<'_>) -> Result<T, StoreError>) -> T {
        self.store.read(body).unwrap()
    }

    pub fn stored(&self, device: &str) -> Option<Device> {
        self.read(|read| device::load(read, &id(device))).map(|stored| stored.device)
    }

    /// Properties that wait to be reported; the state is `<state>`.
    pub fn pending(&self, device: &str) -> Vec<String> {
        let pending = self.read(|read| pending_report::of_device(read, &id(device)));
        let mut names: Vec<_> = pending.properties.iter().map(|(name, _)| name.to_string()).collect();
        names.extend(pending.state.map(|_| "<state>".to_owned()));
        names.sort();
        names
    }

    /// All effects that were told since the last call.
    pub fn effects(&self) -> Vec<Effect> {
        let mut all = Vec::new();
        for message in self.communication.drain() {
            match &*message {
                CommunicationMessage::Effects(effects) => all.extend(effects.iter().map(|caused| caused.effect.clone())),
                other => panic!("not an effect: {other:?}"),
            }
        }
        all
    }
}

/// What an effect says, in short: the topic's last words and the body without its times.
pub(crate) fn told(effects: &[Effect]) -> Vec<(String, Value)> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Publish { topic, payload } => {
                let topic = topic.to_string();
                (topic.trim_start_matches("$hw/events/").to_owned(), without_times(payload))
            }
            Effect::ReportsPending => ("reports".into(), Value::Null),
            Effect::Acknowledge { frame, resource } => (format!("ack {frame} {resource}"), Value::Null),
            Effect::Refuse { frame, resource, reason } => (format!("refuse {frame} {resource}"), Value::String(reason.clone())),
            Effect::MembershipReceived => ("membership received".into(), Value::Null),
        })
        .collect()
}

/// The topics of what was told, in order.
pub(crate) fn kinds(effects: &[Effect]) -> Vec<String> {
    told(effects).into_iter().map(|(kind, _)| kind).collect()
}

/// The body of the only publication on `topic`.
pub(crate) fn body(effects: &[Effect], topic: &Topic) -> Value {
    let mut bodies = effects.iter().filter_map(|effect| match effect {
        Effect::Publish { topic: on, payload } if on == topic => Some(without_times(payload)),
        _ => None,
    });
    let body = bodies.next().expect("nothing was published there");
    assert!(bodies.next().is_none(), "published more than once");
    body
}

fn without_times(payload: &[u8]) -> Value {
    fn strip(value: &mut Value) {
        if let Value::Object(object) = value {
            let time = object.remove("timestamp");
            assert!(time.is_none_or(|time| time == NOW.millis()), "a time that is not now");
            if object.get("metadata").and_then(Value::as_object).is_some_and(|metadata| metadata.contains_key("timestamp")) {
                object.remove("metadata");
            }
            object.values_mut().for_each(strip);
        } else if let Value::Array(values) = value {
            values.iter_mut().for_each(strip);
        }
    }
    let mut value = serde_json::from_slice(payload).unwrap();
    strip(&mut value);
    value
}

pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::new(text).unwrap()
}

pub(crate) fn frame(text: &str) -> MsgId {
    MsgId::new(text).unwrap()
}

pub(crate) fn named(id: &str) -> Device {
    Device {
        id: DeviceId::new(id).unwrap(),
        name: "Lamp".into(),
        description: "in the hall".into(),
        state: None,
        last_online: String::new(),
        attributes: Default::default(),
        twin: Default::default(),
    }
}

/// A request with event id `e`, read as the border reads it.
pub(crate) fn request(twin: &str) -> TwinUpdate {
    TwinUpdate::parse(format!(r#"{{"event_id":"e","timestamp":1,"twin":{twin}}}"#).as_bytes()).unwrap()
}
