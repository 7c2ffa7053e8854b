//! The border: MQTT topic and bytes become a message for one module, or an answer.
//!
//! [`classify`] is pure. [`Ingress`] runs it on the MQTT client's thread and tries the module's mailbox, never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actor::{EventKind, Handle, Mail, Meta, SendError};
use bytes::Bytes;
use log::warn;
use model::{Clock, NodeName};
use wire::mqtt::Topic;
use wire::mqtt::payload::{Fault, Get, Rejection, StateUpdate, TwinUpdate, answer};

use super::forms::Forms;
use super::transport::Inbound;
use super::{EventBusMessage, Peers};
use crate::communication::CommunicationMessage;
use crate::device::DeviceMessage;
use crate::membership::MembershipMessage;
use crate::twin::TwinMessage;

/// What a message from MQTT is.
#[derive(Debug)]
pub enum Inward {
    /// For Twin.
    Twin(TwinMessage),
    /// For Membership.
    Membership(MembershipMessage),
    /// For Device.
    Device(DeviceMessage),
    /// For the cloud, through Communication.
    Upload(CommunicationMessage),
    /// Refused; whoever asked hears why.
    Refused(ErrorResult),
    /// Nothing of ours, and nobody to answer to.
    Ignored(Ignored),
}

/// An error result, on the topic where the result would have been (KubeEdge publishes it on `device//twin/update/result`,
/// where nobody can listen).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResult {
    /// Where.
    pub topic: Topic,
    /// The request's, where one could be read.
    pub event_id: String,
    /// What is wrong.
    pub fault: Fault,
}

/// Why a message is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// The topic is none that a request can have.
    Topic,
    /// A state that KubeEdge passes over without an answer.
    State,
}

/// What arrived and went no further, since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Requests answered with 400.
    pub refused: u64,
    /// Requests answered with 500 because their module's mailbox was full.
    pub busy: u64,
    /// Messages dropped because a mailbox was full and nobody could be answered.
    pub dropped: u64,
    /// Messages that are nothing of ours.
    pub ignored: u64,
}

/// Gives its meaning to what a broker delivers.
///
/// `node` stands in the topic of the answer to a malformed `membership/get`.
pub fn classify(node: &NodeName, topic: Topic, text: &str, payload: &[u8]) -> Inward {
    let refused = |topic: Topic, Rejection { event_id, fault }| Inward::Refused(ErrorResult { topic, event_id, fault });
    match topic {
        Topic::TwinUpdate(device) => match TwinUpdate::parse(payload) {
            Ok(request) => Inward::Twin(TwinMessage::Update { device, request }),
            Err(rejection) => refused(Topic::TwinUpdateResult(device), rejection),
        },
        // A mapper's wish to have these properties reported, and no more: only the cloud speaks for the cloud.
        Topic::TwinCloudUpdated(device) => match TwinUpdate::parse(payload) {
            Ok(TwinUpdate { event_id, change, .. }) => {
                Inward::Twin(TwinMessage::Report { device, event_id, names: change.properties.into_keys().collect() })
            }
            Err(rejection) => refused(Topic::TwinUpdateResult(device), rejection),
        },
        Topic::TwinGet(device) => match Get::parse_twin(payload) {
            Ok(Get { event_id, .. }) => Inward::Twin(TwinMessage::Get { device, event_id }),
            Err(rejection) => refused(Topic::TwinGetResult(device), rejection),
        },
        Topic::DeviceStateUpdate(device) => match StateUpdate::parse(payload) {
            Ok(StateUpdate { event_id, state, .. }) => Inward::Device(DeviceMessage::StateUpdate { device, event_id, state }),
            Err(_) => Inward::Ignored(Ignored::State),
        },
        Topic::MembershipGet { .. } => match Get::parse_membership(payload) {
            Ok(Get { event_id, .. }) => Inward::Membership(MembershipMessage::Get { event_id }),
            Err(rejection) => refused(Topic::MembershipGetResult(node.clone()), rejection),
        },
        Topic::Upload(_) | Topic::UploadRecords | Topic::User(_) => upload(text, payload),
        // A topic of ours that is no request: an answer of our own that came back, or a word that KubeEdge has no action
        // for either. Everything else arrives because the cloud subscribed it.
        Topic::Custom(_) if !text.starts_with("$hw/events/device/") && !text.starts_with("$hw/events/node/") => upload(text, payload),
        Topic::Custom(_)
        | Topic::MembershipGetResult(_)
        | Topic::MembershipUpdated(_)
        | Topic::AuthInfoGetResult(_)
        | Topic::DeviceStateUpdateResult(_)
        | Topic::DeviceUpdated(_)
        | Topic::TwinUpdateResult(_)
        | Topic::TwinUpdateDocument(_)
        | Topic::TwinUpdateDelta(_)
        | Topic::TwinGetResult(_)
        | Topic::NodeConnection => Inward::Ignored(Ignored::Topic),
    }
}

fn upload(text: &str, payload: &[u8]) -> Inward {
    Inward::Upload(CommunicationMessage::Upload { topic: text.to_owned(), payload: Bytes::copy_from_slice(payload) })
}

