//! One WebSocket text frame to one typed message, and back.

use model::ResourceKind;
use serde::Deserialize;

use super::envelope::{Envelope, Header, Route};
use super::frame::{Body, BodyError, Frame};
use super::resource::Resource;
use crate::json::{DEPTH_MAX, Object, is_deeper_than, object_or_default};

/// Longest text frame in either direction, in bytes.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Why a text is no message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("a frame has at most {FRAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`]: whoever reads the object later could not.
    #[error("a frame is nested at most {DEPTH_MAX} deep")]
    TooDeep,
    /// Not JSON, or not an envelope. There is no id to answer to.
    #[error("failed to read a frame as an envelope")]
    Envelope(#[source] serde_json::Error),
    /// An envelope, but no message of this direction. It is answered with a refusal where it has an id.
    #[error("failed to read an envelope as a message")]
    Body {
        /// The envelope, for the refusal.
        envelope: Box<Envelope>,
        /// Why.
        #[source]
        source: BodyError,
    },
}

/// A message that is too large to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame has at most {FRAME_BYTES_MAX} bytes, this one would have {bytes}")]
pub struct EncodeError {
    /// Its length.
    pub bytes: usize,
}

/// Decodes one text frame of either direction: `decode::<Upstream>` in the cloud, `decode::<Downstream>` at the edge.
///
/// # Errors
/// [`DecodeError`]; the connection can stay after each of them.
pub fn decode<B: Body>(text: &str) -> Result<Frame<B>, DecodeError> {
    let envelope = decode_envelope(text)?;
    Frame::from_envelope(&envelope).map_err(|source| DecodeError::Body { envelope: Box::new(envelope), source })
}

/// Decodes one text frame up to its envelope.
///
/// # Errors
/// [`DecodeError`], never `Body`.
pub fn decode_envelope(text: &str) -> Result<Envelope, DecodeError> {
    if text.len() > FRAME_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: text.len() });
    }
    if is_deeper_than(text.as_bytes(), DEPTH_MAX) {
        return Err(DecodeError::TooDeep);
    }
    serde_json::from_str::<Object<Envelope>>(text).map(|object| object.0).map_err(DecodeError::Envelope)
}

/// What a text frame says of itself before anybody looks at its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Who, when.
    pub header: Header,
    /// From where to where.
    pub route: Route,
    /// Whether the content may be a secret: a Secret, a token, or a thing that is not known. Such a text is not to be
    /// kept outside the place that is made for it.
    pub is_secret: bool,
}

/// Reads header and route of a text frame and passes over the rest. `None` for what is no envelope.
pub fn head(text: &str) -> Option<Head> {
    #[derive(Deserialize)]
    struct Outer {
        #[serde(default, deserialize_with = "object_or_default")]
        header: Header,
        #[serde(default, deserialize_with = "object_or_default")]
        route: Route,
    }
    if text.len() > FRAME_BYTES_MAX || is_deeper_than(text.as_bytes(), DEPTH_MAX) {
        return None;
    }
    let Outer { header, route } = serde_json::from_str::<Object<Outer>>(text).ok()?.0;
    let is_secret = match Resource::of(&route) {
        Ok(Resource::Object(key)) => matches!(key.kind, ResourceKind::Secret | ResourceKind::ServiceAccountToken),
        Ok(
            Resource::Keepalive
            | Resource::Held
            | Resource::MembershipDetail
            | Resource::Membership
            | Resource::TwinCloudUpdated(_)
            | Resource::TwinEdgeUpdated(_)
            | Resource::DeviceState(_)
            | Resource::Device(_)
            | Resource::Twin
            | Resource::Topic(_),
        ) => false,
        Ok(Resource::Other(_)) | Err(_) => true,
    };
    Some(Head { header, route, is_secret })
}

/// Encodes one message as a text frame.
///
/// # Errors
/// [`EncodeError`] above [`FRAME_BYTES_MAX`]: the peer would refuse it.
pub fn encode<B: Body>(frame: &Frame<B>) -> Result<String, EncodeError> {
    encode_envelope(&frame.to_envelope())
}

/// Encodes one envelope as a text frame.
///
/// # Errors
/// As [`encode`].
pub fn encode_envelope(envelope: &Envelope) -> Result<String, EncodeError> {
    let text = serde_json::to_string(envelope).expect("an envelope has text keys only and always serialises");
    if text.len() > FRAME_BYTES_MAX {
        return Err(EncodeError { bytes: text.len() });
    }
    Ok(text)
}
