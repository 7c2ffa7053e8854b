//! The border: MQTT topic and bytes become a message for one module, or an answer.
//!
//! [`classify`] is pure. [`Ingress`] runs it on the embedded broker's thread, or on the client library's for another broker, and tries the module's mailbox, never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actor::{EventKind, Handle, Held, Mail, Meta, MsgId, Quarantined, SendError};
use bytes::Bytes;
use log::warn;
use model::{Clock, NodeName};
use wire::mqtt::Topic;
use wire::mqtt::payload::{Fault, Get, Rejection, StateUpdate, TwinUpdate, answer};

use super::credits::Credits;
use super::echo::Echoes;
use super::forms::Forms;
use super::transport::Inbound;
use super::{EventBusMessage, Peers};
use crate::communication::CommunicationMessage;
use crate::device::DeviceMessage;
use crate::membership::MembershipMessage;
use crate::twin::TwinMessage;

/// Name of this border in the quarantine.
pub(crate) const BORDER: &str = "mqtt";

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

/// A module's mailbox takes nothing more.
enum NoRoom {
    /// Whoever asked can be answered.
    Asked { module: &'static str, id: MsgId, topic: Topic, event_id: String },
    /// Nobody hears an answer.
    Silent(&'static str),
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
    /// Messages that this daemon had published itself.
    pub echoed: u64,
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
    echoes: Arc<Echoes>,
    peers: Peers,
    credits: Option<Arc<Credits>>,
    refused: AtomicU64,
    busy: AtomicU64,
    dropped: AtomicU64,
    ignored: AtomicU64,
    echoed: AtomicU64,
}

impl Ingress {
    /// The border of that node.
    pub fn new(node: NodeName, clock: Arc<dyn Clock>, forms: Arc<Forms>, echoes: Arc<Echoes>, peers: Peers) -> Self {
        let zero = || AtomicU64::new(0);
        Self { node, clock, forms, echoes, peers, credits: None, refused: zero(), busy: zero(), dropped: zero(), ignored: zero(), echoed: zero() }
    }

    /// The same border, where requests give back their credits when they are settled.
    pub fn with_credits(self, credits: Arc<Credits>) -> Self {
        Self { credits: Some(credits), ..self }
    }

    /// Counters.
    pub fn figures(&self) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            refused: read(&self.refused),
            busy: read(&self.busy),
            dropped: read(&self.dropped),
            ignored: read(&self.ignored),
            echoed: read(&self.echoed),
        }
    }

    /// Gives a message to its module, or says that there is no room. A request that is refused is answered here.
    fn enter(&self, text: &str, payload: &[u8], held: Option<Held>) -> Result<(), NoRoom> {
        let Ok(topic) = Topic::parse(text) else {
            self.ignore(text);
            return Ok(());
        };
        if self.echoes.is_echo(&topic, text, payload) {
            let count = self.echoed.fetch_add(1, Ordering::Relaxed) + 1;
            if worth_a_line(count) {
                warn!(topic:? = text, echoed = count; "a broker brought back what this daemon had published; it is passed over");
            }
            return Ok(());
        }
        let kept = (payload.len() <= Quarantined::PAYLOAD_MAX).then(|| Bytes::copy_from_slice(payload));
        let meta = Meta::new(BORDER).entered(actor::Ingress { border: BORDER.into(), address: text.to_owned(), payload: kept }).holding(held);
        log::debug!(id:% = meta.id, topic:? = text; "MQTT message arrived");
        self.forms.hear(&topic, text);
        match classify(&self.node, topic, text, payload) {
            // Order across modules: what Membership has taken by now is done before this message.
            Inward::Twin(message) => self.twin(meta.behind(self.peers.membership.ticket()), message),
            Inward::Device(message) => match full(&self.peers.device, meta.behind(self.peers.membership.ticket()), message) {
                None => Ok(()),
                Some(_) => Err(NoRoom::Silent("device")),
            },
            Inward::Membership(message) => self.membership(meta, message),
            Inward::Upload(message) => match full(&self.peers.communication, meta, message) {
                None => Ok(()),
                Some(_) => Err(NoRoom::Silent("communication")),
            },
            Inward::Refused(result) => {
                let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                if worth_a_line(count) {
                    warn!(topic:% = result.topic, reason:% = result.fault, refused = count; "an MQTT request was refused");
                }
                self.answer(&meta, result);
                Ok(())
            }
            Inward::Ignored(_) => {
                self.ignore(text);
                Ok(())
            }
        }
    }

    /// Lets a message enter again, as if a broker had delivered it now.
    ///
    /// # Errors
    /// A sentence for the administrator: there is no room.
    pub(crate) fn again(&self, ingress: &actor::Ingress) -> Result<(), String> {
        let payload = ingress.payload.as_deref().unwrap_or_default();
        self.enter(&ingress.address, payload, None).map_err(|no_room| {
            let module = match no_room {
                NoRoom::Asked { module, .. } | NoRoom::Silent(module) => module,
            };
            format!("the mailbox of {module} is full; try again")
        })
    }