/// Takes what the MQTT client receives.
pub struct Ingress {
    node: NodeName,
    clock: Arc<dyn Clock>,
    forms: Arc<Forms>,
    peers: Peers,
    refused: AtomicU64,
    busy: AtomicU64,
    dropped: AtomicU64,
    ignored: AtomicU64,
}

impl Ingress {
    /// The border of that node.
    pub fn new(node: NodeName, clock: Arc<dyn Clock>, forms: Arc<Forms>, peers: Peers) -> Self {
        let zero = || AtomicU64::new(0);
        Self { node, clock, forms, peers, refused: zero(), busy: zero(), dropped: zero(), ignored: zero() }
    }

    /// Counters.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures { refused: read(&self.refused), busy: read(&self.busy), dropped: read(&self.dropped), ignored: read(&self.ignored) }
    }

    /// Order across modules: what Membership has taken by now is done before this message.
    fn behind_membership(&self) -> Meta {
        Meta::new("mqtt").behind(self.peers.membership.ticket())
    }

    fn twin(&self, message: TwinMessage) {
        let Some(message) = full(&self.peers.twin, self.behind_membership(), message) else { return };
        match message {
            TwinMessage::Update { device, request } => self.say_busy(Topic::TwinUpdateResult(device), request.event_id),
            TwinMessage::Report { device, event_id, .. } => self.say_busy(Topic::TwinUpdateResult(device), event_id),
            // The border makes none.
            TwinMessage::CloudSync { .. } => self.drop_one("twin"),
            TwinMessage::Get { device, event_id } => self.say_busy(Topic::TwinGetResult(device), event_id),
        }
    }

    fn membership(&self, message: MembershipMessage) {
        match full(&self.peers.membership, Meta::new("mqtt"), message) {
            None => {}
            Some(MembershipMessage::Get { event_id }) => self.say_busy(Topic::MembershipGetResult(self.node.clone()), event_id),
            // The border makes no other one.
            Some(MembershipMessage::Detail { .. } | MembershipMessage::Update { .. }) => self.drop_one("membership"),
        }
    }

    fn device(&self, message: DeviceMessage) {
        if full(&self.peers.device, self.behind_membership(), message).is_some() {
            self.drop_one("device");
        }
    }

    fn upload(&self, message: CommunicationMessage) {
        if full(&self.peers.communication, Meta::new("mqtt"), message).is_some() {
            self.drop_one("communication");
        }
    }

    fn say_busy(&self, topic: Topic, event_id: String) {
        let count = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            warn!(topic:% = topic, busy = count; "a request was answered 500: its module's mailbox is full");
        }
        self.answer(ErrorResult { topic, event_id, fault: Fault::Internal("too many requests at once, try again".into()) });
    }

    fn answer(&self, ErrorResult { topic, event_id, fault }: ErrorResult) {
        let payload = answer::error_result(&event_id, self.clock.now(), &fault);
        if full(&self.peers.own, Meta::new("mqtt"), EventBusMessage::Publish { topic, payload }).is_some() {
            self.drop_one("eventbus");
        }
    }

    fn drop_one(&self, module: &'static str) {
        let count = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            warn!(module, dropped = count; "an MQTT message was dropped: the mailbox is full");
        }
    }

    fn ignore(&self, topic: &str) {
        let count = self.ignored.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            let topic: String = topic.chars().take(128).flat_map(char::escape_debug).collect();
            warn!(topic, ignored = count; "an MQTT message is no request that has an answer");
        }
    }
}

impl Inbound for Ingress {
    fn arrived(&self, text: &str, payload: &[u8]) {
        let Ok(topic) = Topic::parse(text) else {
            return self.ignore(text);
        };
        self.forms.hear(&topic, text);
        match classify(&self.node, topic, text, payload) {
            Inward::Twin(message) => self.twin(message),
            Inward::Membership(message) => self.membership(message),
            Inward::Device(message) => self.device(message),
            Inward::Upload(message) => self.upload(message),
            Inward::Refused(result) => {
                let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                if worth_a_line(count) {
                    warn!(topic:% = result.topic, reason:% = result.fault, refused = count; "an MQTT request was refused");
                }
                self.answer(result);
            }
            Inward::Ignored(_) => self.ignore(text),
        }
    }

    fn up(&self, endpoint: &'static str) {
        self.peers.own.note(EventKind::Connected, format!("to the {endpoint} broker"));
        // For the page only: what a full mailbox loses here harms nobody.
        let _ = self.peers.own.try_post(Meta::new("mqtt"), EventBusMessage::TransportUp { endpoint });
    }

    fn down(&self, endpoint: &'static str, reason: String) {
        self.peers.own.note(EventKind::Disconnected, format!("from the {endpoint} broker: {reason}"));
        let _ = self.peers.own.try_post(Meta::new("mqtt"), EventBusMessage::TransportDown { endpoint, reason });
    }
}

/// Tries a mailbox; gives the message back when it takes none.
fn full<M: Mail>(handle: &Handle<M>, meta: Meta, message: M) -> Option<M> {
    match handle.try_post(meta, message) {
        Ok(_) => None,
        Err(SendError::Full(message) | SendError::Closed(message)) => Some(message),
    }
}

/// The 1st, 10th, 100th … time: a flood writes no flood into the log.
fn worth_a_line(count: u64) -> bool {
    count > 0 && 10_u64.pow(count.ilog10()) == count
}
