//! How a frame of a node enters the controllers, and how it enters again out of the quarantine.

use std::sync::Arc;

use actor::{Ingress, Meta, Quarantine, Quarantined, SendError};
use bytes::Bytes;
use model::{Clock as _, NodeName, SystemClock};
use wire::hub::{Frame, MsgId, Upstream, codec};
use wire::link::Answer;

use super::Hub;
use super::credit::Credit;
use crate::device_controller::DeviceControllerMessage;
use crate::edge_controller::upstream::UpstreamMessage;

/// Name of this border in the quarantine.
const BORDER: &str = "node";

/// Whom a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recipient {
    /// EdgeController.
    Upstream,
    /// The device controller.
    Devices,
    /// The session itself.
    CloudHub,
}

/// Whom a frame of `node` is for.
///
/// # Errors
/// A sentence for the node: it speaks of itself only.
pub(super) fn recipient(node: &NodeName, body: &Upstream) -> Result<Recipient, String> {
    match body {
        Upstream::NodeRegister { node: other, .. } | Upstream::NodeStatus { node: other, .. } | Upstream::MembershipGet { node: other, .. }
            if other != node =>
        {
            Err(format!("this connection is for node `{node}`, not for `{other}`"))
        }
        Upstream::NodeRegister { .. }
        | Upstream::NodeStatus { .. }
        | Upstream::PodStatus { .. }
        | Upstream::Event { .. }
        | Upstream::Query { .. } => Ok(Recipient::Upstream),
        Upstream::MembershipGet { .. } | Upstream::TwinReport { .. } | Upstream::DeviceStateReport { .. } => Ok(Recipient::Devices),
        Upstream::Keepalive | Upstream::Held(_) | Upstream::Ack { .. } | Upstream::Refusal { .. } | Upstream::Upload { .. } => {
            Ok(Recipient::CloudHub)
        }
    }
}

/// The header of the message that a frame becomes: the frame's own identity and the last of its causes, so that it is one
/// message at the edge and here. Of a node that gives its frames other ids than UUIDs it is a fresh one.
pub(super) fn meta_of(node: &NodeName, frame: &Frame<Upstream>, text: Bytes) -> Meta {
    let parent = frame.cause.last().or(frame.parent.as_ref());
    let meta = Meta::named(frame.id.as_str(), parent.map(MsgId::as_str), BORDER);
    log::debug!(id:% = meta.id, parent:% = meta.parent_or_dash(), node:% = node, kind = frame.body.kind(); "frame of a node arrived");
    // No frame to the cloud holds a secret: objects go down only.
    meta.entered(Ingress { border: BORDER.into(), address: node.to_string(), payload: Some(text) })
}

/// Says to the quarantine how a message of a node enters again, and that its node is refused it when it is set aside: a
/// refusal is an answer, and the node does not send it for ever.
pub fn attach(quarantine: &Quarantine, hub: &Arc<Hub>) {
    let inward = hub.clone();
    quarantine.on_retry(move |ingress| again(&inward, ingress));
    let outward = hub.clone();
    quarantine.on_buried(move |buried| set_aside(&outward, buried));
}

fn again(hub: &Hub, ingress: &Ingress) -> Result<(), String> {
    if ingress.border != BORDER {
        return Err(format!("this version knows no border `{}`; drop the message", ingress.border));
    }
    let node = NodeName::new(&ingress.address).map_err(|error| error.to_string())?;
    let bytes = ingress.payload.clone().unwrap_or_default();
    let text = std::str::from_utf8(&bytes).map_err(|_| "its bytes are no frame: a frame is UTF-8".to_owned())?;
    let frame = codec::decode::<Upstream>(text).map_err(|error| actor::chain(&error))?;
    let recipient = recipient(&node, &frame.body)?;
    let meta = meta_of(&node, &frame, bytes.clone());
    // Not of the session's budget: an administrator lets in one at a time.
    let credit = Credit::default();
    match recipient {
        Recipient::Upstream => taken(hub.peers.upstream.try_post(meta, UpstreamMessage::FromEdge { node, frame, credit })),
        Recipient::Devices => taken(hub.peers.devices.try_post(meta, DeviceControllerMessage::FromEdge { node, frame, credit })),
        Recipient::CloudHub => Err("it is for a session that is gone; drop the message".to_owned()),
    }
}

fn taken<M>(sent: Result<actor::MsgId, SendError<M>>) -> Result<(), String> {
    sent.map(drop).map_err(|error| format!("its controller does not take it: {error}; try again"))
}

fn set_aside(hub: &Hub, buried: &Quarantined) {
    let Some(ingress) = buried.ingress.as_ref().filter(|ingress| ingress.border == BORDER) else { return };
    let text = ingress.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok());
    let (Ok(name), Some(Ok(frame))) = (NodeName::new(&ingress.address), text.map(codec::decode::<Upstream>)) else { return };
    // Not connected: it says it again in its next session, and hears of it then.
    let Some(node) = hub.nodes.get(&name) else { return };
    let reason = format!("the cloud could not handle this message; it was set aside as {}", buried.id);
    if !node.answer(Answer::Frame(frame.refusal(MsgId::random(), SystemClock.now(), reason))) {
        log::warn!(node:% = name, id = buried.id.as_str(); "too many answers wait: the node does not hear that its message was set aside");
    }
}