    /// What the sender of a message hears that was set aside: an error result where the result would have been.
    pub(crate) fn set_aside(&self, buried: &Quarantined, ingress: &actor::Ingress) {
        let payload = ingress.payload.as_deref().unwrap_or_default();
        let topic = Topic::parse(&ingress.address).ok().and_then(|topic| result_of(&self.node, topic));
        let Some(topic) = topic else { return };
        let fault = Fault::Internal(format!("the daemon could not handle this request; it was set aside as {}", buried.id));
        let meta = Meta::caused_by(buried.id.parse().ok(), "quarantine");
        self.publish(meta, ErrorResult { topic, event_id: event_id_in(payload), fault });
    }

    fn twin(&self, meta: Meta, message: TwinMessage) -> Result<(), NoRoom> {
        let id = meta.id;
        let asked = |topic, event_id| Err(NoRoom::Asked { module: "twin", id, topic, event_id });
        match full(&self.peers.twin, meta, message) {
            None => Ok(()),
            Some(TwinMessage::Update { device, request }) => asked(Topic::TwinUpdateResult(device), request.event_id),
            Some(TwinMessage::Report { device, event_id, .. }) => asked(Topic::TwinUpdateResult(device), event_id),
            Some(TwinMessage::Get { device, event_id }) => asked(Topic::TwinGetResult(device), event_id),
            // The border makes none.
            Some(TwinMessage::CloudSync { .. }) => Err(NoRoom::Silent("twin")),
        }
    }

    fn membership(&self, meta: Meta, message: MembershipMessage) -> Result<(), NoRoom> {
        let id = meta.id;
        match full(&self.peers.membership, meta, message) {
            None => Ok(()),
            Some(MembershipMessage::Get { event_id }) => {
                Err(NoRoom::Asked { module: "membership", id, topic: Topic::MembershipGetResult(self.node.clone()), event_id })
            }
            // The border makes no other one.
            Some(MembershipMessage::Detail { .. } | MembershipMessage::Update { .. }) => Err(NoRoom::Silent("membership")),
        }
    }

    fn say_busy(&self, id: MsgId, topic: Topic, event_id: String) {
        let count = self.busy.fetch_add(1, Ordering::Relaxed) + 1;
        if worth_a_line(count) {
            warn!(topic:% = topic, busy = count; "a request was answered 500: its module's mailbox is full");
        }
        let result = ErrorResult { topic, event_id, fault: Fault::Internal("too many requests at once, try again".into()) };
        self.publish(Meta::caused_by(Some(id), BORDER), result);
    }

    fn answer(&self, request: &Meta, result: ErrorResult) {
        // The answer holds what the request held until it is on its way out: a flood of nonsense waits like any other.
        self.publish(Meta::child_of(request, BORDER).holding(request.held.clone()), result);
    }

    fn publish(&self, meta: Meta, ErrorResult { topic, event_id, fault }: ErrorResult) {
        let payload = answer::error_result(&event_id, self.clock.now(), &fault);
        if full(&self.peers.own, meta, EventBusMessage::Publish { topic, payload }).is_some() {
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
        let credit = self.credits.as_ref().and_then(|credits| credits.arrived(text));
        match self.enter(text, payload, credit.map(Held::new)) {
            Ok(()) => {}
            Err(NoRoom::Asked { id, topic, event_id, .. }) => self.say_busy(id, topic, event_id),
            Err(NoRoom::Silent(module)) => self.drop_one(module),
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

/// Where the result of a request is published; `None` for what is no request.
fn result_of(node: &NodeName, request: Topic) -> Option<Topic> {
    match request {
        Topic::TwinUpdate(device) | Topic::TwinCloudUpdated(device) => Some(Topic::TwinUpdateResult(device)),
        Topic::TwinGet(device) => Some(Topic::TwinGetResult(device)),
        Topic::DeviceStateUpdate(device) => Some(Topic::DeviceStateUpdateResult(device)),
        Topic::MembershipGet { .. } => Some(Topic::MembershipGetResult(node.clone())),
        Topic::Upload(_)
        | Topic::UploadRecords
        | Topic::User(_)
        | Topic::Custom(_)
        | Topic::MembershipGetResult(_)
        | Topic::MembershipUpdated(_)
        | Topic::AuthInfoGetResult(_)
        | Topic::DeviceStateUpdateResult(_)
        | Topic::DeviceUpdated(_)
        | Topic::TwinUpdateResult(_)
        | Topic::TwinUpdateDocument(_)
        | Topic::TwinUpdateDelta(_)
        | Topic::TwinGetResult(_)
        | Topic::NodeConnection => None,
    }
}

/// The request's own name for itself; empty where there is none.
fn event_id_in(payload: &[u8]) -> String {
    // All requests have it at the same place, and each parser gives it also where the rest is wrong.
    match Get::parse_twin(payload) {
        Ok(Get { event_id, .. }) | Err(Rejection { event_id, .. }) => event_id,
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
pub(super) fn worth_a_line(count: u64) -> bool {
    count > 0 && 10_u64.pow(count.ilog10()) == count
}
