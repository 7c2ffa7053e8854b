//! How a frame of the cloud enters, and how it enters again out of the quarantine.

use actor::{Handle, Ingress, Meta, Quarantined};
use bytes::Bytes;
use model::Timestamp;
use wire::hub::codec::{self, Head};
use wire::hub::{Frame, MsgId, Operation, Resource, Route, Upstream};

use super::EdgeHubMessage;

/// Name of this border in the quarantine.
pub(crate) const BORDER: &str = "cloud";

/// The header of the message that a frame becomes: the frame's own identity, so that it is one message here and in the
/// cloud. The text is kept for a second entry, but not that of a secret, nor one that the quarantine would not keep.
pub(super) fn meta_of(text: &str) -> Meta {
    let Some(Head { header, route, is_secret }) = codec::head(text) else { return Meta::new(BORDER) };
    let cause = header.cause.last().filter(|cause| !cause.is_empty()).unwrap_or(&header.parent_msg_id);
    let meta = Meta::named(&header.msg_id, Some(cause), BORDER);
    log::debug!(id:% = meta.id, parent:% = meta.parent_or_dash(), resource:? = route.resource; "frame of the cloud arrived");
    let keeps = !is_secret && text.len() <= Quarantined::PAYLOAD_MAX;
    let payload = keeps.then(|| Bytes::copy_from_slice(text.as_bytes()));
    meta.entered(Ingress { border: BORDER.into(), address: route.resource, payload })
}

/// Lets a frame enter again, as if the cloud had sent it now.
///
/// # Errors
/// A sentence for the administrator: there is no room.
pub(crate) fn again(own: &Handle<EdgeHubMessage>, ingress: &Ingress) -> Result<(), String> {
    let payload = ingress.payload.as_deref().unwrap_or_default();
    let text = String::from_utf8(payload.to_vec()).map_err(|_| "its bytes are no frame: a frame is UTF-8".to_owned())?;
    let meta = meta_of(&text);
    own.try_post(meta, EdgeHubMessage::Received { session: 0, text })
        .map(drop)
        .map_err(|error| format!("EdgeHub does not take it: {error}; try again"))
}

/// The refusal of a message that is set aside, so that the cloud does not send it for ever. `None` for an answer: two peers
/// that answer answers never end.
pub(crate) fn refusal(buried: &Quarantined, ingress: &Ingress, now: Timestamp) -> Option<Frame<Upstream>> {
    let head = ingress.payload.as_deref().and_then(|payload| std::str::from_utf8(payload).ok()).and_then(codec::head);
    let (id, route) = match head {
        Some(Head { route, .. }) if matches!(route.operation, Operation::Response | Operation::Error) => return None,
        Some(Head { header, route, .. }) => (header.msg_id, route),
        // Its bytes are not kept: a secret, or a large object. Its identity is that of the frame.
        None => (buried.id.clone(), Route { resource: ingress.address.clone(), ..Route::default() }),
    };
    let resource = Resource::of(&route).unwrap_or(Resource::Other(route.resource));
    let reason = format!("the node could not handle this message; it was set aside as {}", buried.id);
    Some(Frame::answer(MsgId::random(), MsgId::new(&id).ok()?, now, Upstream::Refusal { resource, reason }))
}
